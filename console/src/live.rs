//! The shell around the console's machine: the connection, the terminal and the clock bring
//! messages; watches, requests and frames are carried out.

mod pace;

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant, SystemTime};

use gantry_link::{Backoff, Connection, Own};
use gantry_model::{At, Machine};
use gantry_wire::{Peer, Reply, Request, Scope};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use pace::Pace;

use crate::app::{About, App, Ask, Effect, Keymap, Link, Message};
use crate::librarian::{Librarian, Reader};
use crate::term::graphics::Wanted;
use crate::term::{self, Screen};
use crate::ui;
use crate::ui::palette::Palette;
use crate::ui::theme::{Colours, Glyphs, Theme};
use crate::watched::Watched;

/// The longest wait between two attempts to connect.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Between two looks at the clock: ages are counted in seconds.
const TICK: Duration = Duration::from_secs(1);
/// So long after the last key its consequences beside the list are shown: a key that is held comes
/// thirty times a second.
const REST: Duration = Duration::from_millis(150);
/// Messages that wait.
const MESSAGES_MAX: usize = 256;
/// Requests that wait: what can be marked on one screen, and what a screen asks for itself.
const REQUESTS_MAX: usize = 256;
/// How long an answer is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How a console is opened.
#[derive(Clone, Debug)]
pub struct ConsoleOptions {
    /// Which glyphs may be used.
    pub glyphs: Glyphs,
    /// How many colours; what the environment says where absent.
    pub colours: Option<Colours>,
    /// How images are drawn.
    pub image: Wanted,
    /// Whether nothing may be changed from it.
    pub read_only: bool,
    /// Sentences about what is going on beside the cluster; the newest stands above the keys.
    pub banner: Option<watch::Receiver<String>>,
    /// Where the library is whose images are shown, and who decides on them.
    pub reader: Reader,
}

impl Default for ConsoleOptions {
    fn default() -> Self {
        Self {
            glyphs: Glyphs::Unicode,
            colours: None,
            image: Wanted::default(),
            read_only: false,
            banner: None,
            reader: Reader::default(),
        }
    }
}

/// Opens the console and runs it until the user leaves it.
///
/// # Errors
/// Where there is no terminal, or it is gone.
pub fn run_console(own: Own, options: ConsoleOptions) -> anyhow::Result<()> {
    run_with(options, move |messages, scopes, asked| {
        tokio::spawn(keep_connected(own, messages, scopes, asked));
    })
}

