//! The way to the scheduler: certificates, the port, the clock.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Instant;

use gantry_link::Identity;
use gantry_model::At;
use gantry_wire::{Reply, Request, SchedulerStatus};

use super::Finding;
use crate::cli::client::{Access, Client, Reach, unexpected};
use crate::cli::daemons::journal_use;
use crate::cli::time;

/// What the scheduler calls a trouble of a node's clock.
const CLOCK_OFF_MAX_MS: u64 = 2000;
/// A sync of a journal that takes longer on average holds up whoever submits.
const SYNC_US_MAX: u64 = 50_000;

pub(super) fn findings(reach: &Reach) -> Vec<Finding> {
    let place = reach.place();
    // Nobody gets an identity by a look at the host.
    let reach = reach.clone().or(place.clone());
    if !place.is_dir() {
        let why = format!("no cluster in {}: commands here need --cluster DIR", place.display());
        return ["certificates", "ports", "clock"].map(|one| Finding::skip(one, &*why)).into();
    }
    let access = match Access::find(reach.clone()) {
        Ok(access) => access,
        Err(failure) => {
            let mend = "name the folder of your identity with --cluster, or get one: gantry join --local on the scheduler's host, elsewhere gantry access token there and gantry join --user here";
            return vec![Finding::fail("certificates", failure.sentence, mend)];
        }
    };
    // Calling the scheduler renews what is due, so that what is found then is what counts.
    let mut called = scheduler(&access);
    let access = Access::find(reach.clone()).unwrap_or(access);
    let whose = access.identity.name().unwrap_or_else(|_| "caller".into());
    let mut found = vec![certificate(&access.identity, &whose, time::now())];
    found.append(&mut called);
    found
}

/// How long an identity lasts.
pub(super) fn certificate(identity: &Identity, whose: &str, now: At) -> Finding {
    match identity.validity().and_then(|(from, until)| Ok((from, until, identity.peer()?.due()))) {
        Ok((from, until, due)) => lasts(whose, from, due, until, now),
        Err(error) => Finding::fail("certificates", error.to_string(), "restore it from a backup"),
    }
}

fn lasts(whose: &str, from: At, due: At, until: At, now: At) -> Finding {
    let check = "certificates";
    let (end, at) = (time::clock(until, now), time::clock(due, now));
    if now < from {
        let begin = time::clock(from, now);
        let found = format!("that of {whose} counts only from {begin} on");
        Finding::fail(check, found, "set this machine's clock: it is behind")
    } else if now >= until {
        let mend = "call the scheduler, which renews it while its grace lasts; later, join again with a new token";
        Finding::fail(check, format!("that of {whose} ended at {end}"), mend)
    } else if now >= due {
        let mend = "see that the scheduler can be reached and that the folder can be written, and call it again";
        let found = format!("that of {whose} ends at {end} and was to be renewed at {at}");
        Finding::warn(check, found, mend)
    } else {
        Finding::ok(
            check,
            format!("that of {whose} counts until {end}; it is renewed from {at} on"),
        )
    }
}

fn scheduler(access: &Access) -> Vec<Finding> {
    let address = access.address;
    let begun = Instant::now();
    let client = match Client::to(access) {
        Ok(client) => client,
        Err(failure) => {
            let skip = Finding::skip("clock", "the scheduler does not tell its own");
            return vec![Finding::fail("ports", failure.sentence, unreachable(address)), skip];
        }
    };
    let took_ms = begun.elapsed().as_millis() as u64;
    let sentence =
        format!("UDP {address} answers as cluster {} after {took_ms} ms", client.cluster());
    let clock = clock(time::now(), client.greeted(), took_ms);
    vec![Finding::ok("ports", sentence), clock, journal(&client)]
}

/// What durability costs the scheduler.
fn journal(client: &Client) -> Finding {
    match client.ask(&Request::Status) {
        Ok(Reply::Status(status)) => costs(&status),
        Ok(other) => Finding::skip("journal", unexpected(&other).sentence),
        Err(failure) => Finding::skip("journal", failure.sentence),
    }
}

fn costs(status: &SchedulerStatus) -> Finding {
    let found = journal_use(status);
    if status.journal.sync_us().is_some_and(|us| us > SYNC_US_MAX) {
        let mend = "put the scheduler's folder on a local disk with a fast sync: every submit waits for one";
        return Finding::warn("journal", found, mend);
    }
    Finding::ok("journal", found)
}

/// What can be done about a scheduler that does not answer.
fn unreachable(address: SocketAddr) -> String {
    let port = address.port();
    let here = address.ip().is_loopback() || is_own(address.ip());
    // Who can have the port for himself shows that nobody listens.
    if here && UdpSocket::bind(address).is_ok() {
        return format!("nobody listens on UDP {port} of this machine: start gantry scheduler");
    }
    format!(
        "let UDP {port} through every firewall between here and {}, in both directions; sites that block UDP have to open this one port",
        address.ip()
    )
}

/// Whether an address is one of this machine: only then can a socket be bound to it.
fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

fn clock(now: At, theirs: At, took_ms: u64) -> Finding {
    let (ahead, off) = if now >= theirs {
        ("ahead of", now.since(theirs).0)
    } else {
        ("behind", theirs.since(now).0)
    };
    let found = format!("{off} ms {ahead} the scheduler's, known to {took_ms} ms");
    if off <= CLOCK_OFF_MAX_MS + took_ms {
        Finding::ok("clock", found)
    } else {
        Finding::fail(
            "clock",
            found,
            "let chrony or systemd-timesyncd set the clocks of both machines",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn certificates_and_clocks_by_their_distance() {
        let day = |n: u64| At((1000 + n) * 86_400_000);
        for (from, until, now, state) in [
            (0, 400, 10, State::Ok),
            (0, 400, 380, State::Warn),
            (0, 400, 400, State::Fail),
            (20, 400, 10, State::Fail),
        ] {
            let found = lasts("ada", day(from), day(370), day(until), day(now));
            assert_eq!(found.state, state, "{now}");
        }
        for (now, theirs, took_ms, state) in [
            (10_000, 10_000, 0, State::Ok),
            (10_000, 11_900, 5, State::Ok),
            (13_000, 10_000, 5, State::Fail),
            (13_000, 10_000, 1500, State::Ok),
        ] {
            assert_eq!(clock(At(now), At(theirs), took_ms).state, state, "{now} {theirs}");
        }
    }

    #[test]
    fn a_slow_journal_is_told() {
        for (syncs, syncing_us, state) in
            [(0, 0, State::Ok), (10, 20_000, State::Ok), (10, 600_000, State::Warn)]
        {
            let mut status = SchedulerStatus::default();
            (status.journal.syncs, status.journal.syncing_us) = (syncs, syncing_us);
            assert_eq!(costs(&status).state, state, "{syncing_us}");
        }
    }

    #[test]
    fn a_port_that_nobody_has_is_told_from_one_that_is_blocked() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        assert!(unreachable(address).contains("through every firewall"));
        drop(socket);
        assert!(unreachable(address).contains("nobody listens"));
        assert!(unreachable("203.0.113.9:7400".parse().unwrap()).contains("firewall"));
    }
}
