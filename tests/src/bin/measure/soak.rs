//! Images without end: eight associations, kill -9 of the agent in the middle, and the rest after it.
//! Nothing that was answered with success may be missing, then or at the end, and everything that is
//! there is whole.
//!
//! The images are small, since it is their number that is tried: 100,000 take a few minutes and a
//! gigabyte.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use gantry_agent::ingest::send::{Peer, Sender};
use gantry_library::Library;

use crate::Size;
use crate::ingest::{CLASS, EXPLICIT_LE, Site, Template, at_once, listening, send};
use crate::report::{Goal, Row};
use crate::statistics::seconds;

/// Images of the whole.
const IMAGES: u32 = 100_000;
const ASSOCIATIONS: u32 = 8;
/// Rows and columns of an image.
const SIDE: usize = 64;

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let count = size.count.unwrap_or(IMAGES);
    let template = Template::new("soak", SIDE)?;
    let mut missing = None;
    let took = seconds(|| {
        missing = Some(killed(&template, count)?);
        Ok(())
    })?;
    let what = format!("{count} images sent through a kill, and every one checked");
    Ok(missing.into_iter().chain([Row::new(what, "s", took)]).collect())
}

/// Eight associations, kill -9 of the agent in the middle, and the rest after its start: images that
/// were answered with success and are missing, of which there must be none.
pub(crate) fn killed(template: &Template, count: u32) -> Result<Row> {
    let mut site = Site::start()?;
    let address = site.address;
    let peer = Peer::plain(address, "SCANNER", "GANTRY");
    let acknowledged = Mutex::new(Vec::new());
    let next = AtomicU32::new(0);
    let until_killed = || -> Result<()> {
        let mut sender = Sender::open(&peer, &[(CLASS, EXPLICIT_LE)])?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            // The kill ends it.
            let Ok(status) = sender.store(&template.number(number)) else { return Ok(()) };
            ensure!(status == 0, "image {number} was answered with {status:04x}");
            acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(number);
        }
    };
    let acknowledged_now = || acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len();
    std::thread::scope(|scope| -> Result<()> {
        let sending = scope.spawn(|| at_once(ASSOCIATIONS, until_killed));
        while !sending.is_finished() && acknowledged_now() < count as usize / 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        site.cluster().kill_agent("cpu-1");
        sending.join().unwrap_or_else(|_| bail!("a sender panicked"))
    })?;
    let before = acknowledged_now();
    ensure!(before >= count as usize / 2, "only {before} images were answered before the kill");
    // Before anything is sent again, which would put right what is missing.
    let library = Library::open(&site.library())?;
    let answered: BTreeSet<u32> =
        acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect();
    let mut near = None;
    let mut missing = 0;
    for number in &answered {
        missing += u32::from(library.find_kept(&template.uid(*number), &mut near)?.is_none());
    }
    ensure!(missing == 0, "{missing} images were answered with success and are missing");
    site.cluster().start_agent("cpu-1")?;
    listening(address)?;
    let all = count.max(next.into_inner());
    let rest: Vec<u32> = (0..all).filter(|number| !answered.contains(number)).collect();
    send(address, template, &rest, ASSOCIATIONS)?;
    let kept = library.counts()?.instances;
    ensure!(kept == u64::from(all), "{kept} of {all} images are there after the second sending");
    let report = library.verify()?;
    ensure!(report.damage.is_empty(), "the library is damaged: {:?}", report.damage.first());
    let what = format!("missing of {before} answered before kill -9, 8 associations");
    Ok(Row::new(what, "images", f64::from(missing)).goal(Goal::AtMost(0.0)))
}
