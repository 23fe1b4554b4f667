//! COCO: annotated slices, for detectors and for people's tools.
//!
//! On the way out every slice with a marked voxel becomes an 8-bit picture, its values from the 0.5th to
//! the 99.5th percentile of its volume, and one annotation whose mask is a run-length code in columns, as
//! COCO has it for crowds. The way in is [`take`].

mod annotations;
mod shapes;
mod take;

use std::io::Cursor;
use std::path::Path;

use gantry_imaging::{Image, Mask};
use gantry_library::Library;
use serde_json::{Value, json};

use self::annotations::Annotated;
use super::{Chosen, ExchangeError, ExchangeReport, Outcome, out, volumes, write};

pub(super) use take::import;

/// A picture of a file of annotations.
pub struct MarkedPicture {
    /// Its id.
    pub id: i64,
    /// Pixels along x and y.
    pub size: [usize; 2],
    /// Marked pixels, row by row, by label; or why they cannot be had.
    pub marks: Result<std::collections::BTreeMap<String, Vec<u8>>, String>,
}

/// Reads a file of annotations, and hands out what is marked on each of its pictures.
///
/// # Errors
/// Where it is no such file, or contradicts itself.
pub fn marked_pictures(bytes: &[u8], take: &mut dyn FnMut(MarkedPicture)) -> Outcome<()> {
    let set = Annotated::read(bytes).map_err(ExchangeError::Refused)?;
    for picture in &set.pictures {
        let size = [picture.width, picture.height];
        take(MarkedPicture { id: picture.id, size, marks: picture.marks(&set.labels) });
    }
    Ok(())
}

/// Reads a picture (PNG): pixels along x and y, and the brightness of each, row by row.
///
/// # Errors
/// Where it is none, or larger than is read.
pub fn picture(bytes: &[u8]) -> Outcome<([usize; 2], Vec<f32>)> {
    take::grey(Cursor::new(bytes)).map_err(ExchangeError::Refused)
}

/// Writes pictures and `annotations.json`.
pub(super) fn export(library: &Library, chosen: &Chosen, to: &Path) -> Outcome<ExchangeReport> {
    let mut report = ExchangeReport::default();
    let (mut images, mut annotations) = (Vec::new(), Vec::new());
    for sample in &chosen.samples {
        let (image, mask) = volumes(library, sample)?;
        let range = percentiles(&image.voxels);
        for z in 0..image.geometry.size[2] {
            let slice = mask.slice(z);
            if slice.iter().all(|value| *value == 0) {
                continue;
            }
            let number = images.len() + 1;
            let name = format!("images/{}-{z:04}.png", sample.id);
            let picture =
                png(&image, z, range).map_err(|error| ExchangeError::case(&sample.id, error))?;
            report.bytes += write(to, &name, &picture)?;
            let [width, height, _] = image.geometry.size;
            images.push(json!({
                "id": number,
                "file_name": name,
                "width": width,
                "height": height,
                "spacing_mm": image.geometry.spacing_mm,
                "sample": sample.id,
                "slice": z,
                "patient": sample.patient,
                "split": chosen.side(sample),
            }));
            annotations.push(annotation(number, &mask, z));
        }
        report.samples += 1;
        *report.sides.entry(chosen.side(sample)).or_default() += 1;
    }
    let all = json!({
        "info": { "description": "exported by gantry; pictures are named by sample ids" },
        "images": images,
        "annotations": annotations,
        "categories": [{ "id": 1, "name": chosen.label }],
    });
    report.bytes += write(to, "annotations.json", &out::pretty(&all)?)?;
    Ok(report)
}

fn annotation(number: usize, mask: &Mask, z: usize) -> Value {
    let [width, height, _] = mask.geometry.size;
    let slice = mask.slice(z);
    let marked = |x: usize, y: usize| slice[y * width + x] != 0;
    let (mut least, mut most, mut area) = ([width, height], [0, 0], 0_u64);
    let mut counts = Vec::new();
    let (mut run, mut value) = (0_u64, false);
    for x in 0..width {
        for y in 0..height {
            if marked(x, y) {
                least = [least[0].min(x), least[1].min(y)];
                most = [most[0].max(x), most[1].max(y)];
                area += 1;
            }
            if marked(x, y) != value {
                counts.push(run);
                (run, value) = (0, !value);
            }
            run += 1;
        }
    }
    counts.push(run);
    json!({
        "id": number,
        "image_id": number,
        "category_id": 1,
        "iscrowd": 1,
        "area": area,
        "bbox": [least[0], least[1], most[0] + 1 - least[0], most[1] + 1 - least[1]],
        "segmentation": { "size": [height, width], "counts": counts },
    })
}

/// The values between which a volume is shown.
fn percentiles(voxels: &[f32]) -> (f32, f32) {
    let mut sorted: Vec<f32> = voxels.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let at = |part: f64| {
        let place = (part * sorted.len().saturating_sub(1) as f64).round() as usize;
        sorted.get(place).copied().unwrap_or(0.0)
    };
    (at(0.005), at(0.995))
}

fn png(image: &Image, z: usize, (least, most): (f32, f32)) -> Result<Vec<u8>, png::EncodingError> {
    let [width, height, _] = image.geometry.size;
    let scale = if most > least { 255.0 / (most - least) } else { 0.0 };
    // A value that is no number is black.
    let shown = |value: &f32| ((value - least) * scale).round().clamp(0.0, 255.0) as u8;
    let pixels: Vec<u8> = image.slice(z).iter().map(shown).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(bytes)
}
