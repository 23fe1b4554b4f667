//! This machine as a node: its settings and certificate, its own ports, the shared storage, the GPU
//! driver, control groups.

use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use gantry_config::{AgentSettings, CgroupPlace, load_file};
use gantry_library::Library;
use gantry_link::Identity;
use gantry_model::Role;

use super::{Finding, cluster};
use crate::cli::time;

/// Below this much free space a library takes no images.
const FREE_MIN_MIB: u64 = 1024;
/// A write that is synced takes less than this on a storage that is well.
const SYNC_MAX_MS: u128 = 500;
/// How long an own port is waited for.
const PORT_WITHIN: Duration = Duration::from_secs(1);
/// What commands are kept apart with.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

pub(super) fn findings(folder: &Path, library: Option<&Path>) -> Vec<Finding> {
    let mut found = Vec::new();
    let settings = settings(folder, &mut found);
    let known = settings.as_ref();
    if known.is_some() {
        found.push(match Identity::load(folder, "agent") {
            Ok(identity) => cluster::certificate(&identity, "agent", time::now()),
            Err(error) => {
                Finding::fail("certificates", error.to_string(), "join the node: gantry join TOKEN")
            }
        });
    }
    let own = known.and_then(|settings| settings.ingest.as_ref()).map(|ingest| ingest.listen);
    for (what, address) in
        [("DICOM", own), ("metrics", known.and_then(|settings| settings.metrics))]
    {
        found.extend(address.map(|address| port(what, address)));
    }
    let library = library.or_else(|| known.and_then(|settings| settings.library.as_deref()));
    found.push(match library {
        Some(library) => storage(library),
        None => Finding::skip("storage", "no library is set; --library DIR looks at one"),
    });
    found.push(driver(known, folder));
    found.push(cgroups(known, Path::new("/sys/fs/cgroup")));
    found
}

fn settings(folder: &Path, found: &mut Vec<Finding>) -> Option<AgentSettings> {
    let path = folder.join("agent.toml");
    if !path.exists() {
        let why = format!("{} is not there: this machine is no node", path.display());
        found.push(Finding::skip("settings", why));
        return None;
    }
    match load_file(&path) {
        Ok(settings) => {
            found.push(Finding::ok("settings", format!("{} is in order", path.display())));
            Some(settings)
        }
        Err(error) => {
            let mend = "mend the line; gantry config explain KEY says what a key means";
            found.push(Finding::fail("settings", error.to_string(), mend));
            None
        }
    }
}

/// Whether an own TCP port is there or can be had.
fn port(what: &str, address: SocketAddr) -> Finding {
    let mut near = address;
    if address.ip().is_unspecified() {
        near.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    if TcpStream::connect_timeout(&near, PORT_WITHIN).is_ok() {
        return Finding::ok("ports", format!("TCP {address} for {what} answers"));
    }
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(
            "ports",
            format!("TCP {address} for {what} is free; the agent does not run"),
        ),
        Err(error) => Finding::fail(
            "ports",
            format!("TCP {address} for {what} can not be had: {error}"),
            "let no other program have it, or choose another in agent.toml; a port below 1024 needs the right to bind it",
        ),
    }
}

/// Writes, syncs, links and removes a file where the library is: what it lives from.
fn storage(folder: &Path) -> Finding {
    let shown = folder.display();
    let library = match Library::open(folder) {
        Ok(library) => library,
        Err(error) => {
            let mend = "mount the shared storage, or let gantry import make a library there";
            return Finding::fail("storage", error.to_string(), mend);
        }
    };
    let begun = Instant::now();
    if let Err(error) = write(folder) {
        let found = format!("writing a synced file in {shown} failed: {error}");
        let mend = "let the agent's user write there, and use a file system with hard links";
        return Finding::fail("storage", found, mend);
    }
    let took_ms = begun.elapsed().as_millis();
    let free = library.free_mib().unwrap_or(0);
    let found =
        format!("{shown} takes a synced file in {took_ms} ms, {} GiB are free", free / 1024);
    if free < FREE_MIN_MIB {
        Finding::fail("storage", found, "free some space: images are refused below 1 GiB")
    } else if took_ms > SYNC_MAX_MS {
        Finding::warn(
            "storage",
            found,
            "see whether the storage is busy: each image waits for one such file",
        )
    } else {
        Finding::ok("storage", found)
    }
}

