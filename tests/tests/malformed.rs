//! Every reader of what comes from outside, with malformed input: messages, files that people write,
//! images, models, recordings, and what comes over the DICOM receiver's socket.
//!
//! The short form tries each for two seconds. `GANTRY_EXECUTIONS=1000000 cargo test --release
//! -p gantry-tests --test malformed` is the long form; `GANTRY_SEED` changes what is tried.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Result, ensure};
use gantry::app::{App, Keymap, Link, Message};
use gantry::cli::chosen::Chosen;
use gantry::cli::time;
use gantry::recording::{Head, Heard, Reader, Writer};
use gantry::ui::{self, palette::Palette, theme::Colours, theme::Glyphs, theme::Theme};
use gantry_agent::exchange::{Choice, Kind, export, marked_pictures, npz, picture, shard};
use gantry_config::jobs::JobFile;
use gantry_config::layers::Override;
use gantry_config::slurm;
use gantry_config::{
    AGENT_FILE, AgentSettings, KEYS_FILE, Network, PIPELINES, SCHEDULER_FILE, SchedulerSettings,
    Settings, SettingsError, THEMES,
};
use gantry_imaging::dicom::deidentify::{Profile, deidentify};
use gantry_imaging::dicom::write::{Subject, ct_series};
use gantry_imaging::dicom::{self, SegmentationHead, Segments, segmentation, segmentation_subject};
use gantry_imaging::phantom::{PhantomPatient, PhantomSettings, patient};
use gantry_imaging::pipeline::Pipeline;
use gantry_imaging::{Geometry, Image, ImagingError, mha, nifti, nrrd};
use gantry_learning::{
    EngineChoice, Predictor, RunOutcome, RunSink, Surroundings, TrainSettings, export_model,
    import_model, train,
};
use gantry_library::{Author, Library, Provenance, SampleDraft};
use gantry_model::{Array, At, IndexSet, JobId, Machine, MemoryMib, Millis, TaskId, Work, limits};
use gantry_telemetry::Decoder;
use gantry_tests::chance::Chance;
use gantry_tests::malformed::{Target, unmended};
use gantry_tests::{Cluster, Gantry, free_ports};
use gantry_wire::frame::{self, HEADER_BYTES, Message as Frame};
use gantry_wire::{
    AgentMessage, Greeting, JoinReply, JoinRequest, NodeReply, NodeRequest, RenewRequest, Reply,
    Request, SchedulerMessage, Scope, Step, Update, Verdict,
};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");
/// The bytes of every message, as they are kept beside their definition.
const GOLDEN: &str = include_str!("../../core/wire/tests/golden/version-1.txt");
const SMALL: PhantomSettings = PhantomSettings {
    size: [16, 16, 3],
    spacing_mm: [21.0, 21.0, 64.0],
    noise_hu: 18.0,
    lesions_max: 1,
};

fn check(target: &Target<'_>) {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/malformed");
    target.check(&kept, &Path::new(env!("CARGO_TARGET_TMPDIR")).join("malformed"));
}

/// Every golden frame.
fn frames() -> Vec<Vec<u8>> {
    let bytes = |hex: &str| {
        let pairs = hex.as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    };
    GOLDEN.lines().map(|line| bytes(line.rsplit(' ').next().unwrap())).collect()
}

/// A header that fits what follows it, mostly.
fn with_header(bytes: &mut [u8], chance: &mut Chance) {
    if bytes.len() > HEADER_BYTES && chance.below(8) != 0 {
        let value = bytes[HEADER_BYTES..].to_vec();
        bytes[..3].copy_from_slice(b"GY\x01");
        bytes[4..8].copy_from_slice(&(value.len() as u32).to_le_bytes());
        bytes[8..12].copy_from_slice(&crc32fast::hash(&value).to_le_bytes());
    }
}

/// Reads a message; what can be read can be written and read again, as the same.
fn message<T: Frame + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<T> {
    let message = frame::read::<T>(bytes).ok()?;
    match frame::write(&message) {
        Ok(again) => assert_eq!(frame::read::<T>(&again).unwrap(), message),
        // Numbers may be written longer than they need to be, never shorter.
        Err(error) => panic!("it was read from {} bytes: {error}", bytes.len()),
    }
    Some(message)
}

/// Shows a picture, whatever it says; nothing in it may reach the terminal as an order.
fn show(update: Update, scope: Scope) {
    let mut app = App::new(Keymap::shipped(), (80, 24));
    let mut effects = Vec::new();
    app.apply(At(0), Message::Link(Link::Live), &mut effects);
    app.apply(update.at, Message::Update { scope, update: Box::new(update) }, &mut effects);
    let theme = Theme { colours: Colours::True, glyphs: Glyphs::Unicode };
    let mut buffer = Buffer::empty(Rect::new(0, 0, 80, 24));
    ui::render(&app, theme, &mut buffer);
    for cell in buffer.content() {
        assert!(!cell.symbol().chars().any(char::is_control), "{:?} is drawn", cell.symbol());
    }
}

