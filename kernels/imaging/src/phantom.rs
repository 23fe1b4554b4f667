//! Phantom patients: CT-like chests, drawn from a number, for demonstrations and tests without data.
//!
//! A patient is a set of shapes in millimetres (body, fat, muscle, lungs with vessels and lesions,
//! heart, liver, spine, ribs, windpipe, table) whose sizes and places come from the patient's number
//! alone. The same number and settings give the same bytes on every machine and any number of
//! threads. The true masks come with the image, so that what a pipeline or a network finds can be
//! measured against them.
//!
//! These are teaching models of a chest, not measurements of one: good for exercising every step of
//! the chain, useless for judging how well a method works on people.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::gaussian::{Gaussian, gaussian};
use crate::neighbourhood::Space;
use crate::volume::{Geometry, Image, Mask};

/// How phantoms are scanned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PhantomSettings {
    /// The number of voxels along x, y and z. Default: 96 × 96 × 24.
    pub size: [usize; 3],
    /// The voxels' size in millimetres. Default: 3.5 × 3.5 × 8. The patient is scaled to fill the
    /// slice, whatever its size.
    pub spacing_mm: [f64; 3],
    /// The standard deviation of the noise, in Hounsfield units. Default: 18.
    pub noise_hu: f32,
    /// The most lesions a patient has; patients have 0 to this many. Default: 3.
    pub lesions_max: u32,
}

impl Default for PhantomSettings {
    fn default() -> Self {
        Self { size: [96, 96, 24], spacing_mm: [3.5, 3.5, 8.0], noise_hu: 18.0, lesions_max: 3 }
    }
}

/// A scanned phantom and the truth about it.
#[derive(Debug, Clone, PartialEq)]
pub struct PhantomPatient {
    /// The scan in Hounsfield units, whole numbers.
    pub image: Image,
    /// Label 1 in the lungs, with their vessels and lesions.
    pub lungs: Mask,
    /// Label 1 in the lesions.
    pub lesions: Mask,
}

/// The most lesions that settings may ask for.
pub const LESIONS_MAX: u32 = 20;

/// Returns the patient with this number. More lesions than [`LESIONS_MAX`] count as that many.
///
/// # Panics
/// Panics where the settings' grid is none: a spacing that is not positive, or more voxels than
/// [`VOXELS_MAX`](crate::volume::VOXELS_MAX).
#[must_use]
pub fn patient(number: u32, settings: &PhantomSettings) -> PhantomPatient {
    let PhantomSettings { size, spacing_mm, noise_hu, lesions_max } = *settings;
    let half = |axis: usize| (size[axis] as f64 - 1.0) / 2.0 * spacing_mm[axis];
    let origin_mm = [0, 1, 2].map(|axis| -half(axis));
    let geometry = Geometry { origin_mm, ..Geometry::new(size, spacing_mm) };
    if let Err(error) = geometry.check() {
        panic!("a phantom cannot be scanned so: {error}");
    }
    // The chest is drawn for a slice of 336 mm and a scan of 192 mm, and scaled to the one at hand.
    let extent = |axis: usize| size[axis] as f64 * spacing_mm[axis];
    let across = extent(0).min(extent(1)) / 336.0;
    let scale = [across, across, extent(2) / 192.0];
    let anatomy = Anatomy::new(number, lesions_max.min(LESIONS_MAX));
    let tissues: Vec<Tissue> = (0..geometry.voxels())
        .into_par_iter()
        .with_min_len(1024)
        .map(|index| {
            let point = geometry.to_patient_mm(geometry.position(index).map(|v| v as f64));
            anatomy.at([0, 1, 2].map(|axis| point[axis] / scale[axis]))
        })
        .collect();
    let sharp = Image { geometry, voxels: tissues.iter().map(|tissue| tissue.hu).collect() };
    // A scanner's voxel sees a little of its neighbours: half a voxel along x, and of voxels that
    // are not square no more than can be smoothed.
    let sigma_mm = 0.5 * spacing_mm[0].min(spacing_mm[1]);
    let blur = Gaussian { sigma_mm, space: Space::Slice };
    let mut image = gaussian(&sharp, &blur).unwrap_or(sharp);
    let area = (size[0] * size[1]).max(1);
    image.voxels.par_chunks_mut(area).enumerate().for_each(|(z, slice)| {
        let mut random = Random::new(number, 1 + z as u64);
        for value in slice {
            *value = (*value + noise_hu * random.bell() as f32).round().clamp(-1024.0, 3071.0);
        }
    });
    let mask = |inside: fn(&Tissue) -> bool| Mask {
        geometry,
        voxels: tissues.iter().map(|tissue| u8::from(inside(tissue))).collect(),
    };
    let (lungs, lesions) = (mask(|tissue| tissue.lung), mask(|tissue| tissue.lesion));
    PhantomPatient { image, lungs, lesions }
}

