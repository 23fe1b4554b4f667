//! What nodes say of themselves: the newest sample of each, and the past of its readings.
//!
//! A node has a series for each quantity, and for each quantity of each GPU. A series grows with
//! time up to 27 KB, so that [`SERIES_MAX`] of them take half a gigabyte after two weeks; nodes that
//! come beyond that have no past, and their newest sample is shown all the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_model::health::{Ailment, Stage};
use gantry_model::{At, Millis};
use gantry_telemetry::{Quantity, Sample, Series};
use gantry_wire::SeriesRow;

use crate::alerts::{Alerts, Said};
use crate::watch::{Limits, Seen, Watch};

/// Series of all nodes together.
const SERIES_MAX: usize = 20_000;
/// Cells of one answer to a console, over all its rows.
const CELLS_MAX: usize = 4_000;
/// A sample older than this says nothing about now.
const FRESH: Millis = Millis::from_seconds(5);

/// What is known of all nodes.
#[derive(Default)]
pub(crate) struct Telemetry {
    nodes: BTreeMap<String, Known>,
    /// How many series there are.
    series: usize,
    /// Where a reading is a trouble.
    pub(crate) limits: Limits,
    /// Further readings that a person must see.
    pub(crate) alerts: Alerts,
    /// What the whole cluster does.
    sums: Sums,
    /// The second that the cluster's series were last given a value for.
    counted: Option<u64>,
}

/// The past of the whole cluster.
#[derive(Default)]
struct Sums {
    /// Use of processors, the mean over nodes.
    busy: Series,
    /// Use of GPUs, the mean over those that say it.
    gpu_busy: Series,
    /// Power of all GPUs together, in W.
    gpu_power: Series,
}

/// What follows from a sample.
pub(crate) struct Taken {
    /// What is wrong with the node, or not any more.
    pub(crate) seen: Vec<Seen>,
    /// What alerts say.
    pub(crate) said: Vec<Said>,
}

/// What is known of a node.
#[derive(Default)]
struct Known {
    /// Its newest sample, and when it came.
    newest: Option<(Arc<Sample>, At)>,
    past: Vec<Past>,
    watch: Watch,
}

/// The past of one reading.
struct Past {
    quantity: Quantity,
    gpu: Option<u16>,
    series: Series,
}

impl Telemetry {
    /// A node's session begins: what the cluster holds for wrong with it is what is watched for
    /// its end. What was told while the journal's disk was full, or ended while no scheduler ran,
    /// is told anew by this.
    pub(crate) fn meet(&mut self, node: &str, ailments: &[Ailment], gpus: &[String], at: At) {
        let going_on = ailments.iter().filter(|ailment| ailment.stage == Stage::Active);
        let troubles = going_on.filter_map(|ailment| {
            let place = match &ailment.gpu {
                None => None,
                Some(uuid) => Some(gpus.iter().position(|gpu| gpu == uuid)? as u16),
            };
            Some((ailment.trouble, place))
        });
        self.nodes.entry(node.to_owned()).or_default().watch.know(at, troubles);
    }

    /// Forgets all of a node, and makes room for the past of another.
    pub(crate) fn forget(&mut self, node: &str) {
        let known = self.nodes.remove(node);
        self.series -= known.map_or(0, |known| known.past.len());
        self.alerts.forget(node);
    }

    /// Takes a node's sample; says what follows from it. The cluster's own series
    /// gets its value with the first sample of each second, so that many nodes cost no more than one
    /// look at each a second.
    pub(crate) fn take(&mut self, node: &str, sample: Arc<Sample>, at: At) -> Taken {
        let limits = self.limits;
        let said = self.alerts.look(node, at, &sample);
        if !self.nodes.contains_key(node) {
            self.nodes.insert(node.to_owned(), Known::default());
        }
        let Some(known) = self.nodes.get_mut(node) else {
            return Taken { seen: Vec::new(), said };
        };
        self.series += known.grow(&sample, SERIES_MAX.saturating_sub(self.series));
        for past in &mut known.past {
            let value = match past.gpu {
                None => past.quantity.of_node(&sample),
                Some(gpu) => {
                    sample.gpus.get(usize::from(gpu)).and_then(|gpu| past.quantity.of_gpu(gpu))
                }
            };
            if let Some(value) = value {
                past.series.push(at, value);
            }
        }
        let seen = known.watch.look(at, &sample, &limits);
        known.newest = Some((sample, at));
        self.count(at);
        Taken { seen, said }
    }

