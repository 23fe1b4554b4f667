//! A GPU of the list, and the ways to look at all of them: by what they stand together, what their
//! strips show, by what they are sorted.

use gantry_model::{At, NodeState};
use gantry_telemetry::Quantity;
use gantry_wire::{GpuPage, GpuRow};

use crate::app::filter::Filter;

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuLine {
    /// Its node.
    pub node: String,
    /// Where that stands.
    pub state: NodeState,
    /// When its numbers came.
    pub sampled: Option<At>,
    /// Its numbers.
    pub row: GpuRow,
    /// The name of the job that holds it.
    pub name: String,
    /// The user of that job.
    pub user: String,
}

impl GpuLine {
    /// What it is called.
    #[must_use]
    pub fn id(&self) -> (String, u16) {
        (self.node.clone(), self.row.index)
    }

    pub(super) fn holds(&self, filter: &Filter) -> bool {
        filter.holds(|field| {
            Some(match field {
                "gpu" => format!("{}:{}", self.node, self.row.index),
                "node" => self.node.clone(),
                "job" => self.row.job.map_or_else(String::new, |job| job.to_string()),
                "name" => self.name.clone(),
                "user" => self.user.clone(),
                "state" => self.word().to_owned(),
                "sm" => (self.row.busy_permille? / 10).to_string(),
                "mem" => (self.row.memory_used_mib? / 1024).to_string(),
                "temp" => self.row.temperature_c?.to_string(),
                "watt" => self.row.power_w?.to_string(),
                _ => return None,
            })
        })
    }

    /// The word for how it stands.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match (self.state, self.row.unfit, self.row.job) {
            (NodeState::Up, true, _) => "unfit",
            (NodeState::Up, false, Some(_)) => "held",
            (NodeState::Up, false, None) => "free",
            (NodeState::Late, ..) => "late",
            (NodeState::Lost, ..) => "lost",
        }
    }
}

/// The GPUs of a page.
#[must_use]
pub fn lines(page: &GpuPage) -> Vec<GpuLine> {
    let line = |node: &gantry_wire::GpuNode, row: &GpuRow| {
        let holder = row.job.and_then(|job| {
            let at = page.holders.binary_search_by_key(&job, |holder| holder.job).ok()?;
            page.holders.get(at)
        });
        GpuLine {
            node: node.name.clone(),
            state: node.state,
            sampled: node.sampled,
            row: row.clone(),
            name: holder.map_or_else(String::new, |holder| holder.name.clone()),
            user: holder.map_or_else(String::new, |holder| holder.user.clone()),
        }
    };
    page.nodes.iter().flat_map(|node| node.gpus.iter().map(move |row| line(node, row))).collect()
}

/// By what the rows stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// By node.
    Node,
    /// By the job that holds them.
    Job,
    /// By its user.
    User,
    /// By nothing.
    None,
}

impl Group {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Job => "job",
            Self::User => "user",
            Self::None => "none",
        }
    }
}

/// What the strips show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Use of the multiprocessors.
    Busy,
    /// Memory in use.
    Memory,
    /// Power.
    Power,
    /// Temperature.
    Temperature,
}

impl Metric {
    /// The next one, round and round.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Busy => Self::Memory,
            Self::Memory => Self::Power,
            Self::Power => Self::Temperature,
            Self::Temperature => Self::Busy,
        }
    }

    /// Its word, as the screen heads it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Busy => "SM %",
            Self::Memory => "MEM",
            Self::Power => "WATT",
            Self::Temperature => "TEMP",
        }
    }

    /// What is asked for.
    #[must_use]
    pub const fn quantity(self) -> Quantity {
        match self {
            Self::Busy => Quantity::GpuBusy,
            Self::Memory => Quantity::GpuMemory,
            Self::Power => Quantity::GpuPower,
            Self::Temperature => Quantity::GpuTemperature,
        }
    }

    /// A value as a part of what there can be, in thousandths: of 700 W, of 100 degrees, of its
    /// memory.
    #[must_use]
    pub fn permille(self, value: u32, memory_mib: u64) -> u16 {
        let value = u64::from(value);
        let part = match self {
            Self::Busy => value,
            Self::Memory => (value * 1000).checked_div(memory_mib).unwrap_or(0),
            Self::Power => value / 700,
            Self::Temperature => value * 10,
        };
        part.min(1000) as u16
    }
}

/// By what the rows are sorted within their groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuSort {
    /// By name.
    Name,
    /// The busiest first.
    Busy,
    /// The fullest first.
    Memory,
    /// The hottest first.
    Temperature,
    /// Those that draw most first.
    Power,
}

impl GpuSort {
    /// The next one, round and round.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Name => Self::Busy,
            Self::Busy => Self::Memory,
            Self::Memory => Self::Temperature,
            Self::Temperature => Self::Power,
            Self::Power => Self::Name,
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Busy => "sm",
            Self::Memory => "memory",
            Self::Temperature => "temperature",
            Self::Power => "power",
        }
    }
}
