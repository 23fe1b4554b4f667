//! `gantry access`: who may do what; `list`, `grant`, `revoke` and `token`.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use gantry_model::access::Role;
use gantry_model::{At, Principal};
use gantry_wire::{AccessRow, AuthorityState, AuthorityStep, Reply, Request};
use serde_json::{Value, json};

use super::client::{Client, Reach, unexpected};
use super::time;
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// `gantry access`.
#[derive(Debug, Args)]
pub struct Access {
    #[command(subcommand)]
    verb: Verb,
}

/// What to do with access.
#[derive(Debug, Subcommand)]
enum Verb {
    /// List people and nodes with access, with roles and open connections; of your own without more
    /// rights.
    List,
    /// Give a person who has access another role; it holds at once.
    Grant {
        /// The person.
        #[arg(value_name = "NAME")]
        user: String,
        /// viewer, user, operator or administrator.
        #[arg(value_parser = roles())]
        role: Role,
    },
    /// Take access away: live connections are closed, and no certificate that there is counts any more.
    Revoke {
        /// The person, or the node with --node.
        name: String,
        /// It is a node's access.
        #[arg(long)]
        node: bool,
    },
    /// Make a token with which a person gets an identity on another host, within 15 minutes.
    Token {
        /// The person.
        #[arg(value_name = "NAME")]
        user: String,
        /// viewer, user, operator or administrator; it holds from now on.
        #[arg(long, value_parser = roles())]
        role: Role,
    },
    /// Show the cluster's authority, or rotate it: make the next one now, and give the one before up a day
    /// later, once all have certificates of the next.
    Authority {
        /// Make the authority that follows; the one before still counts.
        #[arg(long, group = "step")]
        rotate: bool,
        /// Give the authority before up; refused while somebody would be locked out by it.
        #[arg(long, group = "step")]
        finish: bool,
        /// With --finish: lock out who has no certificate of the new one; they join again with a token.
        #[arg(long, requires = "finish")]
        anyway: bool,
    },
}

/// Roles by their words, which a shell completes and a mistake gets the nearest of.
fn roles() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::ALL.map(Role::word)).try_map(|word| word.parse::<Role>())
}

impl Access {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the scheduler is not there or refuses.
    pub fn run(self, cluster: Reach, format: Format) -> Outcome {
        match self.verb {
            Verb::List => list(cluster, format),
            Verb::Grant { user, role } => {
                let say = |row: &AccessRow| {
                    format!("{} is {} now", row.principal.name(), role.with_article())
                };
                change(&Request::Grant { user, role }, "granted", say, cluster, format)
            }
            Verb::Revoke { name, node } => {
                let principal = if node { Principal::Node(name) } else { Principal::User(name) };
                let say =
                    |row: &AccessRow| format!("the access of {} is taken away", row.principal);
                change(&Request::Revoke { principal }, "revoked", say, cluster, format)
            }
            Verb::Token { user, role } => token(cluster, user, role, format),
            Verb::Authority { rotate, finish, anyway } => {
                let step = match (rotate, finish, anyway) {
                    (true, ..) => Some(AuthorityStep::Rotate),
                    (_, true, false) => Some(AuthorityStep::Finish),
                    (_, true, true) => Some(AuthorityStep::FinishAnyway),
                    _ => None,
                };
                authority(cluster, step, format)
            }
        }
    }
}

fn list(cluster: Reach, format: Format) -> Outcome {
    let client = Client::connect(cluster)?;
    let mut rows: Vec<AccessRow> = Vec::new();
    loop {
        let after = rows.last().map(|row| row.principal.clone());
        let reply = client.ask(&Request::Access { after })?;
        let Reply::Access { rows: page, more } = reply else { return Err(unexpected(&reply)) };
        // A page without rows has nothing behind it, whatever it says.
        let more = more && !page.is_empty();
        rows.extend(page);
        if !more {
            break;
        }
    }
    let value: Vec<Value> = rows.iter().map(row_value).collect();
    let names = || rows.iter().map(|row| row.principal.name()).collect::<Vec<_>>().join("\n");
    format.print("access", &value, || table(&rows), names)?;
    Ok(0)
}

fn change(
    request: &Request,
    kind: &str,
    say: impl Fn(&AccessRow) -> String,
    cluster: Reach,
    format: Format,
) -> Outcome {
    let reply = Client::connect(cluster)?.ask(request)?;
    let Reply::Access { rows, .. } = &reply else { return Err(unexpected(&reply)) };
    let row = rows.first().ok_or_else(|| Failure::trouble("the scheduler answered with nobody"))?;
    format.print(
        kind,
        &row_value(row),
        || output::clean(&say(row)),
        || row.principal.name().to_owned(),
    )?;
    Ok(0)
}

