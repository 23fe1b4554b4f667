//! From one screen to another and back.

use super::{Action, App, Effect, FILTER_MAX, LAID_OVER_MAX, View};

/// Views that are gone back through.
const BEFORE_MAX: usize = 16;

impl App {
    pub(super) fn go(&mut self, view: View, effects: &mut Vec<Effect>) {
        if self.view == view {
            return;
        }
        // An image that was left is not there to come back to.
        if self.view != View::Image {
            self.before.push(self.view);
        }
        if self.before.len() > BEFORE_MAX {
            self.before.remove(0);
        }
        self.show(view, effects);
    }

    fn show(&mut self, view: View, effects: &mut Vec<Effect>) {
        let from = std::mem::replace(&mut self.view, view);
        if from == View::Image {
            self.close_image(effects);
        }
        self.frozen = false;
        self.older.forget();
        (self.top, self.sideways, self.log.back) = (0, 0, 0);
        if let View::Job(job) = view {
            self.job = Some(job);
            self.log.open(job);
            self.laid_over.retain(|other| *other != job);
        }
        if from.scope() != view.scope() {
            effects.push(Effect::Watch(view.scope()));
        }
        self.keep_choice();
    }

    pub(super) fn go_back(&mut self, effects: &mut Vec<Effect>) {
        match self.before.pop() {
            Some(view) => self.show(view, effects),
            None => self.say("this is the first view"),
        }
    }

    pub(super) fn open(&mut self, effects: &mut Vec<Effect>) {
        match self.view {
            View::Overview => self.go(View::Nodes, effects),
            View::Nodes => self.jobs_here(effects),
            View::Gpus => {
                let line = self.list_at().and_then(|at| self.gpus.gpu(at));
                match line.and_then(|line| line.row.job) {
                    Some(job) => self.go(View::Job(job), effects),
                    None => self.say("no job holds it"),
                }
            }
            View::Events => self.open_subject(effects),
            View::Image => {}
            View::Jobs | View::Data | View::Job(_) => match self.job {
                Some(job) => {
                    // The curves of what is marked lie over those of the one that is opened.
                    let marked = self.marked.iter().copied().filter(|other| *other != job);
                    self.laid_over = marked.take(LAID_OVER_MAX).collect();
                    self.go(View::Job(job), effects);
                }
                None => self.say("no job is chosen"),
            },
        }
    }

    fn open_subject(&mut self, effects: &mut Vec<Effect>) {
        let rows = self.events.shown(self.filter());
        let chosen = rows.iter().find(|row| Some(row.number) == self.event);
        match chosen.map(|row| row.note.subject.clone()) {
            Some(gantry_model::Subject::Node(name)) => self.choose_node(name, effects),
            Some(gantry_model::Subject::Job(job)) => self.go(View::Job(job), effects),
            Some(gantry_model::Subject::Task(task)) => self.go(View::Job(task.job), effects),
            Some(gantry_model::Subject::Cluster) => self.say("it is about the cluster as a whole"),
            None => self.say("no line is chosen"),
        }
    }

    pub(super) fn choose_node(&mut self, name: String, effects: &mut Vec<Effect>) {
        self.node = Some(name);
        self.filters[View::Nodes.tab()].clear();
        self.go(View::Nodes, effects);
    }

    /// From a node to the jobs on it.
    pub(super) fn jobs_here(&mut self, effects: &mut Vec<Effect>) {
        let Some(node) = self.node.clone() else { return };
        self.filters[View::Jobs.tab()] = format!("node:{node}").chars().take(FILTER_MAX).collect();
        self.go(View::Jobs, effects);
    }

    pub(super) fn back(&mut self, action: Action, effects: &mut Vec<Effect>) {
        if self.view == View::Image {
            let before = self.before.pop().unwrap_or(View::Data);
            self.show(before, effects);
        } else if self.searches() {
            if action == Action::Back && !self.log.search.is_empty() {
                self.log.search.clear();
            } else {
                let before = self.before.pop().unwrap_or(View::Jobs);
                self.show(before, effects);
            }
        } else if action == Action::QuitOrBack {
            effects.push(Effect::Quit { keep_frame: false });
        } else if self.marked.is_empty() && self.marked_nodes.is_empty() {
            self.set_filter(String::new());
        } else {
            self.marked.clear();
            self.marked_nodes.clear();
        }
    }
}
