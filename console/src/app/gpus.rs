//! The GPUs of the whole cluster: thousands of rows, of which a screen shows thirty.
//!
//! What is known of all of them comes in pages, twenty bytes each, so that they can be sorted,
//! grouped and filtered here; the past is asked for only of what is on the screen. The order is made
//! when something changes, not with every frame.

mod line;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use gantry_model::{At, JobId, Millis};
use gantry_wire::{GpuPage, SeriesRow};

pub use line::{GpuLine, GpuSort, Group, Metric, lines};

use super::filter::Filter;

/// GPUs that are listed; what is beyond is counted.
const GPUS_MAX: usize = 20_000;
/// Nodes whose past is kept.
const STRIPS_MAX: usize = 128;
/// Spans of a strip, in seconds.
const SPANS: [u64; 6] = [60, 300, 900, 3600, 21_600, 86_400];
/// Cells of a strip as it is asked for.
const CELLS: u16 = 60;

/// A row of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// The head of a group: its name, how many it has, and how busy they are.
    Head(String),
    /// A GPU, by its place among all.
    Gpu(usize),
}

/// The past of a GPU: cells with absolute numbers, so that one that is over never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Strip {
    cells: BTreeMap<u64, Option<u32>>,
}

/// All GPUs and how they are looked at.
#[derive(Clone, Debug)]
pub struct Gpus {
    lines: Vec<GpuLine>,
    /// The look that is under way.
    coming: Vec<GpuLine>,
    after: Option<String>,
    /// Whether a whole look has come.
    pub known: bool,
    rows: Vec<Row>,
    /// By what rows stand together.
    pub group: Group,
    /// What strips show.
    pub metric: Metric,
    /// By what rows are sorted.
    pub sort: GpuSort,
    /// Whether the order is turned round.
    pub reverse: bool,
    /// Whether the write position moves, instead of all cells.
    pub sweep: bool,
    span: usize,
    strips: BTreeMap<(String, Metric2), BTreeMap<u16, Strip>>,
}

/// A metric as a key.
type Metric2 = u8;

impl Default for Gpus {
    fn default() -> Self {
        Self {
            lines: Vec::new(),
            coming: Vec::new(),
            after: None,
            known: false,
            rows: Vec::new(),
            group: Group::Node,
            metric: Metric::Busy,
            sort: GpuSort::Name,
            reverse: false,
            sweep: true,
            span: 1,
            strips: BTreeMap::new(),
        }
    }
}

impl Gpus {
    /// Every GPU that is known.
    #[must_use]
    pub fn all(&self) -> &[GpuLine] {
        &self.lines
    }

    /// The rows that the screen lists, heads among them.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The GPU of a row.
    #[must_use]
    pub fn gpu(&self, row: usize) -> Option<&GpuLine> {
        match self.rows.get(row)? {
            Row::Gpu(at) => self.lines.get(*at),
            Row::Head(_) => None,
        }
    }

    /// How far strips reach back.
    #[must_use]
    pub fn span(&self) -> Millis {
        Millis::from_seconds(SPANS[self.span])
    }

    /// Cells of a strip.
    #[must_use]
    pub fn cells(&self) -> u16 {
        CELLS
    }

    /// The length of a cell.
    #[must_use]
    pub fn step(&self) -> Millis {
        Millis(self.span().0 / u64::from(CELLS))
    }

    /// A longer or a shorter span.
    pub fn change_span(&mut self, longer: bool) {
        self.span =
            if longer { (self.span + 1).min(SPANS.len() - 1) } else { self.span.saturating_sub(1) };
        self.strips.clear();
    }

    /// Behind which node the next page of a look that is under way begins.
    #[must_use]
    pub fn next_page(&self) -> Option<String> {
        self.after.clone()
    }

    /// Takes a page. What is shown changes once a whole look has come.
    pub fn take(&mut self, page: &GpuPage, filter: &str) {
        let last = page.nodes.last().map(|node| node.name.clone());
        let room = GPUS_MAX.saturating_sub(self.coming.len());
        self.coming.extend(lines(page).into_iter().take(room));
        self.after = last.filter(|_| page.more && self.coming.len() < GPUS_MAX);
        if self.after.is_none() {
            self.lines = std::mem::take(&mut self.coming);
            self.known = true;
            self.arrange(filter);
        }
    }

