//! Receiving images: how many a second an agent answers with success, each of them synced, beside
//! Orthanc with its sync on and dcmtk's storescp, which syncs nothing; and that none of them is
//! missing after kill -9.
//!
//! One sender, ours, sends the same 512 × 512 images to each, over one association and over eight.
//! The limit is what the disk itself gives: as many bytes written and synced, by as many threads.
//! Peers are run where they are installed. Orthanc begins with an empty index each time.

use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};
use gantry_agent::ingest::send::{Peer as Called, Sender};
use gantry_imaging::dicom::write::{Subject, ct_series};
use gantry_imaging::{Geometry, Volume};
use gantry_library::Library;
use gantry_tests::{Cluster, free_ports, until};

use crate::Size;
use crate::report::{Goal, Peer, Row};
use crate::served::Served;
use crate::soak;
use crate::statistics::{over_rounds, seconds};

/// Rows and columns of an image.
const SIDE: usize = 512;
/// Images of one round.
const IMAGES: u32 = 1_000;
const ASSOCIATIONS: [u32; 2] = [1, 8];
pub(crate) const CLASS: &str = "1.2.840.10008.5.1.4.1.1.2";
pub(crate) const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";
/// What is at least asked of us beside Orthanc with its sync on.
const TIMES_ORTHANC: f64 = 3.0;
/// A UID with a number that has this many digits at its end.
const DIGITS: usize = 9;

/// A square CT slice whose instance UID ends in a number.
pub(crate) struct Template {
    bytes: Vec<u8>,
    places: Vec<usize>,
    uid: String,
}

impl Template {
    pub(crate) fn new(name: &str, side: usize) -> Result<Self> {
        let geometry = Geometry {
            size: [side, side, 1],
            spacing_mm: [0.7, 0.7, 1.0],
            origin_mm: [0.0; 3],
            direction: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        };
        // Noise that no storage compresses away.
        let mut state = 1_u32;
        let voxels = (0..side * side).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from((state >> 20) as u16) - 1024.0
        });
        let image = Volume::new(geometry, voxels.collect())?;
        let bytes = ct_series(&image, &Subject::new(name))?.remove(0);
        let uid = gantry_imaging::dicom::inspect(&bytes)?.sop_instance_uid;
        let text = uid.as_bytes();
        ensure!(text.len() > DIGITS + 10, "the UID {uid} is too short to count with");
        let places: Vec<usize> = bytes
            .windows(text.len())
            .enumerate()
            .filter(|(_, part)| *part == text)
            .map(|(at, _)| at + text.len() - DIGITS)
            .collect();
        ensure!(places.len() == 2, "the UID stands {} times in the file", places.len());
        Ok(Self { uid: uid[..uid.len() - DIGITS].to_owned(), bytes, places })
    }

    pub(crate) fn number(&self, number: u32) -> Vec<u8> {
        let digits = format!("{number:0DIGITS$}");
        let mut bytes = self.bytes.clone();
        for place in &self.places {
            bytes[*place..*place + DIGITS].copy_from_slice(digits.as_bytes());
        }
        bytes
    }

    pub(crate) fn uid(&self, number: u32) -> String {
        format!("{}{number:0DIGITS$}", self.uid)
    }
}

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let count = size.count.unwrap_or(IMAGES);
    let template = Template::new("measured", SIDE)?;
    let mut rows = Vec::new();
    for associations in ASSOCIATIONS {
        let ours = over_rounds(size.rounds(), || {
            let site = Site::start()?;
            let took = send(site.address, &template, &numbers(count), associations)?;
            let kept = Library::open(&site.library())?.counts()?.instances;
            ensure!(kept == u64::from(count), "{kept} of {count} images are there");
            Ok(took)
        })?;
        let limit = over_rounds(size.rounds(), || disk(&template, count, associations))?;
        let orthanc = peer(size, &template, count, associations, orthanc)?;
        let storescp = peer(size, &template, count, associations, storescp)?;
        let rate = |took: f64| f64::from(count) / took;
        let mib = template.bytes.len() as f64 / f64::from(1 << 20);
        let what = format!("{count} images of 512 × 512, {associations} associations");
        rows.push(
            Row::new(format!("{what}, synced"), "images/s", rate(ours))
                .peer(orthanc)
                .limit(rate(limit))
                .goal(Goal::TimesPeer(TIMES_ORTHANC)),
        );
        rows.push(
            Row::new(format!("{what}, beside no sync"), "images/s", rate(ours)).peer(storescp),
        );
        rows.push(Row::new(what, "MiB/s", rate(ours) * mib).limit(rate(limit) * mib));
    }
    rows.push(soak::killed(&Template::new("killed", SIDE)?, count)?);
    Ok(rows)
}

/// An agent that receives into a library of its own.
pub(crate) struct Site {
    served: Served,
    pub(crate) address: SocketAddr,
}

