//! A cluster and its nodes over connections that break: what neither machine can promise alone.
//!
//! A connection loses what is on its way when it breaks, and nothing else; an agent that is
//! restarted keeps its spool and takes over its processes, some of which have ended meanwhile; a
//! machine that is restarted loses them. Under any such course no try is started twice, no task has two processes unless the older one is out of reach or told to stop, no node
//! with a process that was given up gets new work, and once faults stop everything ends.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gantry_cluster::{Cluster, ClusterSettings, Effect as Decision, Event as Heard};
use gantry_model::{
    At, Exit, JobId, JobSpec, JobState, Launch, Machine, MemoryMib, Millis, NodeFacts, NodeState,
    Order, Report, Resources, Role, TaskId, TryId, Usage, Work,
};
use gantry_node::{Effect, End, Event, Node, NodeSettings, Signal};
use proptest::prelude::*;

const NODES: usize = 3;
const JOBS_MAX: u64 = 12;

/// What an agent says on its connection.
enum Said {
    Up { holds: Vec<TryId> },
    Report(Report),
}

/// One connection: what is on its way, in order.
#[derive(Default)]
struct Link {
    /// Whether the cluster has heard of it: before that, orders go to the one before, and are lost.
    known: bool,
    to_cluster: VecDeque<Said>,
    to_node: VecDeque<Order>,
}

struct Process {
    launch: Launch,
    since: At,
    started: bool,
}

/// A server: the machine, its disk, its processes and its connection.
#[derive(Default)]
struct Server {
    node: Node,
    spool: BTreeMap<TryId, End>,
    processes: BTreeMap<TryId, Process>,
    link: Option<Link>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Submit {
        count: u32,
        retries: u8,
        limited: bool,
    },
    Cancel(u64),
    /// The agent connects, if it is not connected.
    Connect(usize),
    /// The connection breaks; the scheduler may notice only when the agent comes back.
    Break {
        server: usize,
        noticed: bool,
    },
    /// The agent is killed and starts again; so many of its processes end meanwhile. What it was
    /// told to start and had not started yet may never be.
    Restart {
        server: usize,
        ended: usize,
        lost: bool,
    },
    /// The whole machine is.
    Reboot(usize),
    /// The next messages arrive.
    ToCluster(usize),
    ToNode(usize),
    /// A process says it has started, or else ends.
    Process {
        server: usize,
        code: u8,
    },
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u32..24, 0_u8..3, any::<bool>())
            .prop_map(|(count, retries, limited)| Step::Submit { count, retries, limited }),
        1 => (1..=JOBS_MAX).prop_map(Step::Cancel),
        4 => (0..NODES).prop_map(Step::Connect),
        2 => (0..NODES, any::<bool>()).prop_map(|(server, noticed)| Step::Break { server, noticed }),
        2 => (0..NODES, 0_usize..3, any::<bool>())
            .prop_map(|(server, ended, lost)| Step::Restart { server, ended, lost }),
        1 => (0..NODES).prop_map(Step::Reboot),
        10 => (0..NODES).prop_map(Step::ToCluster),
        10 => (0..NODES).prop_map(Step::ToNode),
        8 => (0..NODES, 0_u8..2).prop_map(|(server, code)| Step::Process { server, code }),
        2 => (0_u64..7000).prop_map(Step::Pass),
    ]
}

fn name(server: usize) -> String {
    format!("n{server}")
}

fn facts(server: usize) -> NodeFacts {
    NodeFacts {
        name: name(server),
        roles: vec![Role::Cpu],
        resources: Resources { cores: 2, memory: MemoryMib(1024), ..Resources::default() },
        ..NodeFacts::default()
    }
}

struct World {
    at: At,
    cluster: Cluster,
    servers: Vec<Server>,
    submitted: u64,
    /// The newest try of each task that was ordered.
    newest: BTreeMap<TaskId, TryId>,
    told_to_stop: BTreeSet<TryId>,
    /// Tries that were ever started as a process.
    started: BTreeSet<TryId>,
    /// Tasks of which a process ended well.
    succeeded: BTreeSet<TaskId>,
    ended: BTreeSet<JobId>,
}

impl World {
    fn new() -> Self {
        Self {
            at: At(0),
            // Tasks here take seconds, and wait for one another on their node all the same.
            cluster: Cluster::new(ClusterSettings {
                ahead: Millis::from_seconds(60),
                ..ClusterSettings::default()
            }),
            servers: (0..NODES).map(|_| Server::default()).collect(),
            submitted: 0,
            newest: BTreeMap::new(),
            told_to_stop: BTreeSet::new(),
            started: BTreeSet::new(),
            succeeded: BTreeSet::new(),
            ended: BTreeSet::new(),
        }
    }

