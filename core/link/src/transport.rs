//! QUIC's limits and timers, and the endpoint of either side.
//!
//! A receiver may hold one frame of 64 KiB on each of [`STREAMS_MAX`] streams; the windows let
//! each stream have two in flight. A connection of which nothing is heard is given up after [`IDLE`]:
//! a node that is silent is marked late then. Keep-alives come each [`KEEP_ALIVE`] where nothing else
//! was said, and like all else they are sent again until they are acknowledged, so that one packet
//! in twenty may be lost and none is given up (the simulation holds that over 200 hours).
//!
//! Nobody looks for the largest datagram that passes: all are of the 1,200 bytes that pass everywhere
//! (RFC 9000, section 14). Each call sent probes, which were answered: ten thousand agents that lost the
//! scheduler needed 24 s to come back, and 13 without (and with the suite that `tls.rs` says). What
//! larger ones gain is a sixth of the packets where much is sent; a sample of 64 cores and 8 GPUs takes
//! 300 bytes.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::udp::UdpSocketState;
use quinn::{Endpoint, EndpointConfig, IdleTimeout, Runtime, TokioRuntime, TransportConfig};
use rand::Rng;

use crate::error::LinkError;
use crate::place::Places;
use crate::socket::Frugal;

/// Streams that a peer may have open at once.
pub(crate) const STREAMS_MAX: u32 = 64;
/// Streams that a caller may have open before the scheduler knows who it is. Agents open no more, and
/// each that may be opened takes memory.
const STREAMS_FIRST: u32 = 4;
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Counted from the last word from the other side, or from the first keep-alive sent to it since:
/// with that, a silent node is noticed three seconds after its last word at the latest.
pub(crate) const IDLE: Duration = Duration::from_millis(1850);
/// A little more than between two samples of an agent: those keep its connection alive, and half of
/// all packets of ten thousand agents would be keep-alives otherwise.
const KEEP_ALIVE: Duration = Duration::from_millis(1100);

/// What may wait at the scheduler's socket in each direction. Ten thousand agents that lose the
/// scheduler call together: at the 208 KiB that Linux gives unasked, most of their packets were
/// dropped, and each was sent again. Linux gives at most `net.core.rmem_max` and `wmem_max`.
const BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of the endpoint's kept secret: 64 for resets, 8 for connection ids.
const RESET_KEY_BYTES: usize = 72;

fn transport(idle: Duration, streams: u32) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    let idle = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
    config
        .max_concurrent_bidi_streams(streams.into())
        .max_concurrent_uni_streams(0_u32.into())
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(CONNECTION_WINDOW_BYTES.into())
        .max_idle_timeout(Some(IdleTimeout::from(quinn::VarInt::from_u32(idle))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .mtu_discovery_config(None);
    Arc::new(config)
}

/// Opens the scheduler's socket.
///
/// The key of stateless resets and of connection ids is kept in `reset.key`: a scheduler that was
/// killed and started again answers the packets of old connections with resets, so that agents
/// notice at once instead of at the idle timeout.
pub(crate) fn listen(
    address: SocketAddr,
    tls: rustls::ServerConfig,
    folder: &Path,
) -> Result<Endpoint, LinkError> {
    let wrong =
        |error: &dyn std::fmt::Display| LinkError::Bind { address, reason: error.to_string() };
    let key = reset_key(&folder.join("reset.key"))?;
    let (reset, connection_ids) = key.split_at(64);
    let connection_ids = connection_ids.to_owned();
    let mut endpoint =
        EndpointConfig::new(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset)));
    endpoint.min_reset_interval(Duration::ZERO);
    endpoint.cid_generator(move || Box::new(Places::new(&connection_ids)));
    let server = server(tls)?;
    let socket = UdpSocket::bind(address).map_err(|error| wrong(&error))?;
    widen(&socket).map_err(|error| wrong(&error))?;
    let runtime = Arc::new(TokioRuntime);
    let socket = runtime.wrap_udp_socket(socket).map_err(|error| wrong(&error))?;
    let socket = Arc::new(Frugal(socket));
    Endpoint::new_with_abstract_socket(endpoint, Some(server), socket, runtime)
        .map_err(|error| wrong(&error))
}

/// What the scheduler's end says of itself to new callers.
pub(crate) fn server(tls: rustls::ServerConfig) -> Result<quinn::ServerConfig, LinkError> {
    let crypto = QuicServerConfig::try_from(tls)
        .map_err(|error| LinkError::Identity(format!("setting up QUIC failed: {error}")))?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(transport(IDLE, STREAMS_FIRST));
    Ok(server)
}

/// Makes a socket's buffers as large as the system allows.
fn widen(socket: &UdpSocket) -> std::io::Result<()> {
    let state = UdpSocketState::new(socket.into())?;
    state.set_recv_buffer_size(socket.into(), BUFFER_BYTES)?;
    state.set_send_buffer_size(socket.into(), BUFFER_BYTES)
}

/// Opens a socket that calls.
pub(crate) fn call(address: SocketAddr) -> Result<Endpoint, LinkError> {
    let any: SocketAddr = if address.is_ipv6() {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    };
    Endpoint::client(any).map_err(|error| LinkError::Connect { address, reason: error.to_string() })
}

/// What a caller with these keys says of itself. It may wait for the first answer longer than for
/// any other; once there is one the scheduler's shorter limit holds.
pub(crate) fn client(
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    first_answer: Option<Duration>,
) -> Result<quinn::ClientConfig, LinkError> {
    let crypto = QuicClientConfig::try_from(tls)
        .map_err(|error| LinkError::Connect { address, reason: error.to_string() })?;
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.transport_config(transport(first_answer.unwrap_or(IDLE), STREAMS_MAX));
    Ok(client)
}

fn reset_key(path: &Path) -> Result<Vec<u8>, LinkError> {
    let fail = |reason: String| LinkError::File { what: "keeping", path: path.into(), reason };
    match std::fs::read(path) {
        Ok(key) if key.len() == RESET_KEY_BYTES => return Ok(key),
        Ok(_) => {
            return Err(fail("it has a wrong length; remove it, a new one will be made".into()));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail(error.to_string())),
    }
    let mut key = vec![0_u8; RESET_KEY_BYTES];
    rand::rng().fill_bytes(&mut key);
    crate::identity::write_secret(path, &key)?;
    Ok(key)
}
