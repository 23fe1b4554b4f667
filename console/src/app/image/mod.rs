//! The image viewer: one volume, three planes through a cursor, and a mask that a person corrects.
//!
//! The volume is read and regions are grown elsewhere, so that the console answers while it waits;
//! what one sees and where one is are decided here.

mod keys;
mod marks;
mod plane;
mod window;

use std::sync::Arc;

pub use marks::{Changes, Marks, Run, runs_of};
pub use plane::{Axis, CELL_ASPECT, Cut, Picture, Plane, ZOOM_MAX};
pub use window::{CT, Window};

use super::library::{Growing, Kind, Opened, Subject};

/// How far a value may lie from the seed's, at first and from step to step.
const TOLERANCE: (u16, u16) = (60, 10);
/// How many tenths of a deviation, likewise.
const CONFIDENCE: (u16, u16) = (25, 5);
/// The largest tolerance, and the most tenths of a deviation.
const GROWING_MAX: (u16, u16) = (2000, 60);
/// Radii of the brush, in voxels.
pub const BRUSHES: [usize; 4] = [0, 1, 3, 6];

/// Where an opening stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is under way; how far it is.
    Coming(String),
    /// It failed, and why.
    Failed(String),
    /// The volume is there.
    Open,
}

/// What one looks at.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "switches that a person turns one by one")]
pub struct Viewer {
    /// Of what the image is.
    pub subject: Subject,
    /// The number of the opening.
    pub number: u64,
    /// Where that stands.
    pub stage: Stage,
    /// The volume.
    pub opened: Option<Arc<Opened>>,
    /// What is marked in it.
    pub marks: Marks,
    /// Whether a person has changed what is marked.
    pub touched: bool,
    /// The plane.
    pub plane: Plane,
    /// The voxel that the planes go through.
    pub cursor: [usize; 3],
    /// How close one looks.
    pub zoom: u8,
    /// Which values are black and white.
    pub window: Window,
    /// The name of the window, where it has one.
    pub preset: Option<usize>,
    /// Whether the mask is shown.
    pub overlay: bool,
    /// How regions are grown: by a tolerance, or by confidence.
    pub by_confidence: bool,
    /// The tolerance, and the tenths of a deviation.
    pub growing: (u16, u16),
    /// Which of the brushes.
    pub brush: usize,
    /// Whether a region is being grown.
    pub grows: bool,
    /// What was grown last: voxels, from which value to which, in how many microseconds.
    pub grown: Option<(u64, (f32, f32), u64)>,
    changes: Changes,
}

impl Viewer {
    /// One whose volume is still to come.
    #[must_use]
    pub fn new(subject: Subject, number: u64) -> Self {
        Self {
            subject,
            number,
            stage: Stage::Coming("opening".into()),
            opened: None,
            marks: Marks::none(0),
            touched: false,
            plane: Plane::Axial,
            cursor: [0; 3],
            zoom: 0,
            window: CT[0].1,
            preset: Some(0),
            overlay: true,
            by_confidence: false,
            growing: (TOLERANCE.0, CONFIDENCE.0),
            brush: 1,
            grows: false,
            grown: None,
            changes: Changes::default(),
        }
    }

    /// Takes the volume: the cursor goes to the middle of what is marked, or of everything.
    pub fn take(&mut self, opened: Arc<Opened>, marks: Option<Marks>) {
        let geometry = opened.image.geometry;
        self.marks = marks.unwrap_or_else(|| Marks::none(geometry.voxels()));
        self.cursor = geometry.size.map(|n| n / 2);
        if self.marks.count() > 0 {
            self.cursor[2] = self.fullest_slice(geometry.size);
        }
        if opened.modality != "CT" {
            (self.window, self.preset) = (Window::over(opened.range), None);
        } else if opened.label.contains("lung") {
            (self.window, self.preset) = (CT[1].1, Some(1));
        }
        self.opened = Some(opened);
        self.stage = Stage::Open;
    }

    /// The slice along z with most marked in it.
    fn fullest_slice(&self, [width, height, depth]: [usize; 3]) -> usize {
        // Every seventh voxel says well enough where most lies.
        let area = width * height;
        let marked = |z: usize| {
            (z * area..(z + 1) * area).step_by(7).filter(|voxel| self.marks.holds(*voxel)).count()
        };
        (0..depth).max_by_key(|z| (marked(*z), depth - z)).unwrap_or(0)
    }

    /// How the plane cuts the volume.
    #[must_use]
    pub fn cut(&self) -> Option<Cut> {
        Some(Cut::of(self.plane, &self.opened.as_ref()?.image.geometry))
    }

    /// The picture of the slice on so many pixels.
    #[must_use]
    pub fn picture(&self, pixels: [usize; 2], aspect: f64) -> Option<Picture> {
        let geometry = self.opened.as_ref()?.image.geometry;
        Some(Picture::new(self.cut()?, &geometry, pixels, aspect, self.zoom, self.cursor))
    }

    /// The slice that is shown and how many there are, both from 1.
    #[must_use]
    pub fn slice(&self) -> Option<(usize, usize)> {
        let (cut, opened) = (self.cut()?, self.opened.as_ref()?);
        let size = opened.image.geometry.size;
        let at = cut.through.of(self.cursor[cut.through.voxel], size);
        Some((at + 1, size[cut.through.voxel]))
    }

    /// The value under the cursor.
    #[must_use]
    pub fn value(&self) -> Option<f32> {
        let [x, y, z] = self.cursor;
        Some(*self.opened.as_ref()?.image.at(x, y, z))
    }