    fn hear(&mut self, event: Heard) {
        let mut decisions = Vec::new();
        self.cluster.apply(self.at, event, &mut decisions);
        assert_eq!(self.cluster.check(), Ok(()));
        for decision in decisions {
            match decision {
                Decision::Order { node, order } => self.order(&node, order),
                Decision::JobEnded(row) => {
                    assert!(self.ended.insert(row.job), "{} ended twice", row.job);
                }
                Decision::Reply { .. }
                | Decision::Note(_)
                | Decision::Wake(_)
                | Decision::Preempted { .. }
                | Decision::TryEnded(_) => {}
            }
        }
    }

    fn order(&mut self, node: &str, order: Order) {
        match &order {
            Order::Launch(launch) | Order::Ahead(launch) => {
                let before = self.newest.insert(launch.task, launch.try_id);
                assert!(before.is_none_or(|before| before < launch.try_id), "tries must rise");
                self.may_launch(node, launch.task);
            }
            Order::Stop { try_id } => drop(self.told_to_stop.insert(*try_id)),
            Order::Recall { .. } | Order::Acknowledge { .. } | Order::Test { .. } => {}
        }
        let server = (0..NODES).find(|server| name(*server) == node).unwrap();
        if let Some(link) = self.servers[server].link.as_mut().filter(|link| link.known) {
            link.to_node.push_back(order);
        }
    }

    /// The fencing rules, held against the processes that are really there.
    fn may_launch(&self, node: &str, task: TaskId) {
        let rows = self.cluster.nodes();
        for (number, server) in self.servers.iter().enumerate() {
            let row = rows.iter().find(|row| row.facts.name == name(number));
            let lost = row.is_some_and(|row| row.state == NodeState::Lost);
            for (try_id, process) in &server.processes {
                if name(number) == node {
                    let newest = self.newest[&process.launch.task];
                    assert_eq!(newest, *try_id, "{node} got new work beside a try given up");
                } else if process.launch.task == task {
                    let fenced = lost || self.told_to_stop.contains(try_id);
                    assert!(fenced, "{task} runs as {try_id} on {} too", name(number));
                }
            }
        }
    }

    fn node(&mut self, server: usize, event: Event) {
        let mut effects = Vec::new();
        self.servers[server].node.apply(self.at, event, &mut effects);
        assert_eq!(self.servers[server].node.check(), Ok(()));
        for effect in effects {
            let here = &mut self.servers[server];
            match effect {
                Effect::Start(launch) => {
                    assert!(self.started.insert(launch.try_id), "{} twice", launch.try_id);
                    let (try_id, since) = (launch.try_id, self.at);
                    let process = Process { launch: *launch, since, started: false };
                    here.processes.insert(try_id, process);
                }
                Effect::Test { .. } => panic!("nothing is found to be wrong here"),
                Effect::Spool(end) => drop(here.spool.insert(end.try_id, end)),
                Effect::Unspool { try_id } => drop(here.spool.remove(&try_id)),
                Effect::Send(report) => {
                    let link = here.link.as_mut().expect("a node speaks only when connected");
                    link.to_cluster.push_back(Said::Report(report));
                }
                Effect::Signal { try_id, signal: Signal::Kill } => {
                    self.exits(server, try_id, Exit::Signal(9));
                }
                // A task may take its time to follow a TERM, or not follow it.
                Effect::Signal { signal: Signal::Term | Signal::Warn(_), .. } | Effect::Wake(_) => {
                }
            }
        }
    }

    fn exits(&mut self, server: usize, try_id: TryId, exit: Exit) {
        let Some(process) = self.servers[server].processes.remove(&try_id) else { return };
        if exit.is_success() {
            self.succeeded.insert(process.launch.task);
        }
        self.node(server, Event::Exited { try_id, exit, usage: Usage::default() });
    }

    fn connect(&mut self, server: usize) {
        let here = &mut self.servers[server];
        if here.link.is_some() {
            return;
        }
        let up = Said::Up { holds: here.node.holds() };
        here.link = Some(Link { to_cluster: VecDeque::from([up]), ..Link::default() });
        self.node(server, Event::Connected);
    }

    fn break_link(&mut self, server: usize, noticed: bool) {
        if self.servers[server].link.take().is_some() {
            self.node(server, Event::Disconnected);
        }
        if noticed {
            self.hear(Heard::NodeDown { node: name(server) });
        }
    }

