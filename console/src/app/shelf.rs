//! What the library holds, as the tabs of the data's screen: series, samples, models, predictions and
//! what was set aside; and which case wants a person's look next.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::filter::Filter;
use super::library::{Case, Kind, Listing, Subject, Told, WaitingLine, Wish};
use super::steer::ADD;
use super::{Action, App, Effect, LAID_OVER_MAX, Plan, Targets, View};

/// Between two looks at the library.
const LOOK_EACH_MS: u64 = 15_000;

/// A part of the data's screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tab {
    /// The way from images to predictions, and the jobs on it.
    Work,
    /// Series.
    Series,
    /// Samples, and what there is of each label.
    Samples,
    /// Models and their curves.
    Models,
    /// Predictions and the nearest earlier cases.
    Predictions,
    /// What was set aside, and why.
    Rejects,
}

impl Tab {
    /// All of them, in their order.
    pub const ALL: [Self; 6] =
        [Self::Work, Self::Series, Self::Samples, Self::Models, Self::Predictions, Self::Rejects];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Series => "series",
            Self::Samples => "samples",
            Self::Models => "models",
            Self::Predictions => "predictions",
            Self::Rejects => "rejects",
        }
    }

    /// The next one, round and round.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }
}

/// The library as the console knows it.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// Which part is shown.
    pub tab: Tab,
    /// What it holds, once that is known.
    pub listing: Option<Arc<Listing>>,
    /// Why there is no library here.
    pub absent: Option<String>,
    /// The models that are marked.
    pub marked: BTreeSet<String>,
    /// The cases nearest to a prediction, by its id.
    pub near: Option<(String, Vec<Case>)>,
    /// How far a deed is.
    pub busy: Option<String>,
    shown: Vec<usize>,
    chosen: [Option<String>; 6],
    asked: Option<u64>,
    asked_near: Option<String>,
}

impl Default for Shelf {
    fn default() -> Self {
        Self {
            tab: Tab::Work,
            listing: None,
            absent: None,
            marked: BTreeSet::new(),
            near: None,
            busy: None,
            shown: Vec::new(),
            chosen: Default::default(),
            asked: None,
            asked_near: None,
        }
    }
}

impl Shelf {
    /// The rows that the part lists, by their places in the listing.
    #[must_use]
    pub fn shown(&self) -> &[usize] {
        &self.shown
    }

    /// The id of a row.
    #[must_use]
    pub fn id(&self, row: usize) -> Option<&str> {
        let (listing, at) = (self.listing.as_ref()?, *self.shown.get(row)?);
        Some(match self.tab {
            Tab::Work => return None,
            Tab::Series => &listing.series.get(at)?.id,
            Tab::Samples => &listing.samples.get(at)?.id,
            Tab::Models => &listing.models.get(at)?.id,
            Tab::Predictions => &listing.predictions.get(at)?.id,
            Tab::Rejects => &listing.asides.get(at)?.id,
        })
    }

    /// The number of the chosen row.
    #[must_use]
    pub fn at(&self) -> Option<usize> {
        let chosen = self.chosen()?;
        (0..self.shown.len()).find(|row| self.id(*row) == Some(chosen))
    }

    /// The id of the chosen row.
    #[must_use]
    pub fn chosen(&self) -> Option<&str> {
        self.chosen[self.tab as usize].as_deref()
    }

    /// Chooses a row by its number.
    pub fn choose(&mut self, row: usize) {
        self.chosen[self.tab as usize] = self.id(row).map(str::to_owned);
    }

