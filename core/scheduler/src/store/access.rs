//! Who has access: a row for each person that was let in, and for each node that was spoken of.
//!
//! A row is synced before anybody is answered: an access that was taken away stays so whatever
//! becomes of the machine.

use gantry_model::access::Role;
use gantry_model::{At, Principal};
use rusqlite::params;

use super::{Store, damaged, seal, wrong};
use crate::access::Grant;
use crate::error::SchedulerError;

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS access (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    role TEXT,
    revoked INTEGER NOT NULL,
    void INTEGER NOT NULL,
    since INTEGER NOT NULL,
    by TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS user_tokens (
    hash TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    expires INTEGER NOT NULL,
    used INTEGER NOT NULL
);
";

impl Store {
    /// Keeps what somebody's grant has become.
    ///
    /// # Errors
    /// [`SchedulerError::Full`] where the disk is full and nothing was written.
    pub(crate) fn keep_grant(
        &mut self,
        principal: &Principal,
        grant: &Grant,
    ) -> Result<(), SchedulerError> {
        let Grant { role, revoked, void, since, by } = grant;
        let row = params![
            principal.kind(),
            principal.name(),
            role.map(Role::word),
            revoked,
            void.0 as i64,
            since.0 as i64,
            by
        ];
        let insert = "INSERT OR REPLACE INTO access (kind, name, role, revoked, void, since, by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.write(*since, |transaction| {
            seal::check(transaction, "access")?;
            transaction.execute(insert, row).map_err(wrong)?;
            seal::renew(transaction, "access")
        })
    }

    /// Everything that is kept of who has access.
    ///
    /// # Errors
    /// Where a row cannot be read: whom it took access from would have it again.
    pub(crate) fn grants(&self) -> Result<Vec<(Principal, Grant)>, SchedulerError> {
        let select = "SELECT kind, name, role, revoked, void, since, by FROM access";
        let mut select = self.database.prepare(select).map_err(damaged)?;
        let rows = select.query_map([], |row| {
            let (kind, name): (String, String) = (row.get(0)?, row.get(1)?);
            let role: Option<String> = row.get(2)?;
            let (void, since): (i64, i64) = (row.get(4)?, row.get(5)?);
            let grant = Grant {
                role: None,
                revoked: row.get(3)?,
                void: At(void as u64),
                since: At(since as u64),
                by: row.get(6)?,
            };
            Ok((kind, name, role, grant))
        });
        let rows: Vec<_> = rows.and_then(Iterator::collect).map_err(damaged)?;
        rows.into_iter()
            .map(|(kind, name, role, grant)| {
                let principal = match kind.as_str() {
                    "user" => Principal::User(name),
                    "node" => Principal::Node(name),
                    other => {
                        let what =
                            format!("the access table holds a row of unknown kind {other:?}");
                        return Err(SchedulerError::Journal(what));
                    }
                };
                let role = role.map(|word| word.parse()).transpose();
                let role = role.map_err(|reject: gantry_model::Reject| {
                    SchedulerError::Journal(reject.sentence)
                })?;
                Ok((principal, Grant { role, ..grant }))
            })
            .collect()
    }
}
