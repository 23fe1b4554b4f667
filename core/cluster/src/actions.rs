//! What people change: requeue of jobs; drain, resume and maintenance windows of nodes. Hold, release
//! and change of jobs stand in `holds` and `changes`, and how a node is forgotten in `nodes`.

use gantry_model::{
    Action, AfterStop, At, IndexSet, JobId, Level, NodeId, Reject, RejectKind, Service, Subject,
    Window, limits, things,
};

use crate::cluster::{Cluster, note};
use crate::event::{Answer, Effect};

impl Cluster {
    pub(crate) fn act(
        &mut self,
        at: At,
        user: &str,
        action: Action,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer, Reject> {
        match action {
            Action::Hold { job, indices } => self.hold(at, user, job, indices.as_ref(), effects),
            Action::Release { job, indices } => {
                self.let_go(at, user, job, indices.as_ref(), effects)
            }
            Action::Requeue { job, indices } => {
                self.requeue_live(at, user, job, indices.as_ref(), effects)
            }
            Action::Change { job, indices: None, change } => {
                self.change(at, user, job, &change, effects)
            }
            Action::Change { job, indices: Some(elements), change } => {
                self.change_elements(at, user, job, elements, &change, effects)
            }
            Action::Drain { node, reason, deadline } => {
                check_reason(&reason)?;
                let id = self.named(&node)?;
                let until = if deadline.is_some() { ", with a deadline" } else { "" };
                let sentence = format!("drained by {user}{until}: {reason}");
                self.node_mut(id).service = Service::Drain { reason, deadline };
                self.serve(at, id, sentence, effects);
                Ok(Answer::Acted(self.node(id).live.len() as u32))
            }
            Action::Resume { node } => {
                let id = self.named(&node)?;
                let here = self.node_mut(id);
                if here.service == Service::Open && here.ailments.is_empty() {
                    return Err(Reject::new(
                        RejectKind::State,
                        format!("{node} is given work already; there is nothing to resume"),
                    ));
                }
                here.service = Service::Open;
                here.fast.clear();
                here.ailments.clear();
                here.relapses.clear();
                here.mark();
                self.serve(at, id, format!("resumed by {user}"), effects);
                Ok(Answer::Acted(0))
            }
            Action::AddWindow { node, window } => self.add_window(at, user, &node, window, effects),
            Action::DropWindows { node } => {
                let id = self.named(&node)?;
                let count = std::mem::take(&mut self.node_mut(id).windows).len();
                self.serve(
                    at,
                    id,
                    format!("{} dropped by {user}", things(count as u64, "window")),
                    effects,
                );
                Ok(Answer::Acted(count as u32))
            }
            Action::Forget { node } => self.forget_node(at, user, &node, effects),
        }
    }

    fn requeue_live(
        &mut self,
        at: At,
        user: &str,
        id: JobId,
        indices: Option<&IndexSet>,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer, Reject> {
        let job = self.open_job(id)?;
        let count = if job.is_gang() {
            self.stop_gang(at, id, AfterStop::Again, effects)
        } else {
            let wanted = |index: &u32| indices.is_none_or(|some| some.contains(*index));
            let live: Vec<u32> = job.tasks.keys().copied().filter(wanted).collect();
            let stopped = live
                .into_iter()
                .filter(|index| self.stop_task(at, id.task(*index), AfterStop::Again, effects));
            stopped.count() as u32
        };
        if count > 0 {
            let sentence = format!("{count} running tasks requeued by {user}");
            effects.push(note(at, Level::Note, Subject::Job(id), sentence));
        }
        Ok(Answer::Acted(count))
    }

    /// A job that has not ended.
    pub(crate) fn open_job(&self, id: JobId) -> Result<&crate::job::Job, Reject> {
        let job = self.known(id)?;
        let state = job.state();
        if state.is_ended() {
            let sentence = format!("{id} has ended already, as {}", state.word());
            return Err(Reject::new(RejectKind::State, sentence));
        }
        Ok(job)
    }

    pub(crate) fn named(&self, node: &str) -> Result<NodeId, Reject> {
        self.names.get(node).copied().ok_or_else(|| {
            Reject::not_found(format!(
                "there is no node {node:?}; known are: {}",
                self.node_names()
            ))
        })
    }

    fn add_window(
        &mut self,
        at: At,
        user: &str,
        node: &str,
        window: Window,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer, Reject> {
        check_reason(&window.reason)?;
        let id = self.named(node)?;
        if window.until <= window.from || window.until <= at {
            return Err(Reject::invalid(
                "the window ends before it begins, or has passed; give a later end",
            ));
        }
        let here = self.node_mut(id);
        if here.windows.len() >= limits::WINDOWS_MAX {
            return Err(Reject::new(
                RejectKind::Busy,
                format!("{node} has {} windows already; clear them first", limits::WINDOWS_MAX),
            ));
        }
        let sentence = format!("maintenance planned by {user}: {}", window.reason);
        here.windows.push(window);
        here.windows.sort_by_key(|window| (window.from, window.until));
        self.serve(at, id, sentence, effects);
        Ok(Answer::Acted(0))
    }

    /// A node's service has changed: it is looked at again, and said.
    fn serve(&mut self, at: At, id: NodeId, sentence: String, effects: &mut Vec<Effect>) {
        let name = self.node(id).name().to_owned();
        effects.push(note(at, Level::Note, Subject::Node(name), sentence));
        self.has_changed(id);
        // What waits may name this node as its reason.
        self.queue.reopen();
        self.look_at_node(at, id, effects);
    }
}

fn check_reason(reason: &str) -> Result<(), Reject> {
    let length = reason.chars().count();
    if length == 0 || length > limits::REASON_CHARACTERS_MAX {
        return Err(Reject::invalid(format!(
            "the reason has {length} characters; 1 to {} are allowed, say why in a few words",
            limits::REASON_CHARACTERS_MAX
        )));
    }
    if reason.chars().any(char::is_control) {
        return Err(Reject::invalid("the reason contains a control character"));
    }
    Ok(())
}