impl Site {
    pub(crate) fn start() -> Result<Self> {
        let mut served = Served::start()?;
        let (_, port) = free_ports()?;
        let library = served.cluster.folder().join("library").display().to_string();
        let settings = format!(
            "cores = 1\nworkers = 1\nlibrary = {library:?}\n[ingest]\nlisten = \"127.0.0.1:{port}\"\nstorage_free_min = \"1G\"\n"
        );
        served.cluster.join("cpu-1", &settings)?;
        let address = ([127, 0, 0, 1], port).into();
        listening(address)?;
        Ok(Self { served, address })
    }

    pub(crate) fn library(&self) -> PathBuf {
        self.served.cluster.folder().join("library")
    }

    pub(crate) fn cluster(&mut self) -> &mut Cluster {
        &mut self.served.cluster
    }
}

pub(crate) fn listening(address: SocketAddr) -> Result<()> {
    until("a receiver that listens", || TcpStream::connect(address).ok().map(drop))
}

/// Seconds in which the images of these numbers, dealt to so many associations, are all answered with
/// success.
pub(crate) fn send(
    address: SocketAddr,
    template: &Template,
    numbers: &[u32],
    associations: u32,
) -> Result<f64> {
    let next = AtomicUsize::new(0);
    let called = Called::plain(address, "SCANNER", "GANTRY");
    let one = || -> Result<()> {
        let mut sender = Sender::open(&called, &[(CLASS, EXPLICIT_LE)])?;
        while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
            let status = sender.store(&template.number(*number))?;
            ensure!(status == 0, "image {number} was answered with {status:04x}");
        }
        Ok(sender.release()?)
    };
    seconds(|| at_once(associations, one))
}

fn numbers(count: u32) -> Vec<u32> {
    (0..count).collect()
}

pub(crate) fn at_once(threads: u32, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        for thread in all {
            thread.join().unwrap_or_else(|_| bail!("a sender panicked"))?;
        }
        Ok(())
    })
}

/// Seconds in which the disk takes as many bytes, each image written and synced.
fn disk(template: &Template, count: u32, threads: u32) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let next = AtomicU32::new(0);
    seconds(|| {
        at_once(threads, || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok(());
                }
                let mut file = File::create(folder.path().join(number.to_string()))?;
                file.write_all(&template.bytes)?;
                file.sync_data()?;
            }
        })
    })
}

/// A receiver that is not ours, for as long as this lives.
struct Running {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The rate of a peer; none where it is not installed.
fn peer(
    size: &Size,
    template: &Template,
    count: u32,
    associations: u32,
    start: fn() -> Result<Option<(&'static str, Running)>>,
) -> Result<Option<Peer>> {
    if size.no_peers {
        return Ok(None);
    }
    let mut name = None;
    let took = over_rounds(size.rounds(), || {
        let Some((peer, running)) = start()? else { return Ok(f64::INFINITY) };
        name = Some(peer);
        send(running.address, template, &numbers(count), associations)
    })?;
    Ok(name.map(|name| Peer { name: name.into(), value: f64::from(count) / took }))
}

fn start(
    command: &mut Command,
    name: &'static str,
    port: u16,
    folder: tempfile::TempDir,
) -> Result<Option<(&'static str, Running)>> {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = match quiet.spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        child => child.with_context(|| format!("starting {name}"))?,
    };
    let running = Running { child, address: ([127, 0, 0, 1], port).into(), _folder: folder };
    listening(running.address)?;
    Ok(Some((name, running)))
}

fn orthanc() -> Result<Option<(&'static str, Running)>> {
    let (folder, (_, port)) = (tempfile::tempdir()?, free_ports()?);
    let place = folder.path().join("db").display().to_string();
    let settings = serde_json::json!({
        "Name": "peer", "StorageDirectory": place, "IndexDirectory": place,
        "SyncStorageArea": true, "StorageCompression": false, "OverwriteInstances": true,
        "HttpServerEnabled": false, "DicomAet": "GANTRY", "DicomPort": port,
        "DicomCheckCalledAet": false, "DicomAlwaysAllowStore": true, "Plugins": [],
        "MaximumPduLength": 131_072, "StoreMD5ForAttachments": false,
    });
    let path = folder.path().join("orthanc.json");
    fs::write(&path, settings.to_string())?;
    start(Command::new("Orthanc").arg(path), "Orthanc, synced", port, folder)
}

fn storescp() -> Result<Option<(&'static str, Running)>> {
    let (folder, (_, port)) = (tempfile::tempdir()?, free_ports()?);
    let mut command = Command::new("storescp");
    // dcmtk waits for delayed acknowledgements without this.
    command.env("TCP_NODELAY", "1");
    command.args(["-q", "--fork", "+B", "-pdu", "131072", "-od"]).arg(folder.path());
    command.arg(port.to_string());
    start(&mut command, "storescp, no sync", port, folder)
}
