//! Planes through a volume: which voxel stands at which place of a picture, and back.
//!
//! A picture is laid in millimetres, so that what is round in the patient is round on the screen
//! whatever the voxels' shape. Planes are the patient's: a volume that was scanned along another
//! axis is turned by whole axes, as radiologists expect it (the patient's right at the left, the
//! back below, the head above).

use gantry_imaging::Geometry;

/// A cell of a terminal is about twice as high as it is wide.
pub const CELL_ASPECT: f64 = 2.0;
/// Each step of the zoom shows half as much.
pub const ZOOM_MAX: u8 = 5;

/// A plane through the patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// Across the body.
    Axial,
    /// From the front.
    Coronal,
    /// From the side.
    Sagittal,
}

impl Plane {
    /// All of them, in the order of the key.
    pub const ALL: [Self; 3] = [Self::Axial, Self::Coronal, Self::Sagittal];

    /// The next one, round and round.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Axial => Self::Coronal,
            Self::Coronal => Self::Sagittal,
            Self::Sagittal => Self::Axial,
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Axial => "axial",
            Self::Coronal => "coronal",
            Self::Sagittal => "sagittal",
        }
    }

    /// What lies at the left, the right, the top and the bottom of its pictures.
    #[must_use]
    pub const fn sides(self) -> [char; 4] {
        match self {
            Self::Axial => ['R', 'L', 'A', 'P'],
            Self::Coronal => ['R', 'L', 'H', 'F'],
            Self::Sagittal => ['A', 'P', 'H', 'F'],
        }
    }
}

/// An axis of the voxels, and whether it is walked backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// 0, 1 or 2.
    pub voxel: usize,
    /// Whether it is walked from its end.
    pub backwards: bool,
}

impl Axis {
    fn turned(self) -> Self {
        Self { backwards: !self.backwards, ..self }
    }

    /// The voxel's number of a place along it, and the other way round.
    #[must_use]
    pub const fn of(self, place: usize, size: [usize; 3]) -> usize {
        if self.backwards { size[self.voxel] - 1 - place } else { place }
    }
}

/// How a plane cuts a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// From left to right.
    pub across: Axis,
    /// From top to bottom.
    pub down: Axis,
    /// From one slice to the next.
    pub through: Axis,
}

impl Cut {
    /// The cut of a plane through a volume, along the voxel axes nearest to the patient's.
    #[must_use]
    pub fn of(plane: Plane, geometry: &Geometry) -> Self {
        const ORDERS: [[usize; 3]; 6] =
            [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let along = |order: &[usize; 3]| -> f64 {
            (0..3).map(|patient| geometry.direction[order[patient]][patient].abs()).sum()
        };
        let best = ORDERS.iter().max_by(|a, b| along(a).total_cmp(&along(b)).then(b.cmp(a)));
        let order = best.copied().unwrap_or([0, 1, 2]);
        let [left, back, head] = [0, 1, 2].map(|patient| {
            let voxel = order[patient];
            Axis { voxel, backwards: geometry.direction[voxel][patient] < 0.0 }
        });
        match plane {
            Plane::Axial => Self { across: left, down: back, through: head },
            Plane::Coronal => Self { across: left, down: head.turned(), through: back },
            Plane::Sagittal => Self { across: back, down: head.turned(), through: left },
        }
    }
}

/// A picture of a slice: so many pixels, and which voxels each of them shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Picture {
    /// The cut.
    pub cut: Cut,
    /// Pixels across and down.
    pub pixels: [usize; 2],
    /// Voxels across and down.
    voxels: [usize; 2],
    /// The place of the first pixel's edge, in voxels.
    first: [f64; 2],
    /// Voxels a pixel.
    step: [f64; 2],
}

impl Picture {
    /// A picture of so many pixels, each `aspect` times as high as wide, that shows the whole slice
    /// or, closer, what lies around a voxel.
    #[must_use]
    pub fn new(
        cut: Cut,
        geometry: &Geometry,
        pixels: [usize; 2],
        aspect: f64,
        zoom: u8,
        around: [usize; 3],
    ) -> Self {
        let axes = [cut.across, cut.down];
        let voxels = axes.map(|axis| geometry.size[axis.voxel]);
        let pitch = axes.map(|axis| geometry.spacing_mm[axis.voxel]);
        let extent = [0, 1].map(|n| voxels[n] as f64 * pitch[n]);
        let room = [pixels[0].max(1) as f64, pixels[1].max(1) as f64 * aspect];
        // Millimetres of a pixel's width.
        let scale = (extent[0] / room[0]).max(extent[1] / room[1]) / f64::from(1_u32 << zoom);
        let step = [scale / pitch[0], scale * aspect / pitch[1]];
        let first = [0, 1].map(|n| {
            let (shown, all) = (step[n] * pixels[n] as f64, voxels[n] as f64);
            let at = axes[n].of(around[axes[n].voxel], geometry.size) as f64 + 0.5;
            let middle =
                if shown >= all { all / 2.0 } else { at.clamp(shown / 2.0, all - shown / 2.0) };
            middle - shown / 2.0
        });
        Self { cut, pixels, voxels, first, step }
    }

