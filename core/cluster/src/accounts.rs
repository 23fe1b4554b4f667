//! Who uses the cluster: users and groups, what they have used lately, what they hold now, and in
//! which order their jobs stand.
//!
//! An account is a user within a group, or a user alone. Order goes by group first, then by user
//! within it. What is held now counts as if it had been used for an hour more, so that within one
//! pass two users with equal pasts take turns.

use std::collections::BTreeMap;

use gantry_model::{At, Lease, Millis, Reject, RejectKind, Resources};
use serde::{Deserialize, Serialize};

use crate::decay::Decayed;
use crate::settings::ClusterSettings;

/// A GPU counts as so many cores.
const GPU_CORES: u64 = 16;
/// What is held now counts as used for this much longer.
const AHEAD: Millis = Millis::from_seconds(3600);
/// The weight of a group that the settings do not name.
const WEIGHT: u32 = 100;
/// Between two looks at every account.
const LOOK_EACH: Millis = Millis::from_seconds(1);

/// An account's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct AccountId(u32);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Account {
    group: String,
    used: Decayed,
    /// What counts of its use, as of the last look.
    counted: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    used: Decayed,
    /// The same of the group, divided by its weight.
    counted: u64,
    held: Resources,
}

/// The place of an account in the order: smaller goes first.
pub(crate) type Share = (u64, u64);

/// Every account that ever had a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Accounts {
    ids: BTreeMap<(String, String), AccountId>,
    all: Vec<Account>,
    groups: BTreeMap<String, Group>,
    /// Jobs of each user that have not ended.
    open: BTreeMap<String, u32>,
    /// When every account was last looked at.
    looked: At,
}

/// What a lease weighs, in thousandths of a core.
pub(crate) fn weight(lease: &Lease) -> u64 {
    let gpus = u64::from(lease.resources.gpus) * u64::from(lease.gpu_permille) * GPU_CORES;
    u64::from(lease.resources.cores) * 1000 + gpus
}

/// What counts of a use: what is left of it, and what is held now for an hour more.
fn counted(used: &Decayed, at: At, settings: &ClusterSettings) -> u64 {
    used.used(at, settings.half_life).saturating_add(used.rate().saturating_mul(AHEAD.0))
}

fn weight_of(group: &str, settings: &ClusterSettings) -> u64 {
    u64::from(settings.groups.get(group).map_or(WEIGHT, |group| group.weight).max(1))
}

impl Accounts {
    /// The account of a user in a group, made where it is new. A user without a group is a group
    /// of his own.
    pub(crate) fn enter(&mut self, user: &str, group: &str) -> AccountId {
        let key = (group.to_owned(), user.to_owned());
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let id = AccountId(self.all.len() as u32);
        let used = Decayed::default();
        self.all.push(Account { group: group.to_owned(), used, counted: 0 });
        self.groups.entry(group.to_owned()).or_default();
        self.ids.insert(key, id);
        id
    }

    pub(crate) fn group(&self, id: AccountId) -> &str {
        &self.all[id.0 as usize].group
    }

    /// How many jobs of a user have not ended.
    pub(crate) fn open_jobs(&self, user: &str) -> u32 {
        self.open.get(user).copied().unwrap_or(0)
    }

    /// A job of a user begins to wait.
    pub(crate) fn open_job(&mut self, user: &str) {
        *self.open.entry(user.to_owned()).or_default() += 1;
    }

