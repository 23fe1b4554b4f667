//! The file of a COCO data set: its pictures, its categories, and what is marked where.
//!
//! What contradicts itself is refused before any picture is read. What is wrong with the marks of one
//! picture is told once its turn comes, and leaves the others alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;

use super::shapes::{Marks, Segmentation};

/// Pixels along a side: what DICOM can say.
const SIDE_MAX: usize = 65_535;
/// Pixels of a picture: 8192 x 8192, a mammogram of the finest detector twice over in each direction.
pub(super) const PIXELS_MAX: usize = 1 << 26;
/// Annotations of one picture; crowded ones have some hundreds.
const ANNOTATIONS_MAX: usize = 10_000;
/// Pixels of the masks of one picture, one for each label: four of the largest picture.
const MARKS_MAX: usize = 4 * PIXELS_MAX;
/// Characters of a category's name.
const NAME_CHARACTERS_MAX: usize = 100;

/// Why a file is refused: a sentence that needs the file's name before it.
pub(super) type Refused = String;

/// A picture and what is marked on it.
pub(super) struct Picture {
    pub(super) id: i64,
    /// The name that the file gives it.
    pub(super) file: PathBuf,
    pub(super) width: usize,
    pub(super) height: usize,
    /// Whose it is, where the file says so.
    pub(super) patient: Option<String>,
    /// Pixel pitch along x, y and z.
    pub(super) spacing_mm: [f64; 3],
    annotations: Vec<(i64, Annotation)>,
}

/// A data set.
pub(super) struct Annotated {
    /// Those on which something is marked, in the order of the file.
    pub(super) pictures: Vec<Picture>,
    /// By the categories' ids.
    pub(super) labels: BTreeMap<i64, String>,
}

#[derive(Deserialize)]
struct File {
    images: Vec<Named>,
    #[serde(default)]
    annotations: Vec<One>,
    #[serde(default)]
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Named {
    id: i64,
    file_name: PathBuf,
    width: usize,
    height: usize,
    #[serde(alias = "patient_id")]
    patient: Option<Whose>,
    spacing_mm: Option<Vec<f64>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a patient is a text or a whole number")]
enum Whose {
    Number(i64),
    Text(String),
}

#[derive(Deserialize)]
struct One {
    id: i64,
    image_id: i64,
    #[serde(flatten)]
    what: Annotation,
}

#[derive(Deserialize)]
struct Annotation {
    category_id: i64,
    segmentation: Option<Segmentation>,
}

#[derive(Deserialize)]
struct Category {
    id: i64,
    name: String,
}

impl Annotated {
    /// Reads the file of a data set.
    ///
    /// # Errors
    /// Where it is none, or contradicts itself.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Refused> {
        let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let mut labels = BTreeMap::new();
        for category in file.categories {
            let name = category.name.trim();
            if name.is_empty() || name.chars().count() > NAME_CHARACTERS_MAX {
                return Err(format!(
                    "category {} has no name of 1 to {NAME_CHARACTERS_MAX} characters",
                    category.id
                ));
            }
            if labels.insert(category.id, name.to_owned()).is_some() {
                return Err(format!("two categories have the id {}", category.id));
            }
        }
        let mut marked: BTreeMap<i64, Vec<(i64, Annotation)>> = BTreeMap::new();
        for one in file.annotations {
            marked.entry(one.image_id).or_default().push((one.id, one.what));
        }
        let mut seen = BTreeSet::new();
        let mut pictures = Vec::new();
        for named in file.images {
            if !seen.insert(named.id) {
                return Err(format!("two images have the id {}", named.id));
            }
            let annotations = marked.remove(&named.id).unwrap_or_default();
            if !annotations.is_empty() {
                pictures.push(Picture::of(named, annotations)?);
            }
        }
        if let Some((image, annotations)) = marked.first_key_value() {
            let id = annotations.first().map_or(0, |(id, _)| *id);
            return Err(format!("annotation {id} is of image {image}, which is not listed"));
        }
        Ok(Self { pictures, labels })
    }
}

impl Picture {
    fn of(named: Named, annotations: Vec<(i64, Annotation)>) -> Result<Self, Refused> {
        let Named { id, file_name: file, width, height, patient, spacing_mm } = named;
        let sides = 1..=SIDE_MAX;
        if !sides.contains(&width) || !sides.contains(&height) || width * height > PIXELS_MAX {
            return Err(format!(
                "image {id} has {width} by {height} pixels; at most {PIXELS_MAX} are read, and {SIDE_MAX} along a side"
            ));
        }
        if annotations.len() > ANNOTATIONS_MAX {
            let found = annotations.len();
            return Err(format!(
                "image {id} has {found} annotations; at most {ANNOTATIONS_MAX} are read"
            ));
        }
        let spacing_mm = match spacing_mm.as_deref() {
            None => [1.0; 3],
            Some([x, y]) => [*x, *y, 1.0],
            Some([x, y, z]) => [*x, *y, *z],
            Some(_) => {
                return Err(format!("image {id} has a spacing_mm of neither 2 nor 3 numbers"));
            }
        };
        if !spacing_mm.iter().all(|side| side.is_finite() && *side > 0.0) {
            return Err(format!("image {id} has a spacing_mm that is not above 0"));
        }
        let patient = patient.map(|whose| match whose {
            Whose::Number(number) => number.to_string(),
            Whose::Text(text) => text.trim().to_owned(),
        });
        let patient = patient.filter(|text| !text.is_empty());
        Ok(Self { id, file, width, height, patient, spacing_mm, annotations })
    }

