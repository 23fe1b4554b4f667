//! The receiver (SCP): C-ECHO and C-STORE, a thread for each association.
//!
//! Success is answered once the instance is on disk. What does not parse is set aside with its
//! reason and answered with success too: it is kept, and a scanner that repeats it for ever helps
//! nobody. Storage that is short is answered with 0xA700. A peer that breaks off, sends nonsense
//! or aborts ends its own association and nothing else.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dicom_object::FileMetaTableBuilder;
use dicom_ul::association::Association;
use dicom_ul::association::server::{AccessControl, ServerAssociation, ServerAssociationOptions};
use dicom_ul::pdu::{
    AssociationRJServiceUserReason, PDataValue, PDataValueType, Pdu, UserIdentity,
};
use gantry_config::IngestSettings;
use gantry_imaging::dicom::FILE_BYTES_MAX;
use gantry_library::{Library, LibraryError, Source};

use super::command::{self, Command};
use super::{Counters, Kept, keep};
use crate::error::AgentError;

/// PDUs of 128 KiB: a third faster than the usual 16.
const PDU_BYTES_MAX: u32 = 128 * 1024;
/// How long a peer may be silent within an association.
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// Bytes of one command set.
const COMMAND_BYTES_MAX: usize = 64 * 1024;

const PREAMBLE: [u8; 128] = [0; 128];

/// A running receiver. It ends with this value.
pub(crate) struct Receiver {
    stop: Arc<AtomicBool>,
    pub(super) address: SocketAddr,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for a caller.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

/// What every association needs.
struct Shared {
    settings: IngestSettings,
    library: Library,
    counters: Arc<Counters>,
}

/// Who may call.
struct Callers<'a>(&'a IngestSettings);

impl AccessControl for Callers<'_> {
    fn check_access(
        &self,
        _this: &str,
        calling: &str,
        called: &str,
        _user: Option<&UserIdentity>,
    ) -> Result<(), AssociationRJServiceUserReason> {
        let settings = self.0;
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
    let listener = TcpListener::bind(settings.listen).map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let shared = Arc::new(Shared { settings: settings.clone(), library, counters });
    tracing::info!(%address, ae_title = settings.ae_title, "receiving DICOM");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            match stream {
                Ok(stream) => take(&shared, stream),
                Err(error) => tracing::warn!("a DICOM caller was lost: {error}"),
            }
        }
    });
    Ok(Receiver { stop, address })
}