/// What is at a point.
#[derive(Debug, Clone, Copy)]
struct Tissue {
    hu: f32,
    lung: bool,
    lesion: bool,
}

type Point = [f64; 3];

#[derive(Debug, Clone, Copy)]
struct Ellipsoid {
    centre: Point,
    radii: Point,
}

impl Ellipsoid {
    /// Returns the distance from the centre, 1 on the surface.
    fn depth(&self, point: Point) -> f64 {
        (0..3).map(|k| ((point[k] - self.centre[k]) / self.radii[k]).powi(2)).sum::<f64>().sqrt()
    }

    fn holds(&self, point: Point) -> bool {
        self.depth(point) < 1.0
    }
}

/// A piece of a vessel: a rod that gets thinner.
#[derive(Debug, Clone, Copy)]
struct Rod {
    from: Point,
    to: Point,
    radius_from: f64,
    radius_to: f64,
}

impl Rod {
    fn holds(&self, point: Point) -> bool {
        let along: Point = [0, 1, 2].map(|k| self.to[k] - self.from[k]);
        let to_point: Point = [0, 1, 2].map(|k| point[k] - self.from[k]);
        let length_squared = dot(along, along).max(1e-9);
        let share = (dot(along, to_point) / length_squared).clamp(0.0, 1.0);
        let apart: Point = [0, 1, 2].map(|k| to_point[k] - share * along[k]);
        let radius = self.radius_from + share * (self.radius_to - self.radius_from);
        dot(apart, apart) < radius * radius
    }
}

fn dot(a: Point, b: Point) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// A patient's shapes, in millimetres of the standard chest: x to the left, y to the back, z to the
/// head, 0 in the middle.
#[derive(Debug, Clone)]
struct Anatomy {
    /// Half the width and depth of the body.
    body: [f64; 2],
    fat_mm: f64,
    muscle_hu: f64,
    lung_hu: f64,
    lungs: [Ellipsoid; 2],
    heart: Ellipsoid,
    liver: Ellipsoid,
    spine_y: f64,
    rib_phase: f64,
    vessels: Vec<Rod>,
    lesions: Vec<(Ellipsoid, f64)>,
}

impl Anatomy {
    fn new(number: u32, lesions_max: u32) -> Self {
        let mut random = Random::new(number, 0);
        let mut about = |middle: f64, reach: f64| middle + reach * (2.0 * random.share() - 1.0);
        let body = [about(146.0, 12.0), about(102.0, 9.0)];
        let lung = |side: f64, about: &mut dyn FnMut(f64, f64) -> f64| Ellipsoid {
            centre: [side * about(66.0, 4.0), about(-6.0, 4.0), about(4.0, 6.0)],
            radii: [about(44.0, 4.0), about(64.0, 5.0), about(82.0, 5.0)],
        };
        let lungs = [lung(-1.0, &mut about), lung(1.0, &mut about)];
        let heart = Ellipsoid {
            centre: [about(26.0, 6.0), about(-34.0, 5.0), about(-28.0, 8.0)],
            radii: [about(44.0, 5.0), about(38.0, 4.0), about(46.0, 5.0)],
        };
        let liver = Ellipsoid {
            centre: [about(-52.0, 6.0), about(-4.0, 5.0), about(-112.0, 8.0)],
            radii: [about(82.0, 5.0), about(80.0, 5.0), about(66.0, 6.0)],
        };
        let mut anatomy = Self {
            body,
            fat_mm: about(15.0, 6.0),
            muscle_hu: about(50.0, 8.0),
            lung_hu: about(-850.0, 30.0),
            lungs,
            heart,
            liver,
            spine_y: about(52.0, 3.0),
            rib_phase: about(0.0, 12.0),
            vessels: Vec::new(),
            lesions: Vec::new(),
        };
        for side in 0..2 {
            anatomy.vessels.extend(vessels(&lungs[side], &mut random));
        }
        let lesions = random.next() % (u64::from(lesions_max) + 1);
        for _ in 0..lesions {
            anatomy.add_lesion(&mut random);
        }
        anatomy
    }

