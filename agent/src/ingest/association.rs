//! What is said within an association: C-ECHO, C-STORE and the request for storage commitment.
//!
//! Success is answered once the instance is on disk. What does not parse is set aside with its
//! reason and answered with success too: it is kept, and a scanner that repeats it for ever helps
//! nobody. Storage that is short is answered with 0xA700. A peer that breaks off, sends nonsense
//! or aborts ends its own association and nothing else.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dicom_object::FileMetaTableBuilder;
use dicom_ul::association::server::ServerAssociation;
use dicom_ul::association::{Association, CloseSocket};
use dicom_ul::pdu::{
    PDataValue, PDataValueType, Pdu, PresentationContextNegotiated, PresentationContextResultReason,
};
use gantry_imaging::dicom::{FILE_BYTES_MAX, Refusal};
use gantry_library::{Arrival, Library, LibraryError, Source, Stored};

use super::command::{self, Command};
use super::commitment::{self, Report};
use super::complete::Completion;
use super::group::Group;
use super::{Counters, Deidentifier, Kept, set_aside, verdict};

/// PDUs of 128 KiB: a third faster than the usual 16.
pub(super) const PDU_BYTES_MAX: u32 = 128 * 1024;
/// Bytes of one command set.
const COMMAND_BYTES_MAX: usize = 64 * 1024;
const PREAMBLE: [u8; 128] = [0; 128];

/// What every association needs.
pub(super) struct Shared {
    pub(super) library: Library,
    pub(super) group: Group,
    pub(super) counters: Arc<Counters>,
    pub(super) deidentifier: Option<Deidentifier>,
    pub(super) completion: Arc<Completion>,
}

/// How an association ended.
pub(super) struct Ended {
    /// Why, where it was not released.
    pub(super) end: Result<(), String>,
    /// Who called.
    pub(super) calling_ae: String,
    /// Reports that the caller had asked for and has not said to have.
    pub(super) reports: VecDeque<Report>,
}

/// Serves an association to its end.
pub(super) fn converse<S: Read + Write + CloseSocket>(
    shared: &Shared,
    mut association: ServerAssociation<S>,
) -> Ended {
    shared.counters.associations_total.fetch_add(1, Ordering::Relaxed);
    let calling_ae = association.peer_ae_title().trim().to_owned();
    tracing::info!(
        calling_ae,
        contexts = contexts(association.presentation_contexts()),
        "associated"
    );
    let mut talk =
        Talk { shared, association: &mut association, calling_ae, reports: VecDeque::new() };
    let end = talk.run();
    let Talk { calling_ae, reports, .. } = talk;
    Ended { end, calling_ae, reports }
}

/// What was proposed, and what became of it.
fn contexts(all: &[PresentationContextNegotiated]) -> String {
    let mut text = String::new();
    for context in all {
        let class = context.abstract_syntax.trim_end_matches('\0');
        let syntax = context.transfer_syntax.trim_end_matches('\0');
        let answer = match context.reason {
            PresentationContextResultReason::Acceptance => format!("accepted as {syntax}"),
            PresentationContextResultReason::TransferSyntaxesNotSupported => {
                "refused: no transfer syntax of it is known".into()
            }
            PresentationContextResultReason::AbstractSyntaxNotSupported => {
                "refused: not served".into()
            }
            _ => "refused".into(),
        };
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}{} {class} {answer}", context.id);
    }
    text
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

/// An association while it lasts.
struct Talk<'a, S> {
    shared: &'a Shared,
    association: &'a mut ServerAssociation<S>,
    calling_ae: String,
    reports: VecDeque<Report>,
}

