//! Who is heard, what each role may do, and what is written down of it, over real QUIC.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::path::Path;
use std::time::Duration;

use gantry_config::SchedulerSettings;
use gantry_link::{
    Authority, Identity, IdentityKind, LinkError, Session, Term, connect, join, join_user, renew,
};
use gantry_model::access::Role;
use gantry_model::{Action, At, JobId, Millis, Order, Principal, RejectKind};
use gantry_wire::{
    AuditQuery, AuditRow, Output, Peer, Reply, Request, SchedulerMessage, Scope, Update,
};
use support::{Daemon, agent, ask, cluster, console, joined, settings, start, submit};
use tempfile::TempDir;
use tokio::task::JoinSet;

async fn user_token(console: &Session, user: &str, role: Role) -> String {
    match ask(console, Request::UserToken { user: user.into(), role }).await {
        Reply::Token(token) => token,
        other => panic!("{other:?}"),
    }
}

/// A person with this role, and the connection of a console of theirs.
async fn person(first: &Session, daemon: &Daemon, user: &str, role: Role) -> (Identity, Session) {
    let token = user_token(first, user, role).await;
    let identity = join_user(daemon.address, &token, user).await.unwrap();
    let session = connect(daemon.address, &identity, Peer::Console).await.unwrap();
    (identity, session)
}

async fn refused(session: &Session, request: Request) -> String {
    match ask(session, request).await {
        Reply::Refused(reject) => {
            assert_eq!(reject.kind, RejectKind::Forbidden, "{reject}");
            reject.sentence
        }
        other => panic!("{other:?}"),
    }
}

async fn audit(session: &Session, query: AuditQuery) -> Vec<AuditRow> {
    match ask(session, Request::Audit { query }).await {
        Reply::Audit(page) => page.rows,
        other => panic!("{other:?}"),
    }
}

fn cancel(job: u64) -> Request {
    Request::Cancel { job: JobId(job), indices: None }
}

fn user(name: &str) -> Principal {
    Principal::User(name.into())
}

#[tokio::test]
async fn each_role_does_what_it_may_and_every_refusal_is_written_down() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let first = console(folder.path(), &daemon).await;
    let (_, viewer) = person(&first, &daemon, "vera", Role::Viewer).await;
    let (_, ada) = person(&first, &daemon, "ada", Role::User).await;
    let (_, grace) = person(&first, &daemon, "grace", Role::User).await;
    let (_, olga) = person(&first, &daemon, "olga", Role::Operator).await;
    assert_eq!(ask(&ada, submit("k")).await, Reply::Submitted(JobId(1)));
    assert_eq!(ask(&grace, submit("k")).await, Reply::Submitted(JobId(2)));

    let sentence = refused(&viewer, cancel(1)).await;
    assert!(sentence.contains("vera is a viewer") && sentence.contains("ada's"), "{sentence}");
    let sentence = refused(&grace, cancel(1)).await;
    assert!(sentence.contains("gantry access grant grace operator"), "{sentence}");
    refused(&viewer, submit("k")).await;
    let hold = Action::Hold { job: JobId(1), indices: None };
    refused(&grace, Request::Act(hold.clone())).await;
    assert!(matches!(ask(&ada, Request::Act(hold)).await, Reply::Acted(1)));
    assert!(matches!(ask(&ada, cancel(1)).await, Reply::Cancelled(1)));
    assert!(matches!(ask(&olga, cancel(2)).await, Reply::Cancelled(1)));
    let drain = Action::Drain { node: "cpu-1".into(), reason: "DOE^JANE".into(), deadline: None };
    refused(&ada, Request::Act(drain.clone())).await;
    assert!(
        matches!(ask(&olga, Request::Act(drain)).await, Reply::Refused(reject) if reject.kind == RejectKind::NotFound)
    );
    refused(&olga, Request::Token { node: "cpu-1".into() }).await;
    refused(&olga, Request::Grant { user: "olga".into(), role: Role::Administrator }).await;
    refused(&ada, Request::Audit { query: AuditQuery::default() }).await;
    for reads in [&viewer, &ada, &olga] {
        for request in
            [Request::Nodes { after: None }, Request::Job { job: JobId(1) }, Request::Status]
        {
            let reply = ask(reads, request).await;
            assert!(!matches!(reply, Reply::Refused(_)), "{reply:?}");
        }
    }
    // A job that nobody knows is not one's own, whoever makes it in a moment.
    let Reply::Refused(reject) = ask(&ada, cancel(99)).await else { panic!() };
    assert_eq!(reject.kind, RejectKind::NotFound);

    let rows = audit(&olga, AuditQuery::default()).await;
    let told = |row: &AuditRow| {
        let answer = if row.refused { "no" } else { "yes" };
        format!("{} {} {} {} {}", row.who, row.role, row.what, row.whom, answer)
    };
    let lines: Vec<String> = rows.iter().map(told).collect();
    for line in [
        "operator administrator token user vera yes",
        "  join user vera yes",
        "ada user submit j1 yes",
        "vera viewer cancel j1 no",
        "grace user cancel j1 no",
        "vera viewer submit  no",
        "grace user hold j1 no",
        "ada user hold j1 yes",
        "ada user cancel j1 yes",
        "olga operator cancel j2 yes",
        "ada user drain node cpu-1 no",
        "olga operator drain node cpu-1 no",
        "olga operator token node cpu-1 no",
        "olga operator grant user olga no",
        "ada user audit  no",
        "ada user cancel j99 no",
    ] {
        assert_eq!(
            lines.iter().filter(|one| *one == line).count(),
            1,
            "{line} in\n{}",
            lines.join("\n")
        );
    }
    assert_eq!(
        lines.iter().filter(|line| line.contains("nodes")).count(),
        0,
        "questions have no line"
    );
    assert!(rows.iter().all(|row| row.from == "127.0.0.1"));
    let text = format!("{rows:?}");
    assert!(!text.contains("DOE^JANE") && !text.contains("true\""), "{text}");
    let only =
        audit(&olga, AuditQuery { who: Some("grace".into()), ..AuditQuery::default() }).await;
    assert_eq!(only.len(), 3);
    let Reply::Verified(report) = ask(&olga, Request::VerifyAudit).await else { panic!() };
    assert_eq!((report.broken, report.last), (None, rows.len() as u64));
    daemon.stop().await;
}

