//! Every command of the book and of the README is run, in a world in which what it names exists.
//!
//! The README has a world of its own, the pages on images have one, and the other pages have one; in it the
//! commands of a page follow one another. A command has to end with exit code 0, and the job that it submits
//! has to begin its work, unless a table says how it ends instead; so one that is new in a document is run
//! too, and one that fails there fails here. What a document leaves open is a word of a table. Lines of a
//! table that no document needs any more fail as well.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "book_support/commands.rs"]
mod commands;
#[path = "../../agent/tests/nvml/fake.rs"]
mod fake;
#[path = "book_support/pages.rs"]
mod pages;
#[path = "book_support/tables.rs"]
mod tables;
#[path = "commands_support/terminal.rs"]
mod terminal;
#[path = "book_support/world.rs"]
mod world;

use std::fs::{File, read_to_string};
use std::process::{Child, ExitStatus};

use anyhow::{Context, Result, ensure};
use commands::{Said, said};
use gantry_tests::until;
use pages::{book, pages, root};
use portable_pty::CommandBuilder;
use rustix::process::{Pid, Signal, kill_process};
use tables::{EXCEPTIONS, Ends, JOBS, WORDS, end_of, word_at};
use terminal::Terminal;
use world::World;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");

/// A command that was started, with what it writes.
struct Started {
    child: Child,
    output: std::path::PathBuf,
}