fn take_frame(bytes: &[u8]) -> bool {
    let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else { return false };
    let Ok(head) = frame::header(head) else { return false };
    message::<Greeting>(bytes);
    message::<Verdict>(bytes);
    message::<SchedulerMessage>(bytes);
    message::<Reply>(bytes);
    message::<NodeRequest>(bytes);
    message::<NodeReply>(bytes);
    message::<JoinRequest>(bytes);
    message::<JoinReply>(bytes);
    message::<RenewRequest>(bytes);
    if let Some(Request::Submit { spec, .. }) = message(bytes)
        && spec.validate().is_ok()
        && let Work::Command { arguments, .. } = &spec.work
    {
        assert!(
            arguments.len() <= limits::ARGUMENTS_MAX && spec.labels.len() <= limits::LABELS_MAX
        );
    }
    match message(bytes) {
        Some(AgentMessage::Up { facts, .. }) => drop(facts.validate()),
        Some(AgentMessage::Reading(reading)) => {
            Decoder::default().take(*reading);
        }
        _ => {}
    }
    if let Some(step) = message::<Step>(bytes) {
        let mut update = Update::default();
        // Changes of rows that are not there are an error, and what is shown until then is shown.
        let _ = update.take(step);
        show(update, Scope::Overview);
    }
    head.length + HEADER_BYTES == bytes.len()
}

#[test]
fn messages() {
    check(&Target {
        name: "messages",
        corpus: frames(),
        mend: |bytes, chance| with_header(bytes, chance),
        take: &take_frame,
        further_percent: 50,
    });
}

#[test]
fn job_files() {
    let shipped = include_str!("../../config/files/jobs/chest-ct.toml");
    let every = "[defaults]\nmemory = \"2G\"\nretries = 3\n[[job]]\nname = \"a\"\ncommand = [\"x\"]\n\
        cores = 4\nscratch = \"10G\"\narray = \"0-99%10\"\nlabel = [\"nvme\"]\nlicence = { m = 2 }\n\
        environment = { SEED = 7 }\ntime = \"2h\"\n[[job]]\nname = \"b\"\nscript = \"cat | sort\"\n\
        after = [{ job = \"a\", kind = \"any\" }, \"fail:j7\"]\ngpus = 2\ngpu-memory = \"40G\"\nranks = 4\n\
        nodes = 2\npriority = -5\nhold = true\n";
    check(&Target {
        name: "job-files",
        corpus: vec![shipped.into(), every.into()],
        mend: unmended,
        take: &|bytes| {
            let text = String::from_utf8_lossy(bytes);
            match JobFile::parse("jobs.toml", &text) {
                Ok(file) => {
                    let ids: Vec<JobId> = (1..=file.jobs.len() as u64).map(JobId).collect();
                    for job in &file.jobs {
                        let spec = job.with_ids(&ids);
                        // An operation's series and models are known once the library was asked.
                        if let (Work::Command { .. }, Err(reject)) = (&spec.work, spec.validate()) {
                            panic!("a job of a sound file is turned away: {reject}");
                        }
                    }
                    file.check().unwrap();
                    true
                }
                Err(_) => false,
            }
        },
        further_percent: 5,
    });
}

/// Values may be out of their limits, as they are in the file that was read; the form is ours.
fn is_toml(error: Option<&SettingsError>, text: &str) {
    assert!(!matches!(error, Some(SettingsError::Text { .. })), "{error:?}: {text}");
}

#[test]
fn files_of_slurm() {
    let script = "#!/bin/bash\n#SBATCH -J x -N 1-1 -n 2 -c 3 --mem=4G --gres=gpu:a:1 -t 1-2:3:4\n#SBATCH \
        -a 0-9:3%2 -d afterok:1,aftercorr:j2 -o o-%A_%a -e \"e %x\" --signal=B:USR1@9 -L a:2 --nice=3\n\
        srun ./a; x=$(squeue)\n#SBATCH -p a\n";
    let several =
        "#!/bin/bash\n#SBATCH --nodes=2 --ntasks-per-node=4 --mem-per-cpu=5 --export=A=1\n";
    let conf = "Licenses=m:5\nNodeName=DEFAULT RealMemory=9\nNodeName=n[01-03,7]x Boards=2 \\\n \
        SocketsPerBoard=2 CoresPerSocket=8 ThreadsPerCore=2 Gres=gpu:a:4(S:0),b Feature=a,b\n\
        PartitionName=p Nodes=n[01-02]x Default=YES MaxTime=1-0 AllowAccounts=c\nInclude x\n";
    let corpus = [script, several, conf].map(|text| text.as_bytes().to_vec()).into();
    let of_slurm = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let found = slurm::import::import(&text);
        for name in found.nodes.keys() {
            let file = found.agent_file(name).unwrap();
            let text = format!("node = \"n\"\n{file}");
            is_toml(gantry_config::load::<AgentSettings>("a", &text).err().as_ref(), &text);
        }
        let file = found.scheduler_file();
        is_toml(gantry_config::load::<SchedulerSettings>("s", &file).err().as_ref(), &file);
        let batch =
            slurm::Batch { name: "x".into(), text, folder: "/f".into(), ..Default::default() };
        match slurm::translate(&batch) {
            Ok(translated) => translated.spec.validate().is_ok(),
            Err(refused) => {
                assert!(!refused.is_empty(), "it is refused, and nobody says why");
                !found.nodes.is_empty() || refused.iter().any(|one| one.what != "#!")
            }
        }
    };
    check(&Target {
        name: "slurm-files",
        corpus,
        mend: unmended,
        take: &of_slurm,
        further_percent: 5,
    });
}

