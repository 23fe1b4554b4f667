//! DIMSE command sets (PS3.7 9.3): always Implicit VR Little Endian.

use std::io::{Read, Write};

use dicom_core::{DataElement, PrimitiveValue, Tag, VR, dicom_value};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::entries::IMPLICIT_VR_LITTLE_ENDIAN;
#[cfg(test)]
use dicom_ul::association::ClientAssociation;
use dicom_ul::association::{CloseSocket, ServerAssociation, SyncAssociation};
use dicom_ul::pdu::{PDataValue, PDataValueType, Pdu};
use gantry_imaging::dicom::data_set;

/// C-STORE-RQ.
pub(super) const STORE_REQUEST: u16 = 0x0001;
/// C-STORE-RSP.
const STORE_RESPONSE: u16 = 0x8001;
/// C-ECHO-RQ.
pub(super) const ECHO_REQUEST: u16 = 0x0030;
/// N-EVENT-REPORT-RQ.
const EVENT_REQUEST: u16 = 0x0100;
/// N-EVENT-REPORT-RSP.
pub(super) const EVENT_RESPONSE: u16 = 0x8100;
/// N-ACTION-RQ.
pub(super) const ACTION_REQUEST: u16 = 0x0130;
/// N-ACTION-RSP.
const ACTION_RESPONSE: u16 = 0x8130;
/// No data set follows.
const NO_DATA_SET: u16 = 0x0101;

/// Success.
pub(super) const SUCCESS: u16 = 0x0000;
/// Refused: out of resources.
pub(super) const OUT_OF_RESOURCES: u16 = 0xA700;
/// Error: cannot understand.
pub(super) const CANNOT_UNDERSTAND: u16 = 0xC000;
/// No such SOP instance.
pub(super) const NO_SUCH_SOP_INSTANCE: u16 = 0x0112;
/// Invalid argument value.
pub(super) const INVALID_ARGUMENT: u16 = 0x0115;
/// No such action.
pub(super) const NO_SUCH_ACTION: u16 = 0x0123;
/// SOP class or operation not supported.
pub(super) const UNRECOGNIZED_OPERATION: u16 = 0x0211;

/// A command that was read.
pub(super) struct Command {
    pub(super) field: u16,
    pub(super) message_id: u16,
    pub(super) status: u16,
    pub(super) sop_class_uid: String,
    pub(super) sop_instance_uid: String,
    pub(super) action: u16,
    #[cfg(test)]
    pub(super) event: u16,
    pub(super) has_data: bool,
}

/// Reads a command set.
pub(super) fn read(bytes: &[u8]) -> Option<Command> {
    let data = data_set(bytes, IMPLICIT_VR_LITTLE_ENDIAN.uid()).ok()?;
    let number = |tag: Tag| data.get(tag).and_then(|element| element.to_int::<u16>().ok());
    let text = |tag: Tag| {
        let text = data
            .get(tag)
            .and_then(|element| element.to_str().ok().map(std::borrow::Cow::into_owned));
        text.unwrap_or_default().trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned()
    };
    let either = |affected: Tag, requested: Tag| match text(affected) {
        empty if empty.is_empty() => text(requested),
        found => found,
    };
    Some(Command {
        field: number(tags::COMMAND_FIELD)?,
        message_id: number(tags::MESSAGE_ID)
            .or_else(|| number(tags::MESSAGE_ID_BEING_RESPONDED_TO))?,
        status: number(tags::STATUS).unwrap_or(0),
        sop_class_uid: either(tags::AFFECTED_SOP_CLASS_UID, tags::REQUESTED_SOP_CLASS_UID),
        sop_instance_uid: either(tags::AFFECTED_SOP_INSTANCE_UID, tags::REQUESTED_SOP_INSTANCE_UID),
        action: number(tags::ACTION_TYPE_ID).unwrap_or(0),
        #[cfg(test)]
        event: number(tags::EVENT_TYPE_ID).unwrap_or(0),
        has_data: number(tags::COMMAND_DATA_SET_TYPE) != Some(NO_DATA_SET),
    })
}

/// What messages are sent over.
pub(super) trait Line {
    /// Sends one PDU.
    fn put(&mut self, pdu: &Pdu) -> Result<(), String>;

    /// Sends a data set, in as many PDUs as the peer's need.
    fn put_data(&mut self, context: u8, bytes: &[u8]) -> Result<(), String>;
}

