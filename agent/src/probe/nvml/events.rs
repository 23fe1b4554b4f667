//! Errors that the driver calls out: XID errors, by NVML's sets of events.
//!
//! A thread of its own waits for them, since a wait is a call that takes as long as it is told to.
//! It ends with the list it was started for, within one wait. A GPU that cannot be waited for is
//! left out; of one that is divided nobody learns which instance an error was in, so that it counts
//! for all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use gantry_model::At;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, EventSet, Nvml};
use tokio::sync::mpsc::error::TrySendError;

use super::list::Known;
use super::{Shared, XidEvent};

/// What the wrapper calls an error whose number NVML does not know.
const UNKNOWN: u64 = 999;

/// The thread that waits; dropping this ends it.
pub(super) struct Listener(Arc<AtomicBool>);

impl Listener {
    /// Starts to listen to these GPUs.
    pub(super) fn start(
        nvml: Arc<Nvml>,
        known: &[Known],
        shared: &Arc<Shared>,
        wait: Duration,
    ) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (its, shared) = (over.clone(), shared.clone());
        let mut members = BTreeMap::<String, Vec<String>>::new();
        for one in known {
            members.entry(one.whole.clone()).or_default().push(one.facts.uuid.clone());
        }
        std::thread::spawn(move || {
            let (set, names) = match register(&nvml, &members) {
                Ok(registered) => registered,
                Err(error) => {
                    tracing::info!("XID errors are not heard of: {error}");
                    return;
                }
            };
            while !its.load(Ordering::Relaxed) && !shared.is_over() {
                listen(&set, &names, &members, &shared, wait);
            }
        });
        Self(over)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// UUIDs of whole GPUs by the driver's handles: one that has just fallen off the bus cannot say its
/// name any more, and that is when it matters.
type Names = BTreeMap<usize, String>;

/// Makes a set with every GPU that can be waited for.
fn register<'nvml>(
    nvml: &'nvml Nvml,
    members: &BTreeMap<String, Vec<String>>,
) -> Result<(EventSet<'nvml>, Names), NvmlError> {
    let mut set = nvml.create_event_set()?;
    let mut names = Names::new();
    for uuid in members.keys() {
        let Ok(device) = nvml.device_by_uuid(uuid.as_str()) else { continue };
        if !hears(nvml, &device) {
            continue;
        }
        set = device.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|it| it.error)?;
        names.insert(handle(&device), uuid.clone());
    }
    if names.is_empty() { Err(NvmlError::NotSupported) } else { Ok((set, names)) }
}

/// Whether a device can be waited for: a refused one takes the whole set with it.
fn hears(nvml: &Nvml, device: &Device<'_>) -> bool {
    nvml.create_event_set()
        .is_ok_and(|set| device.register_events(EventTypes::CRITICAL_XID_ERROR, set).is_ok())
}

fn handle(device: &Device<'_>) -> usize {
    // SAFETY: the pointer is only compared; no call is made with it.
    unsafe { device.handle() as usize }
}

/// Waits once.
fn listen(
    set: &EventSet<'_>,
    names: &Names,
    members: &BTreeMap<String, Vec<String>>,
    shared: &Shared,
    wait: Duration,
) {
    match set.wait(wait.as_millis() as u32) {
        Ok(event) => {
            let named = names.get(&handle(&event.device)).cloned();
            let Some(whole) = named.or_else(|| event.device.uuid().ok()) else { return };
            let Some(uuids) = members.get(&whole) else { return };
            let code = match event.event_data {
                Some(XidError::Value(code)) => code,
                Some(XidError::Unknown) => UNKNOWN,
                None => return,
            };
            for uuid in uuids {
                tell(shared, XidEvent { uuid: uuid.clone(), code, at: now() });
            }
        }
        Err(NvmlError::Timeout) => {}
        // As with a GPU that is lost: the next wait fails at once, too.
        Err(_) => std::thread::sleep(wait),
    }
}

fn tell(shared: &Shared, event: XidEvent) {
    if let Err(TrySendError::Full(event)) = shared.xids.try_send(event) {
        tracing::warn!(gpu = event.uuid, code = event.code, "too many XID errors; one is dropped");
    }
}

fn now() -> At {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    At(since.as_millis() as u64)
}
