//! A library with many writers, under kill -9, and on a full disk.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use gantry_library::{
    Arrival, InstanceKey, Library, LibraryError, PredictionDraft, Source, Stored,
};
use support::{key, model, prediction, sample, store};
use tempfile::TempDir;

const FOLDER: &str = "GANTRY_TEST_FOLDER";
const WRITER: &str = "GANTRY_TEST_WRITER";
const FIRST: &str = "GANTRY_TEST_FIRST";
/// Processes that write at once.
const WRITERS: u64 = 3;
/// Times that all of them are started and killed.
const ROUNDS: u64 = 16;
/// Instances of each series in a batch.
const BATCH: u64 = 8;

fn bytes_of(series: &str, instance: u64) -> Vec<u8> {
    format!("{series} {instance}").into_bytes()
}

/// Not a test of its own: the body of the processes that the next test kills. Each writes the series
/// that all write and one that is its own, and the first also what tasks write, for ever.
#[test]
fn write_until_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let own = std::env::var(WRITER).unwrap();
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let library = Library::open_or_create(Path::new(&folder)).unwrap();
    for batch in first.. {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        let all: Vec<(&str, u64)> =
            numbers.flat_map(|number| [("1.1", number), (&own, number)]).collect();
        let made: Vec<(InstanceKey, Vec<u8>)> = all
            .iter()
            .map(|(series, number)| (key(series, *number), bytes_of(series, *number)))
            .collect();
        let arrivals: Vec<Arrival> =
            made.iter().map(|(key, bytes)| Arrival::new(key, &Source::Import, bytes)).collect();
        let stored = library.store_batch(&arrivals).unwrap();
        assert!(stored.iter().all(|stored| *stored != Stored::Conflict));
        for (series, number) in all {
            println!("\nstored {series} {number}");
        }
        if own != "2.0" {
            continue;
        }
        let mask = bytes_of(&own, batch);
        println!("\nsample {}", library.add_sample(sample(&library, &own, &mask)).unwrap());
        let model = library.publish_model(model(&own)).unwrap();
        let draft = PredictionDraft { mask, ..prediction(&library, &own, &model, &[1.0]) };
        println!("\nprediction {}", library.add_prediction(draft).unwrap());
    }
}

fn writer(folder: &Path, number: u64, round: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "write_until_killed", "--nocapture"])
        .env(FOLDER, folder)
        .env(WRITER, format!("2.{number}"))
        // No later round puts right what an earlier one left.
        .env(FIRST, (1000 * round).to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a process acknowledges until it is killed, some time after so many lines: wherever it is
/// in its work by then.
fn kill_after(mut child: Child, lines_min: usize, pause: Duration) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let kinds = ["stored ", "sample ", "prediction "];
    for line in lines.filter(|line| kinds.iter().any(|kind| line.starts_with(kind))) {
        acknowledged.insert(line);
        if acknowledged.len() == lines_min {
            std::thread::sleep(pause);
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success(), "it ended before it was killed");
    acknowledged
}

/// Makes everything that a library keeps older than any writer takes.
fn age(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            age(&path);
        } else {
            let long_ago = SystemTime::now() - Duration::from_hours(48);
            File::open(path).unwrap().set_modified(long_ago).unwrap();
        }
    }
}

/// Not a test of its own either: a writer that keeps an object and is killed before it names it.
#[test]
fn keep_an_object_until_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let library = Library::open(Path::new(&folder)).unwrap();
    let own = std::env::var(WRITER).unwrap();
    library.put_object(own.as_bytes()).unwrap();
    println!("\nkept");
    std::io::stdin().read_exact(&mut [0]).unwrap();
    unreachable!("it is killed before");
}

