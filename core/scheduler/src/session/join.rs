//! A node or a person without a certificate: one request, one answer.

use std::net::IpAddr;
use std::time::Duration;

use gantry_link::{Authority, IdentityKind, LinkError, token};
use gantry_model::{Principal, Reject, RejectKind};
use gantry_wire::{JoinReply, JoinRequest, Peer};

use super::{Greeted, Shared, strangers};
use crate::audit::Entry;

/// A caller that has nothing to say is not waited for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn run(shared: &Shared, greeted: Greeted, peer: Peer) -> Result<(), LinkError> {
    let Greeted { connection, mut sender, mut receiver, .. } = greeted;
    let request: JoinRequest =
        tokio::time::timeout(REQUEST_TIMEOUT, receiver.expect()).await.map_err(|_| {
            LinkError::Timeout { what: "joining", seconds: REQUEST_TIMEOUT.as_secs() }
        })??;
    let remote = connection.remote().ip();
    let name = request.node.clone();
    let principal =
        if peer == Peer::Joining { Principal::Node(name) } else { Principal::User(name) };
    let authority = shared.signing.authority();
    let reply = match sign(shared, &authority, remote, &principal, &request).await {
        Ok(certificate_der) => {
            tracing::info!(%principal, %remote, "has joined");
            let authority_der = authority.certificate_der();
            JoinReply::Joined { node: None, certificate_der, authority_der }
        }
        Err(reject) => {
            tracing::warn!(%remote, "a join was refused: {reject}");
            JoinReply::Refused(reject)
        }
    };
    sender.send(&reply).await?;
    sender.delivered().await;
    Ok(())
}

/// The token is used up before the certificate is signed: a token never gives two certificates.
async fn sign(
    shared: &Shared,
    authority: &Authority,
    remote: IpAddr,
    principal: &Principal,
    request: &JoinRequest,
) -> Result<Vec<u8>, Reject> {
    gantry_model::job::check_name(principal.kind(), principal.name())?;
    let now = shared.core.clock.now();
    if !shared.guesses.may_try(remote, now) {
        return Err(Reject::new(
            RejectKind::Busy,
            "too many wrong tokens came from this address; wait a minute, then join again",
        ));
    }
    shared.audit.ready().await?;
    let hash = token::hash(&request.token);
    let signed = match shared.core.redeem(hash, principal.clone()).await {
        Ok(()) => issue(shared, authority, principal, request),
        Err(reject) => Err(reject),
    };
    let whom = principal.to_string();
    match &signed {
        // A guess, or a slip; of many only the first are written down.
        Err(reject) if reject.kind == RejectKind::NotFound => {
            strangers::guessed(shared, remote, whom).await;
        }
        other => {
            let from = remote.to_canonical().to_string();
            let line = Entry { from, whom, ..Entry::new(shared.core.clock.now(), "join") };
            let line = match other {
                Ok(_) => line,
                Err(reject) => Entry { refused: true, why: reject.sentence.clone(), ..line },
            };
            shared.audit.record(line).await;
        }
    }
    signed
}

fn issue(
    shared: &Shared,
    authority: &Authority,
    principal: &Principal,
    request: &JoinRequest,
) -> Result<Vec<u8>, Reject> {
    let now = shared.core.clock.wall();
    let from = shared.core.access.look(|grants| grants.joins(principal, now))?;
    let kind = match principal {
        Principal::Node(_) => IdentityKind::Agent,
        Principal::User(_) => IdentityKind::User,
    };
    let term = shared.term(kind, from);
    let signed = authority
        .sign(kind, principal.name(), term, &request.request_der)
        .map_err(|error| Reject::new(RejectKind::Invalid, error.to_string()))?;
    shared.signing.saw(principal, from);
    Ok(signed)
}
