//! An association that we open, over a socket that is there already.
//!
//! dicom-ul's client connects by itself, so that it cannot be given a socket behind which there is TLS; and
//! with its own feature for TLS its server, as of 0.10.1, turns in a circle for ever when a caller hangs up
//! before its first message. So what is proposed and what becomes of it is ours (PS3.8 7.1 and 9.3), and
//! the messages are dicom-ul's.

use std::io::{Read, Write};
use std::net::TcpStream;

use dicom_ul::pdu::{
    AssociationAC, AssociationRQ, Pdu, PresentationContextNegotiated, PresentationContextProposed,
    PresentationContextResultReason, RequestorRoles, UserVariableItem,
};
use dicom_ul::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, read_pdu, write_pdu};

use super::association::PDU_BYTES_MAX;
use super::command::Line;
use super::send::in_full;

/// The DICOM application context (PS3.7 A.2.1).
const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";
/// Bytes of a PDU before what its length counts.
const HEADER_BYTES: usize = 6;
/// Bytes of a P-DATA PDU that are counted and are no data: a length, a context, and what it is.
const DATA_HEADER_BYTES: usize = 6;
/// The smallest PDU that any peer asks for.
const PDU_BYTES_MIN: usize = 64;

/// What is proposed to a peer.
pub(super) struct Proposal<'a> {
    pub(super) calling_ae: &'a str,
    pub(super) called_ae: &'a str,
    /// SOP classes, each with its transfer syntaxes.
    pub(super) contexts: Vec<(&'a str, Vec<&'a str>)>,
    /// The SOP class of which we are the provider, though it is we who call.
    pub(super) provider_of: Option<&'a str>,
}

/// An association.
pub(super) struct Client {
    socket: TcpStream,
    contexts: Vec<PresentationContextNegotiated>,
    /// Bytes of data that the peer takes at once.
    data_bytes_max: usize,
}

impl Client {
    /// Opens an association.
    pub(super) fn open(socket: TcpStream, proposal: &Proposal<'_>) -> Result<Self, String> {
        let proposed = proposal.proposed();
        let mut client = Self { socket, contexts: Vec::new(), data_bytes_max: 0 };
        client.put(&proposal.request(proposed.clone()))?;
        match client.receive()? {
            Pdu::AssociationAC(accepted) => client.take(accepted, &proposed)?,
            Pdu::AssociationRJ(refused) => {
                return Err(format!("the peer refuses the association: {}", refused.source));
            }
            other => return Err(format!("the peer answered with {}", other.short_description())),
        }
        Ok(client)
    }

    /// Notes what a peer has accepted.
    fn take(
        &mut self,
        accepted: AssociationAC,
        proposed: &[PresentationContextProposed],
    ) -> Result<(), String> {
        let length = accepted.user_variables.iter().find_map(|item| match item {
            UserVariableItem::MaxLength(length) => Some(*length as usize),
            _ => None,
        });
        // 0 is no limit.
        let length = length.filter(|&length| length > 0).unwrap_or(usize::MAX);
        let length = length.min(PDU_BYTES_MAX as usize);
        if length < PDU_BYTES_MIN {
            return Err(format!("the peer takes messages of {length} bytes only"));
        }
        self.data_bytes_max = length - DATA_HEADER_BYTES;
        for one in accepted.presentation_contexts {
            let Some(own) = proposed.iter().find(|own| own.id == one.id) else { continue };
            if one.reason == PresentationContextResultReason::Acceptance {
                self.contexts.push(PresentationContextNegotiated {
                    id: one.id,
                    reason: one.reason,
                    transfer_syntax: one.transfer_syntax,
                    abstract_syntax: own.abstract_syntax.clone(),
                });
            }
        }
        if self.contexts.is_empty() {
            return Err("the peer accepts nothing of what was proposed".into());
        }
        Ok(())
    }

