//! TLS with a DICOM receiver, as `gantry send` and `gantry serve` speak it.

use std::path::PathBuf;

use clap::Args;
use gantry_agent::ingest::send::Tls;

use crate::error::Failure;

/// What TLS needs.
#[derive(Debug, Args)]
#[expect(clippy::struct_field_names, reason = "the commands have other options beside these")]
pub(super) struct Secure {
    /// Speak TLS with the receiver, whose certificate must be of this authority (PEM).
    #[arg(long, value_name = "FILE")]
    tls_authority: Option<PathBuf>,
    /// Show this certificate (PEM) to a receiver that asks for one.
    #[arg(long, value_name = "FILE", requires_all = ["tls_authority", "tls_key"])]
    tls_certificate: Option<PathBuf>,
    /// The certificate's key, which nobody else may read.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// The name in the receiver's certificate, where it is another than the host that is called.
    #[arg(long, value_name = "NAME", requires = "tls_authority")]
    tls_name: Option<String>,
}

impl Secure {
    /// Whether TLS is asked for.
    pub(super) fn is_set(&self) -> bool {
        self.tls_authority.is_some()
    }

    /// Returns how to speak with a receiver at HOST:PORT; in plain where nothing is asked for.
    ///
    /// # Errors
    /// Where the files cannot be used.
    pub(super) fn tls(&self, to: &str) -> Result<Option<Tls>, Failure> {
        let Some(authority) = self.tls_authority.clone() else { return Ok(None) };
        let host = to.rsplit_once(':').map_or(to, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let tls = Tls {
            authority,
            own: self.tls_certificate.clone().zip(self.tls_key.clone()),
            name: self.tls_name.clone().unwrap_or_else(|| host.to_owned()),
        };
        tls.load().map_err(Failure::usage_of)?;
        Ok(Some(tls))
    }
}
