//! The cluster's authority, which signs what peers are known by, and its rotation while the cluster runs.
//!
//! A rotation has two steps, and a day between them. The first makes the authority that follows: from then
//! on it signs, and the one before still counts. Whoever calls or renews gets a certificate of the new one
//! ([`gantry_link::Own`]). The second gives the one before up. Here is kept who has what until then, as far
//! as it was seen: whoever has not called since would be locked out, and so is named.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use gantry_link::Authority;
use gantry_model::{At, Level, Principal, Reject, RejectKind, Subject, things};
use gantry_wire::{AuthorityState, AuthorityStep, Reply};
use tokio::sync::Notify;

use crate::session::Shared;

/// Names of one answer: enough to go and see, and a quarter of a frame.
const NAMED_MAX: usize = 64;

/// Who signs.
pub(crate) struct Signing {
    folder: PathBuf,
    now: RwLock<Arc<Authority>>,
    /// When the newest certificate was made that somebody has shown or was given, while the authority
    /// before still counts.
    seen: Mutex<BTreeMap<Principal, At>>,
    changed: Notify,
}

impl Signing {
    /// Signs as the authority of a scheduler's folder.
    pub(crate) fn new(folder: PathBuf, authority: Authority) -> Self {
        let now = RwLock::new(Arc::new(authority));
        Self { folder, now, seen: Mutex::default(), changed: Notify::new() }
    }

    /// The authority as it is now.
    pub(crate) fn authority(&self) -> Arc<Authority> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it is another one, or gives one up.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Somebody has shown or was given a certificate that was made then.
    pub(crate) fn saw(&self, principal: &Principal, made: At) {
        if self.authority().rotating_since().is_none() {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get_mut(principal) {
            Some(newest) => *newest = made.max(*newest),
            None => drop(seen.insert(principal.clone(), made)),
        }
    }

    /// How far a rotation has come, where these have access.
    fn state(&self, access: impl IntoIterator<Item = Principal>) -> AuthorityState {
        let authority = self.authority();
        let fingerprint = authority.fingerprint();
        let Some(since) = authority.rotating_since() else {
            return AuthorityState { fingerprint, ..AuthorityState::default() };
        };
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut behind, mut unseen) = (Vec::new(), Vec::new());
        for principal in access {
            match seen.get(&principal) {
                Some(made) if *made >= since => {}
                Some(_) => behind.push(principal),
                None => unseen.push(principal),
            }
        }
        let (behind_count, unseen_count) = (behind.len() as u32, unseen.len() as u32);
        behind.truncate(NAMED_MAX);
        unseen.truncate(NAMED_MAX);
        let since = Some(since);
        AuthorityState { fingerprint, since, behind, behind_count, unseen, unseen_count }
    }

    fn rotate(&self, at: At) -> Result<(), Reject> {
        self.replace(|authority| authority.rotate(&self.folder, at))
    }

    fn finish(&self) -> Result<(), Reject> {
        self.replace(|authority| authority.finish_rotation(&self.folder))
    }

    fn replace(
        &self,
        change: impl FnOnce(&Authority) -> Result<Authority, gantry_link::LinkError>,
    ) -> Result<(), Reject> {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        let next =
            change(&now).map_err(|error| Reject::new(RejectKind::State, error.to_string()))?;
        *now = Arc::new(next);
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.changed.notify_one();
        Ok(())
    }
}

/// Answers how far a rotation has come, after a step of it where one is asked for.
pub(crate) async fn answer(
    shared: &Shared,
    by: &str,
    step: Option<AuthorityStep>,
) -> Result<Reply, Reject> {
    let signing = &shared.signing;
    let sentence = match step {
        None => None,
        Some(AuthorityStep::Rotate) => {
            signing.rotate(shared.core.clock.wall())?;
            // Whoever is there now has called with a certificate of the one before.
            for (principal, made) in shared.core.access.present() {
                signing.saw(&principal, made);
            }
            Some(format!(
                "{by} rotated the authority; the one before counts until that is finished"
            ))
        }
        Some(step) => {
            let state = state(shared).await?;
            let wanting = state.behind_count + state.unseen_count;
            if wanting > 0 && step == AuthorityStep::Finish {
                return Err(Reject::new(RejectKind::State, locked_out(&state)));
            }
            let since = signing.authority().rotating_since();
            signing.finish()?;
            shared.core.access.close_made_before(since.unwrap_or(At(0)));
            let others = match wanting {
                0 => String::new(),
                some => format!("; {} must join again", things(some, "other")),
            };
            Some(format!("{by} finished the rotation of the authority{others}"))
        }
    };
    if let Some(sentence) = sentence {
        tracing::info!("{sentence}");
        shared.core.note(Level::Note, Subject::Cluster, sentence);
    }
    Ok(Reply::Authority(Box::new(state(shared).await?)))
}

