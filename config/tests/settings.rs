//! Settings as people write them, and what they get wrong.
#![allow(clippy::unwrap_used, missing_docs)]

use gantry_config::{
    AGENT_FILE, AgentSettings, DASHBOARD_FILE, RULES_FILE, SCHEDULER_FILE, SchedulerSettings,
    SettingsError, load,
};
use gantry_model::health::{Measure, Trouble, Work};
use gantry_model::{Level, MemoryMib, Millis, Role};
use gantry_telemetry::Side;

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
    assert_eq!(all.isolation.pids_max, Some(4096));
    assert!(all.isolation.prolog.is_some() && all.isolation.scratch_folder.is_some());
}

#[test]
fn the_shipped_file_shows_what_follows_from_each_trouble() {
    let (_, table) = SCHEDULER_FILE.split_once("# [health]\n").unwrap();
    let lines = table.lines().map(|line| line.trim_start_matches("# ").to_owned() + "\n");
    let text = "[health]\n".to_owned() + &lines.collect::<String>();
    let health = load::<SchedulerSettings>("s.toml", &text).unwrap().health;
    assert_eq!(health.len(), Trouble::ALL.len());
    for (trouble, rule) in health {
        assert_eq!(rule.policy(trouble), trouble.policy(), "{trouble}");
        assert!(rule.measure.is_some() && rule.work.is_some() && rule.back.is_some());
    }
    let one = "[health]\ngpu-hot = { work = \"move\" }";
    let health = load::<SchedulerSettings>("s.toml", one).unwrap().health;
    let policy = health[&Trouble::GpuHot].policy(Trouble::GpuHot);
    assert_eq!((policy.work, policy.measure), (Work::Move, Measure::Gpu));
}

#[test]
fn a_mistake_is_refused_with_its_place() {
    let scheduler = |text: &str| load::<SchedulerSettings>("s.toml", text).unwrap_err().to_string();
    let agent = |text: &str| load::<AgentSettings>("a.toml", text).unwrap_err().to_string();
    let isolation = |text: &str| agent(&format!("node = \"a\"\n[isolation]\n{text}"));
    for (found, parts) in [
        (scheduler("lissten = \"0.0.0.0:1\""), &["s.toml:1:1", "did you mean \"listen\""][..]),
        (scheduler("\nlisten = 7400"), &["s.toml:2:10"]),
        (scheduler("node_timeout = \"soon\""), &["s.toml:1:16", "is not a duration"]),
        (scheduler("node_timeout = \"10ms\""), &["would lose nodes"]),
        (scheduler("listen = "), &["s.toml:1:"]),
        (scheduler("ahead = \"1m\""), &["would let an urgent job wait"]),
        (scheduler("zebra = 1"), &["there are listen, ahead, node_timeout"]),
        (scheduler("[health]\nhot = { work = \"move\" }"), &["s.toml:2:", "xid-user"]),
        (scheduler("[health]\ngpu-hot = { work = \"go\" }"), &["s.toml:2:", "stay"]),
        (agent(""), &["set node to the name"]),
        (agent("node = \"a\"\ncores = 0"), &["cores = 0"]),
        (agent("node = \"a\"\n[ingest]\naetitle = \"X\""), &["a.toml:3:1", "ingest.ae_title"]),
        (agent("node = \"a\"\n[ingest]\n"), &["needs a library"]),
        (agent("node = \"a\"\nlabels = [\"\"]"), &["label"]),
        (agent("node = \"a\"\norphans = \"leave\""), &["a.toml:2:11", "leave", "keep"]),
        (
            isolation("cgroup = \"gantry\""),
            &["a.toml:3:10", "delegated, none, or an absolute path"],
        ),
        (isolation("umask = \"99\""), &["a.toml:3:9", "three octal digits"]),
        (isolation("run_as = \"me\""), &["a.toml:3:10", "submitter"]),
        (isolation("run_as = \"submitter\""), &["needs a scratch_folder"]),
        (isolation("prolog = \"prolog.sh\""), &["prolog must be an absolute path"]),
        (isolation("pids_max = 0"), &["pids_max must be from 1"]),
        (isolation("script_limit = \"2h\""), &["script_limit", "at most 1h"]),
        (isolation("scratch = \"/s\""), &["there is no setting"]),
    ] {
        for part in parts {
            assert!(found.contains(part), "{found:?} lacks {part:?}");
        }
    }
}

