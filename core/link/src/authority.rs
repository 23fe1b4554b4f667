//! The cluster's own certificate authority.
//!
//! Made by `gantry scheduler init`. Its key never leaves the scheduler's folder; agents make
//! their keys themselves and send only a signing request.
//!
//! It is followed by another one while the cluster runs where that is wanted ([`Authority::rotate`]). The one before signs
//! a certificate for the new key, and its own key is gone from then on: who trusts the one before trusts
//! the new one through that certificate ([`Before`]), and gets the new one's own with its next certificate.
//! Once all have theirs, the one before is given up ([`Authority::finish_rotation`]).

use std::path::Path;
use std::time::{Duration, SystemTime};

use gantry_model::{At, Millis};
use rand::Rng;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};
use sha2::{Digest, Sha256};

use crate::error::LinkError;
use crate::identity::{self, Identity, IdentityKind};
use crate::tls::SERVER_NAME;
use crate::token::hexadecimal;

const DAY: Millis = Millis::from_seconds(86_400);
/// The authority outlives the machines it signs for.
const AUTHORITY_VALID: Millis = Millis::from_seconds(3650 * 86_400);
/// A day of slack before a certificate was made: the clocks of a new node are not set yet.
pub(crate) const SLACK: Millis = DAY;
/// What the serial number of a certificate begins with that says when it was made.
pub(crate) const SERIAL_TAG: u8 = 1;
/// Its bytes: the tag, milliseconds since 1970, and what makes it unlike any other.
pub(crate) const SERIAL_BYTES: usize = 17;

/// When a certificate is made and how long it counts from then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// When it is made.
    pub from: At,
    /// How long it counts.
    pub valid: Millis,
}

impl Term {
    /// How long the certificates count whose keys lie beside the authority's: whoever has those can
    /// sign anything, and a shorter life would protect nothing.
    pub const LONG: Millis = Millis::from_seconds(365 * 86_400);

    /// From now on by this host's clock, for a year.
    #[must_use]
    pub fn long() -> Self {
        Self { from: system_now(), valid: Self::LONG }
    }
}

/// This host's clock.
pub(crate) fn system_now() -> At {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    At(since.as_millis() as u64)
}

/// The authority of one cluster.
pub struct Authority {
    cluster: String,
    certificate: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    before: Option<Before>,
}

/// The authority before, for as long as it still counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Before {
    /// Its certificate.
    pub(crate) certificate: Vec<u8>,
    /// What it says of the one that follows it: a certificate for that one's key.
    pub(crate) says: Vec<u8>,
}

/// Which authorities a scheduler listens to, and what it shows to those who know one of them.
#[derive(Clone, Debug)]
pub struct Trust {
    pub(crate) authority: Vec<u8>,
    pub(crate) before: Option<Before>,
}

impl Trust {
    /// The authority of an identity, and no other.
    #[must_use]
    pub fn of(identity: &Identity) -> Self {
        Self { authority: identity.authority.to_vec(), before: None }
    }
}

/// Files of an authority in its folder.
const CERTIFICATE: &str = "authority.pem";
const KEY: &str = "authority.key";
const BEFORE: &str = "authority-before.pem";
const SAYS: &str = "authority-follows.pem";
/// All of them, as they are to be: written whole before the first of them is changed.
const NEXT: &str = "authority.next";

impl Authority {
    /// Makes a new authority and writes `authority.pem` and `authority.key` into the folder.
    ///
    /// # Errors
    /// Where the folder already holds one, or cannot be written.
    pub fn create(folder: &Path, cluster: &str) -> Result<Self, LinkError> {
        let path = folder.join(KEY);
        if path.exists() {
            return Err(LinkError::File {
                what: "making an authority in",
                path: folder.into(),
                reason:
                    "it already holds one; a second would lock out every node, use another folder"
                        .into(),
            });
        }
        let (key, params) = (KeyPair::generate()?, own_params(cluster, system_now()));
        let certificate = params.self_signed(&key)?;
        identity::write_file(&path, &key.serialize_pem(), 0o600)?;
        identity::write_file(&folder.join(CERTIFICATE), &certificate.pem(), 0o644)?;
        Self::load(folder)
    }

