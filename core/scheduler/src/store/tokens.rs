//! Join tokens: their hashes, whom they are for, until when, and whether they were used.

use gantry_model::{At, Reject, RejectKind};
use rusqlite::{OptionalExtension, params};

use super::{Store, wrong};
use crate::error::SchedulerError;

/// Tokens that wait to be used.
const TOKENS_MAX: u32 = 10_000;

impl Store {
    /// Keeps the hash of a new token.
    pub(crate) fn add_token(
        &mut self,
        hash: &str,
        node: &str,
        now: At,
        expires: At,
    ) -> Result<(), SchedulerError> {
        let old = params![now.0 as i64];
        self.database.execute("DELETE FROM tokens WHERE expires < ?1", old).map_err(wrong)?;
        let count: u32 = self
            .database
            .query_row("SELECT count(*) FROM tokens", [], |row| row.get(0))
            .map_err(wrong)?;
        if count >= TOKENS_MAX {
            let sentence = format!("{TOKENS_MAX} tokens wait to be used; wait until some expire");
            return Err(SchedulerError::Refused(Reject::new(RejectKind::Busy, sentence)));
        }
        let insert = "INSERT INTO tokens (hash, node, expires, used) VALUES (?1, ?2, ?3, 0)";
        self.database
            .execute(insert, params![hash, node, expires.0 as i64])
            .map(|_| ())
            .map_err(wrong)
    }

    /// Uses a token up, or says why it is worth nothing.
    pub(crate) fn redeem(
        &mut self,
        hash: &str,
        node: &str,
        now: At,
    ) -> Result<Result<(), Reject>, SchedulerError> {
        let found: Option<(String, i64, bool)> = self
            .database
            .query_row("SELECT node, expires, used FROM tokens WHERE hash = ?1", [hash], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()
            .map_err(wrong)?;
        let refuse = |why: String| {
            let sentence = format!("{why}; make a new one with gantry scheduler token {node}");
            Ok(Err(Reject::new(RejectKind::Forbidden, sentence)))
        };
        match found {
            None => refuse("the token is not known here, or has expired".into()),
            Some((_, _, true)) => refuse("the token was used already".into()),
            Some((_, expires, _)) if (expires as u64) < now.0 => {
                refuse("the token has expired".into())
            }
            Some((other, ..)) if other != node => {
                refuse(format!("the token was made for another node than {node}"))
            }
            Some(_) => {
                let update = "UPDATE tokens SET used = 1 WHERE hash = ?1 AND used = 0";
                let changed = self.database.execute(update, [hash]).map_err(wrong)?;
                if changed == 1 { Ok(Ok(())) } else { refuse("the token was used already".into()) }
            }
        }
    }
}