#[test]
fn a_sweep_removes_what_killed_writers_left_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let acknowledged = one_round(folder.path(), 0).len();
    assert!(acknowledged > 200, "{acknowledged}");
    let library = Library::open(folder.path()).unwrap();
    let storm = library.verify().unwrap();
    assert!(storm.damage.is_empty(), "{storm:?}");
    for writer in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "keep_an_object_until_killed", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(WRITER, format!("left by {writer}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.into_iter().any(|line| line == "kept"));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // One was killed while it wrote, and one has only begun.
    std::fs::write(folder.path().join("objects/.part-1"), b"half").unwrap();
    age(folder.path());
    let young = library.put_object(b"its writer is at work").unwrap();
    let before = library.verify().unwrap();
    assert!(before.damage.is_empty(), "{before:?}");
    assert_eq!(before.unnamed, storm.unnamed + 5);

    let found = library.find_leftovers(Duration::from_hours(24)).unwrap();
    assert_eq!((found.unnamed.len() as u64, found.young.count), (storm.unnamed + 4, 1));
    assert!(found.temporary.iter().any(|one| one.place.ends_with("objects/.part-1")));
    assert_eq!(library.verify().unwrap(), before, "looking changes nothing");
    let removed = library.remove_leftovers(&found).unwrap();
    assert_eq!((removed.objects.count, removed.spared), (storm.unnamed + 4, 0));
    assert_eq!(removed.temporary.count, found.temporary.len() as u64);
    let after = library.verify().unwrap();
    assert!(after.damage.is_empty(), "{after:?}");
    assert_eq!((after.records, after.unnamed), (before.records, 1));
    assert_eq!(after.objects, before.objects - removed.objects.count);
    assert!(library.read_object(&young).is_ok());
    let left = Command::new("find").arg(folder.path()).args(["-name", ".part-*"]).output().unwrap();
    assert!(left.stdout.is_empty(), "{}", String::from_utf8_lossy(&left.stdout));
}

/// Writers keep what is there already and old, and name it, while sweeps remove what nobody names.
#[test]
fn sweeps_take_nothing_from_writers_at_work() {
    const OBJECTS: u64 = 40;
    let folder = TempDir::new().unwrap();
    let library = Library::create(folder.path()).unwrap();
    store(&library, "1.1", 0, b"a series");
    let mask = |number: u64| format!("mask {number}").into_bytes();
    let mut swept = 0;
    for round in 0..6 {
        for number in 0..OBJECTS {
            library.put_object(&mask(round * OBJECTS + number)).unwrap();
        }
        age(folder.path());
        swept += std::thread::scope(|scope| {
            let writers: Vec<_> = (0..2)
                .map(|half| {
                    let library = library.clone();
                    scope.spawn(move || {
                        for number in (half..OBJECTS).step_by(2) {
                            let mask = mask(round * OBJECTS + number);
                            library.add_sample(sample(&library, "1.1", &mask)).unwrap();
                        }
                    })
                })
                .collect();
            let mut removed = 0;
            loop {
                let found = library.find_leftovers(Duration::from_hours(24)).unwrap();
                removed += library.remove_leftovers(&found).unwrap().objects.count;
                if writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                    break removed;
                }
            }
        });
        let report = library.verify().unwrap();
        assert!(report.damage.is_empty(), "round {round}: {report:?}");
        assert_eq!(report.unnamed, 0);
    }
    assert_eq!(library.counts().unwrap().samples, 6 * OBJECTS);
    assert!(swept > 0, "no sweep came before a writer");
}

