//! TLS over TCP for peers that are not of the cluster, as scanners are: by the site's own certificates.
//!
//! Who answers such peers reads and writes a socket, as without TLS: the other end of that socket is a
//! thread here that encrypts. The libraries of their protocols then need to know nothing of TLS, and a
//! peer that hangs up at any moment is an end like any other. Who does not begin with TLS is refused
//! before a byte of it is taken for anything else.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, copy_buf, split};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

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
        let failed = |error: io::Error| Refused::Handshake(error.to_string());
        peer.set_read_timeout(Some(within)).map_err(failed)?;
        let mut first = [0];
        match peer.peek(&mut first).map_err(failed)? {
            0 => return Err(Refused::Handshake("it hung up before its first message".into())),
            _ if first[0] != HANDSHAKE => return Err(Refused::Plain),
            _ => {}
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let stream = runtime.block_on(async {
            peer.set_nonblocking(true).map_err(failed)?;
            let peer = tokio::net::TcpStream::from_std(peer).map_err(failed)?;
            match tokio::time::timeout(within, self.acceptor.accept(peer)).await {
                Ok(accepted) => accepted.map_err(|error| refusal(&error)),
                Err(_) => Err(Refused::Handshake("it did not finish in time".into())),
            }
        })?;
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        theirs.set_nonblocking(true).map_err(failed)?;
        std::thread::Builder::new()
            .name("tls".into())
            .spawn(move || runtime.block_on(carry(stream, theirs, within)))
            .map_err(failed)?;
        // A socket is a socket: reading, writing, time limits and its end are the same for both kinds.
        Ok(TcpStream::from(OwnedFd::from(ours)))
    }
}

/// Carries bytes both ways until our side has ended. A peer that ends first is told to our side as an
/// end, which may still answer. A peer that takes nothing for so long is given up.
async fn carry(stream: TlsStream<tokio::net::TcpStream>, inside: UnixStream, within: Duration) {
    let Ok(inside) = tokio::net::UnixStream::from_std(inside) else { return };
    let (mut from_inside, mut to_inside) = inside.into_split();
    let (from_peer, mut to_peer) = split(stream);
    let inward = async {
        let mut from = BufReader::with_capacity(BUFFER_BYTES, from_peer);
        // An error is an end: our side sees it as such, and it is the one that says what is missing.
        let _ = copy_buf(&mut from, &mut to_inside).await;
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
