//! How people write the parts of a job, the same in a flag and in a job file.
//!
//! What has a type in the model is read by the model; here stands what only a person writes: `0.25`
//! for a share of a GPU, `elements:any:prepare` for a dependency, `matlab=2` for a licence and
//! `1,75` for exit codes. No number passes through a float.

use std::collections::BTreeSet;
use std::str::FromStr;

use gantry_model::{
    DependencyKind, DependencyScope, GPU_WHOLE, GpuDemand, GpuPart, MemoryMib, Reject,
};

/// How many GPUs a task asks for: whole ones, or a share of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuAmount {
    /// How many; 1 for a share.
    pub count: u32,
    /// The share in thousandths; absent for whole ones.
    pub permille: Option<u16>,
}

impl FromStr for GpuAmount {
    type Err = Reject;

    /// Reads `2`, or `0.25` for a share of one.
    fn from_str(text: &str) -> Result<Self, Reject> {
        let fail = || {
            Reject::invalid(format!(
                "{text:?} is not an amount of gpus; write whole ones as 2, or a share of one in up to three decimals as 0.25"
            ))
        };
        let Some((whole, decimals)) = text.split_once('.') else {
            return Ok(Self { count: text.parse().map_err(|_| fail())?, permille: None });
        };
        let digits = decimals.bytes().all(|byte| byte.is_ascii_digit());
        if !matches!(whole, "" | "0") || !digits || !(1..=3).contains(&decimals.len()) {
            return Err(fail());
        }
        let permille: u16 = format!("{decimals:0<3}").parse().map_err(|_| fail())?;
        if permille == 0 || permille >= GPU_WHOLE {
            return Err(fail());
        }
        Ok(Self { count: 1, permille: Some(permille) })
    }
}

impl GpuAmount {
    /// Puts together what was said of the GPUs.
    ///
    /// # Errors
    /// Where both a share and a MIG instance were asked for.
    pub fn demand(
        self,
        mig: Option<&str>,
        model: Option<&str>,
        memory: MemoryMib,
    ) -> Result<GpuDemand, Reject> {
        let part = match (self.permille, mig) {
            (None, None) => GpuPart::Whole,
            (Some(permille), None) => GpuPart::Share(permille),
            (None, Some(profile)) => GpuPart::Mig(profile.to_owned()),
            (Some(_), Some(profile)) => {
                return Err(Reject::invalid(format!(
                    "a share of a gpu and the MIG instance {profile:?} were asked for; ask for one of the two"
                )));
            }
        };
        Ok(GpuDemand { part, model: model.map(str::to_owned), memory })
    }
}

/// A dependency as written; whom it names is decided by who reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DependencyText {
    /// The other job, by id or by its name within a file.
    pub job: String,
    /// When it counts as met.
    pub kind: DependencyKind,
    /// Whether it goes element by element.
    pub scope: DependencyScope,
}

/// Reads a kind of dependency.
///
/// # Errors
/// Where there is no such kind.
pub(super) fn kind(word: &str) -> Result<DependencyKind, Reject> {
    match word {
        "ok" => Ok(DependencyKind::Ok),
        "any" => Ok(DependencyKind::Any),
        "fail" => Ok(DependencyKind::Fail),
        other => Err(Reject::invalid(format!(
            "{other:?} is not a kind of dependency; write ok:JOB (done), any:JOB (ended) or fail:JOB (failed), each after elements: where it goes element by element"
        ))),
    }
}

impl FromStr for DependencyText {
    type Err = Reject;

    /// Reads `j12`, `ok:j12`, `any:j12`, `fail:j12`, each with `elements:` before it or after the
    /// kind.
    fn from_str(text: &str) -> Result<Self, Reject> {
        let (scope, rest) = match text.strip_prefix("elements:") {
            Some(rest) => (DependencyScope::Element, rest),
            None => (DependencyScope::Job, text),
        };
        let (kind, job) = match rest.split_once(':') {
            Some((word, job)) => (kind(word)?, job),
            None => (DependencyKind::Ok, rest),
        };
        let (scope, job) = match job.strip_prefix("elements:") {
            Some(job) => (DependencyScope::Element, job),
            None => (scope, job),
        };
        if job.is_empty() {
            return Err(Reject::invalid(format!(
                "the dependency {text:?} names no job; write it as ok:j12"
            )));
        }
        Ok(Self { job: job.to_owned(), kind, scope })
    }
}

