//! What keys do: the table says which action a key is, this carries it out.

use gantry_model::{At, JobId, JobSpec};

use super::gpus::Group;
use super::palette::Does;
use super::steer::{Deed, TARGETS_MAX};
use super::{
    About, Action, Again, App, Ask, Effect, FILTER_MAX, Key, Mouse, Overlay, Palette, Plan,
    Targets, View, asks, events, node_rows,
};

impl App {
    pub(super) fn key(&mut self, key: Key, effects: &mut Vec<Effect>) {
        if self.key_over(key, effects) {
            return;
        }
        let contexts = self.contexts();
        match (self.pending.take(), key) {
            (Some(first), Key::Char(second)) => {
                if let Some(action) = self.keymap.pair(contexts, first, second) {
                    self.act(action, effects);
                }
            }
            (_, Key::Char(c)) if self.keymap.is_prefix(contexts, c) => self.pending = Some(c),
            _ => {
                if let Some(action) = self.keymap.action(contexts, key) {
                    self.act(action, effects);
                }
            }
        }
    }

    pub(super) fn mouse(&mut self, mouse: Mouse, x: u16, y: u16, effects: &mut Vec<Effect>) {
        if self.overlay != Overlay::None {
            return;
        }
        if self.view == View::Image {
            match mouse {
                Mouse::WheelDown => self.act(Action::Down, effects),
                Mouse::WheelUp => self.act(Action::Up, effects),
                Mouse::Click => self.click_in_image(x, y, effects),
            }
            return;
        }
        match mouse {
            Mouse::WheelDown => self.choose(|at, _| at + 3),
            Mouse::WheelUp => self.choose(|at, _| at.saturating_sub(3)),
            Mouse::Click => {
                let before = self.list_at();
                // A click on what is chosen already opens it.
                if self.choose_at(x, y) && before == self.list_at() {
                    self.open(effects);
                }
            }
        }
    }

    pub(super) fn act(&mut self, action: Action, effects: &mut Vec<Effect>) {
        let here = match self.view {
            View::Image => self.act_on_image(action, effects),
            View::Data => self.act_on_data(action, effects),
            _ => false,
        };
        if here {
            return;
        }
        match action {
            Action::Down => self.choose(|at, _| at + 1),
            Action::Up => self.choose(|at, _| at.saturating_sub(1)),
            Action::HalfPageDown => self.choose(|at, half| at + half),
            Action::HalfPageUp => self.choose(usize::saturating_sub),
            Action::First => self.choose(|_, _| 0),
            Action::Last => self.choose(|_, _| usize::MAX),
            Action::Left | Action::Right => self.go_sideways(action == Action::Right),
            Action::Overview => self.go(View::Overview, effects),
            Action::Nodes => self.go(View::Nodes, effects),
            Action::Gpus => self.go(View::Gpus, effects),
            Action::Jobs => self.go(View::Jobs, effects),
            Action::Data => self.go(View::Data, effects),
            Action::Events => self.go(View::Events, effects),
            Action::ViewBefore => self.go_back(effects),
            Action::Open => self.open(effects),
            Action::JobsHere => self.jobs_here(effects),
            Action::Back | Action::QuitOrBack => self.back(action, effects),
            Action::NextPane => self.next_pane(),
            Action::Mark => self.mark(),
            Action::MarkAll => self.mark_all(),
            Action::Act => self.ask_what(),
            Action::Palette => self.overlay = Overlay::Palette(Palette::default()),
            Action::Copy => self.copy(effects),
            Action::Export => {
                let name = format!("{:?}", self.view).to_lowercase();
                let name = name.split('(').next().unwrap_or_default();
                effects.push(Effect::Export(format!("gantry-{name}")));
            }
            Action::SubmitAgain => match self.targets() {
                Some(Targets::Jobs(jobs)) if jobs.len() == 1 => self.submit_again(jobs[0], effects),
                _ => self.say("choose the one job that is to be submitted again"),
            },
            Action::Requeue => self.requeue(),
            Action::Why => self.ask_why(),
            Action::Filter => self.overlay = Overlay::Filter,
            Action::NextMatch | Action::MatchBefore => {
                // A log is read from its end: the next match is the one above.
                if !self.log.find(action == Action::NextMatch) {
                    self.say("no further line holds it");
                }
            }
            Action::Help => self.overlay = Overlay::Help(0),
            Action::Quit => effects.push(Effect::Quit { keep_frame: false }),
            Action::QuitAndKeep => effects.push(Effect::Quit { keep_frame: true }),
            Action::Rejects | Action::AddData | Action::Verify => {
                self.go(View::Data, effects);
                self.act_on_data(action, effects);
            }
            Action::NextCase => self.next_case(effects),
            other => self.look_differently(other, effects),
        }
    }

