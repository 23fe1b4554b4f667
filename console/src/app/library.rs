//! What the console wishes from the library on the shared storage, and what it is told.
//!
//! Images never come over the wire: the machine that the console runs on reads them itself, with the
//! rights of the one who opened it. Everything here is named by the library's own ids; no name, UID
//! or header of a patient is among it.

use std::sync::Arc;

use gantry_imaging::Image;
use gantry_library::LabelState;

use super::image::{Marks, Run};

/// Rows of one kind that are listed; what is beyond is counted.
pub const ROWS_MAX: usize = 20_000;
/// Voxels of an image that is opened: 512 × 512 × 512, 512 MB. One is open at a time.
pub const VOXELS_MAX: usize = 128 << 20;
/// The side of a thumbnail, in pixels.
pub const THUMBNAIL: usize = 48;
/// Nearest cases that are shown.
pub const NEAREST: usize = 5;

/// What kind of thing is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A series as it came.
    Series,
    /// A sample: the image that a pipeline made, and its mask.
    Sample,
    /// A series with what a model says of it.
    Prediction,
}

impl Kind {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Sample => "sample",
            Self::Prediction => "prediction",
        }
    }
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its kind.
    pub kind: Kind,
    /// Its id.
    pub id: String,
}

/// How a region is grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growing {
    /// What is connected and differs from the seed by so much.
    Tolerance(u16),
    /// What is connected and lies within so many tenths of a deviation of the region's mean.
    Confidence(u16),
}

/// Something that is to be done to the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Keep a mask as a label by a person.
    Accept {
        /// Of what.
        subject: Subject,
        /// What it marks.
        label: String,
        /// The mask, where a person has changed it.
        marks: Option<Arc<Marks>>,
    },
    /// Say that a sample is not to be learnt from.
    Reject {
        /// The sample.
        sample: String,
        /// Why.
        reason: String,
    },
    /// Say that models are good enough to be served, or not to be used any more.
    Stage {
        /// The models.
        models: Vec<String>,
        /// Whether they are approved.
        approve: bool,
    },
    /// Take images into the library, without their patients.
    Add {
        /// The folder or file.
        path: String,
    },
    /// Check every hash and reference.
    Verify,
}

/// What the console wishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// What the library holds.
    Look,
    /// The image of something.
    Open {
        /// Of what.
        subject: Subject,
        /// Its number: what comes for another one is of no use any more.
        number: u64,
        /// Whether it is refused where its patient was not taken out.
        deidentified: bool,
    },
    /// The image is not looked at any more.
    Close,
    /// Grow a region in the open image.
    Grow {
        /// Of which opening.
        number: u64,
        /// From where.
        seed: [usize; 3],
        /// How.
        how: Growing,
    },
    /// The cases nearest to a prediction.
    Near(String),
    /// Do something.
    Do(Box<Doing>),
}

/// An image that was opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its voxels, in Hounsfield units where it is a CT.
    pub image: Image,
    /// The series it is of.
    pub series: String,
    /// The modality.
    pub modality: String,
    /// What its mask marks; empty where there is none.
    pub label: String,
    /// Values that leave out the rare extremes.
    pub range: (f32, f32),
}

/// A small picture: greys and what is marked, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumbnail {
    /// Pixels across and down, each as high as wide.
    pub size: [usize; 2],
    /// The greys.
    pub greys: Vec<u8>,
}

/// An earlier case.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Its series.
    pub series: String,
    /// How far it is: 0 is the same direction.
    pub distance: f32,
    /// What was found there.
    pub findings: String,
    /// What it looks like, or why that is not shown.
    pub thumbnail: Result<Thumbnail, String>,
}

/// A series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesLine {
    /// Its id.
    pub id: String,
    /// Whose it is, by the library's key.
    pub patient: String,
    /// Its modality.
    pub modality: String,
    /// Its images.
    pub instances: u64,
    /// Those that conflict with an earlier one.
    pub conflicts: u64,
    /// Samples made of it.
    pub samples: u32,
    /// When the last image came.
    pub at_ms: u64,
}

