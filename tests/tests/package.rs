//! The package: what is in it, that its units are sound, what its daemons tell a service manager, and
//! that it makes a cluster of three hosts in three commands.
//!
//! Each host is a network namespace with a file system of its own: this machine's below, the package's
//! files and whatever the host writes above it (overlayfs). So the daemons run as on a fresh machine: by
//! their default folders, with the settings of `/etc/gantry`, under the account that the package makes.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_tests::hosts::Hosts;
use gantry_tests::package::Package;
use gantry_tests::{PATIENCE, installed, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const UNDER_TEST: &str = env!("CARGO_BIN_EXE_gantry-under-test");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn package(made: &Path) -> Package {
    let manifest = root().join("Cargo.toml");
    let workspace =
        cargo_metadata::MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap();
    let console = workspace.packages.iter().find(|package| package.name == "gantry").unwrap();
    Package::read(console.metadata["deb"].clone(), Path::new(UNDER_TEST), made).unwrap()
}

#[test]
fn the_package_has_what_its_list_says_and_a_page_for_every_command() {
    let made = TempDir::new().unwrap();
    let package = package(made.path());
    let (mut list, mut pages) = (String::new(), BTreeSet::new());
    for (place, mode) in package.list() {
        match place.strip_prefix("usr/share/man/man1/") {
            Some(page) => drop(pages.insert(page.trim_end_matches(".1").to_owned())),
            None => writeln!(list, "{mode:o} {place}").unwrap(),
        }
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/package.txt");
    if std::env::var_os("GANTRY_BLESS").is_some() {
        std::fs::write(&golden, &list).unwrap();
    }
    let known = std::fs::read_to_string(&golden).unwrap();
    assert_eq!(list, known, "GANTRY_BLESS=1 writes the list anew");
    let commands = gantry::cli::nouns::command();
    let shown = commands.get_subcommands().filter(|command| !command.is_hide_set());
    for command in shown {
        let page = format!("gantry-{}", command.get_name());
        assert!(pages.contains(&page), "{page} is not there");
    }
    for settings in package.metadata["conf-files"].as_array().unwrap() {
        let place = settings.as_str().unwrap().trim_start_matches('/');
        assert!(package.list().any(|(one, _)| one == place), "{place} is no file of the package");
    }
}

/// The values of a key of a unit.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn the_units_say_what_the_daemons_rely_on() {
    let read = |role: &str| {
        let path = root().join(format!("config/package/gantry-{role}.service"));
        std::fs::read_to_string(path).unwrap()
    };
    for role in ["scheduler", "agent"] {
        let unit = read(role);
        for (key, expected) in [
            ("Type", "notify"),
            ("ExecStart", &format!("/usr/bin/gantry {role}")),
            ("User", "gantry"),
            ("StateDirectory", &format!("gantry/{role}")),
            ("NoNewPrivileges", "yes"),
        ] {
            assert_eq!(values(&unit, key), [expected], "{key} of the {role}");
        }
        let watchdog: u64 = values(&unit, "WatchdogSec")[0].parse().unwrap();
        assert!(watchdog >= 30, "a daemon says every five seconds that it is alive");
    }
    assert_eq!(values(&read("scheduler"), "RuntimeDirectory"), ["gantry"], "its socket");
    let agent = read("agent");
    for (key, expected) in [
        // Tasks outlive the agent, whatever becomes of it.
        ("KillMode", "process"),
        ("OOMPolicy", "continue"),
        ("DelegateSubgroup", "gantry-agent"),
        // What is private to a service goes with it, and tasks stay.
        ("PrivateTmp", ""),
        ("RuntimeDirectory", ""),
        // They allow some devices only, and GPUs are none of those.
        ("PrivateDevices", ""),
        ("ProtectClock", ""),
        ("DevicePolicy", ""),
    ] {
        let found = values(&agent, key).join(" ");
        assert_eq!(found, expected, "{key} of the agent");
    }
}

/// What an older systemd does not know yet; it says so and goes on.
const NEWER: &str = "Unknown key 'DelegateSubgroup' in section [Service], ignoring.";

#[test]
fn systemd_takes_the_units() {
    if !installed("systemd-analyze", "the units") {
        return;
    }
    let made = TempDir::new().unwrap();
    let installed = made.path().join("root");
    package(&made.path().join("made")).lay(&installed).unwrap();
    std::fs::create_dir_all(installed.join("usr/bin")).unwrap();
    std::os::unix::fs::symlink(UNDER_TEST, installed.join("program")).unwrap();
    for role in ["scheduler", "agent"] {
        let unit = installed.join(format!("usr/lib/systemd/system/gantry-{role}.service"));
        // The program is not at its place on this machine.
        let text = std::fs::read_to_string(&unit).unwrap();
        std::fs::write(&unit, text.replace("/usr/bin/gantry", UNDER_TEST)).unwrap();
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--recursive-errors=no"])
            .arg(&unit)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let own = |line: &&str| line.contains("gantry") && !line.ends_with(NEWER);
        let wrong: Vec<&str> = said.lines().filter(own).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(&unit)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        eprintln!("{}", said.lines().last().unwrap_or("systemd-analyze security says nothing"));
    }
}

/// A service manager, as far as a daemon sees one.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn at(path: PathBuf) -> Result<Self> {
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        // The daemon may be of another account than the test.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        Ok(Self { socket, path })
    }

    /// Waits for a message that holds this line.
    fn hears(&self, line: &str) -> Result<()> {
        let mut message = [0; 4096];
        loop {
            let length = self.socket.recv(&mut message).with_context(|| format!("no {line}"))?;
            let text = String::from_utf8_lossy(&message[..length]);
            if text.lines().any(|one| one == line) {
                return Ok(());
            }
        }
    }
}

