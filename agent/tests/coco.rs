//! COCO data sets come in: what went out of a library, what others annotated, and what is wrong with either.
#![allow(clippy::unwrap_used, missing_docs)]

mod exchange_support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use exchange_support::filled;
use gantry_agent::exchange::{
    Choice, ExchangeReport, Kind, Patients, export, import, marked_pictures, picture,
};
use gantry_imaging::{Image, Mask, nifti};
use gantry_library::{Author, Fractions, Library, SampleRecord, Split, SplitPlan};
use serde_json::{Value, json};
use tempfile::TempDir;

fn volumes(library: &Library, sample: &SampleRecord) -> (Image, Mask) {
    let object = |hash| library.read_object(hash).unwrap();
    (nifti::read(&object(&sample.image)).unwrap(), nifti::read_mask(&object(&sample.mask)).unwrap())
}

/// A library with the lungs of two patients.
fn library(folder: &Path) -> Library {
    filled(folder, 2).0
}

/// A picture of 4 by 3 pixels of these bits and colours.
fn png(color: png::ColorType, depth: png::BitDepth, data: &[u8], palette: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 4, 3);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if !palette.is_empty() {
        encoder.set_palette(palette.to_vec());
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    bytes
}

/// A folder with one grey picture `a.png` and this file of annotations.
fn set_of(folder: &Path, file: &Value) {
    let pixels: Vec<u8> = (0..12).map(|n| n * 20).collect();
    let picture = png(png::ColorType::Grayscale, png::BitDepth::Eight, &pixels, &[]);
    std::fs::write(folder.join("a.png"), picture).unwrap();
    std::fs::write(folder.join("annotations.json"), file.to_string()).unwrap();
}

/// A file with images of that picture, their first two columns marked.
fn file(images: &[Value]) -> Value {
    let images: Vec<Value> = (1..)
        .zip(images)
        .map(|(id, with)| {
            let mut image = json!({"id": id, "file_name": "a.png", "width": 4, "height": 3});
            let more = with.as_object().unwrap().clone();
            image.as_object_mut().unwrap().extend(more);
            image
        })
        .collect();
    let marked = json!({"size": [3, 4], "counts": [0, 6, 6]});
    let annotations: Vec<Value> = images
        .iter()
        .map(|image| {
            let id = &image["id"];
            json!({"id": id, "image_id": id, "category_id": 1, "iscrowd": 1, "segmentation": marked})
        })
        .collect();
    let categories = json!([{"id": 1, "name": "nodule"}]);
    json!({"images": images, "annotations": annotations, "categories": categories})
}

fn taken(library: &Library, from: &Path, patients: Patients) -> ExchangeReport {
    import(library, Kind::Coco, from, None, patients, &Author::Auto).unwrap()
}

#[test]
fn what_went_out_comes_back_slice_by_slice_and_of_the_same_patients() {
    let folder = TempDir::new().unwrap();
    let one = library(&folder.path().join("one"));
    let set = folder.path().join("set");
    export(&one, Kind::Coco, &set, &Choice::default()).unwrap();
    let other = Library::create(&folder.path().join("other")).unwrap();
    let first = taken(&other, &set, Patients::AsSaid);
    let mut expected = Vec::new();
    for sample in one.samples().unwrap() {
        let (_, mask) = volumes(&one, &sample);
        let slices = (0..mask.geometry.size[2]).map(|z| mask.slice(z).to_vec());
        expected.extend(slices.filter(|slice| slice.iter().any(|voxel| *voxel != 0)));
    }
    assert!(expected.len() > 4, "{expected:?}");
    assert_eq!((first.samples, first.known, first.left_out), (expected.len() as u64, 0, vec![]));
    let again = taken(&other, &set.join("annotations.json"), Patients::AsSaid);
    assert_eq!((again.samples, again.known), (first.samples, first.samples));

    let samples = other.samples().unwrap();
    let mut found = Vec::new();
    for sample in &samples {
        let (image, mask) = volumes(&other, sample);
        let about = (sample.label.as_str(), sample.size, sample.spacing_mm);
        assert_eq!(about, ("lungs", [30, 24, 1], [11.0, 13.0, 32.0]));
        assert!(image.voxels.iter().all(|value| (0.0..=255.0).contains(value)));
        found.push(mask.voxels);
    }
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let patients: BTreeSet<_> = samples.iter().map(|sample| &sample.patient).collect();
    assert_eq!((patients.len(), other.series().unwrap().len()), (2, samples.len()));
    assert!(other.verify().unwrap().damage.is_empty());
    // No patient is on two sides, however many pictures are of one.
    for seed in 0..8 {
        let fractions = Fractions { validation_percent: 50, test_percent: 0 };
        let plan = SplitPlan::new(&samples, seed, fractions, &[]).unwrap();
        let sides: BTreeSet<(_, Split)> = samples
            .iter()
            .map(|sample| (sample.patient.clone(), plan.side(&sample.patient)))
            .collect();
        assert_eq!(sides.len(), 2);
    }
    // A copy of what is here would be another patient.
    let back = taken(&one, &set, Patients::AsSaid);
    assert_eq!((back.samples, back.left_out.len()), (0, samples.len()));
    assert!(back.left_out[0].1.contains("its patient is already"), "{:?}", back.left_out[0]);
}

