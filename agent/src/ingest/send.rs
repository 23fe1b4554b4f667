//! Sending instances as a scanner does (SCU): C-ECHO and C-STORE.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use dicom_object::FileMetaTable;
use dicom_ul::association::client::{ClientAssociation, ClientAssociationOptions};
use dicom_ul::pdu::{Pdu, PresentationContextResultReason};

use super::command;
use crate::error::AgentError;

const VERIFICATION: &str = "1.2.840.10008.1.1";
const IMPLICIT_LE: &str = "1.2.840.10008.1.2";
const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";
const PDU_BYTES_MAX: u32 = 128 * 1024;
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// Presentation contexts of one association (PS3.8: odd numbers up to 255).
const CONTEXTS_MAX: usize = 127;
/// What is told for a file that cannot be sent: it names no class, or the peer takes none such.
pub const NOT_SENT: u16 = 0xFFFF;

/// A file taken apart: what it is, and the bytes of its data set as they stand.
struct Parts<'a> {
    sop_class_uid: String,
    sop_instance_uid: String,
    transfer_syntax_uid: String,
    data: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Nothing where the file has no sound meta group: it could not be sent unchanged. The data
    /// set is not read, so a damaged one can be sent.
    fn of(file: &'a [u8]) -> Option<Self> {
        let meta = FileMetaTable::from_reader(file.get(128..)?).ok()?;
        // Preamble, magic, and the group length element, which does not count itself.
        let start = 132 + 12 + meta.information_group_length as usize;
        let plain =
            |uid: &str| uid.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned();
        Some(Self {
            sop_class_uid: plain(meta.media_storage_sop_class_uid()),
            sop_instance_uid: plain(meta.media_storage_sop_instance_uid()),
            transfer_syntax_uid: plain(meta.transfer_syntax()),
            data: file.get(start..)?,
        })
    }
}

pub(super) type Stream = ClientAssociation<std::net::TcpStream>;

/// An association in which instances are sent, one after the other.
pub struct Sender {
    association: Stream,
    peer: SocketAddr,
    messages: u16,
}

impl Sender {
    /// Opens an association for instances of these SOP classes and transfer syntaxes.
    ///
    /// # Errors
    /// Where the peer does not answer or refuses the association.
    pub fn open(
        address: SocketAddr,
        calling_ae: &str,
        called_ae: &str,
        contexts: &[(&str, &str)],
    ) -> Result<Self, AgentError> {
        let association = open(address, calling_ae, called_ae, contexts)?;
        Ok(Self { association, peer: address, messages: 0 })
    }

    /// Sends a file, its data set as it stands: the peer's status, 0 for success, or [`NOT_SENT`].
    ///
    /// # Errors
    /// Where the peer breaks off.
    pub fn store(&mut self, file: &[u8]) -> Result<u16, AgentError> {
        self.store_parts(Parts::of(file).as_ref())
    }

    fn store_parts(&mut self, part: Option<&Parts<'_>>) -> Result<u16, AgentError> {
        let accepted = part.and_then(|part| Some((part, context(&self.association, part)?)));
        let Some((part, context)) = accepted else { return Ok(NOT_SENT) };
        self.messages = self.messages.wrapping_add(1);
        store(&mut self.association, context, self.messages, part)
            .map_err(|reason| AgentError::Send { peer: self.peer, reason })
    }

    /// Ends the association in order.
    ///
    /// # Errors
    /// Where the peer does not answer.
    pub fn release(self) -> Result<(), AgentError> {
        let peer = self.peer;
        let fail = |reason: String| AgentError::Send { peer, reason };
        self.association.release().map_err(|error| fail(error.to_string()))
    }
}

