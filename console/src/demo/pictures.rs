//! `gantry demo --seed N --pictures DIR`: the main screens of a simulated cluster as SVG files, for
//! the README. The same number gives the same pictures.

use std::collections::VecDeque;
use std::path::Path;

use gantry_model::{JobId, JobState, Machine, Millis};
use gantry_wire::{Scope, Update};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use serde_json::json;

use super::simulated::{Course, Moment};
use crate::app::{App, Ask, Effect, Key, Keymap, Link, Message};
use crate::error::{Failure, Outcome};
use crate::output::Format;
use crate::pictures;
use crate::ui;
use crate::ui::theme::{Colours, Glyphs, Theme};

/// Columns and rows: the console's design size.
const SIZE: (u16, u16) = (120, 36);
/// How long the cluster has been going.
const AFTER: Millis = Millis::from_seconds(2 * 3600);
/// The screens: a name, the keys that lead there, and what is said of it.
const SCREENS: [(&str, &str, &str); 8] = [
    ("overview", "", "The overview: nodes, who has them, what needs a human"),
    ("nodes", "2", "The nodes, and the GPUs of one"),
    ("gpus", "3", "All GPUs with their last minutes"),
    ("jobs", "4", "The jobs"),
    ("job", "4\n", "One job"),
    ("data", "5", "Data: the library, and the jobs that work on it"),
    ("events", "6", "The event log"),
    ("help", "?", "The keys"),
];
/// Messages that one key may lead to: pages of GPUs and the pasts of those in sight.
const FOLLOWING_MAX: usize = 1000;

/// Writes the pictures.
///
/// # Errors
/// Where a check of the simulation fails, or a file cannot be written.
pub(super) fn run(course: Course, folder: &Path, format: Format) -> Outcome {
    let shown = folder.display();
    let fail = |error: std::io::Error| {
        Failure::trouble(format!("writing pictures to {shown} failed: {error}"))
    };
    std::fs::create_dir_all(folder).map_err(fail)?;
    let cluster = Moment::after(course, AFTER)?;
    let mut files = Vec::new();
    for (name, keys, title) in SCREENS {
        let buffer = screen(keys, &cluster);
        let file = folder.join(format!("{name}.svg"));
        std::fs::write(&file, pictures::svg(&buffer, title)).map_err(fail)?;
        files.push(file.display().to_string());
    }
    let value = json!({ "seed": course.seed, "files": files });
    format.print("pictures", &value, || files.join("\n"), || files.join("\n"))?;
    Ok(0)
}

/// What the console shows after some keys.
fn screen(keys: &str, cluster: &Moment) -> Buffer {
    let first = cluster.picture(Scope::Overview);
    let at = first.at;
    let mut app = App::new(Keymap::shipped(), SIZE);
    let tell = |app: &mut App, message| {
        let mut waiting = VecDeque::from([message]);
        for _ in 0..FOLLOWING_MAX {
            let Some(message) = waiting.pop_front() else { break };
            let mut effects = Vec::new();
            app.apply(at, message, &mut effects);
            waiting.extend(effects.into_iter().filter_map(|effect| follow(effect, cluster)));
        }
    };
    tell(&mut app, Message::Link(Link::Live));
    tell(&mut app, Message::Update { scope: Scope::Overview, update: Box::new(first) });
    for key in keys.chars() {
        if key == '\n' {
            app.job = running(&cluster.picture(Scope::Jobs)).or(app.job);
        }
        let key = if key == '\n' { Key::Enter } else { Key::Char(key) };
        tell(&mut app, Message::Key(key));
    }
    tell(&mut app, Message::Tick);
    let mut buffer = Buffer::empty(Rect::new(0, 0, SIZE.0, SIZE.1));
    ui::render(&app, Theme { colours: Colours::True, glyphs: Glyphs::Unicode }, &mut buffer);
    buffer
}

/// What follows from what an app wants.
fn follow(effect: Effect, cluster: &Moment) -> Option<Message> {
    match effect {
        Effect::Watch(scope) => {
            Some(Message::Update { scope, update: Box::new(cluster.picture(scope)) })
        }
        Effect::Ask(Ask { about, request }) => {
            let reply = Box::new(Ok(cluster.answer(*request)));
            Some(Message::Answer { about, reply })
        }
        _ => None,
    }
}

/// A job that runs, the newest: there is most to see of it.
fn running(jobs: &Update) -> Option<JobId> {
    jobs.jobs.iter().find(|row| row.state == JobState::Run).map(|row| row.job)
}

#[cfg(test)]
mod tests {
    use gantry_sim::Strength;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_pictures() {
        let course = Course { seed: 7, nodes: 8, speed: 1, strength: Strength::Calm };
        let draw = || {
            let folder = TempDir::new().unwrap();
            run(course, folder.path(), Format::Quiet).unwrap();
            let read = |name: &str| {
                std::fs::read_to_string(folder.path().join(format!("{name}.svg"))).unwrap()
            };
            SCREENS.map(|(name, ..)| read(name))
        };
        let pictures = draw();
        assert_eq!(pictures, draw());
        for (picture, part) in
            pictures.iter().zip(["Overview", "NODE", "SM", "JOB", "j", "Data", "TIME", "q"])
        {
            assert!(picture.contains(part) && picture.ends_with("</svg>\n"), "{part}");
        }
        let distinct: std::collections::BTreeSet<&String> = pictures.iter().collect();
        assert_eq!(distinct.len(), pictures.len(), "two screens look alike");
    }
}
