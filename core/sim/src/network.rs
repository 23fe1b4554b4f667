//! The simulated network: one ordered, reliable connection per agent, as QUIC gives it.
//!
//! A lost packet is sent again and shows as delay; packets that arrive out of order wait for one
//! another. A path that is cut delivers nothing until it is mended. A side that hears nothing for
//! [`IDLE`] gives its session up, though the other side may not know; an agent that calls again
//! then has two sessions, and messages of the older one may still be on their way. The figures are
//! those of the real link.

use std::collections::{BTreeMap, VecDeque};

use gantry_model::health::Finding;
use gantry_model::{At, Millis, NodeFacts, Order, Report, TryId};

use crate::random::Random;

/// A side that hears nothing for so long gives a session up.
pub(crate) const IDLE: Millis = Millis::from_seconds(3);
/// Between two keep-alives, in beats of a second.
const KEEP_ALIVE_BEATS: u64 = 1;
/// The first wait before a packet is sent again; it doubles.
const AGAIN_FIRST_MS: u64 = 50;
/// Times a packet is sent again before the next keep-alive is due: 50 ms doubled to 0.4 s.
const AGAIN_MAX: u32 = 4;
/// The longest that a packet is under way.
const DELAY_MAX_MS: u64 = 4;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Direction {
    ToScheduler,
    ToServer,
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::ToScheduler, Self::ToServer];
}

/// What an agent says.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Up { facts: Box<NodeFacts>, holds: Vec<TryId> },
    Report(Report),
    Found(Box<Finding>),
    Tested { number: u64, wrong: Option<String> },
}

/// Messages on their way, in order, and when each may arrive.
#[derive(Clone, Debug)]
struct Lane<T> {
    queue: VecDeque<(At, T)>,
    last: At,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), last: At(0) }
    }
}

impl<T> Lane<T> {
    /// Puts a message on the way. Gives its arrival where nothing is before it.
    fn send(&mut self, arrival: At, message: T) -> Option<At> {
        self.last = self.last.max(arrival);
        self.queue.push_back((self.last, message));
        (self.queue.len() == 1).then_some(self.last)
    }

    fn arrived(&mut self, now: At) -> Option<T> {
        let due = self.queue.front().is_some_and(|(at, _)| *at <= now);
        due.then(|| self.queue.pop_front().map(|(_, message)| message)).flatten()
    }
}

/// One connection.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) server: usize,
    up: Lane<Said>,
    down: Lane<Order>,
    /// Whether the agent still has it.
    pub(crate) server_open: bool,
    /// Whether the scheduler still has it.
    pub(crate) scheduler_open: bool,
    /// Whether the cluster has heard of it.
    pub(crate) entered: bool,
    heard_by_server: At,
    pub(crate) heard_by_scheduler: At,
}

/// What a beat has shown of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The agent has heard nothing for too long, or was told that nobody knows its session.
    Server(u64),
    /// The scheduler has heard nothing for too long.
    Scheduler(u64),
}

/// All connections.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) sessions: BTreeMap<u64, Session>,
    made: u64,
    beats: u64,
    /// How many faults cut each path now.
    cuts: BTreeMap<(usize, Direction), u32>,
    loss_always: u32,
    /// What faults add to that.
    pub(crate) loss_more: u32,
    random: Random,
}

impl Network {
    pub(crate) fn new(loss_permille: u32, random: Random) -> Self {
        Self {
            sessions: BTreeMap::new(),
            made: 0,
            beats: 0,
            cuts: BTreeMap::new(),
            loss_always: loss_permille,
            loss_more: 0,
            random,
        }
    }

    fn loss(&self) -> u64 {
        u64::from((self.loss_always + self.loss_more).min(900))
    }

    /// How long a packet takes that arrives in the end.
    pub(crate) fn travel(&mut self) -> Millis {
        let mut delay = self.random.between(0, DELAY_MAX_MS);
        let loss = self.loss();
        let mut times = 0;
        while times < AGAIN_MAX && self.random.chance(loss) {
            delay += AGAIN_FIRST_MS << times;
            times += 1;
        }
        Millis(delay)
    }

    /// Whether one packet gets through, or one of those that are sent again in its place.
    fn gets_through(&mut self, server: usize, direction: Direction) -> bool {
        let loss = self.loss();
        !self.is_cut(server, direction)
            && (loss == 0 || (0..=AGAIN_MAX).any(|_| !self.random.chance(loss)))
    }

    pub(crate) fn is_cut(&self, server: usize, direction: Direction) -> bool {
        self.cuts.contains_key(&(server, direction))
    }

    pub(crate) fn cut(&mut self, server: usize, direction: Direction) {
        *self.cuts.entry((server, direction)).or_default() += 1;
    }

    /// Mends a path. Gives the sessions whose messages may go on.
    pub(crate) fn mend(&mut self, server: usize, direction: Direction) -> Vec<u64> {
        if let Some(count) = self.cuts.get_mut(&(server, direction)) {
            *count -= 1;
            if *count == 0 {
                self.cuts.remove(&(server, direction));
            }
        }
        let here = self.sessions.iter().filter(|(_, session)| session.server == server);
        here.map(|(id, _)| *id).collect()
    }