    /// What is marked, by label: a pixel is marked where any annotation of the label marks it, also one
    /// of a crowd.
    ///
    /// # Errors
    /// Where an annotation has no category or no mask that could be.
    pub(super) fn marks(
        &self,
        labels: &BTreeMap<i64, String>,
    ) -> Result<BTreeMap<String, Vec<u8>>, String> {
        let mut marks: BTreeMap<&str, Marks> = BTreeMap::new();
        for (id, annotation) in &self.annotations {
            let of = |what: String| format!("annotation {id} {what}");
            let Some(label) = labels.get(&annotation.category_id) else {
                let category = annotation.category_id;
                return Err(of(format!("is of category {category}, which is not listed")));
            };
            let Some(segmentation) = &annotation.segmentation else {
                return Err(of("has no segmentation; a box alone marks no pixels".into()));
            };
            if !marks.contains_key(label.as_str())
                && (marks.len() + 1) * self.width * self.height > MARKS_MAX
            {
                return Err(format!(
                    "{} labels on {} by {} pixels are over the limit of {MARKS_MAX}",
                    marks.len() + 1,
                    self.width,
                    self.height
                ));
            }
            let none = || Marks::none(self.width, self.height);
            marks.entry(label).or_insert_with(none).add(segmentation).map_err(of)?;
        }
        let marked = marks.into_iter().map(|(label, marks)| (label.to_owned(), marks.pixels));
        Ok(marked.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_contradicts_itself_is_refused() {
        let image = r#"{"id": 1, "file_name": "a.png", "width": 2, "height": 2}"#;
        let one = r#"{"id": 7, "image_id": 1, "category_id": 3, "segmentation": []}"#;
        let category = r#"{"id": 3, "name": "lung"}"#;
        let with = |part: &str| image.replace("\"id\"", &format!("{part}, \"id\""));
        let sides = |width: &str| image.replace("\"width\": 2", &format!("\"width\": {width}"));
        let (plain, known) = (image.to_owned(), category.to_owned());
        for (images, categories, word) in [
            (plain.clone(), known.clone(), ""),
            (format!("{image}, {image}"), known.clone(), "two images have the id 1"),
            (String::new(), known.clone(), "annotation 7 is of image 1"),
            (plain.clone(), format!("{category}, {category}"), "two categories"),
            (plain, category.replace("lung", " "), "no name"),
            (sides("0"), known.clone(), "0 by 2 pixels"),
            (sides("70000"), known.clone(), "70000 by 2 pixels"),
            (sides("-1"), known.clone(), "invalid value"),
            (with(r#""spacing_mm": [1]"#), known.clone(), "neither 2 nor 3"),
            (with(r#""spacing_mm": [1, 0]"#), known.clone(), "not above 0"),
            (with(r#""patient": []"#), known.clone(), "a patient is"),
            ("7".to_owned(), known, "invalid type"),
        ] {
            let text = format!(
                r#"{{"images": [{images}], "annotations": [{one}], "categories": [{categories}]}}"#
            );
            let read = Annotated::read(text.as_bytes());
            match read.err() {
                None => assert!(word.is_empty(), "{text}"),
                Some(error) => assert!(!word.is_empty() && error.contains(word), "{error}"),
            }
        }
        assert!(Annotated::read(b"{}").is_err_and(|error| error.contains("images")));
    }
}
