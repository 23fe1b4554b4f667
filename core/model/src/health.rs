//! What can be wrong with a node or a GPU, and what follows from it.
//!
//! A [`Finding`] says what was seen, a [`Policy`] what is done about it. The policies are an
//! administrator's to set; [`Trouble::policy`] is what holds without that.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::units::At;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// An XID for which the program on the GPU is to blame.
    XidUser,
    /// An XID of the GPU or its driver.
    XidGpu,
    /// An XID of the GPU's memory.
    XidMemory,
    /// An XID of the bus: the GPU cannot be reached.
    XidBus,
    /// An XID of `NVLink`.
    XidLink,
    /// Memory errors that were not corrected.
    Ecc,
    /// A row of memory waits for a reset to be replaced.
    RemapPending,
    /// A row of memory could not be replaced.
    RemapFailed,
    /// The GPU is gone.
    GpuLost,
    /// The GPU is slowed down since it is too hot.
    GpuHot,
    /// The GPU is slowed down since it gets too little power.
    GpuPower,
    /// The GPU driver does not answer.
    DriverHung,
    /// The node's clock is wrong.
    Clock,
    /// The disk of the agent's folder is full.
    DiskFull,
    /// The shared storage does not answer.
    StorageSilent,
    /// The shared storage answers slowly.
    StorageSlow,
    /// The node could not be made ready for a task.
    NotReady,
}

/// What is done about a trouble, the heavier last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// It is written into the event log.
    Note,
    /// The GPU gets no new work.
    Gpu,
    /// The node gets no new work.
    Node,
}

/// What happens to work that runs where the trouble is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// It may end there.
    Stay,
    /// It is stopped, and goes on elsewhere from its checkpoint.
    Move,
}

/// When work is given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Back {
    /// Once the trouble is over.
    Over,
    /// Once it is over and the agent's test has found nothing.
    Test,
    /// Once a person resumes the node.
    Person,
}

/// What follows from a trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What is done.
    pub measure: Measure,
    /// What happens to work there.
    pub work: Work,
    /// When work is given again.
    pub back: Back,
}

/// Whether a trouble was seen once, has begun, or is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    /// It was seen, and has no end of its own.
    Seen,
    /// It has begun.
    Begun,
    /// It is over.
    Over,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    pub trouble: Trouble,
    /// Whether it has begun or is over.
    pub sign: Sign,
    /// On which GPU, by UUID; absent where it is the node's.
    pub gpu: Option<String>,
    /// The numbers, for a person: `XID 79`, `91 C for 60 s`.
    pub detail: String,
}

/// A trouble that a node has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ailment {
    /// What it is.
    pub trouble: Trouble,
    /// The GPU that has it, by UUID; absent where it is the node's.
    pub gpu: Option<String>,
    /// The numbers, for a person.
    pub detail: String,
    /// Since when.
    pub since: At,
    /// What is done about it.
    pub policy: Policy,
    /// What it waits for.
    pub stage: Stage,
}

/// How far a trouble is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It goes on.
    Active,
    /// It is over, and a test begins once nothing runs there any more.
    Emptying,
    /// The agent tests.
    Testing {
        /// The test's number.
        number: u64,
    },
    /// A person has to look at it.
    Person,
}

impl Trouble {
    /// All of them, in the order in which screens and files list them.
    pub const ALL: [Self; 17] = [
        Self::XidUser,
        Self::XidGpu,
        Self::XidMemory,
        Self::XidBus,
        Self::XidLink,
        Self::Ecc,
        Self::RemapPending,
        Self::RemapFailed,
        Self::GpuLost,
        Self::GpuHot,
        Self::GpuPower,
        Self::DriverHung,
        Self::Clock,
        Self::DiskFull,
        Self::StorageSilent,
        Self::StorageSlow,
        Self::NotReady,
    ];

    /// The class of an XID, by NVIDIA's catalogue of XID errors. One that is not known is the GPU's:
    /// it is better to test a sound GPU than to go on with a broken one.
    #[must_use]
    pub const fn of_xid(code: u64) -> Self {
        match code {
            // Graphics engine exceptions, page faults and stopped channels of a program.
            8 | 13 | 31 | 32 | 43 | 45 | 68 | 69 | 109 | 137 => Self::XidUser,
            // Double-bit errors, row remapping, high rates, contained and uncontained errors.
            48 | 63 | 64 | 92 | 94 | 95 | 140 | 171 | 172 => Self::XidMemory,
            // Fallen off the bus; PCIe.
            38 | 54 | 79 | 121 => Self::XidBus,
            74 | 122 | 144..=150 => Self::XidLink,
            _ => Self::XidGpu,
        }
    }

    /// What follows where no administrator says otherwise.
    #[must_use]
    pub const fn policy(self) -> Policy {
        let (measure, work, back) = match self {
            Self::XidUser | Self::GpuPower | Self::Clock | Self::StorageSlow => {
                (Measure::Note, Work::Stay, Back::Over)
            }
            Self::XidGpu | Self::XidMemory | Self::XidLink | Self::Ecc => {
                (Measure::Gpu, Work::Move, Back::Test)
            }
            // A reset or an exchange is a person's to do.
            Self::XidBus => (Measure::Node, Work::Move, Back::Person),
            Self::RemapFailed => (Measure::Gpu, Work::Move, Back::Person),
            Self::GpuLost => (Measure::Gpu, Work::Move, Back::Test),
            Self::RemapPending | Self::GpuHot => (Measure::Gpu, Work::Stay, Back::Over),
            // What made it ready for others may do so again.
            Self::NotReady => (Measure::Node, Work::Stay, Back::Test),
            Self::DriverHung | Self::DiskFull | Self::StorageSilent => {
                (Measure::Node, Work::Stay, Back::Over)
            }
        };
        Policy { measure, work, back }
    }

    /// The word for it in files, on screens and in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::XidUser => "xid-user",
            Self::XidGpu => "xid-gpu",
            Self::XidMemory => "xid-memory",
            Self::XidBus => "xid-bus",
            Self::XidLink => "xid-link",
            Self::Ecc => "ecc",
            Self::RemapPending => "remap-pending",
            Self::RemapFailed => "remap-failed",
            Self::GpuLost => "gpu-lost",
            Self::GpuHot => "gpu-hot",
            Self::GpuPower => "gpu-power",
            Self::DriverHung => "driver-hung",
            Self::Clock => "clock",
            Self::DiskFull => "disk-full",
            Self::StorageSilent => "storage-silent",
            Self::StorageSlow => "storage-slow",
            Self::NotReady => "not-ready",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Trouble {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|trouble| trouble.word() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|trouble| trouble.word()).collect();
            format!("{text:?} is no trouble that gantry knows; known are {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for trouble in Trouble::ALL {
            assert_eq!(trouble.word().parse(), Ok(trouble));
        }
        assert!("xid".parse::<Trouble>().unwrap_err().contains("xid-user"));
    }

    #[test]
    fn xids_have_the_class_of_the_catalogue() {
        for (code, class) in [
            (13, Trouble::XidUser),
            (31, Trouble::XidUser),
            (43, Trouble::XidUser),
            (48, Trouble::XidMemory),
            (62, Trouble::XidGpu),
            (63, Trouble::XidMemory),
            (74, Trouble::XidLink),
            (79, Trouble::XidBus),
            (94, Trouble::XidMemory),
            (119, Trouble::XidGpu),
            (9999, Trouble::XidGpu),
        ] {
            assert_eq!(Trouble::of_xid(code), class, "{code}");
        }
    }
}
