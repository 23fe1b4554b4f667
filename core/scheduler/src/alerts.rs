//! An administrator's own alerts: each is applied to every sample as it arrives, for each node and
//! for each GPU, and what changes is said in the event log.
//!
//! An alert that is raised stays so until readings have been good for a while; one whose readings
//! stay away is called gone, once. A node that is away altogether sends no samples: the cluster says
//! that, and an alert of it waits for its return. Unlike troubles (`watch.rs`) alerts decide
//! nothing, so that they are no events of the journal: which of them are raised stands in a table of
//! the store, and the next scheduler goes on from there. Nothing is raised twice by a restart, and
//! what ends after it is said to be over.

use std::collections::BTreeMap;

use gantry_config::AlertSettings;
use gantry_model::limits::GPUS_MAX;
use gantry_model::{At, Level};
use gantry_telemetry::{Change, Quantity, Rule, Sample, Side, Watchman};

/// An alert and the rule it comes to.
#[derive(Debug)]
struct Alert {
    settings: AlertSettings,
    rule: Rule,
    /// Its name and rule as one text: what is kept of it is worth nothing under another rule.
    key: String,
}

/// The watchmen of one alert on one node: one, or one for each GPU.
type Men = Vec<Watchman>;

/// A line for the event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) node: String,
    pub(crate) level: Level,
    pub(crate) sentence: String,
}

/// An alert that is raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Raised {
    pub(crate) alert: String,
    pub(crate) node: String,
    pub(crate) gpu: Option<usize>,
}

/// A raised alert as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kept {
    /// The alert's name and rule.
    pub(crate) key: String,
    pub(crate) node: String,
    /// Which of the node's readings.
    pub(crate) place: u32,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Raised,
    Over,
}

/// All alerts.
#[derive(Debug, Default)]
pub(crate) struct Alerts {
    all: Vec<Alert>,
    /// By node, in the order of the alerts.
    nodes: BTreeMap<String, Vec<Men>>,
    /// What changed since the store was told.
    unkept: BTreeMap<Kept, Fate>,
}

impl Alerts {
    /// Goes on with what an earlier scheduler had raised. What the settings do not have any more is
    /// said to be over.
    pub(crate) fn restore(&mut self, at: At, kept: Vec<Kept>) -> Vec<Said> {
        let mut said = Vec::new();
        for one in kept {
            let Some(number) = self.all.iter().position(|alert| alert.key == one.key) else {
                let name = one.key.split('\n').next().unwrap_or_default();
                said.push(Said {
                    node: one.node.clone(),
                    level: Level::Info,
                    sentence: gone(&format!("alert {name}")),
                });
                self.unkept.insert(one, Fate::Over);
                continue;
            };
            let place = (one.place as usize).min(GPUS_MAX);
            let men = &mut self.men(&one.node)[number];
            men.resize_with(men.len().max(place + 1), Watchman::default);
            men[place] = Watchman::raised(at);
        }
        said
    }

    /// What changed since this was asked last.
    pub(crate) fn take_unkept(&mut self) -> BTreeMap<Kept, Fate> {
        std::mem::take(&mut self.unkept)
    }

    /// Takes changes back that could not be kept; what came later holds.
    pub(crate) fn put_back(&mut self, unkept: BTreeMap<Kept, Fate>) {
        for (kept, fate) in unkept {
            self.unkept.entry(kept).or_insert(fate);
        }
    }

    /// The watchmen of a node.
    fn men(&mut self, node: &str) -> &mut Vec<Men> {
        let fresh = || self.all.iter().map(|_| Men::new()).collect();
        self.nodes.entry(node.to_owned()).or_insert_with(fresh)
    }

    /// Takes alerts in place of those before. What did not change goes on; what is raised and
    /// changed or gone is said to be over.
    pub(crate) fn set(&mut self, settings: &[AlertSettings]) -> Vec<Said> {
        let all: Vec<Alert> = settings.iter().filter_map(Alert::of).collect();
        let mut said = Vec::new();
        for (node, men) in &mut self.nodes {
            let mut before: Vec<Option<Men>> = std::mem::take(men).into_iter().map(Some).collect();
            *men = all.iter().map(|alert| kept(&self.all, alert, &mut before)).collect();
            for (alert, men) in self.all.iter().zip(before) {
                let Some(men) = men else { continue };
                for place in raised(&men) {
                    let sentence = gone(&alert.about(place));
                    said.push(Said { node: node.clone(), level: Level::Info, sentence });
                    self.unkept.insert(alert.kept(node, place), Fate::Over);
                }
            }
        }
        self.all = all;
        said
    }

