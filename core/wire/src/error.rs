//! What can be wrong with bytes.

/// Bytes that are no message, or a message that is too long to send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A value could not be encoded.
    #[error("encoding a message failed: {0}")]
    Encode(String),
    /// Bytes are no such value.
    #[error(
        "a message could not be read: {0}; the peer speaks another version or the bytes are damaged"
    )]
    Decode(String),
    /// A message is longer than its limit.
    #[error("a message of {length} bytes is over the limit of {limit}; ask for less at once")]
    TooLong {
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// A message was read and bytes remain.
    #[error(
        "a message of {length} bytes was complete after {consumed}; the peer speaks another version"
    )]
    LeftOver {
        /// What the value took.
        consumed: usize,
        /// What was there.
        length: usize,
    },
    /// A frame does not begin as ours do.
    #[error("the peer does not speak gantry's protocol; check the address and port")]
    NotOurs,
    /// A frame of another kind stands where this one was expected.
    #[error(
        "a message of kind {found} stands where kind {expected} belongs; the peer speaks another version"
    )]
    WrongKind {
        /// The kind that was expected.
        expected: u8,
        /// The kind that came.
        found: u8,
    },
    /// A picture was to change in a row that it does not have.
    #[error("a change of a picture does not fit it; the peer speaks another version")]
    NoSuchRow,
    /// The checksum does not fit the bytes.
    #[error("the checksum of a message does not fit; the bytes are damaged")]
    Checksum,
}
