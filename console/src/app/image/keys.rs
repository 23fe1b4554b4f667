//! What keys do in the image viewer, and what the viewer is told.

use std::sync::Arc;

use super::{
    BRUSHES, CELL_ASPECT, CONFIDENCE, CT, GROWING_MAX, Stage, TOLERANCE, Viewer, ZOOM_MAX,
};
use crate::app::library::{Subject, Told, Wish};
use crate::app::steer::{Choice, LABEL};
use crate::app::{Action, App, Effect, Overlay, Tab, Targets, View};

/// Slices that a half page is.
const SLICES: usize = 10;

impl App {
    /// Opens the image of something.
    pub(in crate::app) fn open_image(
        &mut self,
        subject: Subject,
        deidentified: bool,
        effects: &mut Vec<Effect>,
    ) {
        self.opening += 1;
        let number = self.opening;
        self.viewer = Some(Box::new(Viewer::new(subject.clone(), number)));
        effects.push(Effect::Library(Wish::Open { subject, number, deidentified }));
        self.go(View::Image, effects);
    }

    /// Lets go of the image, so that its memory is free.
    pub(in crate::app) fn close_image(&mut self, effects: &mut Vec<Effect>) {
        if self.viewer.take().is_some() {
            effects.push(Effect::Library(Wish::Close));
        }
    }

    /// What comes of the image that is open.
    pub(in crate::app) fn told_of_image(&mut self, told: Told) {
        let Some(viewer) = self.viewer.as_deref_mut() else { return };
        match told {
            Told::Coming(number, how) if number == viewer.number => {
                viewer.stage = Stage::Coming(how);
            }
            Told::Open(number, opened, marks) if number == viewer.number => {
                viewer.take(opened, marks.map(|marks| *marks));
            }
            Told::Failed(number, why) if number == viewer.number => {
                viewer.grows = false;
                if viewer.opened.is_some() {
                    self.say(why);
                } else {
                    viewer.stage = Stage::Failed(why);
                }
            }
            Told::Grown(number, runs, limits, micros) if number == viewer.number => {
                viewer.grows = false;
                let voxels = viewer.change(&runs, true);
                viewer.grown = Some((voxels, limits, micros));
                let unit = viewer.unit();
                let sentence = match (voxels, runs.is_empty()) {
                    (0, true) => "nothing there to grow; T takes in more".to_owned(),
                    (0, false) => "all of it was marked already".to_owned(),
                    _ => format!(
                        "{voxels} voxels from {:.0} to {:.0} {unit} in {:.1} ms; u undoes",
                        limits.0,
                        limits.1,
                        micros as f64 / 1000.0
                    ),
                };
                self.say(sentence);
            }
            _ => {}
        }
    }

    /// Carries out what a key means here; says whether it means something.
    pub(in crate::app) fn act_on_image(
        &mut self,
        action: Action,
        effects: &mut Vec<Effect>,
    ) -> bool {
        match action {
            Action::NextCase => self.next_case(effects),
            Action::Accept => self.accept(),
            Action::Reject => self.reject(),
            Action::Copy => {
                let id = self.viewer.as_ref().map(|viewer| viewer.subject.id.clone());
                if let Some(id) = id {
                    self.say(format!("copied {id}"));
                    effects.push(Effect::Copy(id));
                }
            }
            _ => {
                let Some(viewer) =
                    self.viewer.as_deref_mut().filter(|one| one.stage == Stage::Open)
                else {
                    return moves(action);
                };
                if let Some(how) = viewer.looks_differently(action) {
                    self.say(how);
                } else if !viewer.moves(action, self.size) {
                    return self.mark_in_image(action, effects);
                }
            }
        }
        true
    }

    /// Keys that change what is marked.
    fn mark_in_image(&mut self, action: Action, effects: &mut Vec<Effect>) -> bool {
        let Some(viewer) = self.viewer.as_deref_mut() else { return false };
        match action {
            Action::Seed if viewer.grows => self.say("a region is being grown already"),
            Action::Seed => {
                viewer.grows = true;
                let wish =
                    Wish::Grow { number: viewer.number, seed: viewer.cursor, how: viewer.how() };
                effects.push(Effect::Library(wish));
            }
            Action::Paint | Action::Erase => {
                let runs = viewer.under_brush();
                viewer.change(&runs, action == Action::Paint);
            }
            Action::Undo if viewer.undo() => {}
            Action::Undo => self.say("nothing is left to undo"),
            _ => return false,
        }
        true
    }