    /// Reads the authority of a folder. A change to the next one that was not ended is ended first.
    ///
    /// # Errors
    /// Where there is none, or others may read its key.
    pub fn load(folder: &Path) -> Result<Self, LinkError> {
        change_over(folder)?;
        let certificate = identity::read_certificate(&folder.join(CERTIFICATE))?;
        let key = identity::read_key(&folder.join(KEY))?;
        let before = if folder.join(BEFORE).exists() {
            Some(Before {
                certificate: identity::read_certificate(&folder.join(BEFORE))?,
                says: identity::read_certificate(&folder.join(SAYS))?,
            })
        } else {
            None
        };
        let der = certificate.clone().into();
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        let cluster = common_name(&certificate)?;
        Ok(Self { cluster, certificate, issuer, before })
    }

    /// Makes the authority that follows this one at that time, in the folder of this one, whose key is gone
    /// then.
    ///
    /// # Errors
    /// Where the one before this one still counts, or the folder cannot be written; what has begun then is
    /// ended by the next [`Self::load`].
    pub fn rotate(&self, folder: &Path, at: At) -> Result<Self, LinkError> {
        if self.before.is_some() {
            let sentence =
                "a rotation of the authority is not finished; finish it before the next one";
            return Err(LinkError::Identity(sentence.into()));
        }
        let (key, params) = (KeyPair::generate()?, own_params(&self.cluster, at));
        let certificate = params.self_signed(&key)?;
        let says = params.signed_by(&key, &self.issuer)?;
        let before = pem::encode(&pem::Pem::new("CERTIFICATE", &self.certificate[..]));
        let all = [key.serialize_pem(), certificate.pem(), says.pem(), before].concat();
        identity::write_file(&folder.join(NEXT), &all, 0o600)?;
        Self::load(folder)
    }

    /// Gives the authority before up: what it has signed counts no more.
    ///
    /// # Errors
    /// Where there is none, or the folder cannot be written.
    pub fn finish_rotation(&self, folder: &Path) -> Result<Self, LinkError> {
        if self.before.is_none() {
            let sentence = "no rotation of the authority has begun";
            return Err(LinkError::Identity(sentence.into()));
        }
        for name in [BEFORE, SAYS] {
            identity::remove_file(&folder.join(name))?;
        }
        Self::load(folder)
    }

    /// When this authority was made; nothing where its certificate does not say it.
    #[must_use]
    pub fn made(&self) -> Option<At> {
        identity::made_at(&self.certificate)
    }

    /// When this authority was made, where the one before still counts.
    #[must_use]
    pub fn rotating_since(&self) -> Option<At> {
        self.before.as_ref()?;
        self.made()
    }

    /// Whom a scheduler of this authority listens to.
    #[must_use]
    pub fn trust(&self) -> Trust {
        Trust { authority: self.certificate.clone(), before: self.before.clone() }
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The SHA-256 of the authority's certificate, in hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.certificate)
    }

    /// The authority's certificate.
    #[must_use]
    pub fn certificate_der(&self) -> Vec<u8> {
        self.certificate.clone()
    }

    /// Makes a key and signs a certificate for it that counts for a year.
    ///
    /// # Errors
    /// Where the name is not one that a certificate can carry.
    pub fn issue(&self, kind: IdentityKind, name: &str) -> Result<Identity, LinkError> {
        self.issue_for(kind, name, Term::long())
    }

    /// Makes a key and signs a certificate for it.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_for(
        &self,
        kind: IdentityKind,
        name: &str,
        term: Term,
    ) -> Result<Identity, LinkError> {
        self.certify(kind, name, term, &KeyPair::generate()?)
    }

    /// Signs the next certificate for the key of an identity that is at hand.
    ///
    /// # Errors
    /// Where the identity cannot be read.
    pub fn reissue(&self, identity: &Identity, term: Term) -> Result<Identity, LinkError> {
        let peer = identity.peer()?;
        let kind = peer.kind.ok_or_else(|| LinkError::Identity("it says no kind".into()))?;
        self.certify(kind, &peer.name, term, &identity.key_pair()?)
    }

    fn certify(
        &self,
        kind: IdentityKind,
        name: &str,
        term: Term,
        key: &KeyPair,
    ) -> Result<Identity, LinkError> {
        let certificate = leaf(kind, name, term)?.signed_by(key, &self.issuer)?;
        Ok(Identity::new(certificate.der().to_vec(), self.certificate.clone(), key))
    }

    /// Signs a certificate for the key of a signing request. Only the public key is taken from the
    /// request; what the certificate says is decided here.
    ///
    /// # Errors
    /// Where the request is malformed or not signed by its own key.
    pub fn sign(
        &self,
        kind: IdentityKind,
        name: &str,
        term: Term,
        request_der: &[u8],
    ) -> Result<Vec<u8>, LinkError> {
        let mut request = CertificateSigningRequestParams::from_der(&request_der.to_vec().into())
            .map_err(|error| {
            LinkError::Identity(format!("the signing request cannot be used: {error}"))
        })?;
        request.params = leaf(kind, name, term)?;
        Ok(request.signed_by(&self.issuer)?.der().to_vec())
    }
}

