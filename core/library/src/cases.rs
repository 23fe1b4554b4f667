//! Cases by their embeddings, and which of them are nearest to another.
//!
//! Embeddings lie one after the other in memory, each of length 1, so that a search is one read of
//! them all: a million of 64 numbers are 256 MB, which the memory gives in about ten milliseconds.
//! Nothing is left out and nothing is estimated. The cores share the rows; how many there are
//! changes no bit of what is found.

use std::cmp::Ordering;
use std::thread;

use crate::ids::{PatientKey, SeriesId};

/// Numbers that are multiplied side by side: the compiler makes vectors of them, and sums them in
/// the same order on every processor.
const LANES: usize = 16;
/// Numbers that are worth a thread of their own: a mebibyte.
const NUMBERS_PER_THREAD_MIN: usize = 1 << 18;
/// Threads of a search: more wait for the same memory.
const THREADS_MAX: usize = 16;

/// Cases whose embeddings have the same width, as those of one model have.
#[derive(Clone, Debug, Default)]
pub struct Cases {
    width: usize,
    /// Of length 1 each, or 0.
    rows: Vec<f32>,
    series: Vec<u64>,
    patients: Vec<u64>,
}

/// A case that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Near {
    /// Its place in the order in which cases were added.
    pub place: usize,
    /// One minus the cosine of the angle between the embeddings: 0 is the same direction. An
    /// embedding without a length is 1 away from all.
    pub distance: f32,
}

