//! The jobs of a file on their way to the scheduler: all of them or none.
//!
//! Every job is submitted held, in an order in which those it waits for have their ids already, and
//! all are released once the last is accepted. Where one is refused, those before it are cancelled,
//! so that nothing of the file has started. Keys derive from one base and the job's name: the same
//! file with the same `--key` gives the same jobs, and finishes what a broken connection left.
//!
//! What only a library knows of built-in operations is filled in first.

mod fill;

use std::path::Path;

use gantry_config::jobs::JobFile;
use gantry_model::limits::{KEY_CHARACTERS_MAX, NAME_CHARACTERS_MAX};
use gantry_model::{Action, Builtin, DependencyScope, GpuPart, JobId, JobSpec, Work};
use gantry_wire::{Reply, Request};
use serde_json::{Value, json};

use super::chosen::Chosen;
use super::client::{Client, Reach, submit_key, unexpected};
use super::jobs::{amounts, end_code};
use super::submit::Submission;
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// The most characters of a base, so that every key made of it is allowed.
const BASE_CHARACTERS_MAX: usize = KEY_CHARACTERS_MAX - NAME_CHARACTERS_MAX - 1;

/// What a refusal says once jobs before it were cancelled.
const CANCELLED: &str = "what was submitted before it is cancelled";

/// Asks the scheduler.
type Ask<'a> = &'a mut dyn FnMut(&Request) -> Result<Reply, Failure>;

/// Submits the jobs of a file, says their ids, and waits for their end where that was asked for.
///
/// # Errors
/// Where a job is refused or the scheduler is not there; then no job of the file is left.
pub fn submit(file: &JobFile, submission: &Submission, cluster: Reach, format: Format) -> Outcome {
    let base = submission.key.clone().unwrap_or_else(submit_key);
    if base.chars().count() > BASE_CHARACTERS_MAX {
        return Err(Failure::usage(format!(
            "the key {base:?} is too long for a job file; at most {BASE_CHARACTERS_MAX} characters are allowed, since each job's name is added"
        )));
    }
    let mut file = file.clone();
    let fallback = std::env::var_os("GANTRY_LIBRARY");
    for name in fill::fill(&mut file, &base, fallback.as_deref().map(Path::new))? {
        output::complain(&format!("job {name:?} is left out: no series is pending for it"));
    }
    if submission.dry_run {
        return show(&planned(&file), format);
    }
    if file.jobs.is_empty() {
        let none: [Value; 0] = [];
        format.print("submitted", &none, || "nothing was submitted".into(), String::new)?;
        return Ok(0);
    }
    let client = Client::connect(cluster)?;
    let ids = all_or_none(&file, &base, &mut |request| client.ask(request));
    let ids = ids.map_err(|failure| match &submission.key {
        Some(key) if failure.sentence.contains(CANCELLED) => Failure {
            sentence: format!(
                "{}; the key {key:?} stands for them from now on, so take another for the mended file",
                failure.sentence
            ),
            ..failure
        },
        _ => failure,
    })?;
    if submission.wait {
        let all: Vec<Chosen> = ids.into_iter().map(Chosen::from).collect();
        return end_code(&client, &all, format);
    }
    let named = || file.jobs.iter().map(|job| job.spec.name.as_str()).zip(&ids);
    let value: Vec<Value> =
        named().map(|(name, id)| json!({ "name": name, "job": id.to_string() })).collect();
    let people = || {
        let rows: Vec<Vec<String>> =
            named().map(|(name, id)| vec![name.to_owned(), id.to_string()]).collect();
        output::table(&["NAME", "JOB"], &rows)
    };
    let quiet = || ids.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    format.print("submitted", &value, people, quiet)?;
    Ok(0)
}

/// The ids of a file's jobs once all are accepted and released.
fn all_or_none(file: &JobFile, base: &str, ask: Ask<'_>) -> Result<Vec<JobId>, Failure> {
    let newest = newest(ask)?;
    let mut ids = Vec::with_capacity(file.jobs.len());
    for job in &file.jobs {
        let spec = Box::new(JobSpec { held: true, ..job.with_ids(&ids) });
        let key = format!("{base}/{}", spec.name);
        match ask(&Request::Submit { key, spec }) {
            Ok(Reply::Submitted(id)) => ids.push(id),
            Ok(other) => return Err(undo(&unexpected(&other), &job.spec.name, &ids, newest, ask)),
            Err(failure) => return Err(undo(&failure, &job.spec.name, &ids, newest, ask)),
        }
    }
    for (job, id) in file.jobs.iter().zip(&ids) {
        if job.spec.held {
            continue;
        }
        match ask(&Request::Act(Action::Release { job: *id, indices: None })) {
            Ok(_) => {}
            // It was released by an earlier run with the same key, and has gone on since.
            Err(failure) if failure.kind == "state" => {}
            Err(failure) => {
                return Err(Failure {
                    sentence: format!(
                        "all {} jobs of the file are accepted, and releasing {id} failed: {}; submit the file again with --key {base:?} to go on",
                        ids.len(),
                        failure.sentence
                    ),
                    ..failure
                });
            }
        }
    }
    Ok(ids)
}

