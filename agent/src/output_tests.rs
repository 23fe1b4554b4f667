//! Outputs as they are written, packed, read and searched.

use std::io::Write;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;

struct Bench {
    folder: TempDir,
    outputs: Outputs,
}

const JOB: JobId = JobId(1);

impl Bench {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let outputs = Outputs::new(folder.path().join("output"));
        Self { folder, outputs }
    }

    fn write(&self, index: u32, bytes: &[u8]) {
        let task = JOB.task(index);
        append_to(&self.outputs.path(task)).unwrap().write_all(bytes).unwrap();
    }

    fn finish(&self, index: u32, try_id: u64, hearing: Hearing) {
        finish(&self.outputs, JOB.task(index), TryId(try_id), hearing);
    }

    fn read(&self, index: u32, mut offset: u64) -> Vec<u8> {
        let mut whole = Vec::new();
        loop {
            let piece = self.outputs.piece(JOB.task(index), offset, false).unwrap();
            if piece.bytes.is_empty() {
                return whole;
            }
            offset = piece.next;
            whole.extend(piece.bytes);
        }
    }

    fn text(&self, index: u32) -> String {
        String::from_utf8(self.read(index, 0)).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.outputs.job(JOB)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Changes one byte of a file.
    fn damage(&self, name: &str, at: u64) {
        use std::os::unix::fs::FileExt;
        let path = self.outputs.job(JOB).join(name);
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
    }
}

fn finish(outputs: &Outputs, task: TaskId, try_id: TryId, hearing: Hearing) {
    let length = length(&outputs.path(task));
    outputs.finish(task, try_id, hearing, (length, "")).unwrap();
}

#[test]
fn many_small_outputs_are_two_files_and_read_as_before() {
    let bench = Bench::new();
    for index in 0..500 {
        bench.write(index, format!("task {index}\n").as_bytes());
        bench.finish(index, u64::from(index) + 1, Hearing::First);
    }
    bench.write(500, b"");
    bench.finish(500, 501, Hearing::First);
    assert_eq!(bench.files(), ["index", "pack"]);
    assert!(!bench.outputs.is_synced());
    bench.outputs.sync().unwrap();
    assert!(bench.outputs.is_synced());
    for index in [0, 7, 499] {
        assert_eq!(bench.text(index), format!("task {index}\n"));
    }
    assert_eq!((bench.text(500), bench.text(9999)), (String::new(), String::new()));
}

#[test]
fn the_starts_of_a_task_follow_one_another() {
    let bench = Bench::new();
    let mut whole = Vec::new();
    // Small ones are packed, a long one stays a file, and so does what is not finished yet.
    for (try_id, bytes) in [(1, vec![b'a'; 50_000]), (4, vec![b'b'; 10]), (6, vec![b'c'; 40_000])] {
        bench.write(3, &bytes);
        assert_eq!(bench.read(3, whole.len() as u64), bytes);
        whole.extend(bytes);
        bench.finish(3, try_id, Hearing::First);
    }
    bench.write(3, b"and the present one\n");
    whole.extend(b"and the present one\n");
    assert_eq!(bench.read(3, 0), whole);
    for offset in [49_999, 50_000, 50_005, 50_010, 90_009, 90_010, 90_015, 200_000] {
        let expected = whole.get(offset..).unwrap_or_default();
        assert_eq!(bench.read(3, offset as u64), expected, "from {offset}");
    }
    let last = bench.outputs.piece(JOB.task(3), u64::MAX, true).unwrap();
    assert_eq!((last.bytes.len() as u64, last.next), (LAST_BYTES, whole.len() as u64));
    assert!(last.bytes.ends_with(b"ccc\x61nd the present one\n") && last.live);
    bench.write(3, &vec![b'd'; PACKED_BYTES_MAX as usize]);
    bench.finish(3, 9, Hearing::First);
    assert_eq!(bench.files(), ["3.out", "index", "pack"]);
    assert_eq!(bench.read(3, 0).len(), whole.len() + PACKED_BYTES_MAX as usize);
}

#[test]
fn an_end_that_is_heard_again_is_packed_once() {
    let bench = Bench::new();
    bench.write(0, b"once\n");
    let kept = fs::read(bench.outputs.path(JOB.task(0))).unwrap();
    bench.finish(0, 5, Hearing::First);
    bench.finish(0, 5, Hearing::Again);
    assert_eq!(bench.text(0), "once\n");
    // The agent was killed before the file was gone.
    bench.write(0, &kept);
    let next = Outputs::new(bench.outputs.folder.clone());
    finish(&next, JOB.task(0), TryId(5), Hearing::Again);
    assert_eq!((bench.text(0), bench.files().len()), ("once\n".into(), 2));
    // Killed before it was packed at all.
    bench.write(0, b"twice\n");
    finish(&next, JOB.task(0), TryId(8), Hearing::Again);
    assert_eq!(bench.text(0), "once\ntwice\n");
}

#[test]
fn damage_is_told_and_hides_nothing_else() {
    let bench = Bench::new();
    let long = "x".repeat(99) + "\n";
    for index in 0..4 {
        bench.write(index, format!("{index}{long}").as_bytes());
        bench.finish(index, u64::from(index) + 1, Hearing::First);
    }
    bench.damage("pack", 101);
    let told = bench.text(1);
    assert!(told.starts_with("[101 bytes are damaged on the node's disk]"), "{told}");
    assert_eq!((told.len(), &told[told.len() - 1..]), (101, "\n"));
    assert_eq!(bench.text(2), format!("2{long}"));
    bench.damage("index", 2 * pack::RECORD_BYTES as u64);
    let refused = bench.outputs.piece(JOB.task(2), 0, false).unwrap_err().to_string();
    assert!(refused.contains("1 records of its job's index are damaged"), "{refused}");
    assert_eq!(bench.text(3), format!("3{long}"));
    // A record that was cut: what follows stands where it must.
    let index = bench.outputs.job(JOB).join("index");
    File::options().append(true).open(&index).unwrap().write_all(b"half a record").unwrap();
    let next = Outputs::new(bench.outputs.folder.clone());
    bench.write(7, b"after it\n");
    finish(&next, JOB.task(7), TryId(9), Hearing::First);
    assert_eq!(bench.text(7), "after it\n");
}

