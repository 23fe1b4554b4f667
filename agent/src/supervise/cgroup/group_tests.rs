//! What is written into the files of a group, in which order, and what is read from them.

use super::*;
use tempfile::TempDir;

const ALL: [Controller; 4] = Controller::ALL;

fn limits(memory: u64, cores: u32, cpu: CpuLimit, pids: Option<u32>) -> Limits {
    Limits { memory: MemoryMib(memory), cores, cpu, pids }
}

#[test]
fn limits_are_what_the_lease_and_the_settings_say_in_this_order() {
    let (weight, hard) = (CpuLimit::Weight, CpuLimit::Hard);
    for (controllers, limits, expected) in [
        (
            &ALL[..],
            limits(4096, 8, hard, Some(100)),
            &[
                ("memory.max", "4294967296"),
                ("memory.high", "4227858432"),
                ("memory.swap.max", "0"),
                ("memory.oom.group", "1"),
                ("cpu.weight", "80"),
                ("cpu.max", "800000 100000"),
                ("pids.max", "100"),
                ("io.weight", "80"),
            ][..],
        ),
        (
            &[Controller::Memory],
            limits(64, 1, weight, Some(100)),
            &[
                ("memory.max", "67108864"),
                ("memory.high", "66060288"),
                ("memory.swap.max", "0"),
                ("memory.oom.group", "1"),
            ],
        ),
        (&[Controller::Memory], limits(0, 1, weight, None), &[]),
        (&[Controller::Cpu], limits(1, 0, hard, None), &[("cpu.weight", "10")]),
        (&[Controller::Cpu], limits(1, 9999, weight, None), &[("cpu.weight", "10000")]),
        (&[Controller::Pids], limits(1, 1, hard, None), &[]),
        (&[], limits(4096, 8, hard, Some(100)), &[]),
    ] {
        let place = Place::of_test(Path::new("/"), controllers);
        let found: Vec<_> = files(&place, &limits);
        let found: Vec<(&str, &str)> =
            found.iter().map(|(name, value, _)| (*name, value.as_str())).collect();
        assert_eq!(found, expected, "{limits:?}");
    }
}

/// A group with these files, and what is to be written there.
fn group(files: &[(&str, &str)]) -> (TempDir, Place) {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let place = Place::of_test(folder.path(), &[Controller::Memory]);
    (folder, place)
}

#[test]
fn what_a_kernel_must_have_is_missed_and_what_it_may_have_is_not() {
    let wanted = limits(64, 1, CpuLimit::Weight, None);
    let (folder, place) =
        group(&[("memory.max", ""), ("memory.high", ""), ("memory.oom.group", "")]);
    limit(folder.path(), &place, &wanted).unwrap();
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(
        (read("memory.max").as_str(), read("memory.high").as_str()),
        ("67108864", "66060288")
    );
    assert_eq!(read("memory.oom.group"), "1");
    assert!(!folder.path().join("memory.swap.max").exists());
    let (folder, place) = group(&[("memory.max", "")]);
    let error = limit(folder.path(), &place, &wanted).unwrap_err().to_string();
    assert!(error.starts_with("writing 66060288 to memory.high failed"), "{error}");
}

#[test]
fn what_the_kernel_has_counted_decides_how_a_try_has_ended() {
    let counted = [
        ("cgroup.kill", ""),
        ("cgroup.events", "populated 0\nfrozen 0\n"),
        ("cpu.stat", "usage_usec 2500000\nuser_usec 1\n"),
        ("memory.peak", "4294967296\n"),
        ("io.stat", "8:0 rbytes=1048576 wbytes=2048 rios=1\n8:16 rbytes=1024 wbytes=0 rios=1\n"),
        ("memory.events", "low 0\nhigh 9\nmax 8\noom 1\noom_kill 2\noom_group_kill 1\n"),
    ];
    let usage = Usage { cpu_ms: 5, memory_peak: MemoryMib(6), read_kib: 7, written_kib: 8 };
    let kernels =
        Usage { cpu_ms: 2500, memory_peak: MemoryMib(4096), read_kib: 1025, written_kib: 2 };
    let over = Exit::OutOfMemory { used: MemoryMib(4096), limit: MemoryMib(4096) };
    let no_kill = &counted[..5];
    for (files, exit, expected) in [
        (&counted[..], Exit::Signal(9), (over.clone(), kernels)),
        (&counted, Exit::Code(137), (over, kernels)),
        (&counted, Exit::Code(0), (Exit::Code(0), kernels)),
        (no_kill, Exit::Signal(9), (Exit::Signal(9), kernels)),
        (&counted[1..2], Exit::Code(3), (Exit::Code(3), usage)),
    ] {
        let (folder, _) = group(files);
        let group = Group { folder: folder.path().into(), limit: MemoryMib(4096) };
        assert_eq!(group.end(exit.clone(), usage), expected, "{exit:?}");
        if files.len() > 1 {
            assert_eq!(fs::read_to_string(folder.path().join("cgroup.kill")).unwrap(), "1");
        }
    }
    let sentence = Exit::OutOfMemory { used: MemoryMib(4090), limit: MemoryMib(4096) }.to_string();
    assert_eq!(sentence, "out of memory: it used 4090M of 4G; ask for more");
}

#[test]
fn a_group_that_does_not_empty_is_left_for_later() {
    let (folder, _) = group(&[("cgroup.events", "populated 1\nfrozen 0\n"), ("cgroup.kill", "")]);
    let begin = Instant::now();
    assert_eq!(end(folder.path()), Left::Processes);
    assert!(begin.elapsed() >= EMPTY_WAIT);
    assert!(folder.path().exists());
}
