//! What a recording asks beside the pictures: what a console that looks at these screens asks too, so
//! that a replay can answer. Of each question the newest answer is kept, and written only where it is
//! another one than before. Outputs are different: their pieces join, and what a job had printed before
//! the recording is asked for once, as far back as [`PAGES_MAX`] pieces reach.

use std::collections::BTreeMap;

use gantry_model::{JobId, JobState, Subject};
use gantry_wire::codec::{self, VALUE_BYTES_MAX};
use gantry_wire::{NotePlace, NoteQuery, Output, Reply, Request, Scope, Update};

use crate::app::asks::TO_THE_END;
use crate::app::{Gpus, Log};

/// Jobs that are asked about: the newest ones.
const JOBS_MAX: usize = 32;
/// Nodes that are asked about.
const NODES_MAX: usize = 32;
/// Pages of a list that are asked for.
const PAGES_MAX: usize = 16;
/// Looks between two at what changes slowly, or takes much room: the past of GPUs.
const SELDOM: u64 = 4;
/// Questions whose answers are known.
const ANSWERS_MAX: usize = 4_096;
/// Jobs whose outputs a replay joins, each up to the megabyte that a console keeps.
const OUTPUTS_MAX: usize = 64;
/// Bytes of all answers that a replay keeps.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What is asked of a job.
#[derive(Clone, Copy, Debug)]
struct Asked {
    waits: bool,
    gpus: bool,
    several: bool,
    /// How often it was asked about. With the first time goes what it had printed before.
    times: u32,
    /// Looks since its end was seen.
    ended: Option<u32>,
}

/// What is to be asked, and what was answered last.
#[derive(Debug, Default)]
pub(super) struct Questions {
    looks: u64,
    jobs: BTreeMap<JobId, Asked>,
    nodes: Vec<String>,
    /// The last node of the picture, where the cluster has more.
    behind: Option<String>,
    written: BTreeMap<Vec<u8>, u32>,
}

impl Questions {
    /// Learns from a picture what there is to ask about.
    pub(super) fn look_at(&mut self, scope: Scope, update: &Update) {
        match scope {
            Scope::Jobs => {
                let before = std::mem::take(&mut self.jobs);
                for row in update.jobs.iter().take(JOBS_MAX) {
                    let known = before.get(&row.job);
                    let looks = known.and_then(|job| job.ended);
                    let asked = Asked {
                        waits: row.state == JobState::Wait,
                        gpus: row.resources.gpus > 0 && row.tasks.run > 0,
                        several: row.tasks.total() > 1,
                        times: known.map_or(0, |job| job.times),
                        ended: row.state.is_ended().then(|| looks.unwrap_or(0)),
                    };
                    self.jobs.insert(row.job, asked);
                }
            }
            Scope::Nodes => {
                let name = |node: &gantry_wire::NodeStatus| node.row.facts.name.clone();
                self.nodes = update.nodes.iter().take(NODES_MAX).map(name).collect();
                let all = update.nodes.len() >= update.summary.nodes as usize;
                self.behind = update.nodes.last().filter(|_| !all).map(name);
            }
            _ => {}
        }
    }

    /// What to ask now, and of how many pages. What has ended is asked about twice more, since its last
    /// words may come late.
    pub(super) fn due(&mut self) -> Vec<(Request, usize)> {
        let seldom = self.looks.is_multiple_of(SELDOM);
        self.looks += 1;
        let mut due = Vec::new();
        let mut ask = |request| due.push((request, PAGES_MAX));
        ask(Request::Gpus { after: None, job: None });
        ask(Request::Notes { query: NoteQuery::default() });
        if let Some(after) = self.behind.clone() {
            ask(Request::Nodes { after: Some(after) });
        }
        for (job, asked) in &mut self.jobs {
            let job = *job;
            if let Some(looks) = &mut asked.ended {
                *looks += 1;
                if *looks > 2 {
                    continue;
                }
            }
            let mut ask = |request| due.push((request, PAGES_MAX));
            ask(Request::Spec { job });
            ask(Request::Metrics { job });
            if asked.several {
                ask(Request::Tasks { job, from: 0 });
            }
            if asked.waits {
                ask(Request::Why { job, indices: None });
            }
            if asked.gpus {
                ask(Request::Gpus { after: None, job: Some(job) });
            }
            let pages = if asked.times == 0 { PAGES_MAX } else { 1 };
            asked.times = asked.times.saturating_add(1);
            due.push((Request::Output { task: job.task(0), offset: TO_THE_END }, pages));
        }
        if seldom {
            let look = Gpus::default();
            for node in &self.nodes {
                let subject = Some(Subject::Node(node.clone()));
                let query = NoteQuery { subject, ..NoteQuery::default() };
                due.push((Request::Notes { query }, PAGES_MAX));
                let series = Request::Series {
                    node: node.clone(),
                    quantities: vec![look.metric.quantity()],
                    span: look.span(),
                    cells: look.cells(),
                };
                due.push((series, PAGES_MAX));
            }
        }
        due
    }