    /// Lists anew what fits a filter.
    pub fn arrange(&mut self, filter: &str) {
        let filter = Filter::parse(filter);
        let listing = self.listing.clone().unwrap_or_default();
        let fits = |n: usize, row: &dyn Fn(usize, &str) -> Option<String>| -> Vec<usize> {
            (0..n).filter(|at| filter.holds(|field| row(*at, field))).collect()
        };
        self.shown = match self.tab {
            Tab::Work => Vec::new(),
            Tab::Series => fits(listing.series.len(), &|at, field| {
                let one = &listing.series[at];
                let words = [one.id.as_str(), &one.patient, &one.modality];
                field_of(field, &[("series", words[0]), ("patient", words[1]), ("mod", words[2])])
            }),
            Tab::Samples => fits(listing.samples.len(), &|at, field| {
                let one = &listing.samples[at];
                let by = one.author.as_deref().unwrap_or("auto");
                field_of(
                    field,
                    &[
                        ("sample", &one.id),
                        ("series", &one.series),
                        ("label", &one.label),
                        ("split", one.side),
                        ("by", by),
                        ("state", one.state.word()),
                    ],
                )
            }),
            Tab::Models => fits(listing.models.len(), &|at, field| {
                let one = &listing.models[at];
                let pairs = [("model", &*one.id), ("name", &one.name), ("run", &one.run)];
                field_of(field, &[&pairs[..], &[("stage", one.stage)]].concat())
            }),
            Tab::Predictions => fits(listing.predictions.len(), &|at, field| {
                let one = &listing.predictions[at];
                let pairs = [("series", &*one.series), ("model", &one.model), ("name", &one.name)];
                field_of(field, &[&pairs[..], &[("stage", one.stage)]].concat())
            }),
            Tab::Rejects => fits(listing.asides.len(), &|at, field| {
                let one = &listing.asides[at];
                field_of(
                    field,
                    &[("reason", &one.reason), ("file", &one.id), ("why", &one.sentence)],
                )
            }),
        };
        if self.at().is_none() {
            self.choose(0);
        }
    }

    /// How many rows the part has without a filter.
    #[must_use]
    pub fn count(&self, tab: Tab) -> usize {
        let Some(listing) = &self.listing else { return 0 };
        match tab {
            Tab::Work => 0,
            Tab::Series => listing.series.len(),
            Tab::Samples => listing.samples.len(),
            Tab::Models => listing.models.len(),
            Tab::Predictions => listing.predictions.len(),
            Tab::Rejects => listing.asides.len(),
        }
    }

    /// The case to label next, but for the one that is open.
    #[must_use]
    pub fn next_case(&self, here: Option<&Subject>) -> Option<Subject> {
        let mut waiting = self.listing.as_ref()?.waiting.iter().map(WaitingLine::subject);
        waiting.find(|one| Some(one) != here)
    }

    /// How many wait for a person's look.
    #[must_use]
    pub fn cases_left(&self) -> u64 {
        self.listing.as_ref().map_or(0, |listing| listing.waits)
    }

    /// The models whose curves lie over one another: the chosen one, then those that are marked.
    #[must_use]
    pub fn compared(&self) -> Vec<&super::library::ModelLine> {
        let Some(listing) = &self.listing else { return Vec::new() };
        let chosen = listing.models.iter().filter(|one| Some(one.id.as_str()) == self.chosen());
        let marked = listing
            .models
            .iter()
            .filter(|one| self.marked.contains(&one.id) && Some(one.id.as_str()) != self.chosen());
        chosen.chain(marked).take(LAID_OVER_MAX).collect()
    }
}

/// The value of a field; all of them together where none is named.
fn field_of(field: &str, fields: &[(&str, &str)]) -> Option<String> {
    if field.is_empty() {
        return Some(fields.iter().map(|(_, value)| *value).collect::<Vec<_>>().join(" "));
    }
    fields.iter().find(|(name, _)| *name == field).map(|(_, value)| (*value).to_owned())
}

impl App {
    /// Whether rows of the library are on the screen.
    #[must_use]
    pub fn on_shelf(&self) -> bool {
        self.view == View::Data && self.shelf.tab != Tab::Work
    }