#[tokio::test]
async fn a_role_that_is_changed_holds_at_once_and_on_open_connections() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let first = console(folder.path(), &daemon).await;
    let (_, ada) = person(&first, &daemon, "ada", Role::Viewer).await;
    refused(&ada, submit("k")).await;
    let Reply::Access { rows, more: false } = ask(&ada, Request::Access { after: None }).await
    else {
        panic!()
    };
    assert_eq!(rows.len(), 1, "a viewer sees itself");
    assert_eq!((rows[0].role, rows[0].connections), (Some(Role::Viewer), 1));
    let grant = |role| Request::Grant { user: "ada".into(), role };
    assert!(matches!(ask(&first, grant(Role::User)).await, Reply::Access { .. }));
    assert_eq!(ask(&ada, submit("k")).await, Reply::Submitted(JobId(1)));
    ask(&first, grant(Role::Viewer)).await;
    refused(&ada, submit("l")).await;
    let Reply::Refused(reject) =
        ask(&first, Request::Grant { user: "adda".into(), role: Role::User }).await
    else {
        panic!()
    };
    assert!(reject.sentence.contains("not known"), "{reject}");
    let Reply::Access { rows, .. } = ask(&first, Request::Access { after: None }).await else {
        panic!()
    };
    let names: Vec<&str> = rows.iter().map(|row| row.principal.name()).collect();
    assert_eq!(names, ["ada", "operator"]);
    daemon.stop().await;
    // And over a restart.
    let daemon = start(folder.path(), settings()).await;
    let first = console(folder.path(), &daemon).await;
    let Reply::Access { rows, .. } = ask(&first, Request::Access { after: None }).await else {
        panic!()
    };
    assert_eq!(rows[0].role, Some(Role::Viewer));
    daemon.stop().await;
}

