//! The terminal: the only place that knows crossterm.
//!
//! It is asked nothing, at the start or later: an answer that comes late would arrive as keys. A
//! frame is built in memory, compared with the one before, and written at once; a frame that
//! changed nothing writes nothing. Whatever happens (panic, SIGTERM, SIGHUP, Ctrl-Z), the terminal
//! is given back as it was.

mod cells;
pub mod graphics;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use base64::prelude::{BASE64_STANDARD, Engine};
use crossterm::event::{
    DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture, Event,
    KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEventKind,
};
use crossterm::terminal::{self, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, queue, style};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use graphics::{Pictures, Protocol, Wanted};

use crate::app::{Key, Message, Mouse};
use crate::ui::raster::Raster;
use crate::ui::theme::{Colours, Glyphs, Theme};

/// What a terminal that says nothing is taken for.
const SIZE_UNKNOWN: (u16, u16) = (80, 24);

/// Whether the terminal is ours now, for the panic hook.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Frames as the bytes that turn the one before into the next.
#[derive(Debug)]
pub struct Frames {
    last: Buffer,
    cursor: (u16, u16),
    whole: bool,
    pictures: Pictures,
}

impl Frames {
    /// On a terminal of which nothing is known.
    #[must_use]
    pub fn new(columns: u16, rows: u16) -> Self {
        let last = Buffer::empty(Rect::new(0, 0, columns, rows));
        Self { last, cursor: (0, 0), whole: true, pictures: Pictures::default() }
    }

    /// The same on a terminal that shows pictures by a protocol, in cells of so many pixels where it
    /// says so.
    #[must_use]
    pub fn with_pictures(self, protocol: Option<Protocol>, cell: Option<(u16, u16)>) -> Self {
        let mut pictures = Pictures::new(protocol);
        pictures.cell = cell;
        Self { pictures, ..self }
    }

    /// What has to be written so that this frame is shown with the cursor at its place: nothing
    /// where it is already.
    ///
    /// # Errors
    /// Never: memory is written to.
    pub fn bytes(&mut self, frame: &Buffer, at: (u16, u16)) -> io::Result<Vec<u8>> {
        self.bytes_with(frame.clone(), at, Vec::new())
    }

    /// The same with pictures over it, where the terminal shows them.
    ///
    /// # Errors
    /// Never: memory is written to.
    pub fn bytes_with(
        &mut self,
        mut frame: Buffer,
        at: (u16, u16),
        rasters: Vec<Raster>,
    ) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if self.whole || self.last.area() != frame.area() {
            bytes = self.pictures.clear();
            queue!(bytes, style::ResetColor, terminal::Clear(terminal::ClearType::All))?;
            self.last = Buffer::empty(*frame.area());
            self.whole = false;
        }
        let change = self.pictures.next(rasters, &mut frame, &mut self.last)?;
        bytes.extend(change.before);
        let changes = cells::changes(&self.last, &frame);
        if changes.is_empty() && bytes.is_empty() && change.after.is_empty() && self.cursor == at {
            return Ok(bytes);
        }
        bytes.extend(cells::written(&frame, changes.into_iter(), at));
        if !change.after.is_empty() {
            bytes.extend(change.after);
            queue!(bytes, cursor::MoveTo(at.0, at.1))?;
        }
        self.last = frame;
        self.cursor = at;
        Ok(bytes)
    }
}

/// The terminal while it is ours.
#[derive(Debug)]
pub struct Screen {
    frames: Frames,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// Where standard output is no terminal.
    pub fn take(protocol: Option<Protocol>) -> io::Result<Self> {
        give_back_on_panic();
        enter()?;
        let (columns, rows) = size();
        Ok(Self { frames: Frames::new(columns, rows).with_pictures(protocol, cell_pixels()) })
    }

    /// Whether pictures in pixels can be shown.
    #[must_use]
    pub fn shows_pictures(&self) -> bool {
        self.frames.pictures.wanted()
    }

    /// Shows a frame and the pictures over it. One write, or none.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub fn draw(&mut self, frame: Buffer, at: (u16, u16), over: Vec<Raster>) -> io::Result<()> {
        if !over.is_empty() {
            let before = std::mem::replace(&mut self.frames.pictures.cell, cell_pixels());
            // Another font: what was made for the old one has another size now.
            self.frames.whole |= before != self.frames.pictures.cell;
        }
        let bytes = self.frames.bytes_with(frame, at, over)?;
        if bytes.is_empty() {
            return Ok(());
        }
        // There is no line feed in a frame, so this is one write for any length.
        let mut out = io::stdout().lock();
        out.write_all(&bytes)?;
        out.flush()
    }

    /// Draws everything again with the next frame.
    pub fn redraw(&mut self) {
        self.frames.whole = true;
    }

    /// Puts text into the terminal's clipboard (OSC 52).
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub fn copy(&mut self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        write!(out, "\x1b]52;c;{}\x07", BASE64_STANDARD.encode(text))?;
        out.flush()
    }

    /// Lets the terminal tell of the mouse, or keep it to select and copy.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub fn mouse(&mut self, on: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if on {
            queue!(out, EnableMouseCapture)?;
        } else {
            queue!(out, DisableMouseCapture)?;
        }
        out.flush()
    }

    /// Gives the terminal back and stops this job, as the shell would at Ctrl-Z; takes the
    /// terminal again once the shell goes on with it, or at once where there is no shell.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub fn suspend(&mut self) -> io::Result<()> {
        self.take_pictures_away()?;
        leave()?;
        // The whole group: where cargo or a script has started us, the shell waits for that too.
        rustix::process::kill_current_process_group(rustix::process::Signal::TSTP)?;
        self.take_again()
    }

    /// Takes the terminal after somebody else may have had it.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub fn take_again(&mut self) -> io::Result<()> {
        leave()?;
        enter()?;
        self.frames.whole = true;
        Ok(())
    }

    /// Gives the terminal back; leaves the last frame where that is wanted.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub fn end(mut self, keep_frame: bool) -> io::Result<()> {
        self.take_pictures_away()?;
        leave()?;
        if keep_frame {
            let text = crate::ui::lines(&self.frames.last).join("\n");
            writeln!(io::stdout().lock(), "{}", text.trim_end())?;
        }
        Ok(())
    }

    /// Not every terminal takes them away with the screen that they are on.
    fn take_pictures_away(&mut self) -> io::Result<()> {
        let bytes = self.frames.pictures.clear();
        let mut out = io::stdout().lock();
        out.write_all(&bytes)?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // An error means that there is no terminal to give back any more.
        let _ = leave();
    }
}

