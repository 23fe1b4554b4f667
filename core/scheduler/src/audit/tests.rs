//! The audit log under damage, restarts, a full file and many writers.

use std::fs;

use tempfile::TempDir;

use super::files::verify as look;
use super::*;

const SMALL: Limits = Limits { file_bytes: 2000, files: 3 };

fn entry(n: u64) -> Entry {
    Entry {
        at: At(n),
        who: if n.is_multiple_of(2) { "ada".into() } else { "grace".into() },
        role: "viewer".into(),
        from: "10.0.0.1".into(),
        whom: format!("j{n}"),
        refused: n.is_multiple_of(3),
        why: "forbidden \"so\"".into(),
        ..Entry::new(At(n), "cancel")
    }
}

fn written(folder: &Path, limits: Limits, count: u64) -> Log {
    let (mut log, wrong) = Log::open(folder, limits).unwrap();
    assert_eq!(wrong, None);
    for n in 1..=count {
        log.append(vec![entry(n)]).unwrap();
    }
    log
}

fn broken(folder: &Path, limits: Limits) -> Option<u64> {
    look(folder, None, limits).unwrap().broken.map(|(line, _)| line)
}

fn only_file(folder: &Path) -> PathBuf {
    folder.join("audit-000000000001.log")
}

#[test]
fn every_byte_that_is_flipped_is_found_and_its_line_named() {
    let folder = TempDir::new().unwrap();
    written(folder.path(), Limits::default(), 4);
    let path = only_file(folder.path());
    let good = fs::read(&path).unwrap();
    let mut line = 1;
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            fs::write(&path, &bad).unwrap();
            assert_eq!(broken(folder.path(), Limits::default()), Some(line), "bit {bit} of {at}");
        }
        line += u64::from(good[at] == b'\n');
    }
    fs::write(&path, &good).unwrap();
    assert_eq!(broken(folder.path(), Limits::default()), None);
    let head = folder.path().join("audit.head");
    let good = fs::read(&head).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&head, &bad).unwrap();
        // A head of an earlier line that is there is told from its hash.
        assert!(broken(folder.path(), Limits::default()).is_some(), "byte {at} of the head");
    }
}

#[test]
fn lines_that_are_removed_swapped_repeated_or_put_in_are_found() {
    let folder = TempDir::new().unwrap();
    written(folder.path(), Limits::default(), 6);
    let path = only_file(folder.path());
    let good = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let mut harm: Vec<(Vec<&str>, u64)> = Vec::new();
    for n in 0..6 {
        let mut removed = lines.clone();
        removed.remove(n);
        harm.push((removed, n as u64 + 1));
        let mut repeated = lines.clone();
        repeated.insert(n, lines[n]);
        harm.push((repeated, n as u64 + 2));
        for other in n + 1..6 {
            let mut swapped = lines.clone();
            swapped.swap(n, other);
            harm.push((swapped, n as u64 + 1));
        }
        harm.push((lines[..n].to_vec(), n as u64 + 1));
    }
    for (bad, line) in harm {
        let text = bad.join("\n") + if bad.is_empty() { "" } else { "\n" };
        fs::write(&path, &text).unwrap();
        let found = broken(folder.path(), Limits::default());
        // What is repeated behind the newest line was written by nobody, and answered to nobody.
        assert!(found == Some(line) || (line == 7 && found.is_none()), "{found:?} {line}\n{text}");
    }
    // Lines that were made anew, each with a hash of its own, do not lead to the head.
    let other = TempDir::new().unwrap();
    let (mut log, _) = Log::open(other.path(), Limits::default()).unwrap();
    log.append((1..=6).map(|n| entry(n + 100)).collect()).unwrap();
    fs::copy(only_file(other.path()), &path).unwrap();
    assert_eq!(broken(folder.path(), Limits::default()), Some(6));
    // And some of them do not follow the others.
    let forged = fs::read_to_string(only_file(other.path())).unwrap();
    let rest: Vec<&str> = forged.lines().skip(2).collect();
    fs::write(&path, [&lines[..2], &rest, &[""]].concat().join("\n")).unwrap();
    assert_eq!(broken(folder.path(), Limits::default()), Some(3));
    fs::remove_file(&path).unwrap();
    assert!(broken(folder.path(), Limits::default()).is_some(), "all of it is gone");
}

#[test]
fn files_follow_each_other_the_oldest_go_and_the_chain_holds() {
    let folder = TempDir::new().unwrap();
    for round in 0..10 {
        let (mut log, wrong) = Log::open(folder.path(), SMALL).unwrap();
        assert_eq!(wrong, None, "round {round}");
        for n in 1..=9 {
            log.append(vec![entry(round * 9 + n)]).unwrap();
        }
    }
    let report = look(folder.path(), None, SMALL).unwrap();
    assert_eq!((report.broken, report.last), (None, 90));
    let mut files: Vec<PathBuf> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    files.sort();
    assert_eq!(files.len(), SMALL.files);
    assert!(report.first > 40, "{}", report.first);
    assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() < 3000));
    // A whole file that is missing is missed, whichever it is.
    for file in &files {
        let kept = fs::read(file).unwrap();
        fs::remove_file(file).unwrap();
        assert!(broken(folder.path(), SMALL).is_some(), "{}", file.display());
        fs::write(file, kept).unwrap();
    }
    // Pages go back through all of them.
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = files::page(folder.path(), &AuditQuery { before, ..AuditQuery::default() });
        let page = page.unwrap();
        seen.extend(page.rows.iter().rev().map(|row| row.number));
        before = Some(page.first);
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, (report.first..=90).rev().collect::<Vec<_>>());
}