#[tokio::test]
async fn what_tasks_print_is_for_their_owner_and_for_operators() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let first = console(folder.path(), &daemon).await;
    let (_, ada) = person(&first, &daemon, "ada", Role::User).await;
    let (_, grace) = person(&first, &daemon, "grace", Role::User).await;
    let identity = joined(&first, daemon.address, "cpu-1").await;
    let mut node = agent(&daemon, &identity, &[]).await;
    ask(&ada, submit("k")).await;
    loop {
        let message = node.receiver.expect().await.unwrap();
        if matches!(message, SchedulerMessage::Order(Order::Launch(_))) {
            break;
        }
    }
    let connection = node.connection.clone();
    tokio::spawn(async move {
        while let Some((mut sender, mut receiver)) = connection.accept().await {
            let _ = receiver.expect::<gantry_wire::NodeRequest>().await;
            let output = Output { bytes: b"secret".to_vec(), next: 6, live: true };
            sender.send(&gantry_wire::NodeReply::Output(output)).await.unwrap();
            sender.delivered().await;
        }
    });
    let logs = Request::Output { task: JobId(1).task(0), offset: 0 };
    for reads in [&ada, &first] {
        assert!(matches!(ask(reads, logs.clone()).await, Reply::Output(_)));
    }
    let sentence = refused(&grace, logs).await;
    assert!(sentence.contains("logs of j1, which is ada's"), "{sentence}");
    refused(&grace, Request::Search { job: JobId(1), text: "s".into() }).await;
    // The picture of a job holds the end of its output, and grace's does not.
    let picture = |session: Session| async move {
        let (mut sender, mut receiver) = session.connection.open().await.unwrap();
        sender.send(&Request::Watch { scope: Scope::Job(JobId(1)) }).await.unwrap();
        let mut shown = Update::default();
        shown.take(receiver.expect().await.unwrap()).unwrap();
        shown
    };
    let (hers, others) = (picture(ada).await, picture(grace).await);
    assert_eq!(hers.output.unwrap().bytes, b"secret");
    assert_eq!((others.output, others.jobs.len()), (None, 1));
    daemon.stop().await;
}

#[tokio::test]
async fn access_that_is_taken_away_ends_at_once_and_stays_away() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let first = console(folder.path(), &daemon).await;
    let (identity, ada) = person(&first, &daemon, "ada", Role::User).await;
    let other_token = user_token(&first, "ada", Role::User).await;
    let node = joined(&first, daemon.address, "cpu-1").await;
    let session = agent(&daemon, &node, &[]).await;
    for (principal, connection) in
        [(user("ada"), &ada.connection), (Principal::Node("cpu-1".into()), &session.connection)]
    {
        let Reply::Access { rows, .. } = ask(&first, Request::Revoke { principal }).await else {
            panic!()
        };
        assert!(rows[0].revoked);
        let closed = tokio::time::timeout(Duration::from_secs(5), connection.closed()).await;
        let reason = closed.unwrap();
        assert!(reason.contains("taken away by operator"), "{reason}");
    }
    let turned_away = |error: LinkError, part: &str| {
        assert!(
            matches!(&error, LinkError::Refused(reject) if reject.sentence.contains(part)),
            "{error}"
        );
    };
    let again = "an administrator can let it in again";
    turned_away(connect(daemon.address, &identity, Peer::Console).await.unwrap_err(), again);
    turned_away(connect(daemon.address, &node, Peer::Agent).await.unwrap_err(), again);
    turned_away(renew(daemon.address, &identity).await.unwrap_err(), again);
    // A token that was out is worth nothing any more.
    let error = join_user(daemon.address, &other_token, "ada").await.unwrap_err();
    turned_away(error, "not known");
    let rows = audit(
        &first,
        AuditQuery { who: Some("ada".into()), refused: true, ..AuditQuery::default() },
    )
    .await;
    assert!(rows.len() >= 2 && rows.iter().all(|row| row.what == "connect"), "{rows:?}");
    daemon.stop().await;

    let daemon = start(folder.path(), settings()).await;
    let first = console(folder.path(), &daemon).await;
    turned_away(connect(daemon.address, &identity, Peer::Console).await.unwrap_err(), again);
    // Let in again, the old certificates stay what they are.
    let (_, ada) = person(&first, &daemon, "ada", Role::Viewer).await;
    let node_again = joined(&first, daemon.address, "cpu-1").await;
    turned_away(
        connect(daemon.address, &identity, Peer::Console).await.unwrap_err(),
        "from before",
    );
    turned_away(renew(daemon.address, &node).await.unwrap_err(), "from before");
    assert!(!matches!(ask(&ada, Request::Status).await, Reply::Refused(_)));
    connect(daemon.address, &node_again, Peer::Agent).await.unwrap();
    // Nobody is left out: the last administrator stays.
    let last = Request::Revoke { principal: user("operator") };
    let Reply::Refused(reject) = ask(&first, last).await else { panic!() };
    assert!(reject.sentence.contains("last administrator"), "{reject}");
    daemon.stop().await;
}

/// Somebody signed by the authority of this folder, who counts from then on for an hour.
fn signed(folder: &Path, kind: IdentityKind, name: &str, from: At) -> Identity {
    let authority = Authority::load(folder).unwrap();
    let term = Term { from, valid: Millis::from_seconds(3600) };
    authority.issue_for(kind, name, term).unwrap()
}

