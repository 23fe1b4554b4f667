//! A series as a volume.
//!
//! Slices are put in order by their position along the normal of their plane, never by their
//! number; the pitch comes from the positions, never from the slice thickness. Images that lie
//! across the others (localizers) are left out and counted.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::pixels::{self, functional};
use super::read::{self, File, numbers};
use super::refusal::{Reason, Refusal};
use crate::volume::{Geometry, Image, Volume};

/// Positions that differ by less than this part of the pitch are the same.
const SAME_POSITION: f64 = 0.01;
/// How much a distance may differ from the pitch: rounding in headers, not another pitch.
const PITCH_TOLERANCE: f64 = 0.05;
/// The most frames that a head may promise: no file of the largest size has more slices than this.
const FRAMES_MAX: usize = 1 << 16;
/// Two directions are parallel above this cosine: within half a degree.
const PARALLEL: f64 = 0.999_96;

/// What the distances between the slices of a series say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// All are alike.
    Uniform,
    /// All are alike after so many repeated slices were left out.
    Duplicates(usize),
    /// All are alike, and the slices are shifted along their plane (a tilted gantry). The volume's
    /// third direction follows the shift, so it is not at right angles to the others.
    Tilt,
    /// There is one slice, and its thickness is taken for the pitch.
    Single,
}

/// A series as a volume.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The values, in Hounsfield units for CT, on the patient's grid.
    pub image: Image,
    /// What the distances say.
    pub spacing: Spacing,
    /// Images that were left out since they lie across the others.
    pub localizers: usize,
    /// Whether small values are shown bright (MONOCHROME1).
    pub inverted: bool,
}

/// One slice and where it lies.
struct Slice {
    position_mm: [f64; 3],
    row: [f64; 3],
    column: [f64; 3],
    /// Between columns, between rows.
    spacing_mm: [f64; 2],
    thickness_mm: Option<f64>,
    size: [usize; 2],
    values: Vec<f32>,
    inverted: bool,
}

impl Slice {
    fn normal(&self) -> [f64; 3] {
        cross(self.row, self.column)
    }

    fn like(&self, other: &Self) -> bool {
        dot(self.row, other.row) > PARALLEL && dot(self.column, other.column) > PARALLEL
    }
}

/// Makes a volume of the files of one series, in any order.
///
/// # Errors
/// Where a file cannot be read, or the slices make no volume.
pub fn assemble<B: AsRef<[u8]>>(files: &[B]) -> Result<Series, Refusal> {
    let mut slices = Vec::new();
    for bytes in files {
        let file = read::parse(bytes.as_ref())?;
        slices.extend(read::guarded(|| slices_of(&file))?);
    }
    let Stack { slices, geometry, spacing, localizers } = stack(slices)?;
    Ok(Series {
        image: volume(&slices, geometry)?,
        spacing,
        localizers,
        inverted: slices[0].inverted,
    })
}

/// The grid of the volume that [`assemble`] would make of files, of which only the heads are given:
/// the bytes before the pixels, and any number of those that follow.
///
/// # Errors
/// Where a head does not reach the pixels (its file is to be read whole then), or the slices make no
/// volume.
pub fn grid<B: AsRef<[u8]>>(heads: &[B]) -> Result<Geometry, Refusal> {
    let mut slices = Vec::new();
    for bytes in heads {
        let file = read::parse_head(bytes.as_ref())?;
        slices.extend(read::guarded(|| outlines_of(&file))?);
    }
    Ok(stack(slices)?.geometry)
}

/// The slices of a volume in their order, and where it lies.
struct Stack {
    slices: Vec<Slice>,
    geometry: Geometry,
    spacing: Spacing,
    localizers: usize,
}

/// Puts slices over one another.
fn stack(slices: Vec<Slice>) -> Result<Stack, Refusal> {
    let all = slices.len();
    if all == 0 {
        return Err(Refusal::new(Reason::NoPixels, "the series has no images"));
    }
    let mut slices = largest_stack(slices);
    let localizers = all - slices.len();
    let first = &slices[0];
    if slices
        .iter()
        .any(|slice| slice.size != first.size || !alike(slice.spacing_mm, first.spacing_mm))
    {
        return Err(Refusal::new(
            Reason::MixedImages,
            "the images of the series differ in size or pixel spacing; it makes no volume",
        ));
    }
    let normal = first.normal();
    let along = |slice: &Slice| dot(slice.position_mm, normal);
    slices.sort_by(|a, b| along(a).total_cmp(&along(b)));
    let duplicates = without_repeats(&mut slices, along);
    check_distances(&slices, along)?;
    let (pitch_mm, direction) = stacking(&slices, normal)?;
    let tilt = dot(direction, normal) < PARALLEL;
    let spacing = match (slices.len(), duplicates, tilt) {
        (1, ..) => Spacing::Single,
        (_, 0, true) => Spacing::Tilt,
        (_, 0, false) => Spacing::Uniform,
        (_, n, _) => Spacing::Duplicates(n),
    };
    let geometry = geometry(&slices, direction, pitch_mm)?;
    Ok(Stack { slices, geometry, spacing, localizers })
}