#[test]
fn a_picture_is_of_whom_its_file_says_or_of_nobody_else() {
    let folder = TempDir::new().unwrap();
    let said = [json!({"patient": "SECRET"}), json!({"patient_id": 7}), json!({"patient": 7})];
    set_of(folder.path(), &file(&said));
    let library = Library::create(&folder.path().join("library")).unwrap();
    let report = taken(&library, folder.path(), Patients::AsSaid);
    assert_eq!((report.samples, report.known), (3, 1), "the last two are one");
    // Another file of the same set means the same patient.
    let other = folder.path().join("validation.json");
    let spaced = json!({"patient": " SECRET ", "spacing_mm": [0.5, 0.25]});
    std::fs::write(&other, file(&[spaced]).to_string()).unwrap();
    taken(&library, &other, Patients::EachPicture);
    let samples = library.samples().unwrap();
    let patients: BTreeSet<_> = samples.iter().map(|sample| &sample.patient).collect();
    assert_eq!((samples.len(), patients.len()), (3, 2));
    let spacings: BTreeSet<String> =
        samples.iter().map(|sample| format!("{:?}", sample.spacing_mm)).collect();
    assert_eq!(spacings.len(), 2, "{spacings:?}");
    let hidden =
        Command::new("grep").args(["-rqa", "SECRET"]).arg(library.root()).status().unwrap();
    assert!(!hidden.success(), "what a file calls a patient is in the library");

    set_of(folder.path(), &file(&[json!({"patient": "a"}), json!({}), json!({"patient": " "})]));
    let library = Library::create(&folder.path().join("another")).unwrap();
    let refused =
        import(&library, Kind::Coco, folder.path(), None, Patients::AsSaid, &Author::Auto);
    let sentence = refused.unwrap_err().to_string();
    assert!(sentence.contains("whose image 2 is") && sentence.contains("--patient-per-picture"));
    assert_eq!(library.counts().unwrap().series, 0, "nothing is taken");
    let report = taken(&library, folder.path(), Patients::EachPicture);
    assert_eq!((report.samples, report.known), (3, 1), "one picture twice is one patient");
}

