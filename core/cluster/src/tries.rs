//! What nodes report of tries, and what follows: running, done, again, or failed.

use gantry_model::{
    AfterStop, At, Exit, JobId, Level, Millis, NodeId, Order, Preemption, Report, Spent, Subject,
    TaskId, TaskState, TryId, Usage,
};

use crate::accounts::Step;
use crate::cluster::{Cluster, note};
use crate::event::{Effect, TryEnd};
use crate::job::Job;
use crate::node::Live;
use crate::preempt::STOP_TAKES;

/// The wait before the second start; it doubles with each failure up to [`BACKOFF_MAX`].
const BACKOFF_FIRST: Millis = Millis::from_seconds(1);
const BACKOFF_MAX: Millis = Millis::from_seconds(60);

/// How a try ended.
struct End {
    try_id: TryId,
    exit: Exit,
    usage: Usage,
    /// The try that has its lease now.
    heir: Option<TryId>,
}

/// A try that holds nothing any more.
pub(crate) struct Over {
    pub(crate) try_id: TryId,
    pub(crate) task: TaskId,
    pub(crate) node: NodeId,
    /// When it got its lease.
    pub(crate) placed: At,
}

impl Cluster {
    /// Takes a report. Gives the node and the job of a task that has ended there, whose next tasks
    /// may go ahead.
    pub(crate) fn report(
        &mut self,
        at: At,
        node: &str,
        report: Report,
        effects: &mut Vec<Effect>,
    ) -> Option<(NodeId, JobId)> {
        let known = self.names.get(node).copied();
        let mut ended = None;
        match report {
            Report::Started { try_id } => {
                if let Some(node) = known {
                    self.started(at, node, try_id);
                }
            }
            Report::Ended { try_id, exit, usage, heir } => {
                if let Some(node) = known {
                    let job = self.ended(at, node, &End { try_id, exit, usage, heir }, effects);
                    ended = job.map(|job| (node, job));
                }
                // Also for a try that is long forgotten: the node repeats it until it hears this.
                let order = Order::Acknowledge { try_id };
                effects.push(Effect::Order { node: node.to_owned(), order });
            }
            Report::Returned { try_id } => {
                if let Some(node) = known {
                    self.is_stray_no_more(node, try_id);
                    self.returned(at, node, try_id, effects);
                }
            }
        }
        ended
    }

    fn started(&mut self, at: At, node: NodeId, try_id: TryId) {
        let live = self.nodes[node.0 as usize - 1].live.get_mut(&try_id);
        let Some(task) = live.map(|live| live.task) else { return };
        let Some(job) = self.jobs.get_mut(&task.job) else { return };
        let state = job.tasks.get(&task.index).map(|task| &task.state);
        if matches!(state, Some(TaskState::Starting { .. })) {
            job.step(task.index, &TaskState::Running { node, try_id, since: at });
        }
    }

    fn ended(&mut self, at: At, id: NodeId, end: &End, effects: &mut Vec<Effect>) -> Option<JobId> {
        let End { try_id, ref exit, usage, heir } = *end;
        self.is_stray_no_more(id, try_id);
        let live = match heir {
            Some(heir) => self.hand_on(at, id, try_id, usage, heir, effects),
            None => self.release(at, id, try_id, usage),
        };
        let Some(live) = live else {
            self.ended_ahead(at, id, try_id, exit, effects);
            return None;
        };
        if exit.is_success()
            && let Some(job) = self.jobs.get_mut(&live.task.job)
        {
            job.pace.count(at.since(live.since));
        }
        self.judge(at, id, &live, exit, effects);
        if let Exit::NotStarted { code: 125, sentence } = exit {
            self.not_ready(at, id, sentence.clone(), effects);
        }
        let over = Over { try_id, task: live.task, node: id, placed: live.since };
        self.conclude(at, &over, exit, effects);
        if !self.node(id).ailments.is_empty() {
            self.test_when_empty(at, id, effects);
        }
        Some(live.task.job)
    }

    /// A try that was given up is over on its node, or was never begun there.
    fn is_stray_no_more(&mut self, node: NodeId, try_id: TryId) {
        if self.node_mut(node).strays.remove(&try_id) {
            self.has_changed(node);
        }
    }

    /// Takes the lease of a try back, and counts what it has cost.
    pub(crate) fn release(
        &mut self,
        at: At,
        node: NodeId,
        try_id: TryId,
        usage: Usage,
    ) -> Option<Live> {
        let live = self.node_mut(node).take_back(try_id)?;
        self.has_changed(node);
        if live.preemption == Preemption::Requeue
            && let Some(count) = self.preemptible.get_mut(&node)
        {
            *count -= 1;
            if *count == 0 {
                self.preemptible.remove(&node);
            }
        }
        self.accounts.change(live.account, at, &live.lease, Step::End, &self.settings);
        let job = self.jobs.get_mut(&live.task.job)?;
        for (name, count) in &job.spec.licences {
            if let Some(held) = self.licences.get_mut(name) {
                *held -= count;
            }
        }
        self.spend(at, &live, usage);
        Some(live)
    }

