//! Sending instances as a scanner does (SCU): C-ECHO and C-STORE, in plain or with TLS.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Display;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use dicom_object::FileMetaTable;
use dicom_ul::pdu::{Pdu, PresentationContextResultReason};
use gantry_link::{Ended, LinkError, Outward};

use super::client::{Client, Proposal};
use super::command;
use crate::error::AgentError;

const VERIFICATION: &str = "1.2.840.10008.1.1";
const IMPLICIT_LE: &str = "1.2.840.10008.1.2";
const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";
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

/// Who is called, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it listens.
    pub address: SocketAddr,
    /// Our AE title.
    pub calling_ae: String,
    /// Its AE title.
    pub called_ae: String,
    /// Whether TLS is spoken with it; plain where absent.
    pub tls: Option<Tls>,
}

/// TLS with who is called. The files (PEM) are read for each call, so that one that was renewed counts
/// from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The authority whose certificate the peer must show.
    pub authority: PathBuf,
    /// Our certificate and its key, for peers that ask for one.
    pub own: Option<(PathBuf, PathBuf)>,
    /// The name or address that the peer's certificate must bear.
    pub name: String,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Where one cannot be read, others may read the key, or they do not belong together.
    pub fn load(&self) -> Result<Outward, LinkError> {
        let own =
            self.own.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        Outward::new(&self.authority, own)
    }
}

impl Peer {
    /// Returns a peer that is spoken with in plain.
    #[must_use]
    pub fn plain(address: SocketAddr, calling_ae: &str, called_ae: &str) -> Self {
        let (calling_ae, called_ae) = (calling_ae.to_owned(), called_ae.to_owned());
        Self { address, calling_ae, called_ae, tls: None }
    }

    fn failure(&self, reason: String) -> AgentError {
        AgentError::Send { peer: self.address, reason }
    }

    fn no_association(&self, words: &dyn Display) -> AgentError {
        let (calling, called) = (&self.calling_ae, &self.called_ae);
        let advice = match &self.tls {
            None => String::new(),
            Some(tls) => format!(
                "; with TLS its certificate must be of the authority in {} and bear the name {}, and it may ask for ours",
                tls.authority.display(),
                tls.name
            ),
        };
        self.failure(format!(
            "{words}; check that a receiver listens there and takes the AE titles {calling} and {called}{advice}"
        ))
    }
}

/// An association in which instances are sent, one after the other.
pub struct Sender {
    association: Client,
    peer: Peer,
    ended: Ended,
    messages: u16,
}

impl Sender {
    /// Opens an association for instances of these SOP classes and transfer syntaxes.
    ///
    /// # Errors
    /// Where the peer does not answer or refuses the association.
    pub fn open(peer: &Peer, contexts: &[(&str, &str)]) -> Result<Self, AgentError> {
        let mut all = vec![(VERIFICATION, vec![IMPLICIT_LE])];
        all.extend(contexts.iter().map(|(class, syntax)| (*class, vec![*syntax])));
        let (association, ended) = open(peer, all, None)?;
        Ok(Self { association, peer: peer.clone(), ended, messages: 0 })
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
            .map_err(|reason| self.peer.failure(with_reason(reason, &self.ended)))
    }

    /// Ends the association in order.
    ///
    /// # Errors
    /// Where the peer does not answer.
    pub fn release(self) -> Result<(), AgentError> {
        let Self { association, peer, ended, .. } = self;
        association.release().map_err(|reason| peer.failure(with_reason(reason, &ended)))
    }
}

/// Sends files over one association, each data set as it stands in its file. `on_each` is told the
/// status of each in turn: 0 for success, [`NOT_SENT`] for one that could not be sent.
///
/// # Errors
/// Where the peer does not answer, refuses the association or breaks off.
pub fn send(
    peer: &Peer,
    files: &[Vec<u8>],
    on_each: &mut dyn FnMut(u16),
) -> Result<(), AgentError> {
    let parts: Vec<Option<Parts<'_>>> = files.iter().map(|file| Parts::of(file)).collect();
    let mut contexts: BTreeSet<(&str, &str)> = BTreeSet::new();
    for part in parts.iter().flatten() {
        contexts.insert((part.sop_class_uid.as_str(), part.transfer_syntax_uid.as_str()));
    }
    let contexts: Vec<(&str, &str)> = contexts.into_iter().take(CONTEXTS_MAX).collect();
    let mut sender = Sender::open(peer, &contexts)?;
    for part in &parts {
        on_each(sender.store_parts(part.as_ref())?);
    }
    sender.release()
}

