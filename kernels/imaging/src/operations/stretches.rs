//! Region growing for a person who waits for it: the stretches of the region alone, found row by row as
//! it spreads. What the region never touches is never read, so that a small region in a large volume
//! costs what it is, and no mask of the volume is made.

use std::ops::Range;

use super::region::{Voxel, indices};
use crate::error::ImagingError;
use crate::volume::Image;

/// The runs of one row that pass the test, each with whether the region has reached it.
type Row = Vec<(usize, usize, bool)>;

/// Rows as they are found out.
struct Rows<'a> {
    image: &'a Image,
    lower: f32,
    upper: f32,
    known: Vec<Option<Row>>,
}

impl Rows<'_> {
    /// The runs of a row, looked for when it is first touched.
    fn of(&mut self, row: usize) -> &mut Row {
        let width = self.image.geometry.size[0];
        let (image, lower, upper) = (self.image, self.lower, self.upper);
        self.known[row].get_or_insert_with(|| {
            let values = &image.voxels[row * width..(row + 1) * width];
            let passes = |value: &f32| *value >= lower && *value <= upper;
            let mut runs = Vec::new();
            let mut at = 0;
            while let Some(skip) = values[at..].iter().position(passes) {
                let start = at + skip;
                let rest = &values[start..];
                let length = rest.iter().position(|value| !passes(value)).unwrap_or(rest.len());
                runs.push((start, start + length, false));
                at = start + length;
            }
            runs
        })
    }

    /// Reaches the runs of a row that share a column with a stretch.
    fn reach(&mut self, row: usize, start: usize, end: usize, waiting: &mut Vec<[usize; 3]>) {
        let runs = self.of(row);
        let first = runs.partition_point(|(_, behind, _)| *behind <= start);
        for (begin, behind, reached) in &mut runs[first..] {
            if *begin >= end {
                break;
            }
            if !std::mem::replace(reached, true) {
                waiting.push([row, *begin, *behind]);
            }
        }
    }
}

/// Returns the voxels with `lower` ≤ value ≤ `upper` that are face-connected to the seed, as
/// stretches of positions in the voxels' vector, in their order: what
/// [`connected_threshold`](super::region::connected_threshold) marks.
pub fn connected_stretches(
    image: &Image,
    seed: Voxel,
    lower: f32,
    upper: f32,
) -> Result<Vec<Range<usize>>, ImagingError> {
    let seed = indices(&image.geometry, &[seed], "connected_stretches")?[0];
    let [width, height, depth] = image.geometry.size;
    let mut rows = Rows { image, lower, upper, known: vec![None; height * depth] };
    let mut waiting = Vec::new();
    rows.reach(seed / width, seed % width, seed % width + 1, &mut waiting);
    while let Some([row, start, end]) = waiting.pop() {
        let (y, z) = (row % height, row / height);
        let beside = [
            (y > 0).then(|| row - 1),
            (y + 1 < height).then_some(row + 1),
            (z > 0).then(|| row - height),
            (z + 1 < depth).then_some(row + height),
        ];
        for other in beside.into_iter().flatten() {
            rows.reach(other, start, end, &mut waiting);
        }
    }
    let known = rows.known.iter().enumerate().filter_map(|(row, runs)| Some((row, runs.as_ref()?)));
    let stretches = known.flat_map(|(row, runs)| {
        let reached = runs.iter().filter(|(.., reached)| *reached);
        reached.map(move |(start, end, _)| row * width + start..row * width + end)
    });
    Ok(stretches.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbourhood::Connectivity;
    use crate::phantom::{PhantomSettings, patient};
    use crate::region::{ConnectedThreshold, connected_threshold};

    #[test]
    fn stretches_are_what_connected_threshold_marks() {
        let image = patient(5, &PhantomSettings::default()).image;
        for (seed, lower, upper) in [
            ([48, 48, 12], -20.0, 90.0),
            ([30, 50, 12], -950.0, -600.0),
            ([0, 0, 0], -1100.0, -900.0),
            ([95, 95, 23], -2000.0, 4000.0),
            ([48, 48, 12], 3000.0, 4000.0),
        ] {
            let connectivity = Connectivity::Face;
            let parameters = ConnectedThreshold { lower, upper, connectivity };
            let mask = connected_threshold(&image, &[seed], &parameters).unwrap();
            let mut found = vec![0; mask.voxels.len()];
            for stretch in connected_stretches(&image, seed, lower, upper).unwrap() {
                found[stretch].fill(1);
            }
            assert!(found == mask.voxels, "{seed:?} {lower} {upper}");
        }
        assert!(connected_stretches(&image, [96, 0, 0], 0.0, 1.0).is_err());
    }
}