/// The newest job there is. Ids rise, so a job with a greater one is new, and one with a smaller
/// one was known under its key.
fn newest(ask: Ask<'_>) -> Result<JobId, Failure> {
    match ask(&Request::Jobs { before: None, ended: true })? {
        Reply::Jobs { rows, .. } => Ok(rows.iter().map(|row| row.job).max().unwrap_or_default()),
        other => Err(unexpected(&other)),
    }
}

/// Cancels what of a file was submitted by this run, and says so beside why.
fn undo(failure: &Failure, name: &str, ids: &[JobId], newest: JobId, ask: Ask<'_>) -> Failure {
    let (mut cancelled, mut left) = (Vec::new(), Vec::new());
    for id in ids.iter().rev().filter(|id| **id > newest) {
        let asked = ask(&Request::Cancel { job: *id, indices: None });
        let list = if asked.is_ok() { &mut cancelled } else { &mut left };
        list.push(id.to_string());
    }
    let mut sentence = format!("job {name:?} of the file was refused: {}", failure.sentence);
    if cancelled.is_empty() && left.is_empty() {
        sentence.push_str("; nothing new of the file was submitted");
    }
    if !cancelled.is_empty() {
        cancelled.reverse();
        sentence = format!(
            "{sentence}; nothing of the file has started, and {CANCELLED}: {}",
            cancelled.join(" ")
        );
    }
    if !left.is_empty() {
        left.reverse();
        let left = left.join(" ");
        sentence = format!("{sentence}; still held, end it by hand: gantry cancel {left}");
    }
    Failure { sentence, ..failure.clone() }
}

/// The jobs of a file with the names of those they wait for, as a dry run shows them.
fn planned(file: &JobFile) -> Vec<(JobSpec, Vec<String>)> {
    let after = |job: &gantry_config::jobs::FileJob| {
        let write = |scope, kind, name: &str| {
            let elements = if scope == DependencyScope::Element { "elements:" } else { "" };
            format!("{elements}{}:{name}", word(kind))
        };
        let inside = job
            .after
            .iter()
            .map(|one| write(one.scope, one.kind, file.jobs[one.place].spec.name.as_str()));
        let outside =
            job.spec.after.iter().map(|one| write(one.scope, one.kind, &one.job.to_string()));
        inside.chain(outside).collect()
    };
    file.jobs.iter().map(|job| (job.spec.clone(), after(job))).collect()
}

const fn word(kind: gantry_model::DependencyKind) -> &'static str {
    match kind {
        gantry_model::DependencyKind::Ok => "ok",
        gantry_model::DependencyKind::Any => "any",
        gantry_model::DependencyKind::Fail => "fail",
    }
}

/// Prints what would be submitted.
///
/// # Errors
/// Where standard output fails.
pub fn show(jobs: &[(JobSpec, Vec<String>)], format: Format) -> Outcome {
    let value: Vec<Value> = jobs
        .iter()
        .map(|(spec, after)| {
            json!({ "name": spec.name, "tasks": spec.indices().count(), "after": after, "spec": spec })
        })
        .collect();
    let people = || {
        let row = |(spec, after): &(JobSpec, Vec<String>)| {
            vec![spec.name.clone(), tasks(spec), needs(spec), after.join(" "), command(&spec.work)]
        };
        let rows: Vec<Vec<String>> = jobs.iter().map(row).collect();
        let table = output::table(&["NAME", "TASKS", "NEEDS", "AFTER", "COMMAND"], &rows);
        format!("{table}\nnothing was submitted")
    };
    let quiet = || jobs.iter().map(|(spec, _)| spec.name.clone()).collect::<Vec<_>>().join("\n");
    format.print("planned", &value, people, quiet)?;
    Ok(0)
}

fn tasks(spec: &JobSpec) -> String {
    match (&spec.gang, &spec.array) {
        (Some(gang), _) => format!("{} ranks", gang.ranks),
        (None, Some(array)) => array.to_string(),
        (None, None) => "1".to_owned(),
    }
}

fn needs(spec: &JobSpec) -> String {
    let mut needs = vec![amounts(&spec.resources)];
    match &spec.gpu.part {
        GpuPart::Whole => {}
        GpuPart::Share(permille) => needs.push(format!("share 0.{permille:03}")),
        GpuPart::Mig(profile) => needs.push(profile.clone()),
    }
    needs.extend(spec.gpu.model.clone());
    needs.extend(spec.labels.iter().cloned());
    needs.extend(spec.licences.iter().map(|(name, count)| format!("{name}={count}")));
    needs.join(", ")
}

