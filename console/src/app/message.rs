//! What the console's machine is told, and what it wants done.

use gantry_wire::{Reply, Scope, Update};

use super::asks::{About, Ask};
use super::library::{Told, Wish};
use super::{Key, Link};

/// A mouse button or wheel at a place of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mouse {
    /// The left button.
    Click,
    /// The wheel, away from the user.
    WheelUp,
    /// The wheel, towards the user.
    WheelDown,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Message {
    /// A key.
    Key(Key),
    /// The mouse, at a column and a row.
    Mouse(Mouse, u16, u16),
    /// Text was pasted. It never acts.
    Paste(String),
    /// The screen has another size.
    Resize(u16, u16),
    /// A picture of the cluster came.
    Update {
        /// What was watched.
        scope: Scope,
        /// What it looks like.
        update: Box<Update>,
    },
    /// The connection changed.
    Link(Link),
    /// A question was answered, or why it was not.
    Answer {
        /// What the question was about.
        about: About,
        /// The answer.
        reply: Box<Result<Reply, String>>,
    },
    /// What the library holds, shows or has done.
    Library(Told),
    /// A sentence for the user.
    Said(String),
    /// What the one who opened this console is doing, in a sentence that stays.
    Banner(String),
    /// The terminal takes bytes slowly, or as they come again.
    Lean(bool),
    /// The terminal is gone.
    Gone,
    /// Time has passed.
    Tick,
}

/// What the shell shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Watch this from now on.
    Watch(Scope),
    /// Ask the scheduler.
    Ask(Ask),
    /// Wish something of the library on the shared storage.
    Library(Wish),
    /// Put text into the terminal's clipboard.
    Copy(String),
    /// Write what is on the screen to a new file, whose name begins so.
    Export(String),
    /// Let the terminal tell of the mouse, or not.
    Mouse(bool),
    /// Draw everything again.
    Redraw,
    /// Give the terminal back and stop until the shell continues us.
    Suspend,
    /// End; leave the last frame where that is wanted.
    Quit {
        /// Whether the last frame stays on the terminal.
        keep_frame: bool,
    },
}