    /// The voxels along one side (0 across, 1 down) that a pixel shows, at least one; nothing beside
    /// the volume.
    #[must_use]
    pub fn shown(&self, side: usize, pixel: usize) -> Option<std::ops::Range<usize>> {
        let low = self.first[side] + pixel as f64 * self.step[side];
        let middle = low + self.step[side] / 2.0;
        if middle < 0.0 || middle >= self.voxels[side] as f64 {
            return None;
        }
        let last = self.voxels[side];
        if self.step[side] <= 1.0 {
            let at = (middle as usize).min(last - 1);
            return Some(at..at + 1);
        }
        let begin = low.max(0.0).round() as usize;
        let end = ((low + self.step[side]).round() as usize).min(last);
        Some(begin.min(last - 1)..end.max(begin + 1).min(last))
    }

    /// The pixel that shows a place along one side.
    #[must_use]
    pub fn pixel(&self, side: usize, place: usize) -> Option<usize> {
        let pixel = (place as f64 + 0.5 - self.first[side]) / self.step[side];
        (pixel >= 0.0 && pixel < self.pixels[side] as f64).then_some(pixel as usize)
    }

    /// The voxel along one side in the middle of a pixel; nothing beside the volume.
    #[must_use]
    pub fn place(&self, side: usize, pixel: usize) -> Option<usize> {
        let middle = self.first[side] + (pixel as f64 + 0.5) * self.step[side];
        (middle >= 0.0 && middle < self.voxels[side] as f64).then_some(middle as usize)
    }

    /// Voxels that a step of one pixel along one side is, at least one.
    #[must_use]
    pub fn voxels_a_pixel(&self, side: usize) -> usize {
        (self.step[side].round() as usize).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_the_patients_however_the_volume_lies() {
        let axis = |voxel, backwards| Axis { voxel, backwards };
        let upright = Geometry::unit([4, 5, 6]);
        let sagittal =
            Geometry { direction: [[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]], ..upright };
        for (geometry, plane, across, down, through) in [
            (upright, Plane::Axial, axis(0, false), axis(1, false), axis(2, false)),
            (upright, Plane::Coronal, axis(0, false), axis(2, true), axis(1, false)),
            (upright, Plane::Sagittal, axis(1, false), axis(2, true), axis(0, false)),
            (sagittal, Plane::Sagittal, axis(0, false), axis(1, false), axis(2, false)),
            (sagittal, Plane::Axial, axis(2, false), axis(0, false), axis(1, true)),
        ] {
            let cut = Cut::of(plane, &geometry);
            assert_eq!(cut, Cut { across, down, through }, "{plane:?}");
        }
    }

    #[test]
    fn what_is_square_in_the_patient_is_square_on_the_screen() {
        // 40 × 40 mm across, 8 slices of 10 mm down.
        let geometry = Geometry::new([40, 40, 8], [1.0, 1.0, 10.0]);
        let cut = Cut::of(Plane::Coronal, &geometry);
        let picture = Picture::new(cut, &geometry, [40, 80], 1.0, 0, [0; 3]);
        let shown = |side: usize, count: usize| {
            (0..count).filter(|pixel| picture.shown(side, *pixel).is_some()).count()
        };
        // 80 mm down need twice the 40 pixels of the 40 mm across.
        assert_eq!((shown(0, 40), shown(1, 80)), (40, 80));
        let wide = Picture::new(cut, &geometry, [160, 40], CELL_ASPECT, 0, [0; 3]);
        assert_eq!((0..160).filter(|pixel| wide.shown(0, *pixel).is_some()).count(), 40);
    }

    #[test]
    fn a_pixel_and_its_place_are_inverse_and_zoom_stays_within() {
        let geometry = Geometry::new([100, 60, 3], [0.7, 0.9, 4.0]);
        for plane in Plane::ALL {
            let cut = Cut::of(plane, &geometry);
            for zoom in 0..=ZOOM_MAX {
                for around in [[0; 3], [99, 59, 2], [50, 30, 1]] {
                    let picture = Picture::new(cut, &geometry, [37, 22], 1.0, zoom, around);
                    for side in [0, 1] {
                        for pixel in 0..picture.pixels[side] {
                            let Some(place) = picture.place(side, pixel) else { continue };
                            let back = picture.pixel(side, place);
                            // The middle of a voxel that is larger than a pixel may lie outside.
                            let large = picture.step[side] < 1.0;
                            let near = back.map_or(large, |back| {
                                picture.shown(side, back) == picture.shown(side, pixel)
                                    || back.abs_diff(pixel) <= 1
                            });
                            assert!(near, "{plane:?} {zoom} {side} {pixel} {place} {back:?}");
                        }
                        let axis = if side == 0 { cut.across } else { cut.down };
                        let place = axis.of(around[axis.voxel], geometry.size);
                        assert!(picture.pixel(side, place).is_some(), "the cursor is in sight");
                    }
                }
            }
        }
    }
}