    /// Actions that change how something is looked at.
    fn look_differently(&mut self, action: Action, effects: &mut Vec<Effect>) {
        match action {
            Action::Sort => self.sort_by_next(),
            Action::Reverse => {
                self.reverse = !self.reverse;
                self.gpus.reverse = self.reverse;
                self.arrange_gpus();
            }
            Action::GroupNode => self.group(Group::Node),
            Action::GroupJob => self.group(Group::Job),
            Action::GroupUser => self.group(Group::User),
            Action::GroupNone => self.group(Group::None),
            Action::Metric => {
                self.gpus.metric = self.gpus.metric.next();
                self.forget_asked(|about| matches!(about, About::Strips(_)));
                self.say(format!("strips show {}", self.gpus.metric.word()));
            }
            Action::SpanLonger | Action::SpanShorter => {
                self.gpus.change_span(action == Action::SpanLonger);
                self.forget_asked(|about| matches!(about, About::Strips(_)));
                self.say(format!("strips reach back {}", self.gpus.span()));
            }
            Action::Sweep => self.gpus.sweep = !self.gpus.sweep,
            Action::Follow => {
                self.log.back = usize::from(self.log.back == 0 && !self.log.is_empty());
            }
            Action::ErrorsOnly => self.log.only_errors(!self.log.errors_only),
            Action::Wrap => self.log.wrap = !self.log.wrap,
            Action::Times => self.log.without_times = !self.log.without_times,
            Action::Freeze => {
                self.frozen = !self.frozen;
                self.say(if self.frozen { "frozen; z goes on" } else { "live again" });
            }
            Action::TimeBack => self.step_in_time(true),
            Action::TimeOn => self.step_in_time(false),
            Action::Live => self.live(),
            Action::Privacy => {
                self.privacy = !self.privacy;
                self.say(if self.privacy {
                    "users and names are hidden"
                } else {
                    "users and names are shown"
                });
            }
            Action::Mouse => {
                self.mouse = !self.mouse;
                effects.push(Effect::Mouse(self.mouse));
                self.say(if self.mouse {
                    "the mouse chooses rows; m gives it back to the terminal"
                } else {
                    "the mouse is the terminal's, to select and copy"
                });
            }
            Action::Redraw => effects.push(Effect::Redraw),
            Action::Suspend => effects.push(Effect::Suspend),
            _ => {}
        }
    }

    /// Whether the filter line searches a log instead.
    pub(super) const fn searches(&self) -> bool {
        matches!(self.view, View::Job(_))
    }

    pub(super) fn set_filter(&mut self, text: String) {
        if self.searches() {
            self.log.search = text;
        } else {
            self.filters[self.view.tab()] = text;
            self.arrange_gpus();
            if self.on_shelf() {
                self.arrange_shelf();
            }
            self.keep_choice();
        }
    }

    fn arrange_gpus(&mut self) {
        if self.view == View::Gpus {
            let filter = self.filter().to_owned();
            self.gpus.arrange(&filter);
            self.keep_choice();
        }
    }

    fn group(&mut self, group: Group) {
        self.gpus.group = group;
        self.arrange_gpus();
    }

