//! The node's value and its one method.

use std::collections::{BTreeMap, BTreeSet};

use gantry_model::{
    At, Exit, JobId, Launch, Lease, Machine, Millis, Order, Report, TryId, Usage, Warning,
};
use serde::{Deserialize, Serialize};

/// What an administrator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// Between TERM and KILL.
    pub grace: Millis,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self { grace: Millis::from_seconds(10) }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The agent has started and found what an earlier agent of its folder left.
    Restored {
        /// Ends that were not acknowledged.
        spool: Vec<End>,
        /// Tries that still run, and when each was started.
        live: Vec<(Launch, At)>,
    },
    /// The scheduler has welcomed this node and knows what it holds.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// The cluster orders.
    Order(Order),
    /// The runner has started a try.
    Started {
        /// The execution.
        try_id: TryId,
    },
    /// A try has ended, or could not be started, and nothing of it runs any more.
    Exited {
        /// The execution.
        try_id: TryId,
        /// How.
        exit: Exit,
        /// What it used.
        usage: Usage,
    },
    /// Time has passed.
    Tick,
}

/// The end of a try, as the spool keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The execution.
    pub try_id: TryId,
    /// How it ended.
    pub exit: Exit,
    /// What it used.
    pub usage: Usage,
    /// The try that was started with its lease.
    pub heir: Option<TryId>,
}

impl End {
    fn report(&self) -> Report {
        let Self { try_id, exit, usage, heir } = self.clone();
        Report::Ended { try_id, exit, usage, heir }
    }
}

/// A signal to a try's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// The time limit is near: the signal the job asked for.
    Warn(u8),
    /// Please end.
    Term,
    /// End.
    Kill,
}

/// What the agent shall do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start a try, once.
    Start(Box<Launch>),
    /// Send a signal to all processes of a try.
    Signal {
        /// The execution.
        try_id: TryId,
        /// The signal.
        signal: Signal,
    },
    /// Test whether the node, or a GPU of it, can be given work again, and tell.
    Test {
        /// The test's number.
        number: u64,
        /// The GPU's UUID; the node's cores and memory where absent.
        gpu: Option<String>,
    },
    /// Keep an end durably before anything that follows.
    Spool(End),
    /// The end is acknowledged and need not be kept.
    Unspool {
        /// The execution.
        try_id: TryId,
    },
    /// Tell the cluster; dropped while there is no connection.
    Send(Report),
    /// Send a [`Event::Tick`] at this time, or earlier.
    Wake(At),
}

/// Where a live try stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Live {
    started: bool,
    /// When its time limit is over.
    limit: Option<At>,
    /// When it is warned of that, until it is.
    warn: Option<At>,
    /// Why it was told to stop, and when it gets KILL.
    stopping: Option<(Stop, At)>,
    killed: bool,
    /// What stands of it among the timers.
    armed: Option<At>,
    time_limit: Option<Millis>,
    warning: Option<Warning>,
    job: JobId,
    lease: Lease,
    /// Whether the end of another has said, or will say, that it runs.
    inherits: bool,
}

impl Live {
    fn new(launch: &Launch) -> Self {
        Self {
            started: false,
            limit: None,
            warn: None,
            stopping: None,
            killed: false,
            armed: None,
            time_limit: launch.time_limit,
            warning: launch.warning,
            job: launch.task.job,
            lease: launch.lease.clone(),
            inherits: launch.inherits.is_some(),
        }
    }

    fn start(&mut self, at: At) {
        self.started = true;
        self.limit = self.time_limit.map(|limit| at.after(limit));
        let early =
            |limit: Millis, warning: Warning| Millis(limit.0.saturating_sub(warning.before.0));
        let warned = self.time_limit.zip(self.warning);
        self.warn = warned.map(|(limit, warning)| at.after(early(limit, warning)));
    }

    /// Whether its lease goes to the next of its job: not where the cluster wants it back.
    fn hands_on(&self) -> bool {
        self.stopping.is_none()
    }

    fn timer(&self) -> Option<At> {
        match self.stopping {
            Some((_, kill)) => (!self.killed).then_some(kill),
            None => self.warn.or(self.limit),
        }
    }
}