fn token(cluster: Reach, user: String, role: Role, format: Format) -> Outcome {
    let reply = Client::connect(cluster)?.ask(&Request::UserToken { user, role })?;
    let Reply::Token(token) = reply else { return Err(unexpected(&reply)) };
    format.print("token", &json!({ "token": token }), || token.clone(), || token.clone())?;
    Ok(0)
}

fn authority(cluster: Reach, step: Option<AuthorityStep>, format: Format) -> Outcome {
    let reply = Client::connect(cluster)?.ask(&Request::Authority { step })?;
    let Reply::Authority(state) = reply else { return Err(unexpected(&reply)) };
    let names = |who: &[Principal]| who.iter().map(Principal::to_string).collect::<Vec<_>>();
    let value = json!({
        "fingerprint": state.fingerprint,
        "rotating_since_ms": state.since.map(|at| at.0),
        "behind": names(&state.behind),
        "behind_count": state.behind_count,
        "unseen": names(&state.unseen),
        "unseen_count": state.unseen_count,
    });
    format.print("authority", &value, || told(&state), || state.fingerprint.clone())?;
    Ok(0)
}

/// The state of the authority, for people.
fn told(state: &AuthorityState) -> String {
    let mut lines = vec![format!("fingerprint {}", state.fingerprint)];
    let Some(since) = state.since else { return lines.remove(0) };
    lines.push(format!(
        "rotated {}; the authority before still counts",
        time::clock(since, time::now())
    ));
    let mut wanting = |what: &str, who: &[Principal], count: u32| {
        if count > 0 {
            let more = (count as usize).saturating_sub(who.len());
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            let names: Vec<String> =
                who.iter().map(|one| output::clean(&one.to_string())).collect();
            lines.push(format!("{what}: {}{more}", names.join(", ")));
        }
    };
    wanting("not renewed yet", &state.behind, state.behind_count);
    wanting("not called since", &state.unseen, state.unseen_count);
    lines.push(match state.behind_count + state.unseen_count {
        0 => "all have certificates of the new one; next: gantry access authority --finish".into(),
        _ => "agents renew within a day, people with their next command; then: gantry access authority --finish".into(),
    });
    lines.join("\n")
}

fn role_word(row: &AccessRow) -> &'static str {
    match (row.revoked, row.role) {
        (true, _) => "revoked",
        (false, Some(role)) => role.word(),
        (false, None) => "agent",
    }
}

fn row_value(row: &AccessRow) -> Value {
    json!({
        "name": row.principal.name(),
        "kind": row.principal.kind(),
        "role": role_word(row),
        "revoked": row.revoked,
        "since_ms": row.since.0,
        "by": row.by,
        "connections": row.connections,
    })
}

fn table(rows: &[AccessRow]) -> String {
    if rows.is_empty() {
        return "nobody is known here by your name".into();
    }
    let row = |row: &AccessRow| {
        let always = row.since == At(0);
        vec![
            row.principal.name().to_owned(),
            row.principal.kind().to_owned(),
            role_word(row).to_owned(),
            if always { "the beginning".to_owned() } else { time::stamp(row.since) },
            row.by.clone(),
            row.connections.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
    output::table(&["NAME", "KIND", "ROLE", "SINCE", "BY", "CONNECTIONS"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_say_who_may_what_since_when() {
        let row = |principal, role, revoked, since| AccessRow {
            principal,
            role,
            revoked,
            since: At(since),
            by: "operator".into(),
            connections: 2,
        };
        let rows = [
            row(Principal::User("ada\u{1b}".into()), Some(Role::Viewer), false, 0),
            row(Principal::User("grace".into()), None, true, 1),
            row(Principal::Node("cpu-1".into()), None, false, 1),
        ];
        let table = table(&rows);
        let lines: Vec<&str> = table.lines().collect();
        for (line, parts) in [
            (1, ["ada␛", "user", "viewer", "the beginning"]),
            (2, ["grace", "user", "revoked", "operator"]),
            (3, ["cpu-1", "node", "agent", "2"]),
        ] {
            assert!(parts.iter().all(|part| lines[line].contains(part)), "{}", lines[line]);
        }
        assert_eq!(row_value(&rows[1])["role"], "revoked");
    }
}
