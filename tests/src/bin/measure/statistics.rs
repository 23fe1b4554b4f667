//! Medians, quantiles, and what the machine says of itself.
//!
//! A number of a report is the median over rounds; a quantile is taken within a round, over single
//! events, and the report has the median of the rounds' quantiles. Memory is what the kernel counts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The middle one; of an even number, the upper of the two.
///
/// # Panics
/// Where there is none.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 500)
}

/// The value below which so many thousandths of all lie.
///
/// # Panics
/// Where there is none.
pub(crate) fn quantile(values: &[f64], permille: usize) -> f64 {
    assert!(!values.is_empty(), "nothing was measured");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * permille / 1000).min(sorted.len() - 1)]
}

/// The median over rounds of what each gave.
pub(crate) fn over_rounds(rounds: usize, mut round: impl FnMut() -> Result<f64>) -> Result<f64> {
    let values: Vec<f64> = (0..rounds).map(|_| round()).collect::<Result<_>>()?;
    Ok(median(&values))
}

/// How long something took, in seconds.
pub(crate) fn seconds<T>(what: impl FnOnce() -> Result<T>) -> Result<f64> {
    let start = Instant::now();
    what()?;
    Ok(start.elapsed().as_secs_f64())
}

/// A duration in milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// One of the kernel's counts of a process's memory, as `VmRSS` or `VmHWM`, in bytes.
pub(crate) fn memory(process: &str, count: &str) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(count)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    let kib: u64 = kib.with_context(|| format!("{path} has no {count}"))?.parse()?;
    Ok(kib * 1024)
}

/// How many cores this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The machine and how the program was built, in one line.
pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let unknown = || "unknown processor".to_owned();
    let processor = value(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown);
    let memory = value(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    format!(
        "{} cores of {processor}, {} GiB, Linux {}, profile {profile}",
        cores(),
        kib >> 20,
        kernel.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        for (permille, expected) in [(0, 1.0), (500, 51.0), (990, 100.0), (1000, 100.0)] {
            assert!((quantile(&values, permille) - expected).abs() < 0.5, "{permille}");
        }
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 0.5);
    }

    #[test]
    fn the_kernel_counts_this_process() {
        assert!(memory("self", "VmRSS").is_ok_and(|bytes| bytes > 1 << 20));
        assert!(machine().contains("cores of"));
    }
}
