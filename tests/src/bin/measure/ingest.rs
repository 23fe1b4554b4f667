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
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gantry_agent::ingest::send::Sender;
use gantry_imaging::dicom::write::{Subject, ct_series};
use gantry_imaging::{Geometry, Volume};
use gantry_library::Library;
use gantry_tests::{Cluster, free_ports, until};

use crate::Size;
use crate::report::{Goal, Peer, Row};
use crate::served::Served;
use crate::statistics::{over_rounds, seconds};

/// Images of one round.
const IMAGES: u32 = 1_000;
const ASSOCIATIONS: [u32; 2] = [1, 8];
const CLASS: &str = "1.2.840.10008.5.1.4.1.1.2";
const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";
/// What is at least asked of us beside Orthanc with its sync on.
const TIMES_ORTHANC: f64 = 3.0;
/// A UID with a number that has this many digits at its end.
const DIGITS: usize = 9;

/// A CT slice of 512 × 512 whose instance UID ends in a number.
struct Template {
    bytes: Vec<u8>,
    places: Vec<usize>,
    uid: String,
}

impl Template {
    fn new(name: &str) -> Result<Self> {
        let geometry = Geometry {
            size: [512, 512, 1],
            spacing_mm: [0.7, 0.7, 1.0],
            origin_mm: [0.0; 3],
            direction: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        };
        // Noise that no storage compresses away.
        let mut state = 1_u32;
        let voxels = (0..512 * 512).map(|_| {
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

    fn number(&self, number: u32) -> Vec<u8> {
        let digits = format!("{number:0DIGITS$}");
        let mut bytes = self.bytes.clone();
        for place in &self.places {
            bytes[*place..*place + DIGITS].copy_from_slice(digits.as_bytes());
        }
        bytes
    }

    fn uid(&self, number: u32) -> String {
        format!("{}{number:0DIGITS$}", self.uid)
    }
}

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let count = size.count.unwrap_or(IMAGES);
    let template = Template::new("measured")?;
    let mut rows = Vec::new();
    for associations in ASSOCIATIONS {
        let ours = over_rounds(size.rounds(), || {
            let site = Site::start()?;
            let took = send(site.address, &template, count, associations)?;
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
    rows.push(killed(count)?);
    Ok(rows)
}

/// An agent that receives into a library of its own.
struct Site {
    served: Served,
    address: SocketAddr,
}

impl Site {
    fn start() -> Result<Self> {
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

    fn library(&self) -> PathBuf {
        self.served.cluster.folder().join("library")
    }

    fn cluster(&mut self) -> &mut Cluster {
        &mut self.served.cluster
    }
}

fn listening(address: SocketAddr) -> Result<()> {
    until("a receiver that listens", || TcpStream::connect(address).ok().map(drop))
}

/// Seconds in which images, dealt to so many associations, are all answered with success.
fn send(address: SocketAddr, template: &Template, count: u32, associations: u32) -> Result<f64> {
    let next = AtomicU32::new(0);
    let one = || -> Result<()> {
        let mut sender = Sender::open(address, "SCANNER", "GANTRY", &[(CLASS, EXPLICIT_LE)])?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(sender.release()?);
            }
            let status = sender.store(&template.number(number))?;
            ensure!(status == 0, "image {number} was answered with {status:04x}");
        }
    };
    seconds(|| at_once(associations, one))
}

fn at_once(threads: u32, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
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
        send(running.address, template, count, associations)
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

/// Eight associations, kill -9 of the agent in the middle, and the rest after its start: images that
/// were answered with success and are missing, of which there must be none.
fn killed(count: u32) -> Result<Row> {
    let template = Template::new("killed")?;
    let mut site = Site::start()?;
    let address = site.address;
    let acknowledged = Mutex::new(Vec::new());
    let next = AtomicU32::new(0);
    let until_killed = || -> Result<()> {
        let mut sender = Sender::open(address, "SCANNER", "GANTRY", &[(CLASS, EXPLICIT_LE)])?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            // The kill ends it.
            let Ok(status) = sender.store(&template.number(number)) else { return Ok(()) };
            ensure!(status == 0, "image {number} was answered with {status:04x}");
            acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(number);
        }
    };
    let acknowledged_now = || acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len();
    std::thread::scope(|scope| -> Result<()> {
        let sending = scope.spawn(|| at_once(8, until_killed));
        while !sending.is_finished() && acknowledged_now() < count as usize / 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        site.cluster().kill_agent("cpu-1");
        sending.join().unwrap_or_else(|_| bail!("a sender panicked"))
    })?;
    let before = acknowledged_now();
    ensure!(before >= count as usize / 2, "only {before} images were answered before the kill");
    // Before anything is sent again, which would put right what is missing.
    let library = Library::open(&site.library())?;
    let mut near = None;
    let mut missing = 0;
    for number in acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner) {
        missing += u32::from(library.find_kept(&template.uid(number), &mut near)?.is_none());
    }
    ensure!(missing == 0, "{missing} images were answered with success and are missing");
    site.cluster().start_agent("cpu-1")?;
    listening(address)?;
    let all = count.max(next.load(Ordering::Relaxed));
    send(address, &template, all, 8)?;
    let kept = library.counts()?.instances;
    ensure!(kept == u64::from(all), "{kept} of {all} images are there after the second sending");
    let report = library.verify()?;
    ensure!(report.damage.is_empty(), "the library is damaged: {:?}", report.damage.first());
    let what = format!("missing of {before} answered before kill -9, 8 associations");
    Ok(Row::new(what, "images", f64::from(missing)).goal(Goal::AtMost(0.0)))
}
