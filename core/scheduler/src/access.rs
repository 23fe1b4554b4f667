//! Who has access, and with which role; and the connections of all who are there.
//!
//! A certificate says who calls, this says what becomes of it. [`Grants`] is the value that decides:
//! it is changed by the thread that owns the store, after the change is durable, and read by every
//! session at every request, so that a changed role holds at once and for open connections too. What
//! is taken away stays taken from the certificates that there were: whoever is let in again gets a
//! new one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use gantry_link::{Connection, IdentityKind, PeerIdentity};
use gantry_model::access::Role;
use gantry_model::{At, Principal, Reject, RejectKind};
use gantry_wire::AccessRow;

/// People and nodes that may be known: 3 MB, and a page of them at a time.
const GRANTS_MAX: usize = 20_000;
/// Rows of one page: 200 bytes each at most, a quarter of a frame.
const PAGE_MAX: usize = 64;
/// The name of the administrator that each cluster begins with.
pub(crate) const FIRST: &str = "operator";

/// What is known of one who has access, or had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The role of a person; none of a node, and none where access was taken away.
    pub(crate) role: Option<Role>,
    /// Whether access was taken away.
    pub(crate) revoked: bool,
    /// Certificates made until then count no more.
    pub(crate) void: At,
    /// Since when it is so.
    pub(crate) since: At,
    /// Who said so.
    pub(crate) by: String,
}

/// A change of who has access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A person gets an identity with this role, by a token.
    Invite(String, Role),
    /// A person who has access has this role from now on.
    Grant(String, Role),
    /// A node may join, by a token.
    Admit(String),
    /// Access is taken away.
    Revoke(Principal),
}

/// Who has access.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grants(BTreeMap<Principal, Grant>);

impl Grants {
    /// What the store has kept.
    pub(crate) fn restored(kept: impl IntoIterator<Item = (Principal, Grant)>) -> Self {
        Self(kept.into_iter().collect())
    }

    /// The role of a person with this certificate.
    ///
    /// # Errors
    /// Where access was taken away or never given, with what to do.
    pub(crate) fn role(&self, peer: &PeerIdentity) -> Result<Role, Reject> {
        let grant = self.checked(&Principal::User(peer.name.clone()), peer.issued)?;
        let first = peer.kind == Some(IdentityKind::Operator);
        let role = grant.and_then(|grant| grant.role).or(first.then_some(Role::Administrator));
        role.ok_or_else(|| {
            forbidden(format!(
                "{name} has no role in this cluster; an administrator gives one with gantry access token {name} --role ROLE",
                name = peer.name
            ))
        })
    }

    /// Whether a caller with this certificate is heard at all.
    ///
    /// # Errors
    /// As [`Self::role`].
    pub(crate) fn check(&self, peer: &PeerIdentity) -> Result<(), Reject> {
        match peer.kind {
            None => Ok(()),
            Some(IdentityKind::Agent) => {
                self.checked(&Principal::Node(peer.name.clone()), peer.issued).map(|_| ())
            }
            Some(_) => self.role(peer).map(|_| ()),
        }
    }

    /// Whether somebody who shows a token is given a certificate, and when that is made at the
    /// earliest: after all that count no more.
    ///
    /// # Errors
    /// Where access was taken away, or no role was given.
    pub(crate) fn joins(&self, principal: &Principal, now: At) -> Result<At, Reject> {
        let void = self.0.get(principal).map_or(At(0), |grant| grant.void);
        let from = now.max(At(void.0 + 1));
        match self.checked(principal, from)? {
            None if matches!(principal, Principal::User(_)) => Err(forbidden(format!(
                "{principal} has no role in this cluster any more; ask for a new token"
            ))),
            _ => Ok(from),
        }
    }

    /// The role of a person whose access was given and not taken away; nothing of one who is not known.
    ///
    /// # Errors
    /// Where access was taken away.
    pub(crate) fn known(&self, name: &str) -> Result<Option<Role>, Reject> {
        let principal = Principal::User(name.to_owned());
        let grant = self.checked(&principal, At(u64::MAX))?;
        Ok(grant.and_then(|grant| grant.role))
    }