/// A host with the package on it.
struct Host {
    /// The process in whose namespaces its commands run.
    keeper: Child,
    shared: PathBuf,
    name: String,
}

/// Makes the file system of a host: $1 is the folder of the package's files, $2 its program, $3 a folder
/// that all hosts see, $4 an empty folder.
const MACHINE: &str = r#"set -e
mount -t tmpfs tmpfs "$4"
mkdir "$4/up" "$4/work" "$4/all"
mount -t overlay overlay -o "lowerdir=/,upperdir=$4/up,workdir=$4/work" "$4/all"
for one in proc dev sys; do mount --rbind "/$one" "$4/all/$one"; done
mount --bind "$3" "$4/all/$3"
rm -rf "$4/all/var/lib/gantry" "$4/all/etc/gantry"
cp -a "$1/." "$4/all/"
rm -f "$4/all/usr/bin/gantry"; touch "$4/all/usr/bin/gantry"
mount --bind "$2" "$4/all/usr/bin/gantry"
exec chroot "$4/all" sh -c 'touch "$1"; exec sleep infinity' sh "$5""#;

impl Host {
    fn start(hosts: &Hosts, number: u8, laid: &Path, shared: &Path) -> Result<Self> {
        let name = format!("host-{number}");
        let (place, there) = (shared.join(format!("{name}.fs")), shared.join(format!("{name}.up")));
        std::fs::create_dir(&place)?;
        let log = std::fs::File::create(shared.join(format!("{name}.log")))?;
        let mut command = Hosts::command(&hosts.namespace(number), Path::new("unshare"));
        command.args(["--mount", "--propagation", "private", "sh", "-c", MACHINE, "sh"]);
        command.args([laid, Path::new(UNDER_TEST), shared, &place, &there]);
        let keeper = command.stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log).spawn()?;
        let mut host = Self { keeper, shared: shared.to_owned(), name };
        let ready = until("the file system of a host", || {
            let ended = host.keeper.try_wait().ok()?.is_some();
            (there.exists() || ended).then_some(ended)
        })?;
        ensure!(!ready, "the file system of {} cannot be made: {}", host.name, host.log());
        Ok(host)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.shared.join(format!("{}.log", self.name))).unwrap_or_default()
    }

    /// A command on the host, by root.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.keeper.id().to_string()]);
        command.args(["--mount", "--net", "--root", "--wd", "--"]).args(words);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command
    }

    fn output(&self, words: &[&str]) -> Result<Output> {
        self.command(words).output().with_context(|| words.join(" "))
    }

    /// A command that must succeed, and what it printed.
    fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.output(words)?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{words:?} on {}: {errors}\n{}", self.name, self.log());
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Starts what a unit starts, as whom the unit starts it, and waits until it says that it is ready.
    fn service(&self, role: &str) -> Result<(Child, Manager)> {
        let manager = Manager::at(self.shared.join(format!("{}-{role}.socket", self.name)))?;
        let log = self.shared.join(format!("{}.log", self.name));
        let log = std::fs::File::options().append(true).open(log)?;
        let words = ["setpriv", "--reuid=gantry", "--regid=gantry", "--clear-groups"];
        let mut command = self.command(&[&words[..], &["/usr/bin/gantry", role]].concat());
        if role == "scheduler" {
            self.run(&["install", "--directory", "--owner=gantry", "--group=gantry", RUNTIME])?;
            command.env("RUNTIME_DIRECTORY", RUNTIME);
        }
        let child = command.env("NOTIFY_SOCKET", &manager.path).stderr(log).spawn()?;
        manager.hears("READY=1").with_context(|| self.log())?;
        Ok((child, manager))
    }
}