macro_rules! line {
    ($association:ident) => {
        impl<S: Read + Write + CloseSocket> Line for $association<S> {
            fn put(&mut self, pdu: &Pdu) -> Result<(), String> {
                SyncAssociation::send(self, pdu).map_err(|error| error.to_string())
            }

            fn put_data(&mut self, context: u8, bytes: &[u8]) -> Result<(), String> {
                let mut writer = SyncAssociation::send_pdata(self, context);
                writer.write_all(bytes).map_err(|error| error.to_string())?;
                writer.finish().map_err(|error| error.to_string())
            }
        }
    };
}
line!(ServerAssociation);
// Tests call as others do.
#[cfg(test)]
line!(ClientAssociation);

/// Sends a command.
pub(super) fn send(association: &mut impl Line, context: u8, bytes: Vec<u8>) -> Result<(), String> {
    let value = PDataValue {
        presentation_context_id: context,
        value_type: PDataValueType::Command,
        is_last: true,
        data: bytes,
    };
    association.put(&Pdu::PData { data: vec![value] })
}

/// Sends a data set.
pub(super) fn send_data(
    association: &mut impl Line,
    context: u8,
    bytes: &[u8],
) -> Result<(), String> {
    association.put_data(context, bytes)
}

/// The answer to a command.
pub(super) fn response(to: &Command, field: u16, status: u16) -> Vec<u8> {
    let mut elements = vec![
        text(tags::AFFECTED_SOP_CLASS_UID, &to.sop_class_uid),
        short(tags::COMMAND_FIELD, field),
        short(tags::MESSAGE_ID_BEING_RESPONDED_TO, to.message_id),
        short(tags::COMMAND_DATA_SET_TYPE, NO_DATA_SET),
        short(tags::STATUS, status),
    ];
    if matches!(field, STORE_RESPONSE | ACTION_RESPONSE) {
        elements.push(text(tags::AFFECTED_SOP_INSTANCE_UID, &to.sop_instance_uid));
    }
    write(elements)
}

/// A request to store an instance.
pub(super) fn store(message_id: u16, class: &str, instance: &str) -> Vec<u8> {
    write(vec![
        text(tags::AFFECTED_SOP_CLASS_UID, class),
        short(tags::COMMAND_FIELD, STORE_REQUEST),
        short(tags::MESSAGE_ID, message_id),
        short(tags::PRIORITY, 0),
        short(tags::COMMAND_DATA_SET_TYPE, 0),
        text(tags::AFFECTED_SOP_INSTANCE_UID, instance),
    ])
}

/// A report of an event; its data set follows.
pub(super) fn event(message_id: u16, class: &str, instance: &str, event: u16) -> Vec<u8> {
    write(vec![
        text(tags::AFFECTED_SOP_CLASS_UID, class),
        short(tags::COMMAND_FIELD, EVENT_REQUEST),
        short(tags::MESSAGE_ID, message_id),
        short(tags::COMMAND_DATA_SET_TYPE, 0),
        text(tags::AFFECTED_SOP_INSTANCE_UID, instance),
        short(tags::EVENT_TYPE_ID, event),
    ])
}

/// A request for an action, as peers send it.
#[cfg(test)]
pub(super) fn action(message_id: u16, class: &str, instance: &str, action: u16) -> Vec<u8> {
    write(vec![
        text(tags::REQUESTED_SOP_CLASS_UID, class),
        short(tags::COMMAND_FIELD, ACTION_REQUEST),
        short(tags::MESSAGE_ID, message_id),
        short(tags::COMMAND_DATA_SET_TYPE, 0),
        text(tags::REQUESTED_SOP_INSTANCE_UID, instance),
        short(tags::ACTION_TYPE_ID, action),
    ])
}

type Element = DataElement<InMemDicomObject>;

fn short(tag: Tag, value: u16) -> Element {
    DataElement::new(tag, VR::US, dicom_value!(U16, value))
}

fn text(tag: Tag, value: &str) -> Element {
    DataElement::new(tag, VR::UI, PrimitiveValue::from(value))
}

fn write(elements: Vec<Element>) -> Vec<u8> {
    let command = InMemDicomObject::command_from_element_iter(elements);
    let mut bytes = Vec::new();
    // Writing plain elements to memory does not fail; an empty command would only end the
    // association.
    let _ = command.write_dataset_with_ts(&mut bytes, &IMPLICIT_VR_LITTLE_ENDIAN.erased());
    bytes
}
