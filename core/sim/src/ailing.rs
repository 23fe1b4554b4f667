//! GPUs that fall ill: XIDs, a driver that has lost one, and the tests before they get work again.
//!
//! An XID is told by the agent at once, and again on its next session where it was told lately; one
//! that nobody was there to see is never told. Which GPUs a driver has lost is seen in samples, once a
//! second, by whoever hears them. A GPU is truly ill from the fault on until it is over, and a test
//! within that time fails.

use std::collections::BTreeSet;

use gantry_model::health::{Finding, Sign, Stage, Trouble};
use gantry_model::{Exit, Millis};

use crate::calendar::Happening;
use crate::faults::Fault;
use crate::network::Said;
use crate::process::Process;
use crate::scheduler::{Input, Phase};
use crate::server::Server;
use crate::trace::name;
use crate::world::World;

/// XIDs of each class.
pub(crate) const XIDS: [u64; 6] = [13, 48, 62, 74, 79, 94];
/// A GPU falls ill less often than something else fails.
const RARER: u64 = 2;
/// What was found within this time is told again on a new session.
const AGAIN: Millis = Millis::from_seconds(60);
/// How long a test takes.
const TEST_MS: (u64, u64) = (1_500, 8_000);

impl World {
    /// Draws the next GPU that falls ill.
    pub(crate) fn plan_ailing(&mut self) {
        let Some(mean) = self.settings.strength.between() else { return };
        let at = self.now.after(self.ailing.wait(Millis(mean.0 * RARER)));
        let server = self.ailing.below(self.servers.len() as u64) as usize;
        let gpu = self.ailing.below(8) as usize;
        let fault = if self.ailing.chance(600) {
            Fault::Xid { server, gpu, code: *self.ailing.pick(&XIDS) }
        } else {
            Fault::GpuIsLost { server, gpu }
        };
        self.calendar.note(at, Happening::Strikes(fault));
    }

    /// A GPU falls ill; nothing happens where there is none.
    pub(crate) fn falls_ill(&mut self, fault: Fault) {
        self.plan_ailing();
        let (Fault::Xid { server, gpu, .. } | Fault::GpuIsLost { server, gpu }) = fault else {
            return;
        };
        let here = &mut self.servers[server];
        let devices = here.devices(gpu);
        if devices.is_empty() {
            return;
        }
        *here.ill.entry(gpu).or_default() += 1;
        if matches!(fault, Fault::GpuIsLost { .. }) {
            *here.driver_lost.entry(gpu).or_default() += 1;
        }
        let uses = |process: &Process| process.gpus.iter().any(|uuid| devices.contains(uuid));
        let users: Vec<_> = here
            .processes
            .iter()
            .filter(|(_, process)| uses(process))
            .map(|(try_id, _)| *try_id)
            .collect();
        for try_id in users {
            if self.ailing.chance(500) {
                self.end_now(server, try_id, Exit::Code(1));
            }
        }
        if let (Fault::Xid { code, .. }, Some(uuid)) = (fault, devices.first()) {
            self.summary.xids += 1;
            let (trouble, gpu) = (Trouble::of_xid(code), Some(uuid.clone()));
            let detail = format!("XID {code}");
            self.agent_finds(server, Finding { trouble, sign: Sign::Seen, gpu, detail });
        }
        let lasts = fault.lasts(&mut self.ailing);
        self.calendar.note(self.now.after(lasts), Happening::Over(fault));
    }

    /// A GPU is well again.
    pub(crate) fn is_well(&mut self, fault: Fault) {
        let (Fault::Xid { server, gpu, .. } | Fault::GpuIsLost { server, gpu }) = fault else {
            return;
        };
        let here = &mut self.servers[server];
        less(&mut here.ill, gpu);
        if matches!(fault, Fault::GpuIsLost { .. }) {
            less(&mut here.driver_lost, gpu);
        }
    }

    fn agent_finds(&mut self, server: usize, finding: Finding) {
        let Some(agent) = &mut self.servers[server].agent else { return };
        agent.found.push((self.now, finding.clone()));
        if let Some(session) = agent.session {
            self.say(session, Said::Found(Box::new(finding)));
        }
    }

    /// An agent has a new session: what it found lately may have been lost with the one before.
    pub(crate) fn tell_found_again(&mut self, server: usize, session: u64) {
        let now = self.now;
        let Some(agent) = &mut self.servers[server].agent else { return };
        agent.found.retain(|(at, _)| now.since(*at) < AGAIN);
        for (_, finding) in agent.found.clone() {
            self.say(session, Said::Found(Box::new(finding)));
        }
    }

    /// A node begins a test.
    pub(crate) fn begin_test(&mut self, server: usize, number: u64, gpu: Option<String>) {
        let takes = Millis(self.ailing.between(TEST_MS.0, TEST_MS.1));
        let life = self.servers[server].life;
        let tested = Happening::Tested { server, life, number, gpu };
        self.calendar.note(self.now.after(takes), tested);
    }

    /// A test has ended.
    pub(crate) fn tested(&mut self, server: usize, life: u32, number: u64, gpu: Option<&String>) {
        let here = &self.servers[server];
        let session = here.agent.as_ref().and_then(|agent| agent.session);
        // One that nobody hears is lost, and ordered again.
        let Some(session) = session.filter(|_| here.life == life) else { return };
        let wrong = gpu.and_then(|uuid| here.is_ill(uuid)).map(str::to_owned);
        if wrong.is_some() {
            self.summary.tests_failed += 1;
        }
        self.say(session, Said::Tested { number, wrong });
    }

    /// Once a second: the samples of the nodes show which GPUs their drivers have lost.
    pub(crate) fn look_at_samples(&mut self) {
        if self.scheduler.phase == Phase::Down {
            return;
        }
        let lost = |here: &Server| !here.driver_lost.is_empty();
        let mut looked: BTreeSet<usize> = std::mem::take(&mut self.watched);
        looked.extend((0..self.servers.len()).filter(|server| lost(&self.servers[*server])));
        for server in looked {
            let Some(session) = self.scheduler.session(server) else {
                self.watched.insert(server);
                continue;
            };
            let told: BTreeSet<String> = self
                .scheduler
                .cluster
                .nodes()
                .into_iter()
                .filter(|row| row.facts.name == name(server))
                .flat_map(|row| row.ailments)
                .filter(|one| one.trouble == Trouble::GpuLost && one.stage == Stage::Active)
                .filter_map(|one| one.gpu)
                .collect();
            let lost = self.servers[server].lost_devices();
            for (sign, gpus) in
                [(Sign::Begun, lost.difference(&told)), (Sign::Over, told.difference(&lost))]
            {
                for gpu in gpus {
                    let (trouble, gpu) = (Trouble::GpuLost, Some(gpu.clone()));
                    let detail = "the driver has lost the gpu".into();
                    let finding = Box::new(Finding { trouble, sign, gpu, detail });
                    self.reach_scheduler(Input::Found { session, server, finding });
                }
            }
            if !lost.is_empty() || !told.is_empty() {
                self.watched.insert(server);
            }
        }
    }
}

fn less(counts: &mut std::collections::BTreeMap<usize, u32>, key: usize) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}