impl Started {
    fn of(world: &World, arguments: &[&str]) -> Result<Self> {
        let output = world.folder().join("output");
        let file = File::create(&output)?;
        let mut command = world.command(arguments);
        let child = command.stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Self { child, output })
    }

    fn said(&self) -> String {
        read_to_string(&self.output).unwrap_or_default()
    }

    fn ended(&mut self) -> Result<ExitStatus> {
        let child = &mut self.child;
        let status = until("its end", || child.try_wait().ok().flatten());
        status.with_context(|| self.said())
    }

    /// Waits for its end, which has to have this exit code; gives what it has said, which has this in it.
    fn ends(mut self, code: i32, part: &str) -> Result<String> {
        let status = self.ended()?;
        let said = self.said();
        ensure!(status.code() == Some(code) && said.contains(part), "{status}: {said}");
        Ok(said)
    }

    /// Waits for what it says, and ends it.
    fn lasts(mut self, part: &str) -> Result<()> {
        until(&format!("{part:?}"), || self.said().contains(part).then_some(()))
            .with_context(|| self.said())?;
        let early = self.child.try_wait()?;
        ensure!(early.is_none(), "it ended by itself: {}", self.said());
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        self.ended()?;
        Ok(())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shows(world: &World, arguments: &[&str], part: &str) -> Result<()> {
    let mut command = CommandBuilder::new(PROGRAM);
    command.args(arguments);
    command.cwd(world.work());
    world.environment().iter().for_each(|(name, value)| command.env(name, value));
    command.env("TERM", "xterm-256color");
    command.env("LANG", "C.UTF-8");
    let mut terminal = Terminal::start(command)?;
    terminal.shows(&[part])?;
    terminal.keys("q")?;
    let status = until("its end", || terminal.child.try_wait().ok().flatten())?;
    ensure!(status.success(), "{}", terminal.text());
    Ok(())
}

/// Commands that submit jobs.
const SUBMITS: [&str; 4] =
    ["gantry submit ", "gantry train ", "gantry predict ", "gantry preprocess "];

/// The jobs that a command has submitted, by what it has said.
fn submitted(command: &str, said: &str) -> Result<Vec<String>> {
    if !SUBMITS.iter().any(|verb| command.starts_with(verb)) || command.contains("--dry-run") {
        return Ok(Vec::new());
    }
    let words = said.split(|c: char| !c.is_ascii_alphanumeric());
    let mut jobs: Vec<String> = words.filter(|word| is_job(word)).map(str::to_owned).collect();
    jobs.sort();
    jobs.dedup();
    ensure!(!jobs.is_empty(), "it names no job: {said}");
    Ok(jobs)
}

fn is_job(word: &str) -> bool {
    word.strip_prefix('j').is_some_and(|rest| rest.parse::<u64>().is_ok())
}

/// Runs a command of a document; an error says how it ended otherwise than it should.
fn run(world: &World, command: &str) -> Result<()> {
    let (arguments, job) = world.prepare(command)?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ends = end_of(command);
    let mut made: Vec<String> = job.into_iter().collect();
    match ends {
        Ends::Shows(part) => shows(world, &arguments, part)?,
        Ends::Lasts(part) => Started::of(world, &arguments)?.lasts(part)?,
        Ends::Refused(code, part) => {
            Started::of(world, &arguments)?.ends(code, part)?;
        }
        Ends::Well | Ends::Works(_) | Ends::Fails(_) => {
            let said = Started::of(world, &arguments)?.ends(0, "")?;
            for job in submitted(command, &said)? {
                world.expect(&job, ends)?;
                made.push(job);
            }
        }
    }
    world.follow_up(command)?;
    for job in made {
        // What has ended already is refused, which is as well.
        world.cluster.gantry.run(&["cancel", &job])?;
    }
    Ok(())
}

/// Runs all commands of a document; says how many there are.
///
/// # Errors
/// Names all commands that ended wrongly.
fn document(world: &World, name: &str, text: &str) -> Result<usize> {
    let (mut count, mut wrong) = (0, Vec::new());
    world.forget_exports();
    for one in said(text).with_context(|| name.to_owned())? {
        match one {
            Said::Export(variable, value) => world.export(&variable, &value)?,
            Said::Name(_) => {}
            Said::Command(command) => {
                count += 1;
                if let Err(error) = run(world, &command) {
                    wrong.push(format!("{command}\n    {error:#}"));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "of {name}:\n{}", wrong.join("\n"));
    Ok(count)
}

/// Runs documents in one world, one after the other; those last after which a node is gone.
fn documents(chosen: impl Fn(&str) -> bool) -> Result<()> {
    let mut all: Vec<_> = all().into_iter().filter(|(name, _)| chosen(name)).collect();
    all.sort_by_key(|(_, text)| text.contains("gantry forget "));
    let Some(world) = World::start(PROGRAM)? else { return Ok(()) };
    if all.iter().any(|(_, text)| text.contains("/library")) {
        world.fill_library().context("the library")?;
    }
    let mut wrong = Vec::new();
    for (name, text) in all {
        match document(&world, &name, &text) {
            Ok(count) => eprintln!("{name}: {count} commands"),
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The documents whose commands are run: the README, and the book without the pages that the code writes.
fn all() -> Vec<(String, String)> {
    let readme = (README.to_owned(), read_to_string(root().join(README)).unwrap());
    let written = |(name, _): &(String, String)| !name.starts_with("reference/");
    pages().into_iter().filter(written).chain([readme]).collect()
}

const README: &str = "README.md";
/// Pages on images, which need a library.
const IMAGES: [&str; 4] =
    ["images.md", "examples/chest-ct.md", "examples/pytorch.md", "examples/slurm-site.md"];

#[test]
fn every_command_of_the_readme_does_what_it_says() -> Result<()> {
    documents(|name| name == README)
}

#[test]
fn every_command_of_the_pages_on_images_does_what_it_says() -> Result<()> {
    for page in IMAGES {
        ensure!(book().join(page).is_file(), "there is no page {page}");
    }
    documents(|name| IMAGES.contains(&name))
}

#[test]
fn every_command_of_the_other_pages_does_what_it_says() -> Result<()> {
    documents(|name| name != README && !IMAGES.contains(&name))
}

#[test]
fn every_line_of_the_tables_is_needed() -> Result<()> {
    let mut all = Vec::new();
    for (name, text) in self::all() {
        for one in said(&text).with_context(|| name.clone())? {
            match one {
                Said::Command(text) | Said::Export(_, text) => all.push(text),
                Said::Name(_) => {}
            }
        }
    }
    ensure!(all.len() > 150, "only {} commands were found", all.len());
    let mut unused: Vec<&str> = EXCEPTIONS.iter().map(|(command, ..)| *command).collect();
    unused.retain(|command| !all.iter().any(|one| one == command));
    ensure!(unused.is_empty(), "no document has {unused:?}");
    let mut used = vec![false; WORDS.len()];
    for mut rest in all.iter().map(String::as_str) {
        while let Some(first) = rest.chars().next() {
            let place = word_at(rest);
            let length = place.map_or(first.len_utf8(), |place| {
                used[place] = true;
                WORDS[place].0.len()
            });
            rest = &rest[length..];
        }
    }
    let unused: Vec<_> = WORDS.iter().zip(used).filter(|(_, used)| !used).collect();
    ensure!(unused.is_empty(), "no document has the words {unused:?}");
    let parts = JOBS.iter().map(|(part, _)| *part).chain(world::files());
    let unused: Vec<_> = parts.filter(|part| !all.iter().any(|one| one.contains(part))).collect();
    ensure!(unused.is_empty(), "no document has {unused:?}");
    Ok(())
}

#[test]
fn a_command_that_fails_is_told_by_its_document() -> Result<()> {
    let Some(world) = World::start(PROGRAM)? else { return Ok(()) };
    let text = "```sh\ngantry nodes\ngantry job j12\ngantry node show gpu-9   # not there\n\
                gantry submit -- ./nobody.sh\n```\n";
    let error = document(&world, "a page", text).unwrap_err();
    let said = format!("{error:#}");
    ensure!(said.contains("of a page:\ngantry node show gpu-9\n"), "{said}");
    ensure!(said.contains("did you mean") && !said.contains("j12"), "{said}");
    ensure!(
        said.contains("gantry submit -- ./nobody.sh\n") && said.contains("not found"),
        "{said}"
    );
    Ok(())
}
