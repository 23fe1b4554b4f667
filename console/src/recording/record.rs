//! `gantry record`: a cluster into a file, until interrupted.
//!
//! Every screen is watched at once, and each running job up to [`JOBS_MAX`], so that a replay can go
//! wherever a person wants to look. Of each screen the newest picture of a second is kept; the rest
//! of what changes within a second, no eye has seen. What screens ask beside their pictures is asked
//! here each few seconds, one question after another.

use std::fs::File;
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use gantry_link::Connection;
use gantry_model::{JobId, JobState, MemoryMib, Millis};
use gantry_wire::{Reply, Request, Scope, Update};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::questions::{self, Questions};
use super::{Head, Heard, Writer};
use crate::cli::client::{Client, Patience, Reach};
use crate::error::{Failure, Outcome};
use crate::live::exchange;
use crate::output::{self, Format};
use crate::watched::Watched;

/// The screens that are not about one job.
const SCREENS: [Scope; 4] = [Scope::Overview, Scope::Nodes, Scope::Jobs, Scope::Data];
/// Running jobs that are recorded with their output and curves.
const JOBS_MAX: usize = 16;
/// Pictures that wait to be written: of each screen and job, some.
const WAITING_MAX: usize = 256;
/// Between two writes.
const WRITE_EACH: Duration = Duration::from_secs(1);
/// Writes between two looks at what is asked.
const ASK_EACH: u64 = 5;

/// `gantry record`.
#[derive(Debug, Args)]
pub struct Record {
    /// The file, which must not exist yet. It will hold names of users and jobs, command lines and ends
    /// of outputs.
    file: PathBuf,
    /// End after so long, as 10m; at Ctrl-C where nothing is said.
    #[arg(long = "for", value_name = "TIME")]
    length: Option<Millis>,
    /// End before the file is larger.
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    size_max: MemoryMib,
}

/// Why a part of a recording has ended.
enum End {
    /// It is wanted: Ctrl-C, its time, its size.
    Wanted(&'static str),
    /// The scheduler went away.
    Away(String),
}

/// A recording while it is written.
struct Tape {
    writer: Writer<BufWriter<File>>,
    began: Instant,
    until: Option<Instant>,
    bytes_max: u64,
    pictures: u64,
    questions: Questions,
    /// The newest picture of each scope that is not written yet.
    waiting: Vec<(Scope, Box<Update>)>,
}

impl Record {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the file is there already or cannot be written, or the scheduler is away for too long.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let mut client = Client::connect(cluster.clone())?;
        let mut tape = self.begin(&client)?;
        let mut patience = Patience::new(cluster);
        output::progress("recording; Ctrl-C ends it");
        let why = loop {
            tape.add(&Heard::Live)?;
            match tape.take_from(&client)? {
                End::Wanted(why) => break why,
                End::Away(why) => {
                    tape.add(&Heard::Away(why.clone()))?;
                    client = loop {
                        let failure = Failure { kind: "unreachable", ..Failure::trouble(&why) };
                        if let Some(again) = patience.call_again(failure)? {
                            break again;
                        }
                    };
                    patience.content();
                }
            }
        };
        let (took, pictures, bytes) = (tape.after_ms(), tape.pictures, tape.writer.written());
        let file = tape.writer.end().and_then(|buffer| buffer.into_inner().map_err(Into::into));
        file.and_then(|file| file.sync_all()).map_err(|error| self.fail(&error))?;
        let value = json!({
            "file": self.file, "took_ms": took, "pictures": pictures, "bytes": bytes, "end": why,
        });
        let (shown, time) = (self.file.display(), Millis(took / 1000 * 1000));
        let people = || {
            format!(
                "{pictures} pictures of {time} in {shown}, {} KiB; {why}\ngantry replay {shown} shows them",
                bytes / 1024
            )
        };
        format.print("recording", &value, people, || shown.to_string())?;
        Ok(0)
    }

    fn fail(&self, error: &std::io::Error) -> Failure {
        Failure::trouble(format!("writing the recording {} failed: {error}", self.file.display()))
    }

    fn begin(&self, client: &Client) -> Result<Tape, Failure> {
        let open = File::options().write(true).create_new(true).mode(0o600).open(&self.file);
        let file = open.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::usage(format!(
                "{} is there already, and no recording is written over; choose another name",
                self.file.display()
            )),
            _ => self.fail(&error),
        })?;
        let head = Head {
            cluster: client.cluster().to_owned(),
            began: client.greeted(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: gantry_wire::hello::VERSION_MAX,
        };
        let writer =
            Writer::begin(BufWriter::new(file), &head).map_err(|error| self.fail(&error))?;
        let began = Instant::now();
        Ok(Tape {
            writer,
            began,
            until: self.length.map(|length| began + Duration::from_millis(length.0)),
            bytes_max: self.size_max.0 << 20,
            pictures: 0,
            questions: Questions::default(),
            waiting: Vec::new(),
        })
    }
}

fn failed(error: &std::io::Error) -> Failure {
    Failure::trouble(format!("writing the recording failed: {error}"))
}

impl Tape {
    fn after_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn add(&mut self, heard: &Heard) -> Result<(), Failure> {
        let after_ms = self.after_ms();
        self.writer.add(after_ms, heard).map_err(|error| failed(&error))
    }