    /// Puts a ball where it lies wholly in a lung; after too many attempts, nowhere.
    fn add_lesion(&mut self, random: &mut Random) {
        for _ in 0..50 {
            let radius = 7.0 + 9.0 * random.share();
            let lung = self.lungs[(random.next() % 2) as usize];
            let room = 1.0 - (radius + 8.0) / lung.radii[0];
            let spot = [0, 1, 2]
                .map(|k| lung.centre[k] + room * lung.radii[k] * (2.0 * random.share() - 1.0));
            let clear = |organ: &Ellipsoid| {
                let least = organ.radii.into_iter().fold(f64::MAX, f64::min);
                organ.depth(spot) > 1.0 + (radius + 8.0) / least
            };
            if lung.depth(spot) < room && clear(&self.heart) && clear(&self.liver) {
                let ball = Ellipsoid { centre: spot, radii: [radius; 3] };
                self.lesions.push((ball, 20.0 + 40.0 * random.share()));
                return;
            }
        }
    }

    /// Returns what is at a point.
    fn at(&self, point: Point) -> Tissue {
        let other = |hu: f64| Tissue { hu: hu as f32, lung: false, lesion: false };
        let [x, y, z] = point;
        let radius = (x / self.body[0]).hypot(y / self.body[1]);
        if radius >= 1.0 {
            return other(self.outside_hu(point));
        }
        // The distance to the skin, near enough.
        let under_skin_mm = (1.0 - radius) * self.body[1];
        if under_skin_mm < 2.5 {
            return other(20.0);
        }
        if under_skin_mm < self.fat_mm {
            return other(-100.0);
        }
        let in_organ = self.heart.holds(point) || self.liver.holds(point);
        let in_lung = self.lungs.iter().any(|lung| lung.holds(point));
        if in_lung && !in_organ {
            return self.lung_at(point);
        }
        if self.heart.holds(point) {
            return other(42.0);
        }
        if self.liver.holds(point) {
            return other(62.0);
        }
        if z > 4.0 && x.hypot(y + 2.0) < 8.0 {
            return other(-1000.0);
        }
        if let Some(hu) = self.bone_hu(point, under_skin_mm) {
            return other(hu);
        }
        let in_middle = x.abs() < 34.0 && y.abs() < 40.0;
        other(if in_middle { 0.4 * self.muscle_hu } else { self.muscle_hu })
    }

    /// Returns what is at a point of a lung.
    fn lung_at(&self, point: Point) -> Tissue {
        let inside = |hu: f64, lesion: bool| Tissue { hu: hu as f32, lung: true, lesion };
        if let Some((_, hu)) = self.lesions.iter().find(|(ball, _)| ball.holds(point)) {
            return inside(*hu, true);
        }
        if self.vessels.iter().any(|rod| rod.holds(point)) {
            return inside(40.0, false);
        }
        // Blood gathers at the back of someone who lies on it.
        inside(self.lung_hu + 0.7 * point[1], false)
    }

    /// Returns the table under the patient and its mattress, and air.
    fn outside_hu(&self, [x, y, _]: Point) -> f64 {
        let sag = 8.0 * (1.0 - (x / 140.0).powi(2));
        let above = y - self.body[1] - 12.0 - sag;
        match above {
            _ if x.abs() > 140.0 => -1000.0,
            0.0..4.0 | 14.0..18.0 => 60.0,
            4.0..14.0 => -900.0,
            _ => -1000.0,
        }
    }

    /// Returns the value of bone where there is bone: spine, ribs, breastbone.
    fn bone_hu(&self, [x, y, z]: Point, under_skin_mm: f64) -> Option<f64> {
        let body = (x / 19.0).hypot((y - self.spine_y) / 15.0);
        if body < 1.0 {
            let disc = (z + self.rib_phase).rem_euclid(28.0) < 5.0;
            return Some(match (disc, body > 0.8) {
                (true, _) => 80.0,
                (false, true) => 480.0,
                (false, false) => 260.0,
            });
        }
        let canal = x.hypot(y - self.spine_y - 22.0);
        if canal < 12.0 {
            return Some(if canal < 8.0 { 25.0 } else { 380.0 });
        }
        let behind = y - self.spine_y - 22.0;
        if x.abs() < 4.0 && (8.0..26.0).contains(&behind) {
            return Some(300.0);
        }
        let breastbone = (x / 16.0).hypot((y + self.body[1] - self.fat_mm - 9.0) / 6.0);
        if breastbone < 1.0 {
            return Some(220.0);
        }
        // Ribs run downwards from the spine to the front.
        let turn = (z + self.rib_phase - 0.25 * y) * std::f64::consts::TAU / 26.0;
        let in_cage = (self.fat_mm + 3.0..self.fat_mm + 11.0).contains(&under_skin_mm);
        (in_cage && turn.cos() > 0.35).then_some(520.0)
    }
}

