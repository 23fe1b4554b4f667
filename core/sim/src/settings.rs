//! What a simulation is told: the seed, how large, how long, how rough.

use gantry_cluster::ClusterSettings;
use gantry_model::{At, Millis};
use gantry_node::NodeSettings;

/// How rough the world is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strength {
    /// Nothing fails.
    Calm,
    /// As a well-kept site sees it: something fails a few times a day.
    #[default]
    Light,
    /// Something fails every few minutes.
    Heavy,
    /// Something fails every few seconds.
    Storm,
}

impl Strength {
    /// The mean time between two faults, where there are any.
    pub(crate) fn between(self) -> Option<Millis> {
        match self {
            Self::Calm => None,
            Self::Light => Some(Millis::from_seconds(3 * 3600)),
            Self::Heavy => Some(Millis::from_seconds(5 * 60)),
            Self::Storm => Some(Millis::from_seconds(20)),
        }
    }

    /// The word for it in files and tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Light => "light",
            Self::Heavy => "heavy",
            Self::Storm => "storm",
        }
    }

    /// The strength that a word stands for.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        let all = [Self::Calm, Self::Light, Self::Heavy, Self::Storm];
        all.into_iter().find(|strength| strength.word() == word)
    }
}

/// A mistake built into a shell, to prove that the checks find it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flaw {
    /// None: the shells are as they should be.
    #[default]
    None,
    /// The scheduler acts before its journal is synced.
    ActsBeforeSync,
    /// Both sides hear messages of sessions that were replaced.
    HearsOldSessions,
    /// An agent that starts again does not say what still runs.
    ForgetsProcesses,
    /// A node says that a try has ended when it tells it to, not when it has.
    ReportsEarly,
    /// The scheduler's timers never fire.
    ForgetsTimers,
    /// The scheduler grants that a node is drained, or has a window, and forgets it.
    ForgetsDrains,
    /// The scheduler grants that a job is held, and forgets it.
    ForgetsHolds,
    /// The scheduler does not read its settings again when it is told to.
    ForgetsSettings,
    /// Whatever devices a try was granted, the order names the first ones.
    MixesGpus,
    /// With the try that is to make room another one is told to stop.
    StopsBystanders,
    /// The scheduler does not heed what was found to be wrong.
    ForgetsTroubles,
    /// The scheduler takes every test for one that has found nothing.
    TrustsTests,
    /// An agent that starts does not read its spool.
    ForgetsSpool,
    /// An agent goes by its host's wall clock, which may be set at any time.
    GoesByWallClock,
}

/// The settings of a simulation.
#[derive(Clone, Debug)]
pub struct SimulationSettings {
    /// Everything that chance decides follows from this.
    pub seed: u64,
    /// How many servers.
    pub nodes: u32,
    /// How long users and faults go on.
    pub length: Millis,
    /// When it begins.
    pub start: At,
    /// How rough the world is.
    pub strength: Strength,
    /// Packets that are lost at any time, in thousandths.
    pub loss_permille: u32,
    /// Jobs that users submit each hour.
    pub jobs_per_hour: u32,
    /// Events of the cluster between two proofs of all invariants.
    pub check_each: u32,
    /// How long everything may take to end once faults and users have stopped.
    pub settle: Millis,
    /// The cluster's settings.
    pub cluster: ClusterSettings,
    /// The nodes' settings.
    pub node: NodeSettings,
    /// A mistake to be found.
    pub flaw: Flaw,
}

impl Default for SimulationSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            nodes: 50,
            length: Millis::from_seconds(24 * 3600),
            // The first of January 2026.
            start: At(1_767_225_600_000),
            strength: Strength::Light,
            loss_permille: 0,
            jobs_per_hour: 100,
            check_each: 1,
            settle: Millis::from_seconds(24 * 3600),
            cluster: ClusterSettings::default(),
            node: NodeSettings::default(),
            flaw: Flaw::None,
        }
    }
}