    /// Records one connection until it ends.
    fn take_from(&mut self, client: &Client) -> Result<End, Failure> {
        let (runtime, connection) = client.parts();
        let (send, mut told) = mpsc::channel(WAITING_MAX);
        let mut followed = Followed::new(connection.clone(), send);
        runtime.block_on(async {
            // The watches live on the runtime, and end with this value.
            for scope in SCREENS {
                followed.add(scope);
            }
            let mut clock = tokio::time::interval(WRITE_EACH);
            let mut ticks = 0_u64;
            loop {
                tokio::select! {
                    heard = told.recv() => match heard {
                        Some(Told::Picture(scope, update)) => {
                            followed.look_at(scope, &update);
                            self.questions.look_at(scope, &update);
                            self.keep(scope, update);
                        }
                        Some(Told::Answer(request, reply)) => self.answered(request, reply)?,
                        Some(Told::Away(why)) => return Ok(End::Away(why)),
                        None => return Ok(End::Away("every watch has ended".into())),
                    },
                    _ = clock.tick() => {
                        self.write()?;
                        ticks += 1;
                        if ticks % ASK_EACH == 2 && followed.has_asked() {
                            followed.ask(self.questions.due());
                        }
                        if self.until.is_some_and(|until| Instant::now() >= until) {
                            return Ok(End::Wanted("its time is over"));
                        }
                        if self.writer.written() >= self.bytes_max {
                            return Ok(End::Wanted("its size is reached"));
                        }
                    }
                    _ = tokio::signal::ctrl_c() => {
                        self.write()?;
                        return Ok(End::Wanted("interrupted"));
                    }
                }
            }
        })
    }

    fn keep(&mut self, scope: Scope, update: Box<Update>) {
        self.waiting.retain(|(known, _)| *known != scope);
        self.waiting.push((scope, update));
    }

    fn answered(&mut self, request: Box<Request>, reply: Box<Reply>) -> Result<(), Failure> {
        if self.questions.is_new(&request, &reply) {
            self.add(&Heard::Answer { request, reply })?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Failure> {
        for (scope, update) in std::mem::take(&mut self.waiting) {
            self.pictures += 1;
            self.add(&Heard::Picture { scope, update })?;
        }
        // Whoever is ended by a signal has recorded all but its last second.
        self.writer.flush().map_err(|error| failed(&error))
    }
}

/// What comes over a connection.
enum Told {
    Picture(Scope, Box<Update>),
    Answer(Box<Request>, Box<Reply>),
    /// It is gone, and why.
    Away(String),
}

/// The scopes that are watched on a connection.
struct Followed {
    connection: Connection,
    send: mpsc::Sender<Told>,
    watches: Vec<(Scope, JoinHandle<()>)>,
    asking: Option<JoinHandle<()>>,
}

impl Followed {
    fn new(connection: Connection, send: mpsc::Sender<Told>) -> Self {
        Self { connection, send, watches: Vec::new(), asking: None }
    }

    /// Whether the questions of the look before are through.
    fn has_asked(&self) -> bool {
        self.asking.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Asks questions one after another, and for the pages that follow.
    fn ask(&mut self, due: Vec<(Request, usize)>) {
        let (connection, send) = (self.connection.clone(), self.send.clone());
        self.asking = Some(tokio::spawn(async move {
            for (request, pages) in due {
                let mut next = Some(request);
                for _ in 0..pages {
                    let Some(request) = next.take() else { break };
                    // What one node cannot answer now, the next look asks again.
                    let Ok(reply) = exchange(&connection, &request).await else { break };
                    next = questions::next_page(&request, &reply);
                    let answer = Told::Answer(Box::new(request), Box::new(reply));
                    if send.send(answer).await.is_err() {
                        return;
                    }
                }
            }
        }));
    }

    fn add(&mut self, scope: Scope) {
        let (connection, send) = (self.connection.clone(), self.send.clone());
        let watch = tokio::spawn(async move {
            let ended = follow(&connection, scope, &send).await;
            let why = ended.map_or_else(|error| error.to_string(), |()| "a watch has ended".into());
            // Who takes nothing any more has ended himself.
            let _ = send.send(Told::Away(why)).await;
        });
        self.watches.push((scope, watch));
    }

    /// Follows the jobs that run, and those no more that have ended and been seen so.
    fn look_at(&mut self, scope: Scope, update: &Update) {
        if let Scope::Job(_) = scope {
            let ended = update.jobs.iter().all(|row| row.state.is_ended());
            let whole = update.output.as_ref().is_none_or(|output| !output.live);
            if ended && whole {
                self.drop(scope);
            }
            return;
        }
        if scope != Scope::Jobs {
            return;
        }
        let running: Vec<JobId> = update
            .jobs
            .iter()
            .filter(|row| row.state == JobState::Run)
            .map(|row| row.job)
            .collect();
        for job in running {
            let scope = Scope::Job(job);
            let known = self.watches.iter().any(|(known, _)| *known == scope);
            if !known && self.watches.len() < SCREENS.len() + JOBS_MAX {
                self.add(scope);
            }
        }
    }

    fn drop(&mut self, scope: Scope) {
        self.watches.retain(|(known, watch)| {
            let other = *known != scope;
            if !other {
                watch.abort();
            }
            other
        });
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        for task in self.watches.iter().map(|(_, watch)| watch).chain(&self.asking) {
            task.abort();
        }
    }
}

/// Hands on the pictures of a scope until its stream ends.
async fn follow(
    connection: &Connection,
    scope: Scope,
    send: &mpsc::Sender<Told>,
) -> Result<(), gantry_link::LinkError> {
    let mut watched = Watched::open(connection, scope).await?;
    while let Some(update) = watched.next().await? {
        if send.send(Told::Picture(scope, update)).await.is_err() {
            break;
        }
    }
    Ok(())
}
