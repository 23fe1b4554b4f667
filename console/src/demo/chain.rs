//! The demonstration's stages, one after the other, each timed and named.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gantry_agent::import;
use gantry_agent::ingest::send::{self, Peer};
use gantry_imaging::{measure, nifti};
use gantry_learning::TrainSettings;
use gantry_library::{Library, SeriesId};
use gantry_model::{
    Builtin, Dependency, DependencyKind, DependencyScope, JobId, JobSpec, MemoryMib, Resources,
    Work,
};

use super::Options;
use super::cluster::Site;
use super::report::{HeldOut, Predicted, Quarantined, Report, Similar, Trained};
use super::scanner::{self, Worklist};
use crate::cli::learning::over;
use crate::error::Failure;

/// The stages, in their order.
pub(super) const STAGES: [&str; 7] =
    ["scan", "send", "receive", "preprocess", "train", "predict", "report"];
/// The run's name: its folder in the library.
const RUN: &str = "demo";
/// The pipeline that makes the labels.
const PIPELINE: &str = "chest-ct";
/// A series is complete once nothing new came for this long.
const STABLE: Duration = Duration::from_secs(2);
/// How many earlier cases are shown.
const NEAREST: usize = 3;

/// The stages and what they found.
pub(super) struct Chain<'a> {
    options: &'a Options,
    site: &'a Site,
    say: &'a dyn Fn(&str),
    seconds: BTreeMap<&'static str, f64>,
}

impl<'a> Chain<'a> {
    /// A chain that has not begun.
    pub(super) fn new(options: &'a Options, site: &'a Site, say: &'a dyn Fn(&str)) -> Self {
        Self { options, site, say, seconds: BTreeMap::new() }
    }

    /// Runs every stage.
    ///
    /// # Errors
    /// Where one fails; the sentence begins with its name.
    pub(super) fn run(mut self) -> Result<Report, Failure> {
        let worklist = self.stage("scan", |chain| match &chain.options.data {
            Some(folder) => scanner::real(folder),
            None => scanner::phantoms(chain.options.patients),
        })?;
        let sent = self.stage("send", |chain| chain.send(&worklist))?;
        let library = Library::open(&self.site.library_folder()).map_err(Failure::trouble)?;
        let series = self.stage("receive", |chain| chain.receive(&library, &worklist))?;
        let held_out = series.last().cloned().ok_or_else(|| Failure::trouble("no series came"))?;
        let jobs = self.submit(&library, &series, &held_out)?;
        for (name, job) in [("preprocess", jobs.0), ("train", jobs.1), ("predict", jobs.2)] {
            self.stage(name, |chain| chain.site.wait(job))?;
        }
        let mut report =
            self.stage("report", |chain| chain.report(&library, &series, &held_out))?;
        report.instances_sent = sent;
        report.seconds = self.seconds;
        Ok(report)
    }

