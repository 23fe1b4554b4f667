//! The palette: every action by its word, completed as one types, each with what it would mean now.
//!
//! A line is a verb, its targets and its value: `drain dgx-01 fan broken`, `cancel j12 j13`,
//! `priority 50 j12`. Without targets what is marked or chosen is meant; a name may end in `*`.

use super::keys::Action;
use super::steer::{Choice, FOR_JOBS, FOR_NODES, Plan, TARGETS_MAX, Targets, Tone};
use super::{App, View};

/// Characters of a line.
pub const LINE_MAX: usize = 160;
/// Lines that are remembered.
const HISTORY_MAX: usize = 50;
/// Entries that are made of one line.
const ENTRIES_MAX: usize = 40;

/// The palette while it is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Palette {
    /// What has been typed.
    pub typed: String,
    /// Which entry is chosen.
    pub at: usize,
    /// How many lines back in the history.
    pub back: usize,
}

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Does {
    /// Ask whether to carry this out.
    Plan(Plan),
    /// Submit a job once more, when what was submitted is known.
    Again(gantry_model::JobId),
    /// What a key does.
    Key(Action),
    /// Show this.
    Go(View),
    /// Choose a node.
    Node(String),
    /// Filter by this.
    Filter(String),
    /// Nothing yet: more has to be typed.
    Type,
}

/// One line of the palette.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What Tab makes of the typed line.
    pub line: String,
    /// How keys do the same.
    pub keys: String,
    /// What it means now.
    pub means: String,
    /// What it does.
    pub does: Does,
}

/// Words that do what keys do.
const KEYS: [(&str, Action, &str); 21] = [
    ("overview", Action::Overview, "go to the overview"),
    ("nodes", Action::Nodes, "go to the nodes"),
    ("gpus", Action::Gpus, "go to the gpus"),
    ("jobs", Action::Jobs, "go to the jobs"),
    ("data", Action::Data, "go to the data"),
    ("events", Action::Events, "go to the events"),
    ("rejects", Action::Rejects, "what was set aside, and why"),
    ("add", Action::AddData, "take images into the library"),
    ("verify", Action::Verify, "check every byte of the library"),
    ("label", Action::NextCase, "the case that wants a person's look most"),
    ("why", Action::Why, "why the chosen job waits"),
    ("sort", Action::Sort, "sort by the next column"),
    ("reverse", Action::Reverse, "turn the order round"),
    ("freeze", Action::Freeze, "freeze the screen, or go on"),
    ("live", Action::Live, "live again"),
    ("privacy", Action::Privacy, "hide users and names, or show them"),
    ("mouse", Action::Mouse, "mouse on, off"),
    ("export", Action::Export, "write the screen to a file"),
    ("help", Action::Help, "the keys"),
    ("redraw", Action::Redraw, "draw again"),
    ("quit", Action::Quit, "leave the console"),
];

impl App {
    /// What the palette offers for what is typed.
    #[must_use]
    pub fn entries(&self, typed: &str) -> Vec<Entry> {
        let typed = typed.trim_start();
        let (verb, rest) = typed.split_once(' ').unwrap_or((typed, ""));
        let mut entries = Vec::new();
        if !typed.contains(' ') {
            for (word, action, means) in KEYS.iter().filter(|(word, ..)| word.starts_with(verb)) {
                let keys = self.keymap.key_of(self.contexts(), *action).unwrap_or_default();
                entries.push(Entry {
                    line: (*word).to_owned(),
                    keys: keys.to_owned(),
                    means: (*means).to_owned(),
                    does: Does::Key(*action),
                });
            }
        }
        for (view, choices) in [("Jobs", &FOR_JOBS[..]), ("Nodes", &FOR_NODES[..])] {
            for choice in choices.iter().filter(|choice| choice.verb.starts_with(verb)) {
                self.offer(choice, view, typed.contains(' ').then_some(rest), &mut entries);
            }
        }
        if "goto".starts_with(verb) {
            self.offer_places(rest, &mut entries);
        }
        if "filter".starts_with(verb) {
            let means =
                if rest.is_empty() { "words, field:value, !not" } else { "show only these" };
            entries.push(Entry {
                line: format!("filter {rest}"),
                keys: "/".into(),
                means: means.into(),
                does: Does::Filter(rest.to_owned()),
            });
        }
        // Deeds come first where the line is more than a verb; what starts with it, in any case.
        entries.truncate(ENTRIES_MAX);
        entries
    }

