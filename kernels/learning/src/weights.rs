//! Numbers with names: the weights of a network and the moments of its optimizer.
//!
//! They are kept as plain `f32` vectors in the order of their names, and move to and from tensors
//! for each step: at 10⁵ weights that costs microseconds, and makes initialisation, optimizer and
//! checkpoints independent of the engine. Files are safetensors, whose bytes depend on nothing but
//! names, shapes and values.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use safetensors::tensor::{Dtype, SafeTensors, View};

use crate::error::LearningError;
use crate::network::Network;

/// The most numbers in a file: 4 GiB of `f32`.
const VALUES_MAX: usize = 1 << 30;

/// One array.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parameter {
    /// Its shape, as `PyTorch` has it.
    pub(crate) shape: Vec<usize>,
    /// Its values, the last axis fastest.
    pub(crate) values: Vec<f32>,
}

/// Arrays by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Weights(pub(crate) BTreeMap<String, Parameter>);

impl Weights {
    /// Arrays of the same names and shapes, full of zeros.
    pub(crate) fn zeros_like(other: &Self) -> Self {
        let zero = |parameter: &Parameter| Parameter {
            shape: parameter.shape.clone(),
            values: vec![0.0; parameter.values.len()],
        };
        Self(other.0.iter().map(|(name, parameter)| (name.clone(), zero(parameter))).collect())
    }

    /// Those that a network has.
    pub(crate) fn of(&self, network: &Network) -> Self {
        let wanted: BTreeSet<String> =
            network.graph().parameters().into_iter().map(|(name, ..)| name).collect();
        let own = self.0.iter().filter(|(name, _)| wanted.contains(*name));
        Self(own.map(|(name, parameter)| (name.clone(), parameter.clone())).collect())
    }

    /// Whether every number is finite.
    pub(crate) fn is_finite(&self) -> bool {
        self.0.values().flat_map(|parameter| &parameter.values).all(|value| value.is_finite())
    }

    /// Refuses arrays whose names or shapes are not those of `wanted`.
    pub(crate) fn require_shapes_of(&self, wanted: &Self) -> Result<(), LearningError> {
        for (name, parameter) in &wanted.0 {
            match self.0.get(name) {
                Some(found) if found.shape == parameter.shape => {}
                Some(found) => {
                    return Err(LearningError::Damaged(format!(
                        "weight {name} has shape {:?}, the network needs {:?}",
                        found.shape, parameter.shape
                    )));
                }
                None => return Err(LearningError::Damaged(format!("weight {name} is missing"))),
            }
        }
        if self.0.len() != wanted.0.len() {
            return Err(LearningError::Damaged(format!(
                "{} weights are there, the network has {}",
                self.0.len(),
                wanted.0.len()
            )));
        }
        Ok(())
    }

    /// The bytes of a safetensors file with these arrays, and a text beside them.
    pub(crate) fn to_safetensors(
        &self,
        text: Option<(&str, &str)>,
    ) -> Result<Vec<u8>, LearningError> {
        // One entry at most: the format's writer keeps them in a hash map, whose order varies.
        let information =
            text.map(|(key, value)| HashMap::from([(key.to_owned(), value.to_owned())]));
        safetensors::serialize(&self.0, information)
            .map_err(|error| LearningError::Damaged(format!("weights cannot be written: {error}")))
    }

    /// Reads what [`Weights::to_safetensors`] wrote: the arrays, and the text of a key.
    pub(crate) fn from_safetensors(
        bytes: &[u8],
        key: &str,
    ) -> Result<(Self, Option<String>), LearningError> {
        let damaged = |why: String| LearningError::Damaged(format!("weights are damaged: {why}"));
        if bytes.len() / 4 > VALUES_MAX {
            return Err(damaged(format!("{} bytes are more than is read", bytes.len())));
        }
        let (_, header) =
            SafeTensors::read_metadata(bytes).map_err(|error| damaged(error.to_string()))?;
        let text = header.metadata().as_ref().and_then(|all| all.get(key).cloned());
        let file = SafeTensors::deserialize(bytes).map_err(|error| damaged(error.to_string()))?;
        let mut all = BTreeMap::new();
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(damaged(format!("{name} is {:?}, not F32", view.dtype())));
            }
            let values = view.data().as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect();
            all.insert(name.to_owned(), Parameter { shape: view.shape().to_vec(), values });
        }
        Ok((Self(all), text))
    }
}

impl View for &Parameter {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into()
    }

    fn data_len(&self) -> usize {
        self.values.len() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Weights {
        let parameter = Parameter { shape: vec![2, 2], values: vec![1.5, -0.0, 1e-40, f32::MAX] };
        Weights(BTreeMap::from([("a.kernel".to_owned(), parameter)]))
    }

    #[test]
    fn read_back_bit_for_bit() {
        let bytes = some().to_safetensors(Some(("state", "{}"))).unwrap();
        let (back, text) = Weights::from_safetensors(&bytes, "state").unwrap();
        assert_eq!((back, text.as_deref()), (some(), Some("{}")));
        assert_eq!(bytes, some().to_safetensors(Some(("state", "{}"))).unwrap());
    }

    #[test]
    fn cut_and_wrong_files_are_refused() {
        let bytes = some().to_safetensors(None).unwrap();
        for length in 0..bytes.len() {
            assert!(Weights::from_safetensors(&bytes[..length], "").is_err(), "{length}");
        }
        let mut other = some();
        other.0.values_mut().for_each(|parameter| parameter.shape = vec![4]);
        let sentence = other.require_shapes_of(&some()).unwrap_err().to_string();
        assert!(sentence.contains("[4]") && sentence.contains("[2, 2]"), "{sentence}");
        assert!(Weights::default().require_shapes_of(&some()).is_err());
        assert!(some().require_shapes_of(&Weights::default()).is_err());
    }
}
