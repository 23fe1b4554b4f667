//! A network as a list of operations, each on what earlier ones have given.

use serde::Serialize;

use super::Patch;

/// Channels that are normalised together, where their number allows it.
const GROUP: usize = 8;
/// What keeps a constant picture from being divided by 0.
pub(crate) const EPSILON: f64 = 1e-5;

/// The operations of a network, in an order in which they can be computed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Graph {
    /// Axes of a picture: rows and columns, or slices before them.
    pub(crate) axes: usize,
    pub(crate) ops: Vec<Op>,
    /// The operation that gives the logits: batch, classes, and the axes of the picture if any.
    pub(crate) logits: usize,
    /// The operation that gives the features: batch, features.
    pub(crate) features: usize,
    /// What is said at smaller sizes, largest first, for who is supervised deeply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) aids: Vec<Aid>,
    pub(crate) epsilon: f64,
    #[serde(skip)]
    channels: Vec<usize>,
}

/// Logits of a picture whose sides are halved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Aid {
    /// The operation that gives them.
    pub(crate) op: usize,
    /// How often.
    pub(crate) halved: u32,
}

/// One operation. `of` is the number of the one whose result it takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Op {
    /// The picture.
    Input,
    /// A convolution with the weights `NAME.kernel`, and `NAME.shift` where nothing normalises it.
    /// Its border is as wide as half its kernel, and 0.
    Conv {
        of: usize,
        name: String,
        inputs: usize,
        outputs: usize,
        size: usize,
        stride: usize,
        shift: bool,
    },
    /// Group normalisation with the weights `NAME.scale` and `NAME.shift`.
    Norm { of: usize, name: String, channels: usize, groups: usize },
    /// The rectifier.
    Relu { of: usize },
    /// The sum of two.
    Add { of: usize, and: usize },
    /// Two side by side in their channels.
    Concat { of: usize, and: usize },
    /// Every voxel repeated along every axis.
    Twice { of: usize },
    /// The largest of each 3 × 3 pixels, at every second.
    MaxPool { of: usize },
    /// The mean of each 2 × 2 pixels.
    MeanPool { of: usize },
    /// The mean over the whole picture.
    Mean { of: usize },
    /// A matrix `NAME.kernel` and `NAME.shift`.
    Linear { of: usize, name: String, inputs: usize, outputs: usize },
}

impl Op {
    /// The operations whose results it takes.
    pub(crate) fn takes(&self) -> Vec<usize> {
        match self {
            Self::Input => Vec::new(),
            Self::Add { of, and } | Self::Concat { of, and } => vec![*of, *and],
            Self::Conv { of, .. }
            | Self::Norm { of, .. }
            | Self::Relu { of }
            | Self::Twice { of }
            | Self::MaxPool { of }
            | Self::MeanPool { of }
            | Self::Mean { of }
            | Self::Linear { of, .. } => vec![*of],
        }
    }
}

/// What a weight is before training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Begin {
    /// Normal, for so many numbers that are summed.
    Normal { inputs: usize },
    /// The same everywhere.
    Value(f32),
}

impl Graph {
    /// A picture of one channel, to draw on.
    pub(crate) fn new(axes: usize) -> Self {
        let (ops, channels) = (vec![Op::Input], vec![1]);
        let aids = Vec::new();
        Self { axes, ops, logits: 0, features: 0, aids, epsilon: EPSILON, channels }
    }

    /// The name, shape and beginning of every weight.
    pub(crate) fn parameters(&self) -> Vec<(String, Vec<usize>, Begin)> {
        let mut all = Vec::new();
        for op in &self.ops {
            match op {
                Op::Conv { name, inputs, outputs, size, shift, .. } => {
                    let kernel = vec![*size; self.axes];
                    let summed = inputs * kernel.iter().product::<usize>();
                    let shape = [vec![*outputs, *inputs], kernel].concat();
                    all.push((format!("{name}.kernel"), shape, Begin::Normal { inputs: summed }));
                    if *shift {
                        all.push((format!("{name}.shift"), vec![*outputs], Begin::Value(0.0)));
                    }
                }
                Op::Norm { name, channels, .. } => {
                    all.push((format!("{name}.scale"), vec![*channels], Begin::Value(1.0)));
                    all.push((format!("{name}.shift"), vec![*channels], Begin::Value(0.0)));
                }
                Op::Linear { name, inputs, outputs, .. } => {
                    let begin = Begin::Normal { inputs: *inputs };
                    all.push((format!("{name}.kernel"), vec![*outputs, *inputs], begin));
                    all.push((format!("{name}.shift"), vec![*outputs], Begin::Value(0.0)));
                }
                _ => {}
            }
        }
        all
    }

