//! Settings as people write them, and what they get wrong.
#![allow(clippy::unwrap_used, missing_docs)]

use gantry_config::{AGENT_FILE, AgentSettings, SCHEDULER_FILE, SchedulerSettings, load};
use gantry_model::{MemoryMib, Millis, Role};

#[test]
fn the_shipped_files_show_the_defaults() {
    let shipped: SchedulerSettings = load("scheduler.toml", SCHEDULER_FILE).unwrap();
    assert_eq!(shipped, SchedulerSettings::default());
    let shipped: AgentSettings = load("agent.toml", AGENT_FILE).unwrap();
    assert_eq!(shipped, AgentSettings { node: "cpu-1".into(), ..AgentSettings::default() });
    let all: String = AGENT_FILE
        .lines()
        .map(|line| {
            line.strip_prefix("# ")
                .filter(|rest| rest.contains(" = ") || rest.starts_with('['))
                .unwrap_or(line)
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let all: AgentSettings = load("agent.toml", &all).unwrap();
    assert_eq!((all.cores, all.memory), (Some(16), Some(MemoryMib(64 << 10))));
    assert_eq!(all.scratch, Some(MemoryMib(100 << 10)));
    assert!(all.labels.contains("nvme") && all.labels.contains("site=north"));
    assert_eq!(all.ingest.unwrap().series_stable, Millis::from_seconds(60));
    assert_eq!(all.roles, [Role::Cpu]);
}

#[test]
fn a_mistake_is_refused_with_its_place() {
    let scheduler = |text: &str| load::<SchedulerSettings>("s.toml", text).unwrap_err().to_string();
    let agent = |text: &str| load::<AgentSettings>("a.toml", text).unwrap_err().to_string();
    for (found, parts) in [
        (scheduler("lissten = \"0.0.0.0:1\""), &["s.toml:1:1", "did you mean \"listen\""][..]),
        (scheduler("\nlisten = 7400"), &["s.toml:2:10"]),
        (scheduler("node_timeout = \"soon\""), &["s.toml:1:16", "is not a duration"]),
        (scheduler("node_timeout = \"10ms\""), &["would lose nodes"]),
        (scheduler("listen = "), &["s.toml:1:"]),
        (scheduler("zebra = 1"), &["there are listen, node_timeout"]),
        (agent(""), &["set node to the name"]),
        (agent("node = \"a\"\ncores = 0"), &["cores = 0"]),
        (agent("node = \"a\"\n[ingest]\naetitle = \"X\""), &["a.toml:3:1", "ingest.ae_title"]),
        (agent("node = \"a\"\n[ingest]\n"), &["needs a library"]),
        (agent("node = \"a\"\nlabels = [\"\"]"), &["label"]),
        (agent("node = \"a\"\norphans = \"leave\""), &["a.toml:2:11", "leave", "keep"]),
    ] {
        for part in parts {
            assert!(found.contains(part), "{found:?} lacks {part:?}");
        }
    }
}
