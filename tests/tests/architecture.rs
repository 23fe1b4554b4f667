//! The rules of ARCHITECTURE.md, held against the manifests and the sources.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// Crates that a pure crate may use beside its like.
const PURE_MAY_USE: &[&str] = &["serde", "thiserror", "bincode", "crc32fast"];
const PURE: &[&str] = &[
    "gantry-model",
    "gantry-cluster",
    "gantry-node",
    "gantry-telemetry",
    "gantry-wire",
    "gantry-sim",
];

/// (what only one place may name, the places that may)
const KNOWN_TO: &[(&str, &[&str])] = &[
    ("crossterm", &["console/src/term"]),
    ("quinn", &["core/link/src"]),
    ("rustls", &["core/link/src"]),
    ("bincode", &["core/wire/src/codec.rs"]),
    ("rusqlite", &["core/scheduler/src/store"]),
    ("burn", &["kernels/learning/src"]),
    ("cudarc", &["kernels/imaging/src/cuda"]),
    ("nvml_wrapper", &["agent/src/probe"]),
    ("dicom_ul", &["agent/src/ingest"]),
    ("hyper", &["core/metrics/src"]),
    ("prost", &["core/scheduler/src/traces/otlp.rs"]),
    ("sd_notify", &["console/src/cli/daemon.rs"]),
    ("prometheus_client", &["core/metrics/src"]),
    ("ureq", &["core/scheduler/src/outgoing.rs", "core/library/src/bucket.rs"]),
    ("rusty_s3", &["core/library/src/bucket.rs"]),
];

const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn packages() -> Vec<Package> {
    let manifest = root().join("Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap();
    metadata.workspace_packages().into_iter().cloned().collect()
}

fn normal_dependencies(package: &Package) -> BTreeSet<String> {
    let normal = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
    normal.map(|dependency| dependency.name.clone()).collect()
}

/// The table of ARCHITECTURE.md: package, its folder and which packages it may use.
fn table() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && line.matches('|').count() == 5);
    let full = |short: &str| match short {
        "gantry" => "gantry".to_owned(),
        other => format!("gantry-{other}"),
    };
    rows.filter_map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let may = cells[3].split(", ").filter(|name| *name != "nobody").map(full).collect();
        cells[1].starts_with("gantry").then(|| (cells[1].to_owned(), (cells[0].to_owned(), may)))
    })
    .collect()
}

fn sources() -> Vec<(String, String)> {
    let output = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .current_dir(root())
        .output()
        .unwrap();
    let names = String::from_utf8(output.stdout).unwrap();
    let read = |name: &str| Some((name.to_owned(), fs::read_to_string(root().join(name)).ok()?));
    names.lines().filter_map(read).collect()
}

#[test]
fn every_crate_stands_in_its_folder_and_uses_only_what_the_table_says() {
    let table = table();
    let packages = packages();
    assert_eq!(table.len(), packages.len(), "the table and the workspace have other crates");
    for package in &packages {
        let (folder, may) = &table[package.name.as_str()];
        assert!(package.manifest_path.ends_with(format!("{folder}/Cargo.toml")), "{folder}");
        let used: BTreeSet<String> = normal_dependencies(package)
            .into_iter()
            .filter(|name| name.starts_with("gantry"))
            .collect();
        let breach: Vec<_> = used.difference(may).collect();
        assert!(breach.is_empty(), "{} uses {breach:?}", package.name);
    }
}

#[test]
fn pure_crates_use_only_small_crates() {
    for package in packages().iter().filter(|package| PURE.contains(&package.name.as_str())) {
        for name in normal_dependencies(package) {
            let fine = name.starts_with("gantry-") || PURE_MAY_USE.contains(&name.as_str());
            assert!(fine, "{} uses {name}", package.name);
        }
        let bans = package.manifest_path.with_file_name("clippy.toml");
        assert!(bans.exists(), "{} has no clippy.toml", package.name);
    }
}

#[test]
fn one_place_knows_each_outside_thing() {
    for (name, text) in sources() {
        for (thing, places) in KNOWN_TO {
            let uses = text.lines().any(|line| {
                let line = line.trim_start();
                !line.starts_with("//")
                    && (line.contains(&format!("{thing}::"))
                        || line.contains(&format!("use {thing}")))
            });
            let fine = places.iter().any(|place| name.starts_with(place))
                || name.starts_with("tests/")
                || name.contains("/tests/");
            assert!(!uses || fine, "{name} names {thing}; only {places:?} may");
        }
    }
}

#[test]
fn every_module_says_what_it_is_and_none_is_too_long() {
    for (name, text) in sources() {
        let first = text.lines().find(|line| !line.is_empty()).unwrap_or_default();
        assert!(first.starts_with("//!"), "{name} does not begin with what it is");
        let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
        let lines = code.lines().count();
        let own_tests = name.contains("/tests/");
        assert!(own_tests || lines <= LINES_MAX, "{name} has {lines} lines without its tests");
    }
}

#[test]
fn dependencies_are_named_with_a_reason() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let section = text.split("## Dependencies").nth(1).unwrap();
    let mut used = BTreeSet::new();
    for package in packages() {
        let all = package.dependencies.iter().map(|dependency| dependency.name.clone());
        used.extend(all.filter(|name| !name.starts_with("gantry")));
    }
    for name in used {
        let named =
            section.contains(&name) || name.starts_with("dicom-") && section.contains("dicom-*");
        assert!(named, "{name} has no reason in ARCHITECTURE.md");
    }
}

/// Lines from a block of unsafe code up to the reason why it is sound.
const REASON_LINES_MAX: usize = 8;

#[test]
fn unsafe_code_stands_where_security_md_says_and_each_block_has_its_reason() {
    let security = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let section = security.split("## Unsafe code").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [file, blocks, why] = cells[..] else { return None };
        assert!(!why.is_empty(), "{file} has no reason");
        Some((file.strip_prefix('`')?.strip_suffix('`')?.to_owned(), blocks.parse().ok()?))
    };
    let listed: BTreeMap<String, usize> = section.lines().filter_map(row).collect();
    let word = ["un", "safe "].concat();
    let begins: Vec<String> =
        ["{", "fn", "impl"].iter().map(|next| format!("{word}{next}")).collect();
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for (name, text) in sources() {
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        for (at, line) in lines.iter().enumerate() {
            if line.starts_with("//") || !begins.iter().any(|begin| line.contains(begin)) {
                continue;
            }
            let above = &lines[at.saturating_sub(REASON_LINES_MAX)..at];
            let reason = above.iter().any(|line| line.starts_with("// SAFETY:"));
            assert!(reason, "{name}:{} does not say why it is sound", at + 1);
            *found.entry(name.clone()).or_default() += 1;
        }
    }
    assert_eq!(found, listed, "the table of SECURITY.md is not what there is");
}