    /// What the peer has accepted.
    pub(super) fn contexts(&self) -> &[PresentationContextNegotiated] {
        &self.contexts
    }

    pub(super) fn receive(&mut self) -> Result<Pdu, String> {
        let mut bytes = vec![0; HEADER_BYTES];
        let hung_up = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => "the peer hung up".to_owned(),
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
                "the peer did not answer in time".to_owned()
            }
            _ => format!("reading the peer's answer failed: {error}"),
        };
        self.socket.read_exact(&mut bytes).map_err(hung_up)?;
        let length = u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]);
        if length > PDU_BYTES_MAX {
            return Err(format!("the peer answered with {length} bytes; it speaks no DICOM"));
        }
        bytes.resize(HEADER_BYTES + length as usize, 0);
        self.socket.read_exact(&mut bytes[HEADER_BYTES..]).map_err(hung_up)?;
        let read =
            read_pdu(bytes.as_slice(), PDU_BYTES_MAX, false).map_err(|error| in_full(&error))?;
        read.ok_or_else(|| "the peer's answer cannot be read".to_owned())
    }

    /// Ends the association in order.
    pub(super) fn release(mut self) -> Result<(), String> {
        self.put(&Pdu::ReleaseRQ)?;
        match self.receive()? {
            Pdu::ReleaseRP => Ok(()),
            other => Err(format!("the peer answered with {}", other.short_description())),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.socket.write_all(bytes).map_err(|error| format!("the peer takes no more: {error}"))
    }
}

impl Line for Client {
    fn put(&mut self, pdu: &Pdu) -> Result<(), String> {
        let mut bytes = Vec::new();
        write_pdu(&mut bytes, pdu).map_err(|error| in_full(&error))?;
        self.write(&bytes)
    }

    fn put_data(&mut self, context: u8, bytes: &[u8]) -> Result<(), String> {
        let mut pdu = Vec::with_capacity(self.data_bytes_max.min(bytes.len()) + 12);
        let mut rest = bytes;
        loop {
            let (part, after) = rest.split_at(rest.len().min(self.data_bytes_max));
            rest = after;
            pdu.clear();
            pdu.extend([0x04, 0]);
            pdu.extend(((part.len() + DATA_HEADER_BYTES) as u32).to_be_bytes());
            pdu.extend((part.len() as u32 + 2).to_be_bytes());
            // Data, and whether it is the last of it (PS3.8 E.2).
            pdu.extend([context, if rest.is_empty() { 2 } else { 0 }]);
            pdu.extend(part);
            self.write(&pdu)?;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }
}

impl Proposal<'_> {
    fn proposed(&self) -> Vec<PresentationContextProposed> {
        let context = |(id, (class, syntaxes)): (u8, &(&str, Vec<&str>))| {
            let transfer_syntaxes = syntaxes.iter().map(ToString::to_string).collect();
            PresentationContextProposed {
                id,
                abstract_syntax: class.to_string(),
                transfer_syntaxes,
            }
        };
        (1..=u8::MAX).step_by(2).zip(&self.contexts).map(context).collect()
    }

    fn request(&self, presentation_contexts: Vec<PresentationContextProposed>) -> Pdu {
        let mut user_variables = vec![
            UserVariableItem::MaxLength(PDU_BYTES_MAX),
            UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.to_owned()),
            UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION_NAME.to_owned()),
        ];
        user_variables.extend(self.provider_of.map(|class| {
            let roles = RequestorRoles { scu: false, scp: true };
            UserVariableItem::ScuScpRoleSelectionSubItem(class.to_owned(), roles)
        }));
        Pdu::AssociationRQ(AssociationRQ {
            protocol_version: 1,
            calling_ae_title: self.calling_ae.to_owned(),
            called_ae_title: self.called_ae.to_owned(),
            application_context_name: APPLICATION_CONTEXT.to_owned(),
            presentation_contexts,
            user_variables,
        })
    }
}
