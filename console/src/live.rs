//! The shell around the console's machine: the connection, the terminal and the clock bring
//! messages; watches, requests and frames are carried out.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use gantry_link::{Backoff, Connection, Identity, connect};
use gantry_model::{At, JobId, Machine};
use gantry_wire::{Peer, Reply, Request, Scope, Update};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::app::{App, Effect, Keymap, Link, Message};
use crate::term::{self, Screen};
use crate::ui;
use crate::ui::theme::Glyphs;

/// The longest wait between two attempts to connect.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Between two looks at the clock: ages are counted in seconds.
const TICK: Duration = Duration::from_secs(1);
/// Between two frames after keys: 20 a second.
const FRAME_EACH: Duration = Duration::from_millis(50);
/// Messages that wait.
const MESSAGES_MAX: usize = 256;

/// How a console is opened.
#[derive(Clone, Copy, Debug)]
pub struct ConsoleOptions {
    /// Which glyphs may be used.
    pub glyphs: Glyphs,
    /// Whether nothing may be changed from it.
    pub read_only: bool,
}

impl Default for ConsoleOptions {
    fn default() -> Self {
        Self { glyphs: Glyphs::Unicode, read_only: false }
    }
}

/// Opens the console and runs it until the user leaves it.
///
/// # Errors
/// Where there is no terminal, or it is gone.
pub fn run_console(
    address: SocketAddr,
    identity: Identity,
    options: ConsoleOptions,
) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(run(address, identity, options));
    // The thread that waits for keys cannot be woken; it ends with the process.
    runtime.shutdown_background();
    result
}

async fn run(
    address: SocketAddr,
    identity: Identity,
    options: ConsoleOptions,
) -> anyhow::Result<()> {
    if !std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        anyhow::bail!("the console needs a terminal; gantry top --once prints one frame without");
    }
    let theme = term::theme(options.glyphs);
    let mut screen = Screen::take()?;
    let (messages, mut received) = mpsc::channel(MESSAGES_MAX);
    let (scope, scopes) = watch::channel(Scope::Overview);
    let (requests, asked) = mpsc::channel(16);
    listen_to_keys(messages.clone());
    tokio::spawn(keep_connected(address, identity, messages.clone(), scopes, asked));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut clock = tokio::time::interval(TICK);
    let mut app = App::new(Keymap::shipped(), term::size());
    app.read_only = options.read_only;
    let mut last = Instant::now().checked_sub(FRAME_EACH).unwrap_or_else(Instant::now);
    loop {
        let message = tokio::select! {
            message = received.recv() => message.unwrap_or(Message::Tick),
            _ = clock.tick() => Message::Tick,
            _ = terminate.recv() => return Ok(screen.end(false)?),
            _ = hang_up.recv() => return Ok(screen.end(false)?),
        };
        let mut waiting = VecDeque::from([message]);
        while let Ok(message) = received.try_recv() {
            waiting.push_back(message);
        }
        let mut effects = Vec::new();
        for message in waiting {
            app.apply(now(), message, &mut effects);
        }
        for effect in effects {
            match effect {
                Effect::Watch(next) => {
                    scope.send_replace(next);
                }
                Effect::Cancel(job) => {
                    if requests.try_send(job).is_err() {
                        app.apply(
                            now(),
                            Message::Answer("too much is asked at once; try again".into()),
                            &mut Vec::new(),
                        );
                    }
                }
                Effect::Copy(text) => screen.copy(&text)?,
                Effect::Redraw => screen.redraw(),
                Effect::Suspend => screen.suspend()?,
                Effect::Quit { keep_frame } => return Ok(screen.end(keep_frame)?),
            }
        }
        tokio::time::sleep(FRAME_EACH.saturating_sub(last.elapsed())).await;
        last = Instant::now();
        let (columns, rows) = app.size;
        let mut frame = Buffer::empty(Rect::new(0, 0, columns, rows));
        let cursor = ui::render(&app, theme, &mut frame);
        screen.draw(&frame, cursor)?;
    }
}

fn now() -> At {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    At(since.as_millis() as u64)
}

fn listen_to_keys(messages: mpsc::Sender<Message>) {
    std::thread::spawn(move || {
        while let Ok(message) = term::read() {
            if let Some(message) = message
                && messages.blocking_send(message).is_err()
            {
                return;
            }
        }
    });
}

/// Connects for as long as the console is open, watches what is on the screen, and asks what the
/// user asks.
async fn keep_connected(
    address: SocketAddr,
    identity: Identity,
    messages: mpsc::Sender<Message>,
    mut scopes: watch::Receiver<Scope>,
    mut asked: mpsc::Receiver<JobId>,
) {
    let mut backoff = Backoff::new(WAIT_MAX);
    while !messages.is_closed() {
        let reason = match connect(address, &identity, Peer::Console).await {
            Ok(session) => {
                backoff.reset();
                let _ = messages.send(Message::Link(Link::Live)).await;
                serve(&session.connection, &messages, &mut scopes, &mut asked).await
            }
            Err(error) => error.to_string(),
        };
        let _ = messages.send(Message::Link(Link::Reconnecting(reason))).await;
        tokio::time::sleep(backoff.next_wait()).await;
    }
}

/// Serves one connection until it ends; says why it did.
async fn serve(
    connection: &Connection,
    messages: &mpsc::Sender<Message>,
    scopes: &mut watch::Receiver<Scope>,
    asked: &mut mpsc::Receiver<JobId>,
) -> String {
    loop {
        let scope = *scopes.borrow_and_update();
        tokio::select! {
            reason = follow(connection, scope, messages) => return reason,
            changed = scopes.changed() => {
                if changed.is_err() {
                    return "the console is closed".into();
                }
            }
            Some(job) = asked.recv() => {
                let sentence = cancel(connection, job).await;
                let _ = messages.send(Message::Answer(sentence)).await;
            }
        }
    }
}

/// Watches a scope until its stream ends; says why it did.
async fn follow(connection: &Connection, scope: Scope, messages: &mpsc::Sender<Message>) -> String {
    let watching = async {
        let (mut sender, mut receiver) = connection.open().await?;
        sender.send(&Request::Watch { scope }).await?;
        while let Some(update) = receiver.receive::<Update>().await? {
            if messages.send(Message::Update { scope, update: Box::new(update) }).await.is_err() {
                break;
            }
        }
        Ok::<(), gantry_link::LinkError>(())
    };
    match watching.await {
        Ok(()) => "the scheduler ended the watch".into(),
        Err(error) => error.to_string(),
    }
}

async fn cancel(connection: &Connection, job: JobId) -> String {
    let exchange = async {
        let (mut sender, mut receiver) = connection.open().await?;
        sender.send(&Request::Cancel { job, indices: None }).await?;
        receiver.expect::<Reply>().await
    };
    match exchange.await {
        Ok(Reply::Cancelled(0)) => format!("{job} had ended already"),
        Ok(Reply::Cancelled(tasks)) => format!("{job} is cancelled, {tasks} tasks"),
        Ok(Reply::Refused(reject)) => reject.sentence,
        Ok(_) => "the scheduler gave an answer of another kind".into(),
        Err(error) => error.to_string(),
    }
}
