//! What is shipped for others to run gantry with, to watch it and to judge it: Kubernetes, Compose,
//! Prometheus, `CycloneDX`.
//!
//! The files are read as those programs read them, and what they say is tried: the settings by gantry
//! itself, the script of the `DaemonSet` by a shell, the rules by a real Prometheus that scrapes a real
//! scheduler.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cargo_metadata::DependencyKind;
use gantry_tests::page::MetricsPage;
use gantry_tests::{Cluster, Gantry, free_ports, installed, python, until};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");

/// The documents of a YAML file, as JSON.
fn yaml(python: &Path, text: &str) -> Vec<Value> {
    let read = "import sys, json, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))";
    let mut child = Command::new(python)
        .args(["-c", read])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "it is no YAML");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Whether gantry takes settings as a container is given them.
fn settings_are_sound(role: &str, variables: &[(String, String)], flags: &[&str]) -> Result<()> {
    let folder = TempDir::new()?;
    let place = folder.path().display().to_string();
    let gantry = Gantry::new(PROGRAM);
    let words = [&["config", "check", "--of", role, "--dir", &place][..], flags].concat();
    let mut command = gantry.command(&words);
    let output = command.envs(variables.iter().cloned()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn the_daemon_set_gives_each_node_its_own_identity_and_sound_settings() -> Result<()> {
    let Some(python) = python(&["yaml"], "the DaemonSet") else { return Ok(()) };
    let documents = yaml(&python, gantry_config::KUBERNETES_FILE);
    let set = documents.iter().find(|one| one["kind"] == "DaemonSet").context("no DaemonSet")?;
    ensure!(set["apiVersion"] == "apps/v1", "{set}");
    let (spec, template) = (&set["spec"], &set["spec"]["template"]);
    ensure!(spec["selector"]["matchLabels"] == template["metadata"]["labels"], "it selects others");
    let pod = &template["spec"];
    let (first, agent) = (&pod["initContainers"][0], &pod["containers"][0]);
    ensure!(first["image"] == agent["image"], "two images");
    let names = |place: &Value, key: &str| -> Vec<String> {
        let all = place.as_array().into_iter().flatten();
        all.filter_map(|one| one[key].as_str().map(str::to_owned)).collect()
    };
    let volumes = names(&pod["volumes"], "name");
    for mount in [names(&first["volumeMounts"], "name"), names(&agent["volumeMounts"], "name")] {
        ensure!(mount.iter().all(|name| volumes.contains(name)), "{mount:?} of {volumes:?}");
    }
    let probe = agent["readinessProbe"]["httpGet"]["port"].clone();
    ensure!(names(&agent["ports"], "name").iter().any(|name| probe == *name), "no port {probe}");

    // The node's name comes from the field; gantry takes the rest as it stands.
    let variables: Vec<(String, String)> = agent["env"]
        .as_array()
        .context("no environment")?
        .iter()
        .map(|one| {
            let field = &one["valueFrom"]["fieldRef"]["fieldPath"];
            let value =
                if *field == "spec.nodeName" { Some("gpu-7") } else { one["value"].as_str() };
            Some((one["name"].as_str()?.to_owned(), value?.to_owned()))
        })
        .collect::<Option<_>>()
        .context("a variable without a value")?;
    settings_are_sound("agent", &variables, &[])?;

    // The script takes the node's own identity, once, and opens it to nobody.
    let folder = TempDir::new()?;
    let (identities, place) = (folder.path().join("identities"), folder.path().join("agent"));
    std::fs::create_dir(&identities)?;
    std::fs::create_dir(&place)?;
    for (name, text) in
        [("gpu-7.key", "k"), ("gpu-7.pem", "p"), ("authority.pem", "a"), ("x.key", "x")]
    {
        std::fs::write(identities.join(name), text)?;
    }
    let script = first["args"][0].as_str().context("no script")?;
    let script = script
        .replace("/var/lib/gantry/agent", &place.display().to_string())
        .replace("/identities", &identities.display().to_string());
    let run = || -> Result<()> {
        let mut shell = Command::new("sh");
        let status = shell.args(["-c", &script]).env("GANTRY_SET_NODE", "gpu-7").status()?;
        ensure!(status.success(), "the script failed");
        Ok(())
    };
    run()?;
    for (name, text) in [("agent.key", "k"), ("agent.pem", "p"), ("authority.pem", "a")] {
        ensure!(std::fs::read_to_string(place.join(name))? == text, "{name}");
    }
    ensure!(std::fs::metadata(place.join("agent.key"))?.permissions().mode() & 0o077 == 0);
    std::fs::write(place.join("agent.pem"), "renewed")?;
    run()?;
    ensure!(std::fs::read_to_string(place.join("agent.pem"))? == "renewed", "it was put back");
    Ok(())
}

/// Holds standard input against the schema of `CycloneDX` 1.5.
const VALIDATE: &str = "import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
wrong = JsonStrictValidator(SchemaVersion.V1_5).validate_str(sys.stdin.read())
sys.exit(str(wrong)[:2000] if wrong else 0)";

#[test]
fn what_gantry_is_made_of_is_told_in_the_form_that_others_read() -> Result<()> {
    let output = Gantry::new(PROGRAM).run(&["sbom"])?;
    ensure!(output.status.success(), "it failed");
    let document: Value = serde_json::from_slice(&output.stdout)?;
    let parts = document["components"].as_array().context("no components")?;
    let ring = parts.iter().find(|part| part["name"] == "ring").context("no ring")?;
    ensure!(ring["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:cargo/ring@")));
    let licensed = parts.iter().filter(|part| part["licenses"][0]["expression"].is_string());
    ensure!(licensed.count() == parts.len(), "a crate has no licence");
    ensure!(ring["hashes"][0]["content"].as_str().is_some_and(|hash| hash.len() == 64));
    let references = |place: &Value, key: &str| -> BTreeSet<String> {
        let all = place.as_array().into_iter().flatten();
        all.filter_map(|one| one[key].as_str().map(str::to_owned)).collect()
    };
    let mut told = references(&document["components"], "bom-ref");
    ensure!(told.len() == parts.len(), "a reference stands there twice");
    told.extend(document["metadata"]["component"]["bom-ref"].as_str().map(str::to_owned));
    ensure!(told == references(&document["dependencies"], "ref"), "other crates have needs");
    let Some(python) = python(&["cyclonedx", "jsonschema"], "the schema of CycloneDX") else {
        return Ok(());
    };
    let mut check = Command::new(python);
    check.args(["-c", VALIDATE]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn()?;
    check.stdin.take().context("no input")?.write_all(&output.stdout)?;
    let checked = check.wait_with_output()?;
    ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    Ok(())
}

#[test]
fn the_compose_file_starts_what_there_is() -> Result<()> {
    let Some(python) = python(&["yaml"], "the Compose file") else { return Ok(()) };
    let file = &yaml(&python, gantry_config::COMPOSE_FILE)[0];
    let (scheduler, agent) = (&file["services"]["scheduler"], &file["services"]["agent"]);
    ensure!(scheduler["image"] == agent["image"], "two images");
    let volumes = file["volumes"].as_object().context("no volumes")?;
    for service in [scheduler, agent] {
        for mount in service["volumes"].as_array().context("no volumes")? {
            let (from, _) =
                mount.as_str().and_then(|one| one.split_once(':')).context("a mount")?;
            ensure!(from.starts_with('.') || volumes.contains_key(from), "{from} is no volume");
        }
    }
    ensure!(scheduler["ports"].to_string().contains("7400/udp"), "agents call by UDP");
    let words = |value: &Value| -> Vec<String> {
        let all = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        all.flat_map(str::split_whitespace).map(str::to_owned).collect()
    };
    // What each container starts is a command of gantry, with settings that it takes.
    let started = words(&scheduler["command"]);
    let exec = started.iter().position(|word| word == "exec").context("no exec")?;
    let agent_line = [vec!["gantry".to_owned()], words(&agent["command"])].concat();
    for (role, line) in [("scheduler", &started[exec + 1..]), ("agent", &agent_line[..])] {
        gantry::cli::nouns::parse(line).with_context(|| line.join(" "))?;
        let flags: Vec<&str> = line[2..].iter().map(String::as_str).collect();
        let node = [("GANTRY_SET_NODE".to_owned(), "node-1".to_owned())];
        settings_are_sound(role, if role == "agent" { &node } else { &[] }, &flags)?;
    }
    let probe = words(&scheduler["healthcheck"]["test"]);
    gantry::cli::nouns::parse(&probe[1..]).context("the health check is no command")?;
    Ok(())
}

#[test]
fn a_log_is_for_programs_where_it_shall_be() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    cluster.kill_scheduler();
    let folder = cluster.folder().join("scheduler").display().to_string();
    let start = |format: &str| {
        let mut command =
            cluster.gantry.command(&["scheduler", "--dir", &folder, "--exit-with-parent"]);
        command.env("GANTRY_LOG_FORMAT", format).stderr(Stdio::piped()).spawn()
    };
    let mut scheduler = start("json")?;
    let mut line = String::new();
    BufReader::new(scheduler.stderr.take().context("no log")?).read_line(&mut line)?;
    scheduler.kill()?;
    scheduler.wait()?;
    let value: Value = serde_json::from_str(&line).context(line)?;
    for field in ["timestamp", "level", "message"] {
        ensure!(value[field].is_string(), "{field} of {value}");
    }
    let refused = start("xml")?.wait_with_output()?;
    let sentence = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(2), "{:?}", refused.status);
    ensure!(sentence.contains("set it to text or json"), "{sentence}");
    Ok(())
}

