//! From a series to its prediction in the library.

use std::fmt::Display;

use gantry_imaging::dicom::{self, SegmentationHead};
use gantry_learning::{Predictor, Slices};
use gantry_library::{Library, PredictionDraft, PredictionId, SeriesId};
use serde_json::json;

use crate::samples::{self, SeriesVolume};

/// A prediction that was made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Made {
    pub(crate) id: PredictionId,
    /// What was found, in words.
    pub(crate) said: String,
    /// The volume that was marked; nothing of a model that marks none.
    pub(crate) volume_ml: Option<f64>,
}

/// Predicts a series and keeps what came out. `between` is called between two steps.
pub(crate) fn make(
    library: &Library,
    predictor: &Predictor,
    series: &SeriesId,
    between: &mut dyn FnMut(),
) -> Result<Made, String> {
    let SeriesVolume { image, instances, .. } = samples::volume(library, series)?;
    between();
    let result = predictor.predict(&image).map_err(words)?;
    between();
    let head = SegmentationHead {
        label: predictor.label().to_owned(),
        algorithm: format!("gantry {}", predictor.model()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        made: date_time(gantry_library::now_ms() / 1000),
    };
    let marked = result.mask.voxels.iter().any(|voxel| *voxel != 0);
    let segmentation = if marked {
        Some(dicom::segmentation(&result.mask, &instances, &head).map_err(words)?)
    } else {
        None
    };
    let mut findings = json!({
        "label": predictor.label(),
        "model": predictor.model(),
        "use": "research only, no diagnosis",
    });
    let classes = result.slices.as_ref().and_then(Slices::first);
    let (said, volume_ml) = if let Some((slice, probability)) = classes {
        findings["probability"] = json!((f64::from(probability) * 1000.0).round() / 1000.0);
        // As a viewer counts them.
        findings["slice"] = json!(slice + 1);
        (format!("probability {probability:.2}, most in slice {}", slice + 1), None)
    } else {
        findings["volume_ml"] = json!((result.volume_ml * 10.0).round() / 10.0);
        let said = format!("{:.1} ml, confidence {:.2}", result.volume_ml, result.confidence);
        (said, Some(result.volume_ml))
    };
    let draft = PredictionDraft {
        series: series.clone(),
        model: predictor.model().clone(),
        mask: samples::nifti_mask(&result.mask)?,
        segmentation,
        volume_ml: result.volume_ml,
        confidence: result.confidence,
        embedding: result.embedding,
        findings,
    };
    let id = library.add_prediction(draft).map_err(words)?;
    Ok(Made { id, said, volume_ml })
}

fn words(error: impl Display) -> String {
    error.to_string()
}

/// Seconds since 1970 as `YYYYMMDDhhmmss`, UTC. The date is by Howard Hinnant's "chrono-compatible
/// low-level date algorithms" (2013), `civil_from_days`, for days after 1970.
pub(crate) fn date_time(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{:02}", second % 60)
}

#[cfg(test)]
mod tests {
    use super::date_time;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "19700101000000"),
            (951_782_399, "20000228235959"),
            (951_782_400, "20000229000000"),
            (4_107_542_399, "21000228235959"),
            (1_795_478_400, "20261124000000"),
        ] {
            assert_eq!(date_time(seconds), text);
        }
    }
}
