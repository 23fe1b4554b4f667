//! People of the scheduler's own host: the account that calls is the person.
//!
//! Whoever calls the socket gets a token for the name of its account, and joins with it as everybody
//! else does; so there is one way in, and one kind of certificate. A person who is not known yet gets
//! the role of the settings, one who is keeps its own, and one whose access was taken away gets nothing.
//! The host's root decides which accounts there are, and root can read the authority's key.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_config::SchedulerSettings;
use gantry_link::{Local, LocalCaller, token};
use gantry_model::access::Role;
use gantry_model::{Level, Principal, Reject, RejectKind, Subject};
use gantry_wire::Invitation;

use super::Shared;
use super::strangers::Whence;
use crate::access::{Change, FIRST};
use crate::audit::Entry;

/// Accounts below this number are those of services (useradd(8), `UID_MIN`): a web server that was broken
/// into submits no jobs.
const PEOPLE_FROM: u32 = 1000;
/// What the kernel says of an account that it cannot name here (`user_namespaces(7)`).
const NOBODY: u32 = 65_534;
/// The name of the socket in the folder that systemd gives.
const SOCKET: &str = "scheduler.sock";
/// Who gave a role, as the list of those with access has it: the setting.
const BY: &str = "local_role";
/// How long nothing is accepted where accepting fails.
const AGAIN: Duration = Duration::from_millis(500);

/// Where the socket is to be, by the settings and the folder that systemd gives (`RUNTIME_DIRECTORY`,
/// systemd.exec(5)); nothing where nobody is let in so.
pub(crate) fn place(settings: &SchedulerSettings, runtime: Option<PathBuf>) -> Option<PathBuf> {
    settings.local_role?;
    settings.local_socket.clone().or_else(|| Some(runtime?.join(SOCKET)))
}

/// Answers people of this host, one after the other.
pub(crate) async fn serve(shared: Arc<Shared>, local: Local) -> Infallible {
    loop {
        match local.accept().await {
            Ok(caller) => answer(&shared, caller).await,
            Err(error) => {
                tracing::warn!("people of this host cannot be heard: {error}");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn answer(shared: &Shared, caller: LocalCaller) {
    let uid = caller.uid;
    let now = shared.core.clock.now();
    if !shared.guesses.may_try(Whence::Account(uid), now) {
        let sentence = "this account has called too often; wait a minute, then ask again";
        let reject = Reject::new(RejectKind::Busy, sentence);
        caller.answer(&Invitation::Refused(reject)).await;
        return;
    }
    shared.guesses.wrong(Whence::Account(uid), now);
    let name = tokio::task::spawn_blocking(move || name_of(uid)).await.ok().flatten();
    let invited = match judge(uid, name.as_deref()) {
        Ok(name) => invite(shared, name).await,
        Err(reject) => Err(reject),
    };
    let whom = name.map(|name| Principal::User(name).to_string()).unwrap_or_default();
    let line = Entry { from: format!("account {uid}"), whom, ..Entry::new(now, "local") };
    let (line, invitation) = match invited {
        Ok((role, invitation)) => (Entry { why: format!("as {role}"), ..line }, invitation),
        Err(reject) => {
            let line = Entry { refused: true, why: reject.sentence.clone(), ..line };
            (line, Invitation::Refused(reject))
        }
    };
    shared.audit.record(line).await;
    caller.answer(&invitation).await;
}

/// The name of an account, from wherever this host gets its accounts.
fn name_of(uid: u32) -> Option<String> {
    uzers::get_user_by_uid(uid)?.name().to_str().map(str::to_owned)
}

/// Whether an account stands for a person, by whose name it is known then.
fn judge(uid: u32, name: Option<&str>) -> Result<&str, Reject> {
    let forbidden = |sentence: String| Err(Reject::new(RejectKind::Forbidden, sentence));
    if uid == 0 {
        return forbidden(
            "root gives commands with the identities in the scheduler's folder; name it with --cluster".into(),
        );
    }
    let Some(name) = name.filter(|_| uid != NOBODY) else {
        return forbidden(format!("account {uid} has no name on the scheduler's host"));
    };
    if uid < PEOPLE_FROM {
        return forbidden(format!(
            "account {name} is that of a service, by its number below {PEOPLE_FROM}; an administrator lets it in with gantry access token {name} --role ROLE"
        ));
    }
    if name == FIRST {
        return forbidden(format!(
            "{FIRST} is the name of the cluster's first administrator and of no account; use another account"
        ));
    }
    gantry_model::job::check_name("user", name)?;
    Ok(name)
}

/// Lets a person in who is not known yet, and makes the token.
async fn invite(shared: &Shared, name: &str) -> Result<(Role, Invitation), Reject> {
    shared.audit.ready().await?;
    let known = shared.core.access.look(|grants| grants.known(name))?;
    let role = match (known, shared.settings.local_role) {
        (Some(role), _) => role,
        (None, Some(role)) => {
            let change = Change::Invite(name.to_owned(), role);
            shared.core.change_access(BY.to_owned(), change).await?;
            let sentence = format!("{name} of this host is let in, with the role {role}");
            shared.core.note(Level::Note, Subject::Cluster, sentence);
            role
        }
        (None, None) => return Err(Reject::new(RejectKind::Forbidden, "nobody is let in so")),
    };
    let token = token::mint(&shared.signing.authority().fingerprint());
    let expires = shared.core.clock.now().after(shared.settings.token_valid);
    let person = Principal::User(name.to_owned());
    shared.core.add_token(token.hash, person, expires).await?;
    let address = shared.address.to_string();
    Ok((role, Invitation::Given { name: name.to_owned(), role, address, token: token.text }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_accounts_of_people_are_invited() {
        for (uid, name, invited) in [
            (1000, Some("ada"), true),
            (4_000_000, Some("grace.hopper"), true),
            (0, Some("root"), false),
            (33, Some("www-data"), false),
            (999, Some("systemd-coredump"), false),
            (NOBODY, Some("nobody"), false),
            (1001, None, false),
            (1002, Some(FIRST), false),
            (1003, Some("a\nb"), false),
            (1004, Some(""), false),
        ] {
            let judged = judge(uid, name);
            assert_eq!(judged.is_ok(), invited, "{uid} {name:?}: {judged:?}");
        }
    }

    #[test]
    fn the_socket_is_where_the_settings_or_systemd_say() {
        let usual = SchedulerSettings::default();
        let named = SchedulerSettings { local_socket: Some("/s".into()), ..usual.clone() };
        let closed = SchedulerSettings { local_role: None, ..named.clone() };
        let run = || Some(PathBuf::from("/run/gantry"));
        for (settings, runtime, expected) in [
            (&usual, None, None),
            (&usual, run(), Some("/run/gantry/scheduler.sock")),
            (&named, run(), Some("/s")),
            (&named, None, Some("/s")),
            (&closed, run(), None),
        ] {
            assert_eq!(place(settings, runtime), expected.map(PathBuf::from));
        }
    }
}
