//! The earlier cases nearest to a prediction, each with a small picture of its middle.

use gantry_imaging::{Image, dicom, nifti};
use gantry_library::{Library, PredictionId, PredictionRecord, SeriesId};
use serde_json::Value;

use super::{series_id, words};
use crate::app::image::{CT, Cut, Picture, Plane, Window};
use crate::app::library::{Case, NEAREST, THUMBNAIL, Thumbnail};

/// The nearest cases of a prediction.
pub(super) fn cases(library: &Library, prediction: &str) -> Result<Vec<Case>, String> {
    let id: PredictionId = prediction.parse().map_err(words)?;
    let one = library.prediction(&id).map_err(words)?;
    let near = library.nearest(&one, NEAREST).map_err(words)?;
    let case = |near: gantry_library::Neighbour| {
        let of_case = library.prediction(&near.prediction).ok();
        Case {
            thumbnail: thumbnail(library, &near.series, of_case.as_ref()),
            series: near.series.to_string(),
            distance: near.distance,
            findings: found(&near.findings),
        }
    };
    Ok(near.into_iter().map(case).collect())
}

/// What was found, in a few words: what is said of the use, and by what, stands elsewhere.
pub(super) fn found(findings: &Value) -> String {
    let Some(fields) = findings.as_object() else { return findings.to_string() };
    let word = |(name, value): (&String, &Value)| match (name.as_str(), value) {
        ("model" | "use", _) => None,
        ("label", Value::String(label)) => Some(label.clone()),
        ("volume_ml", Value::Number(ml)) => Some(format!("{ml} ml")),
        (_, Value::String(text)) => Some(format!("{name} {text}")),
        (_, other) => Some(format!("{name} {other}")),
    };
    fields.iter().filter_map(word).collect::<Vec<_>>().join(", ")
}

/// A small picture of a series: the slice with most of the prediction in it, read alone.
fn thumbnail(
    library: &Library,
    series: &SeriesId,
    prediction: Option<&PredictionRecord>,
) -> Result<Thumbnail, String> {
    let record = library.series_record(&series_id(series.as_str())?).map_err(words)?;
    let mut places = Vec::new();
    for object in library.series_objects(series).map_err(words)? {
        let bytes = library.read_object(&object).map_err(words)?;
        if dicom::traces(&bytes).map_err(words)?.burned_in {
            return Err("not shown: text is burned into it".into());
        }
        let head = dicom::inspect(&bytes).map_err(words)?;
        places.push((head.position_mm.unwrap_or_default(), object));
    }
    // Along the axis on which the images lie apart.
    let spread = |axis: usize| {
        let along = || places.iter().map(|(place, _)| place[axis]);
        along().fold(f64::MIN, f64::max) - along().fold(f64::MAX, f64::min)
    };
    let axis = (0..3).max_by(|a, b| spread(*a).total_cmp(&spread(*b))).unwrap_or(2);
    places.sort_by(|(a, _), (b, _)| a[axis].total_cmp(&b[axis]));
    let fullest = prediction.and_then(|one| fullest_slice(library, one));
    let at = fullest.unwrap_or(places.len() / 2).min(places.len().saturating_sub(1));
    let Some((_, object)) = places.get(at) else { return Err("it has no images".into()) };
    let bytes = library.read_object(object).map_err(words)?;
    let image = dicom::assemble(&[bytes]).map_err(words)?.image;
    let window = if record.modality == "CT" { CT[0].1 } else { own_window(&image) };
    Ok(small(&image, window))
}

fn own_window(image: &Image) -> Window {
    let finite = || image.voxels.iter().copied().filter(|value| value.is_finite());
    Window::over((finite().fold(f32::MAX, f32::min), finite().fold(f32::MIN, f32::max)))
}

/// The slice along z with most marked in it.
fn fullest_slice(library: &Library, prediction: &PredictionRecord) -> Option<usize> {
    let bytes = library.read_object(&prediction.mask).ok()?;
    let mask = nifti::read_mask(&bytes).ok()?;
    let marked = |z: usize| mask.slice(z).iter().filter(|voxel| **voxel != 0).count();
    (0..mask.geometry.size[2]).filter(|z| marked(*z) > 0).max_by_key(|z| marked(*z))
}

/// The middle slice of an image as a small picture, as wide as it is high.
fn small(image: &Image, window: Window) -> Thumbnail {
    let cut = Cut::of(Plane::Axial, &image.geometry);
    let size = image.geometry.size;
    let middle = size.map(|n| n / 2);
    let picture = Picture::new(cut, &image.geometry, [THUMBNAIL; 2], 1.0, 0, middle);
    let mut greys = Vec::with_capacity(THUMBNAIL * THUMBNAIL);
    for y in 0..THUMBNAIL {
        for x in 0..THUMBNAIL {
            let shown = picture.shown(0, x).zip(picture.shown(1, y));
            let grey = shown.map_or(0, |(columns, rows)| {
                let count = (columns.len() * rows.len()) as f32;
                let sum: f32 = rows
                    .flat_map(|row| columns.clone().map(move |column| (column, row)))
                    .map(|(column, row)| {
                        let mut at = middle;
                        at[cut.across.voxel] = cut.across.of(column, size);
                        at[cut.down.voxel] = cut.down.of(row, size);
                        let [x, y, z] = at;
                        *image.at(x, y, z)
                    })
                    .sum();
                window.grey(sum / count)
            });
            greys.push(grey);
        }
    }
    Thumbnail { size: [THUMBNAIL; 2], greys }
}

#[cfg(test)]
mod tests {
    use gantry_imaging::Geometry;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_small_picture_keeps_the_shape_and_the_greys() {
        let geometry = Geometry::new([96, 48, 1], [1.0, 1.0, 1.0]);
        let mut image = Image::filled(geometry, -2000.0);
        image.voxels[48 * 48..].fill(3000.0);
        let small = small(&image, CT[0].1);
        let grey = |x: usize, y: usize| small.greys[y * THUMBNAIL + x];
        // Half as high as wide: a quarter is empty above and below.
        assert_eq!((grey(24, 5), grey(24, 42)), (0, 0));
        assert_eq!((grey(24, 14), grey(24, 33)), (0, 255));
    }

    #[test]
    fn findings_are_told_in_a_few_words() {
        let findings = json!({ "label": "lungs", "volume_ml": 12.5, "model": "m", "use": "x" });
        assert_eq!(found(&findings), "lungs, 12.5 ml");
        assert_eq!(found(&json!("none")), "\"none\"");
    }
}
