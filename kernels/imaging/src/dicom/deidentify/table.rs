//! What becomes of which attribute: table E.1-1 of PS3.15, and what the options change of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

use super::Retain;

/// What becomes of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It stays; what is within it is looked at.
    Keep,
    /// Its value goes.
    Empty,
    /// It goes.
    Remove,
    /// It gets a value that says nothing.
    Dummy,
    /// It gets the patient's pseudonym.
    Pseudonym,
    /// Its UIDs are mapped.
    Uid,
    /// Its dates move.
    Shift,
    /// It stays where it is a date or a time, and is emptied where it is not.
    Temporal,
}

struct Table {
    basic: BTreeMap<Tag, Action>,
    kept: BTreeMap<Tag, Retain>,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = Table { basic: BTreeMap::new(), kept: BTreeMap::new() };
        for line in include_str!("table.txt").lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split_ascii_whitespace();
            let Some(word) = words.next() else { continue };
            let tags = words.filter_map(|word| u32::from_str_radix(word, 16).ok());
            let tags = tags.map(|number| Tag((number >> 16) as u16, number as u16));
            match word {
                "dummy" => table.basic.extend(tags.map(|tag| (tag, Action::Dummy))),
                "empty" => table.basic.extend(tags.map(|tag| (tag, Action::Empty))),
                "remove" => table.basic.extend(tags.map(|tag| (tag, Action::Remove))),
                "uid" => table.basic.extend(tags.map(|tag| (tag, Action::Uid))),
                "keep-113108" => {
                    table.kept.extend(tags.map(|tag| (tag, Retain::PatientCharacteristics)));
                }
                "keep-113109" => table.kept.extend(tags.map(|tag| (tag, Retain::DeviceIdentity))),
                "keep-113112" => {
                    table.kept.extend(tags.map(|tag| (tag, Retain::InstitutionIdentity)));
                }
                _ => {}
            }
        }
        table
    })
}

/// What becomes of an attribute under these options; `None` where it goes as nobody knows it.
pub(super) fn action(tag: Tag, vr: VR, options: &BTreeSet<Retain>) -> Option<Action> {
    if matches!(tag, tags::PATIENT_ID | tags::PATIENT_NAME) {
        return Some(Action::Pseudonym);
    }
    let temporal = matches!(vr, VR::DA | VR::DT | VR::TM) || tag == tags::TIMEZONE_OFFSET_FROM_UTC;
    // A birth is a date of the patient, not of an examination.
    let of_patient = matches!(tag, tags::PATIENT_BIRTH_DATE | tags::PATIENT_BIRTH_TIME);
    if temporal && !of_patient {
        if options.contains(&Retain::FullDates) {
            return Some(Action::Temporal);
        }
        if options.contains(&Retain::ModifiedDates) {
            let dated = matches!(vr, VR::DA | VR::DT);
            return Some(if dated { Action::Shift } else { Action::Temporal });
        }
    }
    let table = table();
    if table.kept.get(&tag).is_some_and(|option| options.contains(option)) {
        return Some(Action::Keep);
    }
    if let Some(action) = table.basic.get(&tag) {
        return Some(*action);
    }
    match vr {
        // No name, date or reference slips through for being newer than the table.
        VR::PN | VR::DA | VR::DT => Some(Action::Empty),
        VR::UI => Some(Action::Uid),
        // Nobody knows what it is.
        VR::UN => None,
        _ => Some(Action::Keep),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole_and_options_change_what_they_name() {
        let table = table();
        assert_eq!(table.basic.len(), 652);
        assert!(table.kept.keys().all(|tag| table.basic.contains_key(tag)));
        let basic = BTreeSet::new();
        for (tag, vr, option, plain, with) in [
            (tags::STUDY_DATE, VR::DA, Retain::ModifiedDates, Action::Empty, Action::Shift),
            (tags::STUDY_TIME, VR::TM, Retain::ModifiedDates, Action::Empty, Action::Temporal),
            (tags::SERIES_DATE, VR::DA, Retain::FullDates, Action::Dummy, Action::Temporal),
            (tags::PATIENT_BIRTH_DATE, VR::DA, Retain::FullDates, Action::Empty, Action::Empty),
            (
                tags::PATIENT_AGE,
                VR::AS,
                Retain::PatientCharacteristics,
                Action::Remove,
                Action::Keep,
            ),
            (tags::STATION_NAME, VR::SH, Retain::DeviceIdentity, Action::Dummy, Action::Keep),
            (
                tags::INSTITUTION_NAME,
                VR::LO,
                Retain::InstitutionIdentity,
                Action::Dummy,
                Action::Keep,
            ),
            (tags::PATIENT_NAME, VR::PN, Retain::FullDates, Action::Pseudonym, Action::Pseudonym),
            (tags::ROWS, VR::US, Retain::Uids, Action::Keep, Action::Keep),
        ] {
            assert_eq!(action(tag, vr, &basic), Some(plain), "{tag}");
            assert_eq!(action(tag, vr, &BTreeSet::from([option])), Some(with), "{tag}");
        }
        assert_eq!(action(Tag(0x0010, 0x9fff), VR::UN, &basic), None);
        assert_eq!(action(Tag(0x0010, 0x9fff), VR::PN, &basic), Some(Action::Empty));
    }
}
