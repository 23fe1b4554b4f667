//! The benchmarks, small: that they run, and that what they print has the form that programs read.
//!
//! Numbers are not looked at: a benchmark of ten tasks on a machine that tests other things says
//! nothing. What is looked at is that a peer that is absent is `null` and its goal undecided.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use serde_json::Value;

/// Nothing is found here, so that no peer is.
const NOWHERE: &str = "/nowhere/at-all";

fn measure(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_measure"))
        .args(arguments)
        .args(["--rounds", "1", "--hq", NOWHERE, "--python", NOWHERE])
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_benchmark_gives_one_value_of_the_known_form() {
    // (benchmark, its size, whether it has a row beside a peer)
    let cases: [(&[&str], bool); 19] = [
        (&["placement", "--nodes", "20", "--count", "400"], false),
        (&["gangs", "--nodes", "20", "--count", "200"], false),
        // So many that its short tasks wait on their node for one another.
        (&["array", "--count", "20000"], false),
        (&["tasks", "--count", "20"], true),
        (&["builtin", "--count", "50"], false),
        (&["latency", "--count", "5"], false),
        (&["restart", "--count", "2000"], false),
        (&["faults", "--count", "2"], false),
        (&["agent", "--count", "1"], false),
        (&["agents", "--count", "20"], false),
        (&["endure", "--count", "12", "--nodes", "20"], false),
        (&["wire", "--count", "20"], false),
        (&["ingest", "--count", "64", "--no-peers"], true),
        (&["soak", "--count", "2000"], false),
        (&["library", "--count", "8"], false),
        (&["predict", "--count", "2", "--no-peers"], true),
        (&["similar", "--count", "3000"], false),
        (&["screen", "--nodes", "20"], false),
        (&["cli", "--count", "20"], false),
    ];
    for (arguments, has_peer) in cases {
        let (code, out, error) = measure(&[arguments, &["--json"]].concat());
        assert_eq!(code, Some(0), "{arguments:?}: {error}");
        assert_eq!(out.lines().count(), 1, "{out}");
        let report: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(keys(&report), ["machine", "name", "rows"]);
        assert_eq!(report["name"], arguments[0]);
        assert!(report["machine"].as_str().unwrap().contains("profile"), "{out}");
        let rows = report["rows"].as_array().unwrap();
        assert!(!rows.is_empty());
        for row in rows {
            form(row);
        }
        // Faults on a busy machine may take long; what they must not do is lose anything.
        let counted = |row: &&Value| row["unit"] == "tasks" && row["goal"].is_string();
        for row in rows.iter().filter(|row| arguments[0] == "faults" && counted(row)) {
            assert_eq!(row["met"], true, "{row}");
        }
        let beside = |row: &&Value| row["goal"].as_str().is_some_and(|goal| goal.contains("peer"));
        let undecided: Vec<&Value> = rows.iter().filter(beside).collect();
        assert_eq!(!undecided.is_empty(), has_peer, "{out}");
        for row in undecided {
            assert!(
                row["peer"].is_null() || row["what"].as_str().unwrap().contains("Slurm"),
                "{row}"
            );
            assert_eq!(row["met"].is_null(), row["peer"].is_null(), "{row}");
        }
    }
}

fn form(row: &Value) {
    assert_eq!(keys(row), ["goal", "limit", "met", "ours", "peer", "unit", "what"]);
    assert!(row["what"].is_string() && row["unit"].is_string(), "{row}");
    assert!(row["ours"].as_f64().is_some_and(|ours| ours >= 0.0), "{row}");
    assert!(row["limit"].is_null() || row["limit"].is_f64(), "{row}");
    assert!(row["goal"].is_null() || row["goal"].is_string(), "{row}");
    assert!(row["met"].is_null() || row["met"].is_boolean(), "{row}");
    assert!(row["goal"].is_string() || row["met"].is_null(), "{row}");
    if !row["peer"].is_null() {
        assert_eq!(keys(&row["peer"]), ["name", "value"]);
    }
}

#[test]
fn a_table_has_a_line_for_each_row_and_what_is_wrong_is_said() {
    let (code, out, _) = measure(&["gangs", "--nodes", "20", "--count", "200"]);
    assert_eq!((code, out.lines().count()), (Some(0), 6), "{out}");
    assert!(out.starts_with("gangs on ") && out.contains("goal"), "{out}");
    let (code, out, error) = measure(&["wire", "gangs", "--nodes", "20", "--count", "20"]);
    assert_eq!(code, Some(0), "{error}");
    let heads: Vec<&str> = out.lines().filter(|line| line.starts_with('#')).collect();
    assert_eq!(heads, ["# Measurements", "## gangs", "## wire"], "{out}");
    assert!(out.contains("| what | unit | ours |") && out.contains("profile"), "{out}");
    let (code, _, error) = measure(&["nothing"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("placement"), "{error}");
}
