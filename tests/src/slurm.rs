//! A Slurm of a test's own: munged, slurmctld and slurmd of the machine's packages, with their files in
//! one folder and ports of their own, so that none that runs here is touched.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{installed, until};

/// What it is made of.
const PROGRAMS: [&str; 6] = ["munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol"];

/// A Slurm of one node.
#[derive(Debug)]
pub struct Slurm {
    daemons: Vec<Child>,
    conf: PathBuf,
    folder: TempDir,
}

impl Slurm {
    /// Starts it; nothing where this machine has none or the test is not root, which is said aloud.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start(test: &str, cores: u32) -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: {test} needs root, for Slurm's daemons");
            return Ok(None);
        }
        if !PROGRAMS.iter().all(|program| installed(program, test)) {
            eprintln!(
                "SKIPPED: {test} needs the packages slurmctld, slurmd, slurm-client and munge"
            );
            return Ok(None);
        }
        let folder = TempDir::new()?;
        let place = folder.path().to_owned();
        let key = place.join("munge.key");
        std::fs::write(&key, [7; 1024])?;
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600))?;
        for name in ["state", "spool"] {
            std::fs::create_dir(place.join(name))?;
        }
        let mut slurm = Self { daemons: Vec::new(), conf: place.join("slurm.conf"), folder };
        let host = rustix::system::uname();
        let host = host.nodename().to_str()?.split('.').next().context("no name")?;
        std::fs::write(&slurm.conf, conf(&place, host, cores)?)?;
        let socket = place.join("munge.socket");
        let of = |name: &str| format!("--{name}={}", place.join(format!("munge.{name}")).display());
        let munged = [
            "--foreground".to_owned(),
            "--force".to_owned(),
            format!("--socket={}", socket.display()),
            format!("--key-file={}", key.display()),
            of("pid-file"),
            of("seed-file"),
        ];
        slurm.daemon("munged", &munged)?;
        until("munged", || socket.exists().then_some(()))?;
        let conf = slurm.conf.display().to_string();
        slurm.daemon("slurmctld", &["-D".into(), "-f".into(), conf.clone()])?;
        slurm.daemon("slurmd", &["-D".into(), "-f".into(), conf])?;
        let idle = || slurm.said("sinfo", &["-h", "-o", "%T"]).ok().filter(|text| text == "idle");
        until("a node of Slurm that is idle", idle).with_context(|| slurm.logs())?;
        Ok(Some(slurm))
    }

    fn daemon(&mut self, name: &str, arguments: &[String]) -> Result<()> {
        let log = std::fs::File::create(self.folder.path().join(format!("{name}.log")))?;
        let mut command = Command::new(name);
        command.args(arguments).env("SLURM_CONF", &self.conf).stdin(Stdio::null());
        let child = command.stdout(log.try_clone()?).stderr(log).spawn();
        self.daemons.push(child.with_context(|| format!("starting {name}"))?);
        Ok(())
    }

    /// Its settings, which a command finds by `SLURM_CONF`.
    #[must_use]
    pub fn conf(&self) -> &Path {
        &self.conf
    }

    /// What a command of Slurm prints.
    ///
    /// # Errors
    /// Where it fails.
    pub fn said(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output =
            Command::new(program).args(arguments).env("SLURM_CONF", &self.conf).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {arguments:?}: {error}");
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// What its daemons have logged.
    #[must_use]
    pub fn logs(&self) -> String {
        ["munged", "slurmctld", "slurmd"]
            .map(|name| {
                let path = self.folder.path().join(format!("{name}.log"));
                format!("--- {name}\n{}", std::fs::read_to_string(path).unwrap_or_default())
            })
            .join("\n")
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        // Jobs first, whose processes slurmd's end would leave.
        let _ = self.said("scancel", &["--full", "--me"]);
        let none = || self.said("squeue", &["-h"]).ok().filter(String::is_empty);
        let _ = until("the end of all jobs", none);
        for daemon in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn conf(place: &Path, host: &str, cores: u32) -> Result<String> {
    let free = || -> Result<u16> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()) };
    let (control, node) = (free()?, free()?);
    let place = place.display();
    Ok(format!(
        "ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
SlurmUser=root
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
MaxJobCount=20000
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"
    ))
}
