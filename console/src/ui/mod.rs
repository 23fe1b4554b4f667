//! The console's screens: pure functions from the app to the cells of a buffer.
//!
//! Two lines on top say who, where and how live; two below say what can be done. The rest is
//! content: rows, not boxes. A state is a word and colour only repeats it. Everything that came
//! from a user is cleaned before it is drawn.

mod chart;
mod data;
mod events;
mod frame;
mod gpus;
mod image;
mod job;
mod jobs;
mod nodes;
mod overlay;
mod overview;
pub mod palette;
mod pixels;
mod question;
pub mod raster;
mod sheet;
mod shelf;
mod table;
pub mod theme;
mod words;

use gantry_model::At;
use gantry_wire::Update;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use unicode_width::UnicodeWidthStr;

use crate::app::{App, Keymap, Link, Message, View};
use sheet::Sheet;
use theme::{Colours, Glyphs, Theme};
pub use words::clock;
pub(crate) use words::time_of;

/// Below this a screen is only a notice.
const COLUMNS_MIN: u16 = 40;
const ROWS_MIN: u16 = 10;

/// Draws the whole screen. Gives the place of the cursor: the chosen row, or where one types.
pub fn render(app: &App, theme: Theme, buffer: &mut Buffer) -> (u16, u16) {
    let area = buffer.area;
    let mut sheet = Sheet { buffer, area, theme };
    if area.width < COLUMNS_MIN || area.height < ROWS_MIN {
        frame::too_small(app, &mut sheet);
        return (0, 0);
    }
    frame::top(app, &mut sheet);
    let cursor = {
        let rows = area.height - 4;
        let mut content = sheet.part(0, 2, area.width, rows);
        // What the library holds is here, whether the scheduler answers or not.
        let (x, row) = match (&app.update, app.view) {
            (_, View::Image) => image::draw(app, &mut content),
            (_, View::Data) if app.on_shelf() => (0, shelf::draw(app, &mut content)),
            (None, _) => (0, frame::nothing_yet(app, &mut content)),
            (Some(update), View::Overview) => (0, overview::draw(app, update, &mut content)),
            (Some(update), View::Nodes) => (0, nodes::draw(app, update, &mut content)),
            (Some(update), View::Gpus) => (0, gpus::draw(app, update, &mut content)),
            (Some(update), View::Events) => (0, events::draw(app, update, &mut content)),
            (Some(update), View::Jobs) => (0, jobs::draw(app, update, &mut content)),
            (Some(update), View::Data) => (0, data::draw(app, update, &mut content)),
            (Some(update), View::Job(job)) => (0, job::draw(app, update, job, &mut content)),
        };
        let from_the_scheduler = app.view != View::Image && !app.on_shelf();
        if app.is_late() && app.update.is_some() && from_the_scheduler {
            content.style(Style::new().add_modifier(Modifier::DIM));
        }
        (x, (row + 2).min(area.height - 1))
    };
    frame::bottom(app, &mut sheet);
    let (x, y) = overlay::draw(app, &mut sheet).unwrap_or(cursor);
    (x.min(area.width - 1), y.min(area.height - 1))
}

/// What a terminal that shows pixels is given beside the cells: the planes of an image.
#[must_use]
pub fn rasters(app: &App) -> Vec<raster::Raster> {
    let (columns, rows) = app.size;
    if columns < COLUMNS_MIN || rows < ROWS_MIN {
        return Vec::new();
    }
    image::rasters(app)
}

/// One plain frame of the overview, for `gantry top --once`: no colours, no choice, no keys.
#[must_use]
pub fn plain(update: &Update, columns: u16) -> String {
    let rows = 24 + update.nodes.len().min(60) as u16 + update.notes.len().min(20) as u16;
    let mut app = App::new(Keymap::shipped(), (columns, rows));
    let picture = Message::Update { scope: app.view.scope(), update: Box::new(update.clone()) };
    for message in [Message::Link(Link::Live), picture] {
        gantry_model::Machine::apply(&mut app, update.at, message, &mut Vec::new());
    }
    (app.node, app.looked_at) = (None, None);
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, rows));
    render(&app, Theme { colours: Colours::Mono, glyphs: Glyphs::Unicode }, &mut buffer);
    let mut lines = lines(&buffer);
    lines.truncate(usize::from(rows) - 2);
    // The tabs are for those who can press keys.
    lines.remove(1);
    // Blank rows that a screen needs to stay still say nothing on paper.
    lines.dedup_by(|one, other| one.is_empty() && other.is_empty());
    lines.join("\n").trim_end().to_owned()
}

/// The rows of a buffer as text, without the blanks at their ends.
#[must_use]
pub fn lines(buffer: &Buffer) -> Vec<String> {
    let area = buffer.area();
    (area.top()..area.bottom())
        .map(|y| {
            let mut line = String::new();
            let mut x = area.left();
            while x < area.right() {
                let symbol = buffer[(x, y)].symbol();
                line.push_str(symbol);
                x += UnicodeWidthStr::width(symbol).max(1) as u16;
            }
            line.trim_end().to_owned()
        })
        .collect()
}

/// The time that rows are counted from: the picture's own, and what has passed since.
fn now_of(app: &App, update: &Update) -> At {
    At(update.at.0 + if app.frozen { 0 } else { app.age_ms() })
}