#[test]
fn pipeline_files() {
    let mut corpus: Vec<Vec<u8>> =
        PIPELINES.iter().map(|(_, text)| text.as_bytes().to_vec()).collect();
    let steps = "name = \"x\"\nlabel = \"lungs\"\n[[steps]]\nname = \"one\"\noperation = \"resample\"\n\
        spacing_mm = [1.0, 1.0, 2.0]\n[[steps]]\nname = \"two\"\noperation = \"threshold\"\n\
        minimum = -400\nmaximum = 100\n";
    if Pipeline::parse(steps, "x.toml").is_ok() {
        corpus.push(steps.into());
    }
    let grid = Geometry::new([64, 64, 20], [0.8, 0.8, 2.5]);
    check(&Target {
        name: "pipeline-files",
        corpus,
        mend: unmended,
        take: &|bytes| match Pipeline::parse(&String::from_utf8_lossy(bytes), "x.toml") {
            Ok(pipeline) => {
                assert_eq!(pipeline.hash().len(), 64);
                drop(pipeline.plan(&grid));
                true
            }
            Err(_) => false,
        },
        further_percent: 5,
    });
}

/// What is read comes back from its own text.
fn comes_back<T: FromStr<Err: std::fmt::Debug> + ToString + PartialEq + std::fmt::Debug>(
    text: &str,
) -> bool {
    let Ok(value) = T::from_str(text) else { return false };
    assert_eq!(T::from_str(&value.to_string()).unwrap(), value, "{text:?}");
    true
}

fn reads<T: FromStr>(text: &str) -> bool {
    T::from_str(text).is_ok()
}

#[test]
fn words_and_ranges() {
    let words = [
        "0-99",
        "1,3,7-9",
        "0-99%10",
        "j12",
        "j12.3",
        "j12.0-99",
        "10.0.0.0/8",
        "::1/64",
        "2h",
        "90m",
        "1d2h",
        "40G",
        "512M",
        "cpu",
        "2026-11-24",
        "2026-11-24T18:00",
        "14:05",
        "+2h",
        "nodes.ratio=0.5",
        "name=value",
        "viewer",
    ];
    check(&Target {
        name: "words",
        corpus: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
        mend: unmended,
        take: &|bytes| {
            let text = String::from_utf8_lossy(bytes);
            let now = At(1_790_000_000_000);
            let read = [
                comes_back::<IndexSet>(&text),
                comes_back::<Array>(&text),
                comes_back::<JobId>(&text),
                comes_back::<TaskId>(&text),
                comes_back::<Chosen>(&text),
                comes_back::<MemoryMib>(&text),
                reads::<Millis>(&text),
                reads::<Network>(&text),
                reads::<gantry_telemetry::Quantity>(&text),
                reads::<gantry_model::access::Role>(&text),
                time::ahead(&text, now).is_ok(),
                time::back(&text, now).is_ok(),
                Override::flag(&text).is_ok(),
            ];
            read.contains(&true)
        },
        further_percent: 5,
    });
}

fn is_read<T: Settings>(text: &str) -> bool {
    gantry_config::load::<T>("settings.toml", text).is_ok()
}

#[test]
fn settings_keys_and_themes() {
    let mut corpus: Vec<Vec<u8>> =
        [SCHEDULER_FILE, AGENT_FILE, KEYS_FILE].map(|text| text.as_bytes().to_vec()).into();
    corpus.extend(THEMES.iter().map(|(_, text)| text.as_bytes().to_vec()));
    check(&Target {
        name: "settings",
        corpus,
        mend: unmended,
        take: &|bytes| {
            let text = String::from_utf8_lossy(bytes);
            let read = [
                is_read::<SchedulerSettings>(&text),
                is_read::<AgentSettings>(&text),
                Keymap::parse("keys.toml", &text).is_ok(),
                Palette::parse("theme.toml", &text).is_ok(),
            ];
            read.contains(&true)
        },
        further_percent: 5,
    });
}

/// Writes images into a folder of their own.
fn write_all(folder: &Path, files: &[Vec<u8>]) -> Result<()> {
    fs::create_dir(folder)?;
    for (number, file) in files.iter().enumerate() {
        fs::write(folder.join(format!("{number}.dcm")), file)?;
    }
    Ok(())
}

