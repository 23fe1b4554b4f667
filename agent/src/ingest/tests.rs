//! The receiver with our own sender, with dcmtk's where it is installed, and with peers that break
//! off.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dicom_ul::association::client::ClientAssociationOptions;
use dicom_ul::pdu::{PDataValue, PDataValueType, Pdu};
use gantry_config::IngestSettings;
use gantry_imaging::dicom::write::{Subject, ct_series};
use gantry_imaging::phantom::{PhantomSettings, patient};
use gantry_library::{InstanceKey, Library, Quarantined};
use gantry_telemetry::IngestCounts;
use tempfile::TempDir;

use super::command::{OUT_OF_RESOURCES, SUCCESS};
use super::refusals::{Reason, Refusals};
use super::send::{Peer, send};
use super::{Counters, Receiver, start};
use crate::error::AgentError;

pub(super) const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
pub(super) const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";

pub(super) struct Bench {
    _folder: TempDir,
    pub(super) library: Library,
    counters: Arc<Counters>,
    receiver: Receiver,
}

impl Bench {
    pub(super) fn new(change: impl FnOnce(&mut IngestSettings)) -> Self {
        Self::try_new(change).unwrap()
    }

    pub(super) fn try_new(change: impl FnOnce(&mut IngestSettings)) -> Result<Self, AgentError> {
        let mut settings =
            IngestSettings { listen: ([127, 0, 0, 1], 0).into(), ..IngestSettings::default() };
        change(&mut settings);
        let folder = TempDir::new().unwrap();
        let free_min_mib = settings.storage_free_min.0;
        let library =
            Library::open_or_create(folder.path()).unwrap().with_free_min_mib(free_min_mib);
        let counters = Arc::new(Counters::default());
        let receiver = start(&settings, library.clone(), counters.clone())?;
        Ok(Self { _folder: folder, library, counters, receiver })
    }

    pub(super) fn refusals(&self) -> &Refusals {
        &self.counters.refusals
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.receiver.address
    }

    pub(super) fn send(&self, files: &[Vec<u8>]) -> Result<Vec<u16>, AgentError> {
        let mut statuses = Vec::new();
        let on_each = &mut |status| statuses.push(status);
        send(&Peer::plain(self.address(), "SCANNER", "GANTRY"), files, on_each).map(|()| statuses)
    }

    /// The counts once every association has ended.
    pub(super) fn counts(&self) -> IngestCounts {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let counts = self.counters.read();
            if counts.associations == 0 {
                return counts;
            }
            assert!(Instant::now() < deadline, "an association does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The files of the one series that is expected.
    pub(super) fn stored(&self) -> Vec<Vec<u8>> {
        let series = self.library.series().unwrap();
        assert_eq!(series.len(), 1);
        let objects = self.library.series_objects(&series[0].id).unwrap();
        objects.iter().map(|object| self.library.read_object(object).unwrap()).collect()
    }
}

pub(super) fn scan() -> Vec<Vec<u8>> {
    let settings = PhantomSettings {
        size: [24, 24, 4],
        spacing_mm: [14.0, 14.0, 48.0],
        ..PhantomSettings::default()
    };
    ct_series(&patient(1, &settings).image, &Subject::new("one")).unwrap()
}

pub(super) fn library() -> (TempDir, Library) {
    let folder = TempDir::new().unwrap();
    let library = Library::open_or_create(folder.path()).unwrap();
    (folder, library)
}

pub(super) fn key(series: &str, number: u64) -> InstanceKey {
    InstanceKey {
        patient_id: "one".into(),
        study_uid: "1".into(),
        series_uid: series.into(),
        sop_instance_uid: format!("{series}.{number}"),
        sop_class_uid: CT.into(),
        modality: "CT".into(),
        transfer_syntax_uid: EXPLICIT_LE.into(),
        rows: 1,
        columns: 1,
        frames: 1,
    }
}

/// Where the data set of a file begins: behind preamble, magic and meta group (PS3.10 7.1).
fn data_set(file: &[u8]) -> &[u8] {
    let length = u32::from_le_bytes(file[140..144].try_into().unwrap());
    &file[144 + length as usize..]
}

fn sorted<'a>(files: &'a [Vec<u8>]) -> Vec<&'a [u8]> {
    let mut all: Vec<&'a [u8]> = files.iter().map(|file| data_set(file)).collect();
    all.sort_unstable();
    all
}