    fn count(&mut self, at: At) {
        let second = at.0 / 1000;
        if self.counted == Some(second) {
            return;
        }
        self.counted = Some(second);
        let newest = self.nodes.values().filter_map(|known| known.newest.as_ref());
        let fresh = newest.filter(|(_, came)| at.since(*came) < FRESH);
        let (mut busy, mut nodes, mut power_mw) = (0_u64, 0_u64, None);
        let (mut gpu_busy, mut gpus) = (0_u64, 0_u64);
        for (sample, _) in fresh {
            busy += u64::from(sample.cpu_permille);
            nodes += 1;
            for gpu in &sample.gpus {
                if let Some(permille) = gpu.busy_permille {
                    gpu_busy += u64::from(permille);
                    gpus += 1;
                }
                if let Some(drawn) = gpu.power_mw {
                    power_mw = Some(power_mw.unwrap_or(0) + u64::from(drawn));
                }
            }
        }
        self.sums.busy.push(at, (busy / nodes.max(1)) as u32);
        if let Some(mean) = gpu_busy.checked_div(gpus) {
            self.sums.gpu_busy.push(at, mean as u32);
        }
        if let Some(power_mw) = power_mw {
            self.sums.gpu_power.push(at, (power_mw / 1000) as u32);
        }
    }

    /// How many series there are, and the bytes of memory that they take.
    pub(crate) fn kept(&self) -> (usize, usize) {
        let past = self.nodes.values().flat_map(|known| &known.past);
        (self.series, past.map(|past| past.series.bytes()).sum())
    }

    /// A node's newest sample and when it came.
    pub(crate) fn newest(&self, node: &str) -> Option<(Arc<Sample>, At)> {
        self.nodes.get(node)?.newest.clone()
    }

    /// The cluster's processor use, one value a cell, oldest first.
    pub(crate) fn busy(&self, at: At, span: Millis, cells: usize) -> Vec<Option<u16>> {
        permille(&self.sums.busy, at, span, cells)
    }

    /// The use of the cluster's GPUs, one value a cell, oldest first; nothing where none ever said it.
    pub(crate) fn gpu_busy(&self, at: At, span: Millis, cells: usize) -> Vec<Option<u16>> {
        permille(&self.sums.gpu_busy, at, span, cells)
    }

    /// The power of the cluster's GPUs in W, one value a cell, oldest first; nothing where none ever
    /// said it.
    pub(crate) fn gpu_power(&self, at: At, span: Millis, cells: usize) -> Vec<Option<u32>> {
        let series = &self.sums.gpu_power;
        if series.newest().is_none() {
            return Vec::new();
        }
        let cells = series.resample(at, span, cells);
        cells.into_iter().map(|cell| cell.map(|cell| cell.mean)).collect()
    }

    /// The past of some readings of a node; nothing where the node has said nothing yet.
    pub(crate) fn past(
        &self,
        node: &str,
        quantities: &[Quantity],
        at: At,
        span: Millis,
        cells: usize,
    ) -> Option<Vec<SeriesRow>> {
        let known = self.nodes.get(node).filter(|known| known.newest.is_some())?;
        let wanted: Vec<&Past> =
            known.past.iter().filter(|past| quantities.contains(&past.quantity)).collect();
        let cells = cells.clamp(1, CELLS_MAX / wanted.len().max(1));
        let row = |past: &&Past| SeriesRow {
            quantity: past.quantity,
            gpu: past.gpu,
            cells: past.series.resample(at, span, cells),
        };
        Some(wanted.iter().map(row).collect())
    }
}

