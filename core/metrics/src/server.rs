//! The server: two pages over HTTP/1.1, and what a source answers beside them, for a few callers, at
//! no one's cost.
//!
//! `GET /metrics` gives the page, `GET /healthz` whether one could be made. A page that is younger
//! than a second is given again, so that however many ask, the source is asked once a second at
//! most. A connection serves one request and has its time; more than a few at once wait outside.
//! There is no password: whoever reaches the address reads the page, so it belongs on the loopback
//! or a management network.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;

use crate::page::{MEDIA_TYPE, Page};

/// Connections at once: a monitoring system has one or two, and a person one.
const CONNECTIONS_MAX: usize = 16;
/// How long a caller may take to say what it wants.
const HEADER_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of what it says, and the header lines in it.
const HEADER_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// Bytes behind them.
const BODY_BYTES_MAX: usize = 64 << 10;
/// How long a connection may take in all: a page of ten thousand nodes over a slow line.
const CONNECTION_WITHIN: Duration = Duration::from_secs(30);
/// How long the source may take.
const PAGE_WITHIN: Duration = Duration::from_secs(5);
/// How long a page is given again.
const PAGE_KEPT: Duration = Duration::from_secs(1);
/// How long nothing is accepted where accepting fails: too many open files, most likely.
const ACCEPT_AGAIN: Duration = Duration::from_millis(500);

const TEXT: &str = "text/plain; charset=utf-8";

/// An endpoint that cannot be offered.
#[derive(Debug, thiserror::Error)]
#[error(
    "listening for readers of metrics on {address} failed: {reason}; choose another address for metrics, or leave it out"
)]
pub struct MetricsError {
    address: SocketAddr,
    reason: std::io::Error,
}

/// A request beside the two pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// GET, POST and the like.
    pub method: String,
    /// Its path, without a query.
    pub path: String,
    /// What came with it.
    pub body: Vec<u8>,
}

/// An answer to a [`Call`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status of HTTP.
    pub status: u16,
    /// The media type of the body.
    pub media_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
    /// After how many seconds to try again, where that may help.
    pub retry_after_s: Option<u32>,
}

/// Where pages come from.
pub trait Source: Send + Sync + 'static {
    /// The page as it is now, or a sentence that says why there is none.
    fn page(&self) -> impl Future<Output = Result<Page, String>> + Send;

    /// The answer to anything else; nothing for what is not there.
    fn answer(&self, call: Call) -> impl Future<Output = Option<Answer>> + Send {
        let _ = call;
        async { None }
    }
}

/// Takes the address.
///
/// # Errors
/// Where it is taken or not this machine's.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, MetricsError> {
    TcpListener::bind(address).await.map_err(|reason| MetricsError { address, reason })
}

/// Serves pages until the future is dropped.
pub async fn serve(listener: TcpListener, source: impl Source) -> Infallible {
    let pages = Arc::new(Pages { source, newest: Mutex::default() });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // The semaphore is never closed; whoever comes too many waits in the kernel's queue.
        let Ok(place) = places.clone().acquire_owned().await else { continue };
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = pages.clone();
                connections.spawn(async move {
                    // What becomes of a caller that is too slow or says nonsense is its own affair.
                    let _ =
                        tokio::time::timeout(CONNECTION_WITHIN, connection(stream, pages)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("a reader of metrics was not accepted: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn connection<S: Source>(stream: TcpStream, pages: Arc<Pages<S>>) -> hyper::Result<()> {
    let answer = service_fn(move |request| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(pages.answer(request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WITHIN)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

/// The source and its newest page.
struct Pages<S> {
    source: S,
    newest: Mutex<Option<(Instant, Bytes)>>,
}

impl<S: Source> Pages<S> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let known = matches!(path.as_str(), "/metrics" | "/healthz");
        if !known {
            return self.other(request).await.unwrap_or_else(|| {
                let sentence = "there is no such page; there are /metrics and /healthz\n";
                response(StatusCode::NOT_FOUND, TEXT, sentence)
            });
        }
        if request.method() != Method::GET {
            let sentence = "this page can only be read; ask with GET\n";
            let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, sentence);
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return refused;
        }
        match self.newest().await {
            Ok(_) if path == "/healthz" => response(StatusCode::OK, TEXT, "ok\n"),
            Ok(page) => response(StatusCode::OK, MEDIA_TYPE, page),
            Err(sentence) => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, sentence + "\n"),
        }
    }

    /// The answer to what is none of the pages, where the source has one.
    async fn other(&self, request: Request<Incoming>) -> Option<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
            let sentence = format!("a request has at most {BODY_BYTES_MAX} bytes\n");
            return Some(response(StatusCode::PAYLOAD_TOO_LARGE, TEXT, sentence));
        };
        let (method, path) = (head.method.as_str().to_owned(), head.uri.path().to_owned());
        let call = Call { method, path, body: body.to_bytes().into() };
        let answer = self.source.answer(call).await?;
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
        let mut given = response(status, answer.media_type, answer.body);
        if let Some(seconds) = answer.retry_after_s {
            given.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        Some(given)
    }

    /// The newest page, made where it is too old. Whoever asks meanwhile gets the same one.
    async fn newest(&self) -> Result<Bytes, String> {
        let mut newest = self.newest.lock().await;
        if let Some((made, page)) = &*newest
            && made.elapsed() < PAGE_KEPT
        {
            return Ok(page.clone());
        }
        let made = Instant::now();
        let page = tokio::time::timeout(PAGE_WITHIN, self.source.page())
            .await
            .map_err(|_| format!("no page was made within {} s", PAGE_WITHIN.as_secs()))??;
        // Ten thousand nodes are many megabytes of text: others are not kept waiting for them.
        let text = tokio::task::spawn_blocking(move || Bytes::from(page.text()));
        let text = text.await.map_err(|error| format!("making the page failed: {error}"))?;
        *newest = Some((made, text.clone()));
        Ok(text)
    }
}

fn response(
    status: StatusCode,
    media_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