    /// Makes the order anew.
    pub fn arrange(&mut self, filter: &str) {
        let filter = Filter::parse(filter);
        let mut shown: Vec<usize> =
            (0..self.lines.len()).filter(|at| self.lines[*at].holds(&filter)).collect();
        let line = |at: &usize| &self.lines[*at];
        match self.sort {
            // They come in the order of their names.
            GpuSort::Name => {}
            GpuSort::Busy => shown.sort_by_key(|at| Reverse(line(at).row.busy_permille)),
            GpuSort::Memory => shown.sort_by_key(|at| Reverse(line(at).row.memory_used_mib)),
            GpuSort::Temperature => shown.sort_by_key(|at| Reverse(line(at).row.temperature_c)),
            GpuSort::Power => shown.sort_by_key(|at| Reverse(line(at).row.power_w)),
        }
        if self.reverse {
            shown.reverse();
        }
        match self.group {
            Group::None => {}
            Group::Node => shown.sort_by(|a, b| line(a).node.cmp(&line(b).node)),
            Group::Job => shown.sort_by_key(|at| line(at).row.job.unwrap_or(JobId(u64::MAX))),
            Group::User => shown.sort_by(|a, b| {
                let key = |at| (line(at).row.job.is_none(), &line(at).user);
                key(a).cmp(&key(b))
            }),
        }
        let rows = match self.group {
            Group::Node | Group::None => shown.into_iter().map(Row::Gpu).collect(),
            Group::Job | Group::User => self.with_heads(&shown),
        };
        self.rows = rows;
    }

    fn with_heads(&self, shown: &[usize]) -> Vec<Row> {
        let name = |at: usize| {
            let line = &self.lines[at];
            match (self.group, line.row.job) {
                (_, None) => "free".to_owned(),
                (Group::Job, Some(job)) => format!("{job} {}", line.name),
                (_, Some(_)) => line.user.clone(),
            }
        };
        let mut rows = Vec::with_capacity(shown.len() + 16);
        for group in shown.chunk_by(|a, b| name(*a) == name(*b)) {
            let busy: Vec<u64> = group
                .iter()
                .filter_map(|at| self.lines[*at].row.busy_permille.map(u64::from))
                .collect();
            let mean = busy.iter().sum::<u64>().checked_div(busy.len() as u64);
            let mean = mean.map_or_else(|| "-".into(), |mean| format!("{} % busy", mean / 10));
            let nodes: BTreeSet<&String> = group.iter().map(|at| &self.lines[*at].node).collect();
            let nodes = format!("{} node{}", nodes.len(), if nodes.len() == 1 { "" } else { "s" });
            rows.push(Row::Head(format!(
                "{}   {} gpu on {nodes}   {mean}",
                name(group[0]),
                group.len()
            )));
            rows.extend(group.iter().copied().map(Row::Gpu));
        }
        rows
    }

    /// The nodes whose GPUs stand in some rows.
    #[must_use]
    pub fn visible_nodes(&self, top: usize, count: usize) -> Vec<String> {
        let shown = (top..top + count).filter_map(|row| self.gpu(row));
        let nodes: BTreeSet<&String> = shown.map(|line| &line.node).collect();
        nodes.into_iter().cloned().collect()
    }

    /// Takes the past of a node's GPUs. A cell that was over before stays as it was.
    pub fn take_strips(&mut self, node: &str, at: At, rows: &[SeriesRow]) {
        if self.strips.len() >= STRIPS_MAX {
            self.strips.pop_first();
        }
        let step = self.step().0.max(1);
        let last = at.0 / step;
        for metric in [Metric::Busy, Metric::Memory, Metric::Power, Metric::Temperature] {
            let wanted: Vec<&SeriesRow> =
                rows.iter().filter(|row| row.quantity == metric.quantity()).collect();
            if wanted.is_empty() {
                continue;
            }
            let gpus = self.strips.entry((node.to_owned(), metric as u8)).or_default();
            for row in wanted {
                let strip = gpus.entry(row.gpu.unwrap_or(0)).or_default();
                let first = last + 1 - (row.cells.len() as u64).min(last + 1);
                for (n, cell) in row.cells.iter().enumerate() {
                    let (number, value) = (first + n as u64, cell.map(|cell| cell.mean));
                    let open = number + 1 >= last;
                    let slot = strip.cells.entry(number).or_insert(value);
                    if open || slot.is_none() {
                        *slot = value;
                    }
                }
                strip.cells = strip.cells.split_off(&first);
            }
        }
    }

    /// So many cells of a GPU's past in thousandths, and which of them was written last. Where the
    /// write position moves, a cell has its place by its number alone.
    #[must_use]
    pub fn strip(
        &self,
        line: &GpuLine,
        metric: Metric,
        at: At,
        width: usize,
    ) -> (Vec<Option<u16>>, usize) {
        let mut cells = vec![None; width];
        let step = self.step().0.max(1);
        let last = at.0 / step;
        let key = (line.node.clone(), metric as u8);
        let strip = self.strips.get(&key).and_then(|gpus| gpus.get(&line.row.index));
        let place = |number: u64| {
            if self.sweep {
                (number % width as u64) as usize
            } else {
                (width as u64 - 1 - (last - number)) as usize
            }
        };
        if width == 0 {
            return (cells, 0);
        }
        if let Some(strip) = strip {
            let first = (last + 1).saturating_sub(width as u64);
            for (number, value) in strip.cells.range(first..=last) {
                cells[place(*number)] =
                    value.map(|value| metric.permille(value, line.row.memory_mib));
            }
        }
        (cells, place(last))
    }
}