    /// Whether an answer is to be written: it is another one than the last to this question.
    pub(super) fn is_new(&mut self, request: &Request, reply: &Reply) -> bool {
        let (Ok(key), Ok(body)) = (codec::encode(request), codec::encode(reply)) else {
            return false;
        };
        if matches!(reply, Reply::Refused(_)) || body.len() > VALUE_BYTES_MAX {
            return false;
        }
        if self.written.len() >= ANSWERS_MAX && !self.written.contains_key(&key) {
            return false;
        }
        let sum = crc32fast::hash(&body);
        self.written.insert(key, sum) != Some(sum)
    }
}

/// The request for the page behind one, where there is one.
pub(super) fn next_page(request: &Request, reply: &Reply) -> Option<Request> {
    match (request, reply) {
        (Request::Gpus { job, .. }, Reply::Gpus(page)) if page.more => {
            let after = Some(page.nodes.last()?.name.clone());
            Some(Request::Gpus { after, job: *job })
        }
        (Request::Nodes { .. }, Reply::Nodes { rows, more: true }) => {
            Some(Request::Nodes { after: Some(rows.last()?.row.facts.name.clone()) })
        }
        (Request::Tasks { job, .. }, Reply::Tasks { rows, more: true }) => {
            Some(Request::Tasks { job: *job, from: rows.last()?.task.index + 1 })
        }
        // What was printed before.
        (Request::Output { task, .. }, Reply::Output(output)) => {
            let start = output.next.saturating_sub(output.bytes.len() as u64);
            let offset = start.saturating_sub(Output::PIECE_BYTES);
            (start > 0).then_some(Request::Output { task: *task, offset })
        }
        _ => None,
    }
}

/// The newest answers of a recording.
#[derive(Debug, Default)]
pub(super) struct Answers {
    known: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: usize,
    outputs: BTreeMap<JobId, Log>,
}

impl Answers {
    /// Keeps an answer; not more of them than there is room for.
    pub(super) fn keep(&mut self, request: &Request, reply: &Reply) {
        if let (Request::Output { task, offset }, Reply::Output(output)) = (request, reply) {
            self.hear(task.job, output);
            if *offset != TO_THE_END {
                return;
            }
        }
        let (Ok(key), Ok(body)) = (codec::encode(request), codec::encode(reply)) else { return };
        let before = self.known.get(&key).map_or(0, Vec::len);
        let bytes = self.bytes - before + body.len();
        let room = self.known.len() < ANSWERS_MAX || before > 0;
        if room && bytes <= ANSWER_BYTES_MAX {
            self.known.insert(key, body);
            self.bytes = bytes;
        }
    }

    /// Joins a piece of a job's output to those before.
    pub(super) fn hear(&mut self, job: JobId, output: &Output) {
        if self.outputs.len() < OUTPUTS_MAX || self.outputs.contains_key(&job) {
            self.outputs.entry(job).or_default().take_piece(job, output);
        }
    }

    /// The answer to a question: to the same one, what lies behind a line of the event log, or a piece
    /// of an output.
    pub(super) fn of(&self, request: &Request) -> Option<Reply> {
        if let Request::Notes { query: query @ NoteQuery { place: NotePlace::Behind(last), .. } } =
            request
        {
            let query = NoteQuery { place: NotePlace::Newest, ..query.clone() };
            let Some(Reply::Notes(mut page)) = self.of(&Request::Notes { query }) else {
                return None;
            };
            page.rows.retain(|row| row.number > *last);
            return Some(Reply::Notes(page));
        }
        if let Request::Output { task, offset } = request
            && *offset != TO_THE_END
        {
            return self.outputs.get(&task.job)?.piece(*offset).map(Reply::Output);
        }
        let body = self.known.get(&codec::encode(request).ok()?)?;
        codec::decode(body).ok()
    }

