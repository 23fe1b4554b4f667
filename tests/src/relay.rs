//! A bad network between the scheduler and its agents: a relay of UDP packets that loses, delays,
//! reorders and doubles them as a seed says.
//!
//! Agents call the relay's address instead of the scheduler's. What becomes of a packet follows from
//! the seed, the direction, the agent's turn in calling and the packet's number on that way: the same
//! seed is as hard on the same traffic. It is a process of its own to both sides, so that the link
//! under test is exactly the one that is shipped, and no switch for tests is left in it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::oneshot;

use crate::chance::Chance;

/// A packet of UDP is not longer.
const PACKET_BYTES_MAX: usize = 65_536;

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// What everything follows from.
    pub seed: u64,
    /// Packets of a thousand that are lost.
    pub lost_permille: u64,
    /// Packets of a thousand that come twice.
    pub doubled_permille: u64,
    /// The least and the most time on the way: the more they differ the more packets overtake others.
    pub delay: (Duration, Duration),
}

/// What has become of packets.
#[derive(Debug, Default)]
pub struct Counts {
    /// Sent on.
    pub passed: AtomicU64,
    /// Lost.
    pub lost: AtomicU64,
    /// Sent on twice.
    pub doubled: AtomicU64,
    /// Sent on after one that came later.
    pub overtaken: AtomicU64,
}

/// A relay that runs until it is dropped.
#[derive(Debug)]
pub struct Relay {
    /// The address that agents call.
    pub address: SocketAddr,
    /// What has become of packets so far.
    pub counts: Arc<Counts>,
    cut: Arc<AtomicBool>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Relay {
    /// Starts a relay to the scheduler at this address.
    ///
    /// # Errors
    /// Where no socket can be opened.
    pub fn start(scheduler: SocketAddr, weather: Weather) -> io::Result<Self> {
        let front = std::net::UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        front.set_nonblocking(true)?;
        let address = front.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let counts = Arc::new(Counts::default());
        let cut = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = oneshot::channel();
        let way = Way { counts: counts.clone(), cut: cut.clone(), weather };
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    _ = stopped => {}
                    // It ends with an error of its socket, which the agents' silence tells.
                    _ = forth(front, scheduler, &way) => {}
                }
            });
        });
        Ok(Self { address, counts, cut, stop: Some(stop), thread: Some(thread) })
    }

    /// Lets no packet through, or lets them through again.
    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// What all ways have in common.
#[derive(Clone)]
struct Way {
    counts: Arc<Counts>,
    cut: Arc<AtomicBool>,
    weather: Weather,
}

/// One direction between an agent and the scheduler.
struct Lane {
    way: Way,
    chance: Chance,
    /// The number of the next packet, and the newest that was sent on.
    next: u64,
    newest: Arc<Mutex<u64>>,
}

impl Lane {
    fn new(way: &Way, agent: u64, back: bool) -> Self {
        let chance = Chance::new(way.weather.seed ^ (agent * 2 + u64::from(back)).rotate_left(32));
        Self { way: way.clone(), chance, next: 0, newest: Arc::default() }
    }

    /// Sends a packet on, some time, once, twice or never.
    fn send(&mut self, packet: &[u8], through: &Arc<UdpSocket>, to: Option<SocketAddr>) {
        let Weather { lost_permille, doubled_permille, delay, .. } = self.way.weather;
        let counts = &self.way.counts;
        self.next += 1;
        let lost = self.chance.below(1000) < lost_permille;
        let doubled = self.chance.below(1000) < doubled_permille;
        let spread = delay.1.saturating_sub(delay.0).as_micros() as u64 + 1;
        let delays = [self.chance.below(spread), self.chance.below(spread)];
        if lost || self.way.cut.load(Ordering::Relaxed) {
            counts.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        counts.doubled.fetch_add(u64::from(doubled), Ordering::Relaxed);
        for micros in &delays[..if doubled { 2 } else { 1 }] {
            let (number, newest, counts) = (self.next, self.newest.clone(), counts.clone());
            let (through, packet) = (through.clone(), packet.to_owned());
            let wait = delay.0 + Duration::from_micros(*micros);
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                {
                    let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
                    counts.overtaken.fetch_add(u64::from(*newest > number), Ordering::Relaxed);
                    *newest = number.max(*newest);
                }
                counts.passed.fetch_add(1, Ordering::Relaxed);
                // Nobody listens while the scheduler is started anew: such a packet is lost too.
                let _ = match to {
                    Some(agent) => through.send_to(&packet, agent).await,
                    None => through.send(&packet).await,
                };
            });
        }
    }
}

/// Carries packets of agents to the scheduler, each agent's from a socket of its own.
async fn forth(front: std::net::UdpSocket, scheduler: SocketAddr, way: &Way) -> io::Result<()> {
    let front = Arc::new(UdpSocket::from_std(front)?);
    let mut agents: BTreeMap<SocketAddr, (Lane, Arc<UdpSocket>)> = BTreeMap::new();
    let mut packet = vec![0; PACKET_BYTES_MAX];
    loop {
        let (length, agent) = front.recv_from(&mut packet).await?;
        if !agents.contains_key(&agent) {
            let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
            socket.connect(scheduler).await?;
            let socket = Arc::new(socket);
            let turn = agents.len() as u64;
            let lane = Lane::new(way, turn, true);
            tokio::spawn(back(lane, socket.clone(), front.clone(), agent));
            agents.insert(agent, (Lane::new(way, turn, false), socket));
        }
        if let Some((lane, socket)) = agents.get_mut(&agent) {
            lane.send(&packet[..length], socket, None);
        }
    }
}

/// Carries packets of the scheduler to one agent.
async fn back(mut lane: Lane, from: Arc<UdpSocket>, front: Arc<UdpSocket>, agent: SocketAddr) {
    let mut packet = vec![0; PACKET_BYTES_MAX];
    loop {
        // An error is what the kernel says of a packet that nobody took: another may be taken.
        if let Ok(length) = from.recv(&mut packet).await {
            lane.send(&packet[..length], &front, Some(agent));
        }
    }
}
