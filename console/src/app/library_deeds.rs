//! What a person can do to the library: keep a mask as a label, reject a sample, approve and retire
//! models, take images in, have everything checked. Each is asked before, says what will follow, and
//! names the command that does the same.

use super::App;
use super::library::Doing;
use super::steer::{Choice, Line, Targets, Tone, choice, quoted, with};

/// What can be done to models.
pub const FOR_MODELS: [Choice; 2] = [
    choice('a', "approve", "good enough to be served"),
    choice('r', "retire", "not to be used any more"),
];

/// What can be done to the mask that is open: keep it, keep it under a name, reject it.
pub const LABEL: [Choice; 3] = [
    choice('a', "accept", "keep the mask as a label by you"),
    with('a', "accept", "keep the mask as a label by you", "what the mask marks, as lungs"),
    with('r', "reject", "nothing is to be learnt from it", "why, for everyone who looks"),
];

/// Taking images in.
pub const ADD: Choice =
    with('a', "add", "take images into the library", "the folder or file with DICOM images");

/// What is done to the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LibraryDeed {
    /// Models are approved, or retired.
    Stage {
        /// Whether they are approved.
        approve: bool,
    },
    /// The mask on the screen is kept as a label.
    Accept {
        /// What it marks; what it marked before where it is empty.
        label: String,
    },
    /// The sample on the screen is not to be learnt from.
    Reject {
        /// Why.
        reason: String,
    },
    /// Images are taken in.
    Add {
        /// From where.
        path: String,
    },
    /// Everything is checked.
    Verify,
}

impl LibraryDeed {
    /// The deed of a word and what was typed with it.
    ///
    /// # Errors
    /// With a sentence where the value makes no sense.
    pub(super) fn of(verb: &str, value: &str) -> Result<Option<Self>, String> {
        Ok(Some(match verb {
            "approve" | "retire" => Self::Stage { approve: verb == "approve" },
            "accept" => {
                if !value.is_empty() {
                    gantry_model::job::check_name("label", value)
                        .map_err(|reject| reject.sentence)?;
                }
                Self::Accept { label: value.to_owned() }
            }
            "reject" if value.is_empty() => return Err("say why, for everyone who looks".into()),
            "reject" => Self::Reject { reason: value.to_owned() },
            "add" if value.is_empty() => return Err("name a folder or a file".into()),
            "add" => Self::Add { path: value.to_owned() },
            "verify" => Self::Verify,
            _ => return Ok(None),
        }))
    }

    /// Its word.
    pub(super) const fn verb(&self) -> &'static str {
        match self {
            Self::Stage { approve: true } => "approve",
            Self::Stage { approve: false } => "retire",
            Self::Accept { .. } => "accept",
            Self::Reject { .. } => "reject",
            Self::Add { .. } => "add to",
            Self::Verify => "verify",
        }
    }

    /// The command line that does the same.
    pub(super) fn command(&self, targets: &Targets) -> String {
        let names = targets.names();
        match self {
            Self::Stage { approve } => {
                let flag = if *approve { "--approve" } else { "--retire" };
                let each = names.iter().map(|name| format!("gantry models {name} {flag}"));
                each.collect::<Vec<_>>().join("; ")
            }
            Self::Accept { label } => {
                let series = names.join(" ");
                format!("gantry label {series} MASK.nii.gz --label {}", quoted(label))
            }
            Self::Reject { reason } => {
                let reason = quoted(reason);
                let each = names
                    .iter()
                    .map(|name| format!("gantry library reject {name} --reason {reason}"));
                each.collect::<Vec<_>>().join("; ")
            }
            Self::Add { path } => format!("gantry import --deidentify 113100 {}", quoted(path)),
            Self::Verify => "gantry data verify".into(),
        }
    }

    /// The same with what the screen knows, and told for the command: a label is of a series.
    pub(super) fn filled(&self, app: &App, targets: &Targets) -> (Self, Targets) {
        let Self::Accept { label } = self else { return (self.clone(), targets.clone()) };
        let Some(viewer) = &app.viewer else { return (self.clone(), targets.clone()) };
        let label = if label.is_empty() { viewer.label().to_owned() } else { label.clone() };
        let series = viewer.opened.iter().map(|opened| opened.series.clone()).collect();
        (Self::Accept { label }, Targets::Library(series))
    }

    /// What will follow.
    pub(super) fn consequences(&self, app: &App, targets: &Targets, lines: &mut Vec<Line>) {
        let mut say = |rank: u8, tone: Tone, text: String| lines.push(Line { text, tone, rank });
        match self {
            Self::Stage { approve } => {
                say(0, Tone::Plain, targets.names().join(", "));
                let what = if *approve { "may be served" } else { "is not to be used any more" };
                say(1, Tone::Plain, format!("{what}; kept with your name and the time"));
                say(2, Tone::Dim, "for research use, never a diagnosis".into());
            }
            Self::Accept { .. } => {
                let (Self::Accept { label }, _) = self.filled(app, targets) else { return };
                let Some(viewer) = &app.viewer else { return };
                let (ml, voxels) = (viewer.marked_ml(), viewer.marks.count());
                say(0, Tone::Plain, format!("{label}: {ml:.1} ml, {voxels} voxels"));
                let how = if viewer.touched { "as you have corrected it" } else { "as it is" };
                say(1, Tone::Plain, format!("kept {how}, with your name, time and checksum"));
                say(2, Tone::Plain, "what was there before stays".into());
            }
            Self::Reject { reason } => {
                say(0, Tone::Plain, format!("no training learns from it: {reason}"));
                say(1, Tone::Plain, "it is kept, with your name, the time and why".into());
            }
            Self::Add { path } => {
                say(0, Tone::Plain, format!("every file of {path}, without its patient (PS3.15)"));
                say(1, Tone::Plain, "each gets a verdict; none is dropped".into());
            }
            Self::Verify => {
                say(0, Tone::Plain, "reads every record and every byte; changes nothing".into());
                say(1, Tone::Plain, "takes minutes in a large library".into());
            }
        }
    }

    /// What is wished of the library.
    pub(super) fn doing(&self, app: &App, targets: &Targets) -> Option<Doing> {
        let names = targets.names();
        Some(match self {
            Self::Stage { approve } => Doing::Stage { models: names, approve: *approve },
            Self::Accept { .. } => {
                let (Self::Accept { label }, _) = self.filled(app, targets) else { return None };
                let viewer = app.viewer.as_ref()?;
                let marks = viewer.changed_marks();
                Doing::Accept { subject: viewer.subject.clone(), label, marks }
            }
            Self::Reject { reason } => {
                Doing::Reject { sample: names.into_iter().next()?, reason: reason.clone() }
            }
            Self::Add { path } => Doing::Add { path: path.clone() },
            Self::Verify => Doing::Verify,
        })
    }
}
