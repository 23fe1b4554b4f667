//! What is wrong with a node, by its samples.
//!
//! Each condition has a [`Watchman`] that keeps it from wavering: it must hold for a while before a
//! trouble begins, and be gone for a while before it is over. What is done about a trouble is the
//! cluster's to decide (`core/cluster/src/health.rs`); this only says what is seen.

use std::collections::BTreeMap;

use gantry_config::scheduler::WatchSettings;
use gantry_model::health::{Finding, Sign, Trouble};
use gantry_model::{At, Level, Millis};
use gantry_telemetry::{Change, GpuSample, Rule, Sample, Side, Watchman};

/// NVML's reasons for clocks that are held down: by heat (software and hardware), and by a lack of
/// power that hardware has noticed.
const THROTTLE_HEAT: u64 = 0x20 | 0x40;
const THROTTLE_POWER: u64 = 0x80;
const BAD: u32 = 1;

/// Where a reading is a trouble. An administrator may set them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// How far a node's clock may be off.
    pub(crate) clock: Millis,
    /// Below this the agent's disk counts as full.
    pub(crate) disk_free_mib: u64,
    /// An answer of the shared storage that takes longer is slow.
    pub(crate) storage_slow: Millis,
    /// How long the shared storage may be silent.
    pub(crate) storage_silent: Millis,
    /// How long a GPU may be slowed down by heat or a lack of power.
    pub(crate) throttled: Millis,
    /// How long the GPU driver may be silent.
    pub(crate) driver_silent: Millis,
}

impl From<&WatchSettings> for Limits {
    fn from(settings: &WatchSettings) -> Self {
        Self {
            clock: settings.clock,
            disk_free_mib: settings.disk_free_min.0,
            storage_slow: settings.storage_slow,
            storage_silent: settings.storage_silent,
            throttled: settings.throttled,
            driver_silent: settings.driver_silent,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::from(&WatchSettings::default())
    }
}

/// Something that was seen: on the node, or on the GPU at this place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) trouble: Trouble,
    pub(crate) sign: Sign,
    pub(crate) gpu: Option<u16>,
    pub(crate) detail: String,
}

impl Seen {
    /// The finding, where the node has these GPUs.
    pub(crate) fn finding(self, uuids: &[String]) -> Option<Finding> {
        let gpu = match self.gpu {
            None => None,
            Some(place) => Some(uuids.get(usize::from(place))?.clone()),
        };
        Some(Finding { trouble: self.trouble, sign: self.sign, gpu, detail: self.detail })
    }
}

/// The watchmen of one node.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    men: BTreeMap<(Trouble, Option<u16>), Watchman>,
    /// Uncorrected memory errors of each GPU, as they were told last.
    errors: BTreeMap<u16, u64>,
}

/// A condition as a sample has it.
struct Condition {
    trouble: Trouble,
    gpu: Option<u16>,
    /// Whether it holds; `None` where that is not known.
    holds: Option<bool>,
    /// How long it must hold, and be gone.
    after: Millis,
}

impl Watch {
    /// Takes what the cluster holds for going on in place of what was seen so far: a trouble that
    /// ended while nobody looked is over once it is looked at, and one that the cluster has not
    /// heard of begins again.
    pub(crate) fn know(&mut self, at: At, troubles: impl Iterator<Item = (Trouble, Option<u16>)>) {
        self.men.clear();
        for (trouble, gpu) in troubles {
            let mut man = Watchman::default();
            man.observe(&rule(trouble, Millis(0)), at, Some(BAD));
            self.men.insert((trouble, gpu), man);
        }
    }

