//! Connection ids: how packets find their connection, and how a scheduler knows ids of an earlier
//! life, whose callers it tells that it has begun anew.
//!
//! An id is a random number and its keyed hash. Quinn's own hashed ids have 24 random bits, and it
//! does not look whether the id of a retry is taken: with the ids of ten thousand agents one call in
//! two hundred would be taken for a packet of another connection and get no answer. Here there are
//! 64, and the hash keeps strangers from asking for resets as before.

use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use rand::Rng;
use ring::hmac;

const RANDOM_BYTES: usize = 8;
const HASH_BYTES: usize = 4;

/// Makes ids and knows its own again, also those of an earlier life with the same key.
pub(crate) struct Places(hmac::Key);

impl Places {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    fn id(&self, random: &[u8]) -> ConnectionId {
        let hash = hmac::sign(&self.0, random);
        ConnectionId::new(&[random, &hash.as_ref()[..HASH_BYTES]].concat())
    }
}

impl ConnectionIdGenerator for Places {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut random = [0; RANDOM_BYTES];
        rand::rng().fill_bytes(&mut random);
        self.id(&random)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let known = id.get(..RANDOM_BYTES).is_some_and(|random| self.id(random) == *id);
        if known { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        RANDOM_BYTES + HASH_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_known_in_the_next_life_and_by_no_other_key() {
        let (mut places, again) = (Places::new(b"key"), Places::new(b"key"));
        let other = Places::new(b"other");
        let ids: Vec<ConnectionId> = (0..10_000).map(|_| places.generate_cid()).collect();
        for id in &ids {
            assert_eq!(id.len(), places.cid_len());
            assert!(again.validate(id).is_ok() && other.validate(id).is_err(), "{id}");
            assert!(again.validate(&ConnectionId::new(&id[1..])).is_err(), "{id}");
        }
        let different: BTreeSet<Vec<u8>> = ids.iter().map(|id| id.to_vec()).collect();
        assert_eq!(different.len(), ids.len(), "none is given twice");
    }
}