/// A small patient, and its CT series.
fn scan() -> (PhantomPatient, Vec<Vec<u8>>) {
    let patient = patient(3, &SMALL);
    let files = ct_series(&patient.image, &Subject::new("planted")).unwrap();
    (patient, files)
}

#[test]
fn dicom_files() {
    let (patient, files) = scan();
    let instances: Vec<_> = files.iter().map(|file| dicom::inspect(file).unwrap()).collect();
    let head = SegmentationHead {
        label: "lungs".into(),
        algorithm: "a".into(),
        version: "1".into(),
        made: "20261130120000".into(),
    };
    let mask = segmentation(&patient.lungs, &instances, &head).unwrap();
    // The others are headers for the most part.
    let large = PhantomSettings { size: [64, 64, 3], spacing_mm: [5.25, 5.25, 64.0], ..SMALL };
    let large = ct_series(&self::patient(3, &large).image, &Subject::new("planted")).unwrap();
    let grid = patient.lungs.geometry;
    let profile = Profile::new(&[113_107], &[]).unwrap();
    check(&Target {
        name: "dicom-files",
        corpus: vec![files[0].clone(), files[1].clone(), mask, large[0].clone()],
        mend: unmended,
        take: &|bytes| {
            let inspected = dicom::inspect(bytes);
            drop(dicom::traces(bytes));
            drop(dicom::pixels(bytes));
            drop(dicom::assemble(&[bytes, &files[1]]));
            drop(Segments::read(bytes, &grid).map(|segments| segments.masks().count()));
            drop(segmentation_subject(bytes));
            drop(deidentify(bytes, &profile, b"key"));
            inspected.is_ok()
        },
        further_percent: 20,
    });
}

/// A file of a transfer syntax with one grey picture, whose stream is this one.
fn encapsulated(syntax: &str, [rows, columns, bits]: [u16; 3], stream: &[u8]) -> Vec<u8> {
    let element = |tag: [u16; 2], vr: &[u8], value: &[u8]| {
        let length = (value.len() as u16).to_le_bytes();
        [&tag.map(u16::to_le_bytes).concat(), vr, &length[..], value].concat()
    };
    let number = |tag, value: u16| element(tag, b"US", &value.to_le_bytes());
    let item = |value: &[u8]| {
        [&[0xfe, 0xff, 0, 0xe0][..], &(value.len() as u32).to_le_bytes(), value].concat()
    };
    let stream =
        if stream.len().is_multiple_of(2) { stream.to_vec() } else { [stream, &[0]].concat() };
    [
        vec![0; 128],
        b"DICM".to_vec(),
        element([2, 0x10], b"UI", syntax.as_bytes()),
        element([8, 0x18], b"UI", b"1.2"),
        element([0x20, 0xe], b"UI", b"1.3"),
        number([0x28, 2], 1),
        number([0x28, 0x10], rows),
        number([0x28, 0x11], columns),
        number([0x28, 0x100], if bits > 8 { 16 } else { 8 }),
        number([0x28, 0x101], bits),
        vec![0xe0, 0x7f, 0x10, 0, b'O', b'B', 0, 0, 255, 255, 255, 255],
        item(&[]),
        item(&stream),
        vec![0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0],
    ]
    .concat()
}

