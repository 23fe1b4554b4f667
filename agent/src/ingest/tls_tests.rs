//! TLS of the receiver and of the sender, with dcmtk's where they are installed, with each other, and with
//! peers that do not speak it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use gantry_config::{CallSettings, TlsSettings};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::refusals::Reason;
use super::send::{Peer, Tls, send};
use super::tests::{Bench, scan};
use crate::error::AgentError;

/// An authority's certificate, a certificate of it, and the key of that, as files `NAME-ca.pem`,
/// `NAME.pem` and `NAME.key`.
pub(super) fn certificate(folder: &Path, name: &str) {
    let (key, own) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    // Another than that of what it signs, which would look as if it had signed itself.
    params.distinguished_name.push(DnType::CommonName, format!("authority of the {name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&own, &Issuer::new(params, key)).unwrap();
    fs::write(folder.join(format!("{name}-ca.pem")), authority.pem()).unwrap();
    fs::write(folder.join(format!("{name}.pem")), leaf.pem()).unwrap();
    let mut file = fs::OpenOptions::new();
    let file =
        file.write(true).create_new(true).mode(0o600).open(folder.join(format!("{name}.key")));
    file.unwrap().write_all(own.serialize_pem().as_bytes()).unwrap();
}

/// A receiver with TLS, the folder of certificates, and a folder of images.
fn bench(authority: bool) -> (Bench, TempDir) {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    for name in ["gantry", "scanner", "stranger"] {
        certificate(at, name);
    }
    fs::create_dir(at.join("scan")).unwrap();
    for (number, file) in scan().iter().enumerate() {
        fs::write(at.join("scan").join(number.to_string()), file).unwrap();
    }
    let tls = TlsSettings {
        certificate: at.join("gantry.pem"),
        key: at.join("gantry.key"),
        authority: authority.then(|| at.join("scanner-ca.pem")),
    };
    (Bench::new(|settings| settings.tls = Some(tls)), folder)
}

/// Sends the images with dcmtk; nothing where it is not installed.
fn storescu(bench: &Bench, folder: &Path, tls: &[&str]) -> Option<bool> {
    let output = Command::new("storescu")
        .env("TCP_NODELAY", "1")
        .current_dir(folder)
        .args(["-aet", "SCANNER", "-aec", "GANTRY"])
        .args(tls)
        .args(["+sd", "127.0.0.1", &bench.address().port().to_string(), "scan"])
        .output();
    match output {
        Ok(output) => {
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            Some(output.status.success())
        }
        Err(error) => {
            eprintln!("SKIPPED, TLS is not tested with storescu of dcmtk: {error}");
            None
        }
    }
}

fn refused(bench: &Bench) -> Vec<(&'static str, u64)> {
    let of = |reason: Reason| (reason.word(), bench.refusals().of(reason));
    Reason::ALL.map(of).into_iter().filter(|(_, count)| *count > 0).collect()
}

#[test]
fn dcmtk_stores_over_tls_and_who_speaks_none_is_turned_away() {
    let (bench, folder) = bench(false);
    let anonymous = ["+tla", "+cf", "gantry-ca.pem"];
    let Some(stored) = storescu(&bench, folder.path(), &anonymous) else { return };
    assert!(stored);
    assert_eq!((bench.counts().received, bench.stored().len()), (4, 4));
    assert_eq!(storescu(&bench, folder.path(), &[]), Some(false), "in plain");
    let other = ["+tla", "+cf", "stranger-ca.pem"];
    assert_eq!(
        storescu(&bench, folder.path(), &other),
        Some(false),
        "not the certificate it wants"
    );
    assert_eq!(bench.counts().received, 4);
    assert_eq!(refused(&bench), [("no-tls", 1), ("handshake", 1)]);
}

#[test]
fn with_an_authority_only_its_certificates_are_let_in() {
    let (bench, folder) = bench(true);
    let call = |name: &str| {
        let (key, own) = (format!("{name}.key"), format!("{name}.pem"));
        storescu(&bench, folder.path(), &["+tls", &key, &own, "+cf", "gantry-ca.pem"])
    };
    let Some(stored) = call("scanner") else { return };
    assert!(stored);
    assert_eq!(bench.counts().received, 4);
    assert_eq!(call("stranger"), Some(false));
    let anonymous = ["+tla", "+cf", "gantry-ca.pem"];
    assert_eq!(storescu(&bench, folder.path(), &anonymous), Some(false), "it shows none");
    assert_eq!(bench.counts().received, 4);
    assert_eq!(refused(&bench), [("certificate", 2)]);
}

#[test]
fn peers_that_break_off_or_speak_no_tls_end_at_once_and_the_receiver_goes_on() {
    let (bench, _folder) = bench(false);
    let cases: [(&[u8], _); 5] = [
        (b"", ("handshake", 1)),
        (&[1, 0, 0, 0, 0, 4], ("no-tls", 1)),
        (b"GET / HTTP/1.1\r\n\r\n", ("no-tls", 2)),
        (&[22, 3, 1, 0, 4, 9, 9, 9, 9], ("handshake", 2)),
        (&[22, 3, 1, 0xff], ("handshake", 3)),
    ];
    for (bytes, (word, count)) in cases {
        let mut peer = TcpStream::connect(bench.address()).unwrap();
        peer.write_all(bytes).unwrap();
        // It may have been ended already, on the first bytes.
        let _ = peer.shutdown(std::net::Shutdown::Write);
        // It ends, whether or not something is said before.
        let _ = peer.read_to_end(&mut Vec::new());
        assert_eq!(bench.counts().associations, 0);
        assert!(refused(&bench).contains(&(word, count)), "{bytes:?}: {:?}", refused(&bench));
    }
    assert!(bench.send(&scan()).is_err(), "our own sender, in plain");
}

#[test]
fn files_that_cannot_be_used_are_named_when_the_agent_starts() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    certificate(at, "one");
    certificate(at, "two");
    fs::write(at.join("open.key"), fs::read(at.join("one.key")).unwrap()).unwrap();
    for (certificate, key, authority, expected) in [
        ("one.pem", "one.key", Some("one.key"), "no certificate"),
        ("none.pem", "one.key", None, "none.pem failed"),
        ("one.pem", "two.key", None, "setting up TLS failed"),
        ("one.pem", "open.key", None, "chmod 600"),
    ] {
        let tls = TlsSettings {
            certificate: at.join(certificate),
            key: at.join(key),
            authority: authority.map(|name| at.join(name)),
        };
        let calls = CallSettings {
            authority: tls.authority.clone().unwrap_or_else(|| at.join("one-ca.pem")),
            certificate: Some(tls.certificate.clone()),
            key: Some(tls.key.clone()),
            names: BTreeMap::new(),
        };
        let error = Bench::try_new(|settings| settings.tls = Some(tls)).err().unwrap().to_string();
        assert!(error.contains(expected) && error.contains("[ingest.tls]"), "{error}");
        let error = Bench::try_new(|settings| settings.calls = Some(calls)).err().unwrap();
        let error = error.to_string();
        assert!(error.contains(expected) && error.contains("[ingest.calls]"), "{error}");
    }
}

/// How our sender speaks TLS, with the files of [`bench`].
fn secure(folder: &Path, authority: &str, own: Option<&str>, name: &str) -> Tls {
    Tls {
        authority: folder.join(format!("{authority}-ca.pem")),
        own: own.map(|own| (folder.join(format!("{own}.pem")), folder.join(format!("{own}.key")))),
        name: name.to_owned(),
    }
}

fn call(address: SocketAddr, tls: Option<Tls>) -> Result<Vec<u16>, AgentError> {
    let mut statuses = Vec::new();
    let peer = Peer { tls, ..Peer::plain(address, "SCANNER", "GANTRY") };
    send(&peer, &scan(), &mut |status| statuses.push(status)).map(|()| statuses)
}

#[test]
fn our_sender_checks_who_answers_and_shows_who_it_is() {
    let (bench, folder) = bench(true);
    let at = folder.path();
    let sent = call(bench.address(), Some(secure(at, "gantry", Some("scanner"), "localhost")));
    assert_eq!(sent.unwrap(), [0; 4]);
    assert_eq!((bench.counts().received, bench.stored().len()), (4, 4));
    for (what, tls, expected) in [
        ("plain", None, "check that a receiver listens there"),
        (
            "another authority",
            Some(secure(at, "stranger", Some("scanner"), "localhost")),
            "its certificate was not accepted",
        ),
        (
            "another name",
            Some(secure(at, "gantry", Some("scanner"), "127.0.0.1")),
            "bear the name 127.0.0.1",
        ),
        ("no certificate", Some(secure(at, "gantry", None, "localhost")), "it may ask for ours"),
        (
            "a stranger's certificate",
            Some(secure(at, "gantry", Some("stranger"), "localhost")),
            "it may ask for ours",
        ),
        ("no file", Some(secure(at, "nobody", None, "localhost")), "nobody-ca.pem failed"),
        ("no name", Some(secure(at, "gantry", None, "a b")), "is no name"),
    ] {
        let error = call(bench.address(), tls).unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
    assert_eq!(bench.counts().received, 4);
    let plain = Bench::new(|_| {});
    let error = call(plain.address(), Some(secure(at, "gantry", None, "localhost")));
    assert!(error.unwrap_err().to_string().contains("TLS was not agreed on"));
}

#[test]
fn dcmtk_takes_over_tls_what_we_send() {
    let (_bench, folder) = bench(true);
    let at = folder.path();
    fs::create_dir(at.join("taken")).unwrap();
    // Somebody else may take the port in between: then the receiver ends, and says so.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let started = Command::new("storescp")
        .current_dir(at)
        .args(["+tls", "gantry.key", "gantry.pem", "+cf", "scanner-ca.pem", "-aet", "GANTRY"])
        .args(["-od", "taken", &port.to_string()])
        .spawn();
    let mut storescp = match started {
        Ok(storescp) => Ended(storescp),
        Err(error) => {
            eprintln!("SKIPPED, TLS is not tested with storescp of dcmtk: {error}");
            return;
        }
    };
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_err() {
        assert_eq!(storescp.0.try_wait().unwrap(), None, "storescp ended");
        assert!(Instant::now() < deadline, "storescp does not listen");
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = call(address, Some(secure(at, "gantry", Some("scanner"), "localhost")));
    assert_eq!(sent.unwrap(), [0; 4]);
    let taken = || {
        let entries = fs::read_dir(at.join("taken")).unwrap();
        uids(entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()))
    };
    assert_eq!(taken(), uids(scan()));
    for own in [None, Some("stranger")] {
        let error = call(address, Some(secure(at, "gantry", own, "localhost")));
        assert!(error.is_err(), "{own:?}");
    }
    assert!(call(address, None).is_err(), "in plain");
    assert_eq!(taken().len(), 4);
}

fn uids(files: impl IntoIterator<Item = Vec<u8>>) -> BTreeSet<String> {
    let uid = |file: Vec<u8>| gantry_imaging::dicom::inspect(&file).unwrap().sop_instance_uid;
    files.into_iter().map(uid).collect()
}

/// A program that ends with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
