//! `PyTorch` as an engine: one process for each GPU of the task, or one on the CPU.
//!
//! Each rank computes its share of a batch; sums over the ranks make the loss and the gradients those
//! of the whole batch, so that a gang learns what one rank would have learnt.

use std::collections::VecDeque;
use std::ops::Range;

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::launch::{self, Hello, Processes};
use super::link::{Array, Link};
use super::surroundings::Surroundings;
use super::{Engine, Precision, Seen, Stepped};
use crate::checkpoint::Checkpoint;
use crate::data::Batch;
use crate::error::LearningError;
use crate::network::{Network, Patch, Task};
use crate::optimizer::{self, Moments, Step};
use crate::weights::{Parameter, Weights};

/// Bits of a number that every rank's arithmetic keeps.
const DIGEST_BITS: u32 = 52;

/// The processes of a task.
pub(super) struct Torch {
    links: Vec<Link>,
    hello: Vec<Hello>,
    precision: Precision,
    /// The rank of the first of them, and how many ranks there are.
    first: usize,
    of: usize,
    network: Network,
    patch: Patch,
    /// How many images the steps have whose images were offered.
    offered: VecDeque<usize>,
    /// Dropped last: the processes end once nobody speaks to them.
    _processes: Processes,
}

/// What a rank says of a step.
#[derive(Deserialize)]
struct Said {
    /// Nothing where it is no number.
    loss: Option<f32>,
    finite: bool,
    waited_s: f64,
    memory_mib: u64,
}

impl Torch {
    pub(super) fn start(
        checkpoint: &Checkpoint,
        network: Network,
        around: &Surroundings,
    ) -> Result<Self, LearningError> {
        let settings = &checkpoint.state.settings;
        let (processes, all) = launch::start(around)?;
        let (hello, links): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let precision = match settings.precision {
            Precision::Auto if hello.iter().all(|one| one.bf16) => Precision::Bf16,
            Precision::Auto => Precision::Fp32,
            asked => asked,
        };
        let (first, of) = around.ranks();
        let (patch, offered) = (settings.patch(), VecDeque::new());
        let mut torch = Self {
            links,
            hello,
            precision,
            first,
            of,
            network,
            patch,
            offered,
            _processes: processes,
        };
        torch.begin(checkpoint)?;
        Ok(torch)
    }

    /// What trains, in words.
    pub(super) fn words(&self) -> String {
        let Some(one) = self.hello.first() else { return String::new() };
        let bits = if self.precision == Precision::Bf16 { "bf16" } else { "fp32" };
        let (count, device, version) = (self.hello.len(), &one.device, &one.torch);
        let ranks = if self.of > count {
            format!(", ranks {} to {} of {}", self.first, self.first + count - 1, self.of)
        } else {
            String::new()
        };
        format!("engine: PyTorch {version} on {count} × {device}, {bits}{ranks}")
    }

    fn begin(&mut self, checkpoint: &Checkpoint) -> Result<(), LearningError> {
        let Checkpoint { state, weights, moments, .. } = checkpoint;
        let parts = [("weights", weights), ("first", &moments.first), ("second", &moments.second)];
        let average = moments.average.as_ref().map(|average| ("average", average));
        let named: Vec<(String, &Parameter)> = parts
            .into_iter()
            .chain(average)
            .flat_map(|(part, arrays)| {
                arrays.0.iter().map(move |(name, array)| (format!("{part}.{name}"), array))
            })
            .collect();
        let arrays: Vec<(&str, Array<'_>)> = named
            .iter()
            .map(|(name, array)| (name.as_str(), Array::F32(&array.shape, &array.values)))
            .collect();
        let header = json!({
            "kind": "begin",
            "graph": self.network.graph(),
            "classes": self.network.classes,
            "dice": self.network.kind.task() == Task::Segmentation,
            "precision": self.precision,
            "digest": digest(&serde_json::to_vec(state).unwrap_or_default()),
            "decays": [optimizer::FIRST_DECAY, optimizer::SECOND_DECAY],
            "epsilon": optimizer::EPSILON,
        });
        for link in &mut self.links {
            link.send(header.clone(), &arrays)?;
        }
        self.answers().map(drop)
    }

    /// Waits for a message of each process.
    fn answers(&mut self) -> Result<Vec<Value>, LearningError> {
        self.links.iter_mut().map(|link| Ok(link.receive()?.0)).collect()
    }

    /// The images of a rank, of so many.
    fn of_rank(&self, rank: usize, images: usize) -> Range<usize> {
        images * rank / self.of..images * (rank + 1) / self.of
    }

    fn tell_all(&mut self, header: &Value) -> Result<Vec<Value>, LearningError> {
        for link in &mut self.links {
            link.send(header.clone(), &[])?;
        }
        self.answers()
    }
}

impl Engine for Torch {
    fn is_first(&self) -> bool {
        self.first == 0
    }