/// Sends files over one association, each data set as it stands in its file. `on_each` is told the
/// status of each in turn: 0 for success, [`NOT_SENT`] for one that could not be sent.
///
/// # Errors
/// Where the peer does not answer, refuses the association or breaks off.
pub fn send(
    address: SocketAddr,
    calling_ae: &str,
    called_ae: &str,
    files: &[Vec<u8>],
    on_each: &mut dyn FnMut(u16),
) -> Result<(), AgentError> {
    let parts: Vec<Option<Parts<'_>>> = files.iter().map(|file| Parts::of(file)).collect();
    let mut contexts: BTreeSet<(&str, &str)> = BTreeSet::new();
    for part in parts.iter().flatten() {
        contexts.insert((part.sop_class_uid.as_str(), part.transfer_syntax_uid.as_str()));
    }
    let contexts: Vec<(&str, &str)> = contexts.into_iter().take(CONTEXTS_MAX).collect();
    let mut sender = Sender::open(address, calling_ae, called_ae, &contexts)?;
    for part in &parts {
        on_each(sender.store_parts(part.as_ref())?);
    }
    sender.release()
}

fn open(
    address: SocketAddr,
    calling_ae: &str,
    called_ae: &str,
    contexts: &[(&str, &str)],
) -> Result<Stream, AgentError> {
    let mut options =
        options(calling_ae, called_ae).with_presentation_context(VERIFICATION, vec![IMPLICIT_LE]);
    for (class, syntax) in contexts {
        options = options.with_presentation_context(class.to_string(), vec![syntax.to_string()]);
    }
    establish(options, address, calling_ae, called_ae)
}

/// Opens an association in which we are the provider of a service, though it is we who call.
pub(super) fn open_as_provider(
    address: SocketAddr,
    calling_ae: &str,
    called_ae: &str,
    class: &'static str,
) -> Result<Stream, AgentError> {
    let options = options(calling_ae, called_ae)
        .with_presentation_context(class, vec![EXPLICIT_LE, IMPLICIT_LE])
        .with_role_selection(class, false, true);
    establish(options, address, calling_ae, called_ae)
}

fn options(calling_ae: &str, called_ae: &str) -> ClientAssociationOptions<'static> {
    ClientAssociationOptions::new()
        .calling_ae_title(calling_ae.to_owned())
        .called_ae_title(called_ae.to_owned())
        .max_pdu_length(PDU_BYTES_MAX)
        .read_timeout(SILENCE_MAX)
        .write_timeout(SILENCE_MAX)
        .connection_timeout(SILENCE_MAX)
}

fn establish(
    options: ClientAssociationOptions<'static>,
    address: SocketAddr,
    calling_ae: &str,
    called_ae: &str,
) -> Result<Stream, AgentError> {
    let mut association = options.establish(address).map_err(|error| AgentError::Send {
        peer: address,
        reason: format!("{error}; check that a receiver listens there and takes the AE titles {calling_ae} and {called_ae}"),
    })?;
    // Without this each message waits for the peer's delayed acknowledgement.
    association
        .inner_stream()
        .set_nodelay(true)
        .map_err(|error| AgentError::Send { peer: address, reason: error.to_string() })?;
    Ok(association)
}

/// The context in which the peer takes such an instance.
fn context(association: &Stream, part: &Parts<'_>) -> Option<u8> {
    let contexts = association.presentation_contexts();
    let fits = contexts.iter().find(|context| {
        context.reason == PresentationContextResultReason::Acceptance
            && context.abstract_syntax.trim_end_matches('\0') == part.sop_class_uid
            && context.transfer_syntax.trim_end_matches('\0') == part.transfer_syntax_uid
    });
    fits.map(|context| context.id)
}

fn store(
    association: &mut Stream,
    context: u8,
    message_id: u16,
    part: &Parts<'_>,
) -> Result<u16, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let request = command::store(message_id, &part.sop_class_uid, &part.sop_instance_uid);
    command::send(association, context, request)?;
    command::send_data(association, context, part.data)?;
    match association.receive().map_err(|error| words(&error))? {
        Pdu::PData { data } => {
            let bytes: Vec<u8> = data.into_iter().flat_map(|value| value.data).collect();
            let answer = command::read(&bytes).ok_or("the peer's answer cannot be read")?;
            Ok(answer.status)
        }
        other => Err(format!("the peer answered with {}", other.short_description())),
    }
}
