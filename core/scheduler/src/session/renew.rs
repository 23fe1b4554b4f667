//! Somebody with a certificate who wants the next one: one request, one answer.
//!
//! TLS has shown that the caller holds the key of a certificate of this cluster, and the grants that
//! its access was not taken away; nothing else is needed. The name and the kind are those of the old
//! certificate, whatever the request says.

use std::time::Duration;

use gantry_link::LinkError;
use gantry_model::Reject;
use gantry_wire::{JoinReply, RenewRequest};

use super::{Caller, Greeted, Shared};
use crate::access::principal;

/// A caller that has nothing to say is not waited for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn run(shared: &Shared, greeted: Greeted) -> Result<(), LinkError> {
    let Greeted { connection, mut sender, mut receiver, _counted, .. } = greeted;
    let request: RenewRequest =
        tokio::time::timeout(REQUEST_TIMEOUT, receiver.expect()).await.map_err(|_| {
            LinkError::Timeout { what: "renewing", seconds: REQUEST_TIMEOUT.as_secs() }
        })??;
    let peer = connection.peer();
    // One and the same for the certificate and what stands beside it.
    let authority = shared.signing.authority();
    let signed = match peer.kind {
        // Nobody without one is let in as this.
        None => Err(Reject::invalid("there is no certificate to renew")),
        Some(kind) => {
            let term = shared.term(kind, shared.core.clock.wall());
            let signed = authority.sign(kind, &peer.name, term, &request.request_der);
            if let (Ok(_), Some(principal)) = (&signed, principal(peer)) {
                shared.signing.saw(&principal, term.from);
            }
            signed.map_err(|error| Reject::invalid(error.to_string()))
        }
    };
    let reply = match signed {
        Ok(certificate_der) => {
            tracing::info!(name = peer.name, "a certificate was renewed");
            let authority_der = authority.certificate_der();
            JoinReply::Joined { node: None, certificate_der, authority_der }
        }
        Err(reject) => {
            let mut line = Caller::of(&connection).line(shared, "renew");
            (line.refused, line.why) = (true, "invalid".into());
            shared.audit.record(line).await;
            JoinReply::Refused(reject)
        }
    };
    sender.send(&reply).await?;
    sender.delivered().await;
    Ok(())
}