/// A sample.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleLine {
    /// Its id.
    pub id: String,
    /// The series it was made of.
    pub series: String,
    /// What its mask marks.
    pub label: String,
    /// The side of the split it is on, as a training with the default seed takes it.
    pub side: &'static str,
    /// The person that made the mask, or nothing for a pipeline.
    pub author: Option<String>,
    /// Where it stands.
    pub state: LabelState,
    /// Why a person has rejected it.
    pub rejected: Option<String>,
    /// The mask's volume.
    pub volume_ml: f64,
    /// Voxels along x, y, z.
    pub size: [usize; 3],
    /// How sure the newest model is of its series, where it has said something.
    pub confidence: Option<f32>,
    /// When it was made.
    pub at_ms: u64,
}

/// A model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelLine {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The run that left it.
    pub run: String,
    /// candidate, approved or retired.
    pub stage: &'static str,
    /// Its best Dice in validation.
    pub dice: Option<f64>,
    /// Its curves.
    pub curves: Vec<gantry_wire::Metric>,
    /// Predictions that it made.
    pub predictions: u32,
    /// When it was left.
    pub at_ms: u64,
}

/// A prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictionLine {
    /// Its id.
    pub id: String,
    /// The series.
    pub series: String,
    /// The model, by id.
    pub model: String,
    /// The model's name.
    pub name: String,
    /// The model's stage.
    pub stage: &'static str,
    /// The mask's volume.
    pub volume_ml: f64,
    /// The mean probability within the mask.
    pub confidence: f32,
    /// What was found.
    pub findings: String,
    /// When it was made.
    pub at_ms: u64,
}

/// A file that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsideLine {
    /// Its bytes, by their hash.
    pub id: String,
    /// A stable word.
    pub reason: String,
    /// The sentence.
    pub sentence: String,
    /// How many bytes.
    pub bytes: u64,
    /// When.
    pub at_ms: u64,
}

/// The samples of one label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelLine {
    /// The label.
    pub label: String,
    /// Samples; those made by people; those that people rejected; patients.
    pub counts: [u64; 4],
    /// To train, to validate and to test.
    pub sides: [u64; 3],
}

/// A case that waits for a person's look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingLine {
    /// Its series.
    pub series: String,
    /// The newest mask that a pipeline has made of it, where there is one.
    pub sample: Option<String>,
}

impl WaitingLine {
    /// What is opened to label it: the mask, to be corrected, or the images.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match &self.sample {
            Some(id) => Subject { kind: Kind::Sample, id: id.clone() },
            None => Subject { kind: Kind::Series, id: self.series.clone() },
        }
    }
}

/// What the library holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// Series, the newest first.
    pub series: Vec<SeriesLine>,
    /// Samples, the newest first.
    pub samples: Vec<SampleLine>,
    /// Samples by label.
    pub labels: Vec<LabelLine>,
    /// Models, the newest first.
    pub models: Vec<ModelLine>,
    /// Predictions, the newest first.
    pub predictions: Vec<PredictionLine>,
    /// Files that were set aside, the newest first.
    pub asides: Vec<AsideLine>,
    /// Why files were set aside, and how many for each reason, the most frequent first.
    pub reasons: Vec<(String, u64)>,
    /// Cases that no person has labelled, the one to label next first.
    pub waiting: Vec<WaitingLine>,
    /// How many those are, with what is beyond the limit.
    pub waits: u64,
    /// What is beyond the limit, of every kind.
    pub left_out: u64,
    /// What could not be read, in a sentence.
    pub trouble: Option<String>,
}

/// What the console is told of the library.
#[derive(Clone, Debug)]
pub enum Told {
    /// There is none here, and why.
    Absent(String),
    /// What it holds.
    Listing(Arc<Listing>),
    /// How far the opening of an image is.
    Coming(u64, String),
    /// An image is open, with what is marked in it.
    Open(u64, Arc<Opened>, Option<Box<Marks>>),
    /// An image cannot be opened, or nothing grown in it.
    Failed(u64, String),
    /// What was grown in an image, from which values to which, in so many microseconds.
    Grown(u64, Vec<Run>, (f32, f32), u64),
    /// The cases nearest to a prediction.
    Near(String, Vec<Case>),
    /// How far a deed is.
    Busy(String),
    /// A deed is done, or why not.
    Done(Result<String, String>),
}
