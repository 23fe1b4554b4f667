//! A bucket of an S3 storage that holds a library's objects.
//!
//! Requests are signed without a network (rusty-s3) and sent by a blocking client: a library is called
//! from threads that may wait, and brings no runtime of its own. An object is put only where none of
//! its name is there, and the storage checks its bytes against their hash before it keeps them, so that
//! an object that is there is whole, however many write it at once. Large ones are read in pieces, so
//! that each wait has an end. What fails in passing is tried again, ever more slowly, for a while.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::time::{Duration, Instant};

use rusty_s3::{Credentials, S3Action, UrlStyle};
use serde::{Deserialize, Serialize};
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use crate::body::Body;
use crate::error::LibraryError;
use crate::files::Made;
use crate::ids::ObjectHash;
use crate::keys::Keys;
use crate::limits::{
    BUCKET_ANSWER_WITHIN, BUCKET_BYTES_PER_S_MIN, BUCKET_OBJECT_BYTES_MAX, BUCKET_PAGE_BYTES_MAX,
    BUCKET_PIECE_BYTES,
};
use crate::root::now_ms;
use crate::storage_time::{of_http, of_listing};

/// How long a signature counts: as long as the largest object may take.
const SIGNED_FOR: Duration = Duration::from_hours(2);
/// Before the first further try; it doubles with each.
const AGAIN_FIRST: Duration = Duration::from_millis(50);

/// Where a bucket is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketPlace {
    /// The storage, as `https://s3.example.org`.
    pub endpoint: String,
    /// The bucket's name.
    pub bucket: String,
    /// The storage's region, as `eu-central-1`; many storages take any.
    pub region: String,
    /// What the names of objects begin with; empty, or ending with `/`.
    pub prefix: String,
}

/// A bucket, and the client that asks it.
pub(crate) struct Bucket {
    place: BucketPlace,
    requests: rusty_s3::Bucket,
    credentials: Credentials,
    client: ureq::Agent,
    /// How long the storage may be silent, and how long its troubles are waited out.
    patience: Duration,
}

/// The client holds connections that say nothing, and the keys must not be shown.
impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

/// An answer of the storage that is none of its troubles.
struct Answer {
    status: u16,
    /// Bytes of the whole object, where the answer says so.
    total: Option<u64>,
    /// When it was given, and when the object was put, in milliseconds since 1970 by the storage's clock.
    given_ms: Option<u64>,
    changed_ms: Option<u64>,
    bytes: Vec<u8>,
}

/// What a storage says of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// How many bytes it has.
    pub(crate) bytes: u64,
    /// When it was put, in milliseconds since 1970 by the storage's clock; 0 where it does not say.
    pub(crate) changed_ms: u64,
    /// How long ago that was, by the same clock; nothing where it does not say.
    pub(crate) age: Duration,
}

/// An object that a storage lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) key: String,
    /// When it was put, in milliseconds since 1970 by the storage's clock; 0 where it does not say.
    pub(crate) changed_ms: u64,
    /// How many bytes it has.
    pub(crate) bytes: u64,
}

/// What a storage lists.
#[derive(Default)]
pub(crate) struct Listed {
    /// Objects.
    pub(crate) keys: Vec<Entry>,
    /// Beginnings of names that go on behind a delimiter.
    pub(crate) prefixes: Vec<String>,
    /// When the storage began to list, by its own clock, where it says so.
    pub(crate) begun_ms: Option<u64>,
}