    fn sort_by_next(&mut self) {
        let word = match self.view {
            View::Overview | View::Nodes => {
                self.node_sort = self.node_sort.next();
                self.node_sort.word()
            }
            View::Gpus => {
                self.gpus.sort = self.gpus.sort.next();
                self.arrange_gpus();
                self.gpus.sort.word()
            }
            View::Events => "time, newest first",
            View::Jobs | View::Data | View::Job(_) | View::Image => {
                self.sort = self.sort.next();
                self.sort.word()
            }
        };
        self.say(format!("sorted by {word}"));
    }

    fn go_sideways(&mut self, right: bool) {
        let step =
            |at: u16, by: u16| if right { (at + by).min(200) } else { at.saturating_sub(by) };
        if self.searches() {
            self.log.sideways = step(self.log.sideways, 8);
        } else {
            self.sideways = step(self.sideways, 1).min(12);
        }
    }

    fn next_pane(&mut self) {
        match self.view {
            View::Job(_) => self.log.only_errors(!self.log.errors_only),
            _ => self.say("this screen has one pane"),
        }
    }

    fn mark(&mut self) {
        match self.view {
            View::Overview | View::Nodes => {
                if let Some(node) = self.node.clone()
                    && !self.marked_nodes.remove(&node)
                    && self.marked_nodes.len() < TARGETS_MAX
                {
                    self.marked_nodes.insert(node);
                }
            }
            View::Gpus | View::Events | View::Job(_) | View::Image => {
                return self.say("jobs and nodes are marked, on their own screens");
            }
            View::Jobs | View::Data => {
                let Some(job) = self.job else { return };
                let alive = self.jobs().iter().any(|row| row.job == job && !row.state.is_ended());
                if !self.marked.remove(&job) && self.marked.len() < TARGETS_MAX {
                    if alive {
                        self.marked.insert(job);
                    } else {
                        self.say(format!("{job} has ended already"));
                    }
                }
            }
        }
        self.choose(|at, _| at + 1);
    }

    fn mark_all(&mut self) {
        if matches!(self.view, View::Overview | View::Nodes) {
            let names: Vec<String> =
                node_rows(self).iter().map(|node| node.row.facts.name.clone()).collect();
            if names.iter().all(|name| self.marked_nodes.contains(name)) {
                self.marked_nodes.clear();
            } else {
                self.marked_nodes.extend(names.into_iter().take(TARGETS_MAX));
            }
            return;
        }
        if !matches!(self.view, View::Jobs | View::Data) {
            return self.say("jobs and nodes are marked, on their own screens");
        }
        let alive: Vec<JobId> =
            self.jobs().iter().filter(|row| !row.state.is_ended()).map(|row| row.job).collect();
        if alive.iter().all(|job| self.marked.contains(job)) {
            self.marked.clear();
        } else {
            self.marked.extend(alive.into_iter().take(TARGETS_MAX));
        }
    }

    fn copy(&mut self, effects: &mut Vec<Effect>) {
        let id = match self.view {
            View::Overview | View::Nodes => self.node.clone(),
            View::Gpus => self.gpu.as_ref().map(|(node, index)| format!("{node}:{index}")),
            View::Events => {
                let rows = self.events.shown(self.filter());
                let chosen = rows.iter().find(|row| Some(row.number) == self.event);
                chosen.map(|row| format!("{} {}", row.note.subject, row.note.sentence))
            }
            View::Jobs | View::Data | View::Job(_) => self.job.map(|job| job.to_string()),
            View::Image => None,
        };
        if let Some(id) = id {
            self.say(format!("copied {id}"));
            effects.push(Effect::Copy(id));
        }
    }

