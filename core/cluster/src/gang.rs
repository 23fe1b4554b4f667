//! Room for several ranks at once: all of a gang, or nothing.
//!
//! One node is better than several, and few are better than many: ranks talk to one another. Of the
//! nodes that do equally well the fullest are taken, so that empty ones stay for the next gang.

use std::cmp::Reverse;

use gantry_model::{At, Gang, JobId, NodeId, Role};

use crate::cluster::Cluster;
use crate::queue::ClassId;

/// Ranks by node.
pub(crate) type Places = Vec<(NodeId, u32)>;

/// Where the ranks of a gang go, given how many each node can take.
pub(crate) fn spread(gang: Gang, mut room: Places) -> Option<Places> {
    room.retain(|(_, count)| *count > 0);
    if let Some(nodes) = gang.nodes {
        let each = gang.ranks / nodes;
        room.retain(|(_, count)| *count >= each);
        room.sort_by_key(|(node, count)| (*count, *node));
        room.truncate(nodes as usize);
        let places: Places = room.into_iter().map(|(node, _)| (node, each)).collect();
        return (places.len() == nodes as usize).then_some(places);
    }
    let smallest = |room: &Places, enough: u32| {
        let fits = room.iter().filter(|(_, count)| *count >= enough);
        fits.min_by_key(|(node, count)| (*count, *node)).map(|(node, _)| *node)
    };
    if let Some(node) = smallest(&room, gang.ranks) {
        return Some(vec![(node, gang.ranks)]);
    }
    room.sort_by_key(|(node, count)| (Reverse(*count), *node));
    let (mut places, mut left) = (Places::new(), gang.ranks);
    while left > 0 && !room.is_empty() {
        // The last node is the one where the rest just fits.
        let node = smallest(&room, left).unwrap_or(room[0].0);
        let at = room.iter().position(|(other, _)| *other == node)?;
        let (node, count) = room.remove(at);
        let here = count.min(left);
        places.push((node, here));
        left -= here;
    }
    (left == 0).then_some(places)
}

impl Cluster {
    /// Where a gang would start now, or why it cannot.
    pub(crate) fn find_for_gang(
        &self,
        at: At,
        class: ClassId,
        job: JobId,
        role: Option<Role>,
    ) -> Result<Places, String> {
        let kind = self.kinds.get(class.kind);
        let Some(gang) = kind.gang else { unreachable!("{job} is no gang") };
        let open = self.nodes.iter().filter(|node| {
            node.refuses(kind, role, at).is_none() && self.is_kept(at, node, kind, job).is_none()
        });
        let room = |node: &crate::node::Node| {
            (node.id, node.room.capacity(&node.facts.gpus, kind).min(gang.ranks))
        };
        let room: Places = open.map(room).collect();
        let nodes = room.len();
        let ranks: u64 = room.iter().map(|(_, count)| u64::from(*count)).sum();
        spread(gang, room).ok_or_else(|| {
            if ranks == 0 {
                return self.why_not(at, class, job, role);
            }
            let over = gang.nodes.map_or_else(String::new, |nodes| format!(" over {nodes} nodes"));
            format!(
                "needs room for {} ranks{over} at once; there is room for {ranks} on {nodes} nodes",
                gang.ranks
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ranks, nodes, the room of each node, and where the ranks go.
    type Case<'a> = (u32, Option<u32>, &'a [u32], Option<&'a [(u32, u32)]>);

    #[test]
    fn ranks_go_to_few_and_full_nodes() {
        let room = |counts: &[u32]| -> Places {
            counts.iter().enumerate().map(|(n, count)| (NodeId(n as u32 + 1), *count)).collect()
        };
        let cases: [Case; 8] = [
            (4, None, &[8, 4, 6], Some(&[(2, 4)])),
            (10, None, &[8, 4, 6, 2], Some(&[(1, 8), (4, 2)])),
            (16, None, &[8, 8], Some(&[(1, 8), (2, 8)])),
            (17, None, &[8, 8], None),
            (8, Some(2), &[8, 4, 3, 5], Some(&[(2, 4), (4, 4)])),
            (8, Some(4), &[2, 2, 2, 1], None),
            (2, None, &[0, 0], None),
            (1, None, &[3], Some(&[(1, 1)])),
        ];
        for (ranks, nodes, counts, expected) in cases {
            let found = spread(Gang { ranks, nodes }, room(counts));
            let expected = expected.map(|places| -> Places {
                places.iter().map(|(node, count)| (NodeId(*node), *count)).collect()
            });
            assert_eq!(found, expected, "{ranks} over {nodes:?} in {counts:?}");
        }
    }
}