#[test]
fn data_sets_arrive_as_they_were_and_damage_is_set_aside() {
    let bench = Bench::new(|_| {});
    let scan = scan();
    let mut files = scan.clone();
    files.push(scan[0][..scan[0].len() / 2].to_vec());
    files.push(scan[1].clone());
    assert_eq!(bench.send(&files).unwrap(), [SUCCESS; 6]);
    assert_eq!(sorted(&bench.stored()), sorted(&scan));
    let aside = bench.library.quarantined().unwrap();
    let [Quarantined { object, .. }] = &aside[..] else { panic!("{aside:?}") };
    let kept = bench.library.read_object(object).unwrap();
    assert_eq!(data_set(&kept), data_set(&files[4]), "what is set aside is whole");
    let expected = IngestCounts {
        associations: 0,
        associations_total: 1,
        received: 5,
        quarantined: 1,
        conflicts: 0,
        refused: 0,
    };
    assert_eq!(bench.counts(), expected);
}

#[test]
fn associations_at_once_lose_nothing() {
    let bench = Bench::new(|_| {});
    let scan = scan();
    std::thread::scope(|scope| {
        for file in &scan {
            let bench = &bench;
            let send = move || assert_eq!(bench.send(&vec![file.clone(); 5]).unwrap(), [0; 5]);
            scope.spawn(send);
        }
    });
    assert_eq!(sorted(&bench.stored()), sorted(&scan));
    assert_eq!((bench.counts().received, bench.counts().associations_total), (20, 4));
}

#[test]
fn storage_that_is_short_is_answered_with_a700_and_nothing_is_kept() {
    let bench = Bench::new(|settings| settings.storage_free_min.0 = u64::from(u32::MAX));
    assert_eq!(bench.send(&scan()).unwrap(), [OUT_OF_RESOURCES; 4]);
    assert_eq!(bench.library.series().unwrap(), []);
    assert_eq!(bench.counts().refused, 4);
}

#[test]
fn what_contradicts_is_kept_and_counted() {
    let bench = Bench::new(|_| {});
    let first = scan().remove(0);
    let mut other = first.clone();
    *other.last_mut().unwrap() ^= 1;
    assert_eq!(bench.send(&[first, other]).unwrap(), [SUCCESS; 2]);
    let series = bench.library.series().unwrap().remove(0);
    assert_eq!((series.instances, series.conflicts), (2, 1));
    let counts = bench.counts();
    assert_eq!((counts.received, counts.conflicts), (2, 1));
}

#[test]
fn an_address_that_may_not_call_is_hung_up_on() {
    for (network, accepted) in [("127.0.0.0/8", true), ("10.0.0.0/8", false)] {
        let bench = Bench::new(|settings| settings.addresses = vec![network.parse().unwrap()]);
        assert_eq!(bench.send(&scan()).is_ok(), accepted, "{network}");
        assert_eq!(bench.refusals().of(Reason::Address), u64::from(!accepted));
    }
}

#[test]
fn who_may_not_call_is_told() {
    for (ae_title, callers, accepted) in [
        ("", &[][..], true),
        ("GANTRY", &["CT1", "SCANNER"], true),
        ("GANTRY", &["CT1"], false),
        ("OTHER", &[], false),
    ] {
        let bench = Bench::new(|settings| {
            settings.ae_title = ae_title.into();
            settings.callers = callers.iter().map(ToString::to_string).collect();
        });
        assert_eq!(bench.send(&scan()).is_ok(), accepted, "{ae_title} {callers:?}");
        assert_eq!(bench.counts().received > 0, accepted);
        assert_eq!(bench.refusals().of(Reason::Title), u64::from(!accepted));
    }
}

