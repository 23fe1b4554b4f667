//! A peer's identity: its key, its certificate and the authority that signed it.
//!
//! On disk an identity is `NAME.pem`, `NAME.key` and `authority.pem` in one folder. Key files are
//! made with mode 0600 and refused where others may read them. A renewal keeps the key and replaces
//! the file of the certificate, so that no crash leaves a key without its certificate.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use gantry_model::{At, Millis};
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{self, SERIAL_BYTES, SERIAL_TAG, SLACK};
use crate::error::LinkError;

/// What a certificate is for. It stands in the certificate as the organizational unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityKind {
    /// The scheduler.
    Scheduler,
    /// An agent of the node whose name is the common name.
    Agent,
    /// The cluster's first administrator, made with it.
    Operator,
    /// A person; what that one may do the scheduler knows.
    User,
}

impl IdentityKind {
    const ALL: [Self; 4] = [Self::Scheduler, Self::Agent, Self::Operator, Self::User];

    /// The word that stands in the certificate.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::Agent => "agent",
            Self::Operator => "operator",
            Self::User => "user",
        }
    }

    /// Whether it is a person's.
    #[must_use]
    pub const fn is_person(self) -> bool {
        matches!(self, Self::Operator | Self::User)
    }

    fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// Who stands at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// What its certificate is for; absent for a node that has none yet.
    pub kind: Option<IdentityKind>,
    /// The name in its certificate; empty without one.
    pub name: String,
    /// When its certificate was made.
    pub issued: At,
    /// When its certificate ends.
    pub expires: At,
}

impl PeerIdentity {
    pub(crate) fn nobody() -> Self {
        Self { kind: None, name: String::new(), issued: At(0), expires: At(0) }
    }

    /// Reads a certificate that TLS has already verified.
    pub(crate) fn of_certificate(der: &[u8]) -> Result<Self, LinkError> {
        let wrong = |what: &str| LinkError::Identity(format!("the peer's certificate {what}"));
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| wrong("cannot be read"))?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next().and_then(|value| value.as_str().ok());
        let name = name.ok_or_else(|| wrong("has no name"))?.to_owned();
        let unit = subject.iter_organizational_unit().next().and_then(|value| value.as_str().ok());
        let kind = unit.and_then(IdentityKind::of).ok_or_else(|| wrong("says no known kind"))?;
        let (from, expires) = validity(&certificate);
        Ok(Self { kind: Some(kind), name, issued: made(&certificate, from), expires })
    }

    /// When the next certificate is fetched: after two thirds of this one's life.
    #[must_use]
    pub fn due(&self) -> At {
        let life = self.expires.since(self.issued);
        self.issued.after(Millis(life.0 / 3 * 2))
    }
}

/// From when until when a certificate counts.
fn validity(certificate: &X509Certificate) -> (At, At) {
    let validity = certificate.validity();
    let at = |seconds: i64| At(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
    (at(validity.not_before.timestamp()), at(validity.not_after.timestamp()))
}

/// When a certificate was made; nothing where it cannot be read.
pub(crate) fn made_at(der: &[u8]) -> Option<At> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(made(&certificate, validity(&certificate).0))
}

/// When a certificate was made: by its serial number, or where that does not say it a day after it
/// began to count.
fn made(certificate: &X509Certificate, from: At) -> At {
    match certificate.raw_serial().split_first() {
        Some((&SERIAL_TAG, rest)) if rest.len() + 1 == SERIAL_BYTES => {
            rest.first_chunk().map_or(from, |millis| At(u64::from_be_bytes(*millis)))
        }
        _ => from.after(SLACK),
    }
}

/// A peer's key and certificate.
#[derive(Clone, Debug)]
pub struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) authority: CertificateDer<'static>,
    key_pkcs8: Vec<u8>,
}

