//! The server, asked over plain TCP.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::page::{Unit, labels};

/// Counts how often it is asked, and says so.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicU32>);

impl Source for Counting {
    async fn page(&self) -> Result<Page, String> {
        let asked = self.0.fetch_add(1, Ordering::Relaxed);
        let mut page = Page::default();
        page.gauge("gantry_asked", Unit::None, "Asked before").add(&labels([]), asked);
        Ok(page)
    }
}

/// Has nothing to give.
struct Ending;

impl Source for Ending {
    async fn page(&self) -> Result<Page, String> {
        Err("the scheduler is ending".into())
    }
}

async fn served(source: impl Source) -> (SocketAddr, JoinHandle<()>) {
    let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let _: Infallible = serve(listener, source).await;
    });
    (address, served)
}

async fn say(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // A connection that is cut says what it said.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn two_pages_can_be_read_and_nothing_else() {
    let (address, _served) = served(Counting::default()).await;
    let long = format!("GET /metrics HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(32 << 10));
    for (request, status, part) in [
        ("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n", "200", "# EOF\n"),
        ("GET /metrics HTTP/1.0\r\n\r\n", "200", "version=1.0.0"),
        ("GET /metrics?x=1 HTTP/1.1\r\nhost: x\r\n\r\n", "200", "gantry_asked"),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", "200", "ok\n"),
        ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", "404", "/metrics and /healthz"),
        ("GET /metrics/../x HTTP/1.1\r\nhost: x\r\n\r\n", "404", ""),
        ("POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", "405", "allow: GET"),
        ("HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\n", "405", ""),
        ("nonsense\r\n\r\n", "400", ""),
        (&long, "431", ""),
    ] {
        let answer = say(address, request).await;
        let first = answer.lines().next().unwrap_or_default();
        let shown = request.get(..40).unwrap_or(request);
        assert!(first.contains(status), "{shown:?} gives {first:?}");
        assert!(answer.contains(part), "{shown:?} gives {answer:?}");
    }
}

#[tokio::test]
async fn a_page_is_made_once_a_second_however_many_ask() {
    let source = Counting::default();
    let (address, _served) = served(source.clone()).await;
    let started = Instant::now();
    let mut readers = JoinSet::new();
    for _ in 0..CONNECTIONS_MAX * 3 {
        readers.spawn(say(address, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"));
    }
    for answer in readers.join_all().await {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let asked = source.0.load(Ordering::Relaxed);
    assert!(u64::from(asked) <= started.elapsed().as_secs() + 1, "asked {asked} times");
}

#[tokio::test]
async fn a_source_without_a_page_says_why() {
    let (address, _served) = served(Ending).await;
    for path in ["/metrics", "/healthz"] {
        let answer = say(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.ends_with("the scheduler is ending\n"), "{answer}");
    }
}

#[tokio::test]
async fn callers_that_say_nothing_are_sent_away_and_others_get_their_turn() {
    let (address, _served) = served(Counting::default()).await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let asked = Instant::now();
    let answer = say(address, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let took = asked.elapsed();
    assert!(took < HEADER_WITHIN + Duration::from_secs(5), "it took {took:?}");
}

#[tokio::test]
async fn an_address_that_is_taken_is_refused_with_what_to_do() {
    let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let error = bind(listener.local_addr().unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("choose another address"), "{error}");
}