#[test]
fn a_search_finds_lines_of_every_task_within_its_limits() {
    let bench = Bench::new();
    bench.write(2, b"one\nloss nan here and nan there\n");
    bench.finish(2, 1, Hearing::First);
    bench.write(2, b"again loss");
    bench.finish(2, 5, Hearing::First);
    bench.write(2, b" nan\r\nthe end: nan");
    bench.write(0, b"all is well\n");
    bench.finish(0, 2, Hearing::First);
    let find = |text: &str| {
        let (lines, more) = bench.outputs.search(JOB, text).unwrap();
        let lines = lines.into_iter().map(|one| (one.task.index, one.line, one.text));
        (lines.collect::<Vec<_>>(), more)
    };
    let expected = [
        (2, 2, "loss nan here and nan there".to_owned()),
        (2, 3, "again loss nan".to_owned()),
        (2, 4, "the end: nan".to_owned()),
    ];
    assert_eq!(find("nan"), (expected.to_vec(), false));
    assert_eq!(find("well"), (vec![(0, 1, "all is well".into())], false));
    assert_eq!(find("nowhere"), (Vec::new(), false));
    assert_eq!(
        find("one\nloss").0.len(),
        1,
        "a text with a line's end is told with its first line"
    );
    assert!(bench.outputs.search(JOB, "").is_err());
    assert_eq!(bench.outputs.search(JobId(9), "x").unwrap(), (Vec::new(), false));
    bench.write(5, "nan ".repeat(500).as_bytes());
    assert_eq!(find("nan").0[3].2.chars().count(), 300);
    bench.write(6, "a nan\n".repeat(1000).as_bytes());
    let (lines, more) = find("nan");
    assert_eq!((lines.len(), more), (200, true));
    let (job, task) = (JobId(2), JobId(2).task(0));
    append_to(&bench.outputs.path(task)).unwrap();
    fs::write(bench.outputs.path(task), ("ä".repeat(400) + "\n").repeat(150)).unwrap();
    let (lines, more) = bench.outputs.search(job, "ä").unwrap();
    assert!(more && lines.iter().map(|one| one.text.len()).sum::<usize>() <= 32 * 1024);
}

#[test]
fn an_output_that_its_job_named_stays_there_and_is_read_from_there() {
    let bench = Bench::new();
    let task = JOB.task(3);
    let file = bench.folder.path().join("shared/j1-3.txt");
    for start in 1..=2 {
        bench.outputs.send_to(task, &file, RunAs::Agent).unwrap();
        append_to(&bench.outputs.path(task)).unwrap().write_all(b"hello\n").unwrap();
        let length = length(&bench.outputs.path(task));
        bench.outputs.finish(task, TryId(start), Hearing::First, (length, "")).unwrap();
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "hello\nhello\n");
    let piece = bench.outputs.piece(task, 0, false).unwrap();
    assert_eq!(piece.bytes, b"hello\nhello\n");
}

#[test]
fn old_outputs_go_but_for_those_of_live_jobs_and_files_of_the_jobs_own() {
    let bench = Bench::new();
    let (live, named) = (JobId(2), JobId(3));
    bench.write(0, b"old\n");
    bench.finish(0, 1, Hearing::First);
    append_to(&bench.outputs.path(live.task(0))).unwrap().write_all(b"live\n").unwrap();
    let own = bench.folder.path().join("own.txt");
    bench.outputs.send_to(named.task(0), &own, RunAs::Agent).unwrap();
    fs::write(&own, b"of the job\n").unwrap();
    let day = Duration::from_hours(24);
    let put_aside = |now| bench.outputs.put_aside(day, now, &[live].into()).unwrap();

    assert!(put_aside(SystemTime::now()).is_empty(), "nothing is old yet");
    assert!(put_aside(SystemTime::UNIX_EPOCH).is_empty(), "a clock that was set back");
    let mut old = put_aside(SystemTime::now() + 2 * day);
    old.sort();
    assert_eq!(old, [JOB, named]);
    bench.outputs.remove().unwrap();
    bench.outputs.remove().unwrap();
    for (task, offset) in [(JOB.task(0), 0), (JOB.task(7), u64::MAX), (named.task(0), 0)] {
        let refused = bench.outputs.piece(task, offset, false).unwrap_err().sentence;
        assert!(refused.contains("no longer on its node"), "{refused}");
    }
    // One that has not printed yet, and newer jobs, which may have printed nothing.
    for (task, runs) in [(JOB.task(0), true), (JobId(4).task(0), false)] {
        assert_eq!(bench.outputs.piece(task, 0, runs).unwrap().bytes, b"");
    }
    assert_eq!(fs::read(&own).unwrap(), b"of the job\n");
    let left = fs::read_dir(bench.folder.path().join("output")).unwrap();
    let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["j2", "removed-to"]);
    assert!(bench.outputs.path(live.task(0)).exists());

    // The job's output begins anew where it runs again.
    bench.write(1, b"new\n");
    bench.finish(1, 2, Hearing::First);
    assert_eq!(bench.text(1), "new\n");
}
