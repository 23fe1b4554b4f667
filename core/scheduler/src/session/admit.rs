//! Whether a request is heard: by the role of who asks, and by whose job it is about.
//!
//! The role is looked up for each request, so that one that was changed holds at once. What is refused
//! for want of a right, and everything that changes something, has its line in the audit log before
//! it is answered.

use gantry_model::access::Role;
use gantry_model::{JobId, Reject, RejectKind};
use gantry_wire::{AuthorityStep, Reply, Request};

use super::console::unknown;
use super::{Caller, Shared};
use crate::audit::Entry;
use crate::roles::{self, Asked, Deed, May, Whom};

/// Whose a job is; nobody's where the cluster does not know it.
async fn owner(shared: &Shared, job: JobId) -> Result<Option<String>, Reject> {
    let read = move |cluster: &gantry_cluster::Cluster| {
        cluster.spec(job).map(|(owner, _)| owner.to_owned()).ok()
    };
    shared.core.read(read).await
}

impl Caller {
    /// Its role now.
    pub(super) fn role(&self, shared: &Shared) -> Result<Role, Reject> {
        shared.core.access.look(|grants| grants.role(&self.peer))
    }

    /// Whether this caller may do what is asked.
    pub(super) async fn may(&self, shared: &Shared, asked: &Asked) -> Result<(), Reject> {
        let role = self.role(shared)?;
        let owner = match (&asked.whom, roles::may(role, asked.deed)) {
            (Whom::Job(job), May::No) => owner(shared, *job).await?,
            (Whom::Job(job), May::Own) => {
                // One that comes into being between here and the deed is not taken for one's own.
                Some(owner(shared, *job).await?.ok_or_else(|| unknown(*job))?)
            }
            _ => None,
        };
        roles::judge(&self.peer.name, role, asked, owner.as_deref())
    }

    /// Whether this caller may read now what tasks of this owner's job have printed.
    pub(super) fn reads_output(&self, shared: &Shared, owner: Option<&str>) -> bool {
        self.role(shared).is_ok_and(|role| match roles::may(role, Deed::ReadOutput) {
            May::All => true,
            May::Own => owner == Some(&self.peer.name),
            May::No => false,
        })
    }

    /// Whose a job is, for [`Self::reads_output`].
    pub(super) async fn owner(&self, shared: &Shared, job: JobId) -> Option<String> {
        owner(shared, job).await.ok().flatten()
    }

    /// Hears a request: refuses it, or has it answered by `answer`, and writes down what is to be.
    pub(super) async fn heard(
        &self,
        shared: &Shared,
        request: Request,
        answer: impl AsyncFnOnce(Request) -> Result<Reply, Reject>,
    ) -> Result<Reply, Reject> {
        let asked = roles::asked(&request);
        let more = extra(&request);
        let answered = if let Err(reject) = self.may(shared, &asked).await {
            Err(reject)
        } else {
            if asked.changes() {
                shared.audit.ready().await?;
            }
            answer(request).await
        };
        let forbidden = matches!(&answered, Err(reject) if reject.kind == RejectKind::Forbidden);
        if asked.changes() || forbidden {
            let line = self.about(shared, &asked, more, &answered);
            shared.audit.record(line).await;
        }
        answered
    }

    /// The line about a request and its answer. Of a refusal it has the kind alone, since a sentence
    /// may repeat what somebody wrote; but for want of a right it says which one was wanting.
    fn about(
        &self,
        shared: &Shared,
        asked: &Asked,
        more: String,
        answered: &Result<Reply, Reject>,
    ) -> Entry {
        let mut line = self.line(shared, asked.what);
        line.whom = match (&answered, &asked.whom) {
            (Ok(Reply::Submitted(job)), _) => job.to_string(),
            (_, whom) => whom.to_string(),
        };
        line.why = more;
        if let Err(reject) = answered {
            line.refused = true;
            line.why = match serde_json::to_value(reject.kind) {
                Ok(serde_json::Value::String(word)) => word,
                _ => "refused".into(),
            };
        }
        line
    }
}

/// What a line of the audit log says beside who did what to whom.
fn extra(request: &Request) -> String {
    match request {
        Request::Grant { role, .. } | Request::UserToken { role, .. } => format!("as {role}"),
        Request::Authority { step } => match step {
            None => String::new(),
            Some(AuthorityStep::Rotate) => "rotate".into(),
            Some(AuthorityStep::Finish) => "finish".into(),
            Some(AuthorityStep::FinishAnyway) => "finish anyway".into(),
        },
        _ => String::new(),
    }
}