    /// What is known of somebody, where a certificate made then counts.
    fn checked(&self, principal: &Principal, issued: At) -> Result<Option<&Grant>, Reject> {
        let Some(grant) = self.0.get(principal) else { return Ok(None) };
        let again = match principal {
            Principal::User(name) => format!("gantry access token {name} --role ROLE"),
            Principal::Node(name) => format!("gantry scheduler token {name}"),
        };
        if grant.revoked {
            let by = &grant.by;
            return Err(forbidden(format!(
                "the access of {principal} was taken away by {by}; only an administrator can let it in again, with {again}"
            )));
        }
        if issued <= grant.void {
            return Err(forbidden(format!(
                "this certificate of {principal} is from before its access was taken away; join with a new token, which an administrator makes with {again}"
            )));
        }
        Ok(Some(grant))
    }

    /// What a change makes of somebody's grant; nothing is changed yet.
    ///
    /// # Errors
    /// Where the change cannot be: nobody of that name, too many, or no administrator would be left.
    pub(crate) fn change(
        &self,
        at: At,
        by: &str,
        change: &Change,
    ) -> Result<(Principal, Grant), Reject> {
        let (principal, role, revoked) = match change {
            Change::Invite(name, role) => {
                gantry_model::job::check_name("user", name)?;
                (Principal::User(name.clone()), Some(*role), false)
            }
            Change::Grant(name, role) => {
                let principal = Principal::User(name.clone());
                let known = self.0.get(&principal);
                if known.is_none_or(|grant| grant.revoked) && !(known.is_none() && name == FIRST) {
                    let why = if known.is_some() {
                        "has no access any more"
                    } else {
                        "is not known here"
                    };
                    return Err(Reject::not_found(format!(
                        "user {name:?} {why}; gantry access list shows who is, and gantry access token {name} --role {role} lets a person in"
                    )));
                }
                (principal, Some(*role), false)
            }
            Change::Admit(name) => {
                gantry_model::job::check_name("node", name)?;
                (Principal::Node(name.clone()), None, false)
            }
            Change::Revoke(principal) => {
                gantry_model::job::check_name(principal.kind(), principal.name())?;
                // Nobody shall believe that an access is gone whose name was mistyped. Of nodes those
                // that joined before grants were kept are not known here.
                let Principal::User(name) = principal else {
                    return self.made(at, by, principal.clone(), None, true);
                };
                if name != FIRST && !self.0.contains_key(principal) {
                    return Err(Reject::not_found(format!(
                        "user {name:?} is not known here; gantry access list shows who is"
                    )));
                }
                (principal.clone(), None, true)
            }
        };
        self.made(at, by, principal, role, revoked)
    }

    /// The grant that a change makes, where it can be.
    fn made(
        &self,
        at: At,
        by: &str,
        principal: Principal,
        role: Option<Role>,
        revoked: bool,
    ) -> Result<(Principal, Grant), Reject> {
        let known = self.0.get(&principal);
        if known.is_none() && self.0.len() >= GRANTS_MAX {
            let sentence =
                format!("{GRANTS_MAX} people and nodes are known already, and they are the most");
            return Err(Reject::new(RejectKind::Busy, sentence));
        }
        let void = known.map_or(At(0), |grant| grant.void);
        let void = if revoked { at.max(void) } else { void };
        let grant = Grant { role, revoked, void, since: at, by: by.to_owned() };
        let mut after = self.clone();
        after.0.insert(principal.clone(), grant.clone());
        if matches!(principal, Principal::User(_)) && !after.has_administrator() {
            return Err(Reject::new(
                RejectKind::State,
                format!(
                    "{principal} is the last administrator; make another one first, with gantry access grant NAME administrator"
                ),
            ));
        }
        Ok((principal, grant))
    }

