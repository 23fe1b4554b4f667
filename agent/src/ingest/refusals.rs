//! Callers that were turned away before they had an association, counted by the reason.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a caller was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its address is not one of `ingest.addresses`.
    Address,
    /// As many associations are open as may be.
    TooMany,
    /// The title that it calls by, or calls, is not one that is accepted.
    Title,
    /// It does not speak TLS.
    Plain,
    /// Its certificate is missing, or not one of the authority.
    Certificate,
    /// The TLS handshake failed otherwise.
    Handshake,
}

impl Reason {
    pub(crate) const ALL: [Self; 6] = [
        Self::Address,
        Self::TooMany,
        Self::Title,
        Self::Plain,
        Self::Certificate,
        Self::Handshake,
    ];

    /// A stable word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::TooMany => "too-many",
            Self::Title => "title",
            Self::Plain => "no-tls",
            Self::Certificate => "certificate",
            Self::Handshake => "handshake",
        }
    }
}

/// How many were turned away, for each reason.
#[derive(Debug, Default)]
pub(crate) struct Refusals([AtomicU64; Reason::ALL.len()]);

impl Refusals {
    pub(super) fn count(&self, reason: Reason) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn of(&self, reason: Reason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }
}