fn command(work: &Work) -> String {
    match work {
        Work::Command { arguments, .. } => arguments.join(" "),
        Work::Builtin(builtin) => match builtin {
            Builtin::Preprocess { .. } => builtin.name().to_owned(),
            Builtin::Train { run, .. } => format!("{} run {run}", builtin.name()),
            Builtin::Predict { model, .. } => format!("{} with {model}", builtin.name()),
        },
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::{JobRow, Reject, RejectKind};

    use super::*;

    const FILE: &str = r#"
        [[job]]
        name = "a"
        command = ["a"]
        [[job]]
        name = "b"
        command = ["b"]
        after = ["elements:any:a", "j1"]
        [[job]]
        name = "c"
        command = ["c"]
        after = "b"
        hold = true
    "#;

    /// A scheduler that keeps keys, and refuses what it is told to refuse.
    #[derive(Default)]
    struct Fake {
        keys: Vec<(String, JobSpec)>,
        refuses: &'static str,
        log: Vec<String>,
    }

    impl Fake {
        fn answer(&mut self, request: &Request) -> Result<Reply, Failure> {
            let refuse = |what: &str| {
                Err(Failure::from(Reject::new(RejectKind::Unsatisfiable, format!("no {what}"))))
            };
            match request {
                Request::Jobs { .. } => {
                    let last = JobId(9 + self.keys.len() as u64);
                    let rows = vec![JobRow { job: last, ..JobRow::default() }];
                    Ok(Reply::Jobs { rows, more: false })
                }
                Request::Submit { spec, .. } if spec.name == self.refuses => refuse("room"),
                Request::Submit { key, spec } => {
                    assert!(spec.held, "{key} could start");
                    let known = self.keys.iter().position(|(known, _)| known == key);
                    let place = known.unwrap_or_else(|| {
                        self.keys.push((key.clone(), (**spec).clone()));
                        self.keys.len() - 1
                    });
                    Ok(Reply::Submitted(JobId(10 + place as u64)))
                }
                Request::Act(Action::Release { job, .. }) if self.refuses == "release" => {
                    refuse(&job.to_string())
                }
                Request::Act(Action::Release { job, .. }) => {
                    self.log.push(format!("release {job}"));
                    Ok(Reply::Acted(1))
                }
                Request::Cancel { job, .. } => {
                    self.log.push(format!("cancel {job}"));
                    Ok(Reply::Cancelled(1))
                }
                other => panic!("{other:?}"),
            }
        }

        fn submit(&mut self, key: &str) -> Result<Vec<JobId>, Failure> {
            let file = JobFile::parse("jobs.toml", FILE).unwrap();
            all_or_none(&file, key, &mut |request| self.answer(request))
        }
    }

    #[test]
    fn a_file_is_submitted_held_and_then_released() {
        let mut fake = Fake::default();
        let ids = fake.submit("night").unwrap();
        assert_eq!(ids, [JobId(10), JobId(11), JobId(12)]);
        assert_eq!(fake.log, ["release j10", "release j11"], "c holds itself");
        let keys: Vec<&str> = fake.keys.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["night/a", "night/b", "night/c"]);
        let after: Vec<JobId> = fake.keys[1].1.after.iter().map(|one| one.job).collect();
        assert_eq!(after, [JobId(1), JobId(10)]);
        assert_eq!(fake.submit("night").unwrap(), ids, "the same key gives the same jobs");
        assert_ne!(fake.submit("day").unwrap(), ids);
    }

    #[test]
    fn a_refusal_in_the_middle_leaves_nothing() {
        let mut fake = Fake { refuses: "c", ..Fake::default() };
        let failure = fake.submit("night").unwrap_err();
        assert_eq!((failure.code, failure.kind), (2, "unsatisfiable"));
        assert!(failure.sentence.contains("job \"c\" of the file was refused: no room"));
        assert!(failure.sentence.contains("is cancelled: j10 j11"), "{}", failure.sentence);
        assert_eq!(fake.log, ["cancel j11", "cancel j10"]);

        let mut fake = Fake { refuses: "a", ..Fake::default() };
        let failure = fake.submit("night").unwrap_err();
        assert!(failure.sentence.ends_with("nothing new of the file was submitted"));
    }

    #[test]
    fn jobs_of_an_earlier_run_are_not_cancelled() {
        let mut fake = Fake::default();
        fake.submit("night").unwrap();
        fake.log.clear();
        fake.refuses = "c";
        let failure = fake.submit("night").unwrap_err();
        assert!(failure.sentence.contains("nothing new of the file was submitted"));
        assert!(fake.log.is_empty(), "{:?}", fake.log);
    }

    #[test]
    fn a_release_that_fails_says_how_to_go_on() {
        let mut fake = Fake { refuses: "release", ..Fake::default() };
        let sentence = fake.submit("night").unwrap_err().sentence;
        assert!(sentence.contains("all 3 jobs of the file are accepted"), "{sentence}");
        assert!(sentence.ends_with("with --key \"night\" to go on"), "{sentence}");
        fake.refuses = "";
        assert_eq!(fake.submit("night").unwrap().len(), 3);
        assert_eq!(fake.log, ["release j10", "release j11"]);
    }

    #[test]
    fn a_dry_run_names_what_jobs_wait_for() {
        let file = JobFile::parse("jobs.toml", FILE).unwrap();
        let after: Vec<String> = planned(&file).iter().map(|(_, after)| after.join(" ")).collect();
        assert_eq!(after, ["", "elements:any:a ok:j1", "ok:b"]);
    }
}
