//! What an annotation marks, as pixels.
//!
//! Polygons are filled by the even-odd rule: a pixel is marked where a ray from its centre crosses the
//! outline an odd number of times; pixel (0, 0) reaches from 0 to 1. Several polygons of an annotation
//! are parts of one thing and are united. Run lengths go down the columns, the unmarked first, as numbers
//! or as the string of COCO's own tools: numbers of five bits to a character, the third and later ones as
//! differences to the one before the last.

use serde::Deserialize;

/// Numbers of all polygons of an annotation, and run lengths of one: an outline that goes through each
/// pixel of a large picture's border a hundred times has less.
const NUMBERS_MAX: usize = 1 << 22;
/// How far corners may lie from the picture's origin, in pixels; what is outside is cut off.
const CORNER_MAX: f64 = 1e7;

/// What an annotation says of where it is.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a segmentation is polygons, or run lengths with size and counts")]
pub(super) enum Segmentation {
    /// x and y of the corners of each.
    Polygons(Vec<Vec<f64>>),
    /// Of all pixels of the picture.
    Runs {
        /// Rows and columns.
        size: [usize; 2],
        /// How many are unmarked, marked, unmarked and so on.
        counts: Counts,
    },
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "counts are a list of numbers, or a string")]
pub(super) enum Counts {
    Plain(Vec<u64>),
    Packed(String),
}

/// Marked pixels of a picture, row by row.
pub(super) struct Marks {
    width: usize,
    height: usize,
    pub(super) pixels: Vec<u8>,
}

impl Marks {
    /// No pixel of a picture of this size, which is none of no width or height.
    pub(super) fn none(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![0; width * height] }
    }

    /// Marks what an annotation marks, beside what is marked already.
    ///
    /// # Errors
    /// Where it marks nothing that could be, with the reason.
    pub(super) fn add(&mut self, segmentation: &Segmentation) -> Result<(), String> {
        match segmentation {
            Segmentation::Polygons(polygons) => {
                if polygons.is_empty() {
                    return Err("has no polygon".into());
                }
                if polygons.iter().map(Vec::len).sum::<usize>() > NUMBERS_MAX {
                    return Err(format!("has polygons of over {NUMBERS_MAX} numbers"));
                }
                polygons.iter().try_for_each(|polygon| self.fill(polygon))
            }
            Segmentation::Runs { size, counts } => {
                if *size != [self.height, self.width] {
                    return Err(format!(
                        "has run lengths of {} by {} pixels, and its picture has {} by {}",
                        size[1], size[0], self.width, self.height
                    ));
                }
                match counts {
                    Counts::Plain(counts) => self.run(counts),
                    Counts::Packed(text) => self.run(&unpack(text)?),
                }
            }
        }
    }

    fn fill(&mut self, polygon: &[f64]) -> Result<(), String> {
        let (corners, rest) = polygon.as_chunks::<2>();
        if corners.len() < 3 || !rest.is_empty() {
            return Err(format!(
                "has a polygon of {} numbers; x and y of at least three corners are needed",
                polygon.len()
            ));
        }
        if !polygon.iter().all(|number| number.abs() <= CORNER_MAX) {
            return Err(format!("has a corner further than {CORNER_MAX} pixels away"));
        }
        let rows = |pick: fn(f64, f64) -> f64, none: f64| {
            corners.iter().map(|corner| corner[1]).fold(none, pick)
        };
        // The first row whose centre is not above, as an edge meets rows in half-open stretches.
        let first = |y: f64| (y - 0.5).ceil().clamp(0.0, self.height as f64) as usize;
        let (top, end) = (first(rows(f64::min, f64::MAX)), first(rows(f64::max, f64::MIN)));
        // Whether the inside begins or ends at a pixel of these rows.
        let mut turns = vec![0_u8; (end - top) * self.width];
        for (from, to) in corners.iter().zip(corners.iter().cycle().skip(1)) {
            let (upper, lower) = if from[1] <= to[1] { (from, to) } else { (to, from) };
            let slope = (lower[0] - upper[0]) / (lower[1] - upper[1]);
            for row in first(upper[1])..first(lower[1]) {
                let x = upper[0] + (row as f64 + 0.5 - upper[1]) * slope;
                let column = (x - 0.5).ceil().max(0.0);
                if column < self.width as f64 {
                    turns[(row - top) * self.width + column as usize] ^= 1;
                }
            }
        }
        let marked = self.pixels[top * self.width..end * self.width].chunks_exact_mut(self.width);
        for (pixels, turns) in marked.zip(turns.chunks_exact(self.width)) {
            let mut inside = 0;
            for (pixel, turn) in pixels.iter_mut().zip(turns) {
                inside ^= turn;
                *pixel |= inside;
            }
        }
        Ok(())
    }

    fn run(&mut self, counts: &[u64]) -> Result<(), String> {
        let all = self.pixels.len() as u64;
        let sum = counts.iter().try_fold(0_u64, |sum, count| sum.checked_add(*count));
        if counts.len() > NUMBERS_MAX || sum != Some(all) {
            return Err(format!(
                "has run lengths that do not sum up to the {all} pixels of its picture"
            ));
        }
        let mut at = 0;
        for (number, count) in counts.iter().enumerate() {
            let next = at + *count as usize;
            if number % 2 == 1 {
                for place in at..next {
                    self.pixels[place % self.height * self.width + place / self.height] = 1;
                }
            }
            at = next;
        }
        Ok(())
    }
}