#[test]
fn streams_of_our_own_codecs() {
    // The example of T.87 H.3.
    let example = [
        0xff, 0xd8, 0xff, 0xf7, 0x00, 0x0b, 0x08, 0x00, 0x04, 0x00, 0x04, 0x01, 0x01, 0x11, 0x00,
        0xff, 0xda, 0x00, 0x08, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0xc0, 0x00, 0x00, 0x6c, 0x80,
        0x20, 0x8e, 0x01, 0xc0, 0x00, 0x00, 0x57, 0x40, 0x00, 0x00, 0x6e, 0xe6, 0x00, 0x00, 0x01,
        0xbc, 0x18, 0x00, 0x00, 0x05, 0xd8, 0x00, 0x00, 0x91, 0x60, 0xff, 0xd9,
    ];
    let presets = [0xff, 0xf8, 0, 13, 1, 0, 255, 0, 3, 0, 7, 0, 21, 0, 64];
    let preset = [&example[..2], &presets, &example[2..]].concat();
    // Two flat blocks of 12 bits, with a restart between them.
    let mut deep = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
    deep.extend([2; 64]);
    deep.extend([0xff, 0xc1, 0, 11, 12, 0, 8, 0, 16, 1, 1, 0x11, 0]);
    deep.extend([0xff, 0xc4, 0, 22, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 2]);
    deep.extend([0xff, 0xc4, 0, 20, 16, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    deep.extend([0xff, 0xdd, 0, 4, 0, 1, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0]);
    deep.extend([0b1010_0001, 0xff, 0xd0, 0b1010_0001, 0xff, 0xd9]);
    let (lossless, extended) = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.51");
    check(&Target {
        name: "codecs",
        corpus: vec![
            encapsulated(lossless, [4, 4, 8], &example),
            encapsulated(lossless, [4, 4, 8], &preset),
            encapsulated(extended, [8, 16, 12], &deep),
        ],
        mend: unmended,
        take: &|bytes| dicom::pixels(bytes).is_ok(),
        further_percent: 5,
    });
}

/// What a reader gives has as many voxels as it says.
fn sound(image: Result<Image, ImagingError>) -> bool {
    image.is_ok_and(|image| {
        assert_eq!(image.voxels.len(), image.geometry.voxels());
        true
    })
}

#[test]
fn nifti_images() {
    let (patient, _) = scan();
    let (mut image, mut mask, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    nifti::write_image(&patient.image, &mut image).unwrap();
    nifti::write_mask(&patient.lungs, &mut mask).unwrap();
    flate2::read::MultiGzDecoder::new(&image[..]).read_to_end(&mut plain).unwrap();
    check(&Target {
        name: "nifti",
        corpus: vec![plain.clone(), plain.clone(), plain, image, mask],
        mend: unmended,
        take: &|bytes| {
            drop(nifti::read_mask(bytes));
            sound(nifti::read(bytes))
        },
        further_percent: 10,
    });
}

#[test]
fn nrrd_images() {
    let (patient, _) = scan();
    let (mut image, mut mask) = (Vec::new(), Vec::new());
    nrrd::write_image(&patient.image, &mut image).unwrap();
    nrrd::write_mask(&patient.lungs, &mut mask).unwrap();
    let text =
        b"NRRD0004\ntype: short\ndimension: 3\nspace: right-anterior-superior\nsizes: 3 2 2\n\
        space directions: (0,0.5,0) (-2,0,0) (0,0,3)\nendian: big\nencoding: raw\n\
        space origin: (10,20,30)\n\n";
    let raw = [&text[..], &[7; 24]].concat();
    check(&Target {
        name: "nrrd",
        corpus: vec![image, mask, raw],
        mend: unmended,
        take: &|bytes| sound(nrrd::read(bytes)),
        further_percent: 10,
    });
}

#[test]
fn mha_images() {
    let (patient, _) = scan();
    let (mut image, mut mask) = (Vec::new(), Vec::new());
    mha::write_image(&patient.image, &mut image).unwrap();
    mha::write_mask(&patient.lungs, &mut mask).unwrap();
    // Without compression, whose checksum turns most away; one that is header, one that is voxels.
    let raw = |side: usize| {
        let text = format!(
            "NDims = 2\nDimSize = {side} {side}\nBinaryData = True\nElementSpacing = 1 2\n\
            ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        );
        [text.into_bytes(), vec![7; 2 * side * side]].concat()
    };
    check(&Target {
        name: "mha",
        corpus: vec![image, mask, raw(2), raw(32)],
        mend: unmended,
        take: &|bytes| sound(mha::read(bytes)),
        further_percent: 10,
    });
}

struct Deaf;

impl RunSink for Deaf {
    fn metric(&mut self, _: &str, _: f64, _: u64) {}
    fn progress(&mut self, _: u64, _: u64) {}
}

/// A library with a sample of one small patient.
fn library_of_one(folder: &Path) -> Result<Library> {
    let (at, from) = (folder.join("from"), folder.join("scan"));
    let library = Library::create(&at)?;
    let (patient, files) = scan();
    write_all(&from, &files)?;
    let (at, from) = (at.display().to_string(), from.display().to_string());
    Gantry::new(PROGRAM).json(&["import", "--library", &at, &from])?;
    let (mut image, mut mask) = (Vec::new(), Vec::new());
    nifti::write_image(&patient.image, &mut image)?;
    nifti::write_mask(&patient.lungs, &mut mask)?;
    library.add_sample(SampleDraft {
        series: library.series()?[0].id.clone(),
        label: "lungs".into(),
        image,
        mask,
        size: patient.image.geometry.size,
        spacing_mm: patient.image.geometry.spacing_mm,
        mask_voxels: patient.lungs.count() as u64,
        volume_ml: 1.0,
        provenance: Provenance {
            sources: vec![],
            pipeline: "phantom".into(),
            pipeline_hash: "0".into(),
            program: "test".into(),
            author: Author::Auto,
        },
    })?;
    Ok(library)
}

/// A tar archive (POSIX.1-1988) of these files.
fn in_tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, bytes) in files {
        let mut head = [0_u8; 512];
        let size = format!("{:011o}", bytes.len());
        // Its own sum is counted as spaces.
        for (at, text) in
            [(0, *name), (100, "0000644"), (124, &size), (148, "        "), (156, "0")]
        {
            head[at..at + text.len()].copy_from_slice(text.as_bytes());
        }
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend(head);
        archive.extend(*bytes);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

#[test]
fn archives_and_shards() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let library = library_of_one(folder.path())?;
    // Without compression, whose checksums turn most away.
    let (patient, _) = scan();
    let (mut image, mut mask) = (Vec::new(), Vec::new());
    nifti::write_image(&patient.image, &mut image)?;
    nifti::write_mask(&patient.lungs, &mut mask)?;
    let plain = |bytes: &[u8]| {
        let mut plain = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain).map(|_| plain)
    };
    let (image, mask) = (plain(&image)?, plain(&mask)?);
    let about = br#"{"label": "lungs"}"#;
    let files: [(&str, &[u8]); 3] =
        [("a.image.nii", &image), ("a.mask.nii", &mask), ("a.json", about)];
    let mut corpus = vec![in_tar(&files); 3];
    for kind in [Kind::Npz, Kind::WebDataset] {
        let to = folder.path().join(format!("{kind:?}"));
        export(&library, kind, &to, &Choice::default())?;
        for file in fs::read_dir(to)? {
            corpus.push(fs::read(file?.path())?);
        }
    }
    let place = folder.path().join("malformed");
    check(&Target {
        name: "archives",
        corpus,
        mend: unmended,
        take: &|bytes| {
            fs::write(&place, bytes).unwrap();
            let mut read = npz(&place).is_ok();
            // A case that cannot be read is no reason to end.
            drop(shard(&place, &mut |_, case| {
                read |= case.is_ok();
                Ok(())
            }));
            read
        },
        further_percent: 10,
    });
    Ok(())
}

#[test]
fn coco_annotations_and_pictures() -> Result<()> {
    let every = r#"{"images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 7, "patient": "p",
        "spacing_mm": [1, 2]}, {"id": 2, "file_name": "b.png", "width": 4, "height": 3, "patient_id": 7}],
        "categories": [{"id": 1, "name": "lung"}, {"id": 5, "name": "nodule"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 6, "bbox": [1, 1, 3, 3],
        "segmentation": [[1, 1, 4.5, 1, 4, 4, 0.25, 3], [-3, -3, 20, 5, 3, 60]]},
        {"id": 2, "image_id": 2, "category_id": 5, "iscrowd": 1, "segmentation": {"size": [3, 4], "counts": [2, 4, 6]}},
        {"id": 3, "image_id": 2, "category_id": 1, "iscrowd": 1, "segmentation": {"size": [3, 4], "counts": "335N"}}]}"#;
    let folder = tempfile::tempdir()?;
    let library = library_of_one(folder.path())?;
    let to = folder.path().join("coco");
    export(&library, Kind::Coco, &to, &Choice::default())?;
    let mut corpus = vec![every.as_bytes().to_vec(); 3];
    corpus.push(fs::read(to.join("annotations.json"))?);
    for file in fs::read_dir(to.join("images"))?.take(2) {
        corpus.push(fs::read(file?.path())?);
    }
    check(&Target {
        name: "coco",
        corpus,
        mend: unmended,
        take: &|bytes| {
            let pictures = marked_pictures(bytes, &mut |picture| {
                let pixels = picture.size[0] * picture.size[1];
                for marks in picture.marks.iter().flat_map(|marks| marks.values()) {
                    assert!(marks.len() == pixels && marks.iter().all(|pixel| *pixel <= 1));
                }
            });
            let found = picture(bytes);
            if let Ok(([width, height], values)) = &found {
                assert_eq!(values.len(), width * height);
            }
            pictures.is_ok() || found.is_ok()
        },
        further_percent: 2,
    });
    Ok(())
}