    /// The unit of values.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        if self.opened.as_ref().is_some_and(|opened| opened.modality == "CT") { "HU" } else { "" }
    }

    /// The volume of what is marked.
    #[must_use]
    pub fn marked_ml(&self) -> f64 {
        let voxel = self.opened.as_ref().map_or(0.0, |opened| opened.image.geometry.voxel_ml());
        self.marks.count() as f64 * voxel
    }

    /// What the mask marks.
    #[must_use]
    pub fn label(&self) -> &str {
        self.opened.as_ref().map_or("", |opened| &opened.label)
    }

    /// How a region is grown now.
    #[must_use]
    pub const fn how(&self) -> Growing {
        if self.by_confidence {
            Growing::Confidence(self.growing.1)
        } else {
            Growing::Tolerance(self.growing.0)
        }
    }

    /// The name of the window.
    #[must_use]
    pub fn window_name(&self) -> &'static str {
        match self.preset {
            Some(at) => CT[at].0,
            None => "own",
        }
    }

    /// Whether what is shown can be rejected: only a sample is one that is learnt from.
    #[must_use]
    pub fn is_sample(&self) -> bool {
        self.subject.kind == Kind::Sample
    }

    /// Marks stretches, or unmarks them, so that it can be undone; gives how many voxels changed.
    pub fn change(&mut self, runs: &[Run], on: bool) -> u64 {
        let changed = self.marks.fill(runs, on);
        let voxels = changed.iter().map(|run| u64::from(run.length)).sum();
        self.touched |= self.changes.keep(changed, on);
        voxels
    }

    /// Takes back the newest change; says whether there was one.
    pub fn undo(&mut self) -> bool {
        self.changes.undo(&mut self.marks)
    }

    /// The stretches under the brush: a disc in the plane, round in millimetres.
    fn under_brush(&self) -> Vec<Run> {
        let (Some(opened), Some(cut)) = (&self.opened, self.cut()) else { return Vec::new() };
        let geometry = &opened.image.geometry;
        let radius = BRUSHES[self.brush];
        let pitch = [cut.across, cut.down].map(|axis| geometry.spacing_mm[axis.voxel]);
        // As wide as the finer axis has it, so that it is round however long the voxels are.
        let reach_mm = radius as f64 * pitch[0].min(pitch[1]) + 1e-6;
        let mut runs = Vec::new();
        let range = |side: usize, axis: Axis| {
            let at = self.cursor[axis.voxel];
            let reach = (reach_mm / pitch[side]) as usize;
            at.saturating_sub(reach)..=(at + reach).min(geometry.size[axis.voxel] - 1)
        };
        for down in range(1, cut.down) {
            for across in range(0, cut.across) {
                let mut voxel = self.cursor;
                let dx = across.abs_diff(voxel[cut.across.voxel]) as f64 * pitch[0];
                let dy = down.abs_diff(voxel[cut.down.voxel]) as f64 * pitch[1];
                if dx.hypot(dy) <= reach_mm {
                    voxel[cut.across.voxel] = across;
                    voxel[cut.down.voxel] = down;
                    let [x, y, z] = voxel;
                    runs.push(Run { start: geometry.index(x, y, z) as u32, length: 1 });
                }
            }
        }
        runs.sort_by_key(|run| run.start);
        runs
    }
}

#[cfg(test)]
mod tests {
    use gantry_imaging::{Geometry, Image};

    use super::*;

    fn viewer(modality: &str, label: &str) -> Viewer {
        let subject = Subject { kind: Kind::Sample, id: "m1".into() };
        let mut viewer = Viewer::new(subject, 1);
        let geometry = Geometry::new([20, 16, 8], [1.0, 1.0, 4.0]);
        let image = Image::filled(geometry, -500.0);
        let mut marks = Marks::none(geometry.voxels());
        let start = geometry.index(0, 0, 6) as u32;
        marks.fill(&[Run { start, length: 200 }], true);
        viewer.take(
            Arc::new(Opened {
                image,
                series: "s1".into(),
                modality: modality.into(),
                label: label.into(),
                range: (0.0, 100.0),
            }),
            Some(marks),
        );
        viewer
    }

    #[test]
    fn it_opens_where_most_is_marked_with_a_window_that_fits() {
        for (modality, label, name) in
            [("CT", "lungs", "lung"), ("CT", "liver", "soft tissue"), ("MR", "lungs", "own")]
        {
            let viewer = viewer(modality, label);
            assert_eq!((viewer.slice(), viewer.window_name()), (Some((7, 8)), name));
        }
        assert!((viewer("CT", "lungs").marked_ml() - 0.8).abs() < 1e-9);
    }

    #[test]
    fn the_brush_is_round_in_millimetres_and_can_be_undone() {
        for (plane, brush, voxels) in [
            (Plane::Axial, 0, 1),
            (Plane::Axial, 1, 5),
            (Plane::Axial, 2, 29),
            // Slices are 4 mm apart, so a brush of 3 mm stays within one.
            (Plane::Coronal, 2, 7),
            (Plane::Coronal, 3, 13 + 2 * 9),
        ] {
            let mut viewer = viewer("CT", "lungs");
            viewer.cursor = [10, 8, 3];
            (viewer.plane, viewer.brush) = (plane, brush);
            let runs = viewer.under_brush();
            assert_eq!(viewer.change(&runs, true), voxels, "{plane:?} {brush}");
            assert_eq!(viewer.change(&runs, true), 0);
            assert!(viewer.touched && viewer.undo() && !viewer.undo());
            assert_eq!(viewer.marks.count(), 200);
        }
    }
}