    /// Shows a part of the data's screen.
    pub(super) fn show_tab(&mut self, tab: Tab) {
        self.shelf.tab = tab;
        self.set_filter(String::new());
        (self.top, self.sideways) = (0, 0);
        self.arrange_shelf();
    }

    pub(super) fn arrange_shelf(&mut self) {
        let filter = self.filters[View::Data.tab()].clone();
        self.shelf.arrange(&filter);
    }

    /// Asks for what of the library is on the screen.
    pub(super) fn ask_the_library(&mut self, effects: &mut Vec<Effect>) {
        if !self.on_shelf() || self.frozen {
            return;
        }
        let now = self.at.0;
        if self.shelf.asked.is_none_or(|at| now.saturating_sub(at) >= LOOK_EACH_MS) {
            self.shelf.asked = Some(now);
            effects.push(Effect::Library(Wish::Look));
        }
        if self.shelf.tab == Tab::Predictions
            && let Some(id) = self.shelf.chosen().map(str::to_owned)
            && self.shelf.asked_near.as_ref() != Some(&id)
        {
            self.shelf.asked_near = Some(id.clone());
            effects.push(Effect::Library(Wish::Near(id)));
        }
    }

    /// Takes what is told of the library.
    pub(super) fn told(&mut self, told: Told) {
        match told {
            Told::Absent(why) => self.shelf.absent = Some(why),
            Told::Listing(listing) => {
                self.shelf.absent = None;
                self.shelf.listing = Some(listing);
                self.arrange_shelf();
            }
            Told::Near(id, cases) => self.shelf.near = Some((id, cases)),
            Told::Busy(how) => self.shelf.busy = Some(how),
            Told::Done(result) => {
                self.shelf.busy = None;
                // What was done is seen at once.
                self.shelf.asked = None;
                if let Some(viewer) = self.viewer.as_deref_mut().filter(|_| result.is_ok()) {
                    viewer.touched = false;
                }
                self.say(result.unwrap_or_else(|why| why));
            }
            of_image => self.told_of_image(of_image),
        }
    }

    /// Carries out what a key means on the data's screen; says whether it means something.
    pub(super) fn act_on_data(&mut self, action: Action, effects: &mut Vec<Effect>) -> bool {
        match action {
            Action::NextPane => self.show_tab(self.shelf.tab.next()),
            Action::Rejects => self.show_tab(Tab::Rejects),
            Action::Preview => self.open_chosen(true, effects),
            Action::AddData => self.ask_about(ADD, Targets::Library(vec!["library".into()])),
            Action::Verify => {
                let targets = Targets::Library(vec!["library".into()]);
                if let Ok(Some(plan)) = Plan::of("verify", "", targets) {
                    self.ask_whether(plan);
                }
            }
            _ if !self.on_shelf() => return false,
            Action::Open => self.open_chosen(false, effects),
            Action::Mark => {
                self.mark_model();
                self.choose(|at, _| at + 1);
            }
            Action::MarkAll => self.say("models are marked one by one, to compare them"),
            Action::Sort | Action::Reverse => self.say("the newest stand first"),
            Action::Copy => {
                if let Some(id) = self.shelf.chosen().map(str::to_owned) {
                    self.say(format!("copied {id}"));
                    effects.push(Effect::Copy(id));
                }
            }
            Action::Requeue | Action::SubmitAgain | Action::Why => {
                self.say("these are no jobs; Tab leads to them");
            }
            _ => return false,
        }
        true
    }

    /// The models that are marked, or the one that is chosen.
    pub(super) fn models_meant(&self) -> Option<Targets> {
        if self.shelf.tab != Tab::Models {
            return None;
        }
        let marked: Vec<String> = self.shelf.marked.iter().cloned().collect();
        let chosen = || self.shelf.chosen().map(|id| vec![id.to_owned()]);
        Some(marked).filter(|marked| !marked.is_empty()).or_else(chosen).map(Targets::Library)
    }