    /// Takes a change over that is durable.
    pub(crate) fn take(&mut self, principal: Principal, grant: Grant) {
        self.0.insert(principal, grant);
    }

    fn has_administrator(&self) -> bool {
        let first = Principal::User(FIRST.to_owned());
        !self.0.contains_key(&first)
            || self.0.values().any(|grant| grant.role == Some(Role::Administrator))
    }

    /// Whether the first administrator's access was taken away.
    pub(crate) fn first_is_revoked(&self) -> bool {
        self.0.get(&Principal::User(FIRST.to_owned())).is_some_and(|grant| grant.revoked)
    }

    /// One page, people first, and whether further rows exist; of one person only, where one is named.
    pub(crate) fn page(
        &self,
        after: Option<&Principal>,
        only: Option<&str>,
        connections: &dyn Fn(&Principal) -> u32,
    ) -> (Vec<AccessRow>, bool) {
        let first = Principal::User(FIRST.to_owned());
        let always = Grant {
            role: Some(Role::Administrator),
            revoked: false,
            void: At(0),
            since: At(0),
            by: String::new(),
        };
        let mut all: BTreeMap<&Principal, &Grant> = self.0.iter().collect();
        all.entry(&first).or_insert(&always);
        let wanted = |principal: &Principal| {
            after.is_none_or(|after| principal > after)
                && only.is_none_or(|name| *principal == Principal::User(name.to_owned()))
        };
        let mut rows: Vec<AccessRow> = all
            .into_iter()
            .filter(|(principal, _)| wanted(principal))
            .take(PAGE_MAX + 1)
            .map(|(principal, grant)| AccessRow {
                principal: principal.clone(),
                role: grant.role,
                revoked: grant.revoked,
                since: grant.since,
                by: grant.by.clone(),
                connections: connections(principal),
            })
            .collect();
        let more = rows.len() > PAGE_MAX;
        rows.truncate(PAGE_MAX);
        (rows, more)
    }
}

fn forbidden(sentence: String) -> Reject {
    Reject::new(RejectKind::Forbidden, sentence)
}

/// Who a certificate stands for; nobody without one.
pub(crate) fn principal(peer: &PeerIdentity) -> Option<Principal> {
    match peer.kind? {
        IdentityKind::Agent => Some(Principal::Node(peer.name.clone())),
        _ => Some(Principal::User(peer.name.clone())),
    }
}

/// Who has access, for the sessions; and the connections of all who are there. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Access {
    grants: Arc<RwLock<Grants>>,
    present: Arc<Mutex<Present>>,
}

/// The connections that are open, each under a number.
#[derive(Default)]
struct Present {
    next: u64,
    open: BTreeMap<u64, (Principal, Connection)>,
}

/// A connection that is counted for as long as this lives.
pub(crate) struct Counted {
    number: u64,
    present: Arc<Mutex<Present>>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        lock(&self.present).open.remove(&self.number);
    }
}

