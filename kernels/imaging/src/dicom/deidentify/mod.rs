//! De-identification by the Basic Application Level Confidentiality Profile (PS3.15 annex E), with
//! the options that a machine can carry out.
//!
//! Every element of the data set and of all sequences within it is looked at: what the table names
//! is removed, emptied, replaced or mapped; private elements and overlays go unless they are listed;
//! names and dates that no table knows are emptied, since a name in a standard element of next year
//! is still a name. A patient keeps one pseudonym, UIDs keep their references and, with option
//! 113107, dates their distances, all from one key that never leaves its owner. What cannot be made
//! safe by a machine is refused with its reason: texts within pixels, documents, structured reports.
//!
//! Left out: options that ask for judgement of free text or pixels (113101 to 113105).

mod table;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;

use self::table::{Action, action};
use self::values::{dummy, shifted, temporal};
use super::read::{self, File, items, text, whole_text};
use super::refusal::{Reason, Refusal};
use super::write::{file, string, uid};

/// Secondary Capture, in its five classes.
const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
/// Structured reports and encapsulated documents begin so.
const DOCUMENTS: [&str; 2] = ["1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.104."];
/// UIDs of the standard, which name no one.
const STANDARD: &str = "1.2.840.10008.";
/// Modalities whose images usually have the patient's name within their pixels.
const BURNED_IN: [&str; 5] = ["US", "ES", "XC", "OT", "GM"];

/// An option of the profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Retain {
    /// 113106: dates and times as they are.
    FullDates,
    /// 113107: dates moved by a number of days that is the patient's own.
    ModifiedDates,
    /// 113108: sex, age, size, weight.
    PatientCharacteristics,
    /// 113109: which device it was.
    DeviceIdentity,
    /// 113110: UIDs as they are.
    Uids,
    /// 113111: private elements that are listed.
    SafePrivate,
    /// 113112: which institution it was.
    InstitutionIdentity,
}

impl Retain {
    const ALL: [(Self, u32, &'static str); 7] = [
        (Self::FullDates, 113_106, "Retain Longitudinal Temporal Information Full Dates Option"),
        (
            Self::ModifiedDates,
            113_107,
            "Retain Longitudinal Temporal Information Modified Dates Option",
        ),
        (Self::PatientCharacteristics, 113_108, "Retain Patient Characteristics Option"),
        (Self::DeviceIdentity, 113_109, "Retain Device Identity Option"),
        (Self::Uids, 113_110, "Retain UIDs Option"),
        (Self::SafePrivate, 113_111, "Retain Safe Private Option"),
        (Self::InstitutionIdentity, 113_112, "Retain Institution Identity Option"),
    ];
}

/// A private element that is known to be safe: its group, who reserved the block, its place within.
type Private = (u16, String, u8);

/// What is done to a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    options: BTreeSet<Retain>,
    private: BTreeSet<Private>,
}

impl Profile {
    /// The basic profile with options by their codes, and private elements that stay, each as
    /// `GGGG,CREATOR,EE` in hexadecimal.
    ///
    /// # Errors
    /// Where a code is none of those that are carried out, two contradict one another, or an
    /// element is not written so.
    pub fn new(codes: &[u32], private: &[String]) -> Result<Self, String> {
        let mut profile = Self::default();
        for code in codes.iter().filter(|code| **code != 113_100) {
            let known = Retain::ALL.iter().find(|one| one.1 == *code).ok_or_else(|| {
                format!("{code} is no option that is carried out; 113106 to 113112 are, 113101 to 113105 need a person's judgement")
            })?;
            profile.options.insert(known.0);
        }
        let dates = [Retain::FullDates, Retain::ModifiedDates];
        if dates.iter().all(|option| profile.options.contains(option)) {
            return Err("113106 keeps dates and 113107 moves them; choose one".into());
        }
        for text in private {
            let wrong = || {
                format!(
                    "{text:?} is no private element; write GGGG,CREATOR,EE, as 0019,GEMS_ACQU_01,0A"
                )
            };
            let parts: Vec<&str> = text.split(',').collect();
            let [group, creator, element] = parts[..] else { return Err(wrong()) };
            let group = u16::from_str_radix(group, 16).map_err(|_| wrong())?;
            let element = u8::from_str_radix(element, 16).map_err(|_| wrong())?;
            if group % 2 == 0 || creator.is_empty() {
                return Err(wrong());
            }
            profile.private.insert((group, creator.trim().to_owned(), element));
        }
        if profile.private.is_empty() == profile.options.contains(&Retain::SafePrivate) {
            return Err("113111 needs private elements that stay, and they need 113111".into());
        }
        Ok(profile)
    }

