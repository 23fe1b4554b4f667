//! Questions to the scheduler beside the pictures: what a screen shows is asked for while it is
//! shown, one question of a kind at a time, and again after a while.
//!
//! An answer goes to what it is about, whatever is on the screen when it comes. One that never comes
//! is asked for again.

use std::collections::BTreeMap;

use gantry_model::{JobId, Subject, TaskId};
use gantry_telemetry::Quantity;
use gantry_wire::{NoteQuery, Reply, Request};
use serde::{Deserialize, Serialize};

use super::events::NOTES_EACH_MS;
use super::{App, Effect, View};

/// A question that has waited so long is asked again.
const LOST_MS: u64 = 15_000;
/// Between two looks at all GPUs.
const GPUS_EACH_MS: u64 = 2000;
/// Between two looks at a past: a cell of a strip is no shorter.
const STRIPS_EACH_MS: u64 = 5000;
/// Between two looks at what changes with the work itself.
const DETAIL_EACH_MS: u64 = 5000;
/// Where the line to the terminal is slow, nothing is looked at more often.
const LEAN_EACH_MS: u64 = 15_000;
/// Questions that are remembered.
const ASKED_MAX: usize = 512;
/// Asks for the end of an output.
pub(crate) const TO_THE_END: u64 = u64::MAX;

/// What a question is about, and so where its answer goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum About {
    /// Something a person asked for: the words for it.
    Deed(String),
    /// All GPUs, page by page.
    Gpus,
    /// The GPUs of one job.
    GpusOf(JobId),
    /// The past of a node's GPUs.
    Strips(String),
    /// The lines of the event log about a node.
    NodeNotes(String),
    /// Why a job waits.
    Why(JobId),
    /// The tasks of a job.
    Tasks(JobId),
    /// What was submitted; the flag says that it is to be submitted again.
    Spec(JobId, Again),
    /// The curves of a job.
    Metrics(JobId),
    /// A piece of an output.
    Output(TaskId),
    /// The event log.
    Notes,
    /// Jobs older than those in the picture.
    OlderJobs,
    /// Nodes behind those in the picture.
    FurtherNodes,
}

/// Whether a job's specification is wanted to look at, or to submit it once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Again {
    /// To look at.
    No,
    /// To submit it once more.
    Yes,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What its answer is for.
    pub about: About,
    /// What is asked.
    pub request: Box<Request>,
}

/// When something was asked, and whether the answer is still to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    at: u64,
    open: bool,
}

impl App {
    /// Asks for what the screen shows and does not know, or knows from too long ago.
    pub(super) fn ask_what_is_due(&mut self, effects: &mut Vec<Effect>) {
        if self.frozen || self.link != super::Link::Live {
            return;
        }
        match self.view {
            View::Gpus => {
                self.ask_gpus(GPUS_EACH_MS, effects);
                let nodes = self.gpus.visible_nodes(self.top, self.list_rows());
                self.ask_strips(&nodes, effects);
            }
            View::Nodes => {
                if let Some((each_ms, request)) = self.further_nodes_asked() {
                    self.ask_each(About::FurtherNodes, each_ms, request, effects);
                }
                if let Some(node) = self.looked_at.clone() {
                    self.ask_strips(std::slice::from_ref(&node), effects);
                    let subject = Some(Subject::Node(node.clone()));
                    let query = NoteQuery { subject, ..NoteQuery::default() };
                    let request = Request::Notes { query };
                    self.ask_each(About::NodeNotes(node), DETAIL_EACH_MS, request, effects);
                }
            }
            View::Jobs => {
                if let Some(request) = self.older_jobs_asked() {
                    self.ask_each(About::OlderJobs, 0, request, effects);
                }
                self.ask_gpus(DETAIL_EACH_MS, effects);
                if let Some(job) = self.job {
                    self.ask_each(
                        About::Metrics(job),
                        DETAIL_EACH_MS,
                        Request::Metrics { job },
                        effects,
                    );
                    self.ask_output(job.task(0), effects);
                    self.ask_spec(job, effects);
                }
            }
            View::Job(job) => self.ask_about_job(job, effects),
            View::Events => {
                if let Some(query) = self.events.query() {
                    let request = Request::Notes { query };
                    self.ask_each(About::Notes, NOTES_EACH_MS, request, effects);
                }
            }
            View::Overview | View::Data | View::Image => {}
        }
        if let super::Overlay::Why { job, .. } = self.overlay {
            let request = Request::Why { job, indices: None };
            self.ask_each(About::Why(job), DETAIL_EACH_MS, request, effects);
        }
    }

