//! A server that does what it is told, for tests of what is sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;

/// A request.
pub(crate) struct Told {
    /// Its lines before the body, with names in small letters.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// What the server does with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Does {
    /// Answers with a status.
    Answers(u16),
    /// Asks to be called again after so many seconds.
    Later(u16),
    /// Sends whoever calls elsewhere.
    Redirects,
    /// Reads and says nothing for as long as the caller stays.
    Hangs,
    /// Closes as soon as it was called.
    Closes,
}

/// Serves requests one by one as the script says, the last line of it for ever; tells of them.
pub(crate) fn server(script: Vec<Does>) -> (SocketAddr, mpsc::Receiver<Told>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (told, requests) = mpsc::channel();
    std::thread::spawn(move || {
        let mut script = script.into_iter().peekable();
        for stream in listener.incoming() {
            let does = match script.peek().copied() {
                Some(does) if script.len() > 1 => {
                    script.next();
                    does
                }
                Some(does) => does,
                None => return,
            };
            if serve_one(stream.unwrap(), does, &told).is_none() {
                return;
            }
        }
    });
    (address, requests)
}

/// Nothing once nobody listens to what is told.
fn serve_one(stream: TcpStream, does: Does, told: &mpsc::Sender<Told>) -> Option<()> {
    if matches!(does, Does::Closes) {
        return Some(());
    }
    let mut reader = BufReader::new(stream);
    let (mut length, mut head) = (0, String::new());
    loop {
        let mut line = String::new();
        // A caller that left before it said anything was no request.
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return Some(());
        }
        if let Some((name, value)) = line.clone().split_once(':') {
            let name = name.to_ascii_lowercase();
            if name == "content-length" {
                length = value.trim().parse().unwrap();
            }
            line = format!("{name}:{value}");
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    told.send(Told { head, body }).ok()?;
    let mut stream = reader.into_inner();
    let answer = match does {
        Does::Answers(status) => format!("HTTP/1.1 {status} X\r\n"),
        Does::Later(seconds) => format!("HTTP/1.1 429 X\r\nretry-after: {seconds}\r\n"),
        Does::Redirects => "HTTP/1.1 302 X\r\nlocation: http://127.0.0.1:1/\r\n".into(),
        Does::Hangs => {
            // Ends when the caller gives up.
            let _ = stream.read(&mut [0]);
            return Some(());
        }
        Does::Closes => unreachable!("it was closed before"),
    };
    let answer = format!("{answer}content-length: 2\r\nconnection: close\r\n\r\nok");
    // The caller may have given up.
    let _ = stream.write_all(answer.as_bytes());
    Some(())
}