/// Every frame of a file with its place and without its values; none where it has no images.
fn outlines_of(file: &File) -> Result<Vec<Slice>, Refusal> {
    let number = |tag| read::count(file, tag).unwrap_or(0) as usize;
    let size = [number(tags::COLUMNS), number(tags::ROWS)];
    if size.contains(&0) {
        return Ok(Vec::new());
    }
    let count = number(tags::NUMBER_OF_FRAMES).clamp(1, FRAMES_MAX);
    (0..count).map(|frame| Place { file, frame, count }.slice(size, Vec::new(), false)).collect()
}

/// Every frame of a file with its place; none where it has no pixels, as a presentation state.
fn slices_of(file: &File) -> Result<Vec<Slice>, Refusal> {
    if file.get(tags::PIXEL_DATA).is_none() {
        return Ok(Vec::new());
    }
    let frames = pixels::of_file(file)?;
    if frames.samples != 1 {
        return Err(Refusal::new(
            Reason::UnsupportedPixels,
            "the series is in colour; volumes are made of grey images",
        ));
    }
    let size = [frames.columns, frames.rows];
    let count = frames.frames.len();
    let inverted = frames.inverted;
    let placed = |(frame, values)| Place { file, frame, count }.slice(size, values, inverted);
    frames.frames.into_iter().enumerate().map(placed).collect()
}

/// Where a frame's geometry stands: in its functional groups, or in the instance itself.
pub(super) struct Place<'a> {
    pub(super) file: &'a File,
    pub(super) frame: usize,
    /// How many frames the file has.
    pub(super) count: usize,
}

impl Place<'_> {
    fn slice(&self, size: [usize; 2], values: Vec<f32>, inverted: bool) -> Result<Slice, Refusal> {
        let missing = |what: &str| {
            Refusal::new(
                Reason::NoGeometry,
                format!("an image of the series has no {what}; it has no place in the patient"),
            )
        };
        let [a, b, c, d, e, f] = self
            .numbers(tags::PLANE_ORIENTATION_SEQUENCE, tags::IMAGE_ORIENTATION_PATIENT)
            .and_then(exact)
            .ok_or_else(|| missing("orientation"))?;
        let (Some(row), Some(column)) = (unit([a, b, c]), unit([d, e, f])) else {
            return Err(missing("orientation"));
        };
        if dot(row, column).abs() > 0.01 {
            return Err(missing("orientation whose row and column are at right angles"));
        }
        let [between_rows, between_columns] = self
            .numbers(tags::PIXEL_MEASURES_SEQUENCE, tags::PIXEL_SPACING)
            .and_then(exact)
            .filter(|both| both.iter().all(|one| *one > 0.0))
            .ok_or_else(|| missing("pixel spacing"))?;
        let thickness = self.numbers(tags::PIXEL_MEASURES_SEQUENCE, tags::SLICE_THICKNESS);
        Ok(Slice {
            position_mm: self.position_mm().ok_or_else(|| missing("position"))?,
            row,
            column,
            spacing_mm: [between_columns, between_rows],
            thickness_mm: thickness.and_then(|all| all.first().copied()).filter(|one| *one > 0.0),
            size,
            values,
            inverted,
        })
    }

    pub(super) fn position_mm(&self) -> Option<[f64; 3]> {
        self.numbers(tags::PLANE_POSITION_SEQUENCE, tags::IMAGE_POSITION_PATIENT).and_then(exact)
    }

    fn numbers(&self, group: Tag, tag: Tag) -> Option<Vec<f64>> {
        let data: Option<&InMemDicomObject> = functional(self.file, self.frame, group);
        // The frames of an old multi-frame instance share one position, which places none of them.
        let own = || {
            (self.count == 1 || tag != tags::IMAGE_POSITION_PATIENT)
                .then(|| numbers(self.file, tag))
                .flatten()
        };
        data.and_then(|data| numbers(data, tag)).or_else(own)
    }
}

/// The slices that lie alike, of the orientation that most have.
fn largest_stack(slices: Vec<Slice>) -> Vec<Slice> {
    let mut stacks: Vec<Vec<Slice>> = Vec::new();
    for slice in slices {
        match stacks.iter_mut().find(|stack| stack[0].like(&slice)) {
            Some(stack) => stack.push(slice),
            None => stacks.push(vec![slice]),
        }
    }
    // The first of equals, so that the answer does not hang on chance.
    stacks.into_iter().rev().max_by_key(Vec::len).unwrap_or_default()
}