    fn share(&self, images: usize) -> Range<usize> {
        let last = self.first + self.links.len() - 1;
        self.of_rank(self.first, images).start..self.of_rank(last, images).end
    }

    fn agree(&mut self, flag: bool) -> Result<bool, LearningError> {
        if self.of == 1 {
            return Ok(flag);
        }
        let answers = self.tell_all(&json!({ "kind": "agree", "flag": flag }))?;
        Ok(answers.iter().any(|answer| answer["agreed"] == true))
    }

    fn offer(&mut self, batch: Batch, all: usize) -> Result<(), LearningError> {
        let share = self.share(all);
        let labels = self.network.labels(self.patch);
        for place in 0..self.links.len() {
            let Range { start, end } = self.of_rank(self.first + place, all);
            let part = |each: usize| (start - share.start) * each..(end - share.start) * each;
            let shape = self.patch.shape(self.network.kind.axes(), end - start);
            let images = &batch.images[part(self.patch.voxels())];
            let arrays = [
                ("images", Array::F32(&shape, images)),
                ("labels", Array::U8(&[end - start, labels], &batch.labels[part(labels)])),
            ];
            self.links[place].send(json!({ "kind": "images" }), &arrays)?;
        }
        self.offered.push_back(all);
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<Stepped, LearningError> {
        let images = self.offered.pop_front().unwrap_or_default();
        let answers = self.tell_all(&json!({
            "kind": "step",
            "number": step.number,
            "rate": step.rate,
            "decay": step.decay,
            "average": step.average,
            "pixels": images * self.network.labels(self.patch),
        }))?;
        let said: Vec<Said> = answers
            .into_iter()
            .map(serde_json::from_value)
            .collect::<Result<_, _>>()
            .map_err(|error| LearningError::Engine(format!("PyTorch's step: {error}")))?;
        Ok(Stepped {
            loss: said.first().and_then(|one| one.loss).unwrap_or(f32::NAN),
            finite: said.iter().all(|one| one.finite),
            waited_s: Some(said.iter().map(|one| one.waited_s).fold(0.0, f64::max)),
            memory_mib: said.iter().map(|one| one.memory_mib).max().unwrap_or_default(),
        })
    }

    fn show(&mut self, weights: &Weights) -> Result<(), LearningError> {
        let arrays: Vec<(&str, Array<'_>)> = weights
            .0
            .iter()
            .map(|(name, array)| (name.as_str(), Array::F32(&array.shape, &array.values)))
            .collect();
        let Some(link) = self.links.first_mut() else {
            return Err(LearningError::Engine("PyTorch has no process".into()));
        };
        link.send(json!({ "kind": "show" }), &arrays)?;
        link.receive().map(drop)
    }

    fn see(&mut self, images: Vec<f32>) -> Result<Seen, LearningError> {
        let count = images.len() / self.patch.voxels();
        let shape = self.patch.shape(self.network.kind.axes(), count);
        let Some(link) = self.links.first_mut() else {
            return Err(LearningError::Engine("PyTorch has no process".into()));
        };
        link.send(json!({ "kind": "see" }), &[("images", Array::F32(&shape, &images))])?;
        let (_, arrays) = link.receive()?;
        let of = |wanted: &str| {
            let found = arrays.iter().find(|(name, _)| name == wanted);
            found.map(|(_, array)| array.values.clone()).unwrap_or_default()
        };
        Ok(Seen { logits: of("logits"), features: of("features") })
    }

    fn arrays(&mut self) -> Result<(Weights, Moments), LearningError> {
        let Some(link) = self.links.first_mut() else {
            return Err(LearningError::Engine("PyTorch has no process".into()));
        };
        link.send(json!({ "kind": "weights" }), &[])?;
        let (_, arrays) = link.receive()?;
        let part = |part: &str| {
            let of = |(name, array): &(String, Parameter)| {
                let name = name.strip_prefix(part)?.strip_prefix('.')?;
                Some((name.to_owned(), array.clone()))
            };
            Weights(arrays.iter().filter_map(of).collect())
        };
        let average = Some(part("average")).filter(|average| !average.0.is_empty());
        Ok((part("weights"), Moments { first: part("first"), second: part("second"), average }))
    }
}

/// A number that tells a run's state from others.
fn digest(state: &[u8]) -> u64 {
    let hash = Sha256::digest(state);
    let number = hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    number >> (u64::BITS - DIGEST_BITS)
}
