//! A scheduler played by the test, and agents of a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use gantry_agent::AgentError;
use gantry_config::{AgentSettings, Orphans};
use gantry_imaging::dicom::write::{Subject, ct_series};
use gantry_imaging::phantom::{PhantomSettings, patient};
use gantry_learning::TrainSettings;
use gantry_library::Library;
use gantry_link::{Authority, Connection, IdentityKind, Receiver, Sender, Server};
use gantry_model::{
    At, Builtin, Exit, JobId, Launch, Lease, Millis, NodeFacts, Order, Report, TaskId, TaskWork,
    TryId, Usage,
};
use gantry_telemetry::{Decoder, Reading, Sample};
use gantry_wire::{
    AgentMessage, Found, NodeReply, NodeRequest, Point, SchedulerMessage, Verdict,
    hello::VERSION_MAX,
};
use rustix::process::Pid;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// The body by its edges.
pub(crate) const PIPELINE: &str = r#"
name = "body"
label = "body"
[[steps]]
name = "body"
operation = "threshold"
at_least = -300
"#;

pub(crate) struct Bench {
    folder: TempDir,
    authority: Authority,
}

pub(crate) struct Agent {
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), AgentError>>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let own = folder.path().join("scheduler");
        std::fs::create_dir(&own).unwrap();
        let authority = Authority::create(&own, "test").unwrap();
        authority
            .issue(IdentityKind::Scheduler, "scheduler")
            .unwrap()
            .save(&own, "scheduler")
            .unwrap();
        let agent = folder.path().join("agent");
        std::fs::create_dir(&agent).unwrap();
        authority.issue(IdentityKind::Agent, "n1").unwrap().save(&agent, "agent").unwrap();
        Self { folder, authority }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// An agent as a process of its own, to be killed.
    pub(crate) fn process(&self, scheduler: SocketAddr, orphans: Orphans) -> Child {
        let role = if orphans == Orphans::Keep { "agent-keep" } else { "agent-end" };
        Command::new(std::env::current_exe().unwrap())
            .arg(role)
            .arg(self.folder().join("agent"))
            .arg(scheduler.to_string())
            .spawn()
            .unwrap()
    }

    /// The supervisor of the agent's folder, if one lives.
    pub(crate) fn supervisor(&self) -> Option<u32> {
        let folder = self.folder().join("agent/tries").canonicalize().ok()?;
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let lives_there = |id: &u32| {
            let link = |name| std::fs::read_link(format!("/proc/{id}/{name}")).ok();
            link("cwd").is_some_and(|cwd| cwd == folder)
                && link("exe") == std::env::current_exe().ok()
        };
        ids.into_iter().find(lives_there)
    }

    /// The names of what is in a folder of the agent.
    pub(crate) fn files(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder().join("agent").join(folder)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(crate) fn agent(
        &self,
        scheduler: SocketAddr,
        change: impl FnOnce(&mut AgentSettings),
    ) -> Agent {
        let folder = self.folder().join("agent");
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { stopped.await.unwrap_or(()) };
        let mut settings = settings(scheduler);
        change(&mut settings);
        let served =
            tokio::spawn(async move { gantry_agent::serve(&folder, settings, stopped).await });
        Agent { stop, served }
    }
}

/// The settings of a node that has no GPU, and whose commands end with its agent.
pub(crate) fn settings(scheduler: SocketAddr) -> AgentSettings {
    let nvml = Some("/nowhere/libnvidia-ml.so.1".into());
    AgentSettings {
        node: "n1".into(),
        scheduler,
        nvml,
        orphans: Orphans::End,
        labels: BTreeSet::from(["nvme".to_owned()]),
        ..AgentSettings::default()
    }
}

impl Agent {
    pub(crate) fn has_ended(&self) -> bool {
        self.served.is_finished()
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }

    pub(crate) async fn end(self) -> Result<(), AgentError> {
        self.served.await.unwrap()
    }
}

/// Waits until a process is gone or a zombie.
pub(crate) async fn is_gone(id: u32) {
    let dead = || {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.starts_with(" Z"))
    };
    let wait = async {
        while !dead() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(wait).await;
}

pub(crate) struct Scheduler(Server);

impl Scheduler {
    pub(crate) fn new(bench: &Bench, address: Option<SocketAddr>) -> Self {
        let address = address.unwrap_or(([127, 0, 0, 1], 0).into());
        let identity = bench.authority.issue(IdentityKind::Scheduler, "scheduler").unwrap();
        Self(Server::bind(address, &identity, &bench.folder().join("scheduler")).unwrap())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_address()
    }

