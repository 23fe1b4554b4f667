//! Join tokens: their hashes, whom they are for, until when, and whether they were used.
//!
//! Those of nodes and those of people are in tables of their own, so that none is ever taken for one
//! of the other.

use gantry_model::{At, Principal, Reject, RejectKind};
use rusqlite::{OptionalExtension, params};

use super::{Store, seal, wrong};
use crate::error::SchedulerError;

/// Tokens that wait to be used, of either kind.
const TOKENS_MAX: u32 = 10_000;

/// The table of tokens of one kind, and its column of names.
const fn table(principal: &Principal) -> (&'static str, &'static str) {
    match principal {
        Principal::Node(_) => ("tokens", "node"),
        Principal::User(_) => ("user_tokens", "name"),
    }
}

impl Store {
    /// Keeps the hash of a new token.
    pub(crate) fn add_token(
        &mut self,
        hash: &str,
        principal: &Principal,
        now: At,
        expires: At,
    ) -> Result<(), SchedulerError> {
        let (table, column) = table(principal);
        let transaction = self.database.transaction().map_err(wrong)?;
        seal::check(&transaction, table)?;
        let delete = format!("DELETE FROM {table} WHERE expires < ?1");
        transaction.execute(&delete, params![now.0 as i64]).map_err(wrong)?;
        let count: u32 = transaction
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
            .map_err(wrong)?;
        if count >= TOKENS_MAX {
            let sentence = format!("{TOKENS_MAX} tokens wait to be used; wait until some expire");
            return Err(SchedulerError::Refused(Reject::new(RejectKind::Busy, sentence)));
        }
        let insert =
            format!("INSERT INTO {table} (hash, {column}, expires, used) VALUES (?1, ?2, ?3, 0)");
        transaction
            .execute(&insert, params![hash, principal.name(), expires.0 as i64])
            .map_err(wrong)?;
        seal::renew(&transaction, table)?;
        transaction.commit().map_err(wrong)
    }

    /// Uses a token up, or says why it is worth nothing.
    pub(crate) fn redeem(
        &mut self,
        hash: &str,
        principal: &Principal,
        now: At,
    ) -> Result<Result<(), Reject>, SchedulerError> {
        let (table, column) = table(principal);
        seal::check(&self.database, table)?;
        // An index that is damaged could lead to the row of another one.
        let select =
            format!("SELECT {column}, expires, used FROM {table} NOT INDEXED WHERE hash = ?1");
        let found: Option<(String, i64, bool)> = self
            .database
            .query_row(&select, [hash], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()
            .map_err(wrong)?;
        let again = match principal {
            Principal::Node(name) => format!("gantry scheduler token {name}"),
            Principal::User(name) => format!("gantry access token {name} --role ROLE"),
        };
        let sentence = |why: &str| format!("{why}; make a new one with {again}");
        let refuse = |why: String| Ok(Err(Reject::new(RejectKind::Forbidden, sentence(&why))));
        match found {
            // Of a kind of its own: it may be a guess.
            None => {
                let why = "the token is not known here, or has expired";
                Ok(Err(Reject::not_found(sentence(why))))
            }
            Some((_, _, true)) => refuse("the token was used already".into()),
            Some((_, expires, _)) if (expires as u64) < now.0 => {
                refuse("the token has expired".into())
            }
            Some((other, ..)) if other != principal.name() => refuse(format!(
                "the token was made for another {} than {}",
                principal.kind(),
                principal.name()
            )),
            Some(_) => {
                let update =
                    format!("UPDATE {table} NOT INDEXED SET used = 1 WHERE hash = ?1 AND used = 0");
                let mut changed = 0;
                self.write(now, |transaction| {
                    changed = transaction.execute(&update, [hash]).map_err(wrong)?;
                    seal::renew(transaction, table)
                })?;
                if changed == 1 { Ok(Ok(())) } else { refuse("the token was used already".into()) }
            }
        }
    }

    /// Forgets all tokens: which of them were used since a backup is not known.
    pub(crate) fn forget_all_tokens(&mut self) -> Result<(), SchedulerError> {
        for table in ["tokens", "user_tokens"] {
            self.delete(table, &format!("DELETE FROM {table}"), [])?;
        }
        Ok(())
    }

    /// Forgets the tokens of somebody whose access was taken away.
    pub(crate) fn forget_tokens(&mut self, principal: &Principal) -> Result<(), SchedulerError> {
        let (table, column) = table(principal);
        let delete = format!("DELETE FROM {table} WHERE {column} = ?1");
        self.delete(table, &delete, [principal.name()])
    }

    fn delete(
        &mut self,
        table: &str,
        statement: &str,
        values: impl rusqlite::Params,
    ) -> Result<(), SchedulerError> {
        let transaction = self.database.transaction().map_err(wrong)?;
        seal::check(&transaction, table)?;
        transaction.execute(statement, values).map_err(wrong)?;
        seal::renew(&transaction, table)?;
        transaction.commit().map_err(wrong)
    }
}