#[test]
fn pictures_of_all_depths_have_their_brightness() {
    use png::BitDepth::{Eight, Four, One, Sixteen};
    use png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
    let ramp = |step: u16| -> Vec<u8> { (0..12).map(|n| (n * step) as u8).collect() };
    let deep: Vec<u8> = (0..12_u16).flat_map(|n| (n * 5000).to_be_bytes()).collect();
    let each = |per: &[u8]| -> Vec<u8> { per.repeat(12) };
    let of = |values: fn(u16) -> f32| -> Vec<f32> { (0..12).map(values).collect() };
    for (what, bytes, expected) in [
        ("8 bits", png(Grayscale, Eight, &ramp(20), &[]), of(|n| f32::from(n * 20))),
        ("16 bits", png(Grayscale, Sixteen, &deep, &[]), of(|n| f32::from(n * 5000))),
        ("1 bit", png(Grayscale, One, &[0xa0; 3], &[]), of(|n| f32::from(255 * (1 - n % 2)))),
        ("4 bits", png(Grayscale, Four, &[0x0f; 6], &[]), of(|n| f32::from(255 * (n % 2)))),
        ("alpha", png(GrayscaleAlpha, Eight, &each(&[9, 0]), &[]), of(|_| 9.0)),
        ("grey in colours", png(Rgb, Eight, &each(&[77, 77, 77]), &[]), of(|_| 77.0)),
        // 0.299 x 255 + 0.587 x 100 + 0.114 x 10.
        ("colours", png(Rgba, Eight, &each(&[255, 100, 10, 0]), &[]), of(|_| 136.0)),
        ("palette", png(Indexed, One, &[0xa0; 3], &[8, 8, 8, 9, 9, 9]), {
            of(|n| f32::from(9 - n % 2))
        }),
    ] {
        assert_eq!(picture(&bytes).unwrap(), ([4, 3], expected), "{what}");
    }
    for (bytes, word) in
        [(&b"\xff\xd8\xff\xe0 a JPEG"[..], "no sound PNG"), (b"", "cannot be read")]
    {
        let error = picture(bytes).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn several_categories_become_several_samples_of_one_series() {
    let folder = TempDir::new().unwrap();
    let mut two = file(&[json!({"patient": "a"})]);
    let shape = json!([[1, 0, 3, 0, 3, 2, 1, 2], [3, 2, 4, 2, 4, 3, 3, 3]]);
    let packed = json!({"size": [3, 4], "counts": "335N"});
    for (id, category, segmentation) in [(2, 5, shape), (3, 1, packed)] {
        let one = json!({"id": id, "image_id": 1, "category_id": category, "iscrowd": 0,
            "bbox": [1, 0, 3, 3], "segmentation": segmentation});
        two["annotations"].as_array_mut().unwrap().push(one);
    }
    two["categories"].as_array_mut().unwrap().push(json!({"id": 5, "name": "lung"}));
    set_of(folder.path(), &two);
    let library = Library::create(&folder.path().join("library")).unwrap();
    assert_eq!(taken(&library, folder.path(), Patients::AsSaid).samples, 2);
    let masks: BTreeMap<String, Vec<u8>> = library
        .samples()
        .unwrap()
        .iter()
        .map(|sample| (sample.label.clone(), volumes(&library, sample).1.voxels))
        .collect();
    // The run lengths 3, 3, 5 and 3 - 2 mark the second column and the last pixel.
    assert_eq!(masks["nodule"], [1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 1]);
    assert_eq!(masks["lung"], [0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1]);
    assert_eq!(library.series().unwrap().len(), 1);
    let named =
        import(&library, Kind::Coco, folder.path(), Some("x"), Patients::AsSaid, &Author::Auto);
    assert!(named.unwrap_err().to_string().contains("2 categories"));
}

#[test]
fn what_is_wrong_with_a_set_or_a_picture_is_said() {
    let folder = TempDir::new().unwrap();
    let library = Library::create(&folder.path().join("library")).unwrap();
    let whole = || file(&[json!({"patient": "a"}), json!({"patient": "b"})]);
    let with = |place: &str, value: Value| {
        let mut file = whole();
        *file.pointer_mut(place).unwrap() = value;
        file
    };
    // The second picture is left out, and the first comes in.
    for (file, word) in [
        (with("/images/1/file_name", json!("../a.png")), "not within the folder"),
        (with("/images/1/file_name", json!("/etc/passwd")), "not within the folder"),
        (with("/images/1/file_name", json!("b.png")), "cannot be read"),
        (with("/images/1/file_name", json!("annotations.json")), "no sound PNG"),
        (with("/images/1/width", json!(5)), "run lengths of 4 by 3 pixels"),
        (with("/annotations/1/category_id", json!(9)), "category 9, which is not listed"),
        (with("/annotations/1/segmentation", json!(null)), "a box alone"),
        (with("/annotations/1/segmentation", json!([])), "has no polygon"),
        (with("/annotations/1/segmentation/counts", json!([0, 6, 7])), "do not sum up"),
        (with("/annotations/1/segmentation/counts", json!("063")), "do not sum up"),
    ] {
        set_of(folder.path(), &file);
        let report = taken(&library, folder.path(), Patients::AsSaid);
        assert_eq!((report.samples, report.left_out.len()), (1, 1), "{word}");
        let (what, reason) = &report.left_out[0];
        assert!(what == "image 2" && reason.contains(word), "{what}: {reason}");
    }
    let mut other = with("/images/1/width", json!(5));
    other["annotations"][1]["segmentation"] = json!([[0, 0, 4, 0, 4, 3]]);
    set_of(folder.path(), &other);
    let report = taken(&library, folder.path(), Patients::AsSaid);
    assert!(report.left_out[0].1.contains("4 by 3 pixels, and the file says 5 by 3"));
    // Nothing comes in.
    for (file, word) in [
        (with("/images/1/id", json!(1)), "two images have the id 1"),
        (with("/annotations/1/image_id", json!(9)), "image 9, which is not listed"),
        (with("/images/1/width", json!(1 << 20)), "at most"),
        (with("/annotations/1/segmentation", json!(7)), "polygons, or run lengths"),
        (with("/annotations", json!([])), "no case"),
        (json!([]), "annotations.json"),
    ] {
        set_of(folder.path(), &file);
        let refused =
            import(&library, Kind::Coco, folder.path(), None, Patients::AsSaid, &Author::Auto);
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(library.counts().unwrap().samples, 1);
    assert!(library.verify().unwrap().damage.is_empty());
}

/// How far a pixel's centre is from an outline.
fn distance(centre: [f64; 2], polygon: &[[f64; 2]]) -> f64 {
    let along = |from: [f64; 2], to: [f64; 2]| {
        let edge = [to[0] - from[0], to[1] - from[1]];
        let way = [centre[0] - from[0], centre[1] - from[1]];
        let length = edge[0].hypot(edge[1]).max(1e-9);
        let part = ((edge[0] * way[0] + edge[1] * way[1]) / length.powi(2)).clamp(0.0, 1.0);
        (way[0] - part * edge[0]).hypot(way[1] - part * edge[1])
    };
    let ends = polygon.iter().zip(polygon.iter().cycle().skip(1));
    ends.map(|(from, to)| along(*from, *to)).fold(f64::INFINITY, f64::min)
}

/// Sets of random shapes, as COCO's own tools write them, and their masks by those tools.
const SHAPES: &str = "
import json, random, sys
import numpy as np
from pycocotools import mask
random.seed(7)
h, w, images, annotations, expected = 48, 64, [], [], {}
def packed(m):
    rle = mask.encode(np.asfortranarray(m.astype(np.uint8)))
    return {'size': rle['size'], 'counts': rle['counts'].decode()}
def plain(m):
    flat, counts, value = m.flatten(order='F').tolist(), [0], 0
    for one in flat:
        if one != value:
            counts.append(0)
            value = one
        counts[-1] += 1
    return {'size': [h, w], 'counts': counts}
for n in range(90):
    kind = ['polygon', 'square', 'packed', 'plain', 'noise'][n % 5]
    if kind == 'polygon':
        shape = [round(random.uniform(-5, 70), 2) for _ in range(2 * random.randint(3, 11))]
    else:
        x, y = random.randint(0, 60), random.randint(0, 40)
        a, b = random.randint(x + 1, 64), random.randint(y + 1, 48)
        shape = [x, y, a, y, a, b, x, b]
    m = mask.decode(mask.merge(mask.frPyObjects([shape], h, w)))
    if kind == 'noise':
        m = np.random.default_rng(n).integers(0, 2, (h, w)).astype(np.uint8)
    segmentation = [shape] if kind in ('polygon', 'square') else plain(m) if kind == 'plain' else packed(m)
    images.append({'id': n, 'file_name': f'{n}.png', 'width': w, 'height': h})
    annotations.append({'id': n, 'image_id': n, 'category_id': 1, 'iscrowd': int(kind in ('plain', 'packed')),
        'area': int(m.sum()), 'bbox': [0, 0, w, h], 'segmentation': segmentation})
    expected[n] = {'shape': shape if kind == 'polygon' else [], 'mask': m.flatten().tolist()}
with open(sys.argv[1] + '/annotations.json', 'w') as file:
    json.dump({'images': images, 'annotations': annotations, 'categories': [{'id': 1, 'name': 'a'}]}, file)
from pycocotools.coco import COCO
coco = COCO(sys.argv[1] + '/annotations.json')
for n, one in coco.anns.items():
    assert coco.annToMask(one).flatten().tolist() == expected[n]['mask']
with open(sys.argv[1] + '/expected.json', 'w') as file:
    json.dump(expected, file)
";

#[test]
fn masks_are_those_of_cocos_own_tools() {
    let folder = TempDir::new().unwrap();
    let program = std::env::var_os("GANTRY_PYTHON").map(PathBuf::from);
    let has = |program: &PathBuf| {
        let output = Command::new(program).args(["-c", "import pycocotools, numpy"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let Some(python) = program.filter(has) else {
        eprintln!(
            "skipped: masks by COCO's own tools need pycocotools; set GANTRY_PYTHON to a Python with tests/peers/requirements.txt"
        );
        return;
    };
    let output = Command::new(python).args(["-c", SHAPES]).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let expected: BTreeMap<i64, Value> = serde_json::from_slice(&read("expected.json")).unwrap();
    let (mut pictures, mut marked, mut otherwise) = (0, 0, 0);
    marked_pictures(&read("annotations.json"), &mut |picture| {
        let pixels = &picture.marks.unwrap()["a"];
        let expected = &expected[&picture.id];
        let shape: Vec<f64> = serde_json::from_value(expected["shape"].clone()).unwrap();
        let shape = shape.as_chunks::<2>().0;
        let mask: Vec<u8> = serde_json::from_value(expected["mask"].clone()).unwrap();
        pictures += 1;
        marked += mask.iter().map(|pixel| usize::from(*pixel)).sum::<usize>();
        for (place, _) in mask.iter().zip(pixels).enumerate().filter(|(_, (a, b))| a != b) {
            // Those tools round corners to a fifth of a pixel, and so do otherwise where an outline all
            // but meets a centre.
            let [x, y] = [place % picture.size[0], place / picture.size[0]];
            let near = distance([x as f64 + 0.5, y as f64 + 0.5], shape);
            assert!(near < 0.25, "picture {} at {x}, {y}: {near} off", picture.id);
            otherwise += 1;
        }
    })
    .unwrap();
    assert_eq!(pictures, expected.len());
    assert!(marked > 30_000 && otherwise * 50 < marked, "{otherwise} of {marked} are otherwise");
}
