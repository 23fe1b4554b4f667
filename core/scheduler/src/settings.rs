//! The settings file, for the cluster: at the start, and again while it runs.

use std::path::Path;

use gantry_cluster::{ClusterSettings, Event, GroupSettings};
use gantry_config::scheduler::Amount;
use gantry_config::{SchedulerSettings, load_file};
use gantry_model::{MemoryMib, Reject, RejectKind, Resources, Subject};

use crate::alerts::Said;
use crate::core::Core;
use crate::session::Shared;
use crate::store::Retention;
use crate::webhook::Target;

/// The file in the scheduler's folder.
const FILE: &str = "scheduler.toml";

/// What of the settings the cluster decides by.
pub(crate) fn cluster(settings: &SchedulerSettings) -> ClusterSettings {
    let groups = settings.groups.iter().map(|(name, group)| {
        let defaults = GroupSettings::default();
        let group = GroupSettings {
            weight: group.weight.unwrap_or(defaults.weight),
            guarantee: amount(&group.guarantee),
            limit: group.limit.as_ref().map(amount),
            users: group.users.clone(),
        };
        (name.clone(), group)
    });
    ClusterSettings {
        ahead: settings.ahead,
        node_timeout: settings.node_timeout,
        half_life: settings.half_life,
        age_step: settings.age_step,
        age_max: settings.age_max,
        quarantine_after: settings.quarantine_after,
        quarantine_within: settings.quarantine_within,
        jobs_max: settings.jobs_max,
        ended_kept: settings.ended_kept,
        groups: groups.collect(),
        licences: settings.licences.clone(),
        health: settings
            .health
            .iter()
            .map(|(trouble, rule)| (*trouble, rule.policy(*trouble)))
            .collect(),
    }
}

/// How much of the event log and of the history is kept.
pub(crate) const fn retention(settings: &SchedulerSettings) -> Retention {
    let (lines, age, history) = (settings.events_kept, settings.events_age, settings.history_age);
    Retention { lines, age, history }
}

/// Where lines of the event log are sent.
pub(crate) fn webhook(settings: &SchedulerSettings) -> Option<Target> {
    let least = settings.webhook_level;
    settings.webhook.clone().map(|url| Target { url, least })
}

/// A guarantee of cores alone says nothing of memory: what is not named does not stand in the way.
fn amount(amount: &Amount) -> Resources {
    Resources {
        cores: amount.cores,
        memory: amount.memory,
        gpus: amount.gpus,
        scratch: MemoryMib(0),
    }
}

/// Reads the settings file again and applies what can be applied while the scheduler runs. Gives
/// the keys that wait for a restart.
///
/// # Errors
/// Where the file is wrong; then nothing has changed.
pub(crate) async fn reload(shared: &Shared) -> Result<Vec<String>, Reject> {
    let path = Path::new(&shared.folder).join(FILE);
    let settings: SchedulerSettings =
        load_file(&path).map_err(|error| Reject::invalid(error.to_string()))?;
    let wanted = cluster(&settings);
    shared.core.tell(Event::Settings(Box::new(wanted.clone()))).await;
    // What is read comes after what was told before it; a full disk takes no event.
    let taken = shared.core.read(move |cluster| *cluster.settings() == wanted).await?;
    if !taken {
        let sentence =
            "the settings could not be written to the journal; free some space and reload again";
        return Err(Reject::new(RejectKind::Busy, sentence));
    }
    shared.core.board().telemetry.limits = (&settings.watch).into();
    shared.core.retain(retention(&settings)).await;
    shared.webhook.set(webhook(&settings));
    let said = shared.core.board().telemetry.alerts.set(&settings.alert);
    say(&shared.core, said);
    let before = &shared.settings;
    let waits = [
        ("listen", settings.listen != before.listen),
        ("local_role", settings.local_role != before.local_role),
        ("local_socket", settings.local_socket != before.local_socket),
        ("token_valid", settings.token_valid != before.token_valid),
        ("certificate_valid", settings.certificate_valid != before.certificate_valid),
        ("certificate_grace", settings.certificate_grace != before.certificate_grace),
        ("metrics", settings.metrics != before.metrics),
        ("traces_endpoint", settings.traces_endpoint != before.traces_endpoint),
    ];
    Ok(waits.into_iter().filter(|(_, waits)| *waits).map(|(key, _)| key.to_owned()).collect())
}

/// Writes what alerts say into the event log.
pub(crate) fn say(core: &Core, said: Vec<Said>) {
    for Said { node, level, sentence } in said {
        core.note(level, Subject::Node(node), sentence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_the_file_are_those_of_the_cluster() {
        let settings = SchedulerSettings::default();
        assert_eq!(cluster(&settings), ClusterSettings::default());
        assert_eq!(retention(&settings), Retention::default());
    }
}