/// Who gets a lease that is handed on.
enum Heir {
    /// One that was started with it already.
    Runs(TryId),
    /// One that waits for it.
    Waits(Box<Launch>),
}

impl Heir {
    fn try_id(&self) -> TryId {
        match self {
            Self::Runs(try_id) => *try_id,
            Self::Waits(launch) => launch.try_id,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Ordered,
    TimeLimit,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    settings: NodeSettings,
    connected: bool,
    live: BTreeMap<TryId, Live>,
    /// When something is due for a live try: an event costs the same however many are live.
    timers: BTreeSet<(At, TryId)>,
    spool: BTreeMap<TryId, End>,
    /// What waits for the lease of a live try of its job. Not kept over a restart: the cluster hears
    /// that it is gone.
    ahead: BTreeMap<JobId, BTreeMap<TryId, Launch>>,
    /// What an earlier agent of the folder has started with the lease of which try.
    heirs: BTreeMap<TryId, TryId>,
    /// The newest try this connection has named in a launch or a stop. The cluster orders tries
    /// in rising order on a connection, so that none up to this one is ever to be started again.
    fence: TryId,
}

impl Machine for Node {
    type Event = Event;
    type Effect = Effect;

    fn apply(&mut self, at: At, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Restored { spool, live } => self.restored(spool, live),
            Event::Connected => self.connected(effects),
            Event::Disconnected => self.connected = false,
            Event::Order(Order::Launch(launch)) => self.launch(*launch, effects),
            Event::Order(Order::Ahead(launch)) => self.launch_ahead(*launch, effects),
            Event::Order(Order::Recall { try_id }) => self.recall(try_id, effects),
            Event::Order(Order::Stop { try_id }) => self.stop(at, try_id, effects),
            Event::Order(Order::Acknowledge { try_id }) => self.acknowledge(try_id, effects),
            // A test leaves nothing behind: one that is lost with the connection is ordered again.
            Event::Order(Order::Test { number, gpu }) => effects.push(Effect::Test { number, gpu }),
            Event::Started { try_id } => self.started(at, try_id, effects),
            Event::Exited { try_id, exit, usage } => self.exited(try_id, exit, usage, effects),
            Event::Tick => self.tick(at, effects),
        }
        effects.extend(self.timers.first().map(|(at, _)| Effect::Wake(*at)));
    }

    fn check(&self) -> Result<(), String> {
        let both = self.live.keys().find(|try_id| self.spool.contains_key(try_id));
        if let Some(try_id) = both {
            return Err(format!("{try_id} is live and ended"));
        }
        let idle = self.ahead.iter().find(|(job, tries)| tries.is_empty() || !self.hands_on(**job));
        if let Some((job, _)) = idle {
            return Err(format!("tries of {job} wait for a lease that nothing will hand on"));
        }
        let early = self.live.iter().find(|(_, live)| live.killed && live.stopping.is_none());
        if let Some((try_id, _)) = early {
            return Err(format!("{try_id} was killed without being told"));
        }
        let timers = self.live.iter().filter_map(|(try_id, live)| Some((live.timer()?, *try_id)));
        if timers.collect::<BTreeSet<_>>() == self.timers {
            Ok(())
        } else {
            Err("the timers are not those of the live tries".into())
        }
    }
}

impl Node {
    /// A node that runs nothing.
    #[must_use]
    pub fn new(settings: NodeSettings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Every try it holds: live, ended and not acknowledged, or waiting for a lease.
    #[must_use]
    pub fn holds(&self) -> Vec<TryId> {
        let waits = self.ahead.values().flat_map(BTreeMap::keys);
        self.live.keys().chain(self.spool.keys()).chain(waits).copied().collect()
    }

    /// How many tries are live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.len()
    }

    fn connected(&mut self, effects: &mut Vec<Effect>) {
        self.connected = true;
        // Orders of earlier connections cannot arrive any more.
        self.fence = TryId(0);
        // An end says who has its lease: it comes before the start of that one.
        effects.extend(self.spool.values().map(|end| Effect::Send(end.report())));
        for (try_id, live) in &self.live {
            if live.started && !live.inherits {
                effects.push(Effect::Send(Report::Started { try_id: *try_id }));
            }
        }
    }

