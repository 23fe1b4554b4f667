//! QUIC with mutual TLS: identities, connections, streams, datagrams and reconnection.
