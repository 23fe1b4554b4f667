//! `gantry replay`: a recording on the same screens, as if it were the cluster.
//!
//! The app is sent the messages that a live cluster brings and cannot tell; only the banner can.
//! Whatever screen is looked at, the newest picture of it up to that moment is shown, and what it asks
//! beside that is answered as it was answered last. A question that was not answered yet is answered
//! once the recording comes to it. Nothing can be changed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use gantry_wire::{Reply, Request, Scope, Update};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::questions::Answers;
use super::{Cut, Head, Heard, Reader};
use crate::app::{About, Ask, Link, Message};
use crate::cli::nodes::Look;
use crate::cli::time;
use crate::error::{Failure, Outcome};
use crate::live;

/// A picture is shown again after this time, so that the app does not take the end for a silence.
const AGAIN_EACH: Duration = Duration::from_secs(3);
/// Scopes whose newest picture is kept.
const SCOPES_MAX: usize = 1024;
/// Questions that wait for the recording to answer them; the oldest gives way.
const OPEN_MAX: usize = 64;

/// `gantry replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// The recording.
    file: PathBuf,
    /// How much faster than it was.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    speed: u32,
    #[command(flatten)]
    look: Look,
}

impl Replay {
    /// Carries it out, until the user leaves it.
    ///
    /// # Errors
    /// Where the file is no recording, or there is no terminal.
    pub fn run(&self) -> Outcome {
        let shown = self.file.display();
        let file = File::open(&self.file).map_err(|error| {
            Failure::usage(format!("opening the recording {shown} failed: {error}"))
        })?;
        let reader = Reader::open(BufReader::new(file))
            .map_err(|why| Failure::usage(format!("{shown} cannot be replayed: {why}")))?;
        let (banner, said) = watch::channel(title(&reader.head, self.speed));
        let options = live::ConsoleOptions {
            banner: Some(said),
            read_only: true,
            reader: crate::librarian::Reader::default(),
            ..self.look.options()
        };
        let speed = self.speed;
        live::run_with(options, move |messages, scopes, asked| {
            tokio::spawn(Player::new(messages, banner).play(reader, speed, scopes, asked));
        })
        .map_err(|error| Failure::trouble(format!("{error:#}")))?;
        Ok(0)
    }
}

fn title(head: &Head, speed: u32) -> String {
    let fast = if speed > 1 { format!(", {speed} times as fast") } else { String::new() };
    let began = time::stamp(head.began);
    format!("a recording of {} from {began}{fast}; nothing here is live", head.cluster)
}

/// The newest picture of each scope.
#[derive(Debug, Default)]
pub(crate) struct Newest(Vec<(Scope, Box<Update>)>);

impl Newest {
    pub(crate) fn keep(&mut self, scope: Scope, update: Box<Update>) {
        if let Some(place) = self.0.iter_mut().find(|(known, _)| *known == scope) {
            place.1 = update;
        } else if self.0.len() < SCOPES_MAX {
            self.0.push((scope, update));
        }
    }

    /// Whether a scope was watched.
    fn holds(&self, scope: Scope) -> bool {
        self.0.iter().any(|(known, _)| *known == scope)
    }

    /// What a scope looks like: its own picture, the overview where it is only counts, or of a job that
    /// was not watched its row.
    pub(crate) fn of(&self, scope: Scope) -> Option<Box<Update>> {
        let own = |scope| self.0.iter().find(|(known, _)| *known == scope);
        if let Some((_, update)) = own(scope) {
            return Some(update.clone());
        }
        if scope == Scope::Summary {
            // The overview's picture has all that one of this has.
            return own(Scope::Overview).map(|(_, update)| update.clone());
        }
        let Scope::Job(job) = scope else { return None };
        let (_, jobs) = own(Scope::Jobs)?;
        let mut update = jobs.clone();
        update.jobs.retain(|row| row.job == job);
        Some(update)
    }
}

/// Sends an app what a recording holds.
struct Player {
    newest: Newest,
    answers: Answers,
    open: VecDeque<Ask>,
    messages: mpsc::Sender<Message>,
    banner: watch::Sender<String>,
}

/// What a player waits for.
enum Next {
    Due,
    Screen,
    Asked(Ask),
    Again,
    Left,
}

impl Player {
    fn new(messages: mpsc::Sender<Message>, banner: watch::Sender<String>) -> Self {
        let (newest, answers) = (Newest::default(), Answers::default());
        Self { newest, answers, open: VecDeque::new(), messages, banner }
    }