/// An association that is counted as open, for as long as this lives: also when its thread panics.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.associations.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Gives a caller a thread, unless there are too many: then it is closed, and will try again.
fn take(shared: &Arc<Shared>, stream: TcpStream) {
    let before = shared.counters.associations.fetch_add(1, Ordering::Relaxed);
    let open = Open(shared.clone());
    if before as usize >= shared.settings.associations_max {
        tracing::warn!(
            max = shared.settings.associations_max,
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

fn serve(shared: &Shared, stream: TcpStream) -> Result<(), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    // Without this each message waits for the peer's delayed acknowledgement: 18 images a second.
    stream.set_nodelay(true).map_err(|error| words(&error))?;
    let options = ServerAssociationOptions::new()
        .ae_access_control(Callers(&shared.settings))
        .ae_title(shared.settings.ae_title.as_str())
        .promiscuous(true)
        .max_pdu_length(PDU_BYTES_MAX)
        .read_timeout(SILENCE_MAX)
        .write_timeout(SILENCE_MAX);
    let mut association = options.establish(stream).map_err(|error| words(&error))?;
    shared.counters.associations_total.fetch_add(1, Ordering::Relaxed);
    let calling_ae = association.peer_ae_title().trim().to_owned();
    let mut message = Message::default();
    loop {
        match association.receive().map_err(|error| words(&error))? {
            Pdu::PData { data } => {
                for value in data {
                    if let Some(whole) = message.add(value)? {
                        answer(shared, &mut association, &calling_ae, whole)?;
                    }
                }
            }
            Pdu::ReleaseRQ => {
                return association.send(&Pdu::ReleaseRP).map_err(|error| words(&error));
            }
            Pdu::AbortRQ { .. } => return Err(format!("{calling_ae} aborted it")),
            other => {
                return Err(format!("{calling_ae} sent {} within it", other.short_description()));
            }
        }
    }
}

/// A message in the making: its command, then its data.
#[derive(Default)]
struct Message {
    command_bytes: Vec<u8>,
    command: Option<Command>,
    data: Vec<u8>,
}

/// A message that is whole.
struct Whole {
    context: u8,
    command: Command,
    data: Vec<u8>,
}

impl Message {
    fn add(&mut self, value: PDataValue) -> Result<Option<Whole>, String> {
        let context = value.presentation_context_id;
        match value.value_type {
            PDataValueType::Command => {
                self.command_bytes.extend(value.data);
                if self.command_bytes.len() > COMMAND_BYTES_MAX {
                    return Err("a command set is longer than any is".into());
                }
                if value.is_last {
                    let bytes = std::mem::take(&mut self.command_bytes);
                    let command = command::read(&bytes).ok_or("a command set cannot be read")?;
                    if command.has_data {
                        self.command = Some(command);
                    } else {
                        return Ok(Some(Whole { context, command, data: Vec::new() }));
                    }
                }
            }
            PDataValueType::Data => {
                self.data.extend(value.data);
                if self.data.len() > FILE_BYTES_MAX {
                    return Err(format!(
                        "an instance is longer than the {FILE_BYTES_MAX} bytes that are taken"
                    ));
                }
                if value.is_last {
                    let data = std::mem::take(&mut self.data);
                    let command = self.command.take().ok_or("data came without a command")?;
                    return Ok(Some(Whole { context, command, data }));
                }
            }
        }
        Ok(None)
    }
}

fn answer(
    shared: &Shared,
    association: &mut ServerAssociation<TcpStream>,
    calling_ae: &str,
    whole: Whole,
) -> Result<(), String> {
    let Whole { context, command, data } = whole;
    let (field, status) = match command.field {
        command::ECHO_REQUEST => (command::ECHO_RESPONSE, command::SUCCESS),
        command::STORE_REQUEST => {
            let contexts = association.presentation_contexts();
            let syntax = contexts
                .iter()
                .find(|one| one.id == context)
                .map(|one| one.transfer_syntax.trim_end_matches('\0').to_owned())
                .ok_or("an instance came in a presentation context that was not agreed on")?;
            (command::STORE_RESPONSE, store(shared, calling_ae, &command, &syntax, &data))
        }
        other => (other | 0x8000, command::UNRECOGNIZED_OPERATION),
    };
    let bytes = command::response(&command, field, status);
    let value = PDataValue {
        presentation_context_id: context,
        value_type: PDataValueType::Command,
        is_last: true,
        data: bytes,
    };
    association.send(&Pdu::PData { data: vec![value] }).map_err(|error| error.to_string())
}

/// Keeps an instance, and gives the status to answer with.
fn store(shared: &Shared, calling_ae: &str, command: &Command, syntax: &str, data: &[u8]) -> u16 {
    let counters = &shared.counters;
    let Some(file) = part10(command, syntax, data) else { return command::CANNOT_UNDERSTAND };
    let source = Source::Association { calling_ae: calling_ae.to_owned() };
    match keep(&shared.library, &file, &source) {
        Ok(Kept::Stored(_)) => {
            counters.received.fetch_add(1, Ordering::Relaxed);
            command::SUCCESS
        }
        Ok(Kept::Quarantined { reason, .. }) => {
            counters.quarantined.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(calling_ae, reason, "an instance was set aside");
            command::SUCCESS
        }
        Err(error) => {
            counters.refused.fetch_add(1, Ordering::Relaxed);
            tracing::error!(calling_ae, "an instance was refused: {error}");
            match error {
                LibraryError::StorageFull { .. } => command::OUT_OF_RESOURCES,
                _ => command::CANNOT_UNDERSTAND,
            }
        }
    }
}

/// The data set as it came, behind a file meta group (PS3.10 7.1).
fn part10(command: &Command, syntax: &str, data: &[u8]) -> Option<Vec<u8>> {
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(syntax)
        .media_storage_sop_class_uid(command.sop_class_uid.as_str())
        .media_storage_sop_instance_uid(command.sop_instance_uid.as_str())
        .build()
        .ok()?;
    let mut file = PREAMBLE.to_vec();
    file.extend(b"DICM");
    meta.write(&mut file).ok()?;
    file.extend(data);
    Some(file)
}
