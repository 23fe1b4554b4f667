//! Pictures in pixels: which protocol the terminal has, and what has to be sent of a picture.
//!
//! The terminal is not asked: a late answer would arrive as keys, and a multiplexer in between may
//! pass the question on but not the picture. What the environment says decides, or the user. Kitty's
//! protocol is told to answer nothing. A picture that would take too many bytes is not sent; the
//! half blocks in its place stay.

mod iterm;
mod kitty;
mod sixel;

use std::io::{self, Write};

use clap::ValueEnum;
use crossterm::cursor::MoveTo;
use crossterm::queue;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;

use super::cells;
use crate::ui::raster::Raster;
use crate::ui::theme::{Colours, Glyphs, Theme};

/// Bytes of one picture: its 768 KB of pixels compress to a third, and base64 adds a third.
const BYTES_MAX: usize = 1 << 20;

/// How images are to be drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Wanted {
    /// In pixels where the environment names a terminal that has them, else with half blocks.
    #[default]
    Auto,
    /// With half blocks.
    Blocks,
    /// With Kitty's graphics protocol.
    Kitty,
    /// With Sixel.
    Sixel,
    /// With the images of iTerm2.
    Iterm,
}

/// How a picture is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Kitty's graphics protocol: pixels, compressed, which the terminal scales to cells.
    Kitty,
    /// Sixel: bands of six rows; needs to know how many pixels a cell has.
    Sixel,
    /// iTerm2's images: a PNG, which the terminal scales to cells.
    Iterm,
}

/// The protocol to use: the wanted one, or what the environment names; none means half blocks.
#[must_use]
pub fn protocol(
    wanted: Wanted,
    theme: Theme,
    variable: impl Fn(&str) -> String,
) -> Option<Protocol> {
    match wanted {
        Wanted::Blocks => None,
        Wanted::Kitty => Some(Protocol::Kitty),
        Wanted::Sixel => Some(Protocol::Sixel),
        Wanted::Iterm => Some(Protocol::Iterm),
        Wanted::Auto if theme.colours == Colours::Mono || theme.glyphs == Glyphs::Ascii => None,
        Wanted::Auto => named(variable),
    }
}

/// The protocol of the terminal that the environment names. `TERM` and `LC_TERMINAL` cross SSH.
fn named(variable: impl Fn(&str) -> String) -> Option<Protocol> {
    let set = |name: &str| !variable(name).is_empty();
    let (term, program) = (variable("TERM"), variable("TERM_PROGRAM"));
    let multiplexer = set("TMUX")
        || set("STY")
        || set("ZELLIJ")
        || ["tmux", "screen"].iter().any(|name| term.starts_with(name));
    if multiplexer {
        return None;
    }
    match (term.as_str(), program.as_str()) {
        ("xterm-kitty" | "xterm-ghostty", _) | (_, "ghostty") => Some(Protocol::Kitty),
        ("foot" | "foot-extra" | "mlterm" | "contour", _) => Some(Protocol::Sixel),
        (_, "iTerm.app" | "WezTerm" | "mintty") => Some(Protocol::Iterm),
        _ if set("KITTY_WINDOW_ID") => Some(Protocol::Kitty),
        _ if variable("LC_TERMINAL") == "iTerm2" => Some(Protocol::Iterm),
        _ => None,
    }
}

/// The pictures that the terminal shows.
#[derive(Debug, Default)]
pub(super) struct Pictures {
    protocol: Option<Protocol>,
    /// Pixels of a cell, where the terminal says.
    pub(super) cell: Option<(u16, u16)>,
    shown: Vec<Shown>,
}

/// A picture and what came of it.
#[derive(Debug)]
struct Shown {
    raster: Raster,
    /// What was sent, if it was: the number of the picture.
    number: Option<u32>,
}

/// What turns the pictures before into the next: to be sent ahead of the cells, and behind them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) before: Vec<u8>,
    pub(super) after: Vec<u8>,
}