impl Cases {
    /// No cases yet, of embeddings of this width.
    #[must_use]
    pub const fn new(width: usize) -> Self {
        Self { width, rows: Vec::new(), series: Vec::new(), patients: Vec::new() }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Adds a case. One whose embedding has another width is left out, and the answer says so.
    pub fn add(&mut self, series: &SeriesId, patient: &PatientKey, embedding: &[f32]) -> bool {
        if embedding.len() != self.width {
            return false;
        }
        self.rows.extend(unit(embedding));
        self.series.push(series.number());
        self.patients.push(patient.number());
        true
    }

    /// Cases of embeddings that have the length 1 already, one after the other; none where their numbers
    /// do not fit together.
    pub(crate) fn of_units(
        width: usize,
        rows: Vec<f32>,
        series: Vec<u64>,
        patients: Vec<u64>,
    ) -> Option<Self> {
        let fits = series.len() == patients.len() && rows.len() == width * series.len();
        fits.then_some(Self { width, rows, series, patients })
    }

    /// Adds a case whose embedding, of the right width, has the length 1 already.
    pub(crate) fn add_unit(&mut self, series: u64, patient: u64, embedding: &[f32]) {
        debug_assert_eq!(embedding.len(), self.width);
        self.rows.extend(embedding);
        self.series.push(series);
        self.patients.push(patient);
    }

    /// The series, patient and embedding in a place.
    pub(crate) fn at(&self, place: usize) -> (u64, u64, &[f32]) {
        let row = &self.rows[place * self.width..(place + 1) * self.width];
        (self.series[place], self.patients[place], row)
    }

    /// The places of a series.
    pub(crate) fn places_of(&self, series: u64) -> impl Iterator<Item = usize> {
        let all = self.series.iter().enumerate();
        all.filter(move |(_, own)| **own == series).map(|(place, _)| place)
    }

    /// The cases nearest to an embedding, nearest first; ties in the order of their series. Cases of
    /// this patient are passed over, and a series that was added twice is one case, at its smaller
    /// distance. An embedding of another width has none.
    ///
    /// # Panics
    /// Never but where a thread of the search does.
    #[must_use]
    pub fn nearest(&self, to: &[f32], patient: &PatientKey, count: usize) -> Vec<Near> {
        if to.len() != self.width || count == 0 {
            return Vec::new();
        }
        let to: Vec<f32> = unit(to).collect();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = (self.rows.len() / NUMBERS_PER_THREAD_MIN).clamp(1, cores.min(THREADS_MAX));
        let share = self.len().div_ceil(threads).max(1);
        let (to, patient) = (&to[..], patient.number());
        let search = |first: usize| {
            let mut best = Best { all: Vec::new(), count };
            self.search(first..(first + share).min(self.len()), to, patient, &mut best);
            best
        };
        let firsts = (0..self.len()).step_by(share);
        let parts: Vec<Best> = thread::scope(|scope| {
            // The first share is this thread's own.
            let others: Vec<_> =
                firsts.clone().skip(1).map(|first| scope.spawn(move || search(first))).collect();
            let own = firsts.take(1).map(search);
            let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            own.chain(others.into_iter().map(join)).collect()
        });
        let mut best = Best { all: Vec::new(), count };
        for found in parts.into_iter().flat_map(|part| part.all) {
            best.offer(found);
        }
        best.all.iter().map(|one| Near { place: one.place, distance: one.distance }).collect()
    }

    fn search(&self, range: std::ops::Range<usize>, to: &[f32], patient: u64, best: &mut Best) {
        for place in range {
            let (series, of, row) = self.at(place);
            let distance = 1.0 - product(row, to);
            if distance <= best.worst() && of != patient {
                best.offer(Found { distance, series, place });
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Found {
    distance: f32,
    series: u64,
    place: usize,
}

impl Found {
    fn order(&self, other: &Self) -> Ordering {
        let (a, b) = (self, other);
        a.distance.total_cmp(&b.distance).then(a.series.cmp(&b.series)).then(a.place.cmp(&b.place))
    }
}

/// The nearest so far, nearest first, of each series one.
struct Best {
    all: Vec<Found>,
    count: usize,
}

impl Best {
    /// What is farther than this is none of them.
    fn worst(&self) -> f32 {
        if self.all.len() < self.count { f32::INFINITY } else { self.all[self.count - 1].distance }
    }

    fn offer(&mut self, found: Found) {
        if let Some(known) = self.all.iter().position(|one| one.series == found.series) {
            if self.all[known].order(&found).is_le() {
                return;
            }
            self.all.remove(known);
        }
        let place = self.all.partition_point(|one| one.order(&found).is_lt());
        if place < self.count {
            self.all.insert(place, found);
            self.all.truncate(self.count);
        }
    }
}

/// An embedding at length 1; one without a length stays 0.
pub(crate) fn unit(embedding: &[f32]) -> impl Iterator<Item = f32> {
    let length = product(embedding, embedding).sqrt();
    let factor = if length > 0.0 { 1.0 / length } else { 0.0 };
    embedding.iter().map(move |one| one * factor)
}

/// The sum of the products of two rows of the same length.
#[allow(clippy::needless_range_loop, reason = "loops by number are made into vectors")]
fn product(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += a * b;
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from -1 to 1 that look random.
    fn numbers(count: usize, mut state: u32) -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn series(number: usize) -> SeriesId {
        format!("{number:016x}").parse().unwrap()
    }

    fn patient(number: usize) -> PatientKey {
        format!("{number:016x}").parse().unwrap()
    }

    /// Every distance by plain arithmetic of 64 bits, sorted.
    fn plain(rows: &[Vec<f32>], to: &[f32]) -> Vec<(usize, f64)> {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let distance = |row: &Vec<f32>| 1.0 - dot(row, to) / (dot(row, row) * dot(to, to)).sqrt();
        let mut all: Vec<_> = rows.iter().map(distance).enumerate().collect();
        all.sort_by(|a, b| a.1.total_cmp(&b.1));
        all
    }

    #[test]
    fn the_search_finds_what_comparing_with_each_finds() {
        // Widths beside the lanes, and rows enough for several threads.
        for (width, count) in [(1, 50), (7, 400), (16, 1000), (33, 40_000), (64, 9000)] {
            let all = numbers(width * count, 7);
            let rows: Vec<Vec<f32>> = all.chunks_exact(width).map(<[f32]>::to_vec).collect();
            let mut cases = Cases::new(width);
            for (number, row) in rows.iter().enumerate() {
                assert!(cases.add(&series(number), &patient(number), row));
            }
            let to = numbers(width, 99);
            let near = cases.nearest(&to, &patient(count), 9);
            assert_eq!((near.len(), cases.len()), (9, count));
            for (found, (place, distance)) in near.iter().zip(plain(&rows, &to)) {
                let apart = (f64::from(found.distance) - distance).abs();
                assert!(apart < 1e-5, "{width}: {found:?} is not {distance}");
                // Those that are level may stand in another order.
                assert!(width == 1 || found.place == place, "{width}: {found:?} is not {place}");
            }
        }
    }

    #[test]
    fn own_images_and_second_predictions_are_passed_over_and_ties_go_by_series() {
        let mut cases = Cases::new(2);
        for (number, who, embedding) in [
            (5, 1, [1.0, 0.0]),
            (4, 1, [2.0, 0.0]),
            (4, 1, [0.0, 1.0]),
            (9, 7, [1.0, 0.0]),
            (3, 2, [0.0, 3.0]),
            (2, 2, [0.0, 0.0]),
        ] {
            cases.add(&series(number), &patient(who), &embedding);
        }
        let of = |count| -> Vec<(usize, f32)> {
            let near = cases.nearest(&[1.0, 0.0], &patient(7), count);
            near.iter().map(|one| (one.place, one.distance)).collect()
        };
        // Series 4 and 5 lie in the same direction; 2 has no direction at all.
        let wanted = [(1, 0.0), (0, 0.0), (5, 1.0), (4, 1.0)];
        for count in 0..6 {
            assert_eq!(of(count), wanted[..count.min(4)], "{count}");
        }
        assert!(cases.nearest(&[1.0], &patient(7), 3).is_empty());
        assert!(!cases.add(&series(1), &patient(1), &[1.0]));
    }
}