    /// Counts what a try has cost its job.
    pub(crate) fn spend(&mut self, at: At, live: &Live, usage: Usage) {
        let Some(job) = self.jobs.get_mut(&live.task.job) else { return };
        let held = at.since(live.since).0;
        let resources = &live.lease.resources;
        let gpus = u64::from(resources.gpus) * u64::from(live.lease.gpu_permille);
        job.spent = job.spent.plus(&Spent {
            core_ms: held.saturating_mul(u64::from(resources.cores)),
            gpu_ms: held.saturating_mul(gpus) / 1000,
            cpu_ms: usage.cpu_ms,
            memory_peak: usage.memory_peak,
            read_kib: usage.read_kib,
            written_kib: usage.written_kib,
        });
    }

    /// Decides what the end of a task's live try means.
    pub(crate) fn conclude(&mut self, at: At, over: &Over, exit: &Exit, effects: &mut Vec<Effect>) {
        let id = over.task;
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        let gang = job.is_gang();
        let Some(task) = job.touch(id.index) else { return };
        task.exit = Some(exit.clone());
        let (start, mut began, mut stopping) = (task.starts, None, None);
        match task.state {
            TaskState::Running { since, .. } => began = Some(since),
            TaskState::Stopping { then, .. } => stopping = Some(then),
            _ => {}
        }
        if gang {
            self.conclude_rank(at, id, exit, stopping, effects);
        } else {
            self.conclude_task(at, id, exit, stopping, effects);
        }
        self.tell_end(over, start, began, exit, stopping, effects);
        self.requeue(id.job);
        self.element_ended(at, id, effects);
        self.end_of_job(at, id.job, effects);
    }

    /// Tells what was known of a try, once it is decided what follows.
    fn tell_end(
        &self,
        over: &Over,
        start: u32,
        began: Option<At>,
        exit: &Exit,
        stopped: Option<AfterStop>,
        effects: &mut Vec<Effect>,
    ) {
        let &Over { try_id, task, node, placed } = over;
        let Some(job) = self.jobs.get(&task.job) else { return };
        let Some(then) = job.task_state(task.index) else { return };
        effects.push(Effect::TryEnded(Box::new(TryEnd {
            try_id,
            task,
            user: job.user.clone(),
            kind: job.kind_word(),
            submitted: job.submitted,
            node: self.node(node).name().to_owned(),
            start,
            placed,
            began,
            exit: exit.clone(),
            stopped,
            then,
        })));
    }

    fn conclude_task(
        &mut self,
        at: At,
        id: TaskId,
        exit: &Exit,
        stopping: Option<AfterStop>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        match (stopping, exit) {
            _ if exit.is_success() => job.step(id.index, &TaskState::Done),
            (Some(AfterStop::Cancel), _) => job.step(id.index, &TaskState::Cancelled),
            (Some(AfterStop::Again), _) => wait_again(job, id.index),
            (None, Exit::NodeLost) => {
                wait_again(job, id.index);
                let sentence = "queued again: its node was lost";
                effects.push(note(at, Level::Warn, Subject::Task(id), sentence));
            }
            (None, exit) if exit.is_of_node() => {
                job.step(id.index, &TaskState::Waiting);
                // Where the node goes on to get work nothing else keeps this from turning round.
                self.back_off(at, id, 1);
                let sentence = format!("queued again, which is no try of it: {exit}");
                effects.push(note(at, Level::Warn, Subject::Task(id), sentence));
            }
            (None, _) => {
                let retried = is_retried(job, exit);
                let retries = u32::from(job.retries(id.index));
                let Some(task) = job.touch(id.index) else { return };
                task.failures += 1;
                let failures = task.failures;
                if retried && failures <= retries {
                    job.step(id.index, &TaskState::Waiting);
                    self.back_off(at, id, failures);
                } else {
                    job.step(id.index, &TaskState::Failed(exit.clone()));
                    remember(job, exit);
                }
            }
        }
    }

    /// A rank ends: the gang is through once all have, and falls with the first that does not.
    fn conclude_rank(
        &mut self,
        at: At,
        id: TaskId,
        exit: &Exit,
        stopping: Option<AfterStop>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        match stopping {
            Some(AfterStop::Cancel) => job.step(id.index, &TaskState::Cancelled),
            Some(AfterStop::Again) => wait_again(job, id.index),
            None if exit.is_success() => {
                job.step(id.index, &TaskState::Arrived);
                let arrived = |task: &crate::job::Task| task.state == TaskState::Arrived;
                let all =
                    job.tasks.values().all(arrived) && job.tasks.len() as u32 == job.counts.total();
                if all {
                    let ranks: Vec<u32> = job.tasks.keys().copied().collect();
                    for rank in ranks {
                        job.step(rank, &TaskState::Done);
                    }
                }
            }
            None => self.gang_falls(at, id, exit, effects),
        }
    }

