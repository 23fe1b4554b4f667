//! What the administrator of a simulated cluster has set: groups with their guarantees and limits,
//! and licences; and how he changes his mind about them.
//!
//! The first settings are the widest there ever are. What can run under any others can run under
//! them, so that everything ends once they are in force again.

use std::collections::BTreeMap;

use gantry_cluster::{ClusterSettings, GroupSettings};
use gantry_model::{MemoryMib, Millis, NodeFacts, Resources};

use crate::random::Random;

/// Everybody who submits.
pub(crate) const USERS: [&str; 5] = ["ada", "grace", "marie", "rosalind", "wilhelm"];
/// Groups, whose users they are, and whether they have a guarantee and a limit.
const GROUPS: [(&str, &[&str], Kept); 3] = [
    ("imaging", &["ada", "grace"], Kept::Both),
    ("oncology", &["marie"], Kept::Guarantee),
    ("open", &[], Kept::Limit),
];
/// Licences, and how many there are.
pub(crate) const LICENCES: [(&str, u32); 2] = [("atlas", 8), ("matlab", 3)];

/// What may wait on a node takes so long together.
const AHEAD: Millis = Millis::from_seconds(300);

/// What a group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Guarantee,
    Limit,
    Both,
}

/// Groups that a user may name.
pub(crate) fn groups_of(user: &str) -> Vec<&'static str> {
    let may = |(_, users, _): &&(&str, &[&str], Kept)| users.is_empty() || users.contains(&user);
    GROUPS.iter().filter(may).map(|(name, ..)| *name).collect()
}

/// A part of an amount, in hundredths; what is limited stays limited.
fn part(whole: &Resources, hundredths: u64) -> Resources {
    let some = |amount: u64| (amount * hundredths / 100).max(u64::from(amount > 0));
    Resources {
        cores: some(u64::from(whole.cores)) as u32,
        memory: MemoryMib(some(whole.memory.0)),
        gpus: some(u64::from(whole.gpus)) as u32,
        scratch: MemoryMib(0),
    }
}

/// The first settings, for servers that are built so. What was set already stays.
pub(crate) fn first<'a>(
    given: ClusterSettings,
    servers: impl Iterator<Item = &'a NodeFacts>,
) -> ClusterSettings {
    if !given.groups.is_empty() || !given.licences.is_empty() {
        return given;
    }
    let all = servers.fold(Resources::default(), |sum, facts| sum.plus(&facts.resources));
    let group = |(name, users, kept): (&str, &[&str], Kept)| {
        // Memory follows cores: a limit on it would say the same twice.
        let cores_and_gpus = Resources { memory: MemoryMib(0), ..all };
        let guarantee = if kept == Kept::Limit { 0 } else { 25 };
        let guarantee = (guarantee > 0).then(|| part(&cores_and_gpus, guarantee));
        let settings = GroupSettings {
            guarantee: guarantee.unwrap_or_default(),
            limit: (kept != Kept::Guarantee).then(|| part(&cores_and_gpus, 50)),
            users: users.iter().map(|user| (*user).to_owned()).collect(),
            ..GroupSettings::default()
        };
        (name.to_owned(), settings)
    };
    ClusterSettings {
        groups: GROUPS.into_iter().map(group).collect(),
        licences: LICENCES.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
        // Tasks here take minutes, and go ahead all the same.
        ahead: AHEAD,
        ..given
    }
}

/// Settings that are narrower than the first ones somewhere, or the first ones again.
pub(crate) fn others(first: &ClusterSettings, random: &mut Random) -> ClusterSettings {
    let mut settings = first.clone();
    if random.chance(250) {
        return settings;
    }
    for group in settings.groups.values_mut() {
        group.weight = random.between(20, 200) as u32;
        group.guarantee = part(&group.guarantee, random.between(20, 100));
        group.limit = group.limit.map(|limit| part(&limit, random.between(30, 100)));
    }
    let narrow = |(name, count): (&String, &u32)| {
        (name.clone(), random.between(0, u64::from(*count)) as u32)
    };
    settings.licences = first.licences.iter().map(narrow).collect::<BTreeMap<_, _>>();
    settings.quarantine_after = random.between(3, 12) as u32;
    settings.node_timeout = Millis(first.node_timeout.0 * random.between(100, 300) / 100);
    settings.ahead = Millis(AHEAD.0 * random.between(0, 100) / 100);
    settings.age_step = Millis(first.age_step.0 * random.between(20, 200) / 100);
    settings.half_life = Millis(first.half_life.0 * random.between(5, 200) / 100);
    settings
}
