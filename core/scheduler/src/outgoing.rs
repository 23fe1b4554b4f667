//! POST requests to addresses of the administrator's: the webhook and the collector of traces.
//!
//! A client takes every answer for an answer, goes nowhere else than it was told, and trusts the
//! machine's own authorities, so that an address inside a hospital can be had. An address may hold a
//! secret: no error repeats it.

use std::time::Duration;

use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// What became of what was handed in for an address since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
    pub(crate) waiting: u64,
}

/// Calls addresses, one after the other, over connections that stay open.
pub(crate) struct Client(ureq::Agent);

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// When the next call is wanted, where the answer says so in seconds.
    pub(crate) retry_after: Option<Duration>,
    /// The body; empty where it was too long or broke off.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }
}

impl Client {
    /// A client whose calls may take so long each, in all.
    pub(crate) fn new(within: Duration) -> Self {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(within))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("gantry/", env!("CARGO_PKG_VERSION")));
        Self(config.build().into())
    }

    /// Makes one call.
    ///
    /// # Errors
    /// With why nothing was answered.
    pub(crate) fn post(&self, url: &str, form: &str, body: &[u8]) -> Result<Answer, String> {
        let answer = self.0.post(url).content_type(form).send(body);
        let mut answer = answer.map_err(|error| without_url(&error))?;
        let retry_after = answer.headers().get("retry-after");
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let status = answer.status().as_u16();
        // Read to its end, so that the connection can be used again.
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let retry_after = retry_after.map(Duration::from_secs);
        Ok(Answer { status, retry_after, body: body.unwrap_or_default() })
    }
}

/// Why a call failed. The library's own sentences may repeat the address.
fn without_url(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "it did not answer in time".into(),
        ureq::Error::HostNotFound => "its host is not known".into(),
        ureq::Error::ConnectionFailed => "its host did not answer".into(),
        ureq::Error::Io(error) => format!("the connection failed: {error}"),
        ureq::Error::Tls(reason) => format!("its certificate was not accepted: {reason}"),
        ureq::Error::Rustls(error) => format!("its certificate was not accepted: {error}"),
        ureq::Error::BadUri(_) => "its address is malformed".into(),
        _ => "the request failed".into(),
    }
}

#[cfg(test)]
pub(crate) mod script;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::script::{Does, server};
    use super::*;

    #[test]
    fn an_answer_is_its_status_its_body_and_when_to_call_again() {
        let (address, requests) = server(vec![Does::Answers(204), Does::Later(7), Does::Redirects]);
        let client = Client::new(Duration::from_secs(5));
        let wait = Some(Duration::from_secs(7));
        for (status, retry_after) in [(204, None), (429, wait), (302, None)] {
            let answer = client.post(&format!("http://{address}/"), "text/plain", b"x").unwrap();
            assert_eq!((answer.status, answer.retry_after), (status, retry_after));
            assert_eq!(requests.recv().unwrap().body, b"x");
        }
    }

    #[test]
    fn why_a_call_failed_never_repeats_the_address() {
        let client = Client::new(Duration::from_millis(200));
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (url, part) in [
            (format!("http://{closed}/secret"), "connection"),
            ("http://nowhere.invalid/secret".into(), "address"),
            ("http://[secret".into(), "request"),
        ] {
            let error = client.post(&url, "text/plain", b"x").unwrap_err();
            assert!(!error.contains("secret"), "{error}");
            // A resolver may take longer than it is given.
            let is_late = error == "it did not answer in time";
            assert!(error.contains(part) || is_late, "{error}");
        }
    }
}
