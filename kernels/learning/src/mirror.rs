//! Mirroring while predicting: a network sees an image as it is and from the other side, and what it
//! says of both is averaged (as nnU-Net does, Isensee et al. 2021).
//!
//! A model says by itself whether it is used so, since what it was measured with is what it should be
//! used with. Sides are exchanged left to right alone, as they are while it learns: a network that has
//! never seen patients upside down says nothing of them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::LearningError;

/// From which sides a model looks at an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mirroring {
    /// As the image is.
    #[default]
    None,
    /// As it is, and mirrored left to right: twice the work.
    LeftRight,
}

impl Mirroring {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::None, Self::LeftRight];

    /// Its name in settings and commands.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::LeftRight => "left-right",
        }
    }

    /// Whether it is none, which records do not write.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// By how much the label leads the background in each voxel of patches whose rows have so many
    /// voxels, or in each patch: the mean over the sides. `see` says it of one side; the first it is
    /// asked for is the image as it is.
    pub(crate) fn lead(
        self,
        patches: Vec<f32>,
        row: usize,
        mut see: impl FnMut(Vec<f32>, Side) -> Result<Vec<f32>, LearningError>,
    ) -> Result<Vec<f32>, LearningError> {
        if self == Self::None {
            return see(patches, Side::Straight);
        }
        let mut turned = patches.clone();
        turn(&mut turned, row);
        let voxels = turned.len();
        let mut lead = see(patches, Side::Straight)?;
        let mut other = see(turned, Side::Mirrored)?;
        // What is said of a whole patch has no sides.
        if other.len() == voxels {
            turn(&mut other, row);
        }
        lead.iter_mut().zip(other).for_each(|(one, other)| *one = f32::midpoint(*one, other));
        Ok(lead)
    }
}

/// How an image is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Straight,
    Mirrored,
}

impl FromStr for Mirroring {
    type Err = LearningError;

    fn from_str(text: &str) -> Result<Self, LearningError> {
        crate::engine::word("mirroring", text, &Self::ALL.map(|one| (one.word(), one)))
    }
}

/// Mirrors rows of so many voxels, each in itself.
fn turn(voxels: &mut [f32], row: usize) {
    voxels.chunks_exact_mut(row).for_each(<[f32]>::reverse);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says of each voxel its own value and twice that of the voxel before it in its row: a network
    /// that tells left from right.
    #[allow(clippy::needless_pass_by_value, clippy::unnecessary_wraps, reason = "as it is asked")]
    fn see(patches: Vec<f32>, _: Side) -> Result<Vec<f32>, LearningError> {
        let one = |row: &[f32]| {
            let before = std::iter::once(0.0).chain(row.iter().copied());
            row.iter().zip(before).map(|(own, before)| own + 2.0 * before).collect::<Vec<f32>>()
        };
        Ok(patches.chunks_exact(3).flat_map(one).collect())
    }

    #[test]
    fn both_sides_count_alike() {
        let patches = vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
        let straight = Mirroring::None.lead(patches.clone(), 3, see).unwrap();
        assert_eq!(straight, [1.0, 4.0, 8.0, 8.0, 32.0, 64.0]);
        // From the other side the neighbour behind counts: 1 + 2 × 2, 2 + 2 × 4, 4.
        let both = Mirroring::LeftRight.lead(patches.clone(), 3, see).unwrap();
        assert_eq!(both, [3.0, 7.0, 6.0, 24.0, 56.0, 48.0]);
        let mut turned = patches;
        turn(&mut turned, 3);
        let mut other = Mirroring::LeftRight.lead(turned, 3, see).unwrap();
        turn(&mut other, 3);
        assert_eq!(other, both, "which side came first does not matter");
    }

    #[test]
    fn what_is_said_of_a_whole_patch_is_averaged_as_it_is() {
        let first = |patches: Vec<f32>, side: Side| {
            assert_eq!(side == Side::Straight, patches[0] < patches[2]);
            Ok(patches.chunks_exact(3).map(|patch| patch[0]).collect())
        };
        let lead = Mirroring::LeftRight.lead(vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0], 3, first);
        assert_eq!(lead.unwrap(), [2.5, 20.0]);
    }

    #[test]
    fn words_are_read_back() {
        for one in Mirroring::ALL {
            assert_eq!(one.word().parse::<Mirroring>().unwrap(), one);
            assert_eq!(serde_json::to_value(one).unwrap(), one.word());
        }
        let sentence = "both".parse::<Mirroring>().unwrap_err().to_string();
        assert!(sentence.contains("none, left-right"), "{sentence}");
    }
}
