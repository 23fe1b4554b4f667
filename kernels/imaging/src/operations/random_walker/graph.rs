//! The coarse systems of the random walker: graphs of ever larger groups of voxels.
//!
//! Where noise tears an image apart, weights of neighbouring edges differ by ten orders of
//! magnitude, and blocks of a regular grid would join what hardly hangs together. So each node is
//! grouped with the neighbour that it hangs on most, up to four in a group, as in Koutis, Miller &
//! Tolliver, "Combinatorial preconditioners and multilevel solvers for problems in computer vision
//! and image processing", CVIU 115(12), 2011. The systems over groups are solved by two steps of
//! conjugate gradients at each level, preconditioned by the next: the K-cycle of Notay, "An
//! aggregation-based algebraic multigrid method", ETNA 37, 2010.
//!
//! A system is kept as what it is made of, edges and pulls towards seeds, all of them positive: the
//! sums over groups lose nothing to cancellation, even in `f32`.

use rayon::prelude::*;

use super::solver::{DAMPING, dot};

/// Systems of at most this many unknowns are solved directly.
const DIRECT_MAX: usize = 256;
/// The most nodes of a group.
const GROUP_MAX: u8 = 4;
/// A node that seeds pull this much more than its neighbours do needs no coarser system.
const PULL_MAX: f64 = 8.0;
/// The share of the residual that one inner step must leave for a second to be taken.
const ENOUGH: f64 = 0.25;
/// The group of nodes that have none.
pub(super) const NONE: u32 = u32::MAX;
/// Nodes handled by one thread at a time.
const PIECE: usize = 1 << 12;

/// A system as its nodes, their edges and their pulls: what groups are made of.
pub(super) trait Network {
    /// Returns the number of nodes.
    fn nodes(&self) -> usize;
    /// Returns the sum of a node's edges to seeds.
    fn pull(&self, node: usize) -> f64;
    /// Visits a node's neighbours with the weights of the edges between, always in one order.
    fn visit(&self, node: usize, visit: impl FnMut(usize, f32));
}

/// A system over groups: `(pull + Σ weight) × p − Σ weight × neighbour's p = right side`.
pub(super) struct Graph {
    /// For each node, the position of its first edge; one more entry for the end.
    first: Vec<u32>,
    edges: Vec<(u32, f32)>,
    pull: Vec<f32>,
    diagonal: Vec<f64>,
}

impl Network for Graph {
    fn nodes(&self) -> usize {
        self.pull.len()
    }

    fn pull(&self, node: usize) -> f64 {
        f64::from(self.pull[node])
    }

    fn visit(&self, node: usize, mut visit: impl FnMut(usize, f32)) {
        self.edges_of(node).iter().for_each(|&(to, weight)| visit(to as usize, weight));
    }
}

/// Returns the group of each node, or [`NONE`], and the number of groups.
pub(super) fn groups(network: &impl Network) -> (Vec<u32>, usize) {
    let mut group = vec![NONE; network.nodes()];
    let mut sizes: Vec<u8> = Vec::new();
    for node in 0..network.nodes() {
        if group[node] != NONE {
            continue;
        }
        // The heaviest edge, and the heaviest of those to where there is still room.
        let (mut sum, mut heaviest, mut best) = (0.0f64, 0.0f32, None);
        network.visit(node, |to, weight| {
            sum += f64::from(weight);
            heaviest = heaviest.max(weight);
            let room = group[to] == NONE || sizes[group[to] as usize] < GROUP_MAX;
            if room && best.is_none_or(|(_, most)| weight > most) {
                best = Some((to, weight));
            }
        });
        if sum <= 0.0 || network.pull(node) > PULL_MAX * sum {
            continue;
        }
        let mates = best.filter(|&(_, weight)| weight > 0.1 * heaviest).map(|(to, _)| to);
        let into = match mates.map(|to| (to, group[to])) {
            Some((_, joined)) if joined != NONE => joined,
            mate => {
                sizes.push(0);
                let new = sizes.len() as u32 - 1;
                // A mate that needs no coarser system is not drawn into one.
                if let Some((to, _)) = mate {
                    group[to] = new;
                    sizes[new as usize] += 1;
                }
                new
            }
        };
        group[node] = into;
        sizes[into as usize] += 1;
    }
    (group, sizes.len())
}

