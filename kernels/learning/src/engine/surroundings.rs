//! Where a training runs: what its lease and its gang give it.

use std::env;

use crate::data::DataRoom;

/// One rank of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Its number, counted from 0.
    pub number: usize,
    /// How many there are.
    pub of: usize,
    /// Where they meet: the address of the first one's node.
    pub address: String,
    /// The TCP port there.
    pub port: u16,
}

/// What a training finds on its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The Python that may have `PyTorch`.
    pub python: String,
    /// GPUs that it may use: each gets a process.
    pub gpus: usize,
    /// Threads that it computes with where it has no GPU; all cores where absent.
    pub threads: Option<usize>,
    /// Which rank of a gang it is; nothing where it is alone.
    pub rank: Option<Rank>,
    /// What it may take for its samples: of a task half of the memory that it was granted, since the
    /// passes of the network need theirs.
    pub data: DataRoom,
}

impl Default for Surroundings {
    fn default() -> Self {
        let (python, data) = ("python3".into(), DataRoom::default());
        Self { python, gpus: 0, threads: None, rank: None, data }
    }
}

impl Surroundings {
    /// What the variables of a task say.
    #[must_use]
    pub fn of_task() -> Self {
        Self::read(|name| env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let number = |name: &str| variable(name).and_then(|text| text.parse::<usize>().ok());
        let gpus = variable("CUDA_VISIBLE_DEVICES").unwrap_or_default();
        let rank = || {
            let port = variable("MASTER_PORT")?.parse().ok()?;
            let (of, address) = (number("WORLD_SIZE")?, variable("MASTER_ADDR")?);
            Some(Rank { number: number("RANK")?, of, address, port })
        };
        Self {
            python: variable("GANTRY_TORCH_PYTHON").unwrap_or_else(|| "python3".into()),
            gpus: gpus.split(',').filter(|gpu| !gpu.is_empty()).count(),
            threads: number("RAYON_NUM_THREADS"),
            rank: rank(),
            data: DataRoom {
                memory_bytes: number("GANTRY_MEMORY_MIB").map(|mib| (mib as u64) << 19),
                ..DataRoom::default()
            },
        }
    }

    /// Processes of this task, of which each has one GPU or none.
    pub(crate) fn processes(&self) -> usize {
        self.gpus.max(1)
    }

    /// The rank of this task's first process, and how many processes all tasks have.
    pub(crate) fn ranks(&self) -> (usize, usize) {
        let here = self.processes();
        self.rank.as_ref().map_or((0, here), |rank| (rank.number * here, rank.of * here))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_s_variables_say_which_processes_are_its_own() {
        let read = |pairs: &[(&str, &str)]| {
            Surroundings::read(|name| {
                pairs.iter().find(|(one, _)| *one == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(read(&[]), Surroundings::default());
        let alone = read(&[("CUDA_VISIBLE_DEVICES", "GPU-1,GPU-2"), ("GANTRY_TORCH_PYTHON", "/p")]);
        assert_eq!((alone.gpus, alone.python.as_str(), alone.ranks()), (2, "/p", (0, 2)));
        let place = [("WORLD_SIZE", "4"), ("MASTER_ADDR", "10.0.0.7"), ("MASTER_PORT", "29500")];
        let gang = |more: &[(&str, &str)]| read(&[&place[..], more].concat());
        let one = gang(&[("RANK", "2"), ("RAYON_NUM_THREADS", "3")]);
        assert_eq!((one.ranks(), one.threads), ((2, 4), Some(3)));
        let rank = Rank { number: 2, of: 4, address: "10.0.0.7".into(), port: 29_500 };
        assert_eq!(one.rank, Some(rank));
        assert_eq!(gang(&[("RANK", "1"), ("CUDA_VISIBLE_DEVICES", "a,b")]).ranks(), (2, 8));
        assert_eq!(gang(&[("RANK", "x")]).rank, None);
        let granted = read(&[("GANTRY_MEMORY_MIB", "6144")]);
        assert_eq!(granted.data.memory_bytes, Some(3 << 30), "half of it");
    }
}
