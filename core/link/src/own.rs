//! An identity in its folder, kept fresh for as long as it is used.
//!
//! The next certificate is fetched after two thirds of the life of the one before, over a connection
//! of its own: what is connected is not touched, and nobody has to start again. What is due is told by
//! the scheduler's clock, where that is known, so that a host whose clock is wrong is not locked out.
//! It is due sooner where the scheduler has changed its authority: the next certificate is of the new one.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gantry_model::{At, Millis, RejectKind};
use gantry_wire::Peer;
use rand::RngExt;

use crate::authority::system_now;
use crate::connect::{Session, connect, renew};
use crate::error::LinkError;
use crate::identity::{Identity, PeerIdentity};

/// Between two tries to renew, at most and at least.
const AGAIN_MAX: Millis = Millis::from_seconds(600);
const AGAIN_MIN: Millis = Millis::from_seconds(1);

/// So long it takes until all agents have certificates of an authority that follows another one.
const BEHIND_WITHIN: Millis = Millis::from_seconds(60);

/// An identity, where it lies, and the scheduler that renews it.
#[derive(Clone, Debug)]
pub struct Own {
    address: SocketAddr,
    folder: PathBuf,
    name: String,
    identity: Identity,
    /// Whether its certificate is from before the scheduler has changed its authority.
    behind: bool,
}

impl Own {
    /// Reads the identity of this name in a folder.
    ///
    /// # Errors
    /// As [`Identity::load`].
    pub fn load(address: SocketAddr, folder: &Path, name: &str) -> Result<Self, LinkError> {
        let identity = Identity::load(folder, name)?;
        Ok(Self {
            address,
            folder: folder.to_owned(),
            name: name.to_owned(),
            identity,
            behind: false,
        })
    }

    /// The identity as it is now.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Calls the scheduler, and before that renews what is due or has ended. A person whose certificate is of
    /// an authority that is followed by another one gets the next at once, an agent within a while
    /// ([`Self::keep_fresh`]): thousands of those are back together after a scheduler's start.
    ///
    /// # Errors
    /// As [`connect`]; a renewal that fails is no error of its own.
    pub async fn connect(&mut self, peer: Peer) -> Result<Session, LinkError> {
        let session = self.call(peer).await?;
        let made = self.identity.peer()?.issued;
        self.behind = session.follows.is_some_and(|followed| made < followed);
        if self.behind && peer != Peer::Agent {
            // The one at hand counts as well, until the authority before is given up.
            let _ = self.renew().await;
        }
        Ok(session)
    }

    async fn call(&mut self, peer: Peer) -> Result<Session, LinkError> {
        if system_now() >= self.identity.peer()?.due() {
            // What it fails for, the call fails for too, or it does not matter yet.
            let _ = self.renew().await;
        }
        let refused = match connect(self.address, &self.identity, peer).await {
            Err(LinkError::Refused(reject)) => reject,
            other => return other,
        };
        let better = match refused.kind {
            // The node may have joined anew, or another command has renewed.
            RejectKind::Forbidden => self.reload(),
            // The certificate has ended, and this host's clock is behind and does not know it.
            RejectKind::State => self.reload() || self.renew().await.is_ok(),
            _ => false,
        };
        if better {
            return connect(self.address, &self.identity, peer).await;
        }
        Err(LinkError::Refused(refused))
    }

    /// Takes the identity over that lies in the folder now; says whether it is another one.
    fn reload(&mut self) -> bool {
        let Ok(there) = Identity::load(&self.folder, &self.name) else { return false };
        let other = there.certificate != self.identity.certificate;
        self.identity = there;
        other
    }

    /// Fetches the next certificate and keeps it.
    ///
    /// # Errors
    /// As [`renew`], and where it cannot be written; it is used then all the same.
    pub async fn renew(&mut self) -> Result<(), LinkError> {
        self.identity = renew(self.address, &self.identity).await?;
        self.behind = false;
        self.identity.save_renewed(&self.folder, &self.name)
    }

    /// Renews again and again while a connection is open, which began when the scheduler's clock
    /// showed `greeted`.
    pub async fn keep_fresh(&mut self, greeted: At) -> Infallible {
        let begun = Instant::now();
        let now = || greeted.after(Millis(begun.elapsed().as_millis() as u64));
        loop {
            // Without one there would be no connection.
            let Ok(peer) = self.identity.peer() else { return std::future::pending().await };
            let due = until_due(&peer, now(), rand::rng().random_range(0..=u64::from(u16::MAX)));
            let spread = Millis(rand::rng().random_range(0..=BEHIND_WITHIN.0));
            let wait = if self.behind { due.min(spread) } else { due };
            tokio::time::sleep(Duration::from_millis(wait.0)).await;
            if let Err(error) = self.renew().await {
                let left = peer.expires.since(now());
                let again = again_after(left);
                tracing::warn!("renewing the certificate failed: {error}; trying again in {again}");
                tokio::time::sleep(Duration::from_millis(again.0)).await;
            }
        }
    }
}

/// How long until a certificate is renewed: until two thirds of its life are over, and a part of the
/// next twelfth by chance (of 65535), so that nodes that joined together do not renew together.
fn until_due(peer: &PeerIdentity, now: At, chance: u64) -> Millis {
    let spread = peer.expires.since(peer.issued).0 / 12;
    let part = (u128::from(spread) * u128::from(chance) / u128::from(u16::MAX)) as u64;
    peer.due().after(Millis(part)).since(now)
}

/// How long after a failure it is tried again, where so much of the certificate's life is left.
fn again_after(left: Millis) -> Millis {
    Millis(left.0 / 16).clamp(AGAIN_MIN, AGAIN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdentityKind;

    #[test]
    fn what_is_renewed_when_by_any_clock() {
        const HOUR: u64 = 3_600_000;
        let peer = PeerIdentity {
            kind: Some(IdentityKind::Agent),
            name: "cpu-1".into(),
            issued: At(1000 * HOUR),
            expires: At(1024 * HOUR),
        };
        let all = u64::from(u16::MAX);
        for (now, chance, hours) in [
            (1000, 0, 16),
            (1000, all, 18),
            (1010, 0, 6),
            (1016, 0, 0),
            (1030, 0, 0),
            // A scheduler whose clock is ten minutes behind costs ten minutes.
            (999, 0, 17),
        ] {
            let wait = until_due(&peer, At(now * HOUR), chance);
            assert_eq!(wait, Millis(hours * HOUR), "at {now} with {chance}");
        }
        // Before the end there are many tries.
        assert_eq!(again_after(Millis(8 * HOUR)), AGAIN_MAX);
        assert_eq!(again_after(Millis(0)), AGAIN_MIN);
    }
}