impl Graph {
    /// Returns the system over groups of nodes: edges within a group vanish, others add up.
    pub(super) fn over(network: &impl Network, group: &[u32], groups: usize) -> Self {
        // The nodes of each group, one group after the other.
        let mut starts = vec![0u32; groups + 1];
        for &of in group.iter().filter(|&&of| of != NONE) {
            starts[of as usize + 1] += 1;
        }
        for k in 0..groups {
            starts[k + 1] += starts[k];
        }
        let mut members = vec![0u32; starts[groups] as usize];
        let mut next = starts.clone();
        for (node, &of) in group.iter().enumerate().filter(|&(_, &of)| of != NONE) {
            members[next[of as usize] as usize] = node as u32;
            next[of as usize] += 1;
        }
        let mut graph = Self {
            first: vec![0],
            edges: Vec::new(),
            pull: Vec::with_capacity(groups),
            diagonal: Vec::with_capacity(groups),
        };
        // For each group, where the edge to it stands in the row at hand, if there is one.
        let mut places = vec![0u32; groups];
        for own in 0..groups {
            let begin = graph.edges.len();
            let mut pull = 0.0f64;
            for &node in &members[starts[own] as usize..starts[own + 1] as usize] {
                pull += network.pull(node as usize);
                network.visit(node as usize, |to, weight| {
                    let of = group[to];
                    // A node without a group stays where it is, as a seed does.
                    if of == NONE {
                        pull += f64::from(weight);
                    } else if of as usize != own {
                        let place = places[of as usize] as usize;
                        let known = graph.edges.get_mut(place);
                        if let Some((_, sum)) = known.filter(|(to, _)| place >= begin && *to == of)
                        {
                            *sum += weight;
                        } else {
                            places[of as usize] = graph.edges.len() as u32;
                            graph.edges.push((of, weight));
                        }
                    }
                });
            }
            let edges: f64 = graph.edges[begin..].iter().map(|&(_, w)| f64::from(w)).sum();
            graph.first.push(graph.edges.len() as u32);
            graph.pull.push(pull as f32);
            graph.diagonal.push(pull + edges);
        }
        graph
    }

    fn edges_of(&self, node: usize) -> &[(u32, f32)] {
        &self.edges[self.first[node] as usize..self.first[node + 1] as usize]
    }

    /// Calls `with` for each node with the sum of weight × neighbour's `p`, and writes what it gives.
    fn each(&self, p: &[f64], output: &mut [f64], with: impl Fn(usize, f64) -> f64 + Sync) {
        output.par_chunks_mut(PIECE).enumerate().for_each(|(piece, output)| {
            for (node, output) in (piece * PIECE..).zip(output) {
                let edges = self.edges_of(node).iter();
                let sum = edges.map(|&(to, weight)| f64::from(weight) * p[to as usize]).sum();
                *output = with(node, sum);
            }
        });
    }

    fn multiply(&self, p: &[f64], output: &mut [f64]) {
        self.each(p, output, |node, sum| self.diagonal[node] * p[node] - sum);
    }

    fn smooth(&self, p: &[f64], right: &[f64], output: &mut [f64]) {
        self.each(p, output, |node, sum| {
            let diagonal = self.diagonal[node];
            let residual = right[node] + sum - diagonal * p[node];
            // What hangs on nothing has no value of its own.
            if diagonal > 0.0 { p[node] + DAMPING * residual / diagonal } else { 0.0 }
        });
    }
}

/// Ever coarser systems, and the groups that lead from each to the next.
pub(super) struct Hierarchy {
    levels: Vec<(Graph, Vec<u32>)>,
    coarsest: Direct,
}

impl Hierarchy {
    pub(super) fn of(graph: Graph) -> Self {
        let mut levels = Vec::new();
        let mut graph = graph;
        while graph.nodes() > DIRECT_MAX {
            let (group, count) = groups(&graph);
            // What no longer shrinks is left to the smoothing.
            if count == 0 || count > graph.nodes() / 10 * 9 {
                break;
            }
            let coarse = Graph::over(&graph, &group, count);
            levels.push((std::mem::replace(&mut graph, coarse), group));
        }
        let coarsest = Direct::of(graph);
        Self { levels, coarsest }
    }

    /// Returns the number of groups of the finest of the systems.
    pub(super) fn nodes(&self) -> usize {
        self.levels.first().map_or(self.coarsest.graph.nodes(), |(graph, _)| graph.nodes())
    }

    /// Returns an approximate solution.
    pub(super) fn solve(&self, right: &[f64]) -> Vec<f64> {
        self.solve_from(0, right)
    }