/// Asks a Prometheus; gives the data of its answer.
fn asked(port: u16, path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (_, body) = text.split_once("\r\n\r\n")?;
    serde_json::from_str::<Value>(body).ok().map(|mut value| value["data"].take())
}

/// The value of the first series that a query finds.
fn value(port: u16, query: &str) -> Option<f64> {
    let query = query.bytes().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "%{byte:02x}");
        text
    });
    let data = asked(port, &format!("/api/v1/query?query={query}"))?;
    data["result"][0]["value"][1].as_str()?.parse().ok()
}

#[test]
fn a_real_prometheus_scrapes_the_scheduler_and_raises_the_shipped_alerts() -> Result<()> {
    const TEST: &str = "a real Prometheus";
    if !installed("prometheus", TEST) {
        eprintln!("SKIPPED: {TEST} needs the package prometheus");
        return Ok(());
    }
    let mut cluster = Cluster::start(PROGRAM)?;
    let metrics = MetricsPage::of(&mut cluster)?.address;
    cluster.join("n1", "cores = 2")?;

    let folder = cluster.folder().join("prometheus");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("prometheus-rules.yml"), gantry_config::RULES_FILE)?;
    std::fs::write(
        folder.join("prometheus.yml"),
        format!(
            "global: {{ scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms }}\n\
             rule_files: [\"prometheus-rules.yml\"]\n\
             scrape_configs:\n  - job_name: gantry\n    static_configs: [{{ targets: [\"{metrics}\"] }}]\n"
        ),
    )?;
    let (_, port) = free_ports()?;
    let log = std::fs::File::create(folder.join("log"))?;
    let mut prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let result = (|| -> Result<()> {
        let said = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        let is = |query: &str, wanted: f64| {
            let found = || value(port, query).filter(|found| (found - wanted).abs() < 1e-9);
            until(query, || found().map(drop)).with_context(said)
        };
        is("up{job=\"gantry\"}", 1.0)?;
        is("gantry_node_up{node=\"n1\"}", 1.0)?;
        // Every rule is evaluated, and none has an error.
        let rules = || {
            let data = asked(port, "/api/v1/rules")?;
            let rules = data["groups"][0]["rules"].as_array()?.clone();
            let all_well = rules.iter().all(|rule| rule["health"] == "ok");
            (rules.len() > 10 && all_well).then_some(rules.len())
        };
        let count = until("rules that are all evaluated", rules).with_context(said)?;
        cluster.kill_agent("n1");
        is("ALERTS{alertname=\"GantryNodeAway\",node=\"n1\"}", 1.0)?;
        eprintln!("{count} rules are evaluated; a node that goes raises GantryNodeAway");
        Ok(())
    })();
    let _ = prometheus.kill();
    prometheus.wait()?;
    result
}