#[test]
fn a_question_gets_the_lines_it_asks_for() {
    let folder = TempDir::new().unwrap();
    written(folder.path(), Limits::default(), 12);
    for (query, expected) in [
        (AuditQuery::default(), (1..=12).collect::<Vec<u64>>()),
        (AuditQuery { who: Some("ada".into()), ..AuditQuery::default() }, vec![2, 4, 6, 8, 10, 12]),
        (AuditQuery { refused: true, ..AuditQuery::default() }, vec![3, 6, 9, 12]),
        (
            AuditQuery { from: Some(At(4)), until: Some(At(7)), ..AuditQuery::default() },
            vec![4, 5, 6],
        ),
        (AuditQuery { before: Some(3), ..AuditQuery::default() }, vec![1, 2]),
        (AuditQuery { who: Some("nobody".into()), ..AuditQuery::default() }, vec![]),
    ] {
        let page = files::page(folder.path(), &query).unwrap();
        let numbers: Vec<u64> = page.rows.iter().map(|row| row.number).collect();
        assert_eq!((numbers, page.more), (expected, false), "{query:?}");
    }
    let page = files::page(folder.path(), &AuditQuery::default()).unwrap();
    let row = &page.rows[2];
    assert_eq!((row.who.as_str(), row.what.as_str(), row.whom.as_str()), ("grace", "cancel", "j3"));
    assert_eq!((row.refused, row.why.as_str()), (true, "forbidden \"so\""));
}

#[test]
fn a_crash_within_a_line_costs_only_what_was_answered_to_nobody() {
    let folder = TempDir::new().unwrap();
    written(folder.path(), Limits::default(), 3);
    let path = only_file(folder.path());
    let before = fs::read(&path).unwrap();
    let head = fs::read(folder.path().join("audit.head")).unwrap();
    let (mut log, _) = Log::open(folder.path(), Limits::default()).unwrap();
    log.append(vec![entry(4), entry(5)]).unwrap();
    drop(log);
    let after = fs::read(&path).unwrap();
    for cut in before.len()..=after.len() {
        // The head is written last, so a crash leaves the one before.
        fs::write(&path, &after[..cut]).unwrap();
        fs::write(folder.path().join("audit.head"), &head).unwrap();
        let (mut log, wrong) = Log::open(folder.path(), Limits::default()).unwrap();
        assert_eq!(wrong, None, "cut at {cut}");
        log.append(vec![entry(9)]).unwrap();
        drop(log);
        let report = look(folder.path(), None, Limits::default()).unwrap();
        assert_eq!(report.broken, None, "cut at {cut}");
        assert!((4..=6).contains(&report.last), "{}", report.last);
    }
}

#[test]
fn a_log_that_was_changed_while_the_scheduler_was_away_is_told_and_left_as_it_is() {
    for harm in ["cut", "flip", "head", "gone"] {
        let folder = TempDir::new().unwrap();
        written(folder.path(), Limits::default(), 3);
        let path = only_file(folder.path());
        let good = fs::read(&path).unwrap();
        match harm {
            "cut" => fs::write(&path, &good[..good.len() - 10]).unwrap(),
            "flip" => {
                let mut bad = good.clone();
                bad[20] ^= 1;
                fs::write(&path, bad).unwrap();
            }
            "head" => fs::remove_file(folder.path().join("audit.head")).unwrap(),
            _ => fs::remove_file(&path).unwrap(),
        }
        let evidence = fs::read(&path).ok();
        let (mut log, wrong) = Log::open(folder.path(), Limits::default()).unwrap();
        assert!(wrong.is_some(), "{harm}");
        log.append(vec![entry(9)]).unwrap();
        drop(log);
        assert_eq!(fs::read(&path).ok(), evidence, "{harm}");
        assert!(broken(folder.path(), Limits::default()).is_some(), "{harm} is forgotten");
        // The scheduler that follows says nothing new.
        let (_, wrong) = Log::open(folder.path(), Limits::default()).unwrap();
        assert_eq!(wrong, None, "{harm}");
    }
}

#[tokio::test]
async fn many_at_once_get_one_chain_and_each_its_line() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().unwrap();
    let (audit, wrong) = Audit::start(folder.path()).unwrap();
    assert_eq!(wrong, None);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 1..=500 {
        let audit = audit.clone();
        tasks.spawn(async move {
            audit.ready().await.unwrap();
            audit.record(entry(n)).await;
        });
    }
    tasks.join_all().await;
    let report = audit.verify().await.unwrap();
    assert_eq!((report.first, report.last, report.broken), (1, 500, None));
    assert_eq!(verify(folder.path()).unwrap().head, report.head, "from outside, while it is open");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (log, head) = (only_file(folder.path()), folder.path().join("audit.head"));
    assert_eq!((mode(log), mode(head)), (0o600, 0o600));
}