    /// A click puts the cursor there; a click on the cursor grows a region from it.
    pub(in crate::app) fn click_in_image(&mut self, x: u16, y: u16, effects: &mut Vec<Effect>) {
        let (columns, rows) = crate::app::layout::image_cells(self.size);
        let (Some(row), true) = (y.checked_sub(crate::app::layout::IMAGE_TOP), x < columns) else {
            return;
        };
        let Some(viewer) = self.viewer.as_deref_mut() else { return };
        let picture = viewer.picture([usize::from(columns), usize::from(rows)], CELL_ASPECT);
        let (Some(picture), Some(opened)) = (picture, &viewer.opened) else { return };
        let size = opened.image.geometry.size;
        let place = |side, pixel: u16| picture.place(side, usize::from(pixel));
        let (Some(across), Some(down)) = (place(0, x), place(1, row)) else { return };
        let cut = picture.cut;
        let mut at = viewer.cursor;
        at[cut.across.voxel] = cut.across.of(across, size);
        at[cut.down.voxel] = cut.down.of(down, size);
        if at == viewer.cursor {
            self.mark_in_image(Action::Seed, effects);
        } else {
            viewer.cursor = at;
        }
    }

    /// Asks whether what is marked is to be kept as a label.
    fn accept(&mut self) {
        let Some(viewer) = self.viewer.as_deref().filter(|one| one.stage == Stage::Open) else {
            return self.say("no image is open yet");
        };
        if viewer.marks.count() == 0 {
            return self.say("nothing is marked; Space grows a region, b paints");
        }
        let targets = Targets::Library(vec![viewer.subject.id.clone()]);
        self.ask_about(LABEL[usize::from(viewer.label().is_empty())], targets);
    }

    fn reject(&mut self) {
        let Some(viewer) = self.viewer.as_deref() else { return };
        if !viewer.is_sample() {
            return self.say("only a sample is rejected: nothing is learnt from this");
        }
        let targets = Targets::Library(vec![viewer.subject.id.clone()]);
        self.ask_about(LABEL[2], targets);
    }

    /// Asks for the value of a deed, or whether it is meant.
    pub(in crate::app) fn ask_about(&mut self, choice: Choice, targets: Targets) {
        if self.read_only {
            return self.say("this console is read-only");
        }
        if choice.value.is_some() {
            self.overlay = Overlay::Value { choice, targets, typed: String::new() };
        } else if let Ok(Some(plan)) = crate::app::Plan::of(choice.verb, "", targets) {
            self.ask_whether(plan);
        }
    }

    /// Opens the case that wants a person's look most.
    pub(in crate::app) fn next_case(&mut self, effects: &mut Vec<Effect>) {
        if self.shelf.listing.is_none() {
            self.go(View::Data, effects);
            self.show_tab(Tab::Samples);
            return self.say("reading the library first; then ask again");
        }
        match self.shelf.next_case(self.viewer.as_ref().map(|viewer| &viewer.subject)) {
            Some(subject) => {
                let left = self.shelf.cases_left();
                self.open_image(subject, false, effects);
                self.say(format!("{left} wait for a person's look, the least sure first"));
            }
            None => self.say("no other case waits for a person's look"),
        }
    }
}

/// Whether an action would have moved or changed something, were the image there already.
const fn moves(action: Action) -> bool {
    !matches!(
        action,
        Action::Overview
            | Action::Nodes
            | Action::Gpus
            | Action::Jobs
            | Action::Data
            | Action::Events
            | Action::ViewBefore
            | Action::Back
            | Action::QuitOrBack
            | Action::Palette
            | Action::Export
            | Action::Help
            | Action::Quit
            | Action::QuitAndKeep
            | Action::Privacy
            | Action::Mouse
            | Action::Redraw
            | Action::Suspend
            | Action::Freeze
            | Action::Live
            | Action::TimeBack
            | Action::TimeOn
    )
}

