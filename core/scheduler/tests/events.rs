//! The event log of a daemon over real QUIC: what is asked for, followed, kept and let go.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_link::Session;
use gantry_model::{Action, At, JobChange, JobId, JobSpec, Level, Subject, Work};
use gantry_wire::{NotePage, NotePlace, NoteQuery, NoteRow, Reply, Request};
use support::ask;
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Changes that are asked for at once.
const AT_ONCE: u64 = 50;

/// A scheduler and a console that its tests share.
struct Daemon {
    daemon: support::Daemon,
    session: Arc<Session>,
}

impl Daemon {
    async fn start(folder: &Path) -> Self {
        let daemon = support::start(folder, support::settings()).await;
        let session = support::console(folder, &daemon).await;
        Self { daemon, session: Arc::new(session) }
    }

    async fn stop(self) {
        self.daemon.stop().await;
    }
}

async fn page(session: &Session, query: &NoteQuery, place: NotePlace) -> NotePage {
    let query = NoteQuery { place, ..query.clone() };
    match ask(session, Request::Notes { query }).await {
        Reply::Notes(page) => page,
        other => panic!("{other:?}"),
    }
}

/// Every line, from the end back.
async fn all(session: &Session, query: &NoteQuery) -> Vec<NoteRow> {
    let mut found = page(session, query, NotePlace::Newest).await;
    let mut rows = std::mem::take(&mut found.rows);
    while found.more {
        found = page(session, query, NotePlace::Before(found.first)).await;
        rows.splice(0..0, std::mem::take(&mut found.rows));
    }
    rows
}

async fn submit(session: &Session) {
    let work = Work::Command { arguments: vec!["true".into()], folder: None };
    let spec = Box::new(JobSpec::new("job", work));
    let reply = ask(session, Request::Submit { key: "k".into(), spec }).await;
    assert_eq!(reply, Reply::Submitted(JobId(1)));
}

/// Changes a job again and again, which gives a line each time.
async fn changes(session: &Arc<Session>, count: u64) {
    for _ in 0..count / AT_ONCE {
        let mut asked = JoinSet::new();
        for priority in 0..AT_ONCE as i32 {
            let session = session.clone();
            let change = JobChange { priority: Some(priority), ..JobChange::default() };
            let action = Action::Change { job: JobId(1), indices: None, change };
            asked.spawn(async move { ask(&session, Request::Act(action)).await });
        }
        for reply in asked.join_all().await {
            assert!(matches!(reply, Reply::Acted(_)), "{reply:?}");
        }
    }
}

fn numbers(rows: &[NoteRow]) -> Vec<u64> {
    rows.iter().map(|row| row.number).collect()
}

#[tokio::test]
async fn lines_of_an_earlier_life_are_there_and_whoever_follows_misses_none() {
    let folder = TempDir::new().unwrap();
    gantry_scheduler::init(folder.path(), "test").unwrap();
    let daemon = Daemon::start(folder.path()).await;
    submit(&daemon.session).await;
    for node in ["cpu-1", "cpu-2"] {
        let reply = ask(&daemon.session, Request::Token { node: node.into() }).await;
        assert!(matches!(reply, Reply::Token(_)));
    }
    changes(&daemon.session, AT_ONCE).await;
    let everything = NoteQuery::default();
    let before = all(&daemon.session, &everything).await;
    assert!(before.len() >= 4, "{before:?}");
    let last = page(&daemon.session, &everything, NotePlace::Newest).await.last;
    daemon.stop().await;

    let daemon = Daemon::start(folder.path()).await;
    changes(&daemon.session, AT_ONCE).await;
    let after = all(&daemon.session, &everything).await;
    assert_eq!(after[..before.len()], before, "they are the same, with the same numbers");
    let behind = page(&daemon.session, &everything, NotePlace::Behind(last)).await;
    assert_eq!(behind.rows, after[before.len()..], "what followed, and nothing else");
    assert!(!behind.rows.is_empty());

    let about = |subject| NoteQuery { subject: Some(subject), ..NoteQuery::default() };
    for (query, least) in [
        (about(Subject::Node("cpu-2".into())), 1),
        (about(Subject::Job(JobId(1))), 2),
        (NoteQuery { text: Some("token".into()), ..NoteQuery::default() }, 2),
        (NoteQuery { from: Some(At(0)), least: Some(Level::Note), ..NoteQuery::default() }, 4),
        (NoteQuery { until: Some(At(1)), ..NoteQuery::default() }, 0),
        (about(Subject::Node("cpu-9".into())), 0),
    ] {
        let found = all(&daemon.session, &query).await;
        assert_eq!(found.len().min(least), least, "{query:?}: {found:?}");
        assert!(least > 0 || found.is_empty(), "{query:?}: {found:?}");
    }
    let query = NoteQuery { text: Some(String::new()), ..NoteQuery::default() };
    let Reply::Refused(reject) = ask(&daemon.session, Request::Notes { query }).await else {
        panic!()
    };
    assert!(reject.sentence.contains("bytes of text"), "{reject}");
    daemon.stop().await;
}

#[tokio::test]
async fn five_thousand_lines_come_page_by_page_and_the_oldest_go() {
    let folder = TempDir::new().unwrap();
    gantry_scheduler::init(folder.path(), "test").unwrap();
    let daemon = Daemon::start(folder.path()).await;
    submit(&daemon.session).await;
    let done = Arc::new(AtomicBool::new(false));
    let follower = tokio::spawn({
        let (session, done) = (daemon.session.clone(), done.clone());
        async move {
            let (mut seen, mut last) = (Vec::new(), 0);
            loop {
                // Read first: what was written before it is then in the pages that follow.
                let ending = done.load(Ordering::Acquire);
                let found = page(&session, &NoteQuery::default(), NotePlace::Behind(last)).await;
                (seen, last) = ([seen, found.rows].concat(), found.last);
                if ending && !found.more {
                    return seen;
                }
            }
        }
    });
    changes(&daemon.session, 5000).await;
    let written = page(&daemon.session, &NoteQuery::default(), NotePlace::Newest).await.last;
    assert!(written >= 5000, "{written}");
    done.store(true, Ordering::Release);
    let rows = all(&daemon.session, &NoteQuery::default()).await;
    assert_eq!(numbers(&rows), (1..=written).collect::<Vec<_>>());
    assert!(rows.windows(2).all(|two| two[0].note.at <= two[1].note.at));
    assert_eq!(follower.await.unwrap(), rows, "each line once, in order, while it was written");

    std::fs::write(folder.path().join("scheduler.toml"), "events_kept = 1000\n").unwrap();
    let reply = ask(&daemon.session, Request::Reload).await;
    assert!(matches!(reply, Reply::Reloaded(_)), "{reply:?}");
    changes(&daemon.session, 1000).await;
    let rows = all(&daemon.session, &NoteQuery::default()).await;
    let newest = rows.last().unwrap().number;
    assert_eq!(numbers(&rows), (newest - 999..=newest).collect::<Vec<_>>());
    assert!(newest > written);
    daemon.stop().await;
}
