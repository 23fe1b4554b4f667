//! A node without a certificate: one request, one answer.

use std::time::Duration;

use gantry_link::{IdentityKind, LinkError, token};
use gantry_model::{Reject, RejectKind};
use gantry_wire::{JoinReply, JoinRequest};

use super::{Greeted, Shared};

/// A node that has nothing to say is not waited for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn run(shared: &Shared, greeted: Greeted) -> Result<(), LinkError> {
    let Greeted { connection, mut sender, mut receiver } = greeted;
    let request: JoinRequest =
        tokio::time::timeout(REQUEST_TIMEOUT, receiver.expect()).await.map_err(|_| {
            LinkError::Timeout { what: "joining", seconds: REQUEST_TIMEOUT.as_secs() }
        })??;
    let reply = match sign(shared, &request).await {
        Ok(certificate_der) => {
            tracing::info!(node = request.node, remote = %connection.remote(), "a node has joined");
            let authority_der = shared.authority.certificate_der();
            JoinReply::Joined { node: None, certificate_der, authority_der }
        }
        Err(reject) => {
            tracing::warn!(remote = %connection.remote(), "a join was refused: {reject}");
            JoinReply::Refused(reject)
        }
    };
    sender.send(&reply).await?;
    sender.delivered().await;
    Ok(())
}

/// The token is used up before the certificate is signed: a token never gives two certificates.
async fn sign(shared: &Shared, request: &JoinRequest) -> Result<Vec<u8>, Reject> {
    gantry_model::job::check_name("node", &request.node)?;
    shared.core.redeem(token::hash(&request.token), request.node.clone()).await?;
    shared
        .authority
        .sign(IdentityKind::Agent, &request.node, &request.request_der)
        .map_err(|error| Reject::new(RejectKind::Invalid, error.to_string()))
}
