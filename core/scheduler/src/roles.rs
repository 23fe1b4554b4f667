//! What each role may do: the one place where that is decided.
//!
//! Every request is put under one of a few deeds ([`asked`]), and a table says who may do each
//! ([`TABLE`]). There is no rule for "everything else": a request that is new does not compile until
//! somebody has decided what it is. SECURITY.md holds the same table, and a test holds it there.

use gantry_model::access::Role;
use gantry_model::{Action, JobId, Principal, Reject, RejectKind};
use gantry_wire::{Request, Scope};

/// What a request does, as far as roles are told apart by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Looks at jobs, nodes, their readings and the event log.
    Look,
    /// Reads what the tasks of a job have printed.
    ReadOutput,
    /// Submits a job.
    Submit,
    /// Cancels, holds, releases, requeues or changes a job.
    SteerJob,
    /// Drains a node, gives it work again, plans its maintenance, or forgets it.
    SteerNode,
    /// Reads the settings file again.
    Reload,
    /// Looks who has access.
    SeeAccess,
    /// Looks at the audit log, and at how a rotation of the authority stands.
    SeeAudit,
    /// Copies the journal for a backup.
    Backup,
    /// Lets people and nodes in, changes roles, takes access away, and rotates the authority.
    ChangeAccess,
}

/// How far a role may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum May {
    /// Not at all.
    No,
    /// To what is its own.
    Own,
    /// To everything.
    All,
}

#[cfg(test)]
impl May {
    const fn word(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Own => "own",
            Self::All => "yes",
        }
    }
}

/// A deed, what documents call it, and how far each role may do it, in the order of [`Role::ALL`].
type Row = (Deed, &'static str, [May; 4]);

use May::{All, No, Own};

/// Who may do what.
#[rustfmt::skip]
const TABLE: [Row; 10] = [
    (Deed::Look, "look at jobs, nodes, readings, events, use", [All, All, All, All]),
    (Deed::ReadOutput, "read what tasks have printed", [Own, Own, All, All]),
    (Deed::Submit, "submit jobs", [No, All, All, All]),
    (Deed::SteerJob, "cancel, hold, release, requeue, change jobs", [No, Own, All, All]),
    (Deed::SteerNode, "drain, resume and forget nodes, plan maintenance", [No, No, All, All]),
    (Deed::Reload, "have the settings read again", [No, No, All, All]),
    (Deed::SeeAccess, "see who has access", [Own, Own, All, All]),
    (Deed::SeeAudit, "read and verify the audit log, see the authority", [No, No, All, All]),
    (Deed::Backup, "back the scheduler up", [No, No, No, All]),
    (Deed::ChangeAccess, "make tokens, grant and revoke access, rotate the authority", [No, No, No, All]),
];

/// How far a role may do something.
pub(crate) fn may(role: Role, deed: Deed) -> May {
    let row = TABLE.iter().find(|(known, ..)| *known == deed);
    let cells = row.map_or([No; 4], |(.., cells)| *cells);
    Role::ALL.iter().zip(cells).find(|(known, _)| **known == role).map_or(No, |(_, cell)| cell)
}

/// The table as a document has it.
#[cfg(test)]
fn document() -> String {
    let heading = Role::ALL.map(Role::word).join(" | ");
    let mut lines = vec![format!("| | {heading} |"), "|---|---|---|---|---|".to_owned()];
    for (_, words, cells) in TABLE {
        lines.push(format!("| {words} | {} |", cells.map(May::word).join(" | ")));
    }
    lines.join("\n")
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The cluster as a whole.
    Nothing,
    /// A job, which belongs to somebody.
    Job(JobId),
    /// A node, by name.
    Node(String),
    /// Somebody's access.
    Access(Principal),
}

impl std::fmt::Display for Whom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Job(job) => job.fmt(f),
            Self::Node(name) => write!(f, "node {name}"),
            Self::Access(principal) => principal.fmt(f),
        }
    }
}

/// A request, as roles and the audit log see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) deed: Deed,
    /// The word for it, as the command has it.
    pub(crate) what: &'static str,
    pub(crate) whom: Whom,
}

impl Asked {
    const fn new(deed: Deed, what: &'static str, whom: Whom) -> Self {
        Self { deed, what, whom }
    }

