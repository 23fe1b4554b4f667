//! Segmentation by edges: objects are what closed edges part from the border of the image.
//!
//! Canny's edges, slice by slice; gaps in them closed; the background flooded from the border of
//! each slice; what it cannot reach, edges included, is object; of the objects' components, those
//! of the right size and place are kept.

use serde::{Deserialize, Serialize};

use super::canny::{self, Canny};
use super::components::{self, Filter};
use super::crop::{self, Bounds};
use super::gaussian::check_sigma;
use super::morphology::{self, Ball};
use super::neighbourhood::Space;
use crate::error::ImagingError;
use crate::volume::{Image, Mask};

/// How to find objects by their edges.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EdgeSegmentation {
    /// What makes an edge.
    pub canny: Canny,
    /// Gaps in edges up to about twice this wide are closed, in millimetres. Rounded to voxels of
    /// the spacing along x, at least one unless it is 0. Default: 2 mm.
    pub gap_mm: f64,
    /// The value of what lies beyond the sides of the image: -1000 for CT. Where it is given, an
    /// object that the border cuts has an edge there. Default: not given; objects that reach the
    /// border are open there, and flooded.
    pub outside: Option<f32>,
    /// Which components to keep. Default: all.
    pub keep: Filter,
}

impl Default for EdgeSegmentation {
    fn default() -> Self {
        Self { canny: Canny::default(), gap_mm: 2.0, outside: None, keep: Filter::default() }
    }
}

/// Returns the objects that edges enclose.
pub fn edge_segmentation(
    image: &Image,
    parameters: &EdgeSegmentation,
) -> Result<Mask, ImagingError> {
    let EdgeSegmentation { canny, gap_mm, outside, keep } = parameters;
    let gap_voxels = match gap_mm / image.geometry.spacing_mm[0] {
        0.0 => 0,
        gap => gap.round().max(1.0) as usize,
    };
    let Some(outside) = *outside else {
        return Ok(components::filter(&objects(image, canny, gap_voxels)?, keep));
    };
    // Wide enough for the Gaussian, and for closing, to see nothing of the padding's own border.
    let sigma_voxels =
        canny.sigma_mm / image.geometry.spacing_mm[0].min(image.geometry.spacing_mm[1]);
    check_sigma("edge_segmentation", sigma_voxels)?;
    let wide = (4.0 * sigma_voxels).ceil() as usize + gap_voxels + 2;
    let from = [wide, wide, 0];
    let objects = objects(&crop::pad(image, from, outside)?, canny, gap_voxels)?;
    let to = [0, 1, 2].map(|axis| from[axis] + image.geometry.size[axis]);
    let cut = crop::crop(&objects, &Bounds { from, to })?;
    Ok(components::filter(&Mask { geometry: image.geometry, ..cut }, keep))
}

/// Returns what edges enclose, slice by slice.
fn objects(image: &Image, edges: &Canny, gap_voxels: usize) -> Result<Mask, ImagingError> {
    let edges = Canny { space: Space::Slice, ..*edges };
    enclosed(&canny::canny(image, &edges)?, gap_voxels)
}

/// Returns what lines enclose that have gaps of up to twice as many voxels, slice by slice, lines
/// included.
fn enclosed(edges: &Mask, gap_voxels: usize) -> Result<Mask, ImagingError> {
    let gap = Ball { radius_voxels: gap_voxels, space: Space::Slice };
    // Closing would not do: a ball fits through any gap in a line as thin as an edge. So edges are
    // thickened until they meet, and objects are thinned by as much once they are filled.
    let walls = morphology::dilate(edges, &gap)?;
    let objects = morphology::erode(&morphology::fill_holes(&walls, Space::Slice), &gap)?;
    // Edges that enclose nothing are thinner than any object.
    let thin = Ball { radius_voxels: gap_voxels.max(1), space: Space::Slice };
    morphology::open(&objects, &thin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    #[test]
    fn gaps_up_to_twice_the_limit_are_closed() {
        // A square of lines around 9 × 9 pixels, with a gap in the middle of one side.
        for (gap, closed_by, filled) in
            [(0usize, 0, true), (1, 0, false), (1, 1, true), (4, 2, true), (6, 2, false)]
        {
            let mut edges = Mask::filled(Geometry::unit([25, 25, 1]), 0);
            for k in 7..18 {
                for [x, y] in [[k, 7], [k, 17], [7, k], [17, k]] {
                    let index = edges.geometry.index(x, y, 0);
                    let in_gap = y == 7 && (12 - gap / 2..12 + gap.div_ceil(2)).contains(&x);
                    edges.voxels[index] = u8::from(!in_gap);
                }
            }
            let found = *enclosed(&edges, closed_by).unwrap().at(12, 12, 0) == 1;
            assert_eq!(found, filled, "a gap of {gap}, closed by {closed_by}");
        }
    }

    #[test]
    fn finds_a_disk_and_drops_a_line() {
        let geometry = Geometry::unit([64, 64, 1]);
        let mut image = Image::filled(geometry, 0.0);
        for (index, value) in image.voxels.iter_mut().enumerate() {
            let [x, y, _] = geometry.position(index);
            let radius = (x as f32 - 32.0).hypot(y as f32 - 30.0);
            let on_line = y == 58 && x > 5 && x < 60;
            *value = if radius < 18.0 || on_line { 100.0 } else { 0.0 };
        }
        let parameters = EdgeSegmentation {
            canny: Canny { low: 40.0, high: 120.0, ..Canny::default() },
            ..EdgeSegmentation::default()
        };
        let found = edge_segmentation(&image, &parameters).unwrap();
        let disk = std::f64::consts::PI * 18.0 * 18.0;
        let area = found.count() as f64;
        assert!((area / disk - 1.0).abs() < 0.12, "{area} of {disk}");
        assert_eq!(*found.at(32, 30, 0), 1);
        assert_eq!(*found.at(32, 58, 0), 0);
        // Cut in half by the border, the disk is open, unless what is beyond is known.
        let bounds = Bounds { from: [32, 0, 0], to: [64, 64, 1] };
        let half = crop::crop(&image, &bounds).unwrap();
        let open = edge_segmentation(&half, &parameters).unwrap();
        assert!(open.count() < 40, "{}", open.count());
        let parameters = EdgeSegmentation { outside: Some(0.0), ..parameters };
        let closed = edge_segmentation(&half, &parameters).unwrap();
        assert_eq!(closed.geometry, half.geometry);
        let ratio = closed.count() as f64 / (disk / 2.0);
        assert!((ratio - 1.0).abs() < 0.12, "{ratio}");
    }
}
