//! Segmentation by edges: objects are what closed edges part from the border of the image.
//!
//! Canny's edges, slice by slice; gaps in them closed; the background flooded from the border of
//! each slice; what it cannot reach, edges included, is object; of the objects' components, those
//! of the right size and place are kept.

use serde::{Deserialize, Serialize};

use super::components::{self, Filter};
use super::edges::{self, Canny};
use super::morphology::{self, Ball};
use super::neighbourhood::Space;
use crate::error::ImagingError;
use crate::volume::{Image, Mask};

/// How to find objects by their edges.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EdgeSegmentation {
    /// What makes an edge.
    pub canny: Canny,
    /// Gaps in edges up to about twice this many voxels are closed. Default: 2.
    pub gap_voxels: usize,
    /// Which components to keep. Default: all.
    pub keep: Filter,
}

impl Default for EdgeSegmentation {
    fn default() -> Self {
        Self { canny: Canny::default(), gap_voxels: 2, keep: Filter::default() }
    }
}

/// Returns the objects that edges enclose.
pub fn edge_segmentation(
    image: &Image,
    parameters: &EdgeSegmentation,
) -> Result<Mask, ImagingError> {
    let EdgeSegmentation { canny, gap_voxels, keep } = parameters;
    let edges = edges::canny(image, canny)?;
    let gap = Ball { radius_voxels: *gap_voxels, space: Space::Slice };
    let closed = morphology::close(&edges, &gap)?;
    let objects = morphology::fill_holes(&closed, Space::Slice);
    // Edges that enclose nothing are thinner than any object.
    let thin = Ball { radius_voxels: (*gap_voxels).max(1), space: Space::Slice };
    let solid = morphology::open(&objects, &thin)?;
    Ok(components::filter(&solid, keep))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

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
            canny: Canny { sigma_mm: 1.0, low: 40.0, high: 120.0 },
            ..EdgeSegmentation::default()
        };
        let found = edge_segmentation(&image, &parameters).unwrap();
        let disk = std::f64::consts::PI * 18.0 * 18.0;
        let area = found.count() as f64;
        assert!((area / disk - 1.0).abs() < 0.12, "{area} of {disk}");
        assert_eq!(*found.at(32, 30, 0), 1);
        assert_eq!(*found.at(32, 58, 0), 0);
    }
}