#[test]
fn too_many_associations_wait_for_nobody() {
    let bench = Bench::new(|settings| settings.associations_max = 1);
    let first = TcpStream::connect(bench.address()).unwrap();
    assert!(bench.send(&scan()).is_err());
    assert_eq!(bench.refusals().of(Reason::TooMany), 1);
    drop(first);
    bench.counts();
    assert_eq!(bench.send(&scan()).unwrap(), [SUCCESS; 4]);
}

#[test]
fn a_peer_that_breaks_off_or_talks_nonsense_ends_its_own_association_only() {
    let bench = Bench::new(|_| {});
    let data = |bytes: &[u8], value_type, is_last| Pdu::PData {
        data: vec![PDataValue {
            presentation_context_id: 1,
            value_type,
            is_last,
            data: bytes.to_vec(),
        }],
    };
    let request = super::command::store(1, CT, "1.2.3");
    for end in ["abort", "drop", "nonsense", "no context", "no command"] {
        let mut peer = ClientAssociationOptions::new()
            .called_ae_title("GANTRY")
            .with_presentation_context(CT, vec![EXPLICIT_LE])
            .establish(bench.address())
            .unwrap();
        if end != "no command" {
            peer.send(&data(&request, PDataValueType::Command, true)).unwrap();
        }
        peer.send(&data(&[8, 0, 5, 0, b'C', b'S'], PDataValueType::Data, false)).unwrap();
        match end {
            "abort" => peer.abort().unwrap(),
            "drop" => peer.inner_stream().shutdown(Shutdown::Both).unwrap(),
            "nonsense" => peer.inner_stream().write_all(&[0xff; 4096]).unwrap(),
            "no command" => peer.send(&data(&[0, 0], PDataValueType::Data, true)).unwrap(),
            _ => {
                let mut last = data(&[0, 0], PDataValueType::Data, true);
                if let Pdu::PData { data } = &mut last {
                    data[0].presentation_context_id = 99;
                }
                peer.send(&last).unwrap();
            }
        }
    }
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[1, 0, 0xff, 0xff, 0xff, 0xff], &[]] {
        // The receiver may close before everything is written.
        let _ = TcpStream::connect(bench.address()).unwrap().write_all(bytes);
    }
    assert_eq!(bench.counts().received, 0);
    assert_eq!(bench.library.series().unwrap(), []);
    assert_eq!(bench.send(&scan()).unwrap(), [SUCCESS; 4]);
}

/// Runs a program of dcmtk; nothing where it is not installed.
fn dcmtk(program: &str, address: SocketAddr, files: &[&Path]) -> Option<bool> {
    let output = Command::new(program)
        .args(["-aet", "SCANNER", "-aec", "GANTRY", "127.0.0.1", &address.port().to_string()])
        .args(files)
        .output();
    match output {
        Ok(output) => {
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            Some(output.status.success())
        }
        Err(error) => {
            eprintln!("SKIPPED, the receiver is not tested with {program} of dcmtk: {error}");
            None
        }
    }
}

#[test]
fn dcmtk_verifies_and_stores() {
    let bench = Bench::new(|_| {});
    let Some(verified) = dcmtk("echoscu", bench.address(), &[]) else { return };
    assert!(verified);
    let folder = TempDir::new().unwrap();
    let scan = scan();
    for (number, file) in scan.iter().enumerate() {
        std::fs::write(folder.path().join(number.to_string()), file).unwrap();
    }
    let paths: Vec<_> = (0..scan.len()).map(|n| folder.path().join(n.to_string())).collect();
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let Some(stored) = dcmtk("storescu", bench.address(), &paths) else { return };
    assert!(stored);
    assert_eq!(bench.stored().len(), scan.len());
    assert_eq!(bench.counts().received, 4);
}