fn write(folder: &Path) -> std::io::Result<()> {
    let name = |end: &str| folder.join(format!(".doctor-{}.{end}", std::process::id()));
    let (part, whole) = (name("part"), name("whole"));
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).open(&part)?;
        file.write_all(&[0x5a; 4096])?;
        file.sync_all()?;
        fs::hard_link(&part, &whole)?;
        File::open(folder)?.sync_all()
    })();
    for path in [&part, &whole] {
        // One of them may not have come to be.
        let _ = fs::remove_file(path);
    }
    written
}

fn driver(settings: Option<&AgentSettings>, folder: &Path) -> Finding {
    let wanted = settings.is_some_and(|settings| settings.roles.contains(&Role::Gpu));
    let version = fs::read_to_string("/proc/driver/nvidia/version").ok();
    let version = version.as_deref().and_then(|text| text.lines().next()).map(str::to_owned);
    let facts = gantry_agent::look(&settings.cloned().unwrap_or_default(), folder);
    let mend =
        "install the NVIDIA driver with libnvidia-ml, or name the library with nvml in agent.toml";
    match (facts.gpu_reason, version) {
        (None, version) => {
            let count = facts.gpus.len();
            let version = version.unwrap_or_else(|| "driver without a version".into());
            Finding::ok("driver", format!("{count} GPUs; {version}"))
        }
        (Some(reason), Some(_)) => Finding::fail("driver", reason, mend),
        (Some(reason), None) if wanted => {
            let found = format!("{reason}; training computes on the processor");
            Finding::warn("driver", found, mend)
        }
        (Some(reason), None) => Finding::skip("driver", reason),
    }
}

fn cgroups(settings: Option<&AgentSettings>, root: &Path) -> Finding {
    if settings.is_some_and(|settings| settings.isolation.cgroup == CgroupPlace::Nowhere) {
        return Finding::skip("cgroups", "the agent's settings want none");
    }
    let Ok(there) = fs::read_to_string(root.join("cgroup.controllers")) else {
        return Finding::warn(
            "cgroups",
            "no cgroup v2 is mounted: tasks have the resource limits of processes only",
            "boot with systemd.unified_cgroup_hierarchy=1",
        );
    };
    let missing: Vec<&str> = CONTROLLERS
        .into_iter()
        .filter(|one| !there.split_whitespace().any(|other| other == *one))
        .collect();
    if !missing.is_empty() {
        return Finding::warn(
            "cgroups",
            format!("the kernel gives no {}", missing.join(", ")),
            "let whoever started this container or service delegate them",
        );
    }
    Finding::ok("cgroups", format!("v2 with {}", CONTROLLERS.join(", ")))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::State;
    use super::*;

    #[test]
    fn a_library_is_written_to_and_left_as_it_was() {
        let folder = TempDir::new().unwrap();
        let root = folder.path().join("library");
        Library::create(&root).unwrap();
        let count = || fs::read_dir(&root).unwrap().count();
        let before = count();
        let found = storage(&root);
        assert!(matches!(found.state, State::Ok | State::Warn), "{found:?}");
        assert_eq!(count(), before);
        assert_eq!(storage(folder.path()).state, State::Fail);
    }

    #[test]
    fn cgroups_by_what_the_kernel_gives() {
        let folder = TempDir::new().unwrap();
        assert_eq!(cgroups(None, folder.path()).state, State::Warn);
        for (text, state) in [
            ("cpuset cpu io memory pids", State::Ok),
            ("cpu memory", State::Warn),
            ("", State::Warn),
        ] {
            fs::write(folder.path().join("cgroup.controllers"), text).unwrap();
            assert_eq!(cgroups(None, folder.path()).state, state, "{text}");
        }
    }

    #[test]
    fn own_ports_and_settings() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert!(port("DICOM", address).found.ends_with("answers"));
        drop(taken);
        assert!(port("DICOM", address).found.contains("is free"));
        // Another program has it on an address where nobody of gantry would answer.
        let other = TcpListener::bind("127.0.0.2:0").unwrap();
        let all = SocketAddr::from(([0, 0, 0, 0], other.local_addr().unwrap().port()));
        assert_eq!(port("DICOM", all).state, State::Fail);
        let folder = TempDir::new().unwrap();
        let state = |text: Option<&str>| {
            if let Some(text) = text {
                fs::write(folder.path().join("agent.toml"), text).unwrap();
            }
            let mut found = Vec::new();
            settings(folder.path(), &mut found);
            found[0].state
        };
        assert_eq!(state(None), State::Skip);
        assert_eq!(state(Some("node = \"a\"")), State::Ok);
        assert_eq!(state(Some("nod = \"a\"")), State::Fail);
    }
}