    /// Nothing of a session arrives before a time.
    pub(crate) fn hold_up(&mut self, id: u64, until: At) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.up.last = session.up.last.max(until);
        session.down.last = session.down.last.max(until);
    }

    /// A call was taken: both sides have a new session.
    pub(crate) fn open(&mut self, now: At, server: usize) -> u64 {
        self.made += 1;
        let session = Session {
            server,
            up: Lane::default(),
            down: Lane::default(),
            server_open: true,
            scheduler_open: true,
            entered: false,
            heard_by_server: now,
            heard_by_scheduler: now,
        };
        self.sessions.insert(self.made, session);
        self.made
    }

    /// Sends what an agent says. Gives when to look for its arrival.
    pub(crate) fn say(&mut self, now: At, session: u64, said: Said) -> Option<At> {
        let arrival = now.after(self.travel());
        self.sessions.get_mut(&session)?.up.send(arrival, said)
    }

    /// Sends an order. Gives when to look for its arrival.
    pub(crate) fn order(&mut self, now: At, session: u64, order: Order) -> Option<At> {
        let arrival = now.after(self.travel());
        self.sessions.get_mut(&session)?.down.send(arrival, order)
    }

    /// The next message to the scheduler that has arrived.
    pub(crate) fn said(&mut self, now: At, id: u64) -> Option<Said> {
        let session = self.sessions.get_mut(&id)?;
        if self.cuts.contains_key(&(session.server, Direction::ToScheduler)) {
            return None;
        }
        let said = session.up.arrived(now)?;
        if session.scheduler_open {
            session.heard_by_scheduler = now;
        }
        Some(said)
    }

    /// The next order that has arrived.
    pub(crate) fn ordered(&mut self, now: At, id: u64) -> Option<Order> {
        let session = self.sessions.get_mut(&id)?;
        if self.cuts.contains_key(&(session.server, Direction::ToServer)) {
            return None;
        }
        let order = session.down.arrived(now)?;
        session.heard_by_server = now;
        Some(order)
    }

    /// When to look again for messages of a lane.
    pub(crate) fn due(&self, id: u64, direction: Direction) -> Option<At> {
        let session = self.sessions.get(&id)?;
        if self.is_cut(session.server, direction) {
            return None;
        }
        match direction {
            Direction::ToScheduler => session.up.queue.front().map(|(at, _)| *at),
            Direction::ToServer => session.down.queue.front().map(|(at, _)| *at),
        }
    }

    /// Whether word of a closed session reaches the other side. If not, silence will tell it.
    pub(crate) fn word_of_closing(&mut self, now: At, id: u64, to: Direction) -> Option<At> {
        let server = self.sessions.get(&id)?.server;
        let loss = self.loss();
        let arrives = !self.is_cut(server, to) && !self.random.chance(loss);
        arrives.then(|| now.after(self.travel()))
    }

    /// Forgets sessions that neither side has and of which nothing is on its way.
    pub(crate) fn forget(&mut self) {
        self.sessions.retain(|_, session| {
            session.server_open
                || session.scheduler_open
                || !(session.up.queue.is_empty() && session.down.queue.is_empty())
        });
    }

    /// A second has passed: keep-alives, and what silence shows. `answers` says whether the
    /// scheduler's socket is there to answer packets of sessions it does not know.
    pub(crate) fn beat(&mut self, now: At, answers: Answers) -> Vec<Silence> {
        self.beats += 1;
        let mut silent = Vec::new();
        let ids: Vec<u64> = self.sessions.keys().copied().collect();
        for id in ids {
            let Some(session) = self.sessions.get(&id) else { continue };
            let (server, here, there) =
                (session.server, session.server_open, session.scheduler_open);
            if (self.beats + id).is_multiple_of(KEEP_ALIVE_BEATS) {
                let up = here && self.gets_through(server, Direction::ToScheduler);
                let down = there && self.gets_through(server, Direction::ToServer);
                // Whoever gets a packet of a session that is gone answers with a reset.
                let reset = up && !there && answers == Answers::Yes;
                if reset && self.gets_through(server, Direction::ToServer) {
                    silent.push(Silence::Server(id));
                }
                let Some(session) = self.sessions.get_mut(&id) else { continue };
                if up && there {
                    session.heard_by_scheduler = now;
                }
                if down {
                    session.heard_by_server = now;
                }
            }
            let Some(session) = self.sessions.get(&id) else { continue };
            if here && now.since(session.heard_by_server) >= IDLE {
                silent.push(Silence::Server(id));
            }
            if there && now.since(session.heard_by_scheduler) >= IDLE {
                silent.push(Silence::Scheduler(id));
            }
        }
        silent
    }
}

/// Whether the scheduler's socket answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    Yes,
    No,
}
