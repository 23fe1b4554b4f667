//! What a scheduler keeps beside its cluster, for the simulation: readings, their past, event lines.

use std::collections::{BTreeMap, VecDeque};

use gantry_cluster::Cluster;
use gantry_model::{At, JobId, Millis, NodeRow, Note, Subject};
use gantry_telemetry::{Quantity, Sample, Series};
use gantry_wire::{
    GpuNode, GpuPage, Holder, NodeStatus, NotePage, NotePlace, NoteQuery, NoteRow, SeriesRow,
    Update,
};

/// Lines of the event log that are kept.
const NOTES_MAX: usize = 20_000;
/// Lines of one page.
const PAGE_MAX: usize = 200;
/// Nodes of one page of GPUs.
const GPU_NODES_MAX: usize = 64;
/// What has a past.
const QUANTITIES: [Quantity; 4] =
    [Quantity::GpuBusy, Quantity::GpuMemory, Quantity::GpuPower, Quantity::GpuTemperature];

/// What was read and noted.
#[derive(Default)]
pub(super) struct Kept {
    samples: BTreeMap<String, (Sample, At)>,
    series: BTreeMap<(String, u16, Quantity), Series>,
    busy: Series,
    gpu_busy: Series,
    power_w: Series,
    notes: VecDeque<NoteRow>,
    noted: u64,
}

impl Kept {
    /// Takes a reading of every node.
    pub(super) fn read(&mut self, at: At, samples: BTreeMap<String, Sample>) {
        let mean = |values: &mut dyn Iterator<Item = u32>| {
            let (sum, count) = values
                .fold((0_u64, 0_u64), |(sum, count), value| (sum + u64::from(value), count + 1));
            sum.checked_div(count).map(|mean| mean as u32)
        };
        let gpus = || samples.values().flat_map(|sample| &sample.gpus);
        if let Some(busy) = mean(&mut samples.values().map(|sample| sample.cpu_permille)) {
            self.busy.push(at, busy);
        }
        if let Some(busy) = mean(&mut gpus().filter_map(|gpu| gpu.busy_permille)) {
            self.gpu_busy.push(at, busy);
            let drawn: u64 = gpus().filter_map(|gpu| gpu.power_mw).map(u64::from).sum();
            self.power_w.push(at, (drawn / 1000) as u32);
        }
        for (node, sample) in samples {
            for (index, gpu) in sample.gpus.iter().enumerate() {
                for quantity in QUANTITIES {
                    if let Some(value) = quantity.of_gpu(gpu) {
                        let key = (node.clone(), index as u16, quantity);
                        self.series.entry(key).or_default().push(at, value);
                    }
                }
            }
            self.samples.insert(node, (sample, at));
        }
    }

    /// Takes lines of the event log.
    pub(super) fn note(&mut self, notes: Vec<Note>) {
        for note in notes {
            self.noted += 1;
            self.notes.push_back(NoteRow { number: self.noted, note });
        }
        let old = self.notes.len().saturating_sub(NOTES_MAX);
        self.notes.drain(..old);
    }

    /// The newest lines, oldest first.
    pub(super) fn newest_notes(&self, count: usize) -> Vec<Note> {
        let skipped = self.notes.len().saturating_sub(count);
        self.notes.iter().skip(skipped).map(|row| row.note.clone()).collect()
    }

    /// One page of the event log.
    pub(super) fn notes(&self, query: &NoteQuery) -> NotePage {
        let job_of = |subject: &Subject| match subject {
            Subject::Job(job) => Some(*job),
            Subject::Task(task) => Some(task.job),
            Subject::Cluster | Subject::Node(_) => None,
        };
        let fits = |row: &&NoteRow| {
            let note = &row.note;
            let about = query.subject.as_ref().is_none_or(|subject| {
                *subject == note.subject
                    || job_of(subject).is_some_and(|job| job_of(&note.subject) == Some(job))
            });
            let at = query.from.is_none_or(|from| note.at >= from)
                && query.until.is_none_or(|until| note.at < until);
            let text = query.text.as_ref().is_none_or(|text| note.sentence.contains(text));
            about && at && text && query.least.is_none_or(|least| note.level >= least)
        };
        let (mut rows, more): (Vec<NoteRow>, bool) = match query.place {
            NotePlace::Behind(number) => {
                let mut later = self.notes.iter().filter(|row| row.number > number).filter(fits);
                let rows = later.by_ref().take(PAGE_MAX).cloned().collect();
                (rows, later.next().is_some())
            }
            NotePlace::Newest | NotePlace::Before(_) => {
                let bound =
                    if let NotePlace::Before(number) = query.place { number } else { u64::MAX };
                let mut older =
                    self.notes.iter().rev().filter(|row| row.number < bound).filter(fits);
                let mut rows: Vec<NoteRow> = older.by_ref().take(PAGE_MAX).cloned().collect();
                rows.reverse();
                (rows, older.next().is_some())
            }
        };
        rows.sort_by_key(|row| row.number);
        let first = rows.first().map_or(0, |row| row.number);
        let last = rows.last().map_or(self.noted, |row| row.number);
        NotePage { rows, first, last, more }
    }

    /// A node with its newest reading.
    pub(super) fn status(&self, row: NodeRow) -> NodeStatus {
        let (sample, sampled) = self.samples.get(&row.facts.name).cloned().unzip();
        NodeStatus { row, sample, sampled }
    }

    /// A page of nodes with GPUs.
    pub(super) fn gpus(
        &self,
        cluster: &Cluster,
        after: Option<&str>,
        job: Option<JobId>,
    ) -> GpuPage {
        let (rows, more) = cluster.gpu_nodes(after, job, GPU_NODES_MAX);
        let mut held: Vec<JobId> =
            rows.iter().flat_map(|row| &row.gpu_jobs).flatten().copied().collect();
        held.sort_unstable();
        held.dedup();
        let holder = |job| {
            let row = cluster.job(job)?;
            Some(Holder { job, name: row.name, user: row.user })
        };
        let node = |row: &NodeRow| {
            let known = self.samples.get(&row.facts.name);
            GpuNode::new(row, known.map(|(sample, at)| (sample, *at)), job)
        };
        GpuPage {
            nodes: rows.iter().map(node).collect(),
            holders: held.into_iter().filter_map(holder).collect(),
            more,
        }
    }

    /// The past of a node's GPUs.
    pub(super) fn past(
        &self,
        node: &str,
        quantities: &[Quantity],
        at: At,
        span: Millis,
        cells: usize,
    ) -> Vec<SeriesRow> {
        let of = self
            .series
            .iter()
            .filter(|((name, _, quantity), _)| name == node && quantities.contains(quantity));
        of.map(|((_, gpu, quantity), series)| SeriesRow {
            quantity: *quantity,
            gpu: Some(*gpu),
            cells: series.resample(at, span, cells),
        })
        .collect()
    }

    /// A picture with nothing but the last hour.
    pub(super) fn hour(&self, at: At, span: Millis, cells: usize) -> Update {
        let of = |series: &Series| {
            let none = series.newest().is_none();
            let cells = if none { Vec::new() } else { series.resample(at, span, cells) };
            cells.into_iter().map(|cell| cell.map(|cell| cell.mean)).collect::<Vec<_>>()
        };
        let permille = |series: &Series| {
            let cells = of(series).into_iter();
            cells.map(|cell| cell.map(|mean| mean.min(1000) as u16)).collect()
        };
        Update {
            busy_permille: permille(&self.busy),
            gpu_busy_permille: permille(&self.gpu_busy),
            gpu_power_w: of(&self.power_w),
            ..Update::default()
        }
    }
}
