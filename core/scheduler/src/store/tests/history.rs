//! What the history answers, and for how long.

use gantry_model::{
    At, JobId, JobRow, JobState, Level, MemoryMib, Millis, Note, Spent, Subject, TaskCounts,
};
use gantry_wire::{HistoryQuery, UseBy};
use tempfile::TempDir;

use super::super::{Retention, Store};

#[test]
fn the_history_answers_by_user_group_and_time() {
    let folder = TempDir::new().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    let row = |id: u64, user: &str, group: Option<&str>, ended: u64, state: JobState| JobRow {
        job: JobId(id),
        user: user.into(),
        group: group.map(Into::into),
        kind: "train".into(),
        ended: Some(At(ended)),
        state,
        tasks: TaskCounts { done: 2, ..TaskCounts::default() },
        spent: Spent {
            core_ms: 10 * id,
            gpu_ms: id,
            cpu_ms: 1,
            memory_peak: MemoryMib(id),
            read_kib: 2 * id,
            written_kib: 3 * id,
        },
        ..JobRow::default()
    };
    let rows = [
        row(1, "ada", Some("lab"), 1_000, JobState::Done),
        row(2, "ada", None, 2_000, JobState::Fail),
        row(3, "bob", Some("lab"), 90_000_000, JobState::Done),
    ];
    store.keep_after(&rows, &[], At(0)).unwrap();
    store.keep_after(&rows[1..], &[], At(0)).unwrap();
    let all = HistoryQuery::default;
    for (query, expected) in [
        (all(), vec![3, 2, 1]),
        (HistoryQuery { user: Some("ada".into()), ..all() }, vec![2, 1]),
        (HistoryQuery { group: Some("lab".into()), ..all() }, vec![3, 1]),
        (HistoryQuery { from: Some(At(1_500)), until: Some(At(3_000)), ..all() }, vec![2]),
        (HistoryQuery { before: Some(JobId(2)), ..all() }, vec![1]),
    ] {
        let (rows, more) = store.history(&query, 10).unwrap();
        let ids: Vec<u64> = rows.iter().map(|row| row.job.0).collect();
        assert_eq!((ids, more), (expected, false), "{query:?}");
    }
    let (page, more) = store.history(&all(), 2).unwrap();
    assert_eq!((page.len(), more), (2, true));
    let count = |store: &Store| store.history(&all(), 10).unwrap().0.len();
    store.retain(Retention { history: Millis(90_000_000), ..Retention::default() });
    let line = |sentence: &str| Note {
        at: At(0),
        level: Level::Info,
        subject: Subject::Cluster,
        sentence: sentence.into(),
    };
    for (now, left) in [(90_001_000, 3), (90_001_001, 2), (200_000_000, 0)] {
        store.keep_after(&[], &[line("something happened")], At(now)).unwrap();
        assert_eq!(count(&store), left, "at {now}");
    }
    store.retain(Retention::default());
    store.keep_after(&rows, &[], At(200_000_000)).unwrap();
    assert_eq!(count(&store), 3, "all are kept where nothing is said");
    let kinds = store.sum_use(UseBy::Kind, At(0), At(u64::MAX)).unwrap();
    assert_eq!((kinds[0].spent.read_kib, kinds[0].spent.written_kib), (12, 18));
    for (by, expected) in [
        (UseBy::User, vec![("bob", 1, 0, 30), ("ada", 2, 1, 30)]),
        (UseBy::Group, vec![("lab", 2, 0, 40), ("ada", 1, 1, 20)]),
        (UseBy::Kind, vec![("train", 3, 1, 60)]),
        (UseBy::Day, vec![("1970-01-01", 2, 1, 30), ("1970-01-02", 1, 0, 30)]),
    ] {
        let sums = store.sum_use(by, At(0), At(u64::MAX)).unwrap();
        let mut sums: Vec<(&str, u64, u64, u64)> = sums
            .iter()
            .map(|row| (row.name.as_str(), row.jobs, row.failed, row.spent.core_ms))
            .collect();
        let mut expected = expected;
        if by == UseBy::User {
            sums.sort_unstable();
            expected.sort_unstable();
        }
        assert_eq!(sums, expected, "{by:?}");
    }
}