    /// The entries of a deed: for what is marked, or for each name that fits what is typed.
    fn offer(&self, choice: &Choice, view: &str, rest: Option<&str>, entries: &mut Vec<Entry>) {
        let keys = format!("{view} x {}", choice.key);
        let Some(rest) = rest else {
            let means = choice.words.to_owned();
            let line = format!("{} ", choice.verb);
            entries.push(Entry { line, keys, means, does: Does::Type });
            return;
        };
        let of_jobs = view == "Jobs";
        // A value goes before the jobs it is for; a reason behind the nodes.
        let (value, names) = match choice.value {
            Some(_) if of_jobs => rest.split_once(' ').unwrap_or((rest, "")),
            _ => ("", rest),
        };
        let mut words: Vec<&str> = names.split(' ').collect();
        let last = words.pop().unwrap_or_default();
        let (mut named, mut reason) = (Vec::new(), Vec::new());
        for word in &words {
            let known = self.matching(word, of_jobs);
            if known.is_empty() || !reason.is_empty() {
                reason.push(*word);
            } else {
                named.extend(known);
            }
        }
        let prefix = |word: &str| match value {
            "" => format!("{} {word}", choice.verb),
            _ => format!("{} {value} {word}", choice.verb),
        };
        // A name is being typed: each that begins so, and all of them where it ends in a star.
        let completes = reason.is_empty() && !last.is_empty();
        let fits = if completes { self.matching(last, of_jobs) } else { Vec::new() };
        if last.ends_with('*') && fits.len() > 1 {
            let all = named.iter().chain(&fits).cloned().collect();
            entries.push(self.entry(choice, &keys, &prefix(names), value, "", all, of_jobs));
        } else if completes && !fits.is_empty() {
            for fit in fits.into_iter().take(ENTRIES_MAX) {
                let mut all = named.clone();
                all.push(fit);
                let line = prefix(&all.join(" "));
                entries.push(self.entry(choice, &keys, &line, value, "", all, of_jobs));
            }
        } else {
            if !last.is_empty() {
                reason.push(last);
            }
            let reason = reason.join(" ");
            if named.is_empty() {
                named = self.meant(of_jobs);
            }
            let line = format!(
                "{}{}{reason}",
                prefix(&named.join(" ")),
                if reason.is_empty() { "" } else { " " }
            );
            entries.push(self.entry(choice, &keys, &line, value, &reason, named, of_jobs));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what was typed, taken apart")]
    fn entry(
        &self,
        choice: &Choice,
        keys: &str,
        line: &str,
        value: &str,
        reason: &str,
        names: Vec<String>,
        of_jobs: bool,
    ) -> Entry {
        let entry = |means: String, does| Entry {
            line: line.to_owned(),
            keys: keys.to_owned(),
            means,
            does,
        };
        let mut names = names;
        names.sort();
        names.dedup();
        if names.is_empty() {
            return entry("name one, or choose a row".into(), Does::Type);
        }
        if names.len() > TARGETS_MAX {
            return entry(format!("{} are too many at once", names.len()), Does::Type);
        }
        let targets = if of_jobs {
            Targets::Jobs(names.iter().filter_map(|name| name.parse().ok()).collect())
        } else {
            Targets::Nodes(names)
        };
        if let (Targets::Jobs(jobs), "again") = (&targets, choice.verb) {
            return match jobs.as_slice() {
                [one] => entry(choice.words.to_owned(), Does::Again(*one)),
                _ => entry("one at a time".into(), Does::Type),
            };
        }
        let typed = if of_jobs { value } else { reason };
        match Plan::of(choice.verb, typed, targets) {
            Ok(Some(plan)) => entry(self.means(&plan), Does::Plan(plan)),
            Ok(None) => entry(String::new(), Does::Type),
            Err(sentence) => match choice.value {
                Some(value) if typed.is_empty() => entry(format!("then {value}"), Does::Type),
                _ => entry(sentence, Does::Type),
            },
        }
    }

    /// What a plan means, in a few words.
    fn means(&self, plan: &Plan) -> String {
        let lines = plan.consequences(self);
        let most = lines.iter().filter(|line| line.tone != Tone::Dim && !line.text.is_empty());
        let mut means =
            most.min_by_key(|line| line.rank).map_or_else(String::new, |line| line.text.clone());
        if plan.word(self.update.as_deref()).is_some() {
            means.push_str(": asks for a word");
        }
        means
    }

    fn offer_places(&self, rest: &str, entries: &mut Vec<Entry>) {
        let mut place = |name: String, keys: &str, means: &str, does| {
            let (keys, means) = (keys.to_owned(), means.to_owned());
            entries.push(Entry { line: format!("goto {name}"), keys, means, does });
        };
        if rest.is_empty() {
            place(String::new(), "", "open a job or a node", Does::Type);
            return;
        }
        for job in self.matching(rest, true).into_iter().take(8) {
            if let Ok(id) = job.parse() {
                place(job, "Jobs Enter", "open the job", Does::Go(View::Job(id)));
            }
        }
        for node in self.matching(rest, false).into_iter().take(8) {
            place(node.clone(), "Nodes", "choose the node", Does::Node(node));
        }
    }

    /// The names of jobs or nodes on this screen that begin so; one that is typed whole is known
    /// even where the screen does not list it.
    fn matching(&self, word: &str, jobs: bool) -> Vec<String> {
        if word.is_empty() {
            return Vec::new();
        }
        let all = word.strip_suffix('*');
        let start = all.unwrap_or(word);
        let update = self.update.as_deref();
        let known: Vec<String> = if jobs {
            let rows = update.into_iter().flat_map(|update| &update.jobs);
            rows.filter(|row| !row.state.is_ended() || all.is_none())
                .map(|row| row.job.to_string())
                .collect()
        } else {
            let rows = update.into_iter().flat_map(|update| &update.nodes);
            rows.map(|node| node.row.facts.name.clone()).collect()
        };
        if known.iter().any(|name| name == word) {
            return vec![word.to_owned()];
        }
        let fits: Vec<String> = known.into_iter().filter(|name| name.starts_with(start)).collect();
        if fits.is_empty()
            && jobs
            && word.parse::<gantry_model::JobId>().is_ok()
            && word.starts_with('j')
        {
            return vec![word.to_owned()];
        }
        fits
    }

    /// What is meant where nothing is named.
    fn meant(&self, jobs: bool) -> Vec<String> {
        match self.targets() {
            Some(targets) if matches!(targets, Targets::Jobs(_)) == jobs => targets.names(),
            _ => Vec::new(),
        }
    }

    /// Keeps a line that was carried out.
    pub(super) fn remember(&mut self, line: &str) {
        let line = line.trim().to_owned();
        self.history.retain(|known| *known != line);
        self.history.push(line);
        let old = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..old);
    }
}