#[test]
fn tables_within_tables_end_in_a_sentence_however_many_they_are() {
    for begin in ["v=[", "v={v=", "v={a=1 {}\n", "v={v={},{}\n"] {
        let error = load::<SchedulerSettings>("s", &begin.repeat(100_000)).unwrap_err();
        assert!(matches!(error, SettingsError::Text { .. }), "{error:.300}");
    }
}

#[test]
fn alerts_come_to_rules_in_the_units_of_their_readings() {
    let alert = |text: &str| {
        let text = format!("[[alert]]\nname = \"a\"\nseries = {text}");
        load::<SchedulerSettings>("s.toml", &text)
    };
    let rule = |text: &str| alert(text).unwrap().alert[0].rule().unwrap();
    let idle =
        rule("\"gpu-busy\"\nbelow = \"5%\"\nclear = \"20%\"\nfor = \"30m\"\nlevel = \"fail\"");
    assert_eq!((idle.side, idle.raise_at, idle.clear_at), (Side::Below, 50, 200));
    assert_eq!((idle.raise_after, idle.level), (Millis::from_seconds(1800), Level::Fail));
    let hot = rule("\"gpu-temperature\"\nabove = 85");
    assert_eq!((hot.side, hot.raise_at, hot.clear_at), (Side::Above, 85, 85));
    assert_eq!((hot.raise_after, hot.level), (Millis(0), Level::Warn));
    assert_eq!(rule("\"load\"\nabove = 2.5").raise_at, 250);
    for (text, part) in [
        ("\"gpu\"\nabove = 1", "gpu-busy"),
        ("\"cpu\"", "above or below"),
        ("\"cpu\"\nabove = \"9%\"\nbelow = \"1%\"", "not both"),
        ("\"cpu\"\nabove = 90", "\"%\""),
        ("\"cpu\"\nabove = \"90%\"\nclear = \"95%\"", "must not cross"),
        ("\"cpu\"\nabove = \"90%\"\nfor = \"2d\"", "longer than 1d"),
        ("\"cpu\"\nabove = \"90%\"\nlevel = \"info\"", "warn"),
        ("\"cpu\"\nabove = \"90%\"\nsentence = \"a\\nb\"", "control character"),
        (
            "\"cpu\"\nabove = \"90%\"\n[[alert]]\nname = \"a\"\nseries = \"cpu\"\nbelow = \"1%\"",
            "two alerts",
        ),
        ("\"cpu\"\nabov = \"90%\"", "alert.above"),
    ] {
        let refused = alert(text).unwrap_err().to_string();
        assert!(refused.contains(part), "{refused:?} lacks {part:?}");
    }
}

#[test]
fn the_alert_that_the_shipped_file_shows_is_one() {
    let (_, table) = SCHEDULER_FILE.split_once("# [[alert]]\n").unwrap();
    let lines = table.lines().take_while(|line| line.starts_with("# "));
    let text: String = lines.flat_map(|line| [&line[2..], "\n"]).collect();
    let settings = load::<SchedulerSettings>("s.toml", &format!("[[alert]]\n{text}")).unwrap();
    let alert = &settings.alert[0];
    assert_eq!(alert.rule().unwrap().raise_at, 50);
    assert!(alert.is_for("gpu-1") && !alert.is_for("gpu-3"));
}

#[test]
fn a_webhook_is_an_address_and_is_never_repeated() {
    for (url, fine) in [
        ("http://127.0.0.1:9/x?token=secret", true),
        ("https://example.org", true),
        ("example.org/secret", false),
        ("https:///secret", false),
        ("ftp://example.org/secret", false),
        ("https://example.org/a secret", false),
    ] {
        let loaded = load::<SchedulerSettings>("s.toml", &format!("webhook = \"{url}\""));
        assert_eq!(loaded.is_ok(), fine, "{url}");
        if let Err(error) = loaded {
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}

#[test]
fn the_shipped_dashboard_is_json() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD_FILE).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: std::collections::BTreeSet<_> = panels.iter().map(|one| one["id"].as_u64()).collect();
    assert!(panels.len() > 20 && ids.len() == panels.len());
    assert!(RULES_FILE.contains("groups:"));
}
