//! TLS over TCP for peers that are not of the cluster, as scanners are: by the site's own certificates.
//!
//! Who answers such peers reads and writes a socket, as without TLS: the other end of that socket is a
//! thread here that encrypts. The libraries of their protocols then need to know nothing of TLS, and a
//! peer that hangs up at any moment is an end like any other. Who does not begin with TLS is refused
//! before a byte of it is taken for anything else.
//!
//! Who calls such peers ([`Outward`]) is given such a socket too.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, copy_buf, split};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::LinkError;
use crate::identity;
use crate::tls;

/// The first byte of a TLS record that begins a handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// Bytes that are handed on at once: as many as a message of DICOM has.
const BUFFER_BYTES: usize = 128 * 1024;

/// What answers with TLS.
pub struct Outside {
    acceptor: TlsAcceptor,
}

/// What calls with TLS.
pub struct Outward {
    connector: TlsConnector,
}

/// Why a call over TLS has ended, where that was not in order: a peer may only then say what it thinks of
/// our certificate.
#[derive(Clone, Debug, Default)]
pub struct Ended(Arc<Mutex<Option<String>>>);

impl Ended {
    /// Returns the reason once there is one; the socket says that it has ended after that.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, error: &io::Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    }
}

impl Outward {
    /// Calls peers that show a certificate of this authority (PEM, one or several), and shows its own
    /// certificate, given with its key, to those that ask for one.
    ///
    /// # Errors
    /// Where a file cannot be read, others may read the key, or they do not belong together.
    pub fn new(authority: &Path, own: Option<(&Path, &Path)>) -> Result<Self, LinkError> {
        let authority = identity::read_certificates(authority)?;
        let own = own.map(|(certificate, key)| {
            let chain = identity::read_certificates(certificate)?;
            Ok::<_, LinkError>((chain, identity::read_private_key(key)?))
        });
        let config = tls::outward(authority, own.transpose()?)?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Agrees with a peer that was called, whose certificate must bear this name or address, and gives
    /// the socket on which it can be spoken with in plain.
    ///
    /// # Errors
    /// Where its certificate is not the one that is wanted, it speaks no TLS, or does not answer in time.
    pub fn agree(
        &self,
        peer: TcpStream,
        name: &str,
        within: Duration,
    ) -> Result<(TcpStream, Ended), Refused> {
        let server = ServerName::try_from(name.to_owned())
            .map_err(|error| Refused::Certificate(format!("{name:?} is no name: {error}")))?;
        let runtime = runtime()?;
        let stream = runtime.block_on(async {
            let peer = adopted(peer)?;
            match tokio::time::timeout(within, self.connector.connect(server, peer)).await {
                Ok(agreed) => agreed.map_err(|error| refusal(&error)),
                Err(_) => Err(Refused::Handshake("it did not finish in time".into())),
            }
        })?;
        let ended = Ended::default();
        Ok((hand_on(runtime, stream, within, ended.clone())?, ended))
    }
}

/// Why a peer was not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It does not speak TLS.
    Plain,
    /// Its certificate is missing or not one of the authority.
    Certificate(String),
    /// It broke off, or agrees to no version or cipher that is safe.
    Handshake(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.write_str("it does not speak TLS; switch TLS on where it sends from"),
            Self::Certificate(why) => write!(f, "its certificate was not accepted: {why}"),
            Self::Handshake(why) => write!(f, "the TLS handshake failed: {why}"),
        }
    }
}

impl Outside {
    /// Answers with a certificate (PEM, its own first, then those between it and its authority) and its
    /// key. With an authority, peers need a certificate of it.
    ///
    /// # Errors
    /// Where a file cannot be read, others may read the key, or they do not belong together.
    pub fn new(
        certificate: &Path,
        key: &Path,
        authority: Option<&Path>,
    ) -> Result<Self, LinkError> {
        let chain = identity::read_certificates(certificate)?;
        let authority = authority.map(identity::read_certificates).transpose()?;
        let config = tls::outside(chain, identity::read_private_key(key)?, authority)?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Lets a peer in, and gives the socket on which it can be spoken with in plain.
    ///
    /// # Errors
    /// Where it speaks no TLS, breaks off, or does not say within this time who it is.
    pub fn accept(&self, peer: TcpStream, within: Duration) -> Result<TcpStream, Refused> {
        peer.set_read_timeout(Some(within)).map_err(failed)?;
        let mut first = [0];
        match peer.peek(&mut first).map_err(failed)? {
            0 => return Err(Refused::Handshake("it hung up before its first message".into())),
            _ if first[0] != HANDSHAKE => return Err(Refused::Plain),
            _ => {}
        }
        let runtime = runtime()?;
        let stream = runtime.block_on(async {
            let peer = adopted(peer)?;
            match tokio::time::timeout(within, self.acceptor.accept(peer)).await {
                Ok(accepted) => accepted.map_err(|error| refusal(&error)),
                Err(_) => Err(Refused::Handshake("it did not finish in time".into())),
            }
        })?;
        hand_on(runtime, stream, within, Ended::default())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn failed(error: io::Error) -> Refused {
    Refused::Handshake(error.to_string())
}

fn runtime() -> Result<Runtime, Refused> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)
}

/// Takes a socket into the runtime that this is called in.
fn adopted(peer: TcpStream) -> Result<tokio::net::TcpStream, Refused> {
    peer.set_nonblocking(true).map_err(failed)?;
    tokio::net::TcpStream::from_std(peer).map_err(failed)
}

/// Starts the thread that encrypts, and gives the other end of its socket.
fn hand_on(
    runtime: Runtime,
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    within: Duration,
    ended: Ended,
) -> Result<TcpStream, Refused> {
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    theirs.set_nonblocking(true).map_err(failed)?;
    std::thread::Builder::new()
        .name("tls".into())
        .spawn(move || runtime.block_on(carry(stream, theirs, within, ended)))
        .map_err(failed)?;
    // A socket is a socket: reading, writing, time limits and its end are the same for both kinds.
    Ok(TcpStream::from(OwnedFd::from(ours)))
}

/// Carries bytes both ways until our side has ended. A peer that ends first is told to our side as an
/// end, which may still answer. A peer that takes nothing for so long is given up.
async fn carry(
    stream: impl AsyncRead + AsyncWrite,
    inside: UnixStream,
    within: Duration,
    ended: Ended,
) {
    let Ok(inside) = tokio::net::UnixStream::from_std(inside) else { return };
    let (mut from_inside, mut to_inside) = inside.into_split();
    let (from_peer, mut to_peer) = split(stream);
    let inward = async {
        let mut from = BufReader::with_capacity(BUFFER_BYTES, from_peer);
        // An error is an end: our side sees it as such, and it is the one that says what is missing.
        if let Err(error) = copy_buf(&mut from, &mut to_inside).await {
            ended.set(&error);
        }
        let _ = to_inside.shutdown().await;
        std::future::pending::<()>().await;
    };
    let outward = async {
        let mut bytes = vec![0; BUFFER_BYTES];
        while let Ok(count @ 1..) = from_inside.read(&mut bytes).await {
            let told = async {
                to_peer.write_all(&bytes[..count]).await?;
                to_peer.flush().await
            };
            if !matches!(tokio::time::timeout(within, told).await, Ok(Ok(()))) {
                return;
            }
        }
        let _ = tokio::time::timeout(within, to_peer.shutdown()).await;
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}

fn refusal(error: &io::Error) -> Refused {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)) => {
            Refused::Certificate(error.to_string())
        }
        _ => Refused::Handshake(error.to_string()),
    }
}