/// The folder that systemd gives a unit with `RuntimeDirectory=gantry`.
const RUNTIME: &str = "/run/gantry";

/// Accounts of a host: a person and a service.
const ACCOUNTS: &str = "ada:x:1500:1500::/home/ada:/bin/sh\nweb:x:990:990::/home/web:/bin/sh\n";

/// People of the scheduler's host need no token, and services get none.
fn people_are_known_by_their_account(first: &Host) -> Result<()> {
    let add = format!("printf '%s' '{ACCOUNTS}' >>/etc/passwd");
    first.run(&["sh", "-c", &add])?;
    for (name, uid) in [("ada", "1500"), ("web", "990")] {
        let owner = format!("--owner={uid}");
        first.run(&["install", "--directory", "--mode=700", &owner, &format!("/home/{name}")])?;
    }
    let command = |name: &str, words: &[&str]| {
        let (uid, home) = (format!("--reuid={name}"), format!("HOME=/home/{name}"));
        let words = [
            &["setpriv", &uid, "--clear-groups", "env", &home, "PATH=/usr/bin:/bin", "gantry"],
            words,
        ];
        first.output(&words.concat())
    };
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let submitted = command("ada", &["--quiet", "submit", "--wait", "--", "true"])?;
    ensure!(submitted.status.success(), "{}", said(&submitted));
    let job = String::from_utf8(submitted.stdout)?;
    let row: Value = serde_json::from_str(&first.run(&["gantry", "--json", "job", job.trim()])?)?;
    ensure!(row["job"]["user"] == "ada", "{row}");
    let rows: Value = serde_json::from_str(&first.run(&["gantry", "--json", "access", "list"])?)?;
    let all = rows["access"].as_array().context("no list")?;
    let ada = all.iter().find(|row| row["name"] == "ada").context("ada is not known")?;
    ensure!(ada["role"] == "user" && ada["by"] == "local_role", "{ada}");

    let refused = command("web", &["queue"])?;
    ensure!(!refused.status.success() && said(&refused).contains("service"), "{}", said(&refused));
    // Once taken away, an access stays so, whatever the account asks.
    first.run(&["gantry", "access", "revoke", "ada"])?;
    for words in [&["queue"][..], &["join", "--local"]] {
        let refused = command("ada", words)?;
        ensure!(said(&refused).contains("was taken away"), "{words:?}: {}", said(&refused));
    }
    let log = first.run(&["gantry", "audit", "list"])?;
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(" local ")).collect();
    ensure!(lines.len() == 3 && lines.iter().any(|line| line.contains("account 1500")), "{log}");
    Ok(())
}