#[cfg(test)]
mod tests {
    use gantry_telemetry::{Bucket, Quantity};
    use gantry_wire::{GpuNode, GpuRow, Holder};

    use super::*;

    fn page(nodes: &[&str], more: bool) -> GpuPage {
        let node = |name: &&str| GpuNode {
            name: (*name).into(),
            gpus: (0..2)
                .map(|index| GpuRow {
                    index,
                    job: (index == 0).then_some(JobId(7)),
                    busy_permille: Some(u32::from(index) * 400 + 100),
                    memory_mib: 1000,
                    ..GpuRow::default()
                })
                .collect(),
            ..GpuNode::default()
        };
        let holder = Holder { job: JobId(7), name: "train".into(), user: "ada".into() };
        GpuPage { nodes: nodes.iter().map(node).collect(), holders: vec![holder], more }
    }

    fn shown(gpus: &Gpus) -> Vec<String> {
        let row = |row: &Row| match row {
            Row::Head(text) => text.split("   ").next().unwrap_or_default().to_owned(),
            Row::Gpu(at) => format!("{}:{}", gpus.lines[*at].node, gpus.lines[*at].row.index),
        };
        gpus.rows.iter().map(row).collect()
    }

    #[test]
    fn pages_are_shown_once_all_have_come_in_the_order_that_is_wanted() {
        let mut gpus = Gpus::default();
        gpus.take(&page(&["a"], true), "");
        assert_eq!((gpus.next_page(), shown(&gpus)), (Some("a".into()), vec![]));
        gpus.take(&page(&["b"], false), "");
        assert_eq!(shown(&gpus), ["a:0", "a:1", "b:0", "b:1"]);
        for (group, sort, filter, expected) in [
            (Group::None, GpuSort::Busy, "", vec!["a:1", "b:1", "a:0", "b:0"]),
            (Group::Node, GpuSort::Busy, "", vec!["a:1", "a:0", "b:1", "b:0"]),
            (Group::Job, GpuSort::Name, "", vec!["j7 train", "a:0", "b:0", "free", "a:1", "b:1"]),
            (Group::User, GpuSort::Name, "user:ada", vec!["ada", "a:0", "b:0"]),
            (Group::None, GpuSort::Name, "sm>20 node:a", vec!["a:1"]),
            (Group::None, GpuSort::Name, "state:free gpu:b", vec!["b:1"]),
        ] {
            (gpus.group, gpus.sort) = (group, sort);
            gpus.arrange(filter);
            assert_eq!(shown(&gpus), expected, "{group:?} {sort:?} {filter}");
        }
    }

    #[test]
    fn a_cell_that_is_over_never_changes_and_sweeping_keeps_its_place() {
        let mut gpus = Gpus::default();
        gpus.take(&page(&["a"], false), "");
        let series = |values: &[u32]| SeriesRow {
            quantity: Quantity::GpuBusy,
            gpu: Some(0),
            cells: values
                .iter()
                .map(|value| Some(Bucket { min: *value, mean: *value, max: *value }))
                .collect(),
        };
        let step = gpus.step().0;
        gpus.take_strips("a", At(10 * step), &[series(&[1, 2, 3, 4])]);
        let line = gpus.lines[0].clone();
        let first = gpus.strip(&line, Metric::Busy, At(10 * step), 6).0;
        gpus.take_strips("a", At(11 * step), &[series(&[9, 9, 5, 6])]);
        let (second, written) = gpus.strip(&line, Metric::Busy, At(11 * step), 6);
        assert_eq!(written, 5);
        assert_eq!(first, [None, Some(1), Some(2), Some(3), Some(4), None]);
        // Cells 8 and 9 were over: 2 and 3 stay whatever a later look says.
        assert_eq!((second[8 % 6], second[9 % 6]), (first[8 % 6], first[9 % 6]));
        assert_eq!((second[10 % 6], second[11 % 6]), (Some(5), Some(6)));
        gpus.sweep = false;
        let (scrolled, written) = gpus.strip(&line, Metric::Busy, At(11 * step), 6);
        assert_eq!((scrolled[5], scrolled[4], written), (Some(6), Some(5), 5));
    }
}
