//! The receiver (SCP): who may call, and a thread for each association.
//!
//! What is said within an association is left to [`association`](super::association). A caller that
//! may not come in is told why, where DICOM has words for it, and costs no association; its address
//! is looked at before it is listened to.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dicom_ul::association::server::{AccessControl, DefaultNegotiation, ServerAssociationOptions};
use dicom_ul::pdu::{AssociationRJServiceUserReason, UserIdentity};
use gantry_config::{CallSettings, IngestSettings};
use gantry_imaging::dicom::deidentify::Profile;
use gantry_library::Library;
use gantry_link::{Outside, Refused};

use super::association::{PDU_BYTES_MAX, Shared, converse};
use super::commitment::{self, Report};
use super::complete::Completion;
use super::group::Group;
use super::refusals::Reason;
use super::send::{Peer, Tls};
use super::{Counters, Deidentifier};
use crate::error::AgentError;

/// How long a peer may be silent within an association.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// A running receiver. It ends with this value.
pub(crate) struct Receiver {
    stop: Arc<AtomicBool>,
    pub(super) address: SocketAddr,
    completion: Arc<Completion>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.completion.stop();
        // Wakes the thread that waits for a caller.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

/// What every caller needs.
struct Door {
    settings: IngestSettings,
    options: Options,
    tls: Option<Outside>,
    shared: Shared,
}

type Options = ServerAssociationOptions<'static, Callers, DefaultNegotiation>;

/// Who may call.
struct Callers {
    settings: IngestSettings,
    counters: Arc<Counters>,
}

impl Callers {
    fn known(&self, calling: &str, called: &str) -> Result<(), AssociationRJServiceUserReason> {
        let settings = &self.settings;
        if !settings.ae_title.is_empty() && called.trim() != settings.ae_title {
            return Err(AssociationRJServiceUserReason::CalledAETitleNotRecognized);
        }
        let known = settings.callers.iter().any(|caller| caller == calling.trim());
        if !settings.callers.is_empty() && !known {
            return Err(AssociationRJServiceUserReason::CallingAETitleNotRecognized);
        }
        Ok(())
    }
}

impl AccessControl for Callers {
    fn check_access(
        &self,
        _this: &str,
        calling: &str,
        called: &str,
        _user: Option<&UserIdentity>,
    ) -> Result<(), AssociationRJServiceUserReason> {
        self.known(calling, called).inspect_err(|_| self.counters.refusals.count(Reason::Title))
    }
}

/// Starts to listen.
pub(crate) fn start(
    settings: &IngestSettings,
    library: Library,
    counters: Arc<Counters>,
) -> Result<Receiver, AgentError> {
    let fail = |error: std::io::Error| AgentError::Listen {
        address: settings.listen,
        reason: error.to_string(),
    };
    let tls = settings.tls.as_ref().map(|tls| {
        Outside::new(&tls.certificate, &tls.key, tls.authority.as_deref())
            .map_err(|error| AgentError::Tls { section: "ingest.tls", reason: error.to_string() })
    });
    let tls = tls.transpose()?;
    if let Some(calls) = &settings.calls {
        // Read again for each call; what is wrong with them is said now.
        secure(calls, "").load().map_err(|error| AgentError::Tls {
            section: "ingest.calls",
            reason: error.to_string(),
        })?;
    }
    let listener = TcpListener::bind(settings.listen).map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let deidentifier = settings.deidentify.as_ref().map(|wanted| {
        let profile = Profile::new(&wanted.options, &wanted.private)
            .map_err(|reason| AgentError::Deidentify { reason })?;
        Ok::<_, AgentError>(Deidentifier::new(profile, &library))
    });
    let deidentifier = deidentifier.transpose()?;
    let stable = Duration::from_millis(settings.series_stable.0);
    let completion = Arc::new(Completion::new(library.clone(), stable));
    let watched = completion.clone();
    std::thread::spawn(move || watched.run());
    let door = Arc::new(Door {
        options: options(settings, &counters),
        tls,
        settings: settings.clone(),
        shared: Shared {
            group: Group::new(library.clone()),
            library,
            counters,
            deidentifier,
            completion: completion.clone(),
        },
    });
    tracing::info!(%address, ae_title = settings.ae_title, "receiving DICOM");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            match stream {
                Ok(stream) => take(&door, stream),
                Err(error) => tracing::warn!("a DICOM caller was lost: {error}"),
            }
        }
    });
    Ok(Receiver { stop, address, completion })
}

