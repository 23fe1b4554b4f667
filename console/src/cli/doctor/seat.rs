//! Where a person sits: the locale and the terminal.

use std::io::{self, IsTerminal};

use super::Finding;
use crate::term;

/// Below this the console shows a notice only.
const SIZE_MIN: (u16, u16) = (40, 10);

/// What the environment says of the terminal.
#[derive(Debug, Default)]
pub(super) struct Seat {
    locale: String,
    term: String,
    colorterm: String,
    no_color: bool,
    /// Columns and rows; nothing where there is no terminal.
    size: Option<(u16, u16)>,
}

impl Seat {
    /// Of this process.
    pub(super) fn here() -> Self {
        let set = |name: &str| std::env::var(name).unwrap_or_default();
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(set);
        Self {
            locale: locale.into_iter().find(|value| !value.is_empty()).unwrap_or_default(),
            term: set("TERM"),
            colorterm: set("COLORTERM"),
            no_color: !set("NO_COLOR").is_empty(),
            size: io::stdout().is_terminal().then(term::size),
        }
    }
}

pub(super) fn findings(seat: &Seat) -> Vec<Finding> {
    vec![locale(seat), terminal(seat)]
}

fn locale(seat: &Seat) -> Finding {
    let name = &seat.locale;
    if name.to_lowercase().contains("utf") {
        Finding::ok("locale", name)
    } else {
        let found = match name.as_str() {
            "" => "none is set: the console draws blocks, which may not arrive".to_owned(),
            name => format!("{name} is not UTF-8: the console draws with ASCII"),
        };
        Finding::warn("locale", found, "export LANG=C.UTF-8, and let ssh send it (SendEnv LANG)")
    }
}

fn terminal(seat: &Seat) -> Finding {
    let Some((columns, rows)) = seat.size else {
        return Finding::skip("terminal", "this is none");
    };
    let colours = if seat.no_color {
        "no colours, as NO_COLOR wants it"
    } else if matches!(seat.colorterm.as_str(), "truecolor" | "24bit") {
        "16 million colours"
    } else if seat.term.contains("256") || seat.term.starts_with("tmux") {
        "256 colours"
    } else {
        "16 colours"
    };
    let found = format!("{} of {columns}x{rows}, {colours}", seat.term);
    if columns < SIZE_MIN.0 || rows < SIZE_MIN.1 {
        Finding::warn("terminal", found, "make it at least 40 columns and 10 rows; 120x36 is best")
    } else if seat.term.is_empty() || seat.term == "dumb" {
        Finding::warn("terminal", found, "export TERM=xterm-256color")
    } else {
        Finding::ok("terminal", found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn seats_good_and_bad() {
        let seat = |locale: &str, term: &str, size| Seat {
            locale: locale.into(),
            term: term.into(),
            size,
            ..Seat::default()
        };
        for (seat, expected) in [
            (seat("C.UTF-8", "xterm-256color", Some((120, 36))), [State::Ok, State::Ok]),
            (seat("de_DE.utf8", "dumb", Some((80, 24))), [State::Ok, State::Warn]),
            (seat("C", "xterm", Some((30, 24))), [State::Warn, State::Warn]),
            (seat("", "", None), [State::Warn, State::Skip]),
        ] {
            let states: Vec<State> = findings(&seat).iter().map(|one| one.state).collect();
            assert_eq!(states, expected, "{seat:?}");
        }
    }
}