    fn restart(&mut self, server: usize, ended: usize) {
        self.break_link(server, true);
        let here = &mut self.servers[server];
        here.node = Node::new(NodeSettings::default());
        let spool = here.spool.values().cloned().collect();
        let live = here.processes.values().map(|process| (process.launch.clone(), process.since));
        let live = live.collect();
        here.processes.values_mut().for_each(|process| process.started = true);
        let over: Vec<TryId> = here.processes.keys().take(ended).copied().collect();
        self.node(server, Event::Restored { spool, live });
        for try_id in over {
            self.exits(server, try_id, Exit::Code(0));
        }
    }

    fn cluster_hears(&mut self, server: usize) -> bool {
        let Some(link) = &mut self.servers[server].link else { return false };
        let Some(said) = link.to_cluster.pop_front() else { return false };
        link.known = true;
        self.hear(match said {
            Said::Up { holds } => Heard::NodeUp { facts: Box::new(facts(server)), holds },
            Said::Report(report) => Heard::Report { node: name(server), report },
        });
        true
    }

    fn node_hears(&mut self, server: usize) -> bool {
        let link = self.servers[server].link.as_mut();
        let Some(order) = link.and_then(|link| link.to_node.pop_front()) else { return false };
        self.node(server, Event::Order(order));
        true
    }

    /// The oldest process says that it started, or ends.
    fn process(&mut self, server: usize, code: u8) -> bool {
        let Some((try_id, process)) = self.servers[server].processes.iter_mut().next() else {
            return false;
        };
        let try_id = *try_id;
        if process.started {
            self.exits(server, try_id, Exit::Code(code));
        } else {
            process.started = true;
            self.node(server, Event::Started { try_id });
        }
        true
    }

    fn pass(&mut self, millis: u64) {
        self.at = self.at.after(Millis(millis));
        self.hear(Heard::Tick);
        (0..NODES).for_each(|server| self.node(server, Event::Tick));
    }

    fn submit(&mut self, count: u32, retries: u8, limited: bool) {
        if self.submitted == JOBS_MAX {
            return;
        }
        self.submitted += 1;
        let work = Work::Command { arguments: vec!["true".into()], folder: None };
        let array = Some(format!("0-{count}").parse().unwrap());
        let time_limit = limited.then_some(Millis(3000));
        let spec = JobSpec { array, retries, time_limit, ..JobSpec::new("job", work) };
        let (user, key) = ("ada".into(), self.submitted.to_string());
        self.hear(Heard::Submit { request: 0, user, key, spec: Box::new(spec) });
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Submit { count, retries, limited } => self.submit(count, retries, limited),
            Step::Cancel(job) => {
                let (user, job) = ("ada".into(), JobId(job));
                self.hear(Heard::Cancel { request: 0, user, job, indices: None });
            }
            Step::Connect(server) => self.connect(server),
            Step::Break { server, noticed } => self.break_link(server, noticed),
            Step::Restart { server, ended, lost } => {
                self.servers[server].processes.retain(|_, process| process.started || !lost);
                self.restart(server, ended);
            }
            Step::Reboot(server) => {
                self.servers[server].processes.clear();
                self.restart(server, 0);
            }
            Step::ToCluster(server) => drop(self.cluster_hears(server)),
            Step::ToNode(server) => drop(self.node_hears(server)),
            Step::Process { server, code } => drop(self.process(server, code)),
            Step::Pass(millis) => self.pass(millis),
        }
    }

    /// No more faults: everyone connects, messages arrive, processes end well.
    fn calm(&mut self) {
        for _ in 0..60 {
            for server in 0..NODES {
                self.connect(server);
                while self.cluster_hears(server) | self.node_hears(server) | self.process(server, 0)
                {
                }
            }
            self.pass(30_000);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn nothing_runs_twice_or_is_lost(steps in prop::collection::vec(step(), 1..250)) {
        let mut world = World::new();
        for step in steps {
            world.carry_out(step);
        }
        world.calm();
        let (open, _) = world.cluster.jobs(None, false, 100);
        prop_assert!(open.is_empty(), "never ended: {:?}", open);
        prop_assert_eq!(world.ended.len() as u64, world.submitted);
        for server in &world.servers {
            prop_assert!(server.node.holds().is_empty() && server.spool.is_empty());
        }
        let (rows, _) = world.cluster.jobs(None, true, 100);
        for row in rows.iter().filter(|row| row.state == JobState::Done) {
            for index in 0..row.tasks.done {
                let task = row.job.task(index);
                prop_assert!(world.succeeded.contains(&task), "{} is done and never was", task);
            }
        }
    }
}