fn permille(series: &Series, at: At, span: Millis, cells: usize) -> Vec<Option<u16>> {
    if series.newest().is_none() {
        return Vec::new();
    }
    let cells = series.resample(at, span, cells);
    cells.into_iter().map(|cell| cell.map(|cell| cell.mean.min(1000) as u16)).collect()
}

impl Known {
    /// Makes the series that are missing, but no more than `room`; says how many.
    fn grow(&mut self, sample: &Sample, room: usize) -> usize {
        let gpus = self.past.iter().filter_map(|past| past.gpu).max().map_or(0, |gpu| gpu + 1);
        let mut missing = Vec::new();
        if self.past.is_empty() {
            missing.extend(Quantity::NODE.map(|quantity| (quantity, None)));
        }
        for gpu in gpus..sample.gpus.len() as u16 {
            missing.extend(Quantity::GPU.map(|quantity| (quantity, Some(gpu))));
        }
        if missing.len() > room {
            return 0;
        }
        let fresh = missing.iter().map(|(quantity, gpu)| {
            let (quantity, gpu) = (*quantity, *gpu);
            Past { quantity, gpu, series: Series::new() }
        });
        self.past.extend(fresh);
        missing.len()
    }
}

#[cfg(test)]
mod tests {
    use gantry_telemetry::GpuSample;

    use super::*;

    fn sample(cpu_permille: u32, gpus: usize) -> Arc<Sample> {
        let gpu = GpuSample { busy_permille: Some(7), ..GpuSample::default() };
        Arc::new(Sample { cpu_permille, gpus: vec![gpu; gpus], ..Sample::default() })
    }

    #[test]
    fn the_past_of_a_node_and_its_gpus_is_kept() {
        let mut telemetry = Telemetry::default();
        for second in 0..60 {
            let at = At(1_000_000 + second * 1000);
            telemetry.take("a", sample(second as u32, 2), at);
            telemetry.take("b", sample(0, 0), at);
        }
        let at = At(1_059_000);
        let quantities = [Quantity::Cpu, Quantity::GpuBusy, Quantity::GpuPower];
        let rows = telemetry.past("a", &quantities, at, Millis::from_seconds(60), 6).unwrap();
        let names: Vec<_> = rows.iter().map(|row| (row.quantity, row.gpu)).collect();
        let gpu = |quantity, gpu| (quantity, Some(gpu));
        assert_eq!(
            names,
            [
                (Quantity::Cpu, None),
                gpu(Quantity::GpuBusy, 0),
                gpu(Quantity::GpuPower, 0),
                gpu(Quantity::GpuBusy, 1),
                gpu(Quantity::GpuPower, 1),
            ]
        );
        let cells: Vec<_> = rows[0].cells.iter().map(|cell| cell.unwrap()).collect();
        assert_eq!((cells[0].min, cells[5].max), (0, 59));
        assert!(rows[2].cells.iter().all(Option::is_none), "power was not read");
        assert_eq!(telemetry.newest("a").unwrap().0.cpu_permille, 59);
        assert!(telemetry.past("c", &quantities, at, Millis(1), 1).is_none());
        let busy = telemetry.busy(at, Millis::from_seconds(60), 60);
        assert!(busy.last().unwrap().unwrap() >= 29);
    }

    #[test]
    fn series_are_bounded() {
        let mut telemetry = Telemetry::default();
        for node in 0..SERIES_MAX / Quantity::NODE.len() + 10 {
            telemetry.take(&node.to_string(), sample(1, 0), At(1000));
        }
        let (series, bytes) = telemetry.kept();
        assert!(series <= SERIES_MAX);
        assert!(bytes >= series * size_of::<Series>());
        let last = (SERIES_MAX / Quantity::NODE.len() + 9).to_string();
        assert!(telemetry.newest(&last).is_some());
    }
}