fn now() -> At {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    At(since.as_millis() as u64)
}

fn ago(hours: u64) -> At {
    At(now().0 - hours * 3_600_000)
}

#[tokio::test]
async fn no_certificate_that_does_not_count_is_heard() {
    let folder = cluster();
    let settings =
        SchedulerSettings { certificate_grace: Millis::from_seconds(10 * 3600), ..settings() };
    let daemon = start(folder.path(), settings).await;
    let first = console(folder.path(), &daemon).await;
    user_token(&first, "ada", Role::User).await;
    let elsewhere = TempDir::new().unwrap();
    gantry_scheduler::init(elsewhere.path(), "other").unwrap();
    let (own, other) = (folder.path(), elsewhere.path());
    let (user, node) = (IdentityKind::User, IdentityKind::Agent);
    // A key of one's own below the certificate of another.
    let stolen = {
        let mixed = TempDir::new().unwrap();
        signed(own, user, "ada", now()).save(mixed.path(), "ada").unwrap();
        signed(own, user, "eve", now()).save(mixed.path(), "eve").unwrap();
        std::fs::copy(mixed.path().join("eve.key"), mixed.path().join("ada.key")).unwrap();
        Identity::load(mixed.path(), "ada").unwrap_err().to_string()
    };
    assert!(stolen.contains("does not belong"), "{stolen}");
    for (what, identity, peer, part) in [
        ("a user as an agent", signed(own, user, "ada", now()), Peer::Agent, "kind agent"),
        ("an agent as a user", signed(own, node, "cpu-1", now()), Peer::Console, "a person's"),
        ("a scheduler", signed(own, IdentityKind::Scheduler, "s", now()), Peer::Renewing, ""),
        ("a joining user", signed(own, user, "ada", now()), Peer::JoiningUser, "no certificate"),
        ("no role", signed(own, user, "eve", now()), Peer::Console, "no role"),
        ("no role, to renew", signed(own, user, "eve", now()), Peer::Renewing, "no role"),
        ("ended", signed(own, user, "ada", ago(2)), Peer::Console, "ended 1h"),
        ("an agent that ended", signed(own, node, "cpu-1", ago(9)), Peer::Agent, "ended 8h"),
        ("ended long ago", signed(own, user, "ada", ago(12)), Peer::Console, ""),
        ("ended too long ago to renew", signed(own, user, "ada", ago(12)), Peer::Renewing, ""),
        ("not yet", signed(own, user, "ada", At(now().0 + 48 * 3_600_000)), Peer::Console, ""),
        ("foreign", signed(other, user, "ada", now()), Peer::Console, ""),
        ("foreign, to renew", signed(other, user, "ada", now()), Peer::Renewing, ""),
    ] {
        let error = connect(daemon.address, &identity, peer).await.unwrap_err();
        let expected = matches!(error, LinkError::Refused(_) | LinkError::Connect { .. });
        assert!(expected && error.to_string().contains(part), "{what}: {error}");
    }
    // What has ended within the grace can be renewed, and counts again.
    let renewed = renew(daemon.address, &signed(own, user, "ada", ago(2))).await.unwrap();
    let session = connect(daemon.address, &renewed, Peer::Console).await.unwrap();
    assert!(!matches!(ask(&session, Request::Status).await, Reply::Refused(_)));
    // The name stays, whatever was asked.
    assert_eq!(renewed.name().unwrap(), "ada");
    let lines = audit(&first, AuditQuery { refused: true, ..AuditQuery::default() }).await;
    assert!(lines.iter().filter(|row| row.what == "connect").count() >= 10, "{lines:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_clock_that_is_off_by_minutes_locks_nobody_out() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let first = console(folder.path(), &daemon).await;
    user_token(&first, "ada", Role::User).await;
    let minutes = 10 * 60_000;
    for made in [now().0 + minutes, now().0 - minutes] {
        let identity = signed(folder.path(), IdentityKind::User, "ada", At(made));
        connect(daemon.address, &identity, Peer::Console).await.unwrap();
        let identity = signed(folder.path(), IdentityKind::Agent, "cpu-1", At(made));
        connect(daemon.address, &identity, Peer::Agent).await.unwrap();
        renew(daemon.address, &identity).await.unwrap();
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_token_gives_one_certificate_however_many_show_it_and_a_guess_none() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let first = console(folder.path(), &daemon).await;
    let token = user_token(&first, "ada", Role::User).await;
    // For a node, for another person, and for a node of a person's name.
    assert!(join(daemon.address, &token, "ada").await.is_err());
    assert!(join_user(daemon.address, &token, "eve").await.is_err());
    let mut attempts = JoinSet::new();
    for _ in 0..100 {
        let (address, token) = (daemon.address, token.clone());
        attempts.spawn(async move { join_user(address, &token, "ada").await });
    }
    let joined = attempts.join_all().await;
    assert_eq!(joined.iter().filter(|one| one.is_ok()).count(), 1, "a token is used once");
    let used = |error: &LinkError| error.to_string().contains("used already");
    assert_eq!(joined.iter().filter(|one| one.as_ref().is_err_and(used)).count(), 99);
    // Guesses: the authority is right, the secret is not.
    let (authority, _) = token.split_once('.').unwrap();
    let mut refusals = (0, 0);
    for n in 0..40 {
        let guess = format!("{authority}.{n:032x}");
        let error = join_user(daemon.address, &guess, "ada").await.unwrap_err().to_string();
        if error.contains("not known") {
            refusals.0 += 1;
        } else {
            assert!(error.contains("wait a minute"), "{error}");
            refusals.1 += 1;
        }
    }
    assert!(refusals.0 <= 10 && refusals.1 >= 30, "{refusals:?}");
    let lines = audit(&first, AuditQuery { refused: true, ..AuditQuery::default() }).await;
    let guesses = lines.iter().filter(|row| row.why == "the token is not known").count();
    assert!((1..=10).contains(&guesses), "{guesses}: a flood of guesses is no flood of lines");
    daemon.stop().await;
}

#[tokio::test]
async fn whoever_calls_in_vain_keeps_nobody_else_from_joining_at_its_address() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let first = console(folder.path(), &daemon).await;
    let (revoked, _) = person(&first, &daemon, "eve", Role::User).await;
    let principal = Principal::User("eve".into());
    ask(&first, Request::Revoke { principal }).await;
    let foreign = cluster();
    let foreign = Identity::load(foreign.path(), "operator").unwrap();
    for _ in 0..20 {
        assert!(connect(daemon.address, &revoked, Peer::Console).await.is_err());
        assert!(connect(daemon.address, &foreign, Peer::Console).await.is_err());
    }
    person(&first, &daemon, "ada", Role::User).await;
    let lines = audit(&first, AuditQuery { refused: true, ..AuditQuery::default() }).await;
    assert!((1..=10).contains(&lines.len()), "{}: a flood is no flood of lines", lines.len());
    daemon.stop().await;
}

#[tokio::test]
async fn a_token_that_has_expired_is_refused() {
    let folder = cluster();
    let settings = SchedulerSettings { token_valid: Millis(0), ..settings() };
    let daemon = start(folder.path(), settings).await;
    let first = console(folder.path(), &daemon).await;
    let token = user_token(&first, "ada", Role::User).await;
    // The scheduler's clock goes on between two requests.
    while join_user(daemon.address, &token, "eve")
        .await
        .is_err_and(|error| !error.to_string().contains("expired"))
    {}
    let error = join_user(daemon.address, &token, "ada").await.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    daemon.stop().await;
}

#[tokio::test]
async fn an_audit_log_that_was_changed_is_told_at_the_next_start() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let first = console(folder.path(), &daemon).await;
    for key in ["a", "b", "c"] {
        ask(&first, submit(key)).await;
    }
    daemon.stop().await;
    let path = folder.path().join("audit-000000000001.log");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"whom\":\"j2\"", "\"whom\":\"j9\"", 1)).unwrap();
    let report = gantry_scheduler::verify_audit(folder.path()).unwrap();
    assert_eq!(report.broken.map(|(line, _)| line), Some(2));
    let daemon = start(folder.path(), settings()).await;
    let first = console(folder.path(), &daemon).await;
    ask(&first, submit("d")).await;
    let Reply::Verified(report) = ask(&first, Request::VerifyAudit).await else { panic!() };
    assert_eq!(report.broken.map(|(line, _)| line), Some(2), "it is not forgotten");
    let query = gantry_wire::NoteQuery { text: Some("audit log".into()), ..Default::default() };
    let Reply::Notes(page) = ask(&first, Request::Notes { query }).await else { panic!() };
    assert_eq!(page.rows.len(), 1, "{page:?}");
    daemon.stop().await;
}