    /// Welcomes the next agent. Word that one is gone is passed over.
    pub(crate) async fn session(&self) -> Session {
        loop {
            if let Some(Call::Up(session)) = self.call().await {
                return *session;
            }
        }
    }

    /// Hears that an agent is gone: when it was welcomed, and what outlives it.
    pub(crate) async fn gone(&self) -> (At, Vec<TryId>) {
        match self.call().await {
            Some(Call::Gone { welcomed, holds }) => (welcomed, holds),
            _ => panic!("an agent has called, and none was to"),
        }
    }

    /// The next call; nothing where the caller has given up meanwhile.
    async fn call(&self) -> Option<Call> {
        let incoming = within(self.0.accept()).await.unwrap();
        let (connection, _, mut sender, mut receiver) = incoming.handshake().await.ok()?;
        let welcome = Verdict::Welcome { version: VERSION_MAX, cluster: "test".into(), at: At(1) };
        sender.send(&welcome).await.unwrap();
        let (facts, holds) = match within(receiver.expect()).await.unwrap() {
            AgentMessage::Up { facts, holds } => (*facts, holds),
            AgentMessage::Gone { welcomed, holds } => {
                return Some(Call::Gone { welcomed, holds });
            }
            other => panic!("an agent first says what it is, and not {other:?}"),
        };
        Some(Call::Up(Box::new(Session {
            connection,
            sender,
            receiver,
            facts,
            holds,
            started: Vec::new(),
            ends: BTreeMap::new(),
            usages: BTreeMap::new(),
            metrics: Vec::new(),
            progress: Vec::new(),
        })))
    }
}

/// Who has called.
enum Call {
    Up(Box<Session>),
    Gone { welcomed: At, holds: Vec<TryId> },
}

pub(crate) struct Session {
    pub(crate) connection: Connection,
    sender: Sender,
    receiver: Receiver,
    pub(crate) facts: NodeFacts,
    pub(crate) holds: Vec<TryId>,
    pub(crate) started: Vec<TryId>,
    ends: BTreeMap<TryId, Exit>,
    pub(crate) usages: BTreeMap<TryId, Usage>,
    pub(crate) metrics: Vec<(TaskId, String, Point)>,
    pub(crate) progress: Vec<(TaskId, u16)>,
}

impl Session {
    pub(crate) async fn order(&mut self, order: Order) {
        self.sender.send(&SchedulerMessage::Order(order)).await.unwrap();
    }

    /// Launches a try of this number, of the only task of the job of this number.
    pub(crate) async fn launch(&mut self, number: u64, work: TaskWork, limit: Option<Millis>) {
        let launch = Launch { time_limit: limit, ..plan(number, work) };
        self.order(Order::Launch(Box::new(launch))).await;
    }

    async fn hear(&mut self) {
        match within(self.receiver.expect()).await.unwrap() {
            AgentMessage::Report(Report::Started { try_id }) => self.started.push(try_id),
            AgentMessage::Report(Report::Ended { try_id, exit, usage, .. }) => {
                self.ends.insert(try_id, exit);
                self.usages.insert(try_id, usage);
            }
            AgentMessage::Progress { task, permille } => self.progress.push((task, permille)),
            AgentMessage::Metrics { task, points } => {
                let points = points.into_iter().map(|(name, point)| (task, name, point));
                self.metrics.extend(points);
            }
            AgentMessage::Reading(_)
            | AgentMessage::Found(_)
            | AgentMessage::Tested { .. }
            | AgentMessage::Leaves { .. } => {}
            AgentMessage::Report(Report::Returned { try_id }) => {
                panic!("{try_id} is returned, and nothing was launched ahead")
            }
            AgentMessage::Up { .. } | AgentMessage::Gone { .. } => {
                panic!("an agent says once what it is")
            }
        }
    }

    pub(crate) async fn started(&mut self, number: u64) {
        // What has ended had started.
        let told = |session: &Self| {
            let try_id = TryId(number);
            session.started.contains(&try_id) || session.ends.contains_key(&try_id)
        };
        while !told(self) {
            self.hear().await;
        }
    }

    pub(crate) async fn end(&mut self, number: u64) -> Exit {
        while !self.ends.contains_key(&TryId(number)) {
            self.hear().await;
        }
        self.ends[&TryId(number)].clone()
    }