    /// A job of a user has ended.
    pub(crate) fn close_job(&mut self, user: &str) {
        if let Some(count) = self.open.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(user);
            }
        }
    }

    /// Where an account stands, as of the last look at it.
    pub(crate) fn share(&self, id: AccountId) -> Share {
        let account = &self.all[id.0 as usize];
        let group = self.groups.get(&account.group).map_or(0, |group| group.counted);
        (group, account.counted)
    }

    /// Looks at every account again, at most once a second: what fades meanwhile decides nothing.
    pub(crate) fn look(&mut self, at: At, settings: &ClusterSettings) {
        if at.since(self.looked) < LOOK_EACH {
            return;
        }
        self.looked = at;
        for account in &mut self.all {
            account.counted = counted(&account.used, at, settings);
        }
        for (name, group) in &mut self.groups {
            group.counted = counted(&group.used, at, settings) / weight_of(name, settings);
        }
    }

    /// A lease begins or ends.
    pub(crate) fn change(
        &mut self,
        id: AccountId,
        at: At,
        lease: &Lease,
        step: Step,
        settings: &ClusterSettings,
    ) {
        let weight = weight(lease);
        let account = &mut self.all[id.0 as usize];
        let group = self.groups.entry(account.group.clone()).or_default();
        let rate = |rate: u64| match step {
            Step::Begin => rate + weight,
            Step::End => rate - weight,
        };
        account.used.change(at, settings.half_life, rate);
        group.used.change(at, settings.half_life, rate);
        account.counted = counted(&account.used, at, settings);
        group.counted = counted(&group.used, at, settings) / weight_of(&account.group, settings);
        group.held = match step {
            Step::Begin => group.held.plus(&lease.resources),
            Step::End => group.held.minus(&lease.resources),
        };
    }

    /// Whether an account's group stays within its guarantee with so much more.
    pub(crate) fn is_guaranteed(
        &self,
        id: AccountId,
        more: &Resources,
        settings: &ClusterSettings,
    ) -> bool {
        let Some((group, held)) = self.settled(id, settings) else { return false };
        group.guarantee != Resources::default() && !exceeds(&held.plus(more), &group.guarantee)
    }

    /// Whether so much is more than the guarantee of an account's group: it borrows.
    pub(crate) fn borrows(
        &self,
        id: AccountId,
        held: &Resources,
        settings: &ClusterSettings,
    ) -> bool {
        let group = settings.groups.get(self.group(id));
        let guarantee = group.map(|group| group.guarantee).unwrap_or_default();
        *held != Resources::default()
            && (guarantee == Resources::default() || exceeds(held, &guarantee))
    }

    /// Why a group may not have so much more, where its limit says so.
    pub(crate) fn over_limit(
        &self,
        id: AccountId,
        more: &Resources,
        settings: &ClusterSettings,
    ) -> Option<String> {
        let (group, held) = self.settled(id, settings)?;
        let limit = group.limit?;
        exceeds(&held.plus(more), &limit).then(|| {
            format!(
                "group {} may have {limit} and holds {held}; it waits for its own tasks to end",
                self.group(id)
            )
        })
    }

    fn settled<'a>(
        &self,
        id: AccountId,
        settings: &'a ClusterSettings,
    ) -> Option<(&'a crate::settings::GroupSettings, Resources)> {
        let group = settings.groups.get(self.group(id))?;
        let held = self.groups.get(self.group(id)).map(|group| group.held).unwrap_or_default();
        Some((group, held))
    }

    /// What each group holds, by the account numbers' groups.
    pub(crate) fn held(&self) -> BTreeMap<&str, Resources> {
        self.groups.iter().map(|(name, group)| (name.as_str(), group.held)).collect()
    }

    /// The rate of each account.
    pub(crate) fn rates(&self) -> BTreeMap<AccountId, u64> {
        let rates = self.all.iter().enumerate();
        rates.map(|(n, account)| (AccountId(n as u32), account.used.rate())).collect()
    }
}

/// Whether an amount is beyond a limit; parts of the limit that are zero are not limited.
pub(crate) fn exceeds(sum: &Resources, limit: &Resources) -> bool {
    let over = |sum: u64, limit: u64| limit > 0 && sum > limit;
    over(u64::from(sum.cores), u64::from(limit.cores))
        || over(u64::from(sum.gpus), u64::from(limit.gpus))
        || over(sum.memory.0, limit.memory.0)
}

/// Whether a lease begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Begin,
    End,
}

/// The group whose quota a job of a user uses: the one it names, the first one that lists the user,
/// or the user's own.
pub(crate) fn group_of(
    user: &str,
    asked: Option<&str>,
    settings: &ClusterSettings,
) -> Result<String, Reject> {
    let Some(name) = asked else {
        let lists = settings.groups.iter().find(|(_, group)| group.users.contains(user));
        return Ok(lists.map_or_else(|| user.to_owned(), |(name, _)| name.clone()));
    };
    match settings.groups.get(name) {
        None => {
            let known: Vec<&str> = settings.groups.keys().map(String::as_str).collect();
            Err(Reject::not_found(format!(
                "there is no group {name:?}; {}",
                if known.is_empty() {
                    "the scheduler's settings name none".to_owned()
                } else {
                    format!("known are: {}", known.join(", "))
                }
            )))
        }
        Some(group) if !group.users.is_empty() && !group.users.contains(user) => Err(Reject::new(
            RejectKind::Forbidden,
            format!("{user} is not one of the users of group {name:?}; ask an administrator"),
        )),
        Some(_) => Ok(name.to_owned()),
    }
}