/// A folder with a model that was trained on one small patient.
fn model(folder: &Path) -> Result<()> {
    let library = library_of_one(folder)?;
    let settings = TrainSettings {
        epochs: 1,
        input_size: 32,
        base_channels: 4,
        validation_percent: 0,
        engine: EngineChoice::Embedded,
        ..TrainSettings::default()
    };
    let run = library.run_folder("one")?;
    let (around, stop) = (Surroundings::default(), AtomicBool::new(false));
    match train(&library, &settings, &run, &around, &mut Deaf, &stop)? {
        RunOutcome::Finished { model, .. } => {
            export_model(&library, &model.to_string(), &folder.join("model"))?;
        }
        other => anyhow::bail!("{other:?}"),
    }
    Ok(())
}

/// Between a model's two files, which are one input.
const BETWEEN: &[u8] = b"\n-- weights --\n";

/// The place behind [`BETWEEN`].
fn weights_at(bytes: &[u8]) -> Option<usize> {
    let at = bytes.windows(BETWEEN.len()).position(|window| window == BETWEEN)?;
    Some(at + BETWEEN.len())
}

/// The length of a safetensors header that fits where the header still ends, mostly.
fn with_header_length(bytes: &mut [u8], chance: &mut Chance) {
    let Some(at) = weights_at(bytes).filter(|at| bytes.len() > at + 8) else { return };
    let header = &bytes[at + 8..];
    let end = header.windows(2).position(|two| two == b"}}").map(|end| end + 2);
    if let Some(end) = end
        && chance.below(8) != 0
    {
        let spaces = header[end..].iter().take_while(|byte| **byte == b' ').count();
        bytes[at..at + 8].copy_from_slice(&((end + spaces) as u64).to_le_bytes());
    }
}