    async fn play(
        mut self,
        mut reader: Reader<BufReader<File>>,
        speed: u32,
        mut scopes: watch::Receiver<Scope>,
        mut asked: mpsc::Receiver<Ask>,
    ) {
        let began = Instant::now();
        let mut waiting = self.read(&mut reader);
        loop {
            let due = waiting
                .as_ref()
                .map(|(after_ms, _)| began + Duration::from_millis(*after_ms) / speed);
            let next = tokio::select! {
                () = sleep_until(due) => Next::Due,
                changed = scopes.changed() => if changed.is_ok() { Next::Screen } else { Next::Left },
                ask = asked.recv() => ask.map_or(Next::Left, Next::Asked),
                () = tokio::time::sleep(AGAIN_EACH) => Next::Again,
            };
            let scope = *scopes.borrow_and_update();
            let sent = match next {
                Next::Due => {
                    let heard = waiting.take().map(|(_, heard)| heard);
                    waiting = self.read(&mut reader);
                    match heard {
                        Some(heard) => self.tell(heard, scope).await,
                        None => Ok(()),
                    }
                }
                Next::Screen | Next::Again => self.show(scope).await,
                Next::Asked(ask) => self.answer(ask).await,
                Next::Left => return,
            };
            if sent.is_err() {
                return;
            }
        }
    }

    /// The next entry; says so where there is none.
    fn read(&self, reader: &mut Reader<BufReader<File>>) -> Option<(u64, Heard)> {
        match reader.hear() {
            Ok(Some(next)) => return Some(next),
            Ok(None) => self.banner.send_replace("the recording has ended; q leaves it".into()),
            Err(cut) => self.banner.send_replace(notice(&cut)),
        };
        None
    }

    async fn tell(&mut self, heard: Heard, scope: Scope) -> Sent {
        match heard {
            Heard::Live => self.messages.send(Message::Link(Link::Live)).await,
            Heard::Away(why) => self.messages.send(Message::Link(Link::Reconnecting(why))).await,
            Heard::Picture { scope: of, update } => {
                if let (Scope::Job(job), Some(output)) = (of, &update.output) {
                    self.answers.hear(job, output);
                }
                self.newest.keep(of, update);
                if of == scope { self.show(scope).await } else { Ok(()) }
            }
            Heard::Answer { request, reply } => {
                self.answers.keep(&request, &reply);
                self.answer_open(&request).await
            }
        }
    }

    async fn show(&self, scope: Scope) -> Sent {
        let Some(mut update) = self.newest.of(scope) else { return Ok(()) };
        if let (Scope::Job(job), false) = (scope, self.newest.holds(scope)) {
            self.answers.add_to(job, &mut update);
        }
        self.messages.send(Message::Update { scope, update }).await
    }

    /// Answers a question as it was answered last, or lets it wait.
    async fn answer(&mut self, ask: Ask) -> Sent {
        if let About::Deed(_) = ask.about {
            let why = "this is a recording, in which nothing can be changed";
            return self.send(ask.about, Err(why.to_owned())).await;
        }
        if let Some(reply) = self.answers.of(&ask.request) {
            return self.send(ask.about, Ok(reply)).await;
        }
        let about = ask.about.clone();
        self.open.retain(|open| open.about != about);
        self.open.push_back(ask);
        while self.open.len() > OPEN_MAX {
            self.open.pop_front();
        }
        self.send(about, Err("the recording does not say".to_owned())).await
    }

    /// Answers those that waited for this one.
    async fn answer_open(&mut self, request: &Request) -> Sent {
        let open = std::mem::take(&mut self.open).into_iter();
        let (waited, open): (VecDeque<Ask>, _) = open.partition(|ask| *ask.request == *request);
        self.open = open;
        for ask in waited {
            if let Some(reply) = self.answers.of(request) {
                self.send(ask.about, Ok(reply)).await?;
            }
        }
        Ok(())
    }

    async fn send(&self, about: About, reply: Result<Reply, String>) -> Sent {
        self.messages.send(Message::Answer { about, reply: Box::new(reply) }).await
    }
}

type Sent = Result<(), mpsc::error::SendError<Message>>;