    fn gang_falls(&mut self, at: At, id: TaskId, exit: &Exit, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        let of_node = exit.is_of_node();
        let retried = is_retried(job, exit);
        job.gang_failures += u32::from(!of_node);
        let failures = job.gang_failures;
        let again = of_node || (retried && failures <= u32::from(job.retries(id.index)));
        let rank = format!("rank {} of the gang: {exit}", id.index);
        if again {
            if *exit == Exit::NodeLost {
                wait_again(job, id.index);
            } else {
                job.step(id.index, &TaskState::Waiting);
                self.back_off(at, id, failures.max(1));
            }
            let sentence = format!("{rank}; the whole gang starts again");
            effects.push(note(at, Level::Warn, Subject::Job(id.job), sentence));
            self.stop_gang(at, id.job, AfterStop::Again, effects);
        } else {
            job.step(id.index, &TaskState::Failed(exit.clone()));
            job.reason.get_or_insert(rank);
            self.stop_gang(at, id.job, AfterStop::Cancel, effects);
        }
    }

    fn back_off(&mut self, at: At, id: TaskId, failures: u32) {
        let doubled = BACKOFF_FIRST.0 << failures.saturating_sub(1).min(16);
        let ready = at.after(Millis(doubled.min(BACKOFF_MAX.0)));
        if let Some(task) = self.jobs.get_mut(&id.job).and_then(|job| job.touch(id.index)) {
            task.ready = ready;
        }
        self.backoffs.insert((ready, id));
    }

    /// Tells a live task to stop; says whether it was live and not told the same already.
    pub(crate) fn stop_task(
        &mut self,
        at: At,
        id: TaskId,
        then: AfterStop,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(job) = self.jobs.get_mut(&id.job) else { return false };
        let Some(state) = job.tasks.get(&id.index).map(|task| task.state.clone()) else {
            return false;
        };
        let Some((node, try_id)) = state.live() else { return false };
        let told = match state {
            // A cancel is not taken back, and one stop is enough.
            TaskState::Stopping { then: before, .. } => {
                if before == AfterStop::Cancel || before == then {
                    return false;
                }
                true
            }
            _ => false,
        };
        job.step(id.index, &TaskState::Stopping { node, try_id, then });
        let here = self.node_mut(node);
        if let Some(live) = here.live.get_mut(&try_id) {
            let soon = at.after(STOP_TAKES);
            live.until = Some(live.until.map_or(soon, |until| until.min(soon)));
        }
        if !told {
            let node = here.name().to_owned();
            effects.push(Effect::Order { node, order: Order::Stop { try_id } });
        }
        true
    }

    /// Stops a task, and its whole gang where it has one, and lets it wait again; says how many.
    pub(crate) fn stop_to_wait(&mut self, at: At, task: TaskId, effects: &mut Vec<Effect>) -> u32 {
        if self.jobs.get(&task.job).is_some_and(Job::is_gang) {
            self.stop_gang(at, task.job, AfterStop::Again, effects)
        } else {
            u32::from(self.stop_task(at, task, AfterStop::Again, effects))
        }
    }

    /// Stops every live rank of a gang, and decides the same for those that have ended.
    pub(crate) fn stop_gang(
        &mut self,
        at: At,
        id: gantry_model::JobId,
        then: AfterStop,
        effects: &mut Vec<Effect>,
    ) -> u32 {
        let Some(job) = self.jobs.get(&id) else { return 0 };
        let ranks: Vec<u32> = job.tasks.keys().copied().collect();
        let mut count = 0;
        for rank in ranks {
            count += u32::from(self.stop_task(at, id.task(rank), then, effects));
            let Some(job) = self.jobs.get_mut(&id) else { return count };
            let arrived = job.tasks.get(&rank).map(|task| &task.state) == Some(&TaskState::Arrived);
            match then {
                AfterStop::Again if arrived => wait_again(job, rank),
                AfterStop::Cancel if arrived => job.step(rank, &TaskState::Cancelled),
                _ => {}
            }
        }
        if then == AfterStop::Cancel {
            self.cancel_waiting(id, None);
        }
        self.requeue(id);
        count
    }
}

/// Whether a further start may mend a failure.
fn is_retried(job: &Job, exit: &Exit) -> bool {
    let codes = &job.spec.retry_codes;
    codes.is_empty() || matches!(exit, Exit::Code(code) if codes.contains(code))
}

/// Lets a task wait for a further start, which it may have at once.
pub(crate) fn wait_again(job: &mut Job, index: u32) {
    job.step(index, &TaskState::Waiting);
    job.again.insert(index);
}

/// Keeps how the first task of a job failed.
fn remember(job: &mut Job, exit: &Exit) {
    if job.counts.fail == 1 {
        job.reason = Some(exit.to_string());
    }
}
