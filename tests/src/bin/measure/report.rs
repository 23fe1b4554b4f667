//! What a measurement leaves: rows of ours, a peer's and the machine's limit, with the goal.
//!
//! The same rows make the table for people and the one JSON value for programs. A peer that is not
//! installed is `null` there and a dash here; a number is never made up for it, and a goal that
//! needs it is then neither met nor missed.

use std::fmt;

use serde_json::{Value, json};

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// At most this much, in the row's unit.
    AtMost(f64),
    /// At least this much, in the row's unit.
    AtLeast(f64),
    /// At least this part of the machine's limit, in hundredths.
    OfLimit(f64),
    /// At least so many times the peer.
    TimesPeer(f64),
    /// No more than the peer, as where both are times.
    AtMostPeer,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {}", number(*most)),
            Self::AtLeast(least) => write!(f, "≥ {}", number(*least)),
            Self::OfLimit(part) => write!(f, "≥ {} % of the limit", number(*part)),
            Self::TimesPeer(times) => write!(f, "≥ {} × the peer", number(*times)),
            Self::AtMostPeer => write!(f, "≤ the peer"),
        }
    }
}

/// Another program that does the same, and what it gave in the same run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) value: f64,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    what: String,
    unit: &'static str,
    ours: f64,
    peer: Option<Peer>,
    limit: Option<f64>,
    goal: Option<Goal>,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, ours: f64) -> Self {
        Self { what: what.into(), unit, ours, peer: None, limit: None, goal: None }
    }

    pub(crate) fn peer(self, peer: Option<Peer>) -> Self {
        Self { peer, ..self }
    }

    pub(crate) fn limit(self, limit: f64) -> Self {
        Self { limit: Some(limit), ..self }
    }

    pub(crate) fn goal(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }

    /// Whether the goal is met; nothing where there is none, or what it compares with is absent.
    fn met(&self) -> Option<bool> {
        match self.goal? {
            Goal::AtMost(most) => Some(self.ours <= most),
            Goal::AtLeast(least) => Some(self.ours >= least),
            Goal::OfLimit(part) => Some(self.ours * 100.0 >= self.limit? * part),
            Goal::TimesPeer(times) => Some(self.ours >= self.peer.as_ref()?.value * times),
            Goal::AtMostPeer => Some(self.ours <= self.peer.as_ref()?.value),
        }
    }

    fn json(&self) -> Value {
        let peer = self.peer.as_ref();
        json!({
            "what": self.what,
            "unit": self.unit,
            "ours": self.ours,
            "peer": peer.map(|peer| json!({ "name": peer.name, "value": peer.value })),
            "limit": self.limit,
            "goal": self.goal.map(|goal| goal.to_string()),
            "met": self.met(),
        })
    }

    fn cells(&self) -> [String; 9] {
        let dash = || "-".to_owned();
        let ratio = |of: Option<f64>| of.map_or_else(dash, |of| format!("{:.2}", self.ours / of));
        let peer = self.peer.as_ref();
        [
            self.what.clone(),
            self.unit.to_owned(),
            number(self.ours),
            peer.map_or_else(dash, |peer| format!("{} {}", number(peer.value), peer.name)),
            ratio(peer.map(|peer| peer.value)),
            self.limit.map_or_else(dash, number),
            ratio(self.limit),
            self.goal.map_or_else(dash, |goal| goal.to_string()),
            match self.met() {
                None => dash(),
                Some(true) => "yes".to_owned(),
                Some(false) => "no".to_owned(),
            },
        ]
    }
}

const HEADS: [&str; 9] =
    ["what", "unit", "ours", "peer", "÷ peer", "limit", "÷ limit", "goal", "met"];

/// What one measurement gave.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report {
    pub(crate) name: &'static str,
    /// On what it was measured.
    pub(crate) machine: String,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    pub(crate) fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        json!({ "name": self.name, "machine": self.machine, "rows": rows })
    }

    /// A table as Markdown has it.
    pub(crate) fn markdown(&self) -> String {
        let line = |cells: [String; 9]| {
            let cells = cells.map(|cell| cell.replace('|', "\\|"));
            format!("| {} |\n", cells.join(" | "))
        };
        let mut text = line(HEADS.map(str::to_owned));
        text.push_str("|---|---|---|---|---|---|---|---|---|\n");
        text.extend(self.rows.iter().map(|row| line(row.cells())));
        text
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} on {}", self.name, self.machine)?;
        let lines: Vec<[String; 9]> = std::iter::once(HEADS.map(str::to_owned))
            .chain(self.rows.iter().map(Row::cells))
            .collect();
        let mut widths = [0; 9];
        for (width, column) in widths.iter_mut().zip(0..) {
            let lengths = lines.iter().map(|line: &[String; 9]| line[column].chars().count());
            *width = lengths.max().unwrap_or(0);
        }
        for line in &lines {
            let cells = line.iter().zip(widths);
            let padded: Vec<String> =
                cells.map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "{}", padded.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// A number with about three digits that count.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || size.fract() == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.01 => 3,
        _ => 6,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_without_what_it_compares_with_is_neither_met_nor_missed() {
        let peer = |value| Some(Peer { name: "other".into(), value });
        let row = |ours| Row::new("x", "tasks/s", ours);
        let cases = [
            (row(5.0), None),
            (row(5.0).goal(Goal::AtMost(5.0)), Some(true)),
            (row(5.0).goal(Goal::AtLeast(6.0)), Some(false)),
            (row(5.0).goal(Goal::OfLimit(85.0)), None),
            (row(85.0).limit(100.0).goal(Goal::OfLimit(85.0)), Some(true)),
            (row(84.0).limit(100.0).goal(Goal::OfLimit(85.0)), Some(false)),
            (row(5.0).goal(Goal::TimesPeer(2.5)), None),
            (row(5.0).peer(peer(2.0)).goal(Goal::TimesPeer(2.5)), Some(true)),
            (row(4.9).peer(peer(2.0)).goal(Goal::TimesPeer(2.5)), Some(false)),
            (row(5.0).goal(Goal::AtMostPeer), None),
            (row(5.0).peer(peer(5.0)).goal(Goal::AtMostPeer), Some(true)),
            (row(5.1).peer(peer(5.0)).goal(Goal::AtMostPeer), Some(false)),
        ];
        for (row, expected) in cases {
            assert_eq!(row.met(), expected, "{row:?}");
            assert_eq!(row.json()["met"], json!(expected), "{row:?}");
        }
    }

    #[test]
    fn a_markdown_table_has_a_line_for_each_row() {
        let rows = vec![Row::new("a | b", "s", 2.0).limit(4.0), Row::new("c", "ms", 0.5)];
        let report = Report { name: "n", machine: "m".into(), rows };
        let text = report.markdown();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| line.replace("\\|", "").matches('|').count() == 10));
        assert_eq!(lines[2], "| a \\| b | s | 2 | - | - | 4 | 0.50 | - | - |");
    }

    #[test]
    fn numbers_keep_the_digits_that_count() {
        for (value, text) in
            [(0.0, "0"), (1234.5, "1234"), (12.34, "12.3"), (1.234, "1.23"), (0.0423, "0.042")]
        {
            assert_eq!(number(value), text);
        }
    }
}