/// What a person sees where a recording goes no further.
fn notice(cut: &Cut) -> String {
    format!("{cut}; q leaves it")
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::{At, JobId, JobRow, Summary, TaskRow};
    use gantry_wire::Output;

    use super::*;

    fn picture(jobs: &[u64]) -> Box<Update> {
        let row = |number: &u64| JobRow { job: JobId(*number), ..JobRow::default() };
        Box::new(Update {
            at: At(1),
            cluster: "a".into(),
            summary: Summary::default(),
            nodes: Vec::new(),
            busy_permille: Vec::new(),
            gpu_busy_permille: Vec::new(),
            gpu_power_w: Vec::new(),
            owners: Vec::new(),
            jobs: jobs.iter().map(row).collect(),
            metrics: Vec::new(),
            output: None,
            notes: Vec::new(),
        })
    }

    #[test]
    fn any_screen_shows_the_newest_of_it() {
        let mut newest = Newest::default();
        assert_eq!(newest.of(Scope::Jobs), None);
        newest.keep(Scope::Jobs, picture(&[1, 2]));
        newest.keep(Scope::Jobs, picture(&[1, 2, 3]));
        assert_eq!(newest.of(Scope::Jobs), Some(picture(&[1, 2, 3])));
        assert_eq!(newest.of(Scope::Job(JobId(3))), Some(picture(&[3])), "a job by its row");
        newest.keep(Scope::Job(JobId(3)), picture(&[3, 3]));
        assert_eq!(newest.of(Scope::Job(JobId(3))), Some(picture(&[3, 3])));
        assert_eq!(newest.of(Scope::Nodes), None);
        newest.keep(Scope::Overview, picture(&[1]));
        assert_eq!(newest.of(Scope::Summary), Some(picture(&[1])));
    }

    fn tasks() -> Request {
        Request::Tasks { job: JobId(2), from: 0 }
    }

    fn reply(starts: u32) -> Reply {
        let row = TaskRow {
            task: JobId(2).task(0),
            state: "done".into(),
            node: None,
            starts,
            exit: None,
        };
        Reply::Tasks { rows: vec![row], more: false }
    }

    #[test]
    fn questions_are_answered_as_they_were_and_those_of_a_time_before_once_it_comes() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (messages, mut received) = mpsc::channel(16);
            let mut player = Player::new(messages, watch::channel(String::new()).0);
            let about = About::Tasks(JobId(2));
            let ask = || Ask { about: about.clone(), request: Box::new(tasks()) };
            let mut answer = || match received.try_recv() {
                Ok(Message::Answer { about: of, reply }) if of == about => Some(*reply),
                Err(_) => None,
                other => panic!("{other:?}"),
            };
            player.answer(ask()).await.unwrap();
            assert_eq!(answer(), Some(Err("the recording does not say".into())));
            let heard = |starts| Heard::Answer {
                request: Box::new(tasks()),
                reply: Box::new(reply(starts)),
            };
            player.tell(heard(1), Scope::Jobs).await.unwrap();
            assert_eq!(answer(), Some(Ok(reply(1))), "it has waited");
            player.tell(heard(2), Scope::Jobs).await.unwrap();
            assert_eq!(answer(), None, "nobody has asked");
            player.answer(ask()).await.unwrap();
            assert_eq!(answer(), Some(Ok(reply(2))));
            // A deed is not a question, whatever was recorded.
            let deed = Ask { about: About::Deed("cancel j2".into()), request: Box::new(tasks()) };
            player.answer(deed).await.unwrap();
            assert!(player.open.is_empty());
            // A job that was not watched has what was answered about it.
            player.tell(shown(Scope::Jobs, picture(&[2])), Scope::Overview).await.unwrap();
            let output = Output { next: 4, bytes: b"end\n".to_vec(), live: false };
            let request = Request::Output { task: JobId(2).task(0), offset: u64::MAX };
            let heard = Heard::Answer {
                request: Box::new(request),
                reply: Box::new(Reply::Output(output.clone())),
            };
            player.tell(heard, Scope::Overview).await.unwrap();
            let (messages, mut received) = mpsc::channel(16);
            player.messages = messages;
            player.show(Scope::Job(JobId(2))).await.unwrap();
            let Some(Message::Update { update, .. }) = received.recv().await else { panic!() };
            assert_eq!(update.output, Some(output));
        });
    }

    fn shown(scope: Scope, update: Box<Update>) -> Heard {
        Heard::Picture { scope, update }
    }

    #[test]
    fn a_recording_reaches_the_app_in_its_order() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("r");
        let head = Head {
            cluster: "a".into(),
            began: At(0),
            software: "0".into(),
            protocol: gantry_wire::hello::VERSION_MAX,
        };
        let mut writer = super::super::Writer::begin(File::create(&path).unwrap(), &head).unwrap();
        for (after_ms, heard) in [
            (0, Heard::Live),
            (10, shown(Scope::Overview, picture(&[1]))),
            (20, shown(Scope::Jobs, picture(&[1, 2]))),
            (25, Heard::Answer { request: Box::new(tasks()), reply: Box::new(reply(1)) }),
            (30, Heard::Away("no answer".into())),
        ] {
            writer.add(after_ms, &heard).unwrap();
        }
        writer.end().unwrap();
        let reader = Reader::open(BufReader::new(File::open(&path).unwrap())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (messages, mut received) = mpsc::channel(16);
            let (scope, scopes) = watch::channel(Scope::Overview);
            let (ask, asked) = mpsc::channel(1);
            let (banner, said) = watch::channel(String::new());
            tokio::spawn(Player::new(messages, banner).play(reader, 1000, scopes, asked));
            let is = |message: Option<Message>, part: &str| {
                let text = format!("{message:?}");
                assert!(text.contains(part), "{text} lacks {part}");
            };
            is(received.recv().await, "Live");
            is(received.recv().await, "Overview");
            is(received.recv().await, "no answer");
            scope.send_replace(Scope::Jobs);
            is(received.recv().await, "scope: Jobs");
            ask.send(Ask { about: About::Tasks(JobId(2)), request: Box::new(tasks()) })
                .await
                .unwrap();
            is(received.recv().await, "starts: 1");
            assert!(said.borrow().contains("has ended"));
        });
    }
}
