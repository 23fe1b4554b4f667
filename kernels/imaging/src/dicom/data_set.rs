//! A file taken apart for the network: what it is, and the bytes of its data set as they stand.

use dicom_dictionary_std::tags;

use super::read;
use super::walk;

/// The parts of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// Its SOP class.
    pub sop_class_uid: String,
    /// Its SOP instance.
    pub sop_instance_uid: String,
    /// How its data set is encoded.
    pub transfer_syntax_uid: String,
    /// The data set.
    pub data: &'a [u8],
}

/// Takes a file apart. Nothing where it has no meta group that names all three: such a file cannot
/// be sent without being changed. The data set itself is not read, so a damaged one can be sent.
#[must_use]
pub fn parts(bytes: &[u8]) -> Option<Parts<'_>> {
    if bytes.get(128..132) != Some(b"DICM") {
        return None;
    }
    let meta = walk::meta(bytes, 132).ok()?;
    let data = bytes.get(meta.end..)?;
    let class = read::meta_text(bytes, 132, meta.end, tags::MEDIA_STORAGE_SOP_CLASS_UID)?;
    let instance = read::meta_text(bytes, 132, meta.end, tags::MEDIA_STORAGE_SOP_INSTANCE_UID)?;
    Some(Parts {
        sop_class_uid: class,
        sop_instance_uid: instance,
        transfer_syntax_uid: meta.transfer_syntax?,
        data,
    })
}