fn lock(present: &Mutex<Present>) -> MutexGuard<'_, Present> {
    present.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Access {
    pub(crate) fn new(grants: Grants) -> Self {
        Self { grants: Arc::new(RwLock::new(grants)), present: Arc::default() }
    }

    /// Looks at who has access now.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Grants) -> T) -> T {
        look(&self.grants.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a change over that is durable. Whose access it takes away is disconnected at once.
    pub(crate) fn take(&self, principal: Principal, grant: Grant) {
        let (revoked, by) = (grant.revoked, grant.by.clone());
        let whom = principal.clone();
        self.grants.write().unwrap_or_else(PoisonError::into_inner).take(principal, grant);
        if !revoked {
            return;
        }
        for (_, connection) in
            lock(&self.present).open.values().filter(|(present, _)| *present == whom)
        {
            connection.close(&format!("the access of {whom} was taken away by {by}"));
        }
    }

    /// Counts a connection, then looks whether its peer is heard: an access that is taken away in
    /// between either is seen here, or sees the connection.
    ///
    /// # Errors
    /// As [`Grants::check`].
    pub(crate) fn enter(&self, connection: &Connection) -> Result<Option<Counted>, Reject> {
        let counted = principal(connection.peer()).map(|principal| {
            let mut present = lock(&self.present);
            present.next += 1;
            let number = present.next;
            present.open.insert(number, (principal, connection.clone()));
            Counted { number, present: self.present.clone() }
        });
        self.look(|grants| grants.check(connection.peer()))?;
        Ok(counted)
    }

    /// All who have access, these nodes too unless theirs was taken away; but for the first administrator,
    /// whose certificate lies beside the authority's.
    pub(crate) fn all(&self, nodes: Vec<Principal>) -> BTreeSet<Principal> {
        self.look(|grants| {
            let mut all: BTreeSet<Principal> = nodes.into_iter().collect();
            all.extend(grants.0.keys().cloned());
            let first = Principal::User(FIRST.to_owned());
            let has = |one: &Principal| grants.0.get(one).is_none_or(|grant| !grant.revoked);
            all.retain(|one| has(one) && *one != first);
            all
        })
    }

    /// Who is there now, with when the certificate was made that was shown.
    pub(crate) fn present(&self) -> Vec<(Principal, At)> {
        let present = lock(&self.present);
        present.open.values().map(|(who, there)| (who.clone(), there.peer().issued)).collect()
    }

    /// Closes the connections of those who came with a certificate from before then.
    pub(crate) fn close_made_before(&self, then: At) {
        for (_, connection) in lock(&self.present).open.values() {
            if connection.peer().issued < then {
                connection.close("the authority that signed your certificate was given up");
            }
        }
    }

    /// One page of those who have access.
    pub(crate) fn page(
        &self,
        after: Option<&Principal>,
        only: Option<&str>,
    ) -> (Vec<AccessRow>, bool) {
        let mut counts: BTreeMap<Principal, u32> = BTreeMap::new();
        for (principal, _) in lock(&self.present).open.values() {
            *counts.entry(principal.clone()).or_default() += 1;
        }
        let connections = |principal: &Principal| counts.get(principal).copied().unwrap_or(0);
        self.look(|grants| grants.page(after, only, &connections))
    }

    /// The row of one.
    pub(crate) fn row(&self, principal: &Principal) -> Option<AccessRow> {
        let open = lock(&self.present).open.values().filter(|(one, _)| one == principal).count();
        self.look(|grants| {
            let grant = grants.0.get(principal)?;
            Some(AccessRow {
                principal: principal.clone(),
                role: grant.role,
                revoked: grant.revoked,
                since: grant.since,
                by: grant.by.clone(),
                connections: open as u32,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(kind: IdentityKind, name: &str, issued: u64) -> PeerIdentity {
        PeerIdentity {
            kind: Some(kind),
            name: name.into(),
            issued: At(issued),
            expires: At(issued + 1000),
        }
    }

    fn after(grants: &Grants, at: u64, change: &Change) -> Grants {
        let (principal, grant) = grants.change(At(at), "operator", change).unwrap();
        let mut after = grants.clone();
        after.take(principal, grant);
        after
    }

    fn user(name: &str) -> Principal {
        Principal::User(name.into())
    }

    #[test]
    fn a_role_holds_for_old_certificates_and_what_was_taken_away_stays_away() {
        let ada = |issued| peer(IdentityKind::User, "ada", issued);
        let grants = Grants::default();
        let reject = grants.role(&ada(5)).unwrap_err();
        assert!(reject.sentence.contains("gantry access token ada"), "{reject}");
        let grants = after(&grants, 10, &Change::Invite("ada".into(), Role::Viewer));
        assert_eq!(grants.role(&ada(11)), Ok(Role::Viewer));
        let grants = after(&grants, 20, &Change::Grant("ada".into(), Role::Operator));
        assert_eq!(grants.role(&ada(11)), Ok(Role::Operator), "the same certificate");
        let grants = after(&grants, 30, &Change::Revoke(user("ada")));
        let reject = grants.role(&ada(11)).unwrap_err();
        assert!(reject.sentence.contains("taken away by operator"), "{reject}");
        let grants = after(&grants, 40, &Change::Invite("ada".into(), Role::User));
        for issued in [11, 30] {
            let reject = grants.role(&ada(issued)).unwrap_err();
            assert!(reject.sentence.contains("from before"), "{issued}: {reject}");
        }
        assert_eq!(grants.role(&ada(31)), Ok(Role::User), "a certificate made later");
    }

    #[test]
    fn a_node_that_was_never_spoken_of_is_heard_and_one_that_was_revoked_is_not() {
        let cpu = |issued| peer(IdentityKind::Agent, "cpu-1", issued);
        let grants = Grants::default();
        assert_eq!(grants.check(&cpu(5)), Ok(()), "it joined before grants were kept");
        let grants = after(&grants, 10, &Change::Revoke(Principal::Node("cpu-1".into())));
        assert!(
            grants.check(&cpu(5)).unwrap_err().sentence.contains("gantry scheduler token cpu-1")
        );
        assert_eq!(grants.check(&peer(IdentityKind::Operator, "cpu-1", 5)), Ok(()), "a person");
        let grants = after(&grants, 20, &Change::Admit("cpu-1".into()));
        assert!(grants.check(&cpu(5)).is_err());
        assert_eq!(grants.check(&cpu(21)), Ok(()));
    }

    #[test]
    fn the_first_administrator_is_one_until_told_otherwise_and_the_last_stays_one() {
        let first = peer(IdentityKind::Operator, FIRST, 1);
        let grants = Grants::default();
        assert_eq!(grants.role(&first), Ok(Role::Administrator));
        for change in [
            Change::Revoke(user(FIRST)),
            Change::Grant(FIRST.into(), Role::Operator),
            Change::Invite(FIRST.into(), Role::Viewer),
        ] {
            let reject = grants.change(At(9), FIRST, &change).unwrap_err();
            assert!(reject.sentence.contains("last administrator"), "{reject}");
        }
        let grants = after(&grants, 10, &Change::Invite("ada".into(), Role::Administrator));
        let grants = after(&grants, 11, &Change::Revoke(user(FIRST)));
        assert!(grants.role(&first).is_err() && grants.first_is_revoked());
        let reject = grants.change(At(12), "ada", &Change::Revoke(user("ada"))).unwrap_err();
        assert_eq!(reject.kind, RejectKind::State);
    }

    #[test]
    fn a_name_that_is_mistyped_gets_no_role() {
        let grants = after(&Grants::default(), 1, &Change::Invite("ada".into(), Role::User));
        let change =
            |name: &str| grants.change(At(2), FIRST, &Change::Grant(name.into(), Role::User));
        assert_eq!(change("adda").unwrap_err().kind, RejectKind::NotFound);
        assert!(change("ada").is_ok());
        let reject = grants.change(At(2), FIRST, &Change::Revoke(user("adda"))).unwrap_err();
        assert_eq!(reject.kind, RejectKind::NotFound, "{reject}");
        assert!(grants.change(At(2), FIRST, &Change::Invite("\n".into(), Role::User)).is_err());
    }

    #[test]
    fn pages_follow_each_other_and_hold_the_first_administrator() {
        let mut grants = Grants::default();
        for n in 0..150 {
            grants = after(&grants, n + 1, &Change::Invite(format!("u{n:03}"), Role::User));
        }
        let (mut seen, mut last) = (Vec::new(), None);
        loop {
            let (rows, more) = grants.page(last.as_ref(), None, &|_| 0);
            last = rows.last().map(|row| row.principal.clone());
            seen.extend(rows.into_iter().map(|row| row.principal));
            if !more {
                break;
            }
        }
        assert_eq!(seen.len(), 151);
        assert!(seen.is_sorted() && seen.contains(&user(FIRST)));
        let (own, more) = grants.page(None, Some("u007"), &|_| 2);
        assert_eq!((own.len(), own[0].connections, more), (1, 2, false));
    }
}
