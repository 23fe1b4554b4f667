//! DIMSE command sets (PS3.7 9.3): always Implicit VR Little Endian.

use dicom_core::{DataElement, PrimitiveValue, Tag, VR, dicom_value};
use dicom_dictionary_std::tags;
use dicom_encoding::transfer_syntax::TransferSyntaxIndex;
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use dicom_transfer_syntax_registry::entries::IMPLICIT_VR_LITTLE_ENDIAN;

/// C-STORE-RQ.
pub(super) const STORE_REQUEST: u16 = 0x0001;
/// C-STORE-RSP.
pub(super) const STORE_RESPONSE: u16 = 0x8001;
/// C-ECHO-RQ.
pub(super) const ECHO_REQUEST: u16 = 0x0030;
/// C-ECHO-RSP.
pub(super) const ECHO_RESPONSE: u16 = 0x8030;
/// No data set follows.
const NO_DATA_SET: u16 = 0x0101;

/// Success.
pub(super) const SUCCESS: u16 = 0x0000;
/// Refused: out of resources.
pub(super) const OUT_OF_RESOURCES: u16 = 0xA700;
/// Error: cannot understand.
pub(super) const CANNOT_UNDERSTAND: u16 = 0xC000;
/// SOP class or operation not supported.
pub(super) const UNRECOGNIZED_OPERATION: u16 = 0x0211;

/// A command that was read.
pub(super) struct Command {
    pub(super) field: u16,
    pub(super) message_id: u16,
    pub(super) status: u16,
    pub(super) sop_class_uid: String,
    pub(super) sop_instance_uid: String,
    pub(super) has_data: bool,
}

/// Reads a command set.
pub(super) fn read(bytes: &[u8]) -> Option<Command> {
    let data = InMemDicomObject::read_dataset_with_ts(
        bytes,
        TransferSyntaxRegistry.get(IMPLICIT_VR_LITTLE_ENDIAN.uid())?,
    )
    .ok()?;
    let number = |tag: Tag| data.get(tag).and_then(|element| element.to_int::<u16>().ok());
    let text = |tag: Tag| {
        let text = data
            .get(tag)
            .and_then(|element| element.to_str().ok().map(std::borrow::Cow::into_owned));
        text.unwrap_or_default().trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned()
    };
    Some(Command {
        field: number(tags::COMMAND_FIELD)?,
        message_id: number(tags::MESSAGE_ID)
            .or_else(|| number(tags::MESSAGE_ID_BEING_RESPONDED_TO))?,
        status: number(tags::STATUS).unwrap_or(0),
        sop_class_uid: text(tags::AFFECTED_SOP_CLASS_UID),
        sop_instance_uid: text(tags::AFFECTED_SOP_INSTANCE_UID),
        has_data: number(tags::COMMAND_DATA_SET_TYPE) != Some(NO_DATA_SET),
    })
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
    if field == STORE_RESPONSE {
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
