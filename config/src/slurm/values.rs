//! Values as Slurm writes them: times, sizes, arrays, dependencies, patterns of file names.

use gantry_model::{
    Array, Dependency, DependencyKind, DependencyScope, JobId, MemoryMib, Millis, Warning,
};

/// Elements of an array that are written out to be read as gantry writes them: what a step leaves.
const STEPS_MAX: u32 = 10_000;

/// `minutes`, `minutes:seconds`, `hours:minutes:seconds`, `days-hours[:minutes[:seconds]]`; nothing for
/// no limit.
pub(super) fn time(text: &str) -> Result<Option<Millis>, String> {
    if ["UNLIMITED", "INFINITE"].iter().any(|word| text.eq_ignore_ascii_case(word)) || text == "0" {
        return Ok(None);
    }
    let wrong =
        || format!("{text:?} is no time; write minutes, hours:minutes:seconds or days-hours");
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (days.parse::<u64>().map_err(|_| wrong())?, Some(rest)),
        None => (0, None),
    };
    let parts: Vec<u64> = rest
        .unwrap_or(text)
        .split(':')
        .map(|part| part.parse().map_err(|_| wrong()))
        .collect::<Result<_, _>>()?;
    let seconds = match (rest.is_some(), &parts[..]) {
        (true, [hours]) => Some((*hours, 0, 0)),
        (true, [hours, minutes]) => Some((*hours, *minutes, 0)),
        (_, [hours, minutes, seconds]) => Some((*hours, *minutes, *seconds)),
        (false, [minutes]) => Some((0, *minutes, 0)),
        (false, [minutes, seconds]) => Some((0, *minutes, *seconds)),
        _ => None,
    };
    let (hours, minutes, seconds) = seconds.ok_or_else(wrong)?;
    let hours = days.checked_mul(24).and_then(|of_days| of_days.checked_add(hours));
    let minutes = hours.and_then(|hours| hours.checked_mul(60)?.checked_add(minutes));
    let seconds = minutes.and_then(|minutes| minutes.checked_mul(60)?.checked_add(seconds));
    let millis = seconds.and_then(|seconds| seconds.checked_mul(1000)).ok_or_else(wrong)?;
    Ok((millis > 0).then_some(Millis(millis)))
}

/// A size: MiB where no unit is written. What is less than one MiB counts as one.
pub(super) fn size(text: &str) -> Result<MemoryMib, String> {
    let wrong = || format!("{text:?} is no amount of memory; write it as 4G or 512M");
    let letters = text.trim_end_matches(['B', 'b']);
    let digits = letters.find(|c: char| !c.is_ascii_digit()).unwrap_or(letters.len());
    let (number, unit) = letters.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let mib = match unit {
        "K" | "k" => Some(number.div_ceil(1024)),
        "" | "M" | "m" => Some(number),
        "G" | "g" => number.checked_mul(1 << 10),
        "T" | "t" => number.checked_mul(1 << 20),
        _ => None,
    };
    mib.map(MemoryMib).ok_or_else(wrong)
}

/// `0-15`, `1,3,7-12`, `0-15:4`, each with `%4` behind it for at most four at once.
pub(super) fn array(text: &str) -> Result<Array, String> {
    let wrong =
        || format!("{text:?} is no array; write 0-15, 1,3,7-12 or 0-15:4, and %4 behind it");
    let (list, cap) = text.split_once('%').map_or((text, None), |(list, cap)| (list, Some(cap)));
    let mut parts = Vec::new();
    for part in list.split(',') {
        let Some((range, step)) = part.split_once(':') else {
            parts.push(part.to_owned());
            continue;
        };
        let (first, last) = range.split_once('-').ok_or_else(wrong)?;
        let numbers = (first.parse::<u32>(), last.parse::<u32>(), step.parse::<u32>());
        let (Ok(first), Ok(last), Ok(step @ 1..)) = numbers else { return Err(wrong()) };
        if first > last || (last - first) / step >= STEPS_MAX {
            return Err(wrong());
        }
        parts.extend((first..=last).step_by(step as usize).map(|index| index.to_string()));
    }
    let cap = cap.map_or_else(String::new, |cap| format!("%{cap}"));
    format!("{}{cap}", parts.join(",")).parse::<Array>().map_err(|reject| reject.sentence)
}

/// `afterok:12:13,afterany:14`.
pub(super) fn dependencies(text: &str) -> Result<Vec<Dependency>, String> {
    if text.contains('?') {
        return Err("either of several jobs cannot be waited for; wait for all of them".into());
    }
    let mut all = Vec::new();
    for part in text.split(',') {
        let (word, jobs) = part.split_once(':').unwrap_or((part, ""));
        let (kind, scope) = match word {
            "afterok" => (DependencyKind::Ok, DependencyScope::Job),
            "afterany" => (DependencyKind::Any, DependencyScope::Job),
            "afternotok" => (DependencyKind::Fail, DependencyScope::Job),
            "aftercorr" => (DependencyKind::Ok, DependencyScope::Element),
            "singleton" => {
                return Err(
                    "one job of a name at a time is not known here; make the jobs wait for one another with --dependency"
                        .into(),
                );
            }
            other => {
                return Err(format!(
                    "{other:?} is not known here; there are afterok, afterany, afternotok and aftercorr"
                ));
            }
        };
        for job in jobs.split(':') {
            let job: JobId = job.parse().map_err(|_| {
                format!("{job:?} is no job of gantry; name it as gantry submit has, as afterok:j12")
            })?;
            all.push(Dependency { job, kind, scope });
        }
    }
    Ok(all)
}

