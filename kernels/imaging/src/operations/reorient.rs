//! Reorienting: the same voxels in another order, without interpolation.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::ImagingError;
use crate::volume::{Geometry, Volume};

/// Which way the axes of a volume point: for x, y and z the letter of the side of the patient that
/// the axis grows towards, as `SimpleITK` and `NiBabel` write it. L and R, P and A, S and I are left
/// and right, posterior and anterior, superior and inferior.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Orientation {
    /// For each voxel axis, the axis of the patient (0 for left, 1 for posterior, 2 for superior)
    /// and whether it runs against it.
    axes: [(usize, bool); 3],
}

const LETTERS: [[char; 2]; 3] = [['L', 'R'], ['P', 'A'], ['S', 'I']];

impl Orientation {
    /// Left, posterior, superior: the order of DICOM's patient space.
    pub const LPS: Self = Self { axes: [(0, false), (1, false), (2, false)] };
    /// Right, anterior, superior: the order of `NIfTI`'s space.
    pub const RAS: Self = Self { axes: [(0, true), (1, true), (2, false)] };

    /// Returns the orientation that a grid has, to the nearest axes of the patient.
    #[must_use]
    pub fn of(geometry: &Geometry) -> Self {
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let along = |order: &[usize; 3]| -> f64 {
            (0..3).map(|axis| geometry.direction[axis][order[axis]].abs()).sum()
        };
        let best = orders.into_iter().reduce(|a, b| if along(&b) > along(&a) { b } else { a });
        let order = best.unwrap_or([0, 1, 2]);
        let axes = [0, 1, 2].map(|k| (order[k], geometry.direction[k][order[k]] < 0.0));
        Self { axes }
    }

    /// For each new axis, returns the old one and whether it is flipped.
    fn taken_from(self, source: &Geometry) -> [(usize, bool); 3] {
        let from = Self::of(source);
        self.axes.map(|(patient, against)| {
            let axis = (0..3).find(|&k| from.axes[k].0 == patient).unwrap_or(0);
            (axis, from.axes[axis].1 != against)
        })
    }

    /// Returns the grid that `source` becomes.
    #[must_use]
    pub fn grid(self, source: &Geometry) -> Geometry {
        let taken = self.taken_from(source);
        let mut corner = [0.0; 3];
        for (axis, flipped) in taken {
            corner[axis] = if flipped { source.size[axis] as f64 - 1.0 } else { 0.0 };
        }
        let turned = |flipped: bool| move |d: f64| if flipped { 0.0 - d } else { d };
        Geometry {
            size: taken.map(|(axis, _)| source.size[axis]),
            spacing_mm: taken.map(|(axis, _)| source.spacing_mm[axis]),
            origin_mm: source.to_patient_mm(corner),
            direction: taken.map(|(axis, flipped)| source.direction[axis].map(turned(flipped))),
        }
    }
}

impl TryFrom<String> for Orientation {
    type Error = ImagingError;

    fn try_from(text: String) -> Result<Self, ImagingError> {
        text.parse()
    }
}

impl std::str::FromStr for Orientation {
    type Err = ImagingError;

    fn from_str(text: &str) -> Result<Self, ImagingError> {
        let axis = |letter: char| {
            let axis = LETTERS.iter().position(|pair| pair.contains(&letter))?;
            Some((axis, LETTERS[axis][1] == letter))
        };
        let axes: Option<Vec<(usize, bool)>> = text.chars().map(axis).collect();
        match axes.as_deref() {
            Some(&[a, b, c]) if a.0 != b.0 && b.0 != c.0 && a.0 != c.0 => {
                Ok(Self { axes: [a, b, c] })
            }
            _ => Err(ImagingError::Parameter {
                operation: "reorient",
                problem: format!(
                    "{text:?} is no orientation; three letters are needed, one each of L or R, P \
                     or A, S or I, such as LPS"
                ),
            }),
        }
    }
}

impl From<Orientation> for String {
    fn from(orientation: Orientation) -> Self {
        orientation.to_string()
    }
}

impl fmt::Display for Orientation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.axes.iter().try_for_each(|&(axis, against)| {
            let [along, opposite] = LETTERS[axis];
            write!(f, "{}", if against { opposite } else { along })
        })
    }
}

/// Returns the volume with its axes in the given orientation; every voxel keeps its value and its
/// place in the patient. `SimpleITK`'s `DICOMOrient`.
pub fn reorient<T: Copy>(volume: &Volume<T>, to: Orientation) -> Result<Volume<T>, ImagingError> {
    let source = &volume.geometry;
    let taken = to.taken_from(source);
    let geometry = to.grid(source);
    let strides = [1, source.size[0], source.size[0] * source.size[1]];
    let offset = |k: usize, at: usize| {
        let (axis, flipped) = taken[k];
        strides[axis] * if flipped { source.size[axis] - 1 - at } else { at }
    };
    let mut voxels = Vec::with_capacity(volume.voxels.len());
    for z in 0..geometry.size[2] {
        for y in 0..geometry.size[1] {
            let row = offset(2, z) + offset(1, y);
            voxels.extend((0..geometry.size[0]).map(|x| volume.voxels[row + offset(0, x)]));
        }
    }
    Volume::new(geometry, voxels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voxels_keep_their_place_in_the_patient() {
        let geometry = Geometry {
            size: [4, 3, 2],
            spacing_mm: [1.0, 2.0, 3.0],
            origin_mm: [5.0, -7.0, 11.0],
            direction: [[0.0, 0.8, 0.6], [-1.0, 0.0, 0.0], [0.0, -0.6, 0.8]],
        };
        let volume = Volume::new(geometry, (0u8..24).collect()).unwrap();
        assert_eq!(Orientation::of(&geometry).to_string(), "PRS");
        for name in ["LPS", "RAS", "SLA", "IPR", "PRS"] {
            let turned = reorient(&volume, name.parse().unwrap()).unwrap();
            assert_eq!(Orientation::of(&turned.geometry).to_string(), name);
            for (index, &value) in turned.voxels.iter().enumerate() {
                let place = |geometry: &Geometry, index: usize| {
                    geometry.to_patient_mm(geometry.position(index).map(|k| k as f64))
                };
                let (now, before) =
                    (place(&turned.geometry, index), place(&geometry, usize::from(value)));
                assert!((0..3).all(|k| (now[k] - before[k]).abs() < 1e-9), "{name}");
            }
            let back = reorient(&turned, Orientation::of(&geometry)).unwrap();
            assert_eq!(back.voxels, volume.voxels);
        }
    }

    #[test]
    fn refuses_what_is_no_orientation() {
        for text in ["", "LP", "LLS", "lps", "LPSA", "LRS"] {
            assert!(text.parse::<Orientation>().is_err(), "{text}");
        }
    }
}