/// Opens an association in which we are the provider of a service, though it is we who call.
pub(super) fn open_as_provider(peer: &Peer, class: &str) -> Result<(Client, Ended), AgentError> {
    open(peer, vec![(class, vec![EXPLICIT_LE, IMPLICIT_LE])], Some(class))
}

fn open(
    peer: &Peer,
    contexts: Vec<(&str, Vec<&str>)>,
    provider_of: Option<&str>,
) -> Result<(Client, Ended), AgentError> {
    let (socket, ended) = connect(peer)?;
    let (calling_ae, called_ae) = (peer.calling_ae.as_str(), peer.called_ae.as_str());
    let proposal = Proposal { calling_ae, called_ae, contexts, provider_of };
    let client = Client::open(socket, &proposal)
        .map_err(|reason| peer.no_association(&with_reason(reason, &ended)))?;
    Ok((client, ended))
}

/// Connects to a peer; with TLS, the socket is the plain end of it.
fn connect(peer: &Peer) -> Result<(TcpStream, Ended), AgentError> {
    let outward = peer.tls.as_ref().map(Tls::load).transpose();
    let outward = outward.map_err(|error| peer.failure(error.to_string()))?;
    let failed = |error: std::io::Error| peer.no_association(&error);
    let mut socket = TcpStream::connect_timeout(&peer.address, SILENCE_MAX).map_err(failed)?;
    // Without this each message waits for the peer's delayed acknowledgement.
    socket.set_nodelay(true).map_err(failed)?;
    let mut ended = Ended::default();
    if let (Some(outward), Some(tls)) = (outward, &peer.tls) {
        (socket, ended) = outward
            .agree(socket, &tls.name, SILENCE_MAX)
            .map_err(|refused| peer.no_association(&format!("TLS was not agreed on: {refused}")))?;
    }
    socket.set_read_timeout(Some(SILENCE_MAX)).map_err(failed)?;
    socket.set_write_timeout(Some(SILENCE_MAX)).map_err(failed)?;
    Ok((socket, ended))
}

/// Words with what TLS says of the end, where it says something.
pub(super) fn with_reason(words: String, ended: &Ended) -> String {
    match ended.reason() {
        None => words,
        Some(reason) => format!("{words}: {reason}"),
    }
}

/// An error with what led to it, which dicom-ul keeps out of its words.
pub(super) fn in_full(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !words.ends_with(&more) {
            words = format!("{words}: {more}");
        }
        next = source.source();
    }
    words
}

/// The context in which the peer takes such an instance.
fn context(association: &Client, part: &Parts<'_>) -> Option<u8> {
    let fits = association.contexts().iter().find(|context| {
        context.reason == PresentationContextResultReason::Acceptance
            && context.abstract_syntax.trim_end_matches('\0') == part.sop_class_uid
            && context.transfer_syntax.trim_end_matches('\0') == part.transfer_syntax_uid
    });
    fits.map(|context| context.id)
}

fn store(
    association: &mut Client,
    context: u8,
    message_id: u16,
    part: &Parts<'_>,
) -> Result<u16, String> {
    let request = command::store(message_id, &part.sop_class_uid, &part.sop_instance_uid);
    command::send(association, context, request)?;
    command::send_data(association, context, part.data)?;
    match association.receive()? {
        Pdu::PData { data } => {
            let bytes: Vec<u8> = data.into_iter().flat_map(|value| value.data).collect();
            let answer = command::read(&bytes).ok_or("the peer's answer cannot be read")?;
            Ok(answer.status)
        }
        other => Err(format!("the peer answered with {}", other.short_description())),
    }
}