/// `[B:]USR1@60`: a signal so many seconds before the limit.
pub(super) fn warning(text: &str) -> Result<Warning, String> {
    let rest = match text.split_once(':') {
        Some(("B", rest)) => rest,
        Some(_) => return Err("only B: may stand before the signal; gantry has no steps".into()),
        None => text,
    };
    let (signal, seconds) = rest.split_once('@').unwrap_or((rest, "60"));
    let signal = signal.trim_start_matches("SIG");
    format!("{signal}@{seconds}s").parse::<Warning>().map_err(|reject| reject.sentence)
}

/// `gpu:2`, `gpu:a100:2`, or the same without `gpu:`: how many, and of which model.
pub(super) fn gpus(text: &str) -> Result<(u32, Option<String>), String> {
    let wrong = || format!("{text:?} is no number of gpus; write 2 or a100:2");
    let (model, count) = match text.rsplit_once(':') {
        Some((model, count)) => (Some(model), count),
        None => (None, text),
    };
    match count.parse() {
        Ok(count) => Ok((count, model.map(str::to_owned))),
        // A model without a number means one of it.
        Err(_) if model.is_none() && text.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            Ok((1, Some(text.to_owned())))
        }
        Err(_) => Err(wrong()),
    }
}

/// A name of a file as Slurm writes it, in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Job,
    Index,
    Name,
}

/// Reads a file name's pattern; `user` is who submits.
pub(super) fn pattern(text: &str, user: &str) -> Result<Vec<Part>, String> {
    let (mut parts, mut plain) = (Vec::new(), String::new());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            plain.push(letter);
            continue;
        }
        let part = match letters.next() {
            Some('j' | 'A') => Part::Job,
            Some('a') => Part::Index,
            Some('x') => Part::Name,
            Some('u') => {
                plain.push_str(user);
                continue;
            }
            Some('%') => {
                plain.push('%');
                continue;
            }
            other => {
                let shown = other.map_or_else(String::new, |letter| letter.to_string());
                return Err(format!(
                    "%{shown} means nothing here; %j, %A, %a, %x, %u and %% do, without a width"
                ));
            }
        };
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain)));
        }
        parts.push(part);
    }
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sizes_and_arrays_as_slurm_writes_them() {
        for (text, seconds) in [
            ("90", Some(5400)),
            ("5:30", Some(330)),
            ("2:00:00", Some(7200)),
            ("1-0", Some(86_400)),
            ("2-12:30", Some(2 * 86_400 + 45_000)),
            ("1-00:00:01", Some(86_401)),
            ("UNLIMITED", None),
            ("0", None),
        ] {
            assert_eq!(time(text), Ok(seconds.map(Millis::from_seconds)), "{text}");
        }
        for text in ["", "x", "1:2:3:4", "1-2:3:4:5", "-5", "99999999999999999999"] {
            assert!(time(text).is_err(), "{text}");
        }
        for (text, mib) in [("4G", 4096), ("500", 500), ("1K", 1), ("2048K", 2), ("1TB", 1 << 20)] {
            assert_eq!(size(text), Ok(MemoryMib(mib)), "{text}");
        }
        assert!(size("4X").is_err() && size("").is_err() && size("99999999999999999T").is_err());
        for (text, ours) in
            [("0-15", "0-15"), ("1,3,7-9%2", "1,3,7-9%2"), ("0-8:4", "0,4,8"), ("5", "5")]
        {
            assert_eq!(array(text).unwrap().to_string(), ours, "{text}");
        }
        for text in ["", "a", "9-1:2", "0-9:0", "0-4000000000:1", "0-3%x"] {
            assert!(array(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dependencies_signals_and_gpus_as_slurm_writes_them() {
        use DependencyKind::Ok as Done;
        let found = dependencies("afterok:12:j13,aftercorr:14").unwrap();
        let shown: Vec<(u64, DependencyKind, DependencyScope)> =
            found.iter().map(|one| (one.job.0, one.kind, one.scope)).collect();
        assert_eq!(
            shown,
            [
                (12, Done, DependencyScope::Job),
                (13, Done, DependencyScope::Job),
                (14, Done, DependencyScope::Element)
            ]
        );
        for text in ["singleton", "after:3", "afterok:1?afterok:2", "afterok:x", "afterok"] {
            assert!(dependencies(text).is_err(), "{text}");
        }
        assert_eq!(warning("B:USR1@120").unwrap().to_string(), "USR1@2m");
        assert_eq!(warning("SIGTERM").unwrap().to_string(), "TERM@1m");
        assert!(warning("R:USR1@5").is_err());
        for (text, count, model) in
            [("2", 2, None), ("a100:3", 3, Some("a100")), ("h100", 1, Some("h100"))]
        {
            assert_eq!(gpus(text), Ok((count, model.map(str::to_owned))), "{text}");
        }
        assert!(gpus("a100:x").is_err() && gpus("").is_err());
    }

    #[test]
    fn patterns_of_file_names() {
        use Part::{Index, Job, Name, Text};
        let text = |text: &str| Text(text.to_owned());
        assert_eq!(
            pattern("logs/%x-%A_%a.%u.100%%", "ada").unwrap(),
            [text("logs/"), Name, text("-"), Job, text("_"), Index, text(".ada.100%")]
        );
        for wrong in ["%N", "%4a", "x%"] {
            assert!(pattern(wrong, "ada").is_err(), "{wrong}");
        }
    }
}