    fn retains(&self, option: Retain) -> bool {
        self.options.contains(&option)
    }
}

/// De-identifies a file. The same file, profile and key give the same bytes.
///
/// # Errors
/// Where the file cannot be read, or cannot be made safe by a machine; the reason says which.
pub fn deidentify(bytes: &[u8], profile: &Profile, key: &[u8]) -> Result<Vec<u8>, Refusal> {
    let file = read::parse(bytes)?;
    read::guarded(|| of_file(file, profile, key))
}

fn of_file(original: File, profile: &Profile, key: &[u8]) -> Result<Vec<u8>, Refusal> {
    suspect(&original)?;
    let class = read::trimmed(original.meta().media_storage_sop_class_uid());
    let syntax = read::uninflated(&read::trimmed(original.meta().transfer_syntax()));
    let instance = read::trimmed(original.meta().media_storage_sop_instance_uid());
    let patient = text(&original, tags::PATIENT_ID)
        .or_else(|| text(&original, tags::STUDY_INSTANCE_UID))
        .unwrap_or_default();
    let cleaner = Cleaner { profile, key, patient: &patient };
    let mut data = cleaner.data_set(original.into_inner());
    cleaner.say_what_was_done(&mut data);
    // A file may name its instance in its meta group alone.
    let instance = cleaner.uid(&instance);
    file(data, &class, &instance, &syntax).map_err(|_| {
        Refusal::new(Reason::Malformed, "the de-identified data set cannot be written")
    })
}

/// Refuses what no table makes safe.
fn suspect(file: &File) -> Result<(), Refusal> {
    let class = read::trimmed(file.meta().media_storage_sop_class_uid());
    if DOCUMENTS.iter().any(|begin| class.starts_with(begin))
        || file.get(tags::ENCAPSULATED_DOCUMENT).is_some()
    {
        return Err(Refusal::new(
            Reason::Document,
            "the file is a report or a document, whose text no machine makes safe; have a person look at it",
        ));
    }
    let burned_in = text(file, tags::BURNED_IN_ANNOTATION).unwrap_or_default();
    let modality = text(file, tags::MODALITY).unwrap_or_default();
    let captured =
        class.starts_with(SECONDARY_CAPTURE) || file.get(tags::CONVERSION_TYPE).is_some();
    let usual = captured || BURNED_IN.contains(&modality.as_str());
    let has_pixels = file.get(tags::PIXEL_DATA).is_some();
    if burned_in == "YES" || (usual && has_pixels && burned_in != "NO") {
        return Err(Refusal::new(
            Reason::BurnedIn,
            "the pixels may have text of the patient within them (Burned In Annotation is not NO); have a person look at it",
        ));
    }
    Ok(())
}

/// One patient's data sets on their way.
struct Cleaner<'a> {
    profile: &'a Profile,
    key: &'a [u8],
    patient: &'a str,
}