    fn restored(&mut self, spool: Vec<End>, live: Vec<(Launch, At)>) {
        self.spool.extend(spool.into_iter().map(|end| (end.try_id, end)));
        for (launch, since) in live {
            self.heirs.extend(launch.inherits.map(|ended| (ended, launch.try_id)));
            if !self.spool.contains_key(&launch.try_id) {
                let mut adopted = Live::new(&launch);
                adopted.start(since);
                self.live.insert(launch.try_id, adopted);
                self.arm(launch.try_id);
            }
        }
    }

    fn launch(&mut self, launch: Launch, effects: &mut Vec<Effect>) {
        if self.is_new(launch.try_id) {
            self.start(launch, effects);
        }
    }

    /// Whether a try that is ordered was never here; it is from now on.
    fn is_new(&mut self, try_id: TryId) -> bool {
        let known = self.live.contains_key(&try_id) || self.spool.contains_key(&try_id);
        let new = !known && try_id > self.fence;
        self.fence = self.fence.max(try_id);
        new
    }

    fn start(&mut self, launch: Launch, effects: &mut Vec<Effect>) {
        self.live.insert(launch.try_id, Live::new(&launch));
        effects.push(Effect::Start(Box::new(launch)));
    }

    fn launch_ahead(&mut self, launch: Launch, effects: &mut Vec<Effect>) {
        let (try_id, job) = (launch.try_id, launch.task.job);
        if !self.is_new(try_id) {
            return;
        }
        if self.hands_on(job) {
            self.ahead.entry(job).or_default().insert(try_id, launch);
        } else {
            self.send(Report::Returned { try_id }, effects);
        }
    }

    /// Whether a live try of a job may hand its lease on.
    fn hands_on(&self, job: JobId) -> bool {
        self.live.values().any(|live| live.job == job && live.hands_on())
    }

    fn recall(&mut self, try_id: TryId, effects: &mut Vec<Effect>) {
        if self.take_ahead(try_id).is_some() {
            self.send(Report::Returned { try_id }, effects);
        }
    }

    fn take_ahead(&mut self, try_id: TryId) -> Option<Launch> {
        let found = self.ahead.iter().find(|(_, tries)| tries.contains_key(&try_id));
        let job = *found?.0;
        let tries = self.ahead.get_mut(&job)?;
        let launch = tries.remove(&try_id);
        if tries.is_empty() {
            self.ahead.remove(&job);
        }
        launch
    }

    /// Returns what waits of a job, where nothing will hand it a lease.
    fn give_back(&mut self, job: JobId, effects: &mut Vec<Effect>) {
        if self.ahead.contains_key(&job) && !self.hands_on(job) {
            for try_id in self.ahead.remove(&job).into_iter().flat_map(BTreeMap::into_keys) {
                self.send(Report::Returned { try_id }, effects);
            }
        }
    }

    fn started(&mut self, at: At, try_id: TryId, effects: &mut Vec<Effect>) {
        let Some(live) = self.live.get_mut(&try_id) else { return };
        live.start(at);
        let told = live.inherits;
        self.arm(try_id);
        if !told {
            self.send(Report::Started { try_id }, effects);
        }
    }

    /// A try that is told to stop and not known here has never been started and never will be: its
    /// end is reported, so that the cluster need not wait for it.
    fn stop(&mut self, at: At, try_id: TryId, effects: &mut Vec<Effect>) {
        if let Some(report) = self.spool.get(&try_id).map(End::report) {
            self.send(report, effects);
        } else if self.live.contains_key(&try_id) {
            self.tell_to_stop(at, try_id, Stop::Ordered, effects);
        } else if self.take_ahead(try_id).is_some() {
            self.send(Report::Returned { try_id }, effects);
        } else {
            self.fence = self.fence.max(try_id);
            let usage = Usage::default();
            self.send(Report::Ended { try_id, exit: Exit::NodeLost, usage, heir: None }, effects);
        }
    }

