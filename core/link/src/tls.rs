//! The rustls configurations, built by hand: TLS 1.3 only, no early data, no resumption (a resumed
//! session would skip the check of the client's certificate), and one provider.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName,
    RootCertStore, ServerConfig, SignatureScheme,
};

use crate::authority::{Trust, fingerprint};
use crate::error::LinkError;
use crate::identity::{Identity, PeerIdentity};
use crate::server::Times;

/// The name in every scheduler's certificate. Peers know it by its authority, not by its host.
pub(crate) const SERVER_NAME: &str = "scheduler.gantry";
/// The protocol's name in the handshake; the version is agreed in the first message.
const ALPN: &[u8] = b"gantry";
/// What a caller names besides who has the authority's certificate and need not be sent it. It is never
/// what both agree on.
const KNOWN: &[u8] = b"gantry authority known";

/// The one place where the cryptography is chosen. Of what both sides know the caller's first suite is
/// taken: that of RFC 8446 which every program must know comes first, as its hash is one that
/// processors have an instruction for. With the longest first, its hash took 3 % of the scheduler's time
/// while ten thousand agents came back.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    let first = CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != first);
    Arc::new(provider)
}

/// The authority, and the one before for as long as it counts.
fn trusted(trust: &Trust) -> Result<Arc<RootCertStore>, LinkError> {
    let before = trust.before.iter().map(|before| &before.certificate);
    all_roots([&trust.authority].into_iter().chain(before).map(|der| der.clone().into()).collect())
}

fn roots(authority: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, LinkError> {
    all_roots(vec![authority.clone()])
}

fn all_roots(all: Vec<CertificateDer<'static>>) -> Result<Arc<RootCertStore>, LinkError> {
    let mut roots = RootCertStore::empty();
    for one in all {
        roots.add(one).map_err(wrong)?;
    }
    Ok(Arc::new(roots))
}

fn wrong(error: impl std::fmt::Display) -> LinkError {
    LinkError::Identity(format!("setting up TLS failed: {error}"))
}

/// The scheduler's side: a client's certificate must be the authority's; a client without one is
/// let in as nobody, and may only join. One whose certificate has ended not long ago is let in too,
/// and may only renew it ([`crate::server`] sees to that).
pub(crate) fn server(
    identity: &Identity,
    trust: &Trust,
    times: &Times,
) -> Result<ServerConfig, LinkError> {
    let strict = WebPkiClientVerifier::builder_with_provider(trusted(trust)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(wrong)?;
    let verifier = Arc::new(Renewable { strict, times: times.clone() });
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(times.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(wrong)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Chains::new(identity, trust)?));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.max_early_data_size = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The side that peers from outside the cluster call. They are no programs of ours, so TLS 1.2 is spoken,
/// too (BCP 195), and what they say within it is theirs. Sessions are not resumed, as above.
pub(crate) fn outside(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authority: Option<Vec<CertificateDer<'static>>>,
) -> Result<ServerConfig, LinkError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])
        .map_err(wrong)?;
    let builder = match authority {
        None => builder.with_no_client_auth(),
        Some(all) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(all_roots(all)?, provider())
                .build()
                .map_err(wrong)?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(wrong)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The side that calls peers from outside the cluster: as [`outside`], the other way round. They show a
/// certificate of the authority that bears the name they are called by; we show ours to who asks.
pub(crate) fn outward(
    authority: Vec<CertificateDer<'static>>,
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<ClientConfig, LinkError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])
        .map_err(wrong)?
        .with_root_certificates(all_roots(authority)?);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(wrong)?,
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The side of a peer with an identity.
pub(crate) fn client(identity: &Identity) -> Result<ClientConfig, LinkError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(wrong)?
        .with_root_certificates(roots(&identity.authority)?)
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.key())
        .map_err(wrong)?;
    let mut config = finish(config);
    config.alpn_protocols.push(KNOWN.to_vec());
    Ok(config)
}

/// The side of a node that has nothing but a token: it trusts the authority whose certificate has
/// the token's fingerprint, and no other.
pub(crate) fn joining(authority_fingerprint: String) -> Result<ClientConfig, LinkError> {
    let verifier = Arc::new(Pinned { authority_fingerprint, provider: provider() });
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(wrong)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(finish(config))
}

