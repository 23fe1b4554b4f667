//! The past of a node's readings: `gantry series`, a line of bars for each, or the cells as JSON.
//!
//! A cell stands for a part of the time that is shown. Its bar is as high as the most that was read
//! in it, so that no peak is lost; shares stand on a scale of 0 to 100 %, other readings on one from
//! zero to the most of their line. A cell without a reading is a gap.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use gantry_model::Millis;
use gantry_telemetry::{Bucket, Quantity};
use gantry_wire::{Reply, Request, SeriesRow};
use serde_json::{Value, json};

use super::client::{Client, Reach, unexpected};
use super::completions;
use crate::error::Outcome;
use crate::output::{self, Format};
use crate::ui::theme::{Colours, Glyphs, Theme};

/// What is shown where nothing is said: the readings that people look at first.
const FIRST: [Quantity; 8] = [
    Quantity::Cpu,
    Quantity::Memory,
    Quantity::NetworkReceived,
    Quantity::NetworkSent,
    Quantity::GpuBusy,
    Quantity::GpuMemory,
    Quantity::GpuTemperature,
    Quantity::GpuPower,
];
/// A share of the whole, in the small unit of shares.
const WHOLE: u32 = 1000;

/// `gantry series`.
#[derive(Debug, Args)]
pub struct Series {
    /// The node.
    #[arg(add = completions::nodes())]
    node: String,
    /// Which readings, with commas between them; those that matter most where nothing is said.
    #[arg(long, value_name = "READINGS", value_delimiter = ',', value_parser = readings())]
    what: Vec<Quantity>,
    /// How far back: at most two weeks are kept.
    #[arg(long, value_name = "TIME", default_value = "10m")]
    last: Millis,
    /// Into how many parts that is divided.
    #[arg(long, value_name = "N", default_value_t = 60,
          value_parser = clap::value_parser!(u16).range(1..=500))]
    cells: u16,
    /// Draw with ASCII only.
    #[arg(long)]
    ascii: bool,
}

fn readings() -> impl TypedValueParser<Value = Quantity> {
    let all = Quantity::NODE.into_iter().chain(Quantity::GPU).map(Quantity::word);
    PossibleValuesParser::new(all).try_map(|word| word.parse::<Quantity>())
}

impl Series {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the scheduler is not there, or has heard nothing of the node.
    pub fn run(self, cluster: Reach, format: Format) -> Outcome {
        let chosen = if self.what.is_empty() { FIRST.to_vec() } else { self.what.clone() };
        let client = Client::connect(cluster)?;
        let request = Request::Series {
            node: self.node.clone(),
            quantities: chosen,
            span: self.last,
            cells: self.cells,
        };
        let reply = client.ask(&request)?;
        let Reply::Series { at, mut rows } = reply else { return Err(unexpected(&reply)) };
        // What nobody asked for by name and was never read is not missed.
        if self.what.is_empty() {
            rows.retain(|row| row.cells.iter().any(Option::is_some));
        }
        let value = json!({
            "node": self.node,
            "at_ms": at.0,
            "span_ms": self.last.0,
            "rows": rows.iter().map(row_value).collect::<Vec<_>>(),
        });
        let glyphs = if self.ascii { Glyphs::Ascii } else { Glyphs::Unicode };
        let theme = Theme { colours: Colours::Mono, glyphs };
        let names = || rows.iter().map(name).collect::<Vec<_>>().join("\n");
        format.print("series", &value, || table(&self.node, &rows, theme), names)?;
        Ok(0)
    }
}

/// A reading with its GPU.
fn name(row: &SeriesRow) -> String {
    match row.gpu {
        None => row.quantity.to_string(),
        Some(gpu) => format!("{}/{gpu}", row.quantity),
    }
}

/// The least, the mean of the cells, and the most.
fn over_all(cells: &[Option<Bucket>]) -> Option<Bucket> {
    let known = || cells.iter().flatten();
    let sum: u64 = known().map(|cell| u64::from(cell.mean)).sum();
    let mean = sum.checked_div(known().count() as u64)? as u32;
    let min = known().map(|cell| cell.min).min()?;
    let max = known().map(|cell| cell.max).max()?;
    Some(Bucket { min, mean, max })
}