/// Crates that name no licence in their manifests, and the one that lies beside their sources.
const LICENCES_BESIDE: [(&str, &str); 1] = [("cfg_block", "Apache-2.0")];

#[test]
fn the_crates_of_the_sbom_are_those_of_a_build() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .other_options(
            ["--locked", "--filter-platform", "x86_64-unknown-linux-gnu"].map(Into::into),
        )
        .exec()
        .unwrap();
    let resolved = metadata.resolve.as_ref().unwrap();
    let needs: BTreeMap<_, _> = resolved.nodes.iter().map(|node| (&node.id, &node.deps)).collect();
    let program =
        metadata.packages.iter().find(|package| package.name.as_str() == "gantry").unwrap();
    let (mut open, mut found) = (vec![&program.id], BTreeSet::new());
    while let Some(id) = open.pop() {
        if found.insert(id) {
            let in_builds = needs[id].iter().filter(|need| {
                need.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development)
            });
            open.extend(in_builds.map(|need| &need.pkg));
        }
    }
    let mut lines = Vec::new();
    for package in found.into_iter().map(|id| &metadata[id]).filter(|one| one.source.is_some()) {
        let beside = LICENCES_BESIDE.iter().find(|(name, _)| *name == package.name.as_str());
        let licence = package.license.as_deref().or(beside.map(|(_, licence)| *licence));
        let licence = licence.unwrap_or_else(|| panic!("{} names no licence", package.name));
        // Older manifests have a slash for it.
        let licence: Vec<&str> = licence.split('/').map(str::trim).collect();
        lines.push(format!("{} {} {}\n", package.name, package.version, licence.join(" OR ")));
    }
    lines.sort();
    let path = root.join("console/src/cli/sbom/crates.txt");
    if std::env::var_os("GANTRY_BLESS").is_some() {
        std::fs::write(&path, lines.concat()).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap();
    let differs = known.lines().zip(&lines).find(|(known, line)| *known != line.trim_end());
    assert!(
        known == lines.concat(),
        "crates.txt is another: {differs:?}; GANTRY_BLESS=1 writes it"
    );
}