impl Pictures {
    pub(super) fn new(protocol: Option<Protocol>) -> Self {
        Self { protocol, ..Self::default() }
    }

    /// Whether pictures in pixels can be shown at all.
    pub(super) fn wanted(&self) -> bool {
        self.protocol.is_some()
    }

    /// Makes room in a frame for pictures and gives what has to be sent. Cells of the frame before that
    /// have to be written again are spoiled in `last`.
    pub(super) fn next(
        &mut self,
        rasters: Vec<Raster>,
        frame: &mut Buffer,
        last: &mut Buffer,
    ) -> io::Result<Change> {
        let Some(protocol) = self.protocol else { return Ok(Change::default()) };
        let mut change = Change::default();
        let mut before: Vec<Option<Shown>> =
            std::mem::take(&mut self.shown).into_iter().map(Some).collect();
        for (place, raster) in rasters.into_iter().enumerate() {
            let old = before.get_mut(place).and_then(Option::take);
            if let Some(old) = old.as_ref().filter(|old| old.raster == raster) {
                if old.number.is_some() {
                    raster.make_room(frame);
                }
                self.shown.push(Shown { raster, number: old.number });
                continue;
            }
            // Two numbers a place take turns: the old picture stays until the new one is whole.
            let turn = old.as_ref().and_then(|old| old.number).map_or(0, |number| 1 - number % 2);
            let number = kitty::FIRST + 2 * place as u32 + turn;
            let bytes = self.encode(protocol, &raster, number)?;
            if bytes.is_some() {
                raster.make_room(frame);
            }
            if let Some(old) = old {
                // Where the next one covers the same cells nothing of it is left.
                let covered = bytes.is_some() && old.raster.area == raster.area;
                remove(protocol, &old, covered, &mut change, last)?;
            }
            if let Some(bytes) = &bytes {
                queue!(change.after, MoveTo(raster.area.x, raster.area.y))?;
                change.after.extend(bytes);
                let letter = |(x, y)| Some((x, y, frame.cell((x, y))?));
                let letters = raster.letters.iter().copied().filter_map(letter);
                let corner = (raster.area.x, raster.area.y);
                change.after.extend(cells::written(frame, letters, corner));
            }
            self.shown.push(Shown { raster, number: bytes.map(|_| number) });
        }
        for old in before.into_iter().flatten() {
            remove(protocol, &old, false, &mut change, last)?;
        }
        Ok(change)
    }

    /// What takes all pictures away, where clearing the screen does not; they are forgotten.
    pub(super) fn clear(&mut self) -> Vec<u8> {
        let shown = std::mem::take(&mut self.shown);
        if self.protocol != Some(Protocol::Kitty) {
            return Vec::new();
        }
        shown.iter().filter_map(|shown| shown.number).flat_map(kitty::delete).collect()
    }

    fn encode(
        &self,
        protocol: Protocol,
        raster: &Raster,
        number: u32,
    ) -> io::Result<Option<Vec<u8>>> {
        let bytes = match (protocol, self.cell) {
            (Protocol::Kitty, _) => Some(kitty::encode(raster, number)?),
            (Protocol::Iterm, _) => Some(iterm::encode(raster)?),
            (Protocol::Sixel, Some(cell)) => sixel::encode(raster, cell, BYTES_MAX)?,
            (Protocol::Sixel, None) => None,
        };
        Ok(bytes.filter(|bytes| bytes.len() <= BYTES_MAX))
    }
}

/// Takes a picture away: Kitty is told its number; elsewhere the cells below are written again.
fn remove(
    protocol: Protocol,
    old: &Shown,
    covered: bool,
    change: &mut Change,
    last: &mut Buffer,
) -> io::Result<()> {
    let Some(number) = old.number else { return Ok(()) };
    match protocol {
        Protocol::Kitty if covered => change.after.write_all(&kitty::delete(number)),
        Protocol::Kitty => change.before.write_all(&kitty::delete(number)),
        _ if covered => Ok(()),
        _ => {
            spoil(last, old.raster.area);
            Ok(())
        }
    }
}