    /// Whether it is written into the audit log where it is allowed: it changes something.
    pub(crate) const fn changes(&self) -> bool {
        match self.deed {
            Deed::Look | Deed::ReadOutput | Deed::SeeAccess | Deed::SeeAudit => false,
            Deed::Submit
            | Deed::SteerJob
            | Deed::SteerNode
            | Deed::Reload
            | Deed::Backup
            | Deed::ChangeAccess => true,
        }
    }
}

/// What a request does to what. No name of a job, no command and no text that is looked for is taken
/// over: they may hold what no log may.
pub(crate) fn asked(request: &Request) -> Asked {
    let look = |what, whom| Asked::new(Deed::Look, what, whom);
    let job = |job: &JobId| Whom::Job(*job);
    let user = |name: &String| Whom::Access(Principal::User(name.clone()));
    match request {
        Request::Submit { .. } => Asked::new(Deed::Submit, "submit", Whom::Nothing),
        Request::Cancel { job: id, .. } => Asked::new(Deed::SteerJob, "cancel", job(id)),
        Request::Act(action) => acted(action),
        Request::Why { job: id, .. } => look("why", job(id)),
        Request::History { .. } => look("history", Whom::Nothing),
        Request::Use { .. } => look("report", Whom::Nothing),
        Request::Search { job: id, .. } => Asked::new(Deed::ReadOutput, "search", job(id)),
        Request::Reload => Asked::new(Deed::Reload, "reload", Whom::Nothing),
        Request::Jobs { .. } => look("jobs", Whom::Nothing),
        Request::Job { job: id } => look("job", job(id)),
        Request::Tasks { job: id, .. } => look("tasks", job(id)),
        Request::Wait { job: id, .. } => look("wait", job(id)),
        Request::Nodes { .. } => look("nodes", Whom::Nothing),
        Request::Series { node, .. } => look("series", Whom::Node(node.clone())),
        Request::Output { task, .. } => Asked::new(Deed::ReadOutput, "logs", job(&task.job)),
        Request::Metrics { job: id } => look("metrics", job(id)),
        Request::Notes { .. } => look("events", Whom::Nothing),
        Request::Token { node } => {
            let whom = Whom::Access(Principal::Node(node.clone()));
            Asked::new(Deed::ChangeAccess, "token", whom)
        }
        // A picture of a job holds the end of its output, which is left out for those who may not
        // read it.
        Request::Watch { scope } => match scope {
            Scope::Job(id) => look("watch", job(id)),
            Scope::Overview | Scope::Nodes | Scope::Jobs | Scope::Data | Scope::Summary => {
                look("watch", Whom::Nothing)
            }
        },
        Request::Gpus { .. } => look("gpus", Whom::Nothing),
        Request::Spec { job: id } => look("spec", job(id)),
        Request::Status => look("status", Whom::Nothing),
        Request::Access { .. } => Asked::new(Deed::SeeAccess, "access", Whom::Nothing),
        Request::Grant { user: name, .. } => Asked::new(Deed::ChangeAccess, "grant", user(name)),
        Request::Revoke { principal } => {
            Asked::new(Deed::ChangeAccess, "revoke", Whom::Access(principal.clone()))
        }
        Request::UserToken { user: name, .. } => {
            Asked::new(Deed::ChangeAccess, "token", user(name))
        }
        Request::Audit { .. } => Asked::new(Deed::SeeAudit, "audit", Whom::Nothing),
        Request::VerifyAudit => Asked::new(Deed::SeeAudit, "verify-audit", Whom::Nothing),
        Request::Copy => Asked::new(Deed::Backup, "backup", Whom::Nothing),
        Request::Authority { step } => {
            let deed = if step.is_some() { Deed::ChangeAccess } else { Deed::SeeAudit };
            Asked::new(deed, "authority", Whom::Nothing)
        }
    }
}

