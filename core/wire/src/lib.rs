//! Messages to bytes and back, frames and the version handshake.
