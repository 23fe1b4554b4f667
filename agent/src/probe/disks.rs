//! The disks of a node: what is mounted from a device, how full it is and what goes through it.
//!
//! The kernel's own tables are read, and only file systems on devices are asked for their space:
//! one on a network may never answer, and has a watchdog of its own ([`super::storage`]). A device
//! that is mounted in several places counts once; images that are mounted (loop devices) do not.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use gantry_telemetry::DiskSample;

use super::{MIB, disk, per_second};

/// Readings between two looks at what is mounted.
const MOUNTS_EACH: u64 = 10;
/// Disks told of.
const DISKS_MAX: usize = 32;
/// The kernel counts in sectors of this size, whatever the device's is.
const SECTOR_BYTES: u64 = 512;
const MOUNTS: &str = "/proc/self/mountinfo";
const COUNTERS: &str = "/proc/diskstats";

/// A device's numbers, as the kernel has them.
type Device = (u32, u32);

/// What is mounted where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    device: Device,
    source: String,
    place: PathBuf,
}

/// Bytes read and written since the start of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    read: u64,
    written: u64,
}

/// The disks, with what was counted at the last reading.
#[derive(Default)]
pub(super) struct Disks {
    mounts: Vec<Mount>,
    counted: BTreeMap<Device, Counted>,
    turn: u64,
}

impl Disks {
    /// Reads every disk; `millis` have passed since the last time.
    pub(super) fn read(&mut self, millis: u64) -> Vec<DiskSample> {
        if self.turn.is_multiple_of(MOUNTS_EACH) {
            self.mounts = mounts(&fs::read_to_string(MOUNTS).unwrap_or_default());
        }
        self.turn += 1;
        let now = counters(&fs::read_to_string(COUNTERS).unwrap_or_default());
        let samples = self.mounts.iter().map(|mount| {
            let (free, size) = disk(&mount.place);
            let then = self.counted.get(&mount.device).zip(now.get(&mount.device));
            let rate = |of: fn(&Counted) -> u64| {
                then.map_or(0, |(then, now)| per_second(of(now).saturating_sub(of(then)), millis))
            };
            DiskSample {
                name: mount.place.display().to_string(),
                total_mib: size / MIB,
                free_mib: free / MIB,
                read_kib: rate(|counted| counted.read),
                written_kib: rate(|counted| counted.written),
            }
        });
        let samples = samples.collect();
        self.counted = now;
        samples
    }
}

/// What is mounted from devices, each once.
fn mounts(table: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    for mount in table.lines().filter_map(mount) {
        if !mounts.iter().any(|known| known.source == mount.source) {
            mounts.push(mount);
        }
    }
    mounts.truncate(DISKS_MAX);
    mounts
}

/// One line: number, parent, device, root, place, options, more of them, `-`, type, source, rest.
fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ');
    let (major, minor) = fields.nth(2)?.split_once(':')?;
    let place = PathBuf::from(unescape(fields.nth(1)?));
    let source = unescape(after.split(' ').nth(1)?);
    if !source.starts_with("/dev/") || source.starts_with("/dev/loop") {
        return None;
    }
    let mut device = (major.parse().ok()?, minor.parse().ok()?);
    if device.0 == 0 {
        // A file system that spans devices has a number of its own.
        device = numbers(Path::new(&source)).unwrap_or(device);
    }
    Some(Mount { device, source, place })
}

fn numbers(device: &Path) -> Option<Device> {
    let number = fs::metadata(device).ok()?.rdev();
    Some((rustix::fs::major(number), rustix::fs::minor(number)))
}

/// The kernel writes blanks and the like as `\` and three octal digits.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = after
            .get(..3)
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        let code = code.filter(|_| *first == b'\\');
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Each line: major, minor, name, reads, merged, sectors read, time, writes, merged, sectors written.
fn counters(table: &str) -> BTreeMap<Device, Counted> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let device = (number(0)? as u32, number(1)? as u32);
        let (read, written) = (number(5)? * SECTOR_BYTES, number(9)? * SECTOR_BYTES);
        Some((device, Counted { read, written }))
    };
    table.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_from_a_device_counts_once() {
        let table = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
28 27 254:0 /srv /bound rw,relatime - ext4 /dev/vda rw
29 27 8:17 / /mnt/two\\040words rw - xfs /dev/sdb1 rw
30 27 0:40 / /shared rw - nfs4 server:/export rw,hard
31 27 7:3 / /snap/x/1 ro - squashfs /dev/loop3 ro
32 27 0:55 / /data rw - btrfs /dev/nowhere rw
not a mount";
        let expected = [
            ((254, 0), "/dev/vda", "/"),
            ((8, 17), "/dev/sdb1", "/mnt/two words"),
            ((0, 55), "/dev/nowhere", "/data"),
        ];
        let expected = expected.map(|(device, source, place)| Mount {
            device,
            source: source.into(),
            place: place.into(),
        });
        assert_eq!(mounts(table), expected);
    }

    #[test]
    fn counters_are_by_device() {
        let table = "\
   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0
 254       0 vda 5177862 221737 20 5428632 7803094 639549 40 1518931 0 723756 7256204 1 2 3 4
 short line";
        let counted = |read, written| Counted { read, written };
        let expected =
            BTreeMap::from([((7, 0), counted(0, 0)), ((254, 0), counted(10_240, 20_480))]);
        assert_eq!(counters(table), expected);
    }

    #[test]
    fn this_machines_disks_have_a_size() {
        let mut disks = Disks::default();
        disks.read(1000);
        for disk in disks.read(1000) {
            assert!(disk.free_mib <= disk.total_mib, "{disk:?}");
        }
    }
}
