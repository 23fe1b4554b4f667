//! Job files as people write them, and what they get wrong.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Write;

use gantry_config::jobs::{FILE_BYTES_MAX, FILE_JOBS_MAX, JobFile};
use gantry_model::{
    DependencyKind, DependencyScope, Gang, GpuDemand, GpuPart, JobId, MemoryMib, Millis,
    Preemption, Resources, Sharing, Work,
};

fn parse(text: &str) -> JobFile {
    JobFile::parse("jobs.toml", text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn mistake(text: &str) -> String {
    JobFile::parse("jobs.toml", text).unwrap_err().to_string()
}

/// A file with every key of a job.
const EVERY_KEY: &str = r#"
[defaults]
memory = "2G"
environment = { SITE = "north", SEED = 1 }
retries = 3

[[job]]
name = "report"
script = "cat *.json | sort > report"
after = [{ job = "train", kind = "any" }, "fail:j7"]
time = 60
hold = true

[[job]]
name = "prepare"
command = ["prepare", "--fast"]
folder = "/data"
cores = 4
memory = 512
scratch = "10G"
array = "0-99%10"
label = ["nvme", "site=north"]
licence = { matlab = 2 }
environment = { SEED = 7 }

[[job]]
name = "train"
command = ["torchrun"]
gpus = 2
gpu-model = "H100"
gpu-memory = "40G"
ranks = 4
nodes = 2
after = "prepare"
exclusive = true
preemptible = true
group = "chest"
priority = -5
time = "2h"
estimate = "90m"
output = "/out/%i.txt"
warning = "USR1@60s"
retries = 0
retry-codes = [1, 75]

[[job]]
name = "check"
command = ["check"]
gpus = 0.25
array = "0-9"
after = "elements:any:prepare"
node = "gpu-1"
licence = "matlab"

[[job]]
name = "slice"
kind = "command"
command = ["slice"]
node-label = "nvme"
gpus = 1
mig = "1g.10gb"
"#;

#[test]
fn every_key_reaches_the_job() {
    let file = parse(EVERY_KEY);
    let names: Vec<&str> = file.jobs.iter().map(|job| job.spec.name.as_str()).collect();
    assert_eq!(names, ["prepare", "train", "report", "check", "slice"]);
    let [prepare, train, report, check, slice] = &file.jobs[..] else { panic!() };

    let spec = &prepare.spec;
    let (memory, scratch) = (MemoryMib(512), MemoryMib(10 << 10));
    assert_eq!(spec.resources, Resources { cores: 4, memory, scratch, gpus: 0 });
    assert_eq!(spec.array.as_ref().unwrap().to_string(), "0-99%10");
    assert_eq!(spec.labels, ["nvme".into(), "site=north".into()].into());
    assert_eq!(spec.licences, [("matlab".into(), 2)].into());
    assert_eq!(
        spec.environment,
        [("SITE".into(), "north".into()), ("SEED".into(), "7".into())].into()
    );
    assert_eq!((spec.retries, spec.sharing, spec.held), (3, Sharing::Shared, false));
    let Work::Command { arguments, folder } = &spec.work else { panic!() };
    assert_eq!(
        (arguments.join(" ").as_str(), folder.as_deref()),
        ("prepare --fast", Some("/data"))
    );

    let spec = &train.spec;
    assert_eq!(spec.gang, Some(Gang { ranks: 4, nodes: Some(2) }));
    let memory = MemoryMib(40 << 10);
    assert_eq!(spec.gpu, GpuDemand { part: GpuPart::Whole, model: Some("H100".into()), memory });
    assert_eq!((spec.resources.gpus, spec.resources.memory), (2, MemoryMib(2048)));
    assert_eq!((spec.sharing, spec.preemption), (Sharing::Exclusive, Preemption::Requeue));
    assert_eq!((spec.group.as_deref(), spec.priority, spec.retries), (Some("chest"), -5, 0));
    assert_eq!(spec.time_limit, Some(Millis::from_seconds(7200)));
    assert_eq!(spec.estimate, Some(Millis::from_seconds(5400)));
    assert_eq!(spec.output.as_deref(), Some("/out/%i.txt"));
    assert_eq!(spec.warning.unwrap().to_string(), "USR1@1m");
    assert_eq!(spec.retry_codes, [1, 75].into());

    let ids: Vec<JobId> = (11..16).map(JobId).collect();
    let after = |spec: &gantry_model::JobSpec| -> Vec<_> {
        spec.after.iter().map(|one| (one.job, one.kind, one.scope)).collect()
    };
    let (ok, any, fail) = (DependencyKind::Ok, DependencyKind::Any, DependencyKind::Fail);
    let (whole, element) = (DependencyScope::Job, DependencyScope::Element);
    assert_eq!(after(&train.with_ids(&ids)), [(JobId(11), ok, whole)]);
    assert_eq!(after(&check.with_ids(&ids)), [(JobId(11), any, element)]);
    assert_eq!(after(&report.with_ids(&ids)), [(JobId(7), fail, whole), (JobId(12), any, whole)]);
    assert!(report.spec.held && report.spec.time_limit == Some(Millis::from_seconds(60)));
    let Work::Command { arguments, folder: None } = &report.spec.work else { panic!() };
    assert_eq!(arguments[..2], ["sh", "-c"]);

    let share = GpuDemand { part: GpuPart::Share(250), ..GpuDemand::default() };
    assert_eq!((check.spec.resources.gpus, &check.spec.gpu), (1, &share));
    assert_eq!(check.spec.node.as_deref(), Some("gpu-1"));
    assert_eq!(slice.spec.labels, ["nvme".into()].into());
    assert_eq!(slice.spec.gpu.part, GpuPart::Mig("1g.10gb".into()));
}

/// A job that needs only what `more` says.
fn job(name: &str, more: &str) -> String {
    format!("[[job]]\nname = \"{name}\"\ncommand = [\"x\"]\n{more}\n")
}

#[test]
fn a_mistake_is_refused_with_its_place_and_what_to_do() {
    let a = |more: &str| job("a", more);
    for (text, parts) in [
        (String::new(), &["jobs.toml:1:1", "no job", "[[job]]"][..]),
        ("[[job]]\nname = ".into(), &["jobs.toml:2:8"]),
        ("jobs = 1".into(), &["jobs.toml:1:1", "did you mean \"job\""]),
        ("zebra = 1".into(), &["there are [defaults] and [[job]]"]),
        ("cores = 1".into(), &["jobs.toml:1:1", "outside of a job", "[defaults]"]),
        ("[job]\nname = \"a\"".into(), &["in double brackets"]),
        ("job = [1]".into(), &["jobs.toml:1:8", "write [[job]]"]),
        (a("coers = 1"), &["jobs.toml:4:1", "did you mean \"cores\""]),
        (a("gpu_model = \"x\""), &["did you mean \"gpu-model\""]),
        (a("cpus = 1"), &["did you mean \"cores\""]),
        (a("depends = \"b\""), &["did you mean \"after\""]),
        (a("zebra = 1"), &["there are name, kind, command, script"]),
        (a("cores = \"4\""), &["jobs.toml:4:9", "cores is a whole number, not a string"]),
        (a("cores = -1"), &["cores is from 0 to 4294967295, not -1"]),
        (a("retries = 300"), &["retries is from 0 to 255, not 300"]),
        (a("memory = \"4X\""), &["jobs.toml:4:10", "memory: \"4X\" is not an amount of memory"]),
        (a("memory = true"), &["memory is a string, or a bare number, not true or false"]),
        (a("time = \"2 weeks\""), &["time: \"2 weeks\" is not a duration", "write it as"]),
        (a("gpus = 1.5"), &["gpus: \"1.5\" is not an amount of gpus", "0.25"]),
        (a("gpus = 0.5\nmig = \"1g.10gb\""), &["jobs.toml:1:1", "ask for one of the two"]),
        (a("exclusive = \"yes\""), &["exclusive is true or false, not a string"]),
        (a("label = [1]"), &["jobs.toml:4:10", "label is a string, not a whole number"]),
        (a("licence = \"m=x\""), &["is not a number of licences"]),
        (a("retry-codes = [0]"), &["is not the exit code of a failure"]),
        (a("warning = \"KILL@1m\""), &["is not a warning", "USR1@60s"]),
        (a("warning = \"USR1@60s\""), &["job \"a\"", "the job has none"]),
        (a("environment = [\"A=1\"]"), &["environment is a table"]),
        (a("environment = { A = [1] }"), &["jobs.toml:4:21", "environment.A is a string"]),
        (a("array = \"9-0\""), &["array: \"9-0\" is not a list of array indices"]),
        (a("nodes = 2"), &["there are no ranks", "write node for one node"]),
        (a("ranks = 5\nnodes = 2"), &["job \"a\": 5 ranks cannot be spread evenly"]),
        (a("after = 3"), &["a string as \"ok:prepare\""]),
        (a("after = \"done:a\""), &["jobs.toml:4:9", "\"done\" is not a kind"]),
        (a("after = { job = \"a\", when = 1 }"), &["jobs.toml:4:22", "job, kind and elements"]),
        (a("after = { kind = \"ok\" }"), &["the dependency names no job"]),
        (a("after = { job = \"b\", kind = \"no\" }"), &["after.kind: \"no\" is not a kind"]),
        ("[[job]]\ncommand = [\"x\"]".into(), &["jobs.toml:1:1", "the job has no name"]),
        ("[[job]]\nname = \"a\"".into(), &["job \"a\": there is no command", "script"]),
        ("[[job]]\nname = \"a\"\ncommand = \"x y\"".into(), &["jobs.toml:3:11", "write script"]),
        (a("script = \"y\""), &["keep one of the two"]),
        (format!("[defaults]\nname = \"a\"\n{}", a("")), &["jobs.toml:2:1", "belongs to one job"]),
        (format!("[defaults]\ncores = 0\n{}", a("")), &["jobs.toml:3:1", "at least one core"]),
        (format!("{}{}", a(""), a("")), &["jobs.toml:6:8", "two jobs of the file are named \"a\""]),
        (job("j12", ""), &["looks like a job's id"]),
    ] {
        let found = mistake(&text);
        for part in parts {
            assert!(found.contains(part), "{found:?} lacks {part:?}, of\n{text}");
        }
    }
}

#[test]
fn jobs_stand_after_those_they_wait_for() {
    for (jobs, expected) in [
        (&[("a", ""), ("b", "a"), ("c", "b")][..], Ok("a b c")),
        (&[("c", "b"), ("b", "a"), ("a", "")], Ok("a b c")),
        (&[("d", "c b"), ("c", "a"), ("b", "a"), ("a", ""), ("e", "")], Ok("a c b d e")),
        (&[("b", ""), ("a", "")], Ok("b a")),
        (&[("a", "a")], Err("jobs.toml:4:10: after: jobs wait for one another: a → a;")),
        (
            &[("a", "b"), ("b", "c"), ("c", "a")],
            Err("jobs.toml:4:10: after: jobs wait for one another: a → b → c → a;"),
        ),
        (&[("x", "b"), ("a", ""), ("b", "a c"), ("c", "b")], Err("b → c → b; take one")),
        (
            &[("a", ""), ("b", "aa")],
            Err("\"b\" waits for \"aa\", which is no job of the file; did you mean \"a\""),
        ),
        (&[("a", "zebra")], Err("name a job of the file, or one of the cluster as j12")),
    ] {
        let text: String = jobs
            .iter()
            .map(|(name, after)| {
                let after: Vec<String> =
                    after.split_whitespace().map(|other| format!("\"{other}\"")).collect();
                job(name, &format!("after = [{}]", after.join(", ")))
            })
            .collect();
        let found = JobFile::parse("jobs.toml", &text);
        match expected {
            Ok(order) => {
                let names: Vec<String> =
                    found.unwrap().jobs.into_iter().map(|job| job.spec.name).collect();
                assert_eq!(names.join(" "), order);
            }
            Err(part) => {
                let sentence = found.unwrap_err().to_string();
                assert!(sentence.contains(part), "{sentence:?} lacks {part:?}");
            }
        }
    }
}

#[test]
fn elements_wait_for_elements_that_exist() {
    let pair = |first: &str, second: &str| {
        let after = format!("array = \"{second}\"\nafter = \"elements:a\"");
        format!("{}{}", job("a", &format!("array = \"{first}\"")), job("b", &after))
    };
    assert_eq!(parse(&pair("0-9", "0-9%2")).jobs.len(), 2);
    assert_eq!(parse(&pair("0-9", "3-4")).jobs.len(), 2);
    let found = mistake(&pair("0-9", "5-12"));
    assert!(found.contains("which has no element 10; give both the same array"), "{found}");
}

#[test]
fn a_file_has_limits() {
    let jobs = |count: usize| {
        (0..count).fold(String::new(), |mut text, n| {
            write!(text, "[[job]]\nname = \"a{n}\"\ncommand = [\"x\"]\n").unwrap();
            text
        })
    };
    assert_eq!(parse(&jobs(FILE_JOBS_MAX)).jobs.len(), FILE_JOBS_MAX);
    let found = mistake(&jobs(FILE_JOBS_MAX + 1));
    assert!(found.contains("jobs.toml:3001:1: the file has 1001 jobs; at most 1000"), "{found}");
    let found = mistake(&"#".repeat(FILE_BYTES_MAX + 1));
    assert!(found.contains("at most 4194304 are allowed, split it"), "{found}");
}

#[test]
fn a_long_chain_is_put_in_order() {
    let text: String = (0..FILE_JOBS_MAX)
        .rev()
        .map(|n| match n {
            0 => job("a0", ""),
            n => job(&format!("a{n}"), &format!("after = \"a{}\"", n - 1)),
        })
        .collect();
    let file = parse(&text);
    for (place, job) in file.jobs.iter().enumerate() {
        assert_eq!(job.spec.name, format!("a{place}"));
        assert!(job.after.iter().all(|dependency| dependency.place + 1 == place));
    }
}