fn enter() -> io::Result<()> {
    terminal::enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    let mut out = io::stdout().lock();
    queue!(out, EnterAlternateScreen, EnableBracketedPaste, cursor::Show)?;
    out.flush()
}

fn leave() -> io::Result<()> {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    queue!(out, style::ResetColor, DisableMouseCapture, DisableBracketedPaste)?;
    queue!(out, LeaveAlternateScreen, cursor::Show)?;
    out.flush()?;
    terminal::disable_raw_mode()
}

/// A panic must not leave a terminal on which nothing can be typed.
fn give_back_on_panic() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let _ = leave();
            before(info);
        }));
    });
}

/// The terminal's size. 0x0 means that it does not know: then the environment is asked.
#[must_use]
pub fn size() -> (u16, u16) {
    match terminal::window_size().map(|size| (size.columns, size.rows)) {
        Ok((columns, rows)) if columns > 0 && rows > 0 => (columns, rows),
        _ => {
            let number = |name: &str| std::env::var(name).ok()?.parse().ok().filter(|n| *n > 0);
            (number("COLUMNS").unwrap_or(SIZE_UNKNOWN.0), number("LINES").unwrap_or(SIZE_UNKNOWN.1))
        }
    }
}

/// Pixels of a cell, where the terminal says: its size in pixels crosses SSH as its size in cells does.
fn cell_pixels() -> Option<(u16, u16)> {
    let size = terminal::window_size().ok()?;
    let each = |pixels: u16, cells: u16| pixels.checked_div(cells).filter(|each| *each > 0);
    Some((each(size.width, size.columns)?, each(size.height, size.rows)?))
}

/// How pictures are shown here: by what is wanted and what the environment says.
#[must_use]
pub fn protocol(wanted: Wanted, theme: Theme) -> Option<Protocol> {
    graphics::protocol(wanted, theme, |name| std::env::var(name).unwrap_or_default())
}

/// How things look here: by what is wanted and what the environment says, since the terminal is not
/// asked.
#[must_use]
pub fn theme(glyphs: Glyphs, colours: Option<Colours>) -> Theme {
    let set = |name: &str| std::env::var(name).unwrap_or_default();
    let term = set("TERM");
    let known = if !set("NO_COLOR").is_empty() || term == "dumb" {
        Colours::Mono
    } else if matches!(set("COLORTERM").as_str(), "truecolor" | "24bit") {
        Colours::True
    } else if term.contains("256") || term.starts_with("tmux") || term.starts_with("screen") {
        Colours::Indexed
    } else {
        Colours::Sixteen
    };
    let locale =
        [set("LC_ALL"), set("LC_CTYPE"), set("LANG")].into_iter().find(|value| !value.is_empty());
    let utf8 = locale.is_none_or(|value| value.to_lowercase().contains("utf"));
    // crossterm takes NO_COLOR for its own business and would drop reverse video with it.
    style::force_color_output(true);
    Theme { colours: colours.unwrap_or(known), glyphs: if utf8 { glyphs } else { Glyphs::Ascii } }
}

/// Waits for something from the terminal.
///
/// # Errors
/// Where the terminal is gone.
pub fn read() -> io::Result<Option<Message>> {
    Ok(match crossterm::event::read()? {
        Event::Key(key) if key.kind != KeyEventKind::Release => key_of(key).map(Message::Key),
        Event::Mouse(event) => {
            let mouse = match event.kind {
                MouseEventKind::Down(MouseButton::Left) => Some(Mouse::Click),
                MouseEventKind::ScrollUp => Some(Mouse::WheelUp),
                MouseEventKind::ScrollDown => Some(Mouse::WheelDown),
                _ => None,
            };
            mouse.map(|mouse| Message::Mouse(mouse, event.column, event.row))
        }
        Event::Paste(text) => Some(Message::Paste(text)),
        Event::Resize(..) => {
            let (columns, rows) = size();
            Some(Message::Resize(columns, rows))
        }
        _ => None,
    })
}

fn key_of(key: KeyEvent) -> Option<Key> {
    Some(match key.code {
        KeyCode::Char(c) if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Ctrl(c),
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Esc,
        KeyCode::Tab => Key::Tab,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return None,
    })
}