fn acted(action: &Action) -> Asked {
    let steer = |what, job: &JobId| Asked::new(Deed::SteerJob, what, Whom::Job(*job));
    let serve = |what, node: &String| Asked::new(Deed::SteerNode, what, Whom::Node(node.clone()));
    match action {
        Action::Hold { job, .. } => steer("hold", job),
        Action::Release { job, .. } => steer("release", job),
        Action::Requeue { job, .. } => steer("requeue", job),
        Action::Change { job, .. } => steer("change", job),
        Action::Drain { node, .. } => serve("drain", node),
        Action::Resume { node } => serve("resume", node),
        Action::AddWindow { node, .. } => serve("maintenance", node),
        Action::DropWindows { node } => serve("maintenance --clear", node),
        Action::Forget { node } => serve("forget", node),
    }
}

/// Whether somebody may do what is asked, where `owner` is whose the job is that it is about, as far
/// as that is known.
///
/// # Errors
/// A refusal that says which role the caller has, which is needed, and who can give it.
pub(crate) fn judge(
    name: &str,
    role: Role,
    asked: &Asked,
    owner: Option<&str>,
) -> Result<(), Reject> {
    match (may(role, asked.deed), owner) {
        (May::All, _) | (May::Own, None) => return Ok(()),
        (May::Own, Some(owner)) if owner == name => return Ok(()),
        (May::Own | May::No, _) => {}
    }
    let needed = Role::ALL.into_iter().find(|role| match may(*role, asked.deed) {
        May::All => true,
        May::Own => owner == Some(name),
        May::No => false,
    });
    let needed = needed.unwrap_or(Role::Administrator);
    let what = match (&asked.whom, owner) {
        (Whom::Job(job), Some(owner)) if owner != name => {
            format!("{} of {job}, which is {owner}'s,", asked.what)
        }
        (Whom::Nothing, _) => asked.what.to_owned(),
        (whom, _) => format!("{} of {whom}", asked.what),
    };
    let sentence = format!(
        "{what} needs the role {needed} and {name} is {}; an administrator can give it with gantry access grant {name} {needed}",
        role.with_article()
    );
    Err(Reject::new(RejectKind::Forbidden, sentence))
}

#[cfg(test)]
mod tests {
    use gantry_model::At;
    use gantry_model::{IndexSet, JobChange, JobSpec, Millis, Window, Work};
    use gantry_wire::{AuditQuery, AuthorityStep, HistoryQuery, NoteQuery, UseBy};

    use super::*;

    /// Every request, with what viewer, user, operator and administrator may do by it: `y` all, `o`
    /// to what is their own, `-` nothing.
    fn requests() -> Vec<(Request, &'static str)> {
        let job = JobId(7);
        let node = || "n".to_owned();
        let work = Work::Command { arguments: vec!["true".into()], folder: None };
        let spec = Box::new(JobSpec::new("job", work));
        let indices: Option<IndexSet> = None;
        let window = Window { from: At(1), until: At(2), reason: "r".into() };
        let change = JobChange::default();
        let reason = "r".to_owned();
        let act = Request::Act;
        vec![
            (Request::Submit { key: "k".into(), spec }, "-yyy"),
            (Request::Cancel { job, indices: None }, "-oyy"),
            (act(Action::Hold { job, indices: None }), "-oyy"),
            (act(Action::Release { job, indices: None }), "-oyy"),
            (act(Action::Requeue { job, indices: None }), "-oyy"),
            (act(Action::Change { job, indices: None, change }), "-oyy"),
            (act(Action::Drain { node: node(), reason, deadline: None }), "--yy"),
            (act(Action::Resume { node: node() }), "--yy"),
            (act(Action::AddWindow { node: node(), window }), "--yy"),
            (act(Action::DropWindows { node: node() }), "--yy"),
            (act(Action::Forget { node: node() }), "--yy"),
            (Request::Why { job, indices: None }, "yyyy"),
            (Request::History { query: HistoryQuery::default() }, "yyyy"),
            (Request::Use { by: UseBy::User, from: At(0), until: At(1) }, "yyyy"),
            (Request::Search { job, text: "t".into() }, "ooyy"),
            (Request::Reload, "--yy"),
            (Request::Jobs { before: None, ended: true }, "yyyy"),
            (Request::Job { job }, "yyyy"),
            (Request::Tasks { job, from: 0 }, "yyyy"),
            (Request::Wait { job, indices }, "yyyy"),
            (Request::Nodes { after: None }, "yyyy"),
            (
                Request::Series { node: node(), quantities: vec![], span: Millis(1), cells: 1 },
                "yyyy",
            ),
            (Request::Output { task: job.task(0), offset: 0 }, "ooyy"),
            (Request::Metrics { job }, "yyyy"),
            (Request::Notes { query: NoteQuery::default() }, "yyyy"),
            (Request::Token { node: node() }, "---y"),
            (Request::Watch { scope: Scope::Overview }, "yyyy"),
            (Request::Watch { scope: Scope::Nodes }, "yyyy"),
            (Request::Watch { scope: Scope::Jobs }, "yyyy"),
            (Request::Watch { scope: Scope::Job(job) }, "yyyy"),
            (Request::Watch { scope: Scope::Data }, "yyyy"),
            (Request::Watch { scope: Scope::Summary }, "yyyy"),
            (Request::Gpus { after: None, job: None }, "yyyy"),
            (Request::Spec { job }, "yyyy"),
            (Request::Status, "yyyy"),
            (Request::Access { after: None }, "ooyy"),
            (Request::Grant { user: "ada".into(), role: Role::User }, "---y"),
            (Request::Revoke { principal: Principal::Node("n".into()) }, "---y"),
            (Request::UserToken { user: "ada".into(), role: Role::User }, "---y"),
            (Request::Audit { query: AuditQuery::default() }, "--yy"),
            (Request::VerifyAudit, "--yy"),
            (Request::Copy, "---y"),
            (Request::Authority { step: None }, "--yy"),
            (Request::Authority { step: Some(AuthorityStep::Rotate) }, "---y"),
        ]
    }

