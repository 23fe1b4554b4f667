//! A connection with a known peer, and the streams of messages on it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use gantry_wire::frame::{self, HEADER_BYTES, Message};
use quinn::{ReadError, RecvStream, SendStream};

use crate::error::LinkError;
use crate::identity::PeerIdentity;
use crate::transport::STREAMS_MAX;

/// How long opening a stream or sending one message may take before the peer counts as stuck.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages are written together up to this size: larger writes gain nothing.
const TOGETHER_BYTES: usize = 32 * 1024;
/// Bytes that are taken from a stream at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// A connection. Clones share it.
#[derive(Clone, Debug)]
pub struct Connection {
    quic: quinn::Connection,
    peer: PeerIdentity,
}

impl Connection {
    pub(crate) fn new(quic: quinn::Connection) -> Result<Self, LinkError> {
        let peer = match quic.peer_identity() {
            None => PeerIdentity::nobody(),
            Some(identity) => {
                let chain = identity
                    .downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
                    .map_err(|_| LinkError::Identity("the peer has no X.509 certificate".into()))?;
                match chain.first() {
                    Some(certificate) => PeerIdentity::of_certificate(certificate)?,
                    None => PeerIdentity::nobody(),
                }
            }
        };
        Ok(Self { quic, peer })
    }

    /// Who stands at the other end, by the certificate.
    #[must_use]
    pub fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// The peer's address.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    /// Opens a stream in both directions.
    ///
    /// # Errors
    /// Where the connection has ended, or the peer takes no further stream in time.
    pub async fn open(&self) -> Result<(Sender, Receiver), LinkError> {
        let (send, receive) = within("opening a stream", self.quic.open_bi())
            .await?
            .map_err(|error| LinkError::Closed(error.to_string()))?;
        Ok((Sender(send), Receiver::new(receive)))
    }

    /// Lets the peer open as many streams as anyone may.
    pub(crate) fn allow_streams(&self) {
        self.quic.set_max_concurrent_bi_streams(STREAMS_MAX.into());
    }

    /// Waits for a stream that the peer opens; `None` once the connection has ended.
    pub async fn accept(&self) -> Option<(Sender, Receiver)> {
        let (send, receive) = self.quic.accept_bi().await.ok()?;
        Some((Sender(send), Receiver::new(receive)))
    }

    /// Sends a message that may be lost. Says `false` where it does not fit: use a stream then.
    #[must_use]
    pub fn send_datagram<T: Message>(&self, message: &T) -> bool {
        let Ok(bytes) = frame::write(message) else { return false };
        let fits = self.quic.max_datagram_size().is_some_and(|max| bytes.len() <= max);
        fits && self.quic.send_datagram(bytes.into()).is_ok()
    }

    /// Waits for a datagram; `None` once the connection has ended.
    ///
    /// # Errors
    /// Where the datagram is no such message; the connection lives on.
    pub async fn receive_datagram<T: Message>(&self) -> Result<Option<T>, LinkError> {
        match self.quic.read_datagram().await {
            Ok(bytes) => Ok(Some(frame::read(&bytes)?)),
            Err(_) => Ok(None),
        }
    }

    /// Waits for the end of the connection and says why it ended.
    pub async fn closed(&self) -> String {
        self.quic.closed().await.to_string()
    }

    /// Ends the connection with a reason that the peer can show.
    pub fn close(&self, reason: &str) {
        self.quic.close(0_u32.into(), reason.as_bytes());
    }
}

/// The sending half of a stream.
#[derive(Debug)]
pub struct Sender(SendStream);

impl Sender {
    /// Sends one message.
    ///
    /// # Errors
    /// Where it is too long, the stream or connection has ended, or the peer does not read.
    pub async fn send<T: Message>(&mut self, message: &T) -> Result<(), LinkError> {
        self.write(&frame::write(message)?).await
    }

    /// Sends a message that [`frame::write`] has written: one that goes to many is written once.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn send_written(&mut self, frame: &[u8]) -> Result<(), LinkError> {
        self.write(frame).await
    }

    /// Sends several messages, as few writes as hold them.
    ///
    /// # Errors
    /// As [`Sender::send`]; those before the one that failed may have been sent.
    pub async fn send_all<T: Message>(&mut self, messages: &[T]) -> Result<(), LinkError> {
        let mut bytes = Vec::new();
        for message in messages {
            bytes.extend(frame::write(message)?);
            if bytes.len() >= TOGETHER_BYTES {
                self.write(&bytes).await?;
                bytes.clear();
            }
        }
        if bytes.is_empty() { Ok(()) } else { self.write(&bytes).await }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        within("sending a message", self.0.write_all(bytes))
            .await?
            .map_err(|error| LinkError::Closed(error.to_string()))
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        // An error means that the stream has ended already, which is what was wanted.
        let _ = self.0.finish();
    }

    /// Waits until the peer has taken everything that was sent, or is gone.
    pub async fn delivered(&mut self) {
        self.finish();
        let _ = within("waiting for the peer to read", self.0.stopped()).await;
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub struct Receiver {
    stream: RecvStream,
    /// What has come and is no whole message yet, or not asked for.
    bytes: BytesMut,
}

impl Receiver {
    fn new(stream: RecvStream) -> Self {
        Self { stream, bytes: BytesMut::new() }
    }
}

impl Receiver {
    /// Waits for the next message; `None` once the peer has finished the stream.
    ///
    /// Cancel safe: what has come of a message is there for the next call.
    ///
    /// # Errors
    /// Where the stream broke off, or what came is no such message.
    pub async fn receive<T: Message>(&mut self) -> Result<Option<T>, LinkError> {
        loop {
            if let Some(message) = self.next()? {
                return Ok(Some(message));
            }
            let chunk = self.stream.read_chunk(CHUNK_BYTES, true).await;
            match chunk.map_err(|error| broken(&error))? {
                Some(chunk) => self.bytes.extend_from_slice(&chunk.bytes),
                None if self.bytes.is_empty() => return Ok(None),
                None => {
                    return Err(LinkError::Closed("the peer finished within a message".into()));
                }
            }
        }
    }

    /// The next message, where all of it is there. Its length is checked before room is made for it.
    fn next<T: Message>(&mut self) -> Result<Option<T>, LinkError> {
        let Some(head) = self.bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let head = frame::header(head)?;
        let whole = HEADER_BYTES + head.length;
        let Some(value) = self.bytes.get(HEADER_BYTES..whole) else {
            self.bytes.reserve(whole - self.bytes.len());
            return Ok(None);
        };
        let message = frame::value(head, value)?;
        self.bytes.advance(whole);
        Ok(Some(message))
    }

    /// Waits for one message that must come.
    ///
    /// # Errors
    /// As [`Receiver::receive`], and where the peer finished instead.
    pub async fn expect<T: Message>(&mut self) -> Result<T, LinkError> {
        let message = self.receive().await?;
        message.ok_or_else(|| LinkError::Closed("the peer finished without an answer".into()))
    }
}

fn broken(error: &ReadError) -> LinkError {
    match error {
        ReadError::ConnectionLost(lost) => LinkError::Closed(lost.to_string()),
        other => LinkError::Closed(other.to_string()),
    }
}

async fn within<F: Future>(what: &'static str, future: F) -> Result<F::Output, LinkError> {
    tokio::time::timeout(SEND_TIMEOUT, future)
        .await
        .map_err(|_| LinkError::Timeout { what, seconds: SEND_TIMEOUT.as_secs() })
}