/// Makes cells unlike any that is drawn: nothing on the screen is hidden.
fn spoil(last: &mut Buffer, area: Rect) {
    let area = area.intersection(*last.area());
    for y in area.top()..area.bottom() {
        for x in area.left()..area.right() {
            last[(x, y)].modifier = Modifier::HIDDEN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEME: Theme = Theme { colours: Colours::Indexed, glyphs: Glyphs::Unicode };

    #[test]
    fn the_environment_names_the_protocol() {
        for (variables, expected) in [
            ("", None),
            ("TERM=xterm-256color", None),
            ("TERM=xterm-kitty", Some(Protocol::Kitty)),
            ("TERM=xterm-256color KITTY_WINDOW_ID=1", Some(Protocol::Kitty)),
            ("TERM=xterm-ghostty", Some(Protocol::Kitty)),
            ("TERM=foot", Some(Protocol::Sixel)),
            ("TERM=xterm-256color TERM_PROGRAM=iTerm.app", Some(Protocol::Iterm)),
            ("TERM=xterm-256color TERM_PROGRAM=WezTerm", Some(Protocol::Iterm)),
            // All that crosses SSH.
            ("TERM=xterm-256color LC_TERMINAL=iTerm2", Some(Protocol::Iterm)),
            // A terminal that was started from another one keeps what that had set.
            ("TERM=foot KITTY_WINDOW_ID=1", Some(Protocol::Sixel)),
            ("TERM=tmux-256color KITTY_WINDOW_ID=1", None),
            ("TERM=xterm-kitty TMUX=/tmp/tmux-0/default,1,0", None),
            ("TERM=screen.xterm-256color LC_TERMINAL=iTerm2", None),
            ("TERM=xterm-kitty STY=1.pts", None),
            ("TERM=xterm-256color TERM_PROGRAM=vscode", None),
        ] {
            let variable = |name: &str| {
                let pairs = variables.split(' ').filter_map(|pair| pair.split_once('='));
                pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).collect()
            };
            assert_eq!(protocol(Wanted::Auto, THEME, variable), expected, "{variables}");
            assert_eq!(protocol(Wanted::Blocks, THEME, variable), None);
            assert_eq!(protocol(Wanted::Sixel, THEME, variable), Some(Protocol::Sixel));
            for theme in [
                Theme { colours: Colours::Mono, ..THEME },
                Theme { glyphs: Glyphs::Ascii, ..THEME },
            ] {
                assert_eq!(protocol(Wanted::Auto, theme, variable), None, "{variables}");
                assert_eq!(protocol(Wanted::Kitty, theme, variable), Some(Protocol::Kitty));
            }
        }
    }

    #[test]
    fn a_picture_of_too_many_bytes_leaves_the_blocks() {
        let area = Rect::new(0, 0, 4, 2);
        // Nothing compresses noise: 1,500,000 bytes stay more than a mebibyte.
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let rgb: Vec<u8> = (0..1_500_000).map(|_| noise()).collect();
        let raster = Raster { area, width: 1000, height: 500, rgb, letters: vec![] };
        for protocol in [Protocol::Kitty, Protocol::Iterm, Protocol::Sixel] {
            let mut pictures = Pictures::new(Some(protocol));
            let mut frame = Buffer::empty(area);
            frame.set_string(0, 0, "▀▀▀▀", ratatui::style::Style::new());
            let (blocks, mut last) = (frame.clone(), frame.clone());
            for _ in 0..2 {
                let change = pictures.next(vec![raster.clone()], &mut frame, &mut last);
                assert_eq!(change.unwrap(), Change::default(), "{protocol:?}");
                assert_eq!(frame, blocks, "{protocol:?}");
            }
        }
    }
}