/// The numbers of a string of run lengths.
fn unpack(text: &str) -> Result<Vec<u64>, String> {
    let damaged = || "has a string of run lengths that is damaged".to_owned();
    let mut counts: Vec<i64> = Vec::new();
    let (mut number, mut shift) = (0_i64, 0_u32);
    for byte in text.bytes() {
        let bits = byte.checked_sub(48).filter(|bits| *bits < 64).ok_or_else(damaged)?;
        // Seven characters hold more than the pixels of any picture.
        if shift > 30 || counts.len() > NUMBERS_MAX {
            return Err(damaged());
        }
        number |= i64::from(bits & 0x1f) << shift;
        shift += 5;
        if bits & 0x20 != 0 {
            continue;
        }
        if bits & 0x10 != 0 {
            number |= -1 << shift;
        }
        if counts.len() > 2 {
            number += counts[counts.len() - 2];
        }
        counts.push(number);
        (number, shift) = (0, 0);
    }
    if shift > 0 {
        return Err(damaged());
    }
    counts.into_iter().map(|count| u64::try_from(count).map_err(|_| damaged())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of a picture's marks, a `#` for each marked pixel.
    fn marked(size: [usize; 2], segmentation: &str) -> Result<String, String> {
        let segmentation = serde_json::from_str(segmentation).map_err(|error| error.to_string())?;
        let mut marks = Marks::none(size[0], size[1]);
        marks.add(&segmentation)?;
        let row = |row: &[u8]| -> String {
            row.iter().map(|pixel| if *pixel == 0 { '.' } else { '#' }).collect()
        };
        Ok(marks.pixels.chunks(size[0]).map(row).collect::<Vec<_>>().join("/"))
    }

    #[test]
    fn shapes_become_pixels() {
        for (size, segmentation, expected) in [
            // A square whose corners lie between pixels, and one that is cut off on all sides.
            ([4, 3], "[[1, 0, 3, 0, 3, 2, 1, 2]]", ".##./.##./...."),
            ([2, 2], "[[-5, -5, 9, -5, 9, 9, -5, 9]]", "##/##"),
            // Two that touch share no pixel, and two that overlap are united.
            ([4, 1], "[[0, 0, 2, 0, 2, 1, 0, 1], [2, 0, 3, 0, 3, 1, 2, 1]]", "###."),
            ([4, 1], "[[0, 0, 3, 0, 3, 1, 0, 1], [1, 0, 3, 0, 3, 1, 1, 1]]", "###."),
            // A ring in one stroke: what lies between its two rounds.
            (
                [5, 5],
                "[[0,0, 5,0, 5,5, 0,5, 0,0, 1,1, 4,1, 4,4, 1,4, 1,1]]",
                "#####/#...#/#...#/#...#/#####",
            ),
            ([3, 3], "[[0, 0, 3, 0, 0, 3]]", "##./#../..."),
            ([3, 2], r#"{"size": [2, 3], "counts": [1, 2, 3]}"#, ".#./#.."),
            ([3, 2], r#"{"size": [2, 3], "counts": [0, 6]}"#, "###/###"),
            ([3, 2], r#"{"size": [2, 3], "counts": "123"}"#, ".#./#.."),
        ] {
            let found = marked(size, segmentation).unwrap();
            assert_eq!(found, expected, "{segmentation}");
        }
    }

    #[test]
    fn strings_are_numbers_of_five_bits() {
        for (text, expected) in [
            ("", Some(vec![])),
            ("0", Some(vec![0])),
            ("123", Some(vec![1, 2, 3])),
            // The fourth is told from the second.
            ("1234", Some(vec![1, 2, 3, 6])),
            // 32 needs two characters: no bits with more to come, then 1.
            ("P1", Some(vec![32])),
            // A sign: -1 as a difference, which 5 - 1 is.
            ("151O", Some(vec![1, 5, 1, 4])),
            ("O", None),
            ("P", None),
            ("PPPPPPPPPP1", None),
            ("é", None),
            (" ", None),
        ] {
            assert_eq!(unpack(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn what_marks_nothing_that_could_be_is_refused() {
        for (segmentation, word) in [
            ("[]", "no polygon"),
            ("[[0, 0, 1, 1]]", "three corners"),
            ("[[0, 0, 1, 1, 2]]", "three corners"),
            ("[[0, 0, 1, 1, 1e9, 0]]", "further"),
            ("[[0, 0, 1, 1, 1e999, 0]]", "out of range"),
            (r#"{"size": [3, 2], "counts": [6]}"#, "2 by 3 pixels"),
            (r#"{"size": [2, 3], "counts": [5]}"#, "sum up"),
            (r#"{"size": [2, 3], "counts": [18446744073709551615, 7]}"#, "sum up"),
            (r#"{"size": [2, 3], "counts": "~~"}"#, "damaged"),
            (r#"{"size": [2, 3]}"#, "polygons, or run lengths"),
            ("7", "polygons, or run lengths"),
        ] {
            let error = marked([3, 2], segmentation).unwrap_err();
            assert!(error.contains(word), "{segmentation}: {error}");
        }
    }
}