    fn solve_from(&self, level: usize, right: &[f64]) -> Vec<f64> {
        let Some((graph, group)) = self.levels.get(level) else {
            return self.coarsest.solve(right);
        };
        let mut first = self.cycle(level, graph, group, right);
        let mut product = vec![0.0; right.len()];
        graph.multiply(&first, &mut product);
        let length = dot(&first, &product);
        let along = dot(&first, right);
        if length <= 0.0 || length.is_nan() {
            return first;
        }
        let step = along / length;
        let rest: Vec<f64> = right.par_iter().zip(&product).map(|(r, q)| r - step * q).collect();
        if dot(&rest, &rest) <= ENOUGH * ENOUGH * dot(right, right) {
            first.par_iter_mut().for_each(|p| *p *= step);
            return first;
        }
        let second = self.cycle(level, graph, group, &rest);
        let across = dot(&second, &product);
        graph.multiply(&second, &mut product);
        let own = dot(&second, &product) - across * across / length;
        if own <= 0.0 || own.is_nan() {
            first.par_iter_mut().for_each(|p| *p *= step);
            return first;
        }
        let other = dot(&second, &rest) / own;
        let step = step - across * other / length;
        first.par_iter_mut().zip(&second).for_each(|(p, q)| *p = step * *p + other * q);
        first
    }

    /// Returns an approximate solution by one symmetric cycle from zero.
    fn cycle(&self, level: usize, graph: &Graph, group: &[u32], right: &[f64]) -> Vec<f64> {
        let scaled = |(r, &d): (&f64, &f64)| if d > 0.0 { DAMPING * r / d } else { 0.0 };
        let mut p: Vec<f64> = right.par_iter().zip(&graph.diagonal).map(scaled).collect();
        let mut other = vec![0.0; right.len()];
        graph.multiply(&p, &mut other);
        let nodes = match self.levels.get(level + 1) {
            Some((next, _)) => next.nodes(),
            None => self.coarsest.graph.nodes(),
        };
        let mut below = vec![0.0; nodes];
        gather(right, &other, group, &mut below);
        let correction = self.solve_from(level + 1, &below);
        spread(&correction, group, &mut p);
        graph.smooth(&p, right, &mut other);
        other
    }
}

/// Adds the residuals of nodes up over their groups.
pub(super) fn gather(right: &[f64], product: &[f64], group: &[u32], sums: &mut [f64]) {
    for ((right, product), &of) in right.iter().zip(product).zip(group) {
        if of != NONE {
            sums[of as usize] += right - product;
        }
    }
}

/// Adds the correction of its group to each node.
pub(super) fn spread(correction: &[f64], group: &[u32], p: &mut [f64]) {
    p.par_iter_mut().zip(group).with_min_len(PIECE).for_each(|(p, &of)| {
        if of != NONE {
            *p += correction[of as usize];
        }
    });
}

/// The coarsest system and its Cholesky factor, where it is small enough for one.
struct Direct {
    graph: Graph,
    /// The lower triangle, row by row; empty where the system is too large.
    factor: Vec<f64>,
}

impl Direct {
    fn of(graph: Graph) -> Self {
        let count = graph.nodes();
        if count > DIRECT_MAX {
            return Self { graph, factor: Vec::new() };
        }
        let mut factor = vec![0.0; count * count];
        for row in 0..count {
            factor[row * count + row] = graph.diagonal[row];
            for &(to, weight) in graph.edges_of(row) {
                factor[row * count + to as usize] = -f64::from(weight);
            }
        }
        for column in 0..count {
            let mut pivot = factor[column * count + column];
            // A part that no seed pulls is held by any one of its nodes.
            if pivot <= 1e-12 * graph.diagonal[column] {
                pivot = f64::INFINITY;
            }
            let root = pivot.sqrt();
            factor[column * count + column] = root;
            for row in column + 1..count {
                factor[row * count + column] /= root;
            }
            for row in column + 1..count {
                let times = factor[row * count + column];
                if times != 0.0 {
                    for other in column + 1..=row {
                        factor[row * count + other] -= times * factor[other * count + column];
                    }
                }
            }
        }
        Self { graph, factor }
    }

    fn solve(&self, right: &[f64]) -> Vec<f64> {
        let count = right.len();
        if self.factor.is_empty() {
            let mut p = vec![0.0; count];
            let mut other = vec![0.0; count];
            for _ in 0..8 {
                self.graph.smooth(&p, right, &mut other);
                std::mem::swap(&mut p, &mut other);
            }
            return p;
        }
        let mut p = right.to_vec();
        for row in 0..count {
            let (before, own) = p.split_at_mut(row);
            let line = &self.factor[row * count..row * count + row];
            let sum: f64 = line.iter().zip(&*before).map(|(l, p)| l * p).sum();
            own[0] = (own[0] - sum) / self.factor[row * count + row];
        }
        for row in (0..count).rev() {
            p[row] /= self.factor[row * count + row];
            let own = p[row];
            let line = &self.factor[row * count..row * count + row];
            p[..row].iter_mut().zip(line).for_each(|(p, l)| *p -= l * own);
        }
        p
    }
}