#[test]
fn models() -> Result<()> {
    let folder = tempfile::tempdir()?;
    model(folder.path())?;
    let from = folder.path().join("model");
    let (record, weights) =
        (fs::read(from.join("model.json"))?, fs::read(from.join("weights.safetensors"))?);
    let library = Library::create(&folder.path().join("to"))?;
    check(&Target {
        name: "models",
        corpus: vec![[&record, BETWEEN, &weights].concat()],
        mend: |bytes, chance| with_header_length(bytes, chance),
        take: &|bytes| {
            let Some(at) = weights_at(bytes) else { return false };
            fs::write(from.join("model.json"), &bytes[..at - BETWEEN.len()]).unwrap();
            fs::write(from.join("weights.safetensors"), &bytes[at..]).unwrap();
            match import_model(&library, &from) {
                Ok(model) => {
                    Predictor::load(&library, &model.to_string()).unwrap();
                    true
                }
                Err(error) => !error.to_string().contains("is not what gantry writes"),
            }
        },
        further_percent: 10,
    });
    Ok(())
}

#[test]
fn recordings() {
    let head = Head {
        cluster: "a".into(),
        began: At(7),
        software: "0.1.0".into(),
        protocol: gantry_wire::hello::VERSION_MAX,
    };
    let golden = frames();
    let of = |kind: u8| golden.iter().filter(move |bytes| bytes[3] == kind).cloned();
    let mut writer = Writer::begin(Vec::new(), &head).unwrap();
    writer.add(0, &Heard::Live).unwrap();
    for step in of(Step::KIND) {
        let Step::Whole(update) = frame::read(&step).unwrap() else { continue };
        writer.add(100, &Heard::Picture { scope: Scope::Overview, update }).unwrap();
    }
    for reply in of(Reply::KIND) {
        let (request, reply) = (Box::new(Request::Status), Box::new(frame::read(&reply).unwrap()));
        writer.add(200, &Heard::Answer { request, reply }).unwrap();
    }
    writer.add(300, &Heard::Away("no answer".into())).unwrap();
    check(&Target {
        name: "recordings",
        corpus: vec![writer.end().unwrap()],
        mend: with_checksums,
        take: &|bytes| {
            let Ok(mut reader) = Reader::open(bytes) else { return false };
            let mut heard = 0;
            while let Ok(Some((_, what))) = reader.hear() {
                if let Heard::Picture { scope, update } = what {
                    show(*update, scope);
                }
                heard += 1;
            }
            heard > 0
        },
        further_percent: 20,
    });
}

/// Lengths and checksums of a recording's entries that fit, as far as there are whole entries: what is
/// changed is then what they hold, once inflated as well.
fn with_checksums(bytes: &mut Vec<u8>, chance: &mut Chance) {
    const ENTRY: usize = 16;
    let mut at = 8;
    while let Some(head) = bytes.get(at..at + ENTRY) {
        let length = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
        let Some(body) = bytes.get(at + ENTRY..at + ENTRY + length) else { return };
        let mut inflated = Vec::new();
        let whole = flate2::read::DeflateDecoder::new(body)
            .take(1 << 20)
            .read_to_end(&mut inflated)
            .is_ok();
        let mut next = body.to_vec();
        if whole && !inflated.is_empty() && chance.below(6) == 0 {
            let place = chance.below(inflated.len() as u64) as usize;
            inflated[place] = chance.number() as u8;
            let mut deflate =
                flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
            deflate.write_all(&inflated).unwrap();
            next = deflate.finish().unwrap();
        }
        let mut entry = (next.len() as u32).to_le_bytes().to_vec();
        let mut checked = bytes[at + 8..at + ENTRY].to_vec();
        checked.extend(&next);
        entry.extend(crc32fast::hash(&checked).to_le_bytes());
        entry.extend(checked);
        let end = at + entry.len();
        bytes.splice(at..at + ENTRY + length, entry);
        at = end;
    }
}

/// A message of DICOM's upper layer (PS3.8 9.3): its type, its length, what is in it.
fn pdu(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 0][..], &(body.len() as u32).to_be_bytes(), body].concat()
}

/// An item within one.
fn item(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 0][..], &(body.len() as u16).to_be_bytes(), body].concat()
}

/// A request for an association with one presentation context.
fn associate(class: &str) -> Vec<u8> {
    let syntaxes = [item(0x30, class.as_bytes()), item(0x40, b"1.2.840.10008.1.2.1")].concat();
    let user = [item(0x51, &16_384_u32.to_be_bytes()), item(0x52, b"2.25.7")].concat();
    let titles = *b"GANTRY          SCANNER         ";
    let mut body = [&[0, 1, 0, 0][..], &titles, &[0; 32]].concat();
    body.extend(item(0x10, b"1.2.840.10008.3.1.1.1"));
    body.extend(item(0x20, &[&[1, 0, 0, 0][..], &syntaxes].concat()));
    body.extend(item(0x50, &user));
    pdu(0x01, &body)
}