/// Takes repeated slices away, and says how many there were.
fn without_repeats(slices: &mut Vec<Slice>, along: impl Fn(&Slice) -> f64) -> usize {
    let before = slices.len();
    let near = SAME_POSITION * median_gap(slices, &along).unwrap_or(1.0);
    slices.dedup_by(|next, kept| (along(next) - along(kept)).abs() < near);
    before - slices.len()
}

/// Checks that slices in order are all as far from one another.
fn check_distances(slices: &[Slice], along: impl Fn(&Slice) -> f64) -> Result<(), Refusal> {
    let Some(pitch) = median_gap(slices, &along) else { return Ok(()) };
    let mut missing = 0;
    for pair in slices.windows(2) {
        let steps = (along(&pair[1]) - along(&pair[0])) / pitch;
        if (steps - steps.round()).abs() > PITCH_TOLERANCE * steps.max(1.0) || steps < 0.5 {
            return Err(Refusal::new(
                Reason::IrregularSpacing,
                "the slices of the series have different distances; it makes no volume",
            ));
        }
        missing += steps.round() as usize - 1;
    }
    if missing > 0 {
        return Err(Refusal::new(
            Reason::IrregularSpacing,
            format!("{missing} slices of the series are missing between the others; send it again"),
        ));
    }
    Ok(())
}

/// From one slice to the next: how far, and which way. It is the mean over the series, since
/// positions in headers are rounded.
fn stacking(slices: &[Slice], normal: [f64; 3]) -> Result<(f64, [f64; 3]), Refusal> {
    let (first, last) = (&slices[0], &slices[slices.len() - 1]);
    let way = minus(last.position_mm, first.position_mm);
    let Some(direction) = unit(way) else {
        return Ok((first.thickness_mm.unwrap_or(1.0), normal));
    };
    let pitch_mm = dot(way, way).sqrt() / (slices.len() - 1) as f64;
    let pixel_mm = first.spacing_mm[0].max(first.spacing_mm[1]);
    for (n, slice) in slices.iter().enumerate() {
        let expected = direction.map(|one| one * pitch_mm * n as f64);
        let off = minus(minus(slice.position_mm, first.position_mm), expected);
        let across = minus(off, normal.map(|one| one * dot(off, normal)));
        if dot(across, across).sqrt() > pixel_mm {
            return Err(Refusal::new(
                Reason::IrregularSpacing,
                "the slices of the series do not lie over one another; it makes no volume",
            ));
        }
    }
    Ok((pitch_mm, direction))
}

/// The median of the distances between slices that do not lie on one another.
fn median_gap(slices: &[Slice], along: &impl Fn(&Slice) -> f64) -> Option<f64> {
    let gaps = slices.windows(2).map(|pair| along(&pair[1]) - along(&pair[0]));
    let mut gaps: Vec<f64> = gaps.filter(|gap| *gap > 1e-6).collect();
    gaps.sort_by(f64::total_cmp);
    gaps.get(gaps.len() / 2).copied()
}

fn geometry(slices: &[Slice], direction: [f64; 3], pitch_mm: f64) -> Result<Geometry, Refusal> {
    let first = &slices[0];
    let geometry = Geometry {
        size: [first.size[0], first.size[1], slices.len()],
        spacing_mm: [first.spacing_mm[0], first.spacing_mm[1], pitch_mm],
        origin_mm: first.position_mm,
        direction: [first.row, first.column, direction],
    };
    geometry.check().map_err(|_| {
        Refusal::new(Reason::TooLarge, "the series has more voxels than a volume may have")
    })?;
    Ok(geometry)
}

fn volume(slices: &[Slice], geometry: Geometry) -> Result<Image, Refusal> {
    let mut voxels = Vec::with_capacity(geometry.voxels());
    for slice in slices {
        voxels.extend_from_slice(&slice.values);
    }
    Volume::new(geometry, voxels).map_err(|_| {
        Refusal::new(Reason::MixedImages, "the images of the series do not fill a volume")
    })
}

fn exact<const N: usize>(numbers: Vec<f64>) -> Option<[f64; N]> {
    numbers.try_into().ok().filter(|all: &[f64; N]| all.iter().all(|one| one.is_finite()))
}

fn alike(a: [f64; 2], b: [f64; 2]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-3 * a.abs())
}

fn minus(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    std::array::from_fn(|k| a[k] - b[k])
}

pub(super) fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(super) fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn unit(v: [f64; 3]) -> Option<[f64; 3]> {
    let length = dot(v, v).sqrt();
    (length > 1e-6).then(|| v.map(|one| one / length))
}
