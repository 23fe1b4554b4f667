//! Which cores a pinned command gets.
//!
//! A lease counts cores; where they are pinned the supervisor chooses them among those that no other
//! try has: on one NUMA node if that is possible, near the try's GPUs if the kernel says where they
//! hang, and beside one another, so that two tries do not share the two threads of one core. Where
//! fewer are free than the lease counts, as the settings may give tasks more cores than there are,
//! the try is not pinned: it runs wherever there is room.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use gantry_model::TryId;
use rustix::thread::{CpuSet, sched_getaffinity};

/// What the kernel tells about the machine.
const SYSTEM: &str = "/sys/devices/system";

/// The cores of a node and who has them.
#[derive(Debug, Default)]
pub(super) struct Cores {
    /// By NUMA node, in the order in which they are given away.
    nodes: BTreeMap<u16, Vec<u32>>,
    taken: BTreeMap<TryId, BTreeSet<u32>>,
}

impl Cores {
    /// The cores that this process may use.
    pub(super) fn of_machine() -> Self {
        let mut allowed = BTreeSet::new();
        if let Ok(set) = sched_getaffinity(None) {
            let all = (0..CpuSet::MAX_CPU as u32).filter(|core| set.is_set(*core as usize));
            allowed.extend(all);
        }
        Self::of(Path::new(SYSTEM), &allowed)
    }

    fn of(system: &Path, allowed: &BTreeSet<u32>) -> Self {
        let mut nodes: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
        let mut left = allowed.clone();
        for (node, cores) in numa(system) {
            let here: Vec<u32> = cores.into_iter().filter(|core| left.remove(core)).collect();
            nodes.insert(node, here);
        }
        // What the kernel has put on no node.
        nodes.entry(0).or_default().extend(left);
        for cores in nodes.values_mut() {
            cores.sort_by_key(|core| (first_sibling(system, *core), *core));
        }
        Self { nodes, taken: BTreeMap::new() }
    }

    /// Gives a try so many cores, near these NUMA nodes if that can be; none where there are too few.
    pub(super) fn take(&mut self, try_id: TryId, count: u32, near: &[u16]) -> Option<Vec<u32>> {
        let count = count as usize;
        let taken: BTreeSet<u32> = self.taken.values().flatten().copied().collect();
        let mut free: Vec<(u16, Vec<u32>)> = self
            .nodes
            .iter()
            .map(|(node, cores)| {
                (*node, cores.iter().filter(|core| !taken.contains(core)).copied().collect())
            })
            .collect();
        if count == 0 || free.iter().map(|(_, cores)| cores.len()).sum::<usize>() < count {
            return None;
        }
        // Near ones first; of those that hold all of it the tightest, then the one with most room.
        free.sort_by_key(|(node, cores)| {
            let far = !near.contains(node);
            let short = cores.len() < count;
            let room = if short { usize::MAX - cores.len() } else { cores.len() };
            // A far node that holds all is no better than a near one that does not, if any is near.
            (far && !near.is_empty(), short, room, *node)
        });
        let chosen: Vec<u32> = free.into_iter().flat_map(|(_, cores)| cores).take(count).collect();
        self.taken.insert(try_id, chosen.iter().copied().collect());
        Some(chosen)
    }

    /// A try has ended.
    pub(super) fn give_back(&mut self, try_id: TryId) {
        self.taken.remove(&try_id);
    }
}

/// The NUMA nodes and their cores.
fn numa(system: &Path) -> Vec<(u16, Vec<u32>)> {
    let Ok(entries) = fs::read_dir(system.join("node")) else { return Vec::new() };
    let mut all: Vec<(u16, Vec<u32>)> = entries
        .flatten()
        .filter_map(|entry| {
            let node = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            Some((node, list(&fs::read_to_string(entry.path().join("cpulist")).ok()?)))
        })
        .collect();
    all.sort();
    all
}

/// The first thread of the core that a thread belongs to; itself where the kernel does not say.
fn first_sibling(system: &Path, core: u32) -> u32 {
    let path = system.join(format!("cpu/cpu{core}/topology/thread_siblings_list"));
    let siblings = fs::read_to_string(path).map(|text| list(&text)).unwrap_or_default();
    siblings.first().copied().unwrap_or(core)
}

/// Numbers as the kernel lists them: `0-3,8`.
fn list(text: &str) -> Vec<u32> {
    let part = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse::<u32>().ok()?..=to.trim().parse().ok()?)
    };
    text.trim().split(',').filter_map(part).flatten().take(CpuSet::MAX_CPU).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn the_kernels_lists_are_read() {
        for (text, expected) in [
            ("0-3,8\n", &[0, 1, 2, 3, 8][..]),
            ("5", &[5]),
            ("", &[]),
            ("\n", &[]),
            ("a-b,1", &[1]),
        ] {
            assert_eq!(list(text), expected, "{text:?}");
        }
    }

    /// Two nodes of four threads; threads 0 and 2, 1 and 3 and so on are one core each.
    fn machine() -> (TempDir, Cores) {
        let folder = TempDir::new().unwrap();
        for (node, cores) in [(0, "0-3"), (1, "4-7")] {
            let path = folder.path().join(format!("node/node{node}"));
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("cpulist"), cores).unwrap();
        }
        for (one, other) in [(0, 2), (1, 3), (4, 6), (5, 7)] {
            for core in [one, other] {
                let path = folder.path().join(format!("cpu/cpu{core}/topology"));
                fs::create_dir_all(&path).unwrap();
                fs::write(path.join("thread_siblings_list"), format!("{one},{other}\n")).unwrap();
            }
        }
        let cores = Cores::of(folder.path(), &(0..8).collect());
        (folder, cores)
    }

    /// A try, how many cores it takes, near which nodes, and which it gets.
    type Step = (u64, u32, &'static [u16], Option<&'static [u32]>);

    #[test]
    fn cores_are_chosen_on_one_node_near_the_gpus_and_beside_one_another() {
        let (_folder, mut cores) = machine();
        let steps: [Step; 9] = [
            (1, 2, &[], Some(&[0, 2])),
            (2, 2, &[1], Some(&[4, 6])),
            // The tighter of two that hold it all is as good: the first.
            (3, 1, &[], Some(&[1])),
            // Three are only there over both nodes.
            (4, 3, &[], Some(&[5, 7, 3])),
            (5, 1, &[], None),
            (6, 0, &[], None),
            // Given back, and taken again.
            (2, 0, &[], None),
            (7, 2, &[0], Some(&[4, 6])),
            (8, 1, &[1], None),
        ];
        for (number, count, near, expected) in steps {
            if (number, count) == (2, 0) {
                cores.give_back(TryId(2));
                continue;
            }
            let chosen = cores.take(TryId(number), count, near);
            assert_eq!(chosen.as_deref(), expected, "try {number}");
        }
    }

    #[test]
    fn a_near_node_that_holds_a_part_comes_first() {
        let (_folder, mut cores) = machine();
        assert_eq!(cores.take(TryId(1), 3, &[1]), Some(vec![4, 6, 5]));
        assert_eq!(cores.take(TryId(2), 2, &[1]), Some(vec![7, 0]));
    }

    #[test]
    fn without_a_topology_all_cores_are_of_one_node() {
        let folder = TempDir::new().unwrap();
        let mut cores = Cores::of(folder.path(), &[2, 5].into());
        assert_eq!(cores.take(TryId(1), 2, &[9]), Some(vec![2, 5]));
        assert!(!Cores::of_machine().nodes.is_empty());
    }
}