    /// Looks at a sample that arrived at `at`.
    pub(crate) fn look(&mut self, at: At, sample: &Sample, limits: &Limits) -> Vec<Seen> {
        let mut seen = Vec::new();
        let node = node(at, sample, limits);
        // Most samples change nothing: words are made of those alone that do.
        let gpus = sample
            .gpus
            .iter()
            .enumerate()
            .flat_map(|(place, gpu)| self::gpu(place as u16, gpu, limits));
        for condition in node.into_iter().chain(gpus) {
            let Condition { trouble, gpu, holds, after } = condition;
            let Some(holds) = holds else { continue };
            let key = (trouble, gpu);
            // What never was wrong has no watchman: nearly all of ten thousand nodes.
            if !holds && !self.men.contains_key(&key) {
                continue;
            }
            let man = self.men.entry(key).or_default();
            let rule = rule(trouble, after);
            let sign = match man.observe(&rule, at, Some(u32::from(holds))) {
                Some(Change::Raised { .. }) => Sign::Begun,
                Some(Change::Cleared { .. }) => Sign::Over,
                _ => {
                    if !holds && !man.is_raised() && after == Millis(0) {
                        self.men.remove(&key);
                    }
                    continue;
                }
            };
            if sign == Sign::Over {
                self.men.remove(&key);
            }
            let detail = detail(trouble, gpu, at, sample, limits);
            seen.push(Seen { trouble, sign, gpu, detail });
        }
        for (place, gpu) in sample.gpus.iter().enumerate() {
            seen.extend(self.memory_errors(place as u16, gpu));
        }
        seen
    }

    /// Errors that came up since the last sample. A count that is smaller is that of a driver that
    /// was loaded anew.
    fn memory_errors(&mut self, place: u16, gpu: &GpuSample) -> Option<Seen> {
        let count = gpu.ecc_uncorrected?;
        let before = self.errors.insert(place, count)?;
        let more = count.checked_sub(before).filter(|more| *more > 0)?;
        let detail = format!("{more} memory errors were not corrected, {count} in all");
        Some(Seen { trouble: Trouble::Ecc, sign: Sign::Seen, gpu: Some(place), detail })
    }
}

fn rule(trouble: Trouble, after: Millis) -> Rule {
    Rule {
        series: trouble.word().into(),
        side: Side::Above,
        raise_at: BAD,
        clear_at: BAD,
        raise_after: after,
        // What comes and goes is not over as soon as it is gone.
        clear_after: after.max(Millis::from_seconds(10)),
        gone_after: Millis::from_seconds(60),
        level: Level::Warn,
        sentence: String::new(),
    }
}

fn node(at: At, sample: &Sample, limits: &Limits) -> [Condition; 5] {
    let condition = |trouble, holds, after| Condition { trouble, gpu: None, holds, after };
    let silent = sample.driver_silent_s.map(|silent| u64::from(silent) * 1000);
    let storage = sample.storage;
    let slow = |took| u64::from(took) > limits.storage_slow.0;
    [
        condition(
            Trouble::Clock,
            Some(offset(at, sample) > limits.clock),
            Millis::from_seconds(30),
        ),
        condition(
            Trouble::DiskFull,
            (sample.disk_total_mib > 0).then_some(sample.disk_free_mib < limits.disk_free_mib),
            Millis::from_seconds(5),
        ),
        condition(
            Trouble::DriverHung,
            Some(silent.is_some_and(|silent| silent >= limits.driver_silent.0)),
            Millis(0),
        ),
        condition(
            Trouble::StorageSilent,
            storage.map(|storage| storage.answer_ms.is_none()),
            limits.storage_silent,
        ),
        condition(
            Trouble::StorageSlow,
            storage.and_then(|storage| storage.answer_ms.map(slow)),
            Millis::from_seconds(60),
        ),
    ]
}

fn gpu(place: u16, gpu: &GpuSample, limits: &Limits) -> [Condition; 5] {
    let held = |reasons: u64| gpu.throttle.map(|throttle| throttle & reasons != 0);
    let condition = |trouble, holds, after| Condition { trouble, gpu: Some(place), holds, after };
    [
        condition(Trouble::GpuLost, Some(gpu.lost), Millis(0)),
        condition(Trouble::GpuHot, held(THROTTLE_HEAT), limits.throttled),
        condition(Trouble::GpuPower, held(THROTTLE_POWER), limits.throttled),
        condition(Trouble::RemapPending, gpu.remap_pending, Millis(0)),
        condition(Trouble::RemapFailed, gpu.remap_failed, Millis(0)),
    ]
}