/// What is sent.
enum Ask<'a> {
    Put(Body<'a>, &'a [(&'static str, String)]),
    /// Bytes of an object, from the first to the last.
    Piece(u64, u64),
    Page,
    Head,
    Delete,
}

impl Bucket {
    /// Reaches for a bucket. Nothing is asked yet.
    pub(crate) fn open(place: &BucketPlace) -> Result<Self, LibraryError> {
        let keys = Keys::find()?.ok_or_else(|| {
            wrong(place, "its keys are missing; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file of them in AWS_SHARED_CREDENTIALS_FILE")
        })?;
        Self::with_keys(place, keys, BUCKET_ANSWER_WITHIN)
    }

    fn with_keys(
        place: &BucketPlace,
        keys: Keys,
        patience: Duration,
    ) -> Result<Self, LibraryError> {
        if place.endpoint.contains('@') {
            // The address itself would show what must not be shown.
            return Err(LibraryError::Invalid(format!(
                "bucket {}: its endpoint holds a name or a password; keys belong into the environment",
                place.bucket
            )));
        }
        let endpoint = place.endpoint.parse().map_err(|error| {
            wrong(place, format!("its endpoint is no address ({error}); write https://HOST"))
        })?;
        let (name, region) = (place.bucket.clone(), place.region.clone());
        let requests = rusty_s3::Bucket::new(endpoint, UrlStyle::Path, name, region)
            .map_err(|error| wrong(place, format!("its address cannot be used: {error}")))?;
        let credentials = match keys.token {
            None => Credentials::new(keys.id, keys.secret),
            Some(token) => Credentials::new_with_token(keys.id, keys.secret, token),
        };
        let client = client(patience);
        Ok(Self { place: place.clone(), requests, credentials, client, patience })
    }

    /// The name of an object, spread over 256 beginnings.
    pub(crate) fn key(&self, hash: &ObjectHash) -> String {
        self.below(&format!("{}/{hash}", &hash.as_str()[..2]))
    }

    /// A name below those that are the library's.
    pub(crate) fn below(&self, name: &str) -> String {
        format!("{}{name}", self.place.prefix)
    }

    /// What people call an object.
    pub(crate) fn shown(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.place.bucket)
    }

    /// Keeps an object under its hash.
    pub(crate) fn put(&self, hash: &ObjectHash, body: Body<'_>) -> Result<Made, LibraryError> {
        // Where another writer has made it, it is of the same bytes.
        self.put_new(&self.key(hash), body)
    }

    /// Keeps bytes under a name, unless there are some already.
    pub(crate) fn put_new(&self, key: &str, body: Body<'_>) -> Result<Made, LibraryError> {
        self.put_with(key, body, &[("if-none-match", "*".to_owned()), body.sum()])
    }

    /// Keeps the bytes of a name once more, so that they are new whether or not they are there.
    pub(crate) fn put_again(&self, key: &str, body: Body<'_>) -> Result<(), LibraryError> {
        self.put_with(key, body, &[body.sum()]).map(|_| ())
    }

    fn put_with(
        &self,
        key: &str,
        body: Body<'_>,
        headers: &[(&'static str, String)],
    ) -> Result<Made, LibraryError> {
        if body.len() > BUCKET_OBJECT_BYTES_MAX {
            return Err(LibraryError::Invalid(format!(
                "an object of {} bytes is over the limit of {BUCKET_OBJECT_BYTES_MAX} of a bucket",
                body.len()
            )));
        }
        let mut action = self.requests.put_object(Some(&self.credentials), key);
        for (name, value) in headers {
            action.headers_mut().insert(*name, value.clone());
        }
        let answer = self.ask("writing", key, &action, &Ask::Put(body, headers))?;
        match answer.status {
            200 | 201 => Ok(Made::New),
            412 => Ok(Made::Known),
            _ => Err(self.failed("writing", key, &said(&answer))),
        }
    }

    /// Removes an object; one that is not there is none either.
    pub(crate) fn remove(&self, key: &str) -> Result<(), LibraryError> {
        let action = self.requests.delete_object(Some(&self.credentials), key);
        let answer = self.ask("removing", key, &action, &Ask::Delete)?;
        match answer.status {
            200 | 202 | 204 => Ok(()),
            404 if !lacks_bucket(&answer) => Ok(()),
            _ => Err(self.failed("removing", key, &said(&answer))),
        }
    }

    /// Reads the bytes of an object in a range, as far as there are any, piece after piece. Says whether
    /// it is there.
    pub(crate) fn read(
        &self,
        key: &str,
        Range { start: mut at, end }: Range<u64>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<bool, LibraryError> {
        let action = self.requests.get_object(Some(&self.credentials), key);
        while at < end {
            let last = end.min(at + BUCKET_PIECE_BYTES) - 1;
            let answer = self.ask("reading", key, &action, &Ask::Piece(at, last))?;
            match answer.status {
                206 if !answer.bytes.is_empty() => {
                    take(&answer.bytes);
                    at += answer.bytes.len() as u64;
                    if answer.total.is_some_and(|total| at >= total) {
                        return Ok(true);
                    }
                }
                // Some storages answer a piece that is the whole with the whole.
                200 if at == 0 => {
                    take(&answer.bytes);
                    return Ok(true);
                }
                // Nothing is behind its end; an empty one has no begin either.
                416 => return Ok(true),
                404 if !lacks_bucket(&answer) => return Ok(false),
                _ => return Err(self.failed("reading", key, &said(&answer))),
            }
        }
        Ok(true)
    }

    /// How many bytes an object has; none where it is not there.
    pub(crate) fn length(&self, key: &str) -> Result<Option<u64>, LibraryError> {
        Ok(self.facts(key)?.map(|facts| facts.bytes))
    }

    /// What there is to say of an object; none where it is not there.
    pub(crate) fn facts(&self, key: &str) -> Result<Option<Facts>, LibraryError> {
        let action = self.requests.head_object(Some(&self.credentials), key);
        let answer = self.ask("looking for", key, &action, &Ask::Head)?;
        let changed_ms = answer.changed_ms.unwrap_or_default();
        let age_ms = match changed_ms {
            0 => 0,
            changed_ms => answer.given_ms.unwrap_or_else(now_ms).saturating_sub(changed_ms),
        };
        let age = Duration::from_millis(age_ms);
        match (answer.status, answer.total) {
            (200, Some(bytes)) => Ok(Some(Facts { bytes, changed_ms, age })),
            (404, _) => Ok(None),
            _ => Err(self.failed("looking for", key, &said(&answer))),
        }
    }

    /// The names of all that is below the library's prefix.
    pub(crate) fn keys(&self) -> Result<Vec<String>, LibraryError> {
        Ok(self.all()?.keys.into_iter().map(|entry| entry.key).collect())
    }

    /// All that is below the library's prefix.
    pub(crate) fn all(&self) -> Result<Listed, LibraryError> {
        self.list(&self.place.prefix, None)
    }

    /// What begins with this; with a delimiter, only up to the next one.
    pub(crate) fn list(
        &self,
        begin: &str,
        delimiter: Option<char>,
    ) -> Result<Listed, LibraryError> {
        let mut listed = Listed::default();
        let mut token: Option<String> = None;
        loop {
            let mut action = self.requests.list_objects_v2(Some(&self.credentials));
            action.with_prefix(begin.to_owned());
            if let Some(delimiter) = delimiter {
                action.with_delimiter(delimiter.to_string());
            }
            if let Some(token) = token.take() {
                action.with_continuation_token(token);
            }
            let answer = self.ask("listing", begin, &action, &Ask::Page)?;
            if answer.status != 200 {
                return Err(self.failed("listing", begin, &said(&answer)));
            }
            listed.begun_ms = listed.begun_ms.or(answer.given_ms);
            let text = String::from_utf8_lossy(&answer.bytes);
            let page = rusty_s3::actions::ListObjectsV2::parse_response(&text)
                .map_err(|error| self.failed("listing", begin, &error.to_string()))?;
            for one in page.contents.into_iter().filter(|one| one.key.starts_with(begin)) {
                let changed_ms = one.last_modified.as_deref().and_then(of_listing);
                let changed_ms = changed_ms.unwrap_or_default();
                listed.keys.push(Entry {
                    key: one.key,
                    changed_ms,
                    bytes: one.size.unwrap_or_default(),
                });
            }
            let prefixes = page.common_prefixes.into_iter().map(|one| one.prefix);
            listed.prefixes.extend(prefixes.filter(|prefix| prefix.starts_with(begin)));
            token = page.next_continuation_token;
            if token.is_none() {
                return Ok(listed);
            }
        }
    }

    /// Asks until there is an answer that is no trouble of the storage's own, or patience ends.
    fn ask<'a>(
        &'a self,
        what: &'static str,
        key: &str,
        action: &impl S3Action<'a>,
        ask: &Ask<'_>,
    ) -> Result<Answer, LibraryError> {
        let begun = Instant::now();
        let mut again = AGAIN_FIRST;
        loop {
            // A signature is as old as its try.
            let why = match self.send(action.sign(SIGNED_FOR).as_str(), ask) {
                Ok(answer) if !passing(answer.status) => return Ok(answer),
                Ok(answer) => said(&answer),
                Err(error) => error,
            };
            if begun.elapsed() + again >= self.patience {
                return Err(self.failed(what, key, &why));
            }
            std::thread::sleep(again);
            again *= 2;
        }
    }

    fn send(&self, url: &str, ask: &Ask<'_>) -> Result<Answer, String> {
        let bytes = match ask {
            Ask::Put(body, _) => body.len(),
            Ask::Piece(first, last) => last - first + 1,
            Ask::Page | Ask::Head | Ask::Delete => BUCKET_PAGE_BYTES_MAX,
        };
        let within = self.patience + Duration::from_secs(bytes.div_ceil(BUCKET_BYTES_PER_S_MIN));
        let get = || self.client.get(url).config().timeout_global(Some(within)).build();
        let sent = match ask {
            Ask::Put(body, headers) => {
                let mut request =
                    self.client.put(url).config().timeout_global(Some(within)).build();
                for (name, value) in *headers {
                    request = request.header(*name, value);
                }
                match body {
                    Body::Bytes(bytes) => request.send(*bytes),
                    Body::File(path, ..) => {
                        let file = File::open(path).map_err(|error| {
                            format!("what was to be sent cannot be read: {error}")
                        })?;
                        request.send(&file)
                    }
                }
            }
            Ask::Piece(first, last) => {
                get().header("range", format!("bytes={first}-{last}")).call()
            }
            Ask::Page => get().call(),
            Ask::Head => self.client.head(url).call(),
            Ask::Delete => {
                self.client.delete(url).config().timeout_global(Some(within)).build().call()
            }
        };
        let mut answer = sent.map_err(|error| without_url(&error))?;
        let header = |name: &str| answer.headers().get(name)?.to_str().ok();
        let total = match ask {
            Ask::Head => header("content-length").and_then(|text| text.parse().ok()),
            _ => header("content-range").and_then(|text| text.rsplit_once('/')?.1.parse().ok()),
        };
        let (given_ms, changed_ms) =
            (header("date").and_then(of_http), header("last-modified").and_then(of_http));
        // The client takes an answer that ends at its limit for one that goes on.
        let limit = bytes.max(BUCKET_PAGE_BYTES_MAX) + 1;
        let read = answer.body_mut().with_config().limit(limit).read_to_vec();
        let bytes = read.map_err(|error| without_url(&error))?;
        let status = answer.status().as_u16();
        Ok(Answer { status, total, given_ms, changed_ms, bytes })
    }

    fn failed(&self, what: &'static str, key: &str, reason: &str) -> LibraryError {
        LibraryError::Remote { what, place: self.shown(key), reason: reason.to_owned() }
    }
}

/// Whether a storage may answer otherwise in a while: it is in trouble, has too much to do, or another
/// writer is about to make the same object and may yet fail.
const fn passing(status: u16) -> bool {
    status >= 500 && status != 501 || matches!(status, 408 | 409 | 429)
}

fn wrong(place: &BucketPlace, why: impl fmt::Display) -> LibraryError {
    let BucketPlace { endpoint, bucket, prefix, .. } = place;
    LibraryError::Invalid(format!("bucket s3://{bucket}/{prefix} of {endpoint}: {why}"))
}

/// The code of a storage's refusal.
fn code(answer: &Answer) -> Option<String> {
    let text = String::from_utf8_lossy(&answer.bytes);
    let (_, rest) = text.split_once("<Code>")?;
    Some(rest.split_once("</Code>")?.0.chars().filter(char::is_ascii_alphanumeric).collect())
}

fn lacks_bucket(answer: &Answer) -> bool {
    code(answer).is_some_and(|code| code == "NoSuchBucket")
}

/// What a storage says of a failure, and what to do. Of its answer only the code is taken: the rest may
/// repeat what was sent.
fn said(answer: &Answer) -> String {
    let status = answer.status;
    let code = code(answer);
    match (status, code.as_deref()) {
        (_, Some("NoSuchBucket")) => "there is no such bucket; make it, or check its name".into(),
        (_, Some("RequestTimeTooSkewed")) => "the storage's clock and this host's differ".into(),
        (_, Some("BadDigest" | "InvalidDigest" | "XAmzContentChecksumMismatch")) => {
            "the storage got other bytes than were sent".into()
        }
        (401 | 403, code) => format!(
            "the storage refused it ({}); check the keys and what they may do",
            code.unwrap_or("no reason given")
        ),
        (301 | 307, _) => "the storage sent it elsewhere; check the endpoint and the region".into(),
        (_, Some(code)) => format!("the storage answered {status}, {code}"),
        _ => format!("the storage answered {status}"),
    }
}

/// A client that takes every answer for an answer and goes nowhere else than it was told.
fn client(patience: Duration) -> ureq::Agent {
    // The machine's own authorities, so that a storage inside a hospital can be had.
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::PlatformVerifier)
        .build();
    ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_connect(Some(patience))
        .timeout_recv_response(Some(patience))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("gantry/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// Why a try failed. The client's own sentences may repeat the address, which is signed.
fn without_url(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "the storage did not answer in time".into(),
        ureq::Error::HostNotFound => "the storage's host is not known; check the endpoint".into(),
        ureq::Error::ConnectionFailed => "the storage cannot be reached; check the endpoint".into(),
        ureq::Error::Io(error) => format!("the connection failed: {error}"),
        ureq::Error::Tls(reason) => format!("its certificate was not accepted: {reason}"),
        ureq::Error::Rustls(error) => format!("its certificate was not accepted: {error}"),
        ureq::Error::BodyExceedsLimit(limit) => format!("it answered more than {limit} bytes"),
        _ => "the request failed".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    fn bucket(listener: &TcpListener) -> Bucket {
        let place = BucketPlace {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            bucket: "scans".into(),
            region: "r".into(),
            prefix: String::new(),
        };
        let keys = Keys { id: "A-KEY".into(), secret: "A-SECRET".into(), token: None };
        Bucket::with_keys(&place, keys, Duration::from_millis(400)).unwrap()
    }

    #[test]
    fn a_refusal_says_what_to_look_at_and_no_key() {
        let xml = |code: &str| format!("<Error><Code>{code}</Code><Key>secret</Key></Error>");
        for (status, text, expected) in [
            (404, xml("NoSuchBucket"), "there is no such bucket; make it, or check its name"),
            (403, xml("RequestTimeTooSkewed"), "the storage's clock and this host's differ"),
            (
                403,
                xml("SignatureDoesNotMatch"),
                "the storage refused it (SignatureDoesNotMatch); check the keys and what they may do",
            ),
            (
                301,
                xml("PermanentRedirect"),
                "the storage sent it elsewhere; check the endpoint and the region",
            ),
            (400, xml("BadDigest"), "the storage got other bytes than were sent"),
            (500, "oops".into(), "the storage answered 500"),
            (400, xml("Odd"), "the storage answered 400, Odd"),
        ] {
            let answer = Answer {
                status,
                total: None,
                given_ms: None,
                changed_ms: None,
                bytes: text.into_bytes(),
            };
            assert_eq!(said(&answer), expected);
        }
    }

    #[test]
    fn a_storage_that_is_silent_or_gone_is_given_up() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = bucket(&silent);
        let error = one.length("a").unwrap_err().to_string();
        assert_eq!(error, "looking for s3://scans/a failed: the storage did not answer in time");
        drop(silent);
        let error = one.length("a").unwrap_err().to_string();
        assert!(error.starts_with("looking for s3://scans/a failed: ") && !error.contains("A-"));
    }

    #[test]
    fn what_fails_in_passing_is_tried_again_and_what_another_writes_is_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bucket = bucket(&listener);
        let storage = std::thread::spawn(move || {
            for line in ["503 Slow Down", "409 Conflict", "412 Precondition Failed"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\nbytes") {
                    let mut buffer = [0; 4096];
                    let count = stream.read(&mut buffer).unwrap();
                    assert!(count > 0, "the request ended early");
                    asked.extend(&buffer[..count]);
                }
                let text = String::from_utf8(asked).unwrap().to_lowercase();
                assert!(
                    text.contains("if-none-match: *") && text.contains("x-amz-checksum-sha256")
                );
                let answer =
                    format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let made = bucket.put(&ObjectHash::of(&[b"bytes"]), Body::Bytes(b"bytes")).unwrap();
        assert_eq!(made, Made::Known);
        storage.join().unwrap();
    }
}