    /// The output of a job's only task, asked for as the scheduler does.
    pub(crate) async fn output(&self, number: u64, offset: u64) -> String {
        let (mut sender, mut receiver) = self.connection.open().await.unwrap();
        let request = NodeRequest::Output { task: JobId(number).task(0), offset };
        sender.send(&request).await.unwrap();
        match within(receiver.expect()).await.unwrap() {
            NodeReply::Output(output) => String::from_utf8(output.bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until a job's only task has printed so many whole lines, and gives them.
    pub(crate) async fn lines(&self, number: u64, count: usize) -> Vec<String> {
        loop {
            let output = self.output(number, 0).await;
            if output.ends_with('\n') && output.lines().count() >= count {
                return output.lines().map(str::to_owned).collect();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What a search in a job's output finds.
    pub(crate) async fn search(&self, number: u64, text: &str) -> Vec<Found> {
        let (mut sender, mut receiver) = self.connection.open().await.unwrap();
        let request = NodeRequest::Search { job: JobId(number), text: text.into() };
        sender.send(&request).await.unwrap();
        match within(receiver.expect()).await.unwrap() {
            NodeReply::Found { lines, more: false } => lines,
            other => panic!("{other:?}"),
        }
    }

    /// The next sample, whichever way it comes; what else is told meanwhile is passed over.
    #[allow(dead_code, reason = "only the bench of what an agent costs takes both ways")]
    pub(crate) async fn any_sample(&mut self) -> Sample {
        let next = async {
            loop {
                let message = tokio::select! {
                    said = self.connection.receive_datagram() => said.unwrap(),
                    said = self.receiver.expect() => Some(said.unwrap()),
                };
                if let Some(AgentMessage::Reading(reading)) = message {
                    return decoded(*reading);
                }
            }
        };
        within(next).await
    }

    /// The next sample that comes as a datagram.
    pub(crate) async fn sample(&self) -> Sample {
        match within(self.connection.receive_datagram()).await.unwrap() {
            Some(AgentMessage::Reading(reading)) => decoded(*reading),
            other => panic!("{other:?}"),
        }
    }
}

/// The sample of a reading: a keyframe, as none is acknowledged here.
fn decoded(reading: Reading) -> Sample {
    let mut decoder = Decoder::default();
    decoder.take(reading);
    decoder.newest().unwrap().clone()
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.unwrap()
}

/// A try of this number, of the only task of the job of this number.
pub(crate) fn plan(number: u64, work: TaskWork) -> Launch {
    Launch {
        try_id: TryId(number),
        task: JobId(number).task(0),
        name: "test".into(),
        user: "tester".into(),
        work,
        lease: Lease::default(),
        time_limit: None,
        output: None,
        warning: None,
        environment: BTreeMap::new(),
        start: 1,
        inherits: None,
    }
}

pub(crate) fn command(arguments: &[&str]) -> TaskWork {
    let arguments = arguments.iter().map(ToString::to_string).collect();
    TaskWork::Command { arguments, folder: None }
}

pub(crate) fn builtin(builtin: Builtin) -> TaskWork {
    TaskWork::Builtin(builtin)
}

/// A library with the scans of four phantoms of this size, and its folder.
pub(crate) fn phantoms(bench: &Bench, size: [usize; 3]) -> (Library, String) {
    let root = bench.folder().join("library");
    let library = Library::open_or_create(&root).unwrap();
    let spacing_mm = [336.0 / size[0] as f64, 336.0 / size[1] as f64, 192.0 / size[2] as f64];
    let settings = PhantomSettings { size, spacing_mm, ..PhantomSettings::default() };
    for number in 1..=4 {
        let name = format!("patient {number}");
        let files = ct_series(&patient(number, &settings).image, &Subject::new(&name)).unwrap();
        for file in files {
            gantry_agent::ingest::keep(&library, &file, &gantry_library::Source::Import, None)
                .unwrap();
        }
    }
    (library, root.display().to_string())
}

/// A training of a small network.
pub(crate) fn training(library: &str, run: &str, epochs: u32) -> Builtin {
    let settings = TrainSettings {
        label: "body".into(),
        epochs,
        input_size: 16,
        base_channels: 4,
        checkpoint_every_steps: 1_000_000,
        ..TrainSettings::default()
    };
    let settings = serde_json::to_string(&settings).unwrap();
    Builtin::Train { library: library.into(), settings, run: run.into() }
}

pub(crate) fn series_of(library: &Library) -> Vec<String> {
    library.series().unwrap().iter().map(|series| series.id.to_string()).collect()
}

/// The one worker of the one agent of this process.
pub(crate) fn worker() -> Option<Pid> {
    let own = std::process::id().to_string();
    let mut found = None;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let stat = read("stat");
        let rest: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let child = rest.get(1) == Some(&own.as_str()) && rest.first() != Some(&"Z");
        if child && read("cmdline").ends_with("\0worker\0") {
            assert!(found.is_none(), "there are two workers");
            found = entry.file_name().to_str().and_then(|id| Pid::from_raw(id.parse().ok()?));
        }
    }
    found
}