impl Cleaner<'_> {
    fn data_set(&self, data: InMemDicomObject) -> InMemDicomObject {
        let creators = creators(&data);
        let mut clean = InMemDicomObject::new_empty();
        for element in data {
            if let Some(kept) = self.element(element, &creators) {
                clean.put(kept);
            }
        }
        clean
    }

    /// What is left of an element.
    fn element(
        &self,
        element: InMemElement,
        creators: &BTreeMap<(u16, u8), String>,
    ) -> Option<InMemElement> {
        let tag = element.header().tag;
        if tag.group() % 2 == 1 {
            return self.private(element, creators);
        }
        // Curves and overlays: drawings and texts over the image. Lengths of groups are no longer so,
        // and what belongs into a message or a meta group has no place here.
        if matches!(tag.group() >> 8, 0x50 | 0x60) || tag.element() == 0 || tag.group() <= 2 {
            return None;
        }
        let vr = read::vr_of(&element);
        match action(tag, vr, &self.profile.options)? {
            Action::Keep => self.within(element),
            Action::Empty => Some(DataElement::empty(tag, vr)),
            Action::Remove => None,
            Action::Pseudonym => Some(plain(tag, vr, &self.pseudonym())),
            Action::Dummy => dummy(tag, vr),
            Action::Shift => Some(match whole_text(&element).and_then(|text| self.shift(&text)) {
                Some(moved) => plain(tag, vr, &moved),
                None => DataElement::empty(tag, vr),
            }),
            Action::Temporal => Some(match whole_text(&element) {
                Some(text) if !temporal(&text) => DataElement::empty(tag, vr),
                _ => element,
            }),
            Action::Uid if vr == VR::SQ => self.within(element),
            Action::Uid => {
                let all = whole_text(&element).unwrap_or_default();
                let mapped: Vec<String> = all.split('\\').map(|one| self.uid(one)).collect();
                Some(plain(tag, vr, &mapped.join("\\")))
            }
        }
    }

    /// An element that is kept, with what is within it looked at in turn.
    fn within(&self, element: InMemElement) -> Option<InMemElement> {
        let tag = element.header().tag;
        if element.vr() != VR::SQ {
            // A sequence that came as bytes hides its elements.
            return (read::vr_of(&element) != VR::SQ).then_some(element);
        }
        let items = element.into_value().into_items()?;
        let items: Vec<InMemDicomObject> =
            items.into_iter().map(|item| self.data_set(item)).collect();
        Some(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)))
    }

    fn private(
        &self,
        element: InMemElement,
        creators: &BTreeMap<(u16, u8), String>,
    ) -> Option<InMemElement> {
        let tag = element.header().tag;
        let listed = |block: u8, place: Option<u8>| {
            let creator = creators.get(&(tag.group(), block))?;
            let mut listed = self.profile.private.iter();
            listed
                .any(|(group, by, element)| {
                    *group == tag.group()
                        && by == creator
                        && place.is_none_or(|place| place == *element)
                })
                .then_some(())
        };
        match tag.element() {
            block @ 0x10..=0xff => listed(block as u8, None).map(|()| element),
            within => {
                listed((within >> 8) as u8, Some(within as u8)).and_then(|()| self.within(element))
            }
        }
    }

    /// The patient's name and id from now on.
    fn pseudonym(&self) -> String {
        format!("P{}", &values::hex(self.key, b"patient", self.patient.as_bytes())[..16])
    }

    fn shift(&self, text: &str) -> Option<String> {
        let digits = values::hex(self.key, b"dates", self.patient.as_bytes());
        shifted(text, &digits)
    }

    /// A UID mapped to one that says nothing; the standard's own stay.
    fn uid(&self, original: &str) -> String {
        let original = read::trimmed(original);
        let stays = original.is_empty()
            || original.starts_with(STANDARD)
            || self.profile.retains(Retain::Uids);
        if stays { original } else { uid(&[self.key, b"uid", original.as_bytes()]) }
    }

    /// Patient Identity Removed, and by which method.
    fn say_what_was_done(&self, data: &mut InMemDicomObject) {
        string(data, tags::PATIENT_IDENTITY_REMOVED, VR::CS, "YES");
        let method = "gantry, PS3.15 annex E";
        string(data, tags::DEIDENTIFICATION_METHOD, VR::LO, method);
        let dates = match () {
            () if self.profile.retains(Retain::FullDates) => "UNMODIFIED",
            () if self.profile.retains(Retain::ModifiedDates) => "MODIFIED",
            () => "REMOVED",
        };
        string(data, tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED, VR::CS, dates);
        let basic = [(113_100, "Basic Application Confidentiality Profile")];
        let chosen = Retain::ALL.iter().filter(|one| self.profile.retains(one.0));
        let codes = basic.into_iter().chain(chosen.map(|one| (one.1, one.2)));
        let code = |(value, meaning): (u32, &str)| {
            let mut item = InMemDicomObject::new_empty();
            string(&mut item, tags::CODE_VALUE, VR::SH, &value.to_string());
            string(&mut item, tags::CODING_SCHEME_DESIGNATOR, VR::SH, "DCM");
            string(&mut item, tags::CODE_MEANING, VR::LO, meaning);
            item
        };
        let codes: Vec<InMemDicomObject> = codes.map(code).collect();
        data.put(DataElement::new(
            tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE,
            VR::SQ,
            DataSetSequence::from(codes),
        ));
    }
}

/// Who reserved which block of private elements: by group and block.
fn creators(data: &InMemDicomObject) -> BTreeMap<(u16, u8), String> {
    let creator = |element: &InMemElement| {
        let tag = element.header().tag;
        let reserves = tag.group() % 2 == 1 && (0x10..=0xff).contains(&tag.element());
        let name = reserves.then(|| whole_text(element)).flatten()?;
        Some(((tag.group(), tag.element() as u8), name))
    };
    data.into_iter().filter_map(creator).collect()
}

fn plain(tag: Tag, vr: VR, value: &str) -> InMemElement {
    let parts: Vec<String> = value.split('\\').map(str::to_owned).collect();
    DataElement::new(tag, vr, PrimitiveValue::Strs(parts.into()))
}

/// Whether a file says that it was de-identified, and by which codes.
///
/// # Errors
/// Where it cannot be read.
pub fn deidentified_by(bytes: &[u8]) -> Result<Vec<String>, Refusal> {
    let file = read::parse(bytes)?;
    let codes = items(&file, tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE);
    Ok(codes.iter().filter_map(|item| text(item, tags::CODE_VALUE)).collect())
}