/// Returns vessels that branch from the root of a lung outwards.
fn vessels(lung: &Ellipsoid, random: &mut Random) -> Vec<Rod> {
    let mut rods = Vec::new();
    let inwards = -lung.centre[0].signum();
    let root = [lung.centre[0] + inwards * 0.6 * lung.radii[0], lung.centre[1], lung.centre[2]];
    for _ in 0..16 {
        let direction: Point = [0, 1, 2].map(|_| 2.0 * random.share() - 1.0);
        let end = [0, 1, 2].map(|k| lung.centre[k] + 0.8 * lung.radii[k] * direction[k]);
        let fork: Point = [0, 1, 2].map(|k| root[k] + 0.5 * (end[k] - root[k]));
        rods.push(Rod { from: root, to: fork, radius_from: 4.5, radius_to: 2.6 });
        for _ in 0..2 {
            let bent = [0, 1, 2].map(|k| end[k] + 14.0 * (2.0 * random.share() - 1.0));
            rods.push(Rod { from: fork, to: bent, radius_from: 2.4, radius_to: 1.0 });
        }
    }
    rods
}

/// `SplitMix64` (Steele, Lea and Flood 2014): small, and the same everywhere.
#[derive(Debug)]
struct Random {
    state: u64,
}

impl Random {
    /// Returns the generator of a patient's stream.
    fn new(number: u32, stream: u64) -> Self {
        let mut seed = Self { state: (u64::from(number) << 32) ^ stream };
        Self { state: seed.next() }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number from 0 to 1, 1 excluded.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Returns a number of mean 0 and deviation 1 whose density is close to a bell: the sum of the
    /// four 16-bit parts of one draw.
    fn bell(&mut self) -> f64 {
        let bits = self.next();
        let sum: f64 = (0..4).map(|part| f64::from((bits >> (16 * part)) as u16)).sum();
        // Four uniform numbers have mean 2 and variance 4 / 12.
        (sum / 65_535.0 - 2.0) * 3f64.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure;

    #[test]
    fn the_same_number_gives_the_same_patient_from_any_number_of_threads() {
        let settings = PhantomSettings::default();
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let first = one.install(|| patient(7, &settings));
        assert_eq!(first, patient(7, &settings));
        assert_ne!(first.lungs, patient(8, &settings).lungs);
    }

    #[test]
    fn patients_look_like_chests_in_numbers() {
        let settings = PhantomSettings::default();
        let mut with_lesions = 0;
        for number in 0..12 {
            let PhantomPatient { image, lungs, lesions } = patient(number, &settings);
            let lungs_ml = measure::volume_ml(&lungs, 1);
            assert!((900.0..3000.0).contains(&lungs_ml), "{number}: {lungs_ml} ml");
            let members = || image.voxels.iter().zip(&lungs.voxels).filter(|&(_, &l)| l == 1);
            let mean = members().map(|(&v, _)| v).sum::<f32>() / members().count() as f32;
            assert!((-860.0..-680.0).contains(&mean), "{number}: {mean} HU");
            assert!(
                image.voxels.iter().all(|v| v.fract() == 0.0 && (-1024.0..=3071.0).contains(v))
            );
            assert!(lesions.voxels.iter().zip(&lungs.voxels).all(|(lesion, lung)| lesion <= lung));
            // Outside there is air, in the middle of the back there is bone.
            assert!(*image.at(2, 2, 12) < -900.0);
            assert!(image.voxels.iter().any(|&value| value > 300.0));
            with_lesions += usize::from(lesions.count() > 0);
        }
        assert!((4..12).contains(&with_lesions), "{with_lesions} of 12");
    }

    #[test]
    fn noise_has_mean_zero_and_deviation_one() {
        let mut random = Random::new(3, 1);
        let draws: Vec<f64> = (0..20_000).map(|_| random.bell()).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|draw| draw * draw).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean}, {variance}");
    }

    #[test]
    fn any_size_gives_a_patient() {
        for size in [[0, 0, 0], [1, 1, 1], [5, 3, 1], [40, 64, 2]] {
            let settings = PhantomSettings { size, ..PhantomSettings::default() };
            assert_eq!(patient(1, &settings).image.geometry.size, size);
        }
    }

    #[test]
    #[should_panic(expected = "spacings must be positive")]
    fn a_grid_that_is_none_is_refused() {
        let wrong = PhantomSettings { spacing_mm: [0.0; 3], ..PhantomSettings::default() };
        let _ = patient(1, &wrong);
    }
}