fn finish(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config
}

/// The scheduler's certificate, and with the authority's behind it for who must be shown that. Without it
/// the scheduler's first answer is one datagram instead of two, and so is the buffer that quinn keeps
/// for the datagrams of each connection. While the authority before still counts, what that one says of
/// this one is shown to all: who knows one of the two finds a way to it.
#[derive(Debug)]
struct Chains {
    alone: Arc<CertifiedKey>,
    whole: Arc<CertifiedKey>,
}

impl Chains {
    fn new(identity: &Identity, trust: &Trust) -> Result<Self, LinkError> {
        let key = provider().key_provider.load_private_key(identity.key()).map_err(wrong)?;
        let (mut alone, mut whole) = (vec![identity.certificate.clone()], Vec::new());
        if let Some(before) = &trust.before {
            alone.push(before.says.clone().into());
            whole.push(before.certificate.clone().into());
        }
        whole.push(trust.authority.clone().into());
        let whole = [alone.clone(), whole].concat();
        Ok(Self {
            alone: Arc::new(CertifiedKey::new(alone, key.clone())),
            whole: Arc::new(CertifiedKey::new(whole, key)),
        })
    }
}

impl ResolvesServerCert for Chains {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_known = hello.alpn().is_some_and(|mut names| names.any(|name| name == KNOWN));
        Some(if is_known { self.alone.clone() } else { self.whole.clone() })
    }
}

impl TimeProvider for Times {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.now().0)))
    }
}

/// Checks callers as rustls does, and lets those through that are well but for their age.
#[derive(Debug)]
struct Renewable {
    strict: Arc<dyn ClientCertVerifier>,
    times: Times,
}

impl ClientCertVerifier for Renewable {
    fn client_auth_mandatory(&self) -> bool {
        self.strict.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.strict.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let judged = self.strict.verify_client_cert(end_entity, intermediates, now);
        let Err(rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) = &judged
        else {
            return judged;
        };
        let Ok(peer) = PeerIdentity::of_certificate(end_entity) else { return judged };
        if self.times.now() > peer.expires.after(self.times.grace) {
            return judged;
        }
        // It was well while it counted, or the error of that moment stands.
        let while_it_counted = UnixTime::since_unix_epoch(Duration::from_millis(peer.expires.0));
        self.strict.verify_client_cert(end_entity, intermediates, while_it_counted)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.strict.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.strict.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}

/// Checks a scheduler against the fingerprint of its authority.
#[derive(Debug)]
struct Pinned {
    authority_fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| fingerprint(certificate) == self.authority_fingerprint)
            .ok_or_else(|| {
                rustls::Error::General("the scheduler has another authority than the token".into())
            })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConnection, ServerConnection};

    use super::*;
    use crate::authority::Authority;
    use crate::identity::IdentityKind;

    /// The certificates that a scheduler shows to this caller.
    fn shown(caller: ClientConfig, scheduler: &ServerConfig) -> usize {
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let mut caller = ClientConnection::new(Arc::new(caller), name).unwrap();
        let mut scheduler = ServerConnection::new(Arc::new(scheduler.clone())).unwrap();
        while caller.is_handshaking() {
            let (mut there, mut back) = (Vec::new(), Vec::new());
            caller.write_tls(&mut there).unwrap();
            scheduler.read_tls(&mut &there[..]).unwrap();
            scheduler.process_new_packets().unwrap();
            scheduler.write_tls(&mut back).unwrap();
            caller.read_tls(&mut &back[..]).unwrap();
            caller.process_new_packets().unwrap();
        }
        assert_eq!(caller.alpn_protocol(), Some(ALPN));
        caller.peer_certificates().unwrap().len()
    }

    #[test]
    fn the_authority_is_shown_to_who_has_not_got_it_alone() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path(), "test").unwrap();
        let issue = |kind| authority.issue(kind, "one").unwrap();
        let identity = issue(IdentityKind::Scheduler);
        let scheduler = server(&identity, &authority.trust(), &Times::default()).unwrap();
        assert_eq!(shown(client(&issue(IdentityKind::Agent)).unwrap(), &scheduler), 1);
        assert_eq!(shown(joining(authority.fingerprint()).unwrap(), &scheduler), 2);
    }
}