    /// For each operation, those whose results nobody takes after it.
    pub(crate) fn done_after(&self) -> Vec<Vec<usize>> {
        let mut last: Vec<usize> = (0..self.ops.len()).collect();
        for (number, op) in self.ops.iter().enumerate() {
            op.takes().into_iter().for_each(|taken| last[taken] = number);
        }
        let mut done = vec![Vec::new(); self.ops.len()];
        for (number, last) in last.into_iter().enumerate() {
            let aid = self.aids.iter().any(|aid| aid.op == number);
            if number != self.logits && number != self.features && !aid {
                done[last].push(number);
            }
        }
        done
    }

    /// How many numbers all operations give together for a patch, which a step keeps.
    pub(crate) fn values_of(&self, patch: Patch) -> usize {
        let full = patch.shape(self.axes, 1);
        // By how much each result is smaller than the picture; nothing where it is no picture.
        let mut halved: Vec<Option<u32>> = Vec::with_capacity(self.ops.len());
        let mut sum = 0;
        for (op, channels) in self.ops.iter().zip(&self.channels) {
            let of = op.takes().first().and_then(|&of| halved[of]);
            let here = match op {
                Op::Input => Some(0),
                Op::Conv { stride: 2, .. } | Op::MaxPool { .. } | Op::MeanPool { .. } => {
                    of.map(|halved| halved + 1)
                }
                Op::Twice { .. } => of.map(|halved| halved.saturating_sub(1)),
                Op::Mean { .. } | Op::Linear { .. } => None,
                Op::Conv { .. }
                | Op::Norm { .. }
                | Op::Relu { .. }
                | Op::Add { .. }
                | Op::Concat { .. } => of,
            };
            let sides = full[2..].iter().map(|side| side.div_ceil(1 << here.unwrap_or(0)));
            sum += channels * if here.is_some() { sides.product() } else { 1 };
            halved.push(here);
        }
        sum
    }

    /// How many features there are.
    pub(crate) fn features_width(&self) -> usize {
        self.channels[self.features]
    }

    fn push(&mut self, op: Op, channels: usize) -> usize {
        self.ops.push(op);
        self.channels.push(channels);
        self.ops.len() - 1
    }

    /// A convolution without a shift, to be normalised.
    pub(crate) fn conv(
        &mut self,
        of: usize,
        name: &str,
        outputs: usize,
        size: usize,
        stride: usize,
    ) -> usize {
        let (name, inputs) = (name.to_owned(), self.channels[of]);
        self.push(Op::Conv { of, name, inputs, outputs, size, stride, shift: false }, outputs)
    }

    /// A convolution of single voxels, with a shift.
    pub(crate) fn classes(&mut self, of: usize, name: &str, outputs: usize) -> usize {
        let (name, inputs) = (name.to_owned(), self.channels[of]);
        self.push(Op::Conv { of, name, inputs, outputs, size: 1, stride: 1, shift: true }, outputs)
    }

    pub(crate) fn norm(&mut self, of: usize, name: &str) -> usize {
        let (name, channels) = (name.to_owned(), self.channels[of]);
        let groups = if channels.is_multiple_of(GROUP) { channels / GROUP } else { 1 };
        self.push(Op::Norm { of, name, channels, groups }, channels)
    }

    pub(crate) fn relu(&mut self, of: usize) -> usize {
        self.push(Op::Relu { of }, self.channels[of])
    }

    /// A convolution, normalised and rectified, under one name.
    pub(crate) fn block(
        &mut self,
        of: usize,
        name: &str,
        outputs: usize,
        size: usize,
        stride: usize,
    ) -> usize {
        let x = self.conv(of, name, outputs, size, stride);
        let x = self.norm(x, name);
        self.relu(x)
    }

    pub(crate) fn add(&mut self, of: usize, and: usize) -> usize {
        self.push(Op::Add { of, and }, self.channels[of])
    }

    pub(crate) fn concat(&mut self, of: usize, and: usize) -> usize {
        self.push(Op::Concat { of, and }, self.channels[of] + self.channels[and])
    }

    pub(crate) fn twice(&mut self, of: usize) -> usize {
        self.push(Op::Twice { of }, self.channels[of])
    }

    pub(crate) fn max_pool(&mut self, of: usize) -> usize {
        self.push(Op::MaxPool { of }, self.channels[of])
    }

    pub(crate) fn mean_pool(&mut self, of: usize) -> usize {
        self.push(Op::MeanPool { of }, self.channels[of])
    }

    pub(crate) fn mean(&mut self, of: usize) -> usize {
        self.push(Op::Mean { of }, self.channels[of])
    }

    pub(crate) fn linear(&mut self, of: usize, name: &str, outputs: usize) -> usize {
        let (name, inputs) = (name.to_owned(), self.channels[of]);
        self.push(Op::Linear { of, name, inputs, outputs }, outputs)
    }

    pub(crate) fn channels(&self, of: usize) -> usize {
        self.channels[of]
    }
}