/// What is agreed on with every caller.
fn options(settings: &IngestSettings, counters: &Arc<Counters>) -> Options {
    let callers = Callers { settings: settings.clone(), counters: counters.clone() };
    ServerAssociationOptions::new()
        .ae_access_control(callers)
        .ae_title(settings.ae_title.clone())
        .promiscuous(true)
        .max_pdu_length(PDU_BYTES_MAX)
        .read_timeout(SILENCE_MAX)
        .write_timeout(SILENCE_MAX)
}

/// An association that is counted as open, for as long as this lives: also when its thread panics.
struct Open(Arc<Door>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.shared.counters.associations.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Gives a caller a thread, unless there are too many: then it is closed, and will try again.
fn take(door: &Arc<Door>, stream: TcpStream) {
    let settings = &door.settings;
    let known = stream.peer_addr().is_ok_and(|address| {
        let networks = &settings.addresses;
        networks.is_empty() || networks.iter().any(|network| network.contains(address.ip()))
    });
    if !known {
        door.shared.counters.refusals.count(Reason::Address);
        tracing::warn!("a DICOM caller was refused: its address is not one of ingest.addresses");
        return;
    }
    let before = door.shared.counters.associations.fetch_add(1, Ordering::Relaxed);
    let open = Open(door.clone());
    if before as usize >= settings.associations_max {
        door.shared.counters.refusals.count(Reason::TooMany);
        tracing::warn!(
            max = settings.associations_max,
            "a DICOM caller was refused: too many associations"
        );
        return;
    }
    let started = std::thread::Builder::new().name("association".into()).spawn(move || {
        if let Err(reason) = serve(&open.0, stream) {
            tracing::warn!("a DICOM association ended: {reason}");
        }
    });
    if let Err(error) = started {
        tracing::error!("a DICOM caller was refused: no thread could be started: {error}");
    }
}

fn serve(door: &Door, stream: TcpStream) -> Result<(), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    // Without this each message waits for the peer's delayed acknowledgement: 18 images a second.
    stream.set_nodelay(true).map_err(|error| words(&error))?;
    let stream = match &door.tls {
        None => stream,
        Some(tls) => tls.accept(stream, SILENCE_MAX).map_err(|refused| {
            let reason = match refused {
                Refused::Plain => Reason::Plain,
                Refused::Certificate(_) => Reason::Certificate,
                Refused::Handshake(_) => Reason::Handshake,
            };
            door.shared.counters.refusals.count(reason);
            format!("the caller was refused: {refused}")
        })?,
    };
    let association = door.options.establish(stream).map_err(|error| words(&error))?;
    let ended = converse(&door.shared, association);
    for report in &ended.reports {
        call_back(&door.settings, &ended.calling_ae, report);
    }
    ended.end
}

/// Tells a peer that has hung up what it had asked for, where the settings say where it listens.
fn call_back(settings: &IngestSettings, calling_ae: &str, report: &Report) {
    let Some(address) = settings.commitment.get(calling_ae) else {
        tracing::warn!(
            calling_ae,
            "a storage commitment could not be answered: the association had ended, and ingest.commitment names no address"
        );
        return;
    };
    let name = |calls: &CallSettings| {
        calls.names.get(calling_ae).cloned().unwrap_or_else(|| address.ip().to_string())
    };
    let peer = Peer {
        tls: settings.calls.as_ref().map(|calls| secure(calls, &name(calls))),
        ..Peer::plain(*address, &settings.ae_title, calling_ae)
    };
    match commitment::call_back(&peer, report) {
        Ok(()) => tracing::info!(calling_ae, "answered a storage commitment by a call"),
        Err(error) => tracing::error!(calling_ae, "answering a storage commitment failed: {error}"),
    }
}

/// How a peer of this name is spoken with.
fn secure(calls: &CallSettings, name: &str) -> Tls {
    Tls {
        authority: calls.authority.clone(),
        own: calls.certificate.clone().zip(calls.key.clone()),
        name: name.to_owned(),
    }
}
