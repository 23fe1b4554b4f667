//! Which GPUs reach one another over `NVLink`, and which NUMA node each hangs on.
//!
//! Both follow from addresses on the PCI bus: the kernel knows the NUMA node of each, and NVML says
//! which address is at the other end of a link, be it a GPU's or a switch's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Where the kernel describes devices on the PCI bus.
pub(super) const DEVICES: &str = "/sys/bus/pci/devices";

/// The ends of one GPU's links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    /// The GPU's own address.
    pub(super) own: String,
    /// What its active links lead to.
    pub(super) others: Vec<String>,
}

/// The island of each GPU: the same number for those that reach one another over links, directly,
/// over a switch or over other GPUs. Islands are numbered in the order of their first GPU.
pub(super) fn islands(gpus: &[Ends]) -> Vec<u16> {
    // Every GPU begins alone; who shares an address is one island.
    let mut islands: Vec<usize> = (0..gpus.len()).collect();
    let mut by_address = BTreeMap::<&str, usize>::new();
    for (gpu, ends) in gpus.iter().enumerate() {
        for address in std::iter::once(&ends.own).chain(&ends.others) {
            let known = *by_address.entry(address).or_insert(gpu);
            let (from, to) = (islands[gpu], islands[known]);
            let (low, high) = (from.min(to), from.max(to));
            for island in &mut islands {
                if *island == high {
                    *island = low;
                }
            }
        }
    }
    let mut numbers = BTreeMap::new();
    islands
        .into_iter()
        .map(|island| {
            let next = numbers.len() as u16;
            *numbers.entry(island).or_insert(next)
        })
        .collect()
}

/// The NUMA node of the device at an address, where the kernel says so.
pub(super) fn numa(devices: &Path, address: &str) -> Option<u16> {
    // NVML writes the domain with eight digits and letters large, the kernel with four and small.
    let address = address.to_ascii_lowercase();
    let (domain, rest) = address.split_once(':')?;
    let domain = u32::from_str_radix(domain, 16).ok()?;
    let text = fs::read_to_string(devices.join(format!("{domain:04x}:{rest}")).join("numa_node"));
    // The kernel says -1 where there is only one or it does not know.
    text.ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn islands_are_who_reaches_whom() {
        type Case =
            (&'static str, &'static [(&'static str, &'static [&'static str])], &'static [u16]);
        let cases: [Case; 6] = [
            ("none", &[], &[]),
            ("no links", &[("a", &[]), ("b", &[])], &[0, 1]),
            (
                "two pairs",
                &[("a", &["b"]), ("b", &["a"]), ("c", &["d"]), ("d", &["c"])],
                &[0, 0, 1, 1],
            ),
            (
                "a switch",
                &[("a", &["s", "t"]), ("b", &["t"]), ("c", &[]), ("d", &["s"])],
                &[0, 0, 1, 0],
            ),
            ("a chain that joins late", &[("a", &[]), ("b", &[]), ("c", &["b", "a"])], &[0, 0, 0]),
            ("one side says it", &[("a", &[]), ("b", &["c"]), ("c", &[])], &[0, 1, 1]),
        ];
        for (what, gpus, expected) in cases {
            let gpus: Vec<Ends> = gpus
                .iter()
                .map(|(own, others)| Ends {
                    own: (*own).into(),
                    others: others.iter().map(ToString::to_string).collect(),
                })
                .collect();
            assert_eq!(islands(&gpus), expected, "{what}");
        }
    }

    #[test]
    fn the_kernel_says_the_numa_node() {
        let devices = TempDir::new().unwrap();
        for (address, node) in [("0000:3b:00.0", "1\n"), ("0001:07:00.0", "-1\n")] {
            fs::create_dir(devices.path().join(address)).unwrap();
            fs::write(devices.path().join(address).join("numa_node"), node).unwrap();
        }
        for (address, expected) in [
            ("00000000:3B:00.0", Some(1)),
            ("00000001:07:00.0", None),
            ("00000000:99:00.0", None),
            ("nothing", None),
            ("../..:etc", None),
        ] {
            assert_eq!(numa(devices.path(), address), expected, "{address}");
        }
    }
}