/// Why the authority before is not given up yet.
fn locked_out(state: &AuthorityState) -> String {
    let named = |who: &[Principal], count: u32| {
        let names: Vec<String> = who.iter().take(5).map(ToString::to_string).collect();
        let more = (count as usize).saturating_sub(names.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", names.join(", "))
    };
    let mut parts = Vec::new();
    if state.behind_count > 0 {
        parts.push(format!("have not renewed yet ({})", named(&state.behind, state.behind_count)));
    }
    if state.unseen_count > 0 {
        parts.push(format!("have not called since ({})", named(&state.unseen, state.unseen_count)));
    }
    format!(
        "it would lock out those who {}; wait for them, take their access away, or say --anyway and let them join again",
        parts.join(" and those who ")
    )
}

/// How far a rotation has come.
async fn state(shared: &Shared) -> Result<AuthorityState, Reject> {
    let read = |cluster: &gantry_cluster::Cluster| -> Vec<Principal> {
        cluster.nodes().iter().map(|row| Principal::Node(row.facts.name.clone())).collect()
    };
    let nodes = shared.core.read(read).await?;
    Ok(shared.signing.state(shared.core.access.all(nodes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Principal {
        Principal::Node(name.into())
    }

    #[test]
    fn who_has_what_is_told_until_the_authority_before_is_given_up() {
        let folder = tempfile::TempDir::new().unwrap();
        let authority = Authority::create(folder.path(), "test").unwrap();
        let first = authority.fingerprint();
        let signing = Signing::new(folder.path().to_owned(), authority);
        let all = || ["new", "old", "away"].map(node);
        signing.saw(&node("early"), At(u64::MAX));
        assert_eq!(
            signing.state(all()),
            AuthorityState { fingerprint: first.clone(), ..Default::default() }
        );
        assert!(signing.finish().is_err(), "there is none before it");

        signing.rotate(At(5_000)).unwrap();
        assert!(signing.rotate(At(6_000)).is_err(), "one change at a time");
        let since = signing.authority().rotating_since().unwrap();
        signing.saw(&node("new"), At(since.0 - 1));
        signing.saw(&node("new"), since);
        signing.saw(&node("new"), At(since.0 - 1));
        signing.saw(&node("old"), At(since.0 - 1));
        let state = signing.state(all());
        assert_ne!(state.fingerprint, first);
        assert_eq!((state.since, state.behind.clone()), (Some(since), vec![node("old")]));
        assert_eq!((state.behind_count, state.unseen_count), (1, 1));
        assert_eq!(state.unseen, [node("away")]);
        let sentence = locked_out(&state);
        let both =
            "have not renewed yet (node old) and those who have not called since (node away);";
        assert!(sentence.contains(both), "{sentence}");

        signing.finish().unwrap();
        assert_eq!(signing.state(all()).since, None);
    }

    #[test]
    fn of_many_the_first_are_named_and_all_are_counted() {
        let folder = tempfile::TempDir::new().unwrap();
        let authority = Authority::create(folder.path(), "test").unwrap();
        let signing = Signing::new(folder.path().to_owned(), authority);
        signing.rotate(At(5_000)).unwrap();
        let state = signing.state((0..1000).map(|n| node(&format!("cpu-{n:04}"))));
        assert_eq!((state.unseen.len(), state.unseen_count), (NAMED_MAX, 1000));
        assert!(
            locked_out(&state).contains("node cpu-0004 and 995 more"),
            "{}",
            locked_out(&state)
        );
    }
}