impl<S: Read + Write + CloseSocket> Talk<'_, S> {
    fn run(&mut self) -> Result<(), String> {
        let mut message = Message::default();
        loop {
            match self.association.receive().map_err(|error| error.to_string())? {
                Pdu::PData { data } => {
                    for value in data {
                        if let Some(whole) = message.add(value)? {
                            self.answer(&whole)?;
                        }
                    }
                }
                Pdu::ReleaseRQ => {
                    let released = self.association.send(&Pdu::ReleaseRP);
                    return released.map_err(|error| error.to_string());
                }
                Pdu::AbortRQ { .. } => return Err(format!("{} aborted it", self.calling_ae)),
                other => {
                    let what = other.short_description();
                    return Err(format!("{} sent {what} within it", self.calling_ae));
                }
            }
        }
    }

    fn answer(&mut self, whole: &Whole) -> Result<(), String> {
        let Whole { context, command, data } = whole;
        match command.field {
            command::ECHO_REQUEST => self.respond(whole, command::SUCCESS),
            command::STORE_REQUEST => {
                let syntax = self.syntax(*context)?;
                let status = store(self.shared, &self.calling_ae, command, &syntax, data);
                self.respond(whole, status)
            }
            command::ACTION_REQUEST => {
                let syntax = self.syntax(*context)?;
                let asked = commitment::read(command, &syntax, data);
                let status = asked.as_ref().err().copied().unwrap_or(command::SUCCESS);
                let responded = self.respond(whole, status);
                let Ok(asked) = asked else { return responded };
                self.report(*context, &syntax, &asked, responded)
            }
            command::EVENT_RESPONSE => {
                // They are answered in their order.
                self.reports.pop_front();
                Ok(())
            }
            _ => self.respond(whole, command::UNRECOGNIZED_OPERATION),
        }
    }

    fn respond(&mut self, whole: &Whole, status: u16) -> Result<(), String> {
        let bytes = command::response(&whole.command, whole.command.field | 0x8000, status);
        command::send(self.association, whole.context, bytes)
    }

    /// Says what is kept for good. The report is kept until the peer says that it has it: where the
    /// peer hangs up before, it is left for a call.
    fn report(
        &mut self,
        context: u8,
        syntax: &str,
        asked: &commitment::Asked,
        responded: Result<(), String>,
    ) -> Result<(), String> {
        let report = commitment::look(&self.shared.library, asked);
        tracing::info!(
            calling_ae = self.calling_ae,
            committed = report.kept(),
            failed = report.failed(),
            "answering a storage commitment"
        );
        let told = responded.and_then(|()| report.tell(self.association, context, syntax));
        self.reports.push_back(report);
        told
    }

    /// The transfer syntax that was agreed on for a context.
    fn syntax(&self, context: u8) -> Result<String, String> {
        let contexts = self.association.presentation_contexts();
        let agreed = contexts.iter().find(|one| {
            one.id == context && one.reason == PresentationContextResultReason::Acceptance
        });
        agreed
            .map(|one| one.transfer_syntax.trim_end_matches('\0').to_owned())
            .ok_or("data came in a presentation context that was not agreed on".into())
    }
}

/// Keeps an instance, and gives the status to answer with.
fn store(shared: &Shared, calling_ae: &str, command: &Command, syntax: &str, data: &[u8]) -> u16 {
    let counters = &shared.counters;
    let Some(file) = part10(command, syntax, data) else { return command::CANNOT_UNDERSTAND };
    let source = Source::Association { calling_ae: calling_ae.to_owned() };
    let (key, clean) = match verdict(Cow::Borrowed(&file), shared.deidentifier.as_ref()) {
        Ok((key, Cow::Owned(clean))) => (key, Some(clean)),
        Ok((key, Cow::Borrowed(_))) => (key, None),
        Err(refusal) => return aside(shared, &file, refusal, &source, calling_ae),
    };
    let series_uid = key.series_uid.clone();
    let kept = shared.group.store(Arrival::new(key, source, clean.unwrap_or(file)));
    match kept {
        Ok(stored) => {
            shared.completion.touch(&series_uid);
            counters.received.fetch_add(1, Ordering::Relaxed);
            if stored == Stored::Conflict {
                counters.conflicts.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    calling_ae,
                    "an instance differs from an earlier one of its UID, or names another patient than its series; both are kept, gantry data series shows where"
                );
            }
            command::SUCCESS
        }
        Err(error) => refused(counters, calling_ae, &error),
    }
}

/// Keeps bytes that are no instance, and gives the status to answer with.
fn aside(shared: &Shared, file: &[u8], refusal: Refusal, source: &Source, calling_ae: &str) -> u16 {
    match set_aside(&shared.library, file, refusal, source) {
        Ok(kept) => {
            shared.counters.quarantined.fetch_add(1, Ordering::Relaxed);
            if let Kept::Quarantined { reason, .. } = kept {
                tracing::warn!(calling_ae, reason, "an instance was set aside");
            }
            command::SUCCESS
        }
        Err(error) => refused(&shared.counters, calling_ae, &error),
    }
}

fn refused(counters: &Counters, calling_ae: &str, error: &LibraryError) -> u16 {
    counters.refused.fetch_add(1, Ordering::Relaxed);
    tracing::error!(calling_ae, "an instance was refused: {error}");
    match error {
        LibraryError::StorageFull { .. } => command::OUT_OF_RESOURCES,
        _ => command::CANNOT_UNDERSTAND,
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
    let mut file = Vec::with_capacity(data.len() + 1024);
    file.extend(PREAMBLE);
    file.extend(b"DICM");
    meta.write(&mut file).ok()?;
    file.extend(data);
    Some(file)
}