    /// Adds to the picture of a job that was not watched what was answered about it: its curves and the
    /// end of its output.
    pub(super) fn add_to(&self, job: JobId, update: &mut Update) {
        if let Some(Reply::Metrics(metrics)) = self.of(&Request::Metrics { job }) {
            update.metrics = metrics;
        }
        let task = job.task(0);
        let output = self.of(&Request::Output { task, offset: TO_THE_END });
        if let Some(Reply::Output(output)) = output {
            update.output = Some(output);
        }
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::{At, JobRow, Level, NodeFacts, NodeRow, Note, Summary, TaskCounts};
    use gantry_wire::{NodeStatus, NotePage, NoteRow};

    use super::*;

    fn update(jobs: Vec<JobRow>, nodes: &[&str], all: u32) -> Update {
        let node = |name: &&str| NodeStatus {
            row: NodeRow {
                facts: NodeFacts { name: (*name).into(), ..NodeFacts::default() },
                ..NodeRow::default()
            },
            sample: None,
            sampled: None,
        };
        Update {
            at: At(1),
            cluster: "a".into(),
            summary: Summary { nodes: all, ..Summary::default() },
            nodes: nodes.iter().map(node).collect(),
            busy_permille: Vec::new(),
            gpu_busy_permille: Vec::new(),
            gpu_power_w: Vec::new(),
            owners: Vec::new(),
            jobs,
            metrics: Vec::new(),
            output: None,
            notes: Vec::new(),
        }
    }

    fn job(number: u64, state: JobState, total: u32) -> JobRow {
        let tasks = TaskCounts { run: total, ..TaskCounts::default() };
        JobRow { job: JobId(number), state, tasks, ..JobRow::default() }
    }

    /// How often each kind is asked.
    fn kinds(due: &[(Request, usize)]) -> String {
        let mut counted: BTreeMap<&str, u32> = BTreeMap::new();
        for (request, _) in due {
            let kind = match request {
                Request::Gpus { .. } => "gpus",
                Request::Notes { .. } => "notes",
                Request::Nodes { .. } => "nodes",
                Request::Spec { .. } => "spec",
                Request::Metrics { .. } => "metrics",
                Request::Output { .. } => "output",
                Request::Tasks { .. } => "tasks",
                Request::Why { .. } => "why",
                Request::Series { .. } => "series",
                _ => "other",
            };
            *counted.entry(kind).or_default() += 1;
        }
        let words = counted.iter().map(|(kind, count)| format!("{kind} {count}"));
        words.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_the_screens_show_is_asked_and_what_has_ended_no_more() {
        let mut questions = Questions::default();
        assert_eq!(kinds(&questions.due()), "gpus 1, notes 1");
        let mut gpus = job(4, JobState::Run, 1);
        gpus.resources.gpus = 2;
        let jobs = vec![gpus, job(3, JobState::Wait, 9), job(2, JobState::Done, 1)];
        let jobs = update(jobs, &[], 0);
        questions.look_at(Scope::Jobs, &jobs);
        questions.look_at(Scope::Nodes, &update(Vec::new(), &["a", "b"], 5));
        let all = "metrics 3, nodes 1, notes 1, output 3, spec 3, tasks 1, why 1";
        let two = "metrics 2, nodes 1, notes 1, output 2, spec 2, tasks 1, why 1";
        assert_eq!(kinds(&questions.due()), format!("gpus 2, {all}"));
        questions.look_at(Scope::Jobs, &jobs);
        assert_eq!(kinds(&questions.due()), format!("gpus 2, {all}"));
        assert_eq!(kinds(&questions.due()), format!("gpus 2, {two}"));
        let seldom =
            two.replace("notes 1", "notes 3").replace("output 2, ", "output 2, series 2, ");
        let found = kinds(&questions.due());
        let sorted = |text: &str| {
            let mut parts: Vec<String> = text.split(", ").map(str::to_owned).collect();
            parts.sort();
            parts
        };
        assert_eq!(sorted(&found), sorted(&format!("gpus 2, {seldom}")));
        // However many there are, some are asked about.
        let many = (0..500).map(|number| job(number, JobState::Run, 1)).collect();
        questions.look_at(Scope::Jobs, &update(many, &[], 0));
        questions.look_at(Scope::Nodes, &update(Vec::new(), &["a"; 500], 500));
        assert!(questions.due().len() <= 2 + 3 * JOBS_MAX + 2 * NODES_MAX);
    }

    fn output(text: &str) -> Reply {
        let bytes = text.as_bytes().to_vec();
        Reply::Output(Output { next: bytes.len() as u64, bytes, live: true })
    }

    #[test]
    fn an_answer_is_written_where_it_is_another_one() {
        let mut questions = Questions::default();
        let request = Request::Output { task: JobId(1).task(0), offset: TO_THE_END };
        for (reply, new) in
            [(output("a"), true), (output("a"), false), (output("ab"), true), (output("a"), true)]
        {
            assert_eq!(questions.is_new(&request, &reply), new, "{reply:?}");
        }
        let refused = Reply::Refused(gantry_model::Reject::invalid("no"));
        assert!(!questions.is_new(&Request::Spec { job: JobId(1) }, &refused));
    }

    fn notes(numbers: std::ops::RangeInclusive<u64>) -> Reply {
        let note = Note {
            at: At(1),
            level: Level::Info,
            subject: Subject::Job(JobId(1)),
            sentence: "started".into(),
        };
        let (first, last) = (*numbers.start(), *numbers.end());
        let rows = numbers.map(|number| NoteRow { number, note: note.clone() }).collect();
        Reply::Notes(NotePage { first, last, rows, more: false })
    }

    #[test]
    fn the_newest_answer_is_given_and_the_event_log_goes_on_where_one_is() {
        let mut answers = Answers::default();
        let newest = Request::Notes { query: NoteQuery::default() };
        assert_eq!(answers.of(&newest), None);
        answers.keep(&newest, &notes(1..=3));
        answers.keep(&newest, &notes(1..=5));
        assert_eq!(answers.of(&newest), Some(notes(1..=5)));
        let behind = |number| Request::Notes {
            query: NoteQuery { place: NotePlace::Behind(number), ..NoteQuery::default() },
        };
        for (number, rows) in [(0, 5), (3, 2), (5, 0)] {
            let Some(Reply::Notes(page)) = answers.of(&behind(number)) else { panic!("{number}") };
            assert_eq!(page.rows.len(), rows, "{number}");
        }
        let job = JobId(7);
        let mut picture = update(Vec::new(), &[], 0);
        answers.add_to(job, &mut picture);
        assert_eq!((picture.output.as_ref(), picture.metrics.len()), (None, 0));
        let asked = Request::Output { task: job.task(0), offset: TO_THE_END };
        answers.keep(&asked, &output("the end\n"));
        answers.add_to(job, &mut picture);
        assert_eq!(picture.output.map(|output| output.bytes), Some(b"the end\n".to_vec()));
    }

    #[test]
    fn pieces_of_an_output_join_and_what_was_printed_before_is_asked_for_once() {
        let mut questions = Questions::default();
        let row = job(7, JobState::Run, 1);
        let pages = |questions: &mut Questions| {
            questions.look_at(Scope::Jobs, &update(vec![row.clone()], &[], 0));
            let of = |(request, pages): &(Request, usize)| {
                matches!(request, Request::Output { .. }).then_some(*pages)
            };
            questions.due().iter().find_map(of)
        };
        assert_eq!((pages(&mut questions), pages(&mut questions)), (Some(PAGES_MAX), Some(1)));

        // A node with 100,000 bytes, whose end and all before it are asked for; more is printed later.
        let whole: Vec<u8> =
            (0..12_500).flat_map(|n: u32| format!("{n:07}\n").into_bytes()).collect();
        let piece = |from: usize, to: usize| Output {
            bytes: whole[from..to].to_vec(),
            next: to as u64,
            live: true,
        };
        let task = JobId(7).task(0);
        let mut answers = Answers::default();
        let mut next = Some(Request::Output { task, offset: TO_THE_END });
        while let Some(request) = next.take() {
            let Request::Output { offset, .. } = request else { panic!("{request:?}") };
            let from = if offset == TO_THE_END { 80_000 } else { offset as usize };
            let to = (from + Output::PIECE_BYTES as usize).min(88_000);
            let reply = Reply::Output(piece(from, to));
            answers.keep(&request, &reply);
            next = next_page(&request, &reply);
        }
        answers.hear(JobId(7), &piece(84_000, 100_000));
        // A picture that was taken before what was asked since, and is written later.
        answers.hear(JobId(7), &piece(79_000, 87_000));
        for offset in [0, 30_000, 60_000, 90_000] {
            let to = (offset + Output::PIECE_BYTES as usize).min(100_000);
            let asked = Request::Output { task, offset: offset as u64 };
            assert_eq!(answers.of(&asked), Some(Reply::Output(piece(offset, to))), "{offset}");
        }
        let other = Request::Output { task: JobId(8).task(0), offset: 0 };
        assert_eq!(answers.of(&other), None);
    }

    #[test]
    fn what_a_replay_keeps_is_bounded() {
        let mut answers = Answers::default();
        let large = "x".repeat(60_000);
        for number in 0..2_000 {
            let request = Request::Output { task: JobId(number).task(0), offset: TO_THE_END };
            answers.keep(&request, &output(&large));
        }
        assert!(answers.bytes <= ANSWER_BYTES_MAX && answers.known.len() < 2_000);
        assert_eq!(answers.outputs.len(), OUTPUTS_MAX);
        // What is known already is kept up to date all the same.
        let first = Request::Output { task: JobId(0).task(0), offset: TO_THE_END };
        answers.keep(&first, &output("short"));
        assert_eq!(answers.of(&first), Some(output("short")));
    }
}
