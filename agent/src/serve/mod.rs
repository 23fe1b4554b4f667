//! A prediction service: series that come into a library are predicted as they come.
//!
//! It looks into the library every few seconds. A series is taken once nothing new has come for it
//! for a while and it fits the rule; the model is the one that was approved last under a name, so
//! that approving another changes what is served, and approving the earlier one again takes that
//! back. One model is loaded at a time; where a new one cannot be loaded the earlier one goes on.
//!
//! What was predicted goes back to a DICOM receiver as a segmentation, where one is named. That a
//! series is owed to it is kept in the library before it is predicted, so that a service that is
//! killed sends it once it is back. Outputs are for research; nothing here is a diagnosis.

mod desk;
mod http;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gantry_imaging::dicom;
use gantry_learning::Predictor;
use gantry_library::{Library, ModelId, SeriesId, SeriesRecord, now_ms};

use self::desk::{Desk, Present};
use crate::ingest::send::{self, Peer, Tls};
use crate::predictions;

/// Between two looks into the library.
const LOOK_EACH: Duration = Duration::from_secs(2);
/// Between two tries to send what is owed, at first and at most.
const SEND_AGAIN: Duration = Duration::from_secs(2);
const SEND_AGAIN_MAX: Duration = Duration::from_mins(5);
/// Bytes of a file in which its body part is looked for.
const HEAD_BYTES: u64 = 64 << 10;
/// Series whose body part is remembered.
const PARTS_MAX: usize = 100_000;

/// Where predictions go back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Its address, as HOST:PORT.
    pub to: String,
    /// Its AE title.
    pub called: String,
    /// Ours.
    pub calling: String,
    /// Whether TLS is spoken with it.
    pub tls: Option<Tls>,
}

/// What a service is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeSettings {
    /// Its name, under which it keeps what it owes.
    pub name: String,
    /// The model, by its name or id.
    pub model: String,
    /// Series of this modality only.
    pub modality: Option<String>,
    /// Series of this part of the body only.
    pub body_part: Option<String>,
    /// How long nothing new has come for a series that is complete.
    pub stable: Duration,
    /// Where predictions go back to.
    pub send: Option<Receiver>,
    /// Where programs ask.
    pub listen: Option<SocketAddr>,
    /// How many series that were asked for may wait.
    pub places: usize,
}

/// What the service and its callers share.
pub(crate) struct Shared {
    desk: Mutex<Desk>,
    /// Something was asked for, or the service is to stop.
    changed: Condvar,
}

impl Shared {
    pub(crate) fn desk(&self) -> MutexGuard<'_, Desk> {
        // A caller that panicked has left nothing half done: every change is one call.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells a service to stop, from any thread.
#[derive(Clone)]
pub struct Stop(Arc<(Mutex<bool>, Arc<Shared>)>);

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stop").finish_non_exhaustive()
    }
}

impl Stop {
    /// The service ends once what it is doing is done.
    pub fn stop(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.changed.notify_all();
    }

    fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A service that is ready to run.
pub struct Service {
    library: Library,
    settings: ServeSettings,
    shared: Arc<Shared>,
    stop: Stop,
    owed: PathBuf,
    parts: BTreeMap<SeriesId, String>,
    send_at: Instant,
    send_each: Duration,
    complained: String,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Service {
    /// Prepares a service on a library.
    ///
    /// # Errors
    /// Where its name is no plain one, or its folder in the library cannot be made.
    pub fn new(library: Library, settings: ServeSettings) -> Result<Self, String> {
        let owed = library.service_folder(&settings.name).map_err(words)?.join("owed");
        fs::create_dir_all(&owed)
            .map_err(|error| format!("making {} failed: {error}", owed.display()))?;
        let desk = Mutex::new(Desk::new(settings.places));
        let shared = Arc::new(Shared { desk, changed: Condvar::new() });
        let stop = Stop(Arc::new((Mutex::new(false), shared.clone())));
        Ok(Self {
            library,
            settings,
            shared,
            stop,
            owed,
            parts: BTreeMap::new(),
            send_at: Instant::now(),
            send_each: SEND_AGAIN,
            complained: String::new(),
        })
    }

    /// What tells it to stop.
    #[must_use]
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Serves until it is told to stop, and writes what it does, a line each.
    ///
    /// # Errors
    /// Where it cannot listen. What fails later is written and tried again.
    pub fn run(mut self, log: &mut dyn Write) -> Result<(), String> {
        let address = self.settings.listen;
        let door = address
            .map(|address| http::start(address, &self.library, self.shared.clone()))
            .transpose()?;
        if let Some(door) = &door {
            say(log, &format!("programs can ask at http://{}", door.address));
        }
        let mut loaded: Option<Predictor> = None;
        while !self.stop.is_set() {
            let looked = self.look(&mut loaded, log);
            self.told(looked, log);
            self.send_owed(log);
            let until = Instant::now() + LOOK_EACH;
            while let Some(series) = self.next(until) {
                self.predict(loaded.as_ref(), &series, log);
                if Instant::now() >= until {
                    break;
                }
            }
        }
        say(log, "the service ends, as it was told to");
        Ok(())
    }

    /// Waits for a series until then.
    fn next(&self, until: Instant) -> Option<SeriesId> {
        let mut desk = self.shared.desk();
        loop {
            if self.stop.is_set() {
                return None;
            }
            if let Some(series) = desk.next() {
                return Some(series);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.shared.changed.wait_timeout(desk, left);
            desk = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Says what failed, once.
    fn told(&mut self, result: Result<(), String>, log: &mut dyn Write) {
        let sentence = result.err().unwrap_or_default();
        if !sentence.is_empty() && sentence != self.complained {
            say(log, &format!("! {sentence}"));
        }
        self.complained = sentence;
    }

    /// Looks which model is approved, and which series there are.
    fn look(&mut self, loaded: &mut Option<Predictor>, log: &mut dyn Write) -> Result<(), String> {
        let approved = self.library.approved_model(&self.settings.model).map_err(words)?;
        let approved = approved.map(|model| model.id);
        let series = self.library.complete_series(self.settings.stable, now_ms()).map_err(words)?;
        if approved.as_ref() != self.shared.desk().model() {
            self.change(approved, &series, loaded, log)?;
        }
        if loaded.is_none() {
            let name = &self.settings.model;
            return Err(format!(
                "no model {name:?} is approved; nothing is predicted until one is, by gantry models {name} --approve"
            ));
        }
        let present = series.iter().filter(|one| self.fits(one)).map(present).collect();
        self.shared.desk().look(present, now_ms());
        Ok(())
    }

    fn change(
        &mut self,
        approved: Option<ModelId>,
        series: &[SeriesRecord],
        loaded: &mut Option<Predictor>,
        log: &mut dyn Write,
    ) -> Result<(), String> {
        let Some(id) = approved else {
            *loaded = None;
            self.shared.desk().serve(None, Vec::new());
            return Ok(());
        };
        let predictor = Predictor::load(&self.library, id.as_str()).map_err(|error| {
            let goes_on = self
                .shared
                .desk()
                .model()
                .map_or_else(String::new, |earlier| format!("; model {earlier} goes on"));
            format!("{error}{goes_on}")
        })?;
        let all = self.library.predictions().map_err(words)?;
        let done: std::collections::BTreeSet<SeriesId> =
            all.into_iter().filter(|one| one.model == id).map(|one| one.series).collect();
        // What is owed is predicted again where it is not there, so it is not done.
        let predicted = series.iter().filter(|one| done.contains(&one.id)).map(present).collect();
        *loaded = Some(predictor);
        say(log, &format!("model {id} is served"));
        self.shared.desk().serve(Some(id), predicted);
        Ok(())
    }

    /// Whether the rule allows a series.
    fn fits(&mut self, series: &SeriesRecord) -> bool {
        let alike = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(found.trim()))
        };
        if !alike(&self.settings.modality, &series.modality) {
            return false;
        }
        if self.settings.body_part.is_none() {
            return true;
        }
        let part = self.parts.get(&series.id).cloned().unwrap_or_else(|| {
            if self.parts.len() >= PARTS_MAX {
                self.parts.clear();
            }
            let part = self.body_part(&series.id).unwrap_or_default();
            self.parts.insert(series.id.clone(), part.clone());
            part
        });
        alike(&self.settings.body_part, &part)
    }

    fn body_part(&self, series: &SeriesId) -> Option<String> {
        let object = self.library.series_objects(series).ok()?.into_iter().next()?;
        let head = self.library.read_object_head(&object, HEAD_BYTES).ok()?;
        let whole = || self.library.read_object(&object).ok();
        let instance = dicom::inspect(&head).ok().or_else(|| dicom::inspect(&whole()?).ok());
        instance.map(|instance| instance.body_part)
    }

    fn predict(&mut self, predictor: Option<&Predictor>, series: &SeriesId, log: &mut dyn Write) {
        let Some(predictor) = predictor else { return };
        let begun = Instant::now();
        let note = self.owed.join(series.as_str());
        if self.settings.send.is_some()
            && let Err(error) = self.owe(series, predictor.model())
        {
            self.shared.desk().failed(series.clone(), now_ms());
            say(
                log,
                &format!(
                    "! keeping that series {series} is owed failed: {error}; it is tried again later"
                ),
            );
            return;
        }
        match predictions::make(&self.library, predictor, series, &mut || ()) {
            Ok(made) => {
                let seconds = begun.elapsed().as_secs_f64();
                let count = {
                    let mut desk = self.shared.desk();
                    desk.predicted(series, seconds);
                    desk.counts.predicted
                };
                say(log, &format!("prediction {} of series {series}: {}", made.id, made.said));
                say(log, &format!("::metric prediction_seconds {seconds:.3} {count}"));
                self.send_at = Instant::now();
                self.send_owed(log);
            }
            Err(sentence) => {
                self.shared.desk().failed(series.clone(), now_ms());
                say(log, &format!("! series {series} was not predicted: {sentence}"));
                let _ = fs::remove_file(note);
            }
        }
    }

    /// Keeps that a series by this model is owed: whole and on the disk, or not at all.
    fn owe(&self, series: &SeriesId, model: &ModelId) -> io::Result<()> {
        // No series has such a name, so that half a note is never taken for one.
        let half = self.owed.join(format!(".{series}"));
        let written = File::create(&half).and_then(|mut file| {
            file.write_all(model.as_str().as_bytes())?;
            file.sync_all()
        });
        written.and_then(|()| fs::rename(&half, self.owed.join(series.as_str())))?;
        File::open(&self.owed)?.sync_all()
    }

    /// Sends what is owed; where that fails, again after a while that grows.
    fn send_owed(&mut self, log: &mut dyn Write) {
        let Some(receiver) = self.settings.send.clone() else { return };
        if Instant::now() < self.send_at {
            return;
        }
        self.send_at = Instant::now() + LOOK_EACH;
        let Ok(notes) = fs::read_dir(&self.owed) else { return };
        for note in notes.flatten() {
            let name = note.file_name();
            let Some(series) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            let model = fs::read_to_string(note.path()).unwrap_or_default();
            match self.send(&receiver, &series, model.trim()) {
                Ok(Sent::Yes) => {
                    let _ = fs::remove_file(note.path());
                    self.shared.desk().counts.sent += 1;
                    self.send_each = SEND_AGAIN;
                    say(log, &format!("the segmentation of series {series} was sent"));
                }
                Ok(Sent::Nothing) => {
                    let _ = fs::remove_file(note.path());
                }
                Ok(Sent::NotYet) => {}
                Err(sentence) => {
                    self.shared.desk().counts.not_sent += 1;
                    let seconds = self.send_each.as_secs();
                    say(log, &format!("! {sentence}; it is tried again in {seconds} s"));
                    self.send_at = Instant::now() + self.send_each;
                    self.send_each = (self.send_each * 2).min(SEND_AGAIN_MAX);
                    return;
                }
            }
        }
    }

    fn send(&self, receiver: &Receiver, series: &SeriesId, model: &str) -> Result<Sent, String> {
        let Ok(model) = model.parse() else { return Ok(Sent::Nothing) };
        let prediction = self.library.prediction_by(series, &model).map_err(words)?;
        // It is predicted once its turn comes.
        let Some(prediction) = prediction else { return Ok(Sent::NotYet) };
        let Some(object) = &prediction.segmentation else { return Ok(Sent::Nothing) };
        let bytes = self.library.read_object(object).map_err(words)?;
        let address = receiver
            .to
            .to_socket_addrs()
            .ok()
            .and_then(|mut all| all.next())
            .ok_or_else(|| format!("{} is no address that can be found", receiver.to))?;
        let mut status = send::NOT_SENT;
        let peer = Peer {
            tls: receiver.tls.clone(),
            ..Peer::plain(address, &receiver.calling, &receiver.called)
        };
        send::send(&peer, &[bytes], &mut |one| status = one).map_err(words)?;
        if status != 0 {
            return Err(format!(
                "{} refused the segmentation of series {series} with status {status:#06x}",
                receiver.called
            ));
        }
        Ok(Sent::Yes)
    }
}

/// What became of something that is owed.
enum Sent {
    Yes,
    /// The model marks nothing in it.
    Nothing,
    /// It is not predicted yet.
    NotYet,
}

fn present(series: &SeriesRecord) -> Present {
    (series.id.clone(), series.instances)
}

fn words(error: impl Display) -> String {
    error.to_string()
}

/// Writes a line; whoever reads it may have gone.
fn say(log: &mut dyn Write, line: &str) {
    let _ = writeln!(log, "{line}").and_then(|()| log.flush());
}