fn row_value(row: &SeriesRow) -> Value {
    let all = over_all(&row.cells);
    json!({
        "reading": row.quantity,
        "gpu": row.gpu,
        "unit": row.quantity.unit(),
        "min": all.map(|all| all.min),
        "mean": all.map(|all| all.mean),
        "max": all.map(|all| all.max),
        "cells": row.cells,
    })
}

fn table(node: &str, rows: &[SeriesRow], theme: Theme) -> String {
    if rows.is_empty() {
        return format!("{node} has said nothing in this time; gantry nodes says where it stands");
    }
    let row = |row: &SeriesRow| {
        let all = over_all(&row.cells);
        let shown =
            |value: Option<u32>| value.map_or_else(String::new, |value| row.quantity.shown(value));
        vec![
            name(row),
            bars(row, theme),
            shown(all.map(|all| all.min)),
            shown(all.map(|all| all.mean)),
            shown(all.map(|all| all.max)),
        ]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
    output::table(&["READING", "PAST", "MIN", "MEAN", "MAX"], &rows)
}

/// A line of bars, one a cell.
fn bars(row: &SeriesRow, theme: Theme) -> String {
    let most = row.cells.iter().flatten().map(|cell| cell.max).max().unwrap_or(0);
    let full = if row.quantity.unit() == "permille" { WHOLE } else { most.max(1) };
    let bar = |cell: &Option<Bucket>| match cell {
        // In ASCII the theme's gap looks like its lowest bar, and here the two stand side by side.
        None if theme.glyphs == Glyphs::Ascii => '?',
        None => theme.gap(),
        Some(cell) => {
            let eighths = (u64::from(cell.max.min(full)) * 8).div_ceil(u64::from(full));
            theme.block(eighths as usize)
        }
    };
    row.cells.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(quantity: Quantity, gpu: Option<u16>, values: &[Option<u32>]) -> SeriesRow {
        let cell = |value: u32| Bucket { min: value / 2, mean: value, max: value };
        SeriesRow { quantity, gpu, cells: values.iter().map(|value| value.map(cell)).collect() }
    }

    #[test]
    fn a_line_has_a_bar_a_cell_and_gaps_stay_gaps() {
        let rows = [
            row(Quantity::Cpu, None, &[Some(0), Some(125), None, Some(500), Some(1000)]),
            row(Quantity::GpuPower, Some(1), &[None, Some(150_000), Some(300_000), Some(1), None]),
            row(Quantity::GpuClock, Some(0), &[None; 5]),
        ];
        let unicode = Theme { colours: Colours::Mono, glyphs: Glyphs::Unicode };
        let text = table("a", &rows, unicode);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "READING      PAST   MIN    MEAN     MAX",
                "cpu           ▁·▄█  0.0%   40.6%    100.0%",
                "gpu-power/1  ·▄█▁·  0.0 W  150.0 W  300.0 W",
                "gpu-clock/0  ·····",
            ]
        );
        let ascii = Theme { glyphs: Glyphs::Ascii, ..unicode };
        let text = table("a", &rows, ascii);
        assert!(text.is_ascii() && text.contains("cpu           .?=@"), "{text}");
        assert!(table("a", &[], ascii).contains("gantry nodes"));
    }

    #[test]
    fn json_has_the_cells_and_what_they_come_to() {
        let value = row_value(&row(Quantity::GpuBusy, Some(3), &[Some(10), None, Some(20)]));
        let cell = |value| json!({ "min": value / 2, "mean": value, "max": value });
        let wanted = json!({
            "reading": "gpu-busy",
            "gpu": 3,
            "unit": "permille",
            "min": 5,
            "mean": 15,
            "max": 20,
            "cells": [cell(10), null, cell(20)],
        });
        assert_eq!(value, wanted);
        let nothing = row_value(&row(Quantity::Cpu, None, &[None]));
        assert_eq!((&nothing["min"], &nothing["cells"]), (&Value::Null, &json!([null])));
    }
}
