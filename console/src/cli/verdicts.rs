//! What people say of samples: accept, reject with a reason, take back; a sample with all that was said
//! of it; and which case is labelled next.

use clap::Args;
use gantry_library::{Library, NextCase, Rule, SampleId, StateRecord, Verdict};
use gantry_model::At;
use serde_json::json;

use super::{completions, time};
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// Who says something of which sample.
#[derive(Debug, Args)]
struct Said {
    /// The sample.
    #[arg(add = completions::samples())]
    sample: String,
    /// Who decides.
    #[arg(long, env = "USER", value_name = "NAME", default_value = "")]
    by: String,
}

/// `gantry library accept`.
#[derive(Debug, Args)]
pub(super) struct Accept {
    #[command(flatten)]
    said: Said,
}

/// `gantry library reject`.
#[derive(Debug, Args)]
pub(super) struct Reject {
    #[command(flatten)]
    said: Said,
    /// Why; it stays with the sample.
    #[arg(long)]
    reason: String,
}

/// `gantry library undo`.
#[derive(Debug, Args)]
pub(super) struct Undo {
    #[command(flatten)]
    said: Said,
}

/// `gantry library next`.
#[derive(Debug, Args)]
pub(super) struct Next {
    /// Of the cases that have no label of a person for this; for anything where it is not given.
    #[arg(long)]
    label: Option<String>,
}

impl Accept {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the sample is unknown, or nobody is named.
    pub(super) fn run(&self, library: &Library, format: Format) -> Outcome {
        self.said.judge(library, &Verdict::Final, format)
    }
}

impl Reject {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the sample is unknown, or nobody or no reason is named.
    pub(super) fn run(&self, library: &Library, format: Format) -> Outcome {
        self.said.judge(library, &Verdict::Rejected(self.reason.clone()), format)
    }
}

impl Undo {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the sample is unknown, nobody is named, or there is nothing to take back.
    pub(super) fn run(&self, library: &Library, format: Format) -> Outcome {
        self.said.judge(library, &Verdict::Undone, format)
    }
}

impl Said {
    fn judge(&self, library: &Library, verdict: &Verdict, format: Format) -> Outcome {
        if self.by.is_empty() {
            return Err(Failure::usage("a verdict has an author; name yourself with --by"));
        }
        let id: SampleId = self.sample.parse().map_err(Failure::usage_of)?;
        let state = library.judge_sample(&id, verdict, &self.by).map_err(Failure::usage_of)?;
        let value = json!({ "sample": id, "state": state });
        format.print(
            "verdict",
            &value,
            || format!("sample {id}: {}", words(&state)),
            || id.to_string(),
        )?;
        Ok(0)
    }
}

/// A state as a line.
fn words(state: &StateRecord) -> String {
    let reason = state.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
    let at = time::clock(At(state.at_ms), time::now());
    format!("{} by {} at {at}{}", state.state.word(), state.by, output::clean(&reason))
}

/// Shows one sample, where it comes from and all that was said of it.
///
/// # Errors
/// Where the sample is unknown.
pub(super) fn show(library: &Library, sample: &str, format: Format) -> Outcome {
    let id: SampleId = sample.parse().map_err(Failure::usage_of)?;
    let record = library.sample(&id).map_err(Failure::usage_of)?;
    let states = library.sample_states(&record).map_err(Failure::trouble)?;
    let mut value = serde_json::to_value(&record).map_err(Failure::trouble)?;
    value["states"] = json!(states);
    let people = || {
        let text = serde_json::to_string_pretty(&record);
        let mut lines = vec![text.unwrap_or_else(|error| error.to_string())];
        lines.extend(states.iter().map(words));
        lines.join("\n")
    };
    format.print("sample", &value, people, || id.to_string())?;
    Ok(0)
}

impl Next {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a record of the library is damaged.
    pub(super) fn run(&self, library: &Library, format: Format) -> Outcome {
        let case = library.next_case(self.label.as_deref()).map_err(Failure::trouble)?;
        let quiet = || case.as_ref().map_or(String::new(), |case| case.series.to_string());
        let value = json!({ "case": case, "why": why(case.as_ref()) });
        let people = || match &case {
            Some(case) => format!("series {}\n{}", case.series, why(Some(case))),
            None => why(None),
        };
        format.print("next", &value, people, quiet)?;
        Ok(0)
    }
}

/// Why a case is the next.
fn why(case: Option<&NextCase>) -> String {
    let Some(case) = case else { return "a person has labelled every series".into() };
    let left = case.unlabelled;
    let of_those =
        |count: u64| if count == left { "none".into() } else { (left - count).to_string() };
    match (case.rule, &case.model, case.uncertainty) {
        (Rule::LeastSure, Some(model), Some(uncertainty)) => format!(
            "model {model} is least sure of it: {:.0} % uncertain; of {left} without a label by a person it has predicted {}",
            100.0 * uncertainty,
            of_those(case.unpredicted)
        ),
        (_, Some(model), _) => format!(
            "it is the oldest of {left} without a label by a person, of which model {model} has predicted none; gantry predict --model {model} --pending lets it choose"
        ),
        (_, None, _) => format!(
            "it is the oldest of {left} without a label by a person; once a model is approved, it chooses what it is least sure of"
        ),
    }
}