    fn stage<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        (self.say)(&format!("{name} …"));
        let start = Instant::now();
        let result = work(self).map_err(|failure| Failure {
            sentence: format!("stage {name}: {}", failure.sentence),
            ..failure
        })?;
        self.seconds.insert(name, (start.elapsed().as_secs_f64() * 10.0).round() / 10.0);
        Ok(result)
    }

    /// Sends everything as a scanner does, then imports the folders that lie beside it.
    fn send(&self, worklist: &Worklist) -> Result<u64, Failure> {
        let mut sent = 0;
        let peer = Peer::plain(self.site.ingest(), "SCANNER", "GANTRY");
        let parts = worklist.scans.iter().map(|scan| &scan.files).chain([&worklist.others]);
        for files in parts.filter(|files| !files.is_empty()) {
            send::send(&peer, files, &mut |status| {
                sent += u64::from(status == 0);
            })
            .map_err(Failure::trouble)?;
        }
        if !worklist.folders.is_empty() {
            let library = Library::open(&self.site.library_folder()).map_err(Failure::trouble)?;
            for folder in &worklist.folders {
                import::import(&library, folder, None, &mut |_| ()).map_err(Failure::trouble)?;
            }
        }
        Ok(sent)
    }

    /// Waits until the series that were scanned are complete; gives their ids in scanning order.
    fn receive(&self, library: &Library, worklist: &Worklist) -> Result<Vec<SeriesId>, Failure> {
        let expected: Vec<SeriesId> =
            worklist.scans.iter().map(|scan| library.series_id(&scan.series_uid)).collect();
        self.site.until("the series' arrival", || {
            let now = gantry_library::now_ms();
            let complete = library.complete_series(STABLE, now).map_err(Failure::trouble)?;
            let there = |id: &SeriesId| complete.iter().any(|record| record.id == *id);
            Ok(expected.iter().all(there).then(|| expected.clone()))
        })
    }

    /// Submits the three jobs at once; each waits for the one before.
    fn submit(
        &self,
        library: &Library,
        series: &[SeriesId],
        held_out: &SeriesId,
    ) -> Result<(JobId, JobId, JobId), Failure> {
        let folder = library.root().display().to_string();
        let ids: Vec<String> = series.iter().map(ToString::to_string).collect();
        let records = library.series().map_err(Failure::trouble)?;
        let patient = records
            .iter()
            .find(|record| record.id == *held_out)
            .map(|record| record.patient.to_string())
            .ok_or_else(|| Failure::trouble("the held-out series is gone from the library"))?;
        let pipeline = crate::cli::learning::pipeline(PIPELINE)?;
        let preprocess =
            Builtin::Preprocess { library: folder.clone(), pipeline, series: ids.clone() };
        let settings = TrainSettings {
            label: "lungs".into(),
            epochs: self.options.epochs,
            hold_out: vec![patient],
            ..TrainSettings::default()
        };
        let settings = serde_json::to_string(&settings).map_err(Failure::trouble)?;
        let train = Builtin::Train { library: folder.clone(), settings, run: RUN.into() };
        let model = format!("run:{RUN}");
        let predict = Builtin::Predict { library: folder, model, series: ids.clone() };
        let ok = |job| Dependency { job, kind: DependencyKind::Ok, scope: DependencyScope::Job };
        let submit = |key: &str, work: Builtin, after: Option<JobId>, tasks: Option<usize>| {
            let spec = JobSpec {
                resources: Resources { cores: 1, memory: MemoryMib(512), ..Resources::default() },
                after: after.map(ok).into_iter().collect(),
                retries: 1,
                ..JobSpec::new(key, Work::Builtin(work))
            };
            let spec = tasks.map_or(spec.clone(), |count| over(spec, count));
            self.site.submit(key, spec)
        };
        let first = submit("preprocess", preprocess, None, Some(ids.len()))?;
        let second = submit("train", train, Some(first), None)?;
        let third = submit("predict", predict, Some(second), Some(ids.len()))?;
        Ok((first, second, third))
    }

    /// Reads from the library what came out.
    fn report(
        &self,
        library: &Library,
        series: &[SeriesId],
        held_out: &SeriesId,
    ) -> Result<Report, Failure> {
        let counts = library.counts().map_err(Failure::trouble)?;
        let quarantined = library.quarantined().map_err(Failure::trouble)?;
        let predictions = library.predictions().map_err(Failure::trouble)?;
        let models = library.models().map_err(Failure::trouble)?;
        let model = models.first().ok_or_else(|| Failure::trouble("no model was published"))?;
        let of = |id: &SeriesId| predictions.iter().find(|prediction| prediction.series == *id);
        let last = of(held_out)
            .ok_or_else(|| Failure::trouble("the held-out series has no prediction"))?;
        let samples = library.samples().map_err(Failure::trouble)?;
        let sample = samples
            .iter()
            .find(|sample| sample.series == *held_out)
            .ok_or_else(|| Failure::trouble("the held-out series has no sample"))?;
        let mask = |hash| -> Result<gantry_imaging::Mask, Failure> {
            let bytes = library.read_object(hash).map_err(Failure::trouble)?;
            nifti::read_mask(&bytes).map_err(Failure::trouble)
        };
        let (predicted, labelled) = (mask(&last.mask)?, mask(&sample.mask)?);
        let dice = measure::dice(&predicted, &labelled).map_err(Failure::trouble)?;
        let nearest = library.nearest(last, NEAREST).map_err(Failure::trouble)?;
        Ok(Report {
            data: if self.options.data.is_some() { "real" } else { "phantoms" },
            folder: self.options.folder.as_ref().map(|_| self.site.folder().to_owned()),
            instances_sent: 0,
            instances_received: counts.instances,
            quarantined: quarantined.iter().map(Quarantined::of).collect(),
            series: counts.series,
            samples: counts.samples,
            computed_on: self.site.computes_on()?,
            training: Trained::of(model),
            held_out: HeldOut { series: held_out.to_string(), dice },
            predictions: series.iter().filter_map(of).map(Predicted::of).collect(),
            nearest: nearest.iter().map(Similar::of).collect(),
            seconds: BTreeMap::new(),
            scheduler_restarts: self.site.restarts(),
        })
    }
}