fn one_round(folder: &Path, round: u64) -> BTreeSet<String> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WRITERS)
            .map(|number| {
                let child = writer(folder, number, round);
                // A batch takes some 15 ms; the pauses are spread over it.
                let pause = Duration::from_micros(307 * (WRITERS * round + number));
                scope.spawn(move || kill_after(child, 150, pause))
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn what_was_acknowledged_before_kill_9_is_there_and_the_library_is_whole() {
    let folder = TempDir::new().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        acknowledged.extend(one_round(folder.path(), round));
    }
    let library = Library::open(folder.path()).unwrap();
    let report = library.verify().unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    let samples = library.samples().unwrap().into_iter().map(|one| format!("sample {}", one.id));
    let predictions =
        library.predictions().unwrap().into_iter().map(|one| format!("prediction {}", one.id));
    let there: BTreeSet<String> = samples.chain(predictions).collect();
    let mut instances = 0;
    for line in &acknowledged {
        let words: Vec<&str> = line.split(' ').collect();
        let &["stored", series, number] = &words[..] else {
            assert!(there.contains(line), "{line} is lost");
            continue;
        };
        instances += 1;
        let number = number.parse().unwrap();
        let again = store(&library, series, number, &bytes_of(series, number));
        assert_eq!(again, Stored::Same, "{line} is lost");
    }
    assert!(instances >= 2000, "only {instances} were acknowledged");
    assert!(acknowledged.len() > instances + 50);
}

#[test]
fn many_writers_at_once_agree() {
    let folder = TempDir::new().unwrap();
    let results: Vec<Stored> = std::thread::scope(|scope| {
        let write = |_| {
            scope.spawn(|| {
                let library = Library::open_or_create(folder.path()).unwrap();
                (0..25).map(|n| store(&library, "1.1", n, &[n as u8])).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..8).map(write).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|stored| **stored == Stored::New).count(), 25);
    assert!(results.iter().all(|stored| *stored != Stored::Conflict));
    let library = Library::open(folder.path()).unwrap();
    assert!(library.verify().unwrap().damage.is_empty());
    assert_eq!(library.counts().unwrap().instances, 25);
}

/// A small file system of its own, taken away again also when a test fails.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: &Path, limit: &str) -> Option<Self> {
        let output =
            Command::new("mount").args(["-t", "tmpfs", "-o", limit, "tmpfs"]).arg(at).output();
        if output.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        // Past the test harness, which shows nothing of a test that passes.
        let sentence = "SKIPPED: a full disk needs the right to mount a small tmpfs\n";
        std::io::stderr().write_all(sentence.as_bytes()).unwrap();
        None
    }

    fn assert_whole(&self, library: &Library) {
        let report = library.verify().unwrap();
        assert!(report.damage.is_empty(), "{report:?}");
        let left = Command::new("find").arg(&self.0).args(["-name", ".part-*"]).output().unwrap();
        assert!(left.stdout.is_empty(), "a temporary file stays and takes space");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_stores_nothing_by_halves() {
    let folder = TempDir::new().unwrap();
    let Some(mounted) = Mounted::new(folder.path(), "size=1m") else { return };
    let library = Library::create(&mounted.0).unwrap();
    let mut stored = 0;
    let error = loop {
        let bytes = vec![stored as u8; 100_000];
        match library.store_instance(&key("1.1", stored), &Source::Import, &bytes) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "the disk was never full");
    };
    assert!(matches!(error, LibraryError::StorageFull { .. }), "{error}");
    assert!(error.to_string().contains("no space is left"), "{error}");
    assert_eq!(library.counts().unwrap().instances, stored, "the last one is not there");
    mounted.assert_whole(&library);
}

/// A tmpfs counts every name as an inode: with one inode more each time, the disk is full at every
/// step in turn, also between a file that is written and the name that it gets.
#[test]
fn a_disk_that_is_full_at_any_step_keeps_the_library_whole() {
    let mut refused = 0;
    for inodes in 4..40 {
        let folder = TempDir::new().unwrap();
        let Some(mounted) = Mounted::new(folder.path(), &format!("nr_inodes={inodes}")) else {
            return;
        };
        let library = match Library::create(&mounted.0) {
            Ok(library) => library,
            Err(LibraryError::StorageFull { .. }) => continue,
            Err(error) => panic!("{error}"),
        };
        if let Err(error) = store_two_and_a_sample(&library) {
            assert!(matches!(error, LibraryError::StorageFull { .. }), "{inodes}: {error}");
            refused += 1;
        }
        mounted.assert_whole(&library);
    }
    assert!(refused > 10, "the disk was full {refused} times");
}

fn store_two_and_a_sample(library: &Library) -> Result<(), LibraryError> {
    let keys = [key("1.1", 1), key("1.1", 2)];
    let arrivals: Vec<Arrival> = keys
        .iter()
        .map(|key| Arrival::new(key, &Source::Import, key.sop_instance_uid.as_bytes()))
        .collect();
    library.store_batch(&arrivals)?;
    library.add_sample(sample(library, "1.1", b"mask")).map(|_| ())
}

#[test]
fn a_watermark_refuses_before_the_disk_is_full() {
    let folder = TempDir::new().unwrap();
    let library = Library::create(folder.path()).unwrap();
    let guarded = library.clone().with_free_min_mib(u64::MAX);
    let source = Source::Import;
    for error in [
        guarded.put_object(b"x").unwrap_err(),
        guarded.store_instance(&key("1.1", 0), &source, b"x").unwrap_err(),
        guarded.quarantine(b"x", "not-dicom", "no preamble", &source).unwrap_err(),
    ] {
        assert!(matches!(error, LibraryError::StorageFull { .. }), "{error}");
        assert!(error.to_string().contains("must stay free"), "{error}");
    }
    assert_eq!(library.counts().unwrap(), gantry_library::Counts::default());
    library.with_free_min_mib(1).store_instance(&key("1.1", 0), &source, b"x").unwrap();
}
