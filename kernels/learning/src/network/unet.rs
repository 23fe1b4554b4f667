//! U-Nets, as nnU-Net would draw them.
//!
//! Four levels; the way down halves the picture by convolutions of stride 2, the way up doubles it by
//! a convolution of single voxels and their repetition, and takes in what the way down had seen at
//! that size. The deepest level's activations, averaged over the picture, are the image's features.

use super::graph::{Aid, Graph};
use super::{Network, Supervision};

/// How often the picture is halved.
pub(super) const DEPTH: usize = 3;

/// What the way down is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoder {
    /// Two convolutions a level.
    Plain,
    /// Two residual blocks a level.
    Residual,
}

pub(super) fn draw(network: &Network, encoder: Encoder) -> Graph {
    let mut graph = Graph::new(network.kind.axes());
    let channels = |level: usize| network.base_channels << level;
    let mut seen = Vec::new();
    let mut x = 0;
    for level in 0..=DEPTH {
        let stride = if level == 0 { 1 } else { 2 };
        x = match encoder {
            Encoder::Plain => {
                let x = graph.block(x, &format!("level{level}.first"), channels(level), 3, stride);
                graph.block(x, &format!("level{level}.second"), channels(level), 3, 1)
            }
            Encoder::Residual => {
                let x = residual(
                    &mut graph,
                    x,
                    &format!("level{level}.first"),
                    channels(level),
                    stride,
                );
                residual(&mut graph, x, &format!("level{level}.second"), channels(level), 1)
            }
        };
        seen.push(x);
    }
    graph.features = graph.mean(x);
    for level in (0..DEPTH).rev() {
        x = graph.block(x, &format!("level{level}.raise"), channels(level), 1, 1);
        x = graph.twice(x);
        x = graph.concat(x, seen[level]);
        x = graph.block(x, &format!("level{level}.merge"), channels(level), 3, 1);
        if level > 0 && network.supervision == Supervision::Deep {
            let op = graph.classes(x, &format!("level{level}.classes"), network.classes);
            graph.aids.insert(0, Aid { op, halved: level as u32 });
        }
    }
    graph.logits = graph.classes(x, "level0.classes", network.classes);
    graph
}

/// A basic residual block (He et al. 2016): two convolutions, and beside them the picture itself, by
/// a convolution of single voxels where its size or channels change.
pub(super) fn residual(
    graph: &mut Graph,
    of: usize,
    name: &str,
    outputs: usize,
    stride: usize,
) -> usize {
    let x = graph.block(of, &format!("{name}.a"), outputs, 3, stride);
    let x = graph.conv(x, &format!("{name}.b"), outputs, 3, 1);
    let x = graph.norm(x, &format!("{name}.b"));
    let beside = if stride == 1 && graph.channels(of) == outputs {
        of
    } else {
        let name = format!("{name}.beside");
        let beside = graph.conv(of, &name, outputs, 1, stride);
        graph.norm(beside, &name)
    };
    let sum = graph.add(x, beside);
    graph.relu(sum)
}