/// How far a node's clock is off.
fn offset(at: At, sample: &Sample) -> Millis {
    Millis(sample.at.0.abs_diff(at.0))
}

/// A condition in words, with its reading.
fn detail(trouble: Trouble, gpu: Option<u16>, at: At, sample: &Sample, limits: &Limits) -> String {
    match trouble {
        Trouble::Clock => format!("its clock is off by {}", offset(at, sample)),
        Trouble::DiskFull => {
            format!("the disk of the agent's folder has {} MiB left", sample.disk_free_mib)
        }
        Trouble::DriverHung => {
            let silent = sample.driver_silent_s.unwrap_or(0);
            format!("the gpu driver has not answered for {silent} s")
        }
        Trouble::StorageSilent => {
            format!("the shared storage has not answered for {}", limits.storage_silent)
        }
        Trouble::StorageSlow => {
            let took = sample.storage.and_then(|storage| storage.answer_ms).unwrap_or(0);
            format!("the shared storage answers after {took} ms")
        }
        Trouble::GpuLost => "the driver has lost the gpu".into(),
        Trouble::GpuHot => {
            let gpu = gpu.and_then(|place| sample.gpus.get(usize::from(place)));
            let celsius = gpu.and_then(|gpu| gpu.temperature_c);
            let at = celsius.map_or(String::new(), |celsius| format!(" at {celsius} C"));
            format!("the gpu is slowed down by heat{at}")
        }
        Trouble::GpuPower => "the gpu is slowed down by a lack of power".into(),
        Trouble::RemapPending => {
            "a row of the gpu's memory waits for a reset to be replaced".into()
        }
        Trouble::RemapFailed => "a row of the gpu's memory could not be replaced".into(),
        // None of these is read from a sample's conditions.
        Trouble::XidUser
        | Trouble::XidGpu
        | Trouble::XidMemory
        | Trouble::XidBus
        | Trouble::XidLink
        | Trouble::Ecc
        | Trouble::NotReady => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use gantry_telemetry::StorageSample;

    use super::*;

    /// Looks once a second at the same sample, and gives what was seen with the second.
    fn seconds(
        watch: &mut Watch,
        from: u64,
        count: u64,
        sample: &Sample,
    ) -> Vec<(u64, Trouble, Sign)> {
        let mut all = Vec::new();
        for second in from..from + count {
            let at = At(second * 1000);
            let sample =
                Sample { at: if sample.at == At(0) { at } else { sample.at }, ..sample.clone() };
            let seen = watch.look(at, &sample, &Limits::default());
            all.extend(seen.into_iter().map(|seen| (second, seen.trouble, seen.sign)));
        }
        all
    }

    fn good() -> Sample {
        let gpu = GpuSample { ecc_uncorrected: Some(3), throttle: Some(0), ..GpuSample::default() };
        let storage = Some(StorageSample { answer_ms: Some(2), free_mib: None });
        let (disk_free_mib, disk_total_mib) = (9000, 9999);
        Sample { disk_free_mib, disk_total_mib, storage, gpus: vec![gpu], ..Sample::default() }
    }

    fn with_gpu(change: impl FnOnce(&mut GpuSample)) -> Sample {
        let mut sample = good();
        change(&mut sample.gpus[0]);
        sample
    }

    #[test]
    fn troubles_begin_after_their_time_and_are_over_after_theirs() {
        let silent = Some(StorageSample::default());
        let slow = Some(StorageSample { answer_ms: Some(1500), free_mib: None });
        for (bad, trouble, begun, over) in [
            (with_gpu(|gpu| gpu.lost = true), Trouble::GpuLost, 0, 10),
            (with_gpu(|gpu| gpu.throttle = Some(0x40)), Trouble::GpuHot, 60, 60),
            (with_gpu(|gpu| gpu.throttle = Some(0x80)), Trouble::GpuPower, 60, 60),
            (with_gpu(|gpu| gpu.remap_pending = Some(true)), Trouble::RemapPending, 0, 10),
            (with_gpu(|gpu| gpu.remap_failed = Some(true)), Trouble::RemapFailed, 0, 10),
            (Sample { disk_free_mib: 10, ..good() }, Trouble::DiskFull, 5, 10),
            (Sample { driver_silent_s: Some(15), ..good() }, Trouble::DriverHung, 0, 10),
            (Sample { storage: silent, ..good() }, Trouble::StorageSilent, 10, 10),
            (Sample { storage: slow, ..good() }, Trouble::StorageSlow, 60, 60),
        ] {
            let mut watch = Watch::default();
            assert_eq!(seconds(&mut watch, 1000, 100, &good()), [], "{trouble}");
            let seen = seconds(&mut watch, 2000, 100, &bad);
            assert_eq!(seen, [(2000 + begun, trouble, Sign::Begun)]);
            let well = if trouble == Trouble::RemapPending {
                with_gpu(|gpu| gpu.remap_pending = Some(false))
            } else {
                with_gpu(|gpu| gpu.remap_failed = Some(false))
            };
            let seen = seconds(&mut watch, 3000, 100, &well);
            assert_eq!(seen, [(3000 + over, trouble, Sign::Over)]);
            assert!(watch.men.is_empty(), "{trouble}");
        }
    }

    #[test]
    fn what_ended_while_nobody_looked_is_over_and_what_goes_on_is_not_told_again() {
        let silent = Sample { storage: Some(StorageSample::default()), ..good() };
        for (sample, expected) in
            [(good(), vec![(1010, Trouble::StorageSilent, Sign::Over)]), (silent, vec![])]
        {
            let mut watch = Watch::default();
            watch.know(At(1_000_000), [(Trouble::StorageSilent, None)].into_iter());
            assert_eq!(seconds(&mut watch, 1000, 100, &sample), expected);
        }
        // One that the cluster has not heard of begins again.
        let lost = with_gpu(|gpu| gpu.lost = true);
        let mut watch = Watch::default();
        assert_eq!(seconds(&mut watch, 1000, 5, &lost).len(), 1);
        watch.know(At(1_005_000), [].into_iter());
        assert_eq!(seconds(&mut watch, 1005, 5, &lost), [(1005, Trouble::GpuLost, Sign::Begun)]);
    }

    #[test]
    fn a_clock_that_is_off_is_seen() {
        let mut watch = Watch::default();
        let mut seen = Vec::new();
        for second in 0..60 {
            let at = At(10_000_000 + second * 1000);
            let sample = Sample { at: At(at.0 - 5000), ..good() };
            seen.extend(watch.look(at, &sample, &Limits::default()));
        }
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].trouble, Trouble::Clock);
        assert!(seen[0].detail.contains("off by 5"), "{}", seen[0].detail);
    }

    #[test]
    fn memory_errors_are_seen_as_they_come_up() {
        let mut watch = Watch::default();
        let errors = |count| with_gpu(|gpu| gpu.ecc_uncorrected = count);
        let mut look =
            |count| watch.look(At(0), &Sample { at: At(0), ..errors(count) }, &Limits::default());
        assert_eq!(look(Some(3)), []);
        assert_eq!(look(None), []);
        let seen = look(Some(5));
        assert_eq!(
            (seen[0].trouble, seen[0].sign, seen[0].gpu),
            (Trouble::Ecc, Sign::Seen, Some(0))
        );
        assert!(seen[0].detail.starts_with("2 memory errors"), "{}", seen[0].detail);
        assert_eq!(look(Some(0)), [], "a driver that was loaded anew");
        assert_eq!(look(Some(1)).len(), 1);
    }

    #[test]
    fn a_finding_names_the_gpu() {
        let seen =
            Seen { trouble: Trouble::Ecc, sign: Sign::Seen, gpu: Some(1), detail: "x".into() };
        let uuids = ["GPU-a".to_owned(), "GPU-b".to_owned()];
        assert_eq!(seen.clone().finding(&uuids).unwrap().gpu.as_deref(), Some("GPU-b"));
        assert!(seen.finding(&uuids[..1]).is_none());
    }
}
