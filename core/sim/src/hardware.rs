//! What the simulated servers are built with.
//!
//! A third of them has GPUs. One of the boards of every ninth is cut into MIG instances, which are
//! devices of their own. Some have labels that jobs may ask for.

use std::collections::BTreeSet;

use gantry_model::{Gpu, MemoryMib, NodeFacts, Resources, Role};

use crate::random::Random;
use crate::trace::name;

/// The instances of the board that is cut: profile and memory in GiB.
pub(crate) const INSTANCES: [(&str, u64); 4] =
    [("3g.40gb", 40), ("2g.20gb", 20), ("1g.10gb", 10), ("1g.10gb", 10)];
/// What jobs may ask for by name.
pub(crate) const LABELS: [&str; 2] = ["nvme", "site=north"];

/// What a server was built with.
#[derive(Clone, Debug)]
pub(crate) struct Hardware {
    pub(crate) facts: NodeFacts,
    /// The board that each of its devices is on.
    boards: Vec<usize>,
}

impl Hardware {
    /// Draws a server.
    pub(crate) fn draw(server: usize, random: &mut Random) -> Self {
        let boards = if server.is_multiple_of(3) { *random.pick(&[4_usize, 8]) } else { 0 };
        let cores = if boards > 0 { 64 } else { *random.pick(&[16, 32]) };
        let mut gpus: Vec<(usize, Gpu)> = Vec::new();
        for board in 0..boards {
            // The last board, so that the islands before it stay whole.
            let cut = server.is_multiple_of(9) && board + 1 == boards;
            if cut {
                let instance = |number: usize| instance(server, board, number);
                gpus.extend((0..INSTANCES.len()).map(|number| (board, instance(number))));
            } else {
                gpus.push((board, whole(server, board)));
            }
        }
        let mut labels = BTreeSet::new();
        if server.is_multiple_of(2) {
            labels.insert(LABELS[0].to_owned());
        }
        if server.is_multiple_of(3) {
            labels.insert(LABELS[1].to_owned());
        }
        let facts = NodeFacts {
            name: name(server),
            roles: vec![if boards > 0 { Role::Gpu } else { Role::Cpu }],
            resources: Resources {
                cores,
                memory: MemoryMib(u64::from(cores) * 4096),
                gpus: gpus.len() as u32,
                scratch: MemoryMib(1 << 20),
            },
            gpus: gpus.iter().map(|(_, gpu)| gpu.clone()).collect(),
            gpu_reason: None,
            agent_version: "simulated".into(),
            boot_id: String::new(),
            labels,
            address: format!("10.0.{}.{}", server / 250, server % 250 + 1),
            isolation: String::new(),
        };
        Self { facts, boards: gpus.into_iter().map(|(board, _)| board).collect() }
    }

    /// What an agent says of it where some boards are not seen.
    pub(crate) fn without(&self, gone: &BTreeSet<usize>) -> NodeFacts {
        let mut facts = self.facts.clone();
        let seen = self.facts.gpus.iter().zip(&self.boards);
        let seen = seen.filter(|(_, board)| !gone.contains(board));
        facts.gpus = seen.map(|(gpu, _)| gpu.clone()).collect();
        facts.resources.gpus = facts.gpus.len() as u32;
        facts
    }

    /// The devices of a board, by their uuid; none where it has no such board.
    pub(crate) fn devices(&self, board: usize) -> BTreeSet<String> {
        let all = self.facts.gpus.iter().zip(&self.boards);
        all.filter(|(_, on)| **on == board).map(|(gpu, _)| gpu.uuid.clone()).collect()
    }
}

fn whole(server: usize, board: usize) -> Gpu {
    Gpu {
        uuid: format!("GPU-{server}-{board}"),
        name: "H100".into(),
        memory: MemoryMib(80 * 1024),
        island: (board / 4) as u16,
        ..Gpu::default()
    }
}

fn instance(server: usize, board: usize, number: usize) -> Gpu {
    let (profile, gib) = INSTANCES[number];
    Gpu {
        uuid: format!("MIG-{server}-{board}-{number}"),
        memory: MemoryMib(gib * 1024),
        mig: Some(profile.to_owned()),
        ..whole(server, board)
    }
}