/// Opens the console on whatever brings it pictures: `feed` is given where to send them, what is on
/// the screen, and what the console and its user ask.
///
/// # Errors
/// Where there is no terminal, or it is gone.
pub fn run_with<F>(options: ConsoleOptions, feed: F) -> anyhow::Result<()>
where
    F: FnOnce(mpsc::Sender<Message>, watch::Receiver<Scope>, mpsc::Receiver<Ask>),
{
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if !terminal {
        anyhow::bail!("the console needs a terminal; gantry top --once prints one frame without");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(run(options, feed));
    // The thread that waits for keys cannot be woken; it ends with the process.
    runtime.shutdown_background();
    result
}

async fn run<F>(options: ConsoleOptions, feed: F) -> anyhow::Result<()>
where
    F: FnOnce(mpsc::Sender<Message>, watch::Receiver<Scope>, mpsc::Receiver<Ask>),
{
    let theme = term::theme(options.glyphs, options.colours);
    let keymap = keymap()?;
    if let Some(palette) = palette()? {
        palette.choose();
    }
    let mut signals = Signals::listen()?;
    let mut screen = Screen::take(term::protocol(options.image, theme))?;
    let (messages, mut received) = mpsc::channel(MESSAGES_MAX);
    let (scope, scopes) = watch::channel(Scope::Overview);
    let (requests, asked) = mpsc::channel(REQUESTS_MAX);
    listen_to_keys(messages.clone());
    if let Some(banner) = options.banner {
        tokio::spawn(pass_on(banner, messages.clone()));
    }
    let librarian = Librarian::start(options.reader, messages.clone());
    feed(messages.clone(), scopes, asked);
    let mut clock = tokio::time::interval(TICK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut app = App::new(keymap, term::size());
    app.read_only = options.read_only;
    let mut pace = Pace::default();
    // When no key has been pressed for a moment.
    let mut rest = None;
    loop {
        let message = tokio::select! {
            message = received.recv() => message.unwrap_or(Message::Gone),
            _ = clock.tick() => Message::Tick,
            () = until(rest) => {
                rest = None;
                Message::Tick
            }
            signal = signals.next() => match signal {
                Signal::End => return Ok(screen.end(false)?),
                Signal::Continue => {
                    screen.take_again()?;
                    let (columns, rows) = term::size();
                    Message::Resize(columns, rows)
                }
            },
        };
        let mut waiting = VecDeque::from([message]);
        while let (true, Ok(message)) = (waiting.len() < MESSAGES_MAX, received.try_recv()) {
            waiting.push_back(message);
        }
        waiting.extend(pace.lean_again(Instant::now()).map(Message::Lean));
        // Numbers change with the second; what a person does is seen at once.
        let mut due = waiting.iter().any(|message| matches!(message, Message::Tick));
        if waiting.iter().any(|message| matches!(message, Message::Key(_) | Message::Mouse(..))) {
            rest = Some(tokio::time::Instant::now() + REST);
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
                Effect::Ask(ask) => {
                    if let Err(error) = requests.try_send(ask) {
                        let about = error.into_inner().about;
                        let answer = refused(about, "too much is asked at once; ask again");
                        app.apply(now(), answer, &mut Vec::new());
                    }
                }
                Effect::Library(wish) => {
                    if let Some(told) = librarian.wish(wish) {
                        app.apply(now(), Message::Library(told), &mut Vec::new());
                    }
                }
                Effect::Copy(text) => screen.copy(&text)?,
                Effect::Mouse(on) => screen.mouse(on)?,
                Effect::Export(name) => {
                    // What is a picture on this terminal is drawn with half blocks in a text.
                    let said = export(&name, now(), &drawn(&app, theme).0);
                    app.apply(now(), Message::Said(said), &mut Vec::new());
                }
                Effect::Redraw => screen.redraw(),
                Effect::Suspend => screen.suspend()?,
                Effect::Quit { keep_frame } => return Ok(screen.end(keep_frame)?),
            }
        }
        due |= std::mem::take(&mut app.urgent);
        if !due {
            continue;
        }
        tokio::time::sleep(pace.until_next(Instant::now())).await;
        let (frame, cursor) = drawn(&app, theme);
        let begun = Instant::now();
        let over = if screen.shows_pictures() { ui::rasters(&app) } else { Vec::new() };
        screen.draw(frame, cursor, over)?;
        pace.drawn(begun, begun.elapsed());
    }
}

/// A frame, and the place of its cursor.
fn drawn(app: &App, theme: Theme) -> (Buffer, (u16, u16)) {
    let (columns, rows) = app.size;
    let mut frame = Buffer::empty(Rect::new(0, 0, columns, rows));
    let cursor = ui::render(app, theme, &mut frame);
    (frame, cursor)
}

/// Writes a frame as text to a new file in the working folder, whose name begins so. Says where it is,
/// or why there is none.
fn export(name: &str, at: At, frame: &Buffer) -> String {
    let time = ui::clock(at).replace(':', "");
    let name = format!("{name}-{time}.txt");
    let text = ui::lines(frame).join("\n");
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&name);
    match file.and_then(|mut file| file.write_all(text.trim_end().as_bytes())) {
        Ok(()) => format!("wrote {name} into the folder that the console was started in"),
        Err(error) => {
            format!("writing {name} failed: {error}; start the console in a folder of yours")
        }
    }
}

/// Waits until a moment; for ever where there is none.
async fn until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// The answer to a question that could not be asked.
fn refused(about: About, why: &str) -> Message {
    Message::Answer { about, reply: Box::new(Err(why.to_owned())) }
}

/// What the system wants.
enum Signal {
    /// The console shall end.
    End,
    /// It was stopped and goes on: the terminal may be another shell's since.
    Continue,
}

/// The signals that a console listens to.
struct Signals {
    ends: [unix::Signal; 3],
    goes_on: unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let ends = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()];
        let [terminate, hang_up, interrupt] = ends.map(unix::signal);
        let goes_on = SignalKind::from_raw(rustix::process::Signal::CONT.as_raw());
        Ok(Self { ends: [terminate?, hang_up?, interrupt?], goes_on: unix::signal(goes_on)? })
    }

    async fn next(&mut self) -> Signal {
        let [terminate, hang_up, interrupt] = &mut self.ends;
        tokio::select! {
            _ = terminate.recv() => Signal::End,
            _ = hang_up.recv() => Signal::End,
            _ = interrupt.recv() => Signal::End,
            _ = self.goes_on.recv() => Signal::Continue,
        }
    }
}

/// Passes the sentences of a banner on.
async fn pass_on(mut banner: watch::Receiver<String>, messages: mpsc::Sender<Message>) {
    loop {
        let sentence = banner.borrow_and_update().clone();
        let sent = messages.send(Message::Banner(sentence)).await;
        if sent.is_err() || banner.changed().await.is_err() {
            return;
        }
    }
}

fn now() -> At {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    At(since.as_millis() as u64)
}

fn listen_to_keys(messages: mpsc::Sender<Message>) {
    std::thread::spawn(move || {
        loop {
            let message = match term::read() {
                Ok(Some(message)) => message,
                Ok(None) => continue,
                Err(_) => Message::Gone,
            };
            let gone = matches!(message, Message::Gone);
            if messages.blocking_send(message).is_err() || gone {
                return;
            }
        }
    });
}