/// A licence and how many of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LicenceText {
    /// The counter's name.
    pub name: String,
    /// How many each task takes.
    pub count: u32,
}

impl FromStr for LicenceText {
    type Err = Reject;

    /// Reads `matlab`, or `matlab=2`.
    fn from_str(text: &str) -> Result<Self, Reject> {
        let Some((name, count)) = text.split_once('=') else {
            return Ok(Self { name: text.to_owned(), count: 1 });
        };
        let count = count.parse().map_err(|_| {
            Reject::invalid(format!(
                "{count:?} is not a number of licences; write {text:?} as {name}=2"
            ))
        })?;
        Ok(Self { name: name.to_owned(), count })
    }
}

/// Exit codes that a further start may mend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryCodes(pub BTreeSet<u8>);

impl FromStr for RetryCodes {
    type Err = Reject;

    /// Reads `1,75`.
    fn from_str(text: &str) -> Result<Self, Reject> {
        let read = |part: &str| {
            part.trim().parse().ok().filter(|code| *code > 0).ok_or_else(|| {
                Reject::invalid(format!(
                    "{part:?} in {text:?} is not the exit code of a failure; write codes from 1 to 255 as 1,75"
                ))
            })
        };
        text.split(',').map(read).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_gpus_people_type() {
        let share = |permille| GpuAmount { count: 1, permille: Some(permille) };
        for (text, amount) in [
            ("0", GpuAmount::default()),
            ("8", GpuAmount { count: 8, permille: None }),
            ("0.25", share(250)),
            (".5", share(500)),
            ("0.125", share(125)),
            ("0.001", share(1)),
        ] {
            assert_eq!(text.parse::<GpuAmount>().unwrap(), amount, "{text}");
        }
        for text in ["", "-1", "1.5", "0.0", "0.0001", "0.", "1.0", "0.x", "half", "0.+5"] {
            let sentence = text.parse::<GpuAmount>().unwrap_err().sentence;
            assert!(sentence.contains("is not an amount of gpus"), "{text}: {sentence}");
        }
        assert!(share(250).demand(Some("1g.10gb"), None, MemoryMib(0)).is_err());
    }

    #[test]
    fn dependencies_people_type() {
        use DependencyKind::{Any, Fail, Ok as Done};
        use DependencyScope::{Element, Job};
        for (text, job, kind, scope) in [
            ("j3", "j3", Done, Job),
            ("ok:3", "3", Done, Job),
            ("any:prepare", "prepare", Any, Job),
            ("fail:j3", "j3", Fail, Job),
            ("elements:j12", "j12", Done, Element),
            ("elements:any:j12", "j12", Any, Element),
            ("any:elements:j12", "j12", Any, Element),
        ] {
            let expected = DependencyText { job: job.into(), kind, scope };
            assert_eq!(text.parse::<DependencyText>().unwrap(), expected, "{text}");
        }
        for text in ["", "done:j3", "ok:", "elements:", "any:elements:"] {
            assert!(text.parse::<DependencyText>().is_err(), "{text}");
        }
    }

    #[test]
    fn licences_and_codes_people_type() {
        let licence =
            |text: &str| text.parse::<LicenceText>().map(|found| (found.name, found.count));
        assert_eq!(licence("matlab").unwrap(), ("matlab".into(), 1));
        assert_eq!(licence("matlab=3").unwrap(), ("matlab".into(), 3));
        assert!(licence("matlab=x").is_err());
        assert_eq!("1, 75".parse::<RetryCodes>().unwrap().0, [1, 75].into());
        for text in ["", "0", "256", "1,,2", "x"] {
            assert!(text.parse::<RetryCodes>().is_err(), "{text}");
        }
    }
}
