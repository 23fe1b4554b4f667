//! The cluster's own certificate authority.
//!
//! Made once by `gantry scheduler init`. Its key never leaves the scheduler's folder; agents make
//! their keys themselves and send only a signing request.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use sha2::{Digest, Sha256};

use crate::error::LinkError;
use crate::identity::{self, Identity, IdentityKind};
use crate::tls::SERVER_NAME;
use crate::token::hexadecimal;

const DAY: Duration = Duration::from_hours(24);
/// The authority outlives the machines it signs for.
const AUTHORITY_VALID: Duration = Duration::from_hours(24 * 3650);
/// Until certificates are renewed over the connection they last for a year.
const CERTIFICATE_VALID: Duration = Duration::from_hours(24 * 365);

/// The authority of one cluster.
pub struct Authority {
    cluster: String,
    certificate: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority and writes `authority.pem` and `authority.key` into the folder.
    ///
    /// # Errors
    /// Where the folder already holds one, or cannot be written.
    pub fn create(folder: &Path, cluster: &str) -> Result<Self, LinkError> {
        let path = folder.join("authority.key");
        if path.exists() {
            return Err(LinkError::File {
                what: "making an authority in",
                path: folder.into(),
                reason:
                    "it already holds one; a second would lock out every node, use another folder"
                        .into(),
            });
        }
        let key = KeyPair::generate()?;
        let mut params = params(AUTHORITY_VALID);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, cluster);
        params.distinguished_name.push(DnType::OrganizationalUnitName, "authority");
        let certificate = params.self_signed(&key)?;
        identity::write_file(&path, &key.serialize_pem(), 0o600)?;
        identity::write_file(&folder.join("authority.pem"), &certificate.pem(), 0o644)?;
        Self::load(folder)
    }

    /// Reads the authority of a folder.
    ///
    /// # Errors
    /// Where there is none, or others may read its key.
    pub fn load(folder: &Path) -> Result<Self, LinkError> {
        let certificate = identity::read_certificate(&folder.join("authority.pem"))?;
        let key = identity::read_key(&folder.join("authority.key"))?;
        let der = certificate.clone().into();
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        let cluster = common_name(&certificate)?;
        Ok(Self { cluster, certificate, issuer })
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

    /// Makes a key and signs a certificate for it.
    ///
    /// # Errors
    /// Where the name is not one that a certificate can carry.
    pub fn issue(&self, kind: IdentityKind, name: &str) -> Result<Identity, LinkError> {
        let key = KeyPair::generate()?;
        let certificate = leaf(kind, name)?.signed_by(&key, &self.issuer)?;
        Ok(Identity::new(certificate.der().to_vec(), self.certificate.clone(), &key))
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
        request_der: &[u8],
    ) -> Result<Vec<u8>, LinkError> {
        let mut request = CertificateSigningRequestParams::from_der(&request_der.to_vec().into())
            .map_err(|error| {
            LinkError::Identity(format!("the signing request cannot be used: {error}"))
        })?;
        request.params = leaf(kind, name)?;
        Ok(request.signed_by(&self.issuer)?.der().to_vec())
    }
}

/// A request for a certificate, and the key it is for.
pub(crate) fn request() -> Result<(Vec<u8>, KeyPair), LinkError> {
    let key = KeyPair::generate()?;
    let request = params(DAY).serialize_request(&key)?;
    Ok((request.der().to_vec(), key))
}

/// The SHA-256 of a certificate, in hexadecimal.
pub(crate) fn fingerprint(certificate: &[u8]) -> String {
    hexadecimal(&Sha256::digest(certificate))
}

fn params(valid: Duration) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    // A day of slack: the clocks of a new node are not set yet.
    params.not_before = (now - DAY).into();
    params.not_after = (now + valid).into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

fn leaf(kind: IdentityKind, name: &str) -> Result<CertificateParams, LinkError> {
    gantry_model::job::check_name("peer", name).map_err(LinkError::Refused)?;
    let mut params = params(CERTIFICATE_VALID);
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