impl Viewer {
    /// Carries out keys that change how it is looked at; gives what is said of it.
    fn looks_differently(&mut self, action: Action) -> Option<String> {
        let step = |value: u16, (_, by): (u16, u16), up: bool, most: u16| {
            if up { (value + by).min(most) } else { value.saturating_sub(by).max(by) }
        };
        match action {
            Action::NextPane => self.plane = self.plane.next(),
            Action::WindowNext | Action::WindowBefore => {
                let next = match (self.preset, action) {
                    (None, Action::WindowNext) => Some(0),
                    (None, _) => Some(CT.len() - 1),
                    (Some(at), Action::WindowNext) => Some(at + 1).filter(|at| *at < CT.len()),
                    (Some(at), _) => at.checked_sub(1),
                };
                self.preset = next;
                let range = self.opened.as_ref().map_or((0.0, 1.0), |opened| opened.range);
                self.window = next.map_or_else(|| super::Window::over(range), |at| CT[at].1);
                return Some(match next {
                    Some(at) => format!("window: {}", CT[at].0),
                    None => "window: all values".into(),
                });
            }
            Action::LevelUp | Action::LevelDown => {
                (self.window, self.preset) = (self.window.moved(action == Action::LevelUp), None);
            }
            Action::Wider | Action::Narrower => {
                (self.window, self.preset) = (self.window.stretched(action == Action::Wider), None);
            }
            Action::ZoomIn => self.zoom = (self.zoom + 1).min(ZOOM_MAX),
            Action::ZoomOut => self.zoom = self.zoom.saturating_sub(1),
            Action::MaskShown => {
                self.overlay = !self.overlay;
                return Some(if self.overlay { "mask shown" } else { "mask hidden" }.into());
            }
            Action::Method => {
                self.by_confidence = !self.by_confidence;
                return Some(self.how_words());
            }
            Action::ToleranceUp | Action::ToleranceDown => {
                let up = action == Action::ToleranceUp;
                if self.by_confidence {
                    self.growing.1 = step(self.growing.1, CONFIDENCE, up, GROWING_MAX.1);
                } else {
                    self.growing.0 = step(self.growing.0, TOLERANCE, up, GROWING_MAX.0);
                }
                return Some(self.how_words());
            }
            Action::Brush => {
                self.brush = (self.brush + 1) % BRUSHES.len();
                return Some(format!("brush: {} voxels across", 2 * BRUSHES[self.brush] + 1));
            }
            _ => return None,
        }
        Some(format!("{}, {}", self.plane.word(), self.window_name()))
    }

    /// How regions are grown, in words.
    #[must_use]
    pub fn how_words(&self) -> String {
        match self.how() {
            super::Growing::Tolerance(by) => {
                format!("grows within {by} {} of the seed", self.unit())
            }
            super::Growing::Confidence(tenths) => {
                format!("grows within {}.{} deviations", tenths / 10, tenths % 10)
            }
        }
    }

    /// Carries out keys that move the cursor; says whether it was one.
    fn moves(&mut self, action: Action, size: (u16, u16)) -> bool {
        let (columns, rows) = crate::app::layout::image_cells(size);
        // Two pixels stand in a cell, one above the other.
        let picture = self.picture([usize::from(columns), 2 * usize::from(rows)], 1.0);
        let (Some(picture), Some(opened)) = (picture, &self.opened) else { return false };
        let (cut, voxels) = (picture.cut, opened.image.geometry.size);
        let (axis, step, on) = match action {
            Action::Down => (cut.through, 1, true),
            Action::Up => (cut.through, 1, false),
            Action::HalfPageDown => (cut.through, SLICES, true),
            Action::HalfPageUp => (cut.through, SLICES, false),
            Action::Last => (cut.through, usize::MAX, true),
            Action::First => (cut.through, usize::MAX, false),
            Action::CursorRight => (cut.across, picture.voxels_a_pixel(0), true),
            Action::CursorLeft => (cut.across, picture.voxels_a_pixel(0), false),
            Action::CursorDown => (cut.down, picture.voxels_a_pixel(1), true),
            Action::CursorUp => (cut.down, picture.voxels_a_pixel(1), false),
            _ => return false,
        };
        let last = voxels[axis.voxel] - 1;
        let at = &mut self.cursor[axis.voxel];
        *at = if on == axis.backwards {
            at.saturating_sub(step)
        } else {
            at.saturating_add(step).min(last)
        };
        true
    }

    /// The mask as a person has changed it, where that is so.
    #[must_use]
    pub fn changed_marks(&self) -> Option<Arc<super::Marks>> {
        self.touched.then(|| Arc::new(self.marks.clone()))
    }
}