    /// Looks at a sample of a node that arrived at `at`.
    pub(crate) fn look(&mut self, node: &str, at: At, sample: &Sample) -> Vec<Said> {
        if self.all.is_empty() {
            return Vec::new();
        }
        if !self.nodes.contains_key(node) {
            let fresh = self.all.iter().map(|_| Men::new()).collect();
            self.nodes.insert(node.to_owned(), fresh);
        }
        let Some(men) = self.nodes.get_mut(node) else { return Vec::new() };
        let mut said = Vec::new();
        for (alert, men) in self.all.iter().zip(men) {
            if !alert.settings.is_for(node) {
                continue;
            }
            let series = alert.settings.series;
            let places = alert.places(sample).max(men.len());
            men.resize_with(places, Watchman::default);
            for (place, man) in men.iter_mut().enumerate() {
                let value = if series.is_of_gpu() {
                    sample.gpus.get(place).and_then(|gpu| series.of_gpu(gpu))
                } else {
                    series.of_node(sample)
                };
                if let Some(change) = man.observe(&alert.rule, at, value) {
                    let fate = if man.is_raised() { Fate::Raised } else { Fate::Over };
                    if matches!(change, Change::Raised { .. } | Change::Cleared { .. }) {
                        self.unkept.insert(alert.kept(node, place), fate);
                    }
                    let (level, sentence) = alert.says(change, place, man);
                    said.push(Said { node: node.to_owned(), level, sentence });
                }
            }
        }
        said
    }

    /// Forgets a node: what is raised of it is over, and nobody needs to hear it.
    pub(crate) fn forget(&mut self, node: &str) {
        let Some(all) = self.nodes.remove(node) else { return };
        for (alert, men) in self.all.iter().zip(&all) {
            for place in raised(men) {
                self.unkept.insert(alert.kept(node, place), Fate::Over);
            }
        }
    }

    /// What is raised.
    pub(crate) fn raised(&self) -> Vec<Raised> {
        let mut all = Vec::new();
        for (node, men) in &self.nodes {
            for (alert, men) in self.all.iter().zip(men) {
                all.extend(raised(men).map(|place| Raised {
                    alert: alert.settings.name.clone(),
                    node: node.clone(),
                    gpu: alert.settings.series.is_of_gpu().then_some(place),
                }));
            }
        }
        all
    }
}

/// An alert has gone from the settings.
fn gone(about: &str) -> String {
    format!("{about}: it was changed or taken out of the settings while it was raised")
}

/// The places of the watchmen that have raised their alert.
fn raised(men: &[Watchman]) -> impl Iterator<Item = usize> {
    let all = men.iter().enumerate().filter(|(_, man)| man.is_raised());
    all.map(|(place, _)| place)
}

/// Takes the watchmen of an alert that stays as it is from those before.
fn kept(known: &[Alert], alert: &Alert, before: &mut [Option<Men>]) -> Men {
    let place = known.iter().position(|known| known.settings == alert.settings);
    place.and_then(|place| before.get_mut(place)?.take()).unwrap_or_default()
}

impl Alert {
    /// The alert of some settings, which have been checked when they were read.
    fn of(settings: &AlertSettings) -> Option<Self> {
        let rule = settings.rule().ok()?;
        let key = format!("{}\n{}", settings.name, serde_json::to_string(&rule).ok()?);
        Some(Self { settings: settings.clone(), rule, key })
    }

    /// One of its readings, raised, as the store keeps it.
    fn kept(&self, node: &str, place: usize) -> Kept {
        Kept { key: self.key.clone(), node: node.to_owned(), place: place as u32 }
    }

    /// How many readings of it a sample has room for.
    fn places(&self, sample: &Sample) -> usize {
        if self.settings.series.is_of_gpu() { sample.gpus.len().min(GPUS_MAX) } else { 1 }
    }

    /// What it is about.
    fn about(&self, place: usize) -> String {
        let name = &self.settings.name;
        let series = self.settings.series;
        if series.is_of_gpu() {
            format!("alert {name}: {series} of gpu {place}")
        } else {
            format!("alert {name}: {series}")
        }
    }

