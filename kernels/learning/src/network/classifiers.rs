//! Networks that say of a whole slice whether it shows the label.

use super::Network;
use super::graph::Graph;
use super::unet::residual;

/// `ResNet`-18 (He et al. 2016).
pub(super) fn resnet18(network: &Network) -> Graph {
    let mut graph = Graph::new(network.kind.axes());
    let mut x = stem(&mut graph, network.base_channels);
    for stage in 0..4 {
        let stride = if stage == 0 { 1 } else { 2 };
        let channels = network.base_channels << stage;
        x = residual(&mut graph, x, &format!("stage{stage}.first"), channels, stride);
        x = residual(&mut graph, x, &format!("stage{stage}.second"), channels, 1);
    }
    head(graph, x, network.classes)
}

/// `DenseNet`-121 (Huang et al. 2017), with half as many channels grown by each layer as the first
/// has, and half of them given on from one block to the next.
pub(super) fn densenet121(network: &Network) -> Graph {
    const LAYERS: [usize; 4] = [6, 12, 24, 16];
    let mut graph = Graph::new(network.kind.axes());
    let growth = network.base_channels / 2;
    let mut x = stem(&mut graph, network.base_channels);
    for (block, layers) in LAYERS.into_iter().enumerate() {
        for layer in 0..layers {
            let name = format!("block{block}.layer{layer:02}");
            let grown = before(&mut graph, x, &format!("{name}.narrow"), 4 * growth, 1);
            let grown = before(&mut graph, grown, &format!("{name}.grow"), growth, 3);
            x = graph.concat(x, grown);
        }
        if block + 1 < LAYERS.len() {
            let half = graph.channels(x) / 2;
            x = before(&mut graph, x, &format!("block{block}.give"), half, 1);
            x = graph.mean_pool(x);
        }
    }
    x = graph.norm(x, "last");
    x = graph.relu(x);
    head(graph, x, network.classes)
}

/// A convolution that is normalised and rectified before it.
fn before(graph: &mut Graph, of: usize, name: &str, outputs: usize, size: usize) -> usize {
    let x = graph.norm(of, name);
    let x = graph.relu(x);
    graph.conv(x, name, outputs, size, 1)
}

fn stem(graph: &mut Graph, channels: usize) -> usize {
    let x = graph.block(0, "stem", channels, 7, 2);
    graph.max_pool(x)
}

fn head(mut graph: Graph, of: usize, classes: usize) -> Graph {
    graph.features = graph.mean(of);
    graph.logits = graph.linear(graph.features, "classes", classes);
    graph
}
