//! Region growing by one seed's value, and region growing that keeps two places apart.

use serde::{Deserialize, Serialize};

use super::neighbourhood::Connectivity;
use super::region::{Voxel, grow, indices};
use crate::error::ImagingError;
use crate::volume::{Image, Mask};

/// The most steps of the search in [`isolated_connected`].
const STEPS_MAX: usize = 200;

/// What a flood spreads through.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Flood {
    /// How far a value may lie from the seed's, in the image's units.
    pub tolerance: f32,
    /// Which voxels are connected. Default: those that share a face.
    pub connectivity: Connectivity,
}

/// Returns the voxels connected to a seed whose values differ from that seed's by at most the
/// tolerance; of several seeds, the union of their floods. `skimage.segmentation.flood`.
pub fn flood(image: &Image, seeds: &[Voxel], parameters: &Flood) -> Result<Mask, ImagingError> {
    let Flood { tolerance, connectivity } = *parameters;
    if tolerance.is_nan() || tolerance < 0.0 {
        let problem = format!("tolerance is {tolerance}; it must be 0 or more");
        return Err(ImagingError::Parameter { operation: "flood", problem });
    }
    let mut all = Mask::filled(image.geometry, 0);
    for seed in indices(&image.geometry, seeds, "flood")? {
        let centre = image.voxels[seed];
        // A seed of the same value within a flood has the same flood.
        if all.voxels[seed] != 0 && tolerance == 0.0 {
            continue;
        }
        let (lower, upper) = (centre - tolerance, centre + tolerance);
        let one = grow(image, &[seed], connectivity, (lower, upper));
        one.stretches().for_each(|stretch| all.voxels[stretch].fill(1));
    }
    Ok(all)
}

/// How to keep two places apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Isolated {
    /// The least value of the region.
    pub lower: f32,
    /// The greatest value of the region, where it may go furthest.
    pub upper: f32,
    /// How exactly the parting threshold is found, in the image's units. Default: 1, as ITK.
    pub tolerance: f32,
    /// Which of the two limits moves. Default: the upper one, as ITK.
    pub search: Search,
}

/// Which limit of an isolated region is searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Search {
    /// The greatest value: for bright regions joined by darker bridges it is `Lower` that helps.
    #[default]
    Upper,
    /// The least value.
    Lower,
}

/// A region and the threshold that isolates it.
#[derive(Debug, Clone, PartialEq)]
pub struct IsolatedRegion {
    /// The region.
    pub mask: Mask,
    /// The threshold that was found for the limit that was searched.
    pub threshold: f32,
    /// Whether all of the first seeds lie in the region and none of the second.
    pub isolated: bool,
}

/// Returns the region that is face-connected to the first seeds, within limits of which one is
/// moved as far as the second seeds stay outside: ITK's `IsolatedConnectedImageFilter`.
pub fn isolated_connected(
    image: &Image,
    first: &[Voxel],
    second: &[Voxel],
    parameters: &Isolated,
) -> Result<IsolatedRegion, ImagingError> {
    const NAME: &str = "isolated_connected";
    let Isolated { lower, upper, tolerance, search } = *parameters;
    let sound = lower <= upper && tolerance > 0.0 && (upper - lower).is_finite();
    if !sound || first.is_empty() || second.is_empty() {
        return Err(ImagingError::Parameter {
            operation: NAME,
            problem: format!(
                "lower is {lower}, upper {upper}, tolerance {tolerance}, with {} first and {} \
                 second seeds; lower <= upper, a positive tolerance and seeds of both kinds are \
                 needed",
                first.len(),
                second.len()
            ),
        });
    }
    let first = indices(&image.geometry, first, NAME)?;
    let second = indices(&image.geometry, second, NAME)?;
    let region = |lower: f32, upper: f32| {
        let region = grow(image, &first, Connectivity::Face, (lower, upper));
        Mask { geometry: image.geometry, voxels: region.paint() }
    };
    let joined = |mask: &Mask| second.iter().any(|&seed| mask.voxels[seed] != 0);
    let (mut low, mut high) = (f64::from(lower), f64::from(upper));
    let reach = f64::from(tolerance);
    let mut guess = if search == Search::Upper { high } else { low };
    for _ in 0..STEPS_MAX {
        let limits = match search {
            Search::Upper if low + reach < guess => (lower, guess as f32),
            Search::Lower if guess < high - reach => (guess as f32, upper),
            _ => break,
        };
        let too_wide = joined(&region(limits.0, limits.1));
        *if too_wide == (search == Search::Upper) { &mut high } else { &mut low } = guess;
        guess = f64::midpoint(high, low);
    }
    let (threshold, mask) = match search {
        Search::Upper => (low as f32, region(lower, low as f32)),
        Search::Lower => (high as f32, region(high as f32, upper)),
    };
    let isolated = !joined(&mask) && first.iter().all(|&seed| mask.voxels[seed] != 0);
    Ok(IsolatedRegion { mask, threshold, isolated })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    fn line(values: &[f32]) -> Image {
        Image::new(Geometry::unit([values.len(), 1, 1]), values.to_vec()).unwrap()
    }

    #[test]
    fn a_flood_keeps_to_its_seeds_value() {
        let image = line(&[10.0, 12.0, 15.0, 11.0, f32::NAN, 10.0]);
        for (tolerance, seed, expected) in [
            (2.0, 0, [1, 1, 0, 0, 0, 0]),
            (5.0, 0, [1, 1, 1, 1, 0, 0]),
            (0.0, 5, [0, 0, 0, 0, 0, 1]),
            (9.0, 4, [0; 6]),
        ] {
            let parameters = Flood { tolerance, connectivity: Connectivity::Face };
            let mask = flood(&image, &[[seed, 0, 0]], &parameters).unwrap();
            assert_eq!(mask.voxels, expected, "{tolerance} from {seed}");
        }
        let wrong = Flood { tolerance: f32::NAN, connectivity: Connectivity::Face };
        assert!(flood(&image, &[[0; 3]], &wrong).is_err());
    }

    #[test]
    fn a_bridge_is_cut_where_it_is_thinnest() {
        let image = line(&[100.0, 110.0, 60.0, 105.0, 100.0]);
        let parameters =
            Isolated { lower: 0.0, upper: 200.0, tolerance: 1.0, search: Search::Lower };
        let found = isolated_connected(&image, &[[0; 3]], &[[4, 0, 0]], &parameters).unwrap();
        assert!(found.isolated && found.threshold > 60.0 && found.threshold < 62.0);
        assert_eq!(found.mask.voxels, [1, 1, 0, 0, 0]);
        // Equal values all the way cannot be parted.
        let flat = line(&[5.0; 4]);
        let found = isolated_connected(&flat, &[[0; 3]], &[[3, 0, 0]], &parameters).unwrap();
        assert!(!found.isolated);
        assert!(isolated_connected(&flat, &[], &[[3, 0, 0]], &parameters).is_err());
    }
}