    fn mark_model(&mut self) {
        let Some(id) = self.shelf.chosen().map(str::to_owned) else { return };
        if self.shelf.tab != Tab::Models {
            self.say("models are marked, to compare them");
        } else if !self.shelf.marked.remove(&id) {
            if self.shelf.marked.len() + 1 < LAID_OVER_MAX {
                self.shelf.marked.insert(id);
            } else {
                self.say(format!("{LAID_OVER_MAX} at once can be told apart; unmark one"));
            }
        }
    }

    fn open_chosen(&mut self, deidentified: bool, effects: &mut Vec<Effect>) {
        let kind = match self.shelf.tab {
            Tab::Series => Kind::Series,
            Tab::Samples => Kind::Sample,
            Tab::Predictions => Kind::Prediction,
            Tab::Models => return self.say("Space marks models to compare; x approves or retires"),
            Tab::Rejects => return self.say_why_aside(),
            Tab::Work => return self.say("Tab leads to the series and samples; p opens one"),
        };
        match self.shelf.chosen().map(str::to_owned) {
            Some(id) => self.open_image(Subject { kind, id }, deidentified, effects),
            None => self.say("nothing is chosen"),
        }
    }

    fn say_why_aside(&mut self) {
        let aside = self.shelf.listing.as_ref().and_then(|listing| {
            listing.asides.iter().find(|one| Some(one.id.as_str()) == self.shelf.chosen())
        });
        let sentence = aside.map_or_else(|| "nothing is chosen".into(), |one| one.sentence.clone());
        self.say(sentence);
    }
}

#[cfg(test)]
mod tests {
    use gantry_library::LabelState;

    use super::*;
    use crate::app::library::SampleLine;

    fn sample(id: &str) -> SampleLine {
        SampleLine {
            state: LabelState::Auto,
            id: id.into(),
            series: "s1".into(),
            label: "lungs".into(),
            side: "train",
            author: None,
            rejected: None,
            volume_ml: 1.0,
            size: [1; 3],
            confidence: None,
            at_ms: 0,
        }
    }

    #[test]
    fn the_next_case_is_the_first_that_waits_but_for_the_open_one() {
        let waiting = [("s2", Some("b")), ("s1", None), ("s3", Some("c"))]
            .map(|(series, sample)| WaitingLine {
                series: series.into(),
                sample: sample.map(str::to_owned),
            })
            .to_vec();
        let subject = |kind, id: &str| Subject { kind, id: id.into() };
        let listing = Listing { waiting, waits: 3, ..Listing::default() };
        let shelf = Shelf { listing: Some(Arc::new(listing)), ..Shelf::default() };
        assert_eq!(shelf.cases_left(), 3);
        for (here, next) in [
            (None, subject(Kind::Sample, "b")),
            (Some(subject(Kind::Sample, "b")), subject(Kind::Series, "s1")),
            (Some(subject(Kind::Series, "s2")), subject(Kind::Sample, "b")),
        ] {
            assert_eq!(shelf.next_case(here.as_ref()), Some(next), "{here:?}");
        }
        assert_eq!(Shelf::default().next_case(None), None);
    }

    #[test]
    fn a_part_lists_what_fits_and_keeps_its_choice() {
        let samples = (0..5).map(|n| sample(&format!("m{n}"))).collect();
        let listing = Listing { samples, ..Listing::default() };
        let listing = Some(Arc::new(listing));
        let mut shelf = Shelf { listing, tab: Tab::Samples, ..Shelf::default() };
        for (filter, count, chosen) in [
            ("", 5, Some("m0")),
            ("sample:m3", 1, Some("m3")),
            ("", 5, Some("m3")),
            ("label:liver", 0, None),
            ("m1|m2 !m1", 1, Some("m2")),
        ] {
            shelf.arrange(filter);
            assert_eq!((shelf.shown().len(), shelf.chosen()), (count, chosen), "{filter}");
        }
    }
}
