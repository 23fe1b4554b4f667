//! What people ask about access: who has it, roles, tokens, the authority, and the audit log.

use gantry_link::token;
use gantry_model::access::Role;
use gantry_model::{Level, Principal, Reject, Subject};
use gantry_wire::{Reply, Request};

use super::{Caller, Shared};
use crate::access::Change;
use crate::roles::{self, Deed, May};
use crate::signing;

/// Answers a request about access; one about anything else is not for here.
pub(super) async fn answer(
    shared: &Shared,
    caller: &Caller,
    request: Request,
) -> Result<Reply, Reject> {
    let by = caller.peer.name.as_str();
    match request {
        Request::Token { node } => token_for(shared, by, Change::Admit(node)).await,
        Request::UserToken { user, role } => {
            token_for(shared, by, Change::Invite(user, role)).await
        }
        Request::Grant { user, role } => {
            let reply = change(shared, by, Change::Grant(user.clone(), role)).await?;
            say(shared, Subject::Cluster, format!("{by} gave {user} the role {role}"));
            Ok(reply)
        }
        Request::Revoke { principal } => {
            if let Principal::Node(node) = &principal {
                check_node(shared, node).await?;
            }
            let reply = change(shared, by, Change::Revoke(principal.clone())).await?;
            let sentence = format!("{by} took the access of {principal} away");
            let subject = match principal {
                Principal::Node(node) => Subject::Node(node),
                Principal::User(_) => Subject::Cluster,
            };
            say(shared, subject, sentence);
            Ok(reply)
        }
        Request::Access { after } => {
            let all = roles::may(caller.role(shared)?, Deed::SeeAccess) == May::All;
            let only = (!all).then_some(by);
            let (rows, more) = shared.core.access.page(after.as_ref(), only);
            Ok(Reply::Access { rows, more })
        }
        Request::Audit { query } => shared.audit.page(query).await.map(Reply::Audit),
        Request::VerifyAudit => shared.audit.verify().await.map(Reply::Verified),
        Request::Authority { step } => signing::answer(shared, by, step).await,
        _ => Err(Reject::invalid("this request is not about access")),
    }
}

/// Whether a node of this name was ever heard of.
async fn check_node(shared: &Shared, node: &str) -> Result<(), Reject> {
    let name = node.to_owned();
    let read = move |cluster: &gantry_cluster::Cluster| {
        cluster.nodes().iter().any(|row| row.facts.name == name)
    };
    let spoken_of = shared.core.access.row(&Principal::Node(node.to_owned())).is_some();
    if spoken_of || shared.core.read(read).await? {
        return Ok(());
    }
    Err(Reject::not_found(format!("there is no node {node:?}; gantry nodes lists them")))
}

fn say(shared: &Shared, subject: Subject, sentence: String) {
    tracing::info!("{sentence}");
    shared.core.note(Level::Note, subject, sentence);
}

/// Changes who has access, and answers with the row that it was about.
async fn change(shared: &Shared, by: &str, change: Change) -> Result<Reply, Reject> {
    let principal = shared.core.change_access(by.to_owned(), change).await?;
    let rows = shared.core.access.row(&principal).into_iter().collect();
    Ok(Reply::Access { rows, more: false })
}

/// Lets somebody in, and makes the token for it.
async fn token_for(shared: &Shared, by: &str, change: Change) -> Result<Reply, Reject> {
    let role: Option<Role> = match &change {
        Change::Invite(_, role) => Some(*role),
        _ => None,
    };
    let principal = shared.core.change_access(by.to_owned(), change).await?;
    let token = token::mint(&shared.signing.authority().fingerprint());
    let expires = shared.core.clock.now().after(shared.settings.token_valid);
    shared.core.add_token(token.hash, principal.clone(), expires).await?;
    match (principal, role) {
        (Principal::Node(node), _) => {
            say(shared, Subject::Node(node), format!("{by} made a token to join with"));
        }
        (Principal::User(user), role) => {
            let role = role.map_or("none", Role::word);
            let sentence = format!("{by} made a token for {user}, with the role {role}");
            say(shared, Subject::Cluster, sentence);
        }
    }
    Ok(Reply::Token(token.text))
}