    /// A change in a sentence, and how loud it is.
    fn says(&self, change: Change, place: usize, man: &Watchman) -> (Level, String) {
        let (rule, series) = (&self.rule, self.settings.series);
        let about = self.about(place);
        let shown = |value| Quantity::shown(series, value);
        match change {
            Change::Raised { value, .. } => {
                let side = if rule.side == Side::Above { "above" } else { "below" };
                let lasting = match rule.raise_after.0 {
                    0 => String::new(),
                    _ => format!(" for {}", rule.raise_after),
                };
                let limit = shown(rule.raise_at);
                let sentence =
                    format!("{about} is {}, at {limit} or {side}{lasting}", shown(value));
                match rule.sentence.as_str() {
                    "" => (rule.level, sentence),
                    said => (rule.level, format!("{said} ({sentence})")),
                }
            }
            Change::Cleared { value, .. } => {
                (Level::Info, format!("{about} is {} and the alert is over", shown(value)))
            }
            Change::Gone { .. } => {
                let state = if man.is_raised() { "; the alert stays raised" } else { "" };
                let sentence = format!("{about} has not been read for {}{state}", rule.gone_after);
                (Level::Warn, sentence)
            }
            Change::Returned { value } => {
                (Level::Info, format!("{about} is read again and is {}", shown(value)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gantry_config::{SchedulerSettings, load};
    use gantry_telemetry::GpuSample;

    use super::*;

    fn settings(text: &str) -> Vec<AlertSettings> {
        load::<SchedulerSettings>("s.toml", text).unwrap().alert
    }

    const HOT: &str = "[[alert]]\nname = \"hot\"\nseries = \"gpu-temperature\"\nabove = 85\n\
         clear = 80\nfor = \"20s\"\nlevel = \"fail\"\nsentence = \"look at the fans\"\n";
    const BUSY: &str =
        "[[alert]]\nname = \"busy\"\nseries = \"cpu\"\nabove = \"90%\"\nnodes = [\"a\"]\n";

    fn sample(cpu_permille: u32, temperatures: &[Option<u32>]) -> Sample {
        let gpu =
            |celsius: &Option<u32>| GpuSample { temperature_c: *celsius, ..GpuSample::default() };
        let gpus = temperatures.iter().map(gpu).collect();
        Sample { cpu_permille, gpus, ..Sample::default() }
    }

    /// Looks once a second, and gives what is said with the second.
    fn seconds(
        alerts: &mut Alerts,
        node: &str,
        seconds: std::ops::Range<u64>,
        sample: &Sample,
    ) -> Vec<(u64, Level, String)> {
        let mut all = Vec::new();
        for second in seconds {
            let said = alerts.look(node, At(second * 1000), sample);
            all.extend(said.into_iter().map(|said| (second, said.level, said.sentence)));
        }
        all
    }

    fn check(found: &[(u64, Level, String)], wanted: &[(u64, Level, &[&str])]) {
        assert_eq!(found.len(), wanted.len(), "{found:?}");
        for ((second, level, sentence), (at, loud, parts)) in found.iter().zip(wanted) {
            assert_eq!((second, level), (at, loud), "{sentence}");
            for part in *parts {
                assert!(sentence.contains(part), "{sentence:?} lacks {part:?}");
            }
        }
    }

    #[test]
    fn each_gpu_raises_and_clears_for_itself_after_its_while() {
        let mut alerts = Alerts::default();
        assert_eq!(alerts.set(&settings(HOT)), []);
        let warm = sample(0, &[Some(60), Some(60)]);
        check(&seconds(&mut alerts, "a", 0..50, &warm), &[]);
        let hot = sample(0, &[Some(60), Some(91)]);
        let parts =
            ["look at the fans (alert hot: ", "of gpu 1 is 91 C", "at 85 C or above for 20s)"];
        check(&seconds(&mut alerts, "a", 50..100, &hot), &[(70, Level::Fail, &parts)]);
        let raised = alerts.raised();
        assert_eq!((raised.len(), raised[0].gpu), (1, Some(1)));
        assert_eq!((raised[0].alert.as_str(), raised[0].node.as_str()), ("hot", "a"));
        // Between the thresholds nothing changes.
        let band = sample(0, &[Some(82), Some(82)]);
        check(&seconds(&mut alerts, "a", 100..200, &band), &[]);
        let parts = ["gpu 1 is 60 C and the alert is over"];
        check(&seconds(&mut alerts, "a", 200..300, &warm), &[(220, Level::Info, &parts)]);
        assert_eq!(alerts.raised(), []);
    }

    #[test]
    fn a_reading_that_stays_away_is_said_once() {
        let mut alerts = Alerts::default();
        alerts.set(&settings(HOT));
        let hot = sample(0, &[Some(91)]);
        assert_eq!(seconds(&mut alerts, "a", 0..30, &hot).len(), 1);
        let silent = sample(0, &[None]);
        let parts = ["has not been read for 1m; the alert stays raised"];
        check(&seconds(&mut alerts, "a", 30..200, &silent), &[(89, Level::Warn, &parts)]);
        // A GPU that is not even listed any more is the same.
        check(&seconds(&mut alerts, "a", 200..300, &sample(0, &[])), &[]);
        let parts = ["is read again and is 91 C"];
        check(&seconds(&mut alerts, "a", 300..400, &hot), &[(300, Level::Info, &parts)]);
    }

    #[test]
    fn an_alert_is_for_the_nodes_it_names() {
        let mut alerts = Alerts::default();
        alerts.set(&settings(BUSY));
        let busy = sample(950, &[]);
        let parts = ["alert busy: cpu is 95.0%, at 90.0% or above"];
        check(&seconds(&mut alerts, "a", 0..9, &busy), &[(0, Level::Warn, &parts)]);
        check(&seconds(&mut alerts, "b", 0..9, &busy), &[]);
        assert_eq!(alerts.raised()[0].gpu, None);
    }

    #[test]
    fn a_restart_goes_on_with_what_is_raised() {
        let bad = sample(950, &[Some(60), Some(91)]);
        let both = settings(&format!("{HOT}{BUSY}"));
        let mut before = Alerts::default();
        before.set(&both);
        assert_eq!(seconds(&mut before, "a", 0..30, &bad).len(), 2);
        let kept: Vec<Kept> = before.take_unkept().into_keys().collect();
        assert_eq!((kept.len(), before.take_unkept().len()), (2, 0));
        let after = |settings: &[AlertSettings]| {
            let mut alerts = Alerts::default();
            alerts.set(settings);
            let said = alerts.restore(At(40_000), kept.clone());
            (alerts, said)
        };
        let (mut alerts, said) = after(&both);
        assert_eq!((said, alerts.raised()), (vec![], before.raised()));
        check(&seconds(&mut alerts, "a", 40..90, &bad), &[]);
        assert!(alerts.take_unkept().is_empty());
        let well = sample(100, &[Some(60), Some(60)]);
        let (busy, hot) = (["busy: cpu is 10.0%"], ["gpu 1 is 60 C and the alert is over"]);
        let wanted: &[(u64, Level, &[&str])] =
            &[(100, Level::Info, &busy), (110, Level::Info, &hot)];
        check(&seconds(&mut alerts, "a", 90..200, &well), wanted);
        let over = alerts.take_unkept();
        assert_eq!(over.keys().cloned().collect::<Vec<_>>(), kept);
        assert!(over.values().all(|fate| *fate == Fate::Over));
        // Under another rule it is over.
        let (mut alerts, said) = after(&settings(&HOT.replace("85", "86")));
        assert_eq!((said.len(), alerts.raised().len(), alerts.take_unkept().len()), (2, 0, 2));
        assert!(said[0].sentence.starts_with("alert busy: it was changed"), "{}", said[0].sentence);
    }

    #[test]
    fn a_reload_lets_what_did_not_change_go_on() {
        let mut alerts = Alerts::default();
        alerts.set(&settings(&format!("{HOT}{BUSY}")));
        let bad = sample(950, &[Some(91)]);
        assert_eq!(seconds(&mut alerts, "a", 0..30, &bad).len(), 2);
        assert_eq!(alerts.set(&settings(&format!("{BUSY}{HOT}"))), [], "another order");
        assert_eq!(alerts.raised().len(), 2);
        check(&seconds(&mut alerts, "a", 30..60, &bad), &[]);
        let changed = alerts.set(&settings(&format!("{BUSY}{}", HOT.replace("85", "86"))));
        assert_eq!(changed.len(), 1, "{changed:?}");
        assert!(changed[0].sentence.contains("hot: gpu-temperature of gpu 0: it was changed"));
        assert_eq!(alerts.raised().len(), 1);
        let parts = ["at 86 C or above"];
        check(&seconds(&mut alerts, "a", 60..90, &bad), &[(80, Level::Fail, &parts)]);
        assert_eq!(alerts.set(&[]).len(), 2);
        check(&seconds(&mut alerts, "a", 90..99, &bad), &[]);
    }
}