    fn ask_about_job(&mut self, job: JobId, effects: &mut Vec<Effect>) {
        self.ask_spec(job, effects);
        let row = self.update.as_ref().and_then(|update| update.jobs.first());
        let (several, gpus, runs) = row.map_or((false, false, false), |row| {
            (row.tasks.total() > 1, row.resources.gpus > 0, row.tasks.run > 0)
        });
        if gpus && runs {
            let request = Request::Gpus { after: None, job: Some(job) };
            self.ask_each(About::GpusOf(job), GPUS_EACH_MS, request, effects);
            let mut nodes: Vec<String> = self
                .ranks_of(job)
                .map(|gpus| gpus.iter().map(|gpu| gpu.node.clone()).collect())
                .unwrap_or_default();
            nodes.dedup();
            self.ask_strips(&nodes, effects);
        }
        if several {
            let (each_ms, request) = self.tasks.asked(job, DETAIL_EACH_MS);
            self.ask_each(About::Tasks(job), each_ms, request, effects);
        }
        let others: Vec<JobId> =
            self.laid_over.iter().copied().filter(|other| *other != job).collect();
        for other in others {
            let request = Request::Metrics { job: other };
            self.ask_each(About::Metrics(other), DETAIL_EACH_MS, request, effects);
        }
        if let Some(offset) = self.log.wants(job) {
            let task = job.task(0);
            self.ask_each(About::Output(task), 500, Request::Output { task, offset }, effects);
        }
    }

    fn ask_spec(&mut self, job: JobId, effects: &mut Vec<Effect>) {
        if !self.specs.contains_key(&job) {
            self.ask_each(About::Spec(job, Again::No), 60_000, Request::Spec { job }, effects);
        }
    }

    fn ask_output(&mut self, task: TaskId, effects: &mut Vec<Effect>) {
        let request = Request::Output { task, offset: TO_THE_END };
        self.ask_each(About::Output(task), DETAIL_EACH_MS, request, effects);
    }

    fn ask_gpus(&mut self, each_ms: u64, effects: &mut Vec<Effect>) {
        let after = self.gpus.next_page();
        // The pages of one look follow one another at once.
        let each_ms = if after.is_some() { 0 } else { each_ms };
        self.ask_each(About::Gpus, each_ms, Request::Gpus { after, job: None }, effects);
    }

    fn ask_strips(&mut self, nodes: &[String], effects: &mut Vec<Effect>) {
        let (quantity, span) = (self.gpus.metric.quantity(), self.gpus.span());
        let cells = self.gpus.cells();
        // Other screens than that of the GPUs show how busy they are.
        let mut quantities = vec![quantity];
        if quantity != Quantity::GpuBusy {
            quantities.push(Quantity::GpuBusy);
        }
        let each = STRIPS_EACH_MS.max(span.0 / u64::from(cells));
        for node in nodes {
            let request =
                Request::Series { node: node.clone(), quantities: quantities.clone(), span, cells };
            self.ask_each(About::Strips(node.clone()), each, request, effects);
        }
    }

    /// Asks unless it was asked a moment ago.
    fn ask_each(
        &mut self,
        about: About,
        each_ms: u64,
        request: Request,
        effects: &mut Vec<Effect>,
    ) {
        let now = self.at.0;
        // The pages of one look follow one another whatever the line takes.
        let each_ms = if self.lean && each_ms > 0 { each_ms.max(LEAN_EACH_MS) } else { each_ms };
        let early = self.asked.get(&about).is_some_and(|asked| {
            let since = now.saturating_sub(asked.at);
            if asked.open { since < LOST_MS } else { since < each_ms }
        });
        if early {
            return;
        }
        if self.asked.len() >= ASKED_MAX {
            self.asked.retain(|_, asked| asked.open && now.saturating_sub(asked.at) < LOST_MS);
        }
        self.asked.insert(about.clone(), Asked { at: now, open: true });
        effects.push(Effect::Ask(Ask { about, request: Box::new(request) }));
    }