impl Drop for Host {
    fn drop(&mut self) {
        // Its daemons end with the namespace of its network.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// Whether this machine can have hosts with file systems of their own; says aloud where not.
fn can_have_machines(test: &str) -> bool {
    let overlay = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !overlay.lines().any(|line| line.trim_end().ends_with("overlay")) {
        eprintln!("SKIPPED: {test} needs a kernel with overlayfs");
        return false;
    }
    ["unshare", "chroot", "setpriv", "systemd-sysusers", "systemd-tmpfiles"]
        .iter()
        .all(|program| installed(program, test))
}

#[test]
fn three_commands_make_a_cluster_of_three_hosts() -> Result<()> {
    const TEST: &str = "a cluster from the package";
    if !can_have_machines(TEST) {
        return Ok(());
    }
    let Some(hosts) = Hosts::build(TEST, 3)? else { return Ok(()) };
    let folder = TempDir::new()?;
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let laid = folder.path().join("package");
    package(&folder.path().join("made")).lay(&laid)?;
    let shared = folder.path().join("shared");
    std::fs::create_dir(&shared)?;
    let machines: Vec<Host> =
        (1..=3).map(|number| Host::start(&hosts, number, &laid, &shared)).collect::<Result<_>>()?;
    for host in &machines {
        host.run(&["systemd-sysusers", "/usr/lib/sysusers.d/gantry.conf"])?;
        host.run(&["systemd-tmpfiles", "--create", "/usr/lib/tmpfiles.d/gantry.conf"])?;
    }
    let first = &machines[0];
    // What the site has set for all nodes counts below what a node knows of itself.
    for host in &machines[1..] {
        host.run(&["sed", "-i", "s/^# cores = 16/cores = 3/", "/etc/gantry/agent.toml"])?;
    }

    let made = first.run(&["gantry", "scheduler", "init", "--name", "clinic"])?;
    ensure!(made.contains("systemctl enable --now gantry-scheduler"), "{made}");
    let (scheduler, manager) = first.service("scheduler")?;
    let scheduler_address = format!("{}:7400", Hosts::address(1));
    let mut agents = Vec::new();
    for host in &machines[1..] {
        let token = first.run(&["gantry", "--quiet", "scheduler", "token", &host.name])?;
        let join =
            ["gantry", "join", &token, "--node", &host.name, "--scheduler", &scheduler_address];
        let joined = host.run(&join)?;
        ensure!(joined.contains("systemctl enable --now gantry-agent"), "{joined}");
        agents.push(host.service("agent")?);
    }

    let nodes = || -> Option<()> {
        let text = first.run(&["gantry", "--json", "nodes"]).ok()?;
        let value: Value = serde_json::from_str(&text).ok()?;
        let rows = value["nodes"].as_array()?.clone();
        let up = rows.iter().filter(|row| row["state"] == "up" && row["cores"] == 3).count();
        (up == 2).then_some(())
    };
    until("two nodes of three cores", nodes)
        .with_context(|| machines.iter().map(Host::log).collect::<String>())?;
    // A task on each; neither is told what the manager tells its agent.
    for host in &machines[1..] {
        let script = "test -z \"$NOTIFY_SOCKET\" && id -un && hostname -I";
        let submit = ["gantry", "--quiet", "submit", "--wait", "--node", &host.name, "--"];
        let job = first.run(&[&submit[..], &["sh", "-c", script]].concat())?;
        let printed = first.run(&["gantry", "logs", &job])?;
        ensure!(printed.contains("gantry\n"), "a task ran as somebody else: {printed}");
    }
    manager.hears("WATCHDOG=1")?;
    people_are_known_by_their_account(first)?;

    // The agent goes, its task stays, and the next agent takes it over.
    let release = shared.join("release");
    let wait = format!("while ! test -e {}; do sleep 0.05; done", release.display());
    let submit = ["gantry", "--quiet", "submit", "--node", "host-2", "--", "sh", "-c", &wait];
    let job = first.run(&submit)?;
    let row = |job: &str| -> Option<Value> {
        let text = first.run(&["gantry", "--json", "job", job]).ok()?;
        Some(serde_json::from_str::<Value>(&text).ok()?["job"].clone())
    };
    until("the start of a task", || (row(&job)?["state"] == "run").then_some(()))?;
    let (mut agent, of_agent) = agents.remove(0);
    kill_process(Pid::from_child(&agent), Signal::TERM)?;
    of_agent.hears("STOPPING=1")?;
    ensure!(agent.wait()?.success(), "the agent did not end well");
    std::fs::remove_file(&of_agent.path)?;
    let (again, _manager) = machines[1].service("agent")?;
    std::fs::write(&release, "")?;
    first.run(&["gantry", "wait", &job])?;
    let ended = row(&job).context("no job")?;
    ensure!(ended["starts"] == 1, "the task was started again: {ended}");
    drop((scheduler, again, agents));
    Ok(())
}

#[test]
fn a_daemon_without_a_cluster_is_never_ready() {
    let folder = TempDir::new().unwrap();
    let manager = Manager::at(folder.path().join("socket")).unwrap();
    manager.socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    for role in ["scheduler", "agent"] {
        let output = Command::new(UNDER_TEST)
            .args([role, "--dir"])
            .arg(folder.path().join("nowhere"))
            .env("NOTIFY_SOCKET", &manager.path)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{role}");
    }
    assert!(manager.hears("READY=1").is_err(), "it said that it was ready");
}