/// A command set of these elements of group 0000, in Implicit VR Little Endian.
fn command(elements: &[(u16, &[u8])]) -> Vec<u8> {
    let mut all = Vec::new();
    for (element, value) in elements {
        all.extend([0, 0]);
        all.extend(element.to_le_bytes());
        all.extend((value.len() as u32).to_le_bytes());
        all.extend(*value);
    }
    let length = (all.len() as u32).to_le_bytes();
    [&[0, 0, 0, 0, 4, 0, 0, 0][..], &length, &all].concat()
}

/// A fragment of a command (1) or of data (0) that is the last one.
fn fragment(command: u8, body: &[u8]) -> Vec<u8> {
    let inside = [&((body.len() + 2) as u32).to_be_bytes()[..], &[1, command | 2], body].concat();
    pdu(0x04, &inside)
}

/// What scanners say: an echo, and a stored image.
fn conversations() -> Vec<Vec<u8>> {
    const ECHO: &[u8] = b"1.2.840.10008.1.1\0";
    const CT: &[u8] = b"1.2.840.10008.5.1.4.1.1.2\0";
    let release = pdu(0x05, &[0; 4]);
    let echo = command(&[
        (0x0002, ECHO),
        (0x0100, &[0x30, 0]),
        (0x0110, &[1, 0]),
        (0x0800, &[0x01, 0x01]),
    ]);
    let file = &scan().1[0];
    let instance = dicom::inspect(file).unwrap().sop_instance_uid;
    let instance =
        if instance.len().is_multiple_of(2) { instance } else { format!("{instance}\0") };
    let store = command(&[
        (0x0002, CT),
        (0x0100, &[0x01, 0]),
        (0x0110, &[1, 0]),
        (0x0700, &[0, 0]),
        (0x0800, &[0, 0]),
        (0x1000, instance.as_bytes()),
    ]);
    let meta = u32::from_le_bytes(file[140..144].try_into().unwrap()) as usize;
    let class = "1.2.840.10008.5.1.4.1.1.2";
    let data = fragment(0, &file[144 + meta..]);
    vec![
        [associate("1.2.840.10008.1.1"), fragment(1, &echo), release.clone()].concat(),
        [associate(class), fragment(1, &store), data, release].concat(),
    ]
}

/// The length of the first message that fits, where the second begins behind it, half of the time.
fn with_first_length(bytes: &mut [u8], chance: &mut Chance) {
    let begins = bytes.windows(4).skip(74).position(|four| four == [4, 0, 0, 0]);
    if let Some(begins) = begins
        && chance.below(2) == 0
    {
        bytes[2..6].copy_from_slice(&((begins + 74 - 6) as u32).to_be_bytes());
    }
}

#[test]
fn dicom_callers() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    let (_, port) = free_ports()?;
    let library = cluster.folder().join("library").display().to_string();
    let settings = format!(
        "cores = 2\nworkers = 1\nlibrary = {library:?}\n[ingest]\nlisten = \"127.0.0.1:{port}\"\nstorage_free_min = \"1M\""
    );
    cluster.join("cpu-1", &settings)?;
    let agent = cluster.process("cpu-1").unwrap();
    check(&Target {
        name: "dicom-callers",
        corpus: conversations(),
        mend: |bytes, chance| with_first_length(bytes, chance),
        take: &|bytes| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
            // The receiver may hang up at any byte.
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(Shutdown::Write);
            let mut answer = Vec::new();
            if let Err(error) = stream.read_to_end(&mut answer) {
                let waited = error.kind() == std::io::ErrorKind::WouldBlock;
                assert!(!waited, "the receiver neither answers nor hangs up");
            }
            answer.first() == Some(&2)
        },
        further_percent: 20,
    });
    let log = cluster.log("cpu-1");
    ensure!(!log.contains("panicked"), "{log}");
    ensure!(cluster.process("cpu-1") == Some(agent));
    let peak = gantry_tests::peak_kib(agent)?;
    ensure!(peak < 512 << 10, "the agent took {} MiB", peak / 1024);
    // Sound images are still taken.
    let folder = cluster.folder().join("scan");
    write_all(&folder, &ct_series(&patient(4, &SMALL).image, &Subject::new("two"))?)?;
    let folder = folder.display().to_string();
    cluster.gantry.json(&["send", "--to", &format!("127.0.0.1:{port}"), &folder])?;
    let series = cluster.gantry.json(&["data", "--library", &library, "series"])?;
    let whole = series.as_array().is_some_and(|rows| rows.iter().any(|row| row["instances"] == 3));
    ensure!(whole, "{series}");
    Ok(())
}