/// A request for a certificate, and the key it is for.
pub(crate) fn request() -> Result<(Vec<u8>, KeyPair), LinkError> {
    let key = KeyPair::generate()?;
    Ok((request_with(&key)?, key))
}

/// A request for a certificate for a key.
pub(crate) fn request_with(key: &KeyPair) -> Result<Vec<u8>, LinkError> {
    let term = Term { from: system_now(), valid: DAY };
    Ok(params(term).serialize_request(key)?.der().to_vec())
}

/// The SHA-256 of a certificate, in hexadecimal.
pub(crate) fn fingerprint(certificate: &[u8]) -> String {
    hexadecimal(&Sha256::digest(certificate))
}

/// What an authority says of itself.
fn own_params(cluster: &str, at: At) -> CertificateParams {
    let mut params = params(Term { from: at, valid: AUTHORITY_VALID });
    params.serial_number = Some(serial(at));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, cluster);
    params.distinguished_name.push(DnType::OrganizationalUnitName, "authority");
    params
}

/// Puts the authority that follows at the place of the one before, from the file that has all of both.
/// However often this begins, it ends the same.
fn change_over(folder: &Path) -> Result<(), LinkError> {
    let next = folder.join(NEXT);
    if !next.exists() {
        return Ok(());
    }
    let text = identity::read_secret(&next)?;
    let broken = || LinkError::File {
        what: "reading",
        path: next.clone(),
        reason: "it is not as it was written; restore the folder from a backup".into(),
    };
    let parts = pem::parse_many(&text).map_err(|_| broken())?;
    let [key, certificate, says, before] = parts.as_slice() else { return Err(broken()) };
    for (name, part, mode) in [
        (BEFORE, before, 0o644),
        (SAYS, says, 0o644),
        (KEY, key, 0o600),
        (CERTIFICATE, certificate, 0o644),
    ] {
        identity::write_file(&folder.join(name), &pem::encode(part), mode)?;
    }
    identity::remove_file(&next)
}

fn params(term: Term) -> CertificateParams {
    let time = |at: At| SystemTime::UNIX_EPOCH + Duration::from_millis(at.0);
    let mut params = CertificateParams::default();
    params.not_before = time(At(term.from.0.saturating_sub(SLACK.0))).into();
    params.not_after = time(term.from.after(term.valid)).into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

/// A serial number that says to the millisecond when its certificate was made: what was made before
/// access was taken away is told from what was made after.
fn serial(at: At) -> SerialNumber {
    let mut bytes = vec![SERIAL_TAG];
    bytes.extend(at.0.to_be_bytes());
    bytes.resize(SERIAL_BYTES, 0);
    rand::rng().fill_bytes(&mut bytes[9..]);
    bytes.into()
}

fn leaf(kind: IdentityKind, name: &str, term: Term) -> Result<CertificateParams, LinkError> {
    gantry_model::job::check_name("peer", name).map_err(LinkError::Refused)?;
    let mut params = params(term);
    params.serial_number = Some(serial(term.from));
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationalUnitName, kind.word());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = if kind == IdentityKind::Scheduler {
        let name = SERVER_NAME.try_into()?;
        params.subject_alt_names = vec![rcgen::SanType::DnsName(name)];
        vec![ExtendedKeyUsagePurpose::ServerAuth]
    } else {
        vec![ExtendedKeyUsagePurpose::ClientAuth]
    };
    Ok(params)
}

fn common_name(certificate: &[u8]) -> Result<String, LinkError> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let unreadable = || LinkError::Identity("the authority's certificate cannot be read".into());
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| unreadable())?;
    let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    Ok(name.ok_or_else(unreadable)?.to_owned())
}