impl Identity {
    pub(crate) fn new(certificate: Vec<u8>, authority: Vec<u8>, key: &KeyPair) -> Self {
        Self {
            certificate: certificate.into(),
            authority: authority.into(),
            key_pkcs8: key.serialize_der(),
        }
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_pkcs8.clone()))
    }

    pub(crate) fn key_pair(&self) -> Result<KeyPair, LinkError> {
        Ok(KeyPair::try_from(self.key_pkcs8.as_slice())?)
    }

    /// The name in the certificate.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn name(&self) -> Result<String, LinkError> {
        self.peer().map(|peer| peer.name)
    }

    /// What others see of it.
    ///
    /// # Errors
    /// Where the certificate cannot be read.
    pub fn peer(&self) -> Result<PeerIdentity, LinkError> {
        PeerIdentity::of_certificate(&self.certificate)
    }

    /// A request for the next certificate for its key.
    pub(crate) fn request(&self) -> Result<Vec<u8>, LinkError> {
        authority::request_with(&self.key_pair()?)
    }

    /// The same key with its next certificate, and the authority that has signed it: the scheduler that
    /// says so was known by the one before.
    pub(crate) fn renewed(
        &self,
        certificate: Vec<u8>,
        authority: Vec<u8>,
    ) -> Result<Self, LinkError> {
        let key = self.key_pair()?;
        let fits = X509Certificate::from_der(&certificate)
            .is_ok_and(|(_, parsed)| parsed.public_key().raw == key.subject_public_key_info());
        if !fits {
            let sentence =
                "the scheduler signed a certificate for another key than the one at hand";
            return Err(LinkError::Identity(sentence.into()));
        }
        Ok(Self { certificate: certificate.into(), authority: authority.into(), ..self.clone() })
    }

    /// From when until when the certificate counts.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn validity(&self) -> Result<(At, At), LinkError> {
        let (_, parsed) = X509Certificate::from_der(&self.certificate)
            .map_err(|_| LinkError::Identity("the certificate cannot be read".into()))?;
        Ok(validity(&parsed))
    }

    /// Writes `NAME.pem`, `NAME.key` and `authority.pem` into a folder.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn save(&self, folder: &Path, name: &str) -> Result<(), LinkError> {
        self.save_renewed(folder, name)?;
        let text = pem::encode(&pem::Pem::new("PRIVATE KEY", &self.key_pkcs8[..]));
        write_file(&folder.join(format!("{name}.key")), &text, 0o600)
    }

    /// Writes `NAME.pem`, as after a renewal, and `authority.pem` before it where that is another one now:
    /// the key stays. A scheduler that has changed its authority takes the certificate before as well, and
    /// shows that the new authority follows, so that no crash in between locks anybody out.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn save_renewed(&self, folder: &Path, name: &str) -> Result<(), LinkError> {
        let text = |der: &[u8]| pem::encode(&pem::Pem::new("CERTIFICATE", der));
        let path = folder.join("authority.pem");
        if !read_certificate(&path).is_ok_and(|there| there == self.authority.as_ref()) {
            write_file(&path, &text(&self.authority), 0o644)?;
        }
        write_file(&folder.join(format!("{name}.pem")), &text(&self.certificate), 0o644)
    }

    /// Reads what [`Identity::save`] wrote.
    ///
    /// # Errors
    /// Where a file is missing or damaged, others may read the key, or key and certificate do not
    /// belong together.
    pub fn load(folder: &Path, name: &str) -> Result<Self, LinkError> {
        let certificate = read_certificate(&folder.join(format!("{name}.pem")))?;
        let authority = read_certificate(&folder.join("authority.pem"))?;
        let path = folder.join(format!("{name}.key"));
        let key = read_key(&path)?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| {
            LinkError::Identity(format!("the certificate of {name} cannot be read"))
        })?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(LinkError::File {
                what: "using",
                path,
                reason: format!(
                    "the key does not belong to {name}.pem; restore both from one backup"
                ),
            });
        }
        Ok(Self::new(certificate, authority, &key))
    }
}

/// Reads a key of ours, after checking that nobody else may.
pub(crate) fn read_key(path: &Path) -> Result<KeyPair, LinkError> {
    let fail = |reason: String| LinkError::File { what: "reading", path: path.into(), reason };
    KeyPair::from_pem(&read_secret(path)?)
        .map_err(|error| fail(format!("it holds no key: {error}")))
}

/// Reads a key of any kind, after checking that nobody else may.
pub(crate) fn read_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, LinkError> {
    let fail = |reason: String| LinkError::File { what: "reading", path: path.into(), reason };
    PrivateKeyDer::from_pem_slice(read_secret(path)?.as_bytes())
        .map_err(|error| fail(format!("it holds no key: {error:?}")))
}

pub(crate) fn read_secret(path: &Path) -> Result<String, LinkError> {
    let fail = |reason: String| LinkError::File { what: "reading", path: path.into(), reason };
    let mode = fs::metadata(path).map_err(|error| fail(error.to_string()))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(fail(format!(
            "others may read this key (mode {:o}); run chmod 600 on it, and make a new one if somebody did",
            mode & 0o777
        )));
    }
    fs::read_to_string(path).map_err(|error| fail(error.to_string()))
}

/// Reads all certificates of a file, in their order.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LinkError> {
    let fail = |reason: String| LinkError::File { what: "reading", path: path.into(), reason };
    let text = fs::read(path).map_err(|error| fail(error.to_string()))?;
    let all: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| fail(format!("it holds a broken certificate: {error:?}")))?;
    if all.is_empty() {
        return Err(fail("it holds no certificate".into()));
    }
    Ok(all)
}

/// Reads the one certificate of a file.
pub(crate) fn read_certificate(path: &Path) -> Result<Vec<u8>, LinkError> {
    let fail = |reason: String| LinkError::File { what: "reading", path: path.into(), reason };
    let text = fs::read(path).map_err(|error| fail(error.to_string()))?;
    let der = CertificateDer::from_pem_slice(&text)
        .map_err(|error| fail(format!("it holds no certificate: {error:?}")))?;
    Ok(der.to_vec())
}

/// Writes a secret that nobody else may read.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), LinkError> {
    write_bytes(path, bytes, 0o600)
}

/// Writes a file whole or not at all, with its mode from the first byte on.
pub(crate) fn write_file(path: &Path, text: &str, mode: u32) -> Result<(), LinkError> {
    write_bytes(path, text.as_bytes(), mode)
}

/// Removes a file; one that is gone already is no error.
pub(crate) fn remove_file(path: &Path) -> Result<(), LinkError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LinkError::File { what: "removing", path: path.into(), reason: error.to_string() })
        }
        _ => Ok(()),
    }
}

/// Files that this process has written: two commands of one person may renew at once, and two tasks of
/// one process, and none may take the file of another away that is not whole yet.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

fn write_bytes(path: &Path, bytes: &[u8], mode: u32) -> Result<(), LinkError> {
    let fail = |error: std::io::Error| LinkError::File {
        what: "writing",
        path: path.into(),
        reason: error.to_string(),
    };
    let (process, count) = (std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed));
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{process}-{count}.part"));
    let part = std::path::PathBuf::from(part);
    let _ = fs::remove_file(&part);
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&part).map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fail)?;
    fs::rename(&part, path).map_err(fail)
}