    /// To what something is done on this screen: what is marked, or what is chosen.
    #[must_use]
    pub fn targets(&self) -> Option<Targets> {
        let jobs = |jobs: Vec<JobId>| (!jobs.is_empty()).then_some(Targets::Jobs(jobs));
        match self.view {
            View::Overview | View::Nodes => {
                let nodes: Vec<String> = if self.marked_nodes.is_empty() {
                    self.node.iter().cloned().collect()
                } else {
                    self.marked_nodes.iter().cloned().collect()
                };
                (!nodes.is_empty()).then_some(Targets::Nodes(nodes))
            }
            View::Gpus => {
                let line = self.list_at().and_then(|at| self.gpus.gpu(at));
                jobs(line.and_then(|line| line.row.job).into_iter().collect())
            }
            View::Data if self.on_shelf() => self.models_meant(),
            View::Jobs | View::Data if !self.marked.is_empty() => {
                jobs(self.marked.iter().rev().copied().collect())
            }
            View::Jobs | View::Data | View::Job(_) => jobs(self.job.into_iter().collect()),
            View::Events | View::Image => None,
        }
    }

    fn ask_what(&mut self) {
        match self.targets() {
            _ if self.read_only => self.say("this console is read-only"),
            Some(targets) => self.overlay = Overlay::Menu { targets, at: 0 },
            None => self.say("nothing is chosen that something can be done to"),
        }
    }

    fn requeue(&mut self) {
        let Some(Targets::Jobs(jobs)) = self.targets() else { return self.say("no job is chosen") };
        let plan = Plan { deed: Deed::Requeue, targets: Targets::Jobs(jobs) };
        self.ask_whether(plan);
    }

    fn ask_why(&mut self) {
        let Some(job) = self.job else { return self.say("no job is chosen") };
        self.forget_asked(|about| matches!(about, About::Why(_)));
        self.overlay = Overlay::Why { job, top: 0 };
    }

    /// Asks what was submitted; the question whether comes with the answer.
    pub(super) fn submit_again(&mut self, job: JobId, effects: &mut Vec<Effect>) {
        if self.read_only {
            return self.say("this console is read-only");
        }
        let request = Box::new(gantry_wire::Request::Spec { job });
        effects.push(Effect::Ask(Ask { about: About::Spec(job, Again::Yes), request }));
        self.say(format!("asking what {job} was"));
    }

    pub(super) fn spec_answered(&mut self, job: JobId, again: Again, spec: Box<JobSpec>) {
        if again == Again::Yes && self.overlay == Overlay::None {
            let (deed, targets) = (Deed::Again(spec.clone()), Targets::Jobs(vec![job]));
            self.message = None;
            self.ask_whether(Plan { deed, targets });
        }
        asks::keep(&mut self.specs, job, spec);
    }

    /// Carries out what the palette offers.
    pub(super) fn carry_out(&mut self, does: Does, effects: &mut Vec<Effect>) {
        match does {
            Does::Plan(plan) => self.ask_whether(plan),
            Does::Again(job) => self.submit_again(job, effects),
            Does::Key(action) => self.act(action, effects),
            Does::Go(view) => self.go(view, effects),
            Does::Node(name) => self.choose_node(name, effects),
            Does::Filter(text) => self.set_filter(text.chars().take(FILTER_MAX).collect()),
            Does::Type => {}
        }
    }

    /// A step back in time, or on: an hour in the event log, elsewhere to the picture before.
    fn step_in_time(&mut self, back: bool) {
        if self.view == View::Events {
            let (now, step) = (self.now(), events::STEP);
            let at = self.events.until().unwrap_or(now);
            let until = if back { At(at.0.saturating_sub(step.0)) } else { at.after(step) };
            self.events.look_at(Some(until), now);
            self.forget_asked(|about| *about == About::Notes);
            self.event = None;
            return;
        }
        let scope = self.view.scope();
        let Some(update) = self.update.as_deref() else { return };
        let found =
            if back { self.past.before(scope, update) } else { self.past.after(scope, update) };
        match found {
            Some(then) => {
                self.frozen = true;
                self.update = Some(then);
                self.keep_choice();
            }
            None if back => self
                .say("nothing older is kept; the event log and gantry history reach back further"),
            None => self.live(),
        }
    }

    fn live(&mut self) {
        if self.view == View::Events {
            let now = self.now();
            self.events.look_at(None, now);
            self.forget_asked(|about| *about == About::Notes);
            self.event = None;
        }
        if self.frozen {
            self.frozen = false;
            self.say("live again");
        }
    }
}