    fn tell_to_stop(&mut self, at: At, try_id: TryId, why: Stop, effects: &mut Vec<Effect>) {
        let kill = at.after(self.settings.grace);
        let Some(live) = self.live.get_mut(&try_id) else { return };
        if live.stopping.is_none() {
            live.stopping = Some((why, kill));
            let job = live.job;
            effects.push(Effect::Signal { try_id, signal: Signal::Term });
            self.arm(try_id);
            self.give_back(job, effects);
        }
    }

    /// Puts a live try among the timers as it stands now.
    fn arm(&mut self, try_id: TryId) {
        let Some(live) = self.live.get_mut(&try_id) else { return };
        let timer = live.timer();
        let before = std::mem::replace(&mut live.armed, timer);
        if before != timer {
            before.map(|at| self.timers.remove(&(at, try_id)));
            timer.map(|at| self.timers.insert((at, try_id)));
        }
    }

    fn exited(&mut self, try_id: TryId, exit: Exit, usage: Usage, effects: &mut Vec<Effect>) {
        let Some(live) = self.live.remove(&try_id) else { return };
        live.armed.map(|at| self.timers.remove(&(at, try_id)));
        let by_limit = matches!(live.stopping, Some((Stop::TimeLimit, _)));
        // A task that ended well just before its limit was enforced has ended well.
        let exit = if by_limit && !exit.is_success() { Exit::TimeLimit } else { exit };
        let heir = self.heir(try_id, &live, &exit);
        let end = End { try_id, exit, usage, heir: heir.as_ref().map(Heir::try_id) };
        effects.push(Effect::Spool(end.clone()));
        self.send(end.report(), effects);
        self.spool.insert(try_id, end);
        if let Some(Heir::Waits(launch)) = heir {
            self.start(*launch, effects);
        }
        self.give_back(live.job, effects);
    }

    /// Who gets the lease of a try that has ended. Only one that ended well hands it on: what failed
    /// may have failed by its node.
    fn heir(&mut self, ended: TryId, live: &Live, exit: &Exit) -> Option<Heir> {
        if let Some(try_id) = self.heirs.remove(&ended) {
            return Some(Heir::Runs(try_id));
        }
        // Without a connection it may have been given up, and nothing new begins here.
        if !exit.is_success() || !live.hands_on() || !self.connected {
            return None;
        }
        let first = *self.ahead.get(&live.job)?.keys().next()?;
        let launch = self.take_ahead(first)?;
        let lease = live.lease.clone();
        Some(Heir::Waits(Box::new(Launch { lease, inherits: Some(ended), ..launch })))
    }

    fn acknowledge(&mut self, try_id: TryId, effects: &mut Vec<Effect>) {
        if self.spool.remove(&try_id).is_some() {
            effects.push(Effect::Unspool { try_id });
        }
    }

    fn tick(&mut self, at: At, effects: &mut Vec<Effect>) {
        let due = self.timers.range(..=(at, TryId(u64::MAX)));
        let due: BTreeSet<TryId> = due.map(|(_, try_id)| *try_id).collect();
        for try_id in &due {
            let over = |live: &Live| live.limit.is_some_and(|limit| limit <= at);
            if self.live.get(try_id).is_some_and(|live| over(live) && live.stopping.is_none()) {
                self.tell_to_stop(at, *try_id, Stop::TimeLimit, effects);
            }
        }
        for try_id in due {
            let Some(live) = self.live.get_mut(&try_id) else { continue };
            let warned = live.warn.is_some_and(|warn| warn <= at);
            if let Some(warning) = live.warning.filter(|_| warned) {
                live.warn = None;
                if live.stopping.is_none() {
                    let signal = Signal::Warn(warning.signal);
                    effects.push(Effect::Signal { try_id, signal });
                }
            }
            let killing = live.stopping.is_some_and(|(_, kill)| kill <= at);
            if killing && !live.killed {
                live.killed = true;
                effects.push(Effect::Signal { try_id, signal: Signal::Kill });
            }
            self.arm(try_id);
        }
    }

    fn send(&self, report: Report, effects: &mut Vec<Effect>) {
        if self.connected {
            effects.push(Effect::Send(report));
        }
    }
}