    /// Asks for something anew with the next look, whenever it was asked for.
    pub(super) fn forget_asked(&mut self, wanted: impl Fn(&About) -> bool) {
        self.asked.retain(|about, _| !wanted(about));
    }

    /// Takes an answer to where it belongs.
    pub(super) fn answered(
        &mut self,
        about: About,
        reply: Result<Reply, String>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(asked) = self.asked.get_mut(&about) {
            asked.open = false;
        }
        if let About::Deed(words) = &about {
            return self.deed_answered(words, reply);
        }
        let reply = match (reply, &about) {
            (Ok(Reply::Refused(reject)), About::Why(job)) => {
                self.why.insert(*job, Err(reject.sentence));
                return;
            }
            (Ok(Reply::Refused(reject)), About::Spec(_, Again::Yes)) => {
                return self.say(reject.sentence);
            }
            (Ok(reply), _) => reply,
            // The link says itself that it is gone; what is on the screen says its age.
            (Err(_), _) => return,
        };
        match (about, reply) {
            (About::Gpus, Reply::Gpus(page)) => {
                let filter = self.filter().to_owned();
                self.gpus.take(&page, &filter);
                self.keep_choice();
            }
            (About::GpusOf(job), Reply::Gpus(page)) => {
                self.ranks = Some((job, super::gpus::lines(&page)));
            }
            (About::Strips(node), Reply::Series { at, rows }) => {
                self.gpus.take_strips(&node, at, &rows);
            }
            (About::NodeNotes(node), Reply::Notes(page)) => {
                self.node_notes = Some((node, page.rows.into_iter().map(|row| row.note).collect()));
            }
            (About::Why(job), Reply::Why(why)) => {
                self.why.clear();
                self.why.insert(job, Ok(why));
            }
            (About::Tasks(job), Reply::Tasks { rows, more }) => {
                self.take_tasks(job, rows, more);
            }
            (About::Spec(job, again), Reply::Spec(spec)) => self.spec_answered(job, again, spec),
            (About::Metrics(job), Reply::Metrics(metrics)) => {
                keep(&mut self.metrics, job, metrics);
            }
            (About::Output(task), Reply::Output(output)) => self.log.take_piece(task.job, &output),
            (About::Notes, Reply::Notes(page)) => {
                self.events.take(page);
                self.keep_choice();
            }
            (About::OlderJobs, Reply::Jobs { rows, more }) => self.take_older_jobs(rows, more),
            (About::FurtherNodes, Reply::Nodes { rows, more }) => {
                self.take_further_nodes(rows, more);
            }
            _ => {}
        }
        self.ask_what_is_due(effects);
    }

    fn deed_answered(&mut self, words: &str, reply: Result<Reply, String>) {
        let tasks = |n: u32| format!("{n} task{}", if n == 1 { "" } else { "s" });
        let sentence = match reply {
            Ok(Reply::Cancelled(0)) => format!("{words}: it had ended already"),
            Ok(Reply::Acted(0)) => format!("{words}: done; there was nothing to change"),
            Ok(Reply::Cancelled(n) | Reply::Acted(n)) => format!("{words}: done, {}", tasks(n)),
            Ok(Reply::Submitted(job)) => format!("{words}: submitted as {job}"),
            Ok(Reply::Refused(reject)) => reject.sentence,
            Ok(_) => format!("{words}: the scheduler gave an answer of another kind"),
            Err(why) => format!("{words}: {why}"),
        };
        self.say(sentence);
    }
}

/// Jobs whose answers are kept.
const KEPT_MAX: usize = 32;

/// Keeps an answer, and not more than some: those of the oldest jobs give way.
pub(super) fn keep<T>(answers: &mut BTreeMap<JobId, T>, job: JobId, answer: T) {
    answers.insert(job, answer);
    while answers.len() > KEPT_MAX {
        let oldest = answers.keys().find(|known| **known != job).copied();
        if let Some(oldest) = oldest {
            answers.remove(&oldest);
        }
    }
}
