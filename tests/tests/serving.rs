//! A prediction service as its users have it: scans come in, a person approves a model, predictions
//! go back to a DICOM receiver, programs ask over HTTP, and the service is killed on the way.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, ensure};
use gantry_imaging::dicom::write::{Subject, ct_series};
use gantry_imaging::phantom::{PhantomSettings, patient};
use gantry_imaging::{measure, nifti};
use gantry_learning::{EngineChoice, RunOutcome, RunSink, Surroundings, TrainSettings, train};
use gantry_library::{Author, Library, ModelId, Provenance, SampleDraft, SeriesId, Stage};
use gantry_tests::{Gantry, free_ports, installed, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");
/// A name that nothing but the storage may hold.
const PLANTED: &str = "SECRETNAME";
const SMALL: PhantomSettings = PhantomSettings {
    size: [32, 32, 6],
    spacing_mm: [10.5, 10.5, 32.0],
    noise_hu: 18.0,
    lesions_max: 2,
};

struct Deaf;

impl RunSink for Deaf {
    fn metric(&mut self, _: &str, _: f64, _: u64) {}
    fn progress(&mut self, _: u64, _: u64) {}
}

/// A library with scans of two patients and two models trained on them.
fn library(folder: &Path) -> Result<(Library, Vec<SeriesId>, [ModelId; 2])> {
    let at = folder.join("library");
    let library = Library::create(&at)?;
    let mut series = Vec::new();
    for number in 0..2 {
        let one = patient(number, &SMALL);
        let subject = Subject::new(format!("{PLANTED}-{number}"));
        let scan = folder.join(format!("scan-{number}"));
        fs::create_dir_all(&scan)?;
        for (slice, bytes) in ct_series(&one.image, &subject)?.iter().enumerate() {
            fs::write(scan.join(format!("{slice}.dcm")), bytes)?;
        }
        Gantry::new(PROGRAM).run(&[
            "import",
            "--library",
            at.to_str().unwrap(),
            scan.to_str().unwrap(),
        ])?;
        series.push(library.series_id(&subject.series_uid()));
        let (mut image, mut mask) = (Vec::new(), Vec::new());
        nifti::write_image(&one.image, &mut image)?;
        nifti::write_mask(&one.lungs, &mut mask)?;
        library.add_sample(SampleDraft {
            series: series[number as usize].clone(),
            label: "lungs".into(),
            image,
            mask,
            size: one.image.geometry.size,
            spacing_mm: one.image.geometry.spacing_mm,
            mask_voxels: one.lungs.count() as u64,
            volume_ml: measure::volume_ml(&one.lungs, 1),
            provenance: Provenance {
                sources: vec![],
                pipeline: "phantom".into(),
                pipeline_hash: "0".into(),
                program: "test".into(),
                author: Author::Auto,
            },
        })?;
    }
    let learn = |seed| -> Result<ModelId> {
        let settings = TrainSettings {
            seed,
            epochs: 20,
            batch_size: 4,
            input_size: 32,
            base_channels: 4,
            learning_rate: 0.01,
            validation_percent: 0,
            engine: EngineChoice::Embedded,
            ..TrainSettings::default()
        };
        let run = library.run_folder(&format!("seed-{seed}"))?;
        let stop = AtomicBool::new(false);
        let around = Surroundings::default();
        match train(&library, &settings, &run, &around, &mut Deaf, &stop)? {
            RunOutcome::Finished { model, .. } => Ok(model),
            other => anyhow::bail!("{other:?}"),
        }
    };
    let models = [learn(1)?, learn(2)?];
    Ok((library, series, models))
}

/// A service, with what it has written.
struct Service {
    child: Child,
    output: PathBuf,
}

impl Service {
    fn start(folder: &Path, name: &str, receiver: u16) -> Result<Self> {
        let output = folder.join(name);
        let child = Gantry::new(PROGRAM)
            .command(&["serve", "--library", folder.join("library").to_str().unwrap()])
            .args(["--model", "lungs-unet2d", "--modality", "ct", "--body-part", "chest"])
            .args(["--stable", "0", "--listen", "127.0.0.1:0"])
            .args(["--send", &format!("127.0.0.1:{receiver}"), "--called", "PACS"])
            .stdout(File::create(&output)?)
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, output })
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    fn says(&self, part: &str) -> Result<()> {
        until(part, || self.said().contains(part).then_some(()))
            .with_context(|| format!("it said:\n{}", self.said()))
    }

    /// The status and body of a request.
    fn ask(&self, head: &str, body: &str) -> Result<(u16, String)> {
        let said = self.said();
        let address = said.split("http://").nth(1).and_then(|rest| rest.lines().next());
        let mut stream = TcpStream::connect(address.context("no address")?)?;
        let length = body.len();
        write!(stream, "{head} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let status = text.split(' ').nth(1).context("no status")?.parse()?;
        Ok((status, text.split_once("\r\n\r\n").context("no body")?.1.to_owned()))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_service_predicts_what_comes_and_sends_it_back_also_after_a_kill() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (library, series, [first, second]) = library(folder.path())?;
    let (port, _) = free_ports()?;
    let service = Service::start(folder.path(), "one.txt", port)?;
    service.says("no model \"lungs-unet2d\" is approved")?;
    let wanted = format!("{{\"series\": \"{}\"}}", series[0]);
    assert_eq!(service.ask("POST /predictions", &wanted)?.0, 503);
    assert_eq!(service.ask("GET /healthz", "")?.0, 503);

    library.set_stage(&first, Stage::Approved, "ada")?;
    service.says(&format!("model {first} is served"))?;
    for one in &series {
        service.says(&format!("of series {one}: "))?;
        let (status, body) = service.ask(&format!("GET /predictions/{one}"), "")?;
        assert_eq!(status, 200, "{body}");
        assert!(body.contains(first.as_str()) && body.contains("no diagnosis"), "{body}");
    }
    // Nobody takes them yet: they stay owed.
    service.says("it is tried again in")?;
    assert_eq!(service.ask("GET /healthz", "")?, (200, "ok\n".into()));
    for (head, body, status) in [
        ("POST /predictions", "{\"series\": \"x\"}", 400),
        ("POST /predictions", "series", 400),
        ("POST /predictions", "{\"series\": \"000000000000\", \"more\": 1}", 400),
        ("GET /predictions", "", 405),
        ("DELETE /predictions/1", "", 405),
        ("GET /elsewhere", "", 404),
        ("POST /predictions", &"x".repeat(70_000), 413),
    ] {
        let (found, said) = service.ask(head, body)?;
        assert_eq!(found, status, "{head}: {said}");
    }
    let metrics = service.ask("GET /metrics", "")?.1;
    for line in ["gantry_serve_predicted_total 2", "gantry_serve_failed_total 0"] {
        assert!(metrics.contains(line), "{metrics}");
    }

    // Killed; another goes on, and finds a receiver.
    let mut service = service;
    service.child.kill()?;
    service.child.wait()?;
    let mut service = Service::start(folder.path(), "two.txt", port)?;
    service.says(&format!("model {first} is served"))?;
    let received = folder.path().join("received");
    fs::create_dir(&received)?;
    let pacs = installed("storescp", "the receiver of segmentations").then(|| {
        Command::new("storescp")
            .args(["-od", received.to_str().unwrap(), "-aet", "PACS", &port.to_string()])
            .spawn()
    });
    let mut pacs = pacs.transpose()?;
    if pacs.is_some() {
        for one in &series {
            service.says(&format!("the segmentation of series {one} was sent"))?;
        }
        let files: Vec<PathBuf> =
            fs::read_dir(&received)?.map(|entry| entry.unwrap().path()).collect();
        ensure!(files.len() == series.len(), "{files:?}");
        for file in files {
            let dump = Command::new("dcmdump").args(["+P", "Modality"]).arg(&file).output()?;
            assert!(String::from_utf8_lossy(&dump.stdout).contains("SEG"), "{dump:?}");
        }
    }
    assert!(
        !service.said().contains("prediction "),
        "nothing is predicted twice:\n{}",
        service.said()
    );

    // Another model is served once it is approved, and the first again once that is.
    library.set_stage(&second, Stage::Approved, "ada")?;
    service.says(&format!("model {second} is served"))?;
    for one in &series {
        service.says(&format!("of series {one}: "))?;
        assert_eq!(library.prediction_of(one)?.model, second);
    }
    library.set_stage(&second, Stage::Retired, "ada")?;
    until("the first is served again", || {
        (service.said().matches(&format!("model {first} is served")).count() == 2).then_some(())
    })?;
    let (status, said) = service.ask("POST /predictions", &wanted)?;
    assert_eq!(status, 202, "{said}");
    // What it had found before counts again.
    let (_, body) = service.ask(&format!("GET /predictions/{}", series[0]), "")?;
    assert!(body.contains(first.as_str()), "{body}");
    service.says(&format!("of series {}: ", series[0]))?;

    Command::new("kill").arg(service.child.id().to_string()).status()?;
    assert!(service.child.wait()?.success());
    assert!(service.said().ends_with("the service ends, as it was told to\n"));
    for output in ["one.txt", "two.txt"] {
        assert!(!fs::read_to_string(folder.path().join(output))?.contains(PLANTED));
    }
    if let Some(pacs) = &mut pacs {
        pacs.kill()?;
        pacs.wait()?;
    }
    Ok(())
}
