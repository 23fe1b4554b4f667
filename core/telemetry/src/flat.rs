//! A sample as a layout and a flat list of numbers.
//!
//! From one second to the next the numbers of a sample change and hardly ever anything else: what
//! is mounted, how many cores and GPUs there are. So all that is text or a count goes into a
//! [`Layout`], which is sent once, and the rest is a list of numbers, which is what deltas are made
//! of. An absent reading is the number 0 and a reading is one more than itself; the greatest `u64`,
//! by which drivers say that they have no value, is therefore an absent one.
//!
//! Lists whose length changes all the time (tasks, processes) would change the layout all the time.
//! They stand behind the other numbers, their lengths among them.
//!
//! `field.rs` says how one field is put into the list and taken from it, and `fields.rs` names all
//! of them once.

use serde::{Deserialize, Serialize};

use crate::field::{Field, Sink, Source};
use crate::sample::Sample;

/// Numbers of one sample: 2,048 cores, 32 GPUs, 300 disks and 1,000 tasks take 12,000.
pub(crate) const NUMBERS_MAX: usize = 32 * 1024;
/// Counts and texts of one layout: 300 disks and 300 networks have 600 texts.
const TEXTS_MAX: usize = 1024;
/// Bytes of all texts: with a keyframe's numbers they stay below the 64 KiB of one message.
const TEXT_BYTES_MAX: usize = 24 * 1024;

/// What of a sample is not a number: texts, and how many there are of each thing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Numbers before those of the lists that change their length.
    fixed: u32,
    pub(crate) counts: Vec<u32>,
    pub(crate) texts: Vec<String>,
}

/// Why numbers are no sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A sample, made flat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flat {
    pub(crate) layout: Layout,
    pub(crate) numbers: Vec<u64>,
}

impl Layout {
    /// Whether it keeps the limits of what is sent.
    pub(crate) fn is_within_limits(&self) -> bool {
        let bytes: usize = self.texts.iter().map(String::len).sum();
        self.counts.len() <= TEXTS_MAX && self.texts.len() <= TEXTS_MAX && bytes <= TEXT_BYTES_MAX
    }
}

impl Flat {
    /// Becomes this sample. Its memory, and that of `lists`, is used again.
    pub(crate) fn set(&mut self, sample: &Sample, lists: &mut Vec<u64>) {
        let numbers = std::mem::take(&mut self.numbers);
        let mut sink = Sink::new(&mut self.layout, numbers, std::mem::take(lists));
        sample.put(&mut sink);
        (self.numbers, *lists) = sink.finish();
        self.layout.fixed = self.numbers.len() as u32;
        self.numbers.extend_from_slice(lists);
    }

    /// Whether a decoder would take it.
    pub(crate) fn is_within_limits(&self) -> bool {
        self.numbers.len() <= NUMBERS_MAX && self.layout.is_within_limits()
    }
}

/// Makes `sample` the one that a layout and numbers describe, whatever it was before. Where they
/// describe none it is left half made.
pub(crate) fn restore(
    layout: &Layout,
    numbers: &[u64],
    sample: &mut Sample,
) -> Result<(), Malformed> {
    let (numbers, lists) = numbers.split_at_checked(layout.fixed as usize).ok_or(Malformed)?;
    let mut source = Source::new(layout, numbers, lists);
    sample.restore(&mut source)?;
    if source.is_used_up() { Ok(()) } else { Err(Malformed) }
}