    #[test]
    fn every_request_and_role_cell_by_cell() {
        for (request, cells) in requests() {
            let asked = asked(&request);
            for (role, cell) in Role::ALL.into_iter().zip(cells.chars()) {
                let of_job = matches!(asked.whom, Whom::Job(_));
                for owner in [Some("ada"), Some("grace"), None] {
                    // What is about no job belongs to nobody.
                    if owner.is_some() && !of_job {
                        continue;
                    }
                    let expected = match cell {
                        'y' => true,
                        'o' => owner != Some("grace"),
                        _ => false,
                    };
                    let judged = judge("ada", role, &asked, owner);
                    assert_eq!(judged.is_ok(), expected, "{role} {request:?} of {owner:?}");
                    let Err(reject) = judged else { continue };
                    assert_eq!(reject.kind, RejectKind::Forbidden);
                    for part in [role.with_article(), "ada", "gantry access grant ada "] {
                        assert!(reject.sentence.contains(part), "{reject}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_changes_something_is_written_down_and_a_viewer_does_none_of_it() {
        for (request, cells) in requests() {
            let asked = asked(&request);
            assert_eq!(
                asked.changes(),
                cells.starts_with('-') && asked.deed != Deed::SeeAudit,
                "{request:?}"
            );
        }
    }

    #[test]
    fn a_refusal_names_the_least_role_that_is_enough() {
        let cancel = asked(&Request::Cancel { job: JobId(7), indices: None });
        for (role, owner, part) in [
            (Role::Viewer, Some("ada"), "needs the role user and ada is a viewer"),
            (
                Role::Viewer,
                Some("grace"),
                "cancel of j7, which is grace's, needs the role operator",
            ),
            (Role::User, Some("grace"), "needs the role operator and ada is a user"),
        ] {
            let reject = judge("ada", role, &cancel, owner).unwrap_err();
            assert!(reject.sentence.contains(part), "{reject}");
        }
    }

    #[test]
    fn the_document_holds_the_table() {
        let text = include_str!("../../../SECURITY.md");
        assert!(text.contains(&document()), "SECURITY.md lacks this table:\n{}", document());
    }

    #[test]
    fn nothing_that_a_user_wrote_is_taken_over() {
        let secret = "DOE^JANE";
        let work = Work::Command { arguments: vec![secret.into()], folder: Some(secret.into()) };
        let reason = secret.to_owned();
        for request in [
            Request::Submit { key: secret.into(), spec: Box::new(JobSpec::new(secret, work)) },
            Request::Search { job: JobId(1), text: secret.into() },
            Request::Act(Action::Drain { node: "n".into(), reason, deadline: None }),
        ] {
            assert!(!format!("{:?}", asked(&request)).contains(secret), "{request:?}");
        }
    }
}
