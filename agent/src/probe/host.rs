//! The node itself: cores, memory, load, pressure, networks.
//!
//! sysinfo keeps what the counters were at the last reading; pressure is the kernel's own average.
//! What the kernel does not say is zero where a sample has no way to leave it out.

use std::fs;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use gantry_model::At;
use gantry_telemetry::{NetworkSample, Pressure, Sample};
use sysinfo::{Networks, System};

use super::disks::Disks;
use super::{MIB, disk, per_second};

/// Networks told of.
const NETWORKS_MAX: usize = 32;
const PRESSURE: &str = "/proc/pressure";

/// What reads the node.
pub(super) struct Host {
    /// Absent where the kernel does not say what is read through them.
    system: Option<System>,
    networks: Option<Networks>,
    disks: Disks,
    /// The agent's folder.
    folder: PathBuf,
    last: Instant,
}

impl Host {
    /// Begins to count.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            system: System::new().ok(),
            networks: Networks::new_with_refreshed_list().ok(),
            disks: Disks::default(),
            folder,
            last: Instant::now(),
        }
    }

    /// Everything of a sample that is the node's own.
    pub(super) fn read(&mut self) -> Sample {
        let millis = (self.last.elapsed().as_millis() as u64).max(1);
        self.last = Instant::now();
        let networks = self.networks(millis);
        let sum = |of: fn(&NetworkSample) -> u64| networks.iter().map(of).sum();
        let (free, size) = disk(&self.folder);
        let load = System::load_average().map_or(0.0, |load| load.one);
        let mut sample = Sample {
            at: now(),
            load_centi: (load * 100.0).round() as u32,
            pressure: pressure(),
            disk_free_mib: free / MIB,
            disk_total_mib: size / MIB,
            disks: self.disks.read(millis),
            network_received_kib: sum(|network| network.received_kib),
            network_sent_kib: sum(|network| network.sent_kib),
            networks,
            ..Sample::default()
        };
        if let Some(system) = &mut self.system {
            system.refresh_cpu_usage();
            system.refresh_memory();
            let permille = |percent: f32| (percent * 10.0).round() as u32;
            sample.cpu_permille = permille(system.global_cpu_usage());
            sample.cores_permille =
                system.cpus().iter().map(|core| permille(core.usage())).collect();
            sample.memory_used_mib = system.used_memory() / MIB;
            sample.memory_total_mib = system.total_memory() / MIB;
            sample.swap_used_mib = system.used_swap() / MIB;
        }
        sample
    }

    /// Every network but the loopback, by name.
    fn networks(&mut self, millis: u64) -> Vec<NetworkSample> {
        let Some(networks) = &mut self.networks else { return Vec::new() };
        networks.refresh(true);
        let outside = networks.iter().filter(|(name, _)| name.to_str() != Some("lo"));
        let mut samples: Vec<NetworkSample> = outside
            .map(|(name, network)| NetworkSample {
                name: name.to_string_lossy().into_owned(),
                received_kib: per_second(network.received(), millis),
                sent_kib: per_second(network.transmitted(), millis),
                errors: network.total_errors_on_received() + network.total_errors_on_transmitted(),
            })
            .collect();
        samples.sort_by(|one, other| one.name.cmp(&other.name));
        samples.truncate(NETWORKS_MAX);
        samples
    }
}

fn now() -> At {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    At(since.as_millis() as u64)
}

/// What the kernel says of work that waits; it can be built or started without saying it.
fn pressure() -> Option<Pressure> {
    let of = |thing: &str| average(&fs::read_to_string(format!("{PRESSURE}/{thing}")).ok()?);
    Some(Pressure {
        cpu_permille: of("cpu")?,
        memory_permille: of("memory")?,
        io_permille: of("io")?,
    })
}

/// The share of the last ten seconds of the line `some avg10=1.23 ...`, in thousandths.
fn average(text: &str) -> Option<u32> {
    let some = text.lines().find_map(|line| line.strip_prefix("some avg10="))?;
    let (whole, hundredths) = some.split(' ').next()?.split_once('.')?;
    let tenths = hundredths.get(..1)?;
    Some(whole.parse::<u32>().ok()? * 10 + tenths.parse::<u32>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_the_average_of_ten_seconds() {
        for (text, expected) in [
            ("some avg10=0.00 avg60=0.00 avg300=0.06 total=43\nfull avg10=9.00", Some(0)),
            ("some avg10=12.34 avg60=0.00 avg300=0.06 total=43", Some(123)),
            ("some avg10=100.00 avg60=0.00", Some(1000)),
            ("full avg10=1.00 avg60=0.00", None),
            ("some avg10=x.00", None),
            ("some avg10=1.é", None),
            ("", None),
        ] {
            assert_eq!(average(text), expected, "{text}");
        }
    }

    #[test]
    fn this_machine_is_read() {
        let mut host = Host::new(std::env::temp_dir());
        host.read();
        let sample = host.read();
        assert!(sample.at > At(0));
        assert!(!sample.cores_permille.is_empty());
        assert!(sample.cores_permille.iter().all(|core| *core <= 1000), "{sample:?}");
        assert!(sample.memory_used_mib > 0 && sample.memory_used_mib < sample.memory_total_mib);
        assert!(sample.disk_total_mib > 0 && sample.disk_free_mib <= sample.disk_total_mib);
        assert!(sample.networks.iter().all(|network| network.name != "lo"));
        let is_sorted = sample.networks.is_sorted_by_key(|network| network.name.clone());
        assert!(is_sorted, "{:?}", sample.networks);
    }
}