/// Connects for as long as the console is open, watches what is on the screen, and asks what the
/// user asks.
async fn keep_connected(
    mut own: Own,
    messages: mpsc::Sender<Message>,
    mut scopes: watch::Receiver<Scope>,
    mut asked: mpsc::Receiver<Ask>,
) {
    let mut backoff = Backoff::new(WAIT_MAX);
    while !messages.is_closed() {
        let session = tokio::select! {
            session = own.connect(Peer::Console) => session,
            () = refuse(&mut asked, &messages) => return,
        };
        let reason = match session {
            Ok(session) => {
                backoff.reset();
                let _ = messages.send(Message::Link(Link::Live)).await;
                tokio::select! {
                    reason = serve(&session.connection, &messages, &mut scopes, &mut asked) => reason,
                    never = own.keep_fresh(session.at) => match never {},
                }
            }
            Err(error) => error.to_string(),
        };
        let _ = messages.send(Message::Link(Link::Reconnecting(reason))).await;
        tokio::select! {
            () = tokio::time::sleep(backoff.next_wait()) => {}
            () = refuse(&mut asked, &messages) => return,
        }
    }
}

/// Says no to what is asked while there is no connection: carried out minutes later, it would
/// surprise. Ends with the console.
async fn refuse(asked: &mut mpsc::Receiver<Ask>, messages: &mpsc::Sender<Message>) {
    while let Some(ask) = asked.recv().await {
        let _ = messages.send(refused(ask.about, "there is no connection to the scheduler")).await;
    }
}

/// The keys: the user's own table, where there is one.
fn keymap() -> anyhow::Result<Keymap> {
    let Some((name, text)) = own_file("GANTRY_KEYS", "keys.toml")? else {
        return Ok(Keymap::shipped());
    };
    Keymap::parse(&name, &text).map_err(anyhow::Error::msg)
}

/// The colours that the user names or has, if any.
fn palette() -> anyhow::Result<Option<Palette>> {
    let named = std::env::var("GANTRY_THEME").unwrap_or_default();
    let shipped = gantry_config::THEMES.iter().find(|(name, _)| *name == named);
    let file = match shipped {
        Some((name, text)) => Some((format!("{name}.toml"), (*text).to_owned())),
        None => own_file("GANTRY_THEME", "theme.toml")?,
    };
    let Some((name, text)) = file else { return Ok(None) };
    Palette::parse(&name, &text).map(Some).map_err(anyhow::Error::msg)
}

/// The name and the text of a settings file of the user's own: the one that a variable names, or the
/// one in its usual place.
fn own_file(variable: &str, usual: &str) -> anyhow::Result<Option<(String, String)>> {
    let path = |name: &str| std::env::var_os(name).map(std::path::PathBuf::from);
    let folder = path("XDG_CONFIG_HOME").or_else(|| Some(path("HOME")?.join(".config")));
    let usual = folder.map(|folder| folder.join("gantry").join(usual)).filter(|file| file.exists());
    let Some(file) = path(variable).filter(|file| !file.as_os_str().is_empty()).or(usual) else {
        return Ok(None);
    };
    let name = file.display().to_string();
    let text = std::fs::read_to_string(&file).map_err(|error| {
        anyhow::anyhow!("reading {name} failed: {error}; {variable} names another")
    })?;
    Ok(Some((name, text)))
}

/// Serves one connection until it ends; says why it did.
async fn serve(
    connection: &Connection,
    messages: &mpsc::Sender<Message>,
    scopes: &mut watch::Receiver<Scope>,
    asked: &mut mpsc::Receiver<Ask>,
) -> String {
    loop {
        let scope = *scopes.borrow_and_update();
        let following = follow(connection, scope, messages);
        tokio::pin!(following);
        loop {
            tokio::select! {
                reason = &mut following => return reason,
                changed = scopes.changed() => {
                    if changed.is_err() {
                        return "the console is closed".into();
                    }
                    break;
                }
                Some(ask) = asked.recv() => {
                    let (connection, messages) = (connection.clone(), messages.clone());
                    tokio::spawn(async move {
                        let reply = Box::new(exchange(&connection, &ask.request).await);
                        let _ = messages.send(Message::Answer { about: ask.about, reply }).await;
                    });
                }
            }
        }
    }
}

/// Watches a scope until its stream ends; says why it did.
async fn follow(connection: &Connection, scope: Scope, messages: &mpsc::Sender<Message>) -> String {
    let watching = async {
        let mut watched = Watched::open(connection, scope).await?;
        while let Some(update) = watched.next().await? {
            if messages.send(Message::Update { scope, update }).await.is_err() {
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

/// Asks a question and waits for its answer.
///
/// # Errors
/// A sentence where none came.
pub(crate) async fn exchange(connection: &Connection, request: &Request) -> Result<Reply, String> {
    let exchange = async {
        let (mut sender, mut receiver) = connection.open().await?;
        sender.send(request).await?;
        receiver.expect::<Reply>().await
    };
    match tokio::time::timeout(ANSWER_WITHIN, exchange).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(format!("{error}; look, then ask again")),
        Err(_) => Err("no answer yet; look, then ask again".into()),
    }
}
