//! The GPUs of a driver that says what the test wants (`tests/nvml/fake.c`), and real ones where
//! there are any.

use super::*;
use gantry_model::MemoryMib;
use gantry_telemetry::GpuProcess;
use tempfile::TempDir;

#[path = "../../../tests/nvml/fake.rs"]
mod fake;
use fake::Fake;

/// Fast enough for a test.
const FAST: Pace = Pace {
    read: Duration::from_millis(5),
    retry: Duration::from_millis(5),
    list: Duration::from_millis(50),
    event: Duration::from_millis(50),
};
/// What a test waits for comes long before.
const DEADLINE: Duration = Duration::from_secs(20);

/// A driver and the GPUs that are read from it.
struct Bench {
    fake: Fake,
    gpus: Gpus,
    news: GpuNews,
    _folder: TempDir,
}

impl Bench {
    fn new(said: &str) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let fake = Fake::build(folder.path())?;
        fake.say(said);
        let (gpus, news) = Gpus::start_at(Some(fake.library()), FAST, START_TIMEOUT);
        Some(Self { fake, gpus, news, _folder: folder })
    }

    /// Waits until the samples are as wanted, and gives them.
    fn until(&self, what: &str, is: impl Fn(&[GpuSample]) -> bool) -> Vec<GpuSample> {
        let mut samples = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE {
            samples = self.gpus.samples();
            if is(&samples) {
                return samples;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        panic!("{what} did not come; the last samples are {samples:#?}")
    }

    fn uuids(&self) -> Vec<String> {
        self.gpus.found().unwrap().into_iter().map(|gpu| gpu.uuid).collect()
    }
}

fn gpu(uuid: &str, island: u16) -> Gpu {
    Gpu {
        uuid: uuid.into(),
        name: "Test 9000".into(),
        memory: MemoryMib(80 * 1024),
        island,
        ..Gpu::default()
    }
}

#[test]
fn every_value_is_read_and_what_a_gpu_does_not_have_is_absent() {
    let said = "
        busy 0 930\n memory_busy 0 410\n memory_used 0 71234\n temperature 0 66\n power 0 612345
        power_limit 0 650000\n clock 0 1410\n memory_clock 0 2200\n throttle 0 hw_thermal power_cap
        ecc_corrected 0 12\n ecc_uncorrected 0 3\n rows 0 2\n remap_pending 0\n pcie_replays 0 5
        nvlink_errors 0 77\n encoder 0 250\n decoder 0 120\n process 0 4242 60000\n process 0 17 -
        process 0 99 70000\n unsupported 1 power\n unsupported 1 ecc_corrected\n unsupported 1 rows
        unsupported 1 nvlink_errors\n unsupported 1 process";
    let Some(bench) = Bench::new(said) else { return };
    assert_eq!(bench.gpus.found(), Ok(vec![gpu("GPU-a", 0), gpu("GPU-b", 1)]));
    let is_rated = |samples: &[GpuSample]| samples[0].pcie_sent_kib.is_some();
    let samples = bench.until("PCIe rates", is_rated);
    let process = |pid, memory_mib| GpuProcess { pid, task: None, memory_mib };
    let first = GpuSample {
        lost: false,
        busy_permille: Some(930),
        memory_busy_permille: Some(410),
        memory_used_mib: Some(71_234),
        temperature_c: Some(66),
        power_mw: Some(612_345),
        power_limit_mw: Some(650_000),
        clock_mhz: Some(1410),
        memory_clock_mhz: Some(2200),
        throttle: Some(0x44),
        ecc_corrected: Some(12),
        ecc_uncorrected: Some(3),
        rows_remapped: Some(2),
        remap_pending: Some(true),
        remap_failed: Some(false),
        pcie_sent_kib: Some(0),
        pcie_received_kib: Some(0),
        pcie_replays: Some(5),
        nvlink_errors: Some(77),
        encoder_permille: Some(250),
        decoder_permille: Some(120),
        processes: vec![process(99, Some(70_000)), process(4242, Some(60_000)), process(17, None)],
    };
    assert_eq!(samples[0], first);
    let other = &samples[1];
    assert_eq!(
        (other.power_mw, other.ecc_corrected, other.rows_remapped, other.nvlink_errors),
        (None, None, None, None)
    );
    assert_eq!((other.ecc_uncorrected, other.power_limit_mw), (Some(0), Some(700_000)));
    assert_eq!(other.processes, []);
    assert!(bench.gpus.silent_s().is_some_and(|silent| silent < 5));
}

#[test]
fn what_changes_is_seen() {
    type Case = (&'static str, fn(&GpuSample) -> bool);
    let Some(bench) = Bench::new("gpus 8") else { return };
    let cases: [Case; 6] = [
        ("busy 3 500", |gpu| gpu.busy_permille == Some(500)),
        ("temperature 3 91", |gpu| gpu.temperature_c == Some(91)),
        ("throttle 3 sw_thermal", |gpu| gpu.throttle == Some(0x20)),
        ("ecc_uncorrected 3 1", |gpu| gpu.ecc_uncorrected == Some(1)),
        ("remap_failed 3", |gpu| gpu.remap_failed == Some(true)),
        ("pcie_replays 3 9", |gpu| gpu.pcie_replays == Some(9)),
    ];
    for (said, is) in cases {
        bench.fake.say(said);
        let samples = bench.until(said, |samples| is(&samples[3]));
        assert!(!is(&samples[4]), "{said} is of one GPU");
    }
    // A counter that goes on rising is a rate.
    let kib = std::cell::Cell::new(0_u64);
    bench.until("a rate", |samples| {
        kib.set(kib.get() + 1_000_000);
        bench.fake.say(&format!("pcie_sent 3 {}", kib.get()));
        samples[3].pcie_sent_kib.is_some_and(|rate| rate > 0)
    });
}

#[test]
fn a_divided_gpu_stands_for_its_instances_and_links_make_an_island() {
    let said = "mig 0 0 1g.10gb 10\n mig 0 2 1g.10gb 10\n nvlink 0 1\n memory_used 0 1024
        temperature 0 50\n temperature 1 51\n busy 1 70\n busy 0 930";
    let Some(mut bench) = Bench::new(said) else { return };
    let instance = |uuid: &str| Gpu {
        name: "Test 9000 MIG 1g.10gb".into(),
        memory: MemoryMib(10 * 1024),
        mig: Some("1g.10gb".into()),
        ..gpu(uuid, 0)
    };
    let expected = vec![instance("MIG-a-0"), instance("MIG-a-2"), gpu("GPU-b", 0)];
    assert_eq!(bench.gpus.found(), Ok(expected));
    let samples = bench.until("a reading", |samples| samples[2].busy_permille.is_some());
    let used: Vec<_> = samples
        .iter()
        .map(|one| (one.busy_permille, one.temperature_c, one.memory_used_mib))
        .collect();
    let expected =
        [(None, Some(50), Some(1024)), (None, Some(50), Some(1024)), (Some(70), Some(51), Some(0))];
    assert_eq!(used, expected);
    // An error of a divided GPU counts for each of its instances.
    bench.fake.say("xid 0 43");
    let heard = [bench.news.xids.blocking_recv(), bench.news.xids.blocking_recv()];
    let heard = heard.map(|event| event.map(|event| (event.uuid, event.code)).unwrap());
    assert_eq!(heard, [("MIG-a-0".to_owned(), 43), ("MIG-a-2".to_owned(), 43)]);
    // Divided otherwise.
    bench.fake.take_back("mig 0 0");
    bench.until("one instance less", |samples| samples.len() == 2);
    assert_eq!(bench.uuids(), ["MIG-a-2", "GPU-b"]);
    assert!(bench.news.found.has_changed().unwrap());
}

#[test]
fn a_driver_that_hangs_gives_no_values_and_comes_back() {
    let Some(bench) = Bench::new("busy 0 100") else { return };
    bench.until("a value", |samples| samples[0].busy_permille == Some(100));
    bench.fake.say("hang on\n busy 0 200");
    // What it said last stands for a while, then there is nothing, and its silence has a length.
    let nothing = vec![GpuSample::default(); 2];
    bench.until("silence", |samples| samples == nothing);
    let silent = bench.gpus.silent_s().unwrap();
    assert!(silent >= STALE.as_secs() as u32, "{silent} s");
    assert_eq!(bench.uuids(), ["GPU-a", "GPU-b"], "they are still there");
    bench.fake.take_back("hang");
    bench.until("a value again", |samples| samples[0].busy_permille == Some(200));
    assert!(bench.gpus.silent_s().unwrap() < silent);
}

#[test]
fn a_driver_that_hangs_from_the_start_is_a_reason_until_it_answers() {
    let folder = TempDir::new().unwrap();
    let Some(fake) = Fake::build(folder.path()) else { return };
    fake.say("hang on");
    let (gpus, mut news) =
        Gpus::start_at(Some(fake.library()), FAST, PATIENCE + Duration::from_millis(100));
    assert_eq!(gpus.found(), Err("NVML did not answer within 1 s".into()));
    assert_eq!((gpus.samples(), gpus.silent_s()), (vec![], Some(1)));
    assert!(!news.found.has_changed().unwrap(), "no news yet");
    fake.take_back("hang");
    wait_for(&mut news.found, |found| found.as_ref().is_ok_and(|list| list.len() == 2));
}

#[test]
fn a_lost_gpu_stays_at_its_place() {
    let Some(mut bench) = Bench::new("gpus 4") else { return };
    let all = ["GPU-a", "GPU-b", "GPU-c", "GPU-d"];
    for (lose, find) in [("lost 2", "lost 2"), ("gone 2", "gone 2")] {
        bench.until("all", |samples| samples.iter().all(|one| one.busy_permille.is_some()));
        bench.fake.say(lose);
        let samples = bench.until(lose, |samples| samples[2].lost);
        assert_eq!(samples[2], GpuSample { lost: true, ..GpuSample::default() });
        bench.until("the others", |samples| {
            samples.iter().map(|one| one.lost).eq([false, false, true, false])
        });
        assert_eq!(bench.uuids(), all, "{lose}");
        bench.fake.take_back(find);
        bench.until("it is back", |samples| !samples[2].lost);
        assert_eq!(bench.uuids(), all, "{lose}, and is back");
    }
    assert!(!bench.news.found.has_changed().unwrap(), "nothing was ever listed otherwise");
    // The driver is gone altogether, and comes back with a GPU less.
    bench.fake.say("driver off");
    bench.until("none", |samples| samples.iter().all(|one| one.lost));
    bench.fake.say("driver on\n gpus 3");
    bench.until("three", |samples| {
        samples.iter().map(|one| one.lost).eq([false, false, false, true])
    });
    assert_eq!(bench.uuids(), all);
    // What fell off the bus calls out so, though it cannot say its name.
    for said in ["xid 1 79", "lost 1\n xid 1 79"] {
        bench.fake.say(said);
        let event = bench.news.xids.blocking_recv().unwrap();
        assert_eq!((event.uuid.as_str(), event.code), ("GPU-b", 79));
    }
}

#[test]
fn errors_that_the_driver_calls_out_are_heard() {
    let Some(mut bench) = Bench::new("gpus 8") else { return };
    for (index, letter, code) in [(0, 'a', 13), (7, 'h', 94), (3, 'd', 48), (3, 'd', 48)] {
        bench.fake.say(&format!("xid {index} {code}"));
        let event = bench.news.xids.blocking_recv().unwrap();
        assert_eq!((event.uuid, event.code), (format!("GPU-{letter}"), code));
        assert!(event.at > At(0));
    }
}

#[test]
fn no_driver_is_a_sentence_and_one_that_comes_later_is_news() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("libnvidia-ml.so.1");
    let (gpus, mut news) = Gpus::start_at(Some(&path), FAST, START_TIMEOUT);
    assert_eq!(gpus.found(), Err("no NVIDIA driver (libnvidia-ml is not found)".into()));
    assert_eq!((gpus.samples(), gpus.silent_s()), (vec![], None));
    assert!(!news.found.has_changed().unwrap(), "what is known at the start is no news");
    // Made beside, and put in place at once: half a library is none.
    let beside = folder.path().join("beside");
    std::fs::create_dir(&beside).unwrap();
    let Some(fake) = Fake::build(&beside) else { return };
    std::fs::write(folder.path().join("libnvidia-ml.so.1.state"), "driver off\n").unwrap();
    std::fs::rename(fake.library(), &path).unwrap();
    let not_loaded = Err("NVML failed: NVIDIA driver is not loaded".to_owned());
    wait_for(&mut news.found, |found| *found == not_loaded);
    std::fs::write(folder.path().join("libnvidia-ml.so.1.state"), "gpus 3\n").unwrap();
    wait_for(&mut news.found, |found| found.as_ref().is_ok_and(|list| list.len() == 3));
    assert_eq!(gpus.samples().len(), 3);
}

/// Waits until a piece of news is as wanted.
fn wait_for(news: &mut watch::Receiver<Found>, is: impl Fn(&Found) -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let waited =
        runtime.block_on(async { tokio::time::timeout(DEADLINE, news.wait_for(is)).await.is_ok() });
    assert!(waited, "the last news is {:?}", *news.borrow());
}

/// Asks `nvidia-smi` for some columns of each GPU; nothing where it does not answer.
fn nvidia_smi(columns: &str) -> Option<Vec<Vec<String>>> {
    let mut command = std::process::Command::new("nvidia-smi");
    command.args(["--format=csv,noheader,nounits", &format!("--query-gpu={columns}")]);
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let row = |line: &str| line.split(',').map(|one| one.trim().to_owned()).collect();
    Some(text.lines().map(row).collect())
}

#[test]
fn real_gpus_are_read_as_nvidia_smi_reads_them() {
    let columns = "uuid,name,memory.total,memory.used,temperature.gpu,power.draw,enforced.power.limit,clocks.mem,mig.mode.current";
    let Some(rows) = nvidia_smi(columns).filter(|rows| !rows.is_empty()) else {
        eprintln!("SKIPPED, no real GPU is compared: nvidia-smi does not answer");
        return;
    };
    let (gpus, _news) = Gpus::start_at(None, FAST, START_TIMEOUT);
    let found = gpus.found().unwrap();
    let begun = Instant::now();
    while gpus.samples().iter().any(|one| one.memory_used_mib.is_none()) {
        assert!(begun.elapsed() < DEADLINE, "{:#?}", gpus.samples());
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let near = |ours: u64, theirs: &str, by: f64, what: &str| {
        let Ok(theirs) = theirs.parse::<f64>() else { return };
        assert!((ours as f64 - theirs).abs() <= by, "{what}: {ours} here, {theirs} there");
    };
    for row in rows.iter().filter(|row| row[8] != "Enabled") {
        let at = found.iter().position(|gpu| gpu.uuid == row[0]).expect("it is listed");
        let (gpu, sample) = (&found[at], &gpus.samples()[at]);
        assert_eq!(gpu.name, row[1]);
        near(gpu.memory.0, &row[2], 1.0, "memory");
        near(sample.memory_used_mib.unwrap(), &row[3], 1024.0, "memory in use");
        near(sample.temperature_c.unwrap().into(), &row[4], 10.0, "temperature");
        near(u64::from(sample.power_mw.unwrap_or(0)) / 1000, &row[5], 100.0, "power");
        near(u64::from(sample.power_limit_mw.unwrap_or(0)) / 1000, &row[6], 1.0, "power limit");
        near(sample.memory_clock_mhz.unwrap_or(0).into(), &row[7], 2000.0, "memory clock");
    }
}
