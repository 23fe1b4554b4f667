//! The faults that strike a world, drawn from its seed.
//!
//! Each strikes, lasts for a time that is drawn too, and is over; several may last at once. Once
//! the time of faults has passed none strikes any more, and those that last end by themselves.

use std::fmt;

use gantry_model::Millis;

use crate::network::Direction;
use crate::random::Random;
use crate::trace::name;

/// A year.
const YEAR_MS: u64 = 365 * 86_400_000;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// The scheduler is killed, or its host loses power.
    SchedulerCrash,
    /// An agent is killed; its tasks go on.
    AgentCrash { server: usize },
    /// A host is started again; its tasks are gone.
    Reboot { server: usize },
    /// A host loses power, and its disk what was not synced.
    PowerCut { server: usize },
    /// Whatever runs on a host fails soon.
    BadHost { server: usize },
    /// The wall clock of a host is set wrong; of the scheduler's where no server is named.
    ClockJump { server: Option<usize>, by_ms: i64 },
    /// A path is cut, one way.
    Cut { server: usize, direction: Direction },
    /// Some servers, from this one on, are cut off both ways.
    Partition { server: usize, count: usize },
    /// So many packets more are lost, in thousandths.
    Loss { permille: u32 },
    /// An agent leaves its session and calls again at once; the scheduler is not told.
    Reset { server: usize },
    /// A GPU falls off the bus; the agent is started again and does not see it.
    GpuVanishes { server: usize, gpu: usize },
    /// A GPU has an XID, and is ill.
    Xid { server: usize, gpu: usize, code: u64 },
    /// The driver of a node has lost a GPU, which it still lists.
    GpuIsLost { server: usize, gpu: usize },
    /// The scheduler's disk takes half a second for each sync.
    SlowDisk,
    /// The scheduler's disk is full.
    FullDisk,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SchedulerCrash => f.write_str("the scheduler is killed"),
            Self::AgentCrash { server } => write!(f, "the agent of {} is killed", name(server)),
            Self::Reboot { server } => write!(f, "{} is started again", name(server)),
            Self::PowerCut { server } => write!(f, "{} loses power", name(server)),
            Self::BadHost { server } => write!(f, "whatever runs on {} fails", name(server)),
            Self::ClockJump { server: Some(server), by_ms } => {
                write!(f, "the clock of {} jumps by {by_ms} ms", name(server))
            }
            Self::ClockJump { server: None, by_ms } => {
                write!(f, "the clock of the scheduler's host jumps by {by_ms} ms")
            }
            Self::Cut { server, direction: Direction::ToScheduler } => {
                write!(f, "nothing arrives from {}", name(server))
            }
            Self::Cut { server, direction: Direction::ToServer } => {
                write!(f, "nothing arrives at {}", name(server))
            }
            Self::Partition { server, count } => {
                write!(f, "{count} servers from {} on are cut off", name(server))
            }
            Self::Loss { permille } => write!(f, "{permille} of 1000 packets are lost"),
            Self::Reset { server } => write!(f, "{} leaves its session", name(server)),
            Self::GpuVanishes { server, gpu } => {
                write!(f, "gpu {gpu} of {} vanishes", name(server))
            }
            Self::Xid { server, gpu, code } => {
                write!(f, "gpu {gpu} of {} has XID {code}", name(server))
            }
            Self::GpuIsLost { server, gpu } => {
                write!(f, "the driver of {} has lost gpu {gpu}", name(server))
            }
            Self::SlowDisk => f.write_str("the journal's disk is slow"),
            Self::FullDisk => f.write_str("the journal's disk is full"),
        }
    }
}

impl Fault {
    /// The next fault, somewhere among so many servers.
    pub(crate) fn draw(random: &mut Random, servers: usize) -> Self {
        let server = random.below(servers as u64) as usize;
        match random.below(26) {
            0..=2 => Self::SchedulerCrash,
            3..=5 => Self::AgentCrash { server },
            6..=7 => Self::Reboot { server },
            8..=9 => {
                let both = [Direction::ToScheduler, Direction::ToServer];
                Self::Cut { server, direction: *random.pick(&both) }
            }
            10..=12 => {
                let count = random.between(1, servers.div_ceil(2) as u64) as usize;
                Self::Partition { server, count }
            }
            13 => Self::Loss { permille: random.between(20, 500) as u32 },
            14..=16 => Self::Reset { server },
            17 => Self::GpuVanishes { server, gpu: random.below(8) as usize },
            18 => Self::SlowDisk,
            19 => Self::FullDisk,
            20..=21 => Self::PowerCut { server },
            22..=23 => Self::BadHost { server },
            _ => Self::jump(server, random),
        }
    }

    /// A clock is set wrong by minutes or by a year, forward or back.
    fn jump(server: usize, random: &mut Random) -> Self {
        let server = random.chance(600).then_some(server);
        let far = if random.chance(500) { YEAR_MS } else { random.between(60_000, 3_600_000) };
        let by_ms = if random.chance(500) { far as i64 } else { -(far as i64) };
        Self::ClockJump { server, by_ms }
    }

    /// How long it lasts.
    pub(crate) fn lasts(self, random: &mut Random) -> Millis {
        let (least, most) = match self {
            Self::SchedulerCrash => (300, 60_000),
            Self::AgentCrash { .. } => (200, 40_000),
            Self::Reboot { .. } | Self::PowerCut { .. } => (20_000, 240_000),
            Self::ClockJump { .. } => (10_000, 1_800_000),
            Self::Cut { .. } | Self::Partition { .. } => (500, 180_000),
            Self::Loss { .. } => (5_000, 300_000),
            Self::Reset { .. } => (0, 0),
            Self::GpuVanishes { .. } | Self::BadHost { .. } => (60_000, 1_800_000),
            Self::Xid { .. } | Self::GpuIsLost { .. } => (100, 600_000),
            Self::SlowDisk => (1_000, 60_000),
            Self::FullDisk => (1_000, 30_000),
        };
        random.duration(Millis(least), Millis(most))
    }
}
