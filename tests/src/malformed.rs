//! Malformed input, made from what is sound: a target is tried with its corpus, with inputs that once
//! did harm, and with as many mutations of both as there is time for.
//!
//! What a target must not do is panic, take long, or take much memory, whatever it is given. Each
//! mutation follows from the run's seed and its own number. What did harm is written to a file whose
//! path is said, with the seed; such a file belongs into the target's folder of kept inputs, which are
//! tried first by every run. No coverage is measured: cargo-fuzz needs a nightly compiler, and readers
//! of formats whose sound files are known are reached well from those files. That they were is
//! counted: how many inputs went further than the first check of the target.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::chance::Chance;

/// Executions of each target, instead of as many as the short form has time for.
const EXECUTIONS: &str = "GANTRY_EXECUTIONS";
/// What all mutations follow from, instead of [`SEED`].
const SEED_VARIABLE: &str = "GANTRY_SEED";
const SEED: u64 = 20_261_130;
/// The short form: so long for each target, and so often at most.
const SHORT: Duration = Duration::from_secs(2);
const SHORT_EXECUTIONS: u64 = 50_000;
/// Fewer executions are no test, however slow the machine is.
const EXECUTIONS_MIN: u64 = 50;
/// What takes longer does not end, as far as anybody who waits for it can say.
const LONG: Duration = Duration::from_secs(20);
/// Bytes of one input.
const INPUT_BYTES_MAX: usize = 1 << 20;
/// What one execution may take of memory that is used, and of memory that is only asked for: inputs are
/// of some KiB, and an allocator reserves a GiB at once.
const USED_KIB_MAX: u64 = 512 << 10;
const RESERVED_KIB_MAX: u64 = 4 << 20;

/// Numbers at which lengths and counts go wrong.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x0001_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// The same in texts, and what else does harm there.
const WORDS: [&str; 22] = [
    "0",
    "-1",
    "1",
    "256",
    "65536",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "9999999999999999999999999",
    "1e308",
    "-1e-320",
    "nan",
    "inf",
    "\u{1b}[2J\u{1b}]0;x\u{7}",
    "\u{202e}",
    "\0",
    "../../etc/passwd",
    "é",
    "\r\n",
    "[",
    "{",
    "\"",
];

/// What is given malformed input.
#[allow(missing_debug_implementations, reason = "it holds a closure")]
pub struct Target<'a> {
    /// Its name, and its folder's.
    pub name: &'static str,
    /// Sound inputs; each goes further than the first check.
    pub corpus: Vec<Vec<u8>>,
    /// Makes checksums and lengths fit again where a mutation is to get past them.
    pub mend: fn(&mut Vec<u8>, &mut Chance),
    /// Takes an input; says whether it went further than the first check.
    pub take: &'a dyn Fn(&[u8]) -> bool,
    /// So many of a hundred inputs have to go further than that.
    pub further_percent: u64,
}

/// Leaves a mutation as it is.
pub fn unmended(_: &mut Vec<u8>, _: &mut Chance) {}

/// One at a time: what an execution takes of memory is told from what the process has.
static TURN: Mutex<()> = Mutex::new(());

impl Target<'_> {
    /// Tries the target; says what was done on standard error.
    ///
    /// # Panics
    /// Where an input does harm, or not enough was tried.
    pub fn check(&self, kept: &Path, harmful: &Path) {
        self.check_for(SHORT, kept, harmful);
    }

    fn check_for(&self, short: Duration, kept: &Path, harmful: &Path) {
        let _turn: MutexGuard<'_, ()> = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = number(EXECUTIONS);
        let seed = number(SEED_VARIABLE).unwrap_or(SEED);
        let mut run = Run::start(self, seed, harmful);
        for (index, sound) in self.corpus.iter().enumerate() {
            assert!(run.one(sound, None), "{}: sound input {index} was turned away", self.name);
        }
        let kept = inputs(&kept.join(self.name));
        for input in &kept {
            run.one(input, None);
        }
        let begun = Instant::now();
        let (mut count, mut further) = (0_u64, 0_u64);
        let enough = |count: u64| match asked {
            Some(asked) => count >= asked,
            None => {
                count >= SHORT_EXECUTIONS || count >= EXECUTIONS_MIN && begun.elapsed() >= short
            }
        };
        while !enough(count) {
            let mut chance = Chance::new(seed ^ count.rotate_left(20));
            let input = self.mutated(&mut chance);
            further += u64::from(run.one(&input, Some(count)));
            count += 1;
        }
        eprintln!(
            "{}: {count} executions of seed {seed} in {:.1} s, {} % went further than the first check, \
             the longest took {:.0} ms, at most {} MiB more were used; {} inputs of earlier runs",
            self.name,
            begun.elapsed().as_secs_f64(),
            further * 100 / count,
            run.longest.as_secs_f64() * 1000.0,
            run.used_kib / 1024,
            kept.len(),
        );
        assert!(count >= asked.unwrap_or(EXECUTIONS_MIN), "{count} executions");
        assert!(
            further * 100 >= count * self.further_percent,
            "{}: {further} of {count} inputs went further than the first check",
            self.name
        );
    }

    /// One of the corpus, changed in one to six places.
    fn mutated(&self, chance: &mut Chance) -> Vec<u8> {
        let mut bytes = chance.of(&self.corpus).clone();
        for _ in 0..=chance.below(6).min(chance.below(6)) {
            change(&mut bytes, &self.corpus, chance);
        }
        (self.mend)(&mut bytes, chance);
        bytes.truncate(INPUT_BYTES_MAX);
        bytes
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is {text:?}, which is no number")))
}

/// The files of a folder, in the order of their names.
fn inputs(folder: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("a folder that is listed").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a kept input")).collect()
}

/// Changes bytes in one place.
fn change(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], chance: &mut Chance) {
    let at = chance.place(bytes.len());
    let some = |chance: &mut Chance, length: usize| {
        // Short stretches mostly: whole files are seldom what is wrong.
        let most = if chance.below(4) == 0 { length } else { length.min(16) };
        chance.place(most)
    };
    let count = some(chance, bytes.len() - at);
    match chance.below(12) {
        0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << chance.below(8)),
        1 => bytes.iter_mut().skip(at).take(count).for_each(|byte| *byte = chance.number() as u8),
        2 => drop(bytes.drain(at..at + count)),
        3 => {
            let again = bytes[at..at + count].to_vec();
            let times = if chance.below(8) == 0 { 1 + chance.below(2000) as usize } else { 1 };
            let times = times.min(INPUT_BYTES_MAX / again.len().max(1));
            bytes.splice(at..at, again.repeat(times));
        }
        4 => bytes.truncate(at),
        5 => {
            let other = chance.of(corpus);
            let from = chance.place(other.len());
            let length = some(chance, other.len() - from);
            bytes.splice(at..at + count, other[from..from + length].iter().copied());
        }
        6..=8 => lie(bytes, at, chance),
        9 => digits(bytes, at, chance),
        10 => {
            let word = chance.of(&WORDS).as_bytes();
            let times = if chance.below(16) == 0 { chance.below(5000) as usize } else { 1 };
            bytes.splice(at..at, word.repeat(times));
        }
        _ => lines(bytes, chance),
    }
    bytes.truncate(INPUT_BYTES_MAX);
}

/// A number of one, two, four or eight bytes, in either order.
fn lie(bytes: &mut [u8], at: usize, chance: &mut Chance) {
    let number = chance.of(&NUMBERS).wrapping_add(chance.below(3)).wrapping_sub(1);
    let width = 1 << chance.below(4);
    let mut written = number.to_le_bytes()[..width].to_vec();
    if chance.below(2) == 0 {
        written.reverse();
    }
    bytes.iter_mut().skip(at).zip(written).for_each(|(byte, new)| *byte = new);
}

/// Another number where the next digits are.
fn digits(bytes: &mut Vec<u8>, at: usize, chance: &mut Chance) {
    let Some(begin) = bytes[at..].iter().position(u8::is_ascii_digit).map(|next| at + next) else {
        return;
    };
    let length = bytes[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    bytes.splice(begin..begin + length, chance.of(&WORDS).bytes());
}

/// A line goes, comes twice, or changes places with another.
fn lines(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let mut lines: Vec<Vec<u8>> =
        bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    if lines.is_empty() {
        return;
    }
    let (one, other) =
        (chance.below(lines.len() as u64) as usize, chance.below(lines.len() as u64) as usize);
    match chance.below(3) {
        0 => drop(lines.remove(one)),
        1 => lines.insert(other, lines[one].clone()),
        _ => lines.swap(one, other),
    }
    *bytes = lines.concat();
}

/// What is watched while a target is tried.
struct Run<'a> {
    target: &'a Target<'a>,
    seed: u64,
    harmful: PathBuf,
    file: File,
    begins: Sender<Option<PathBuf>>,
    memory: Memory,
    longest: Duration,
    used_kib: u64,
}

impl<'a> Run<'a> {
    fn start(target: &'a Target<'a>, seed: u64, harmful: &Path) -> Self {
        fs::create_dir_all(harmful).expect("a folder for harmful inputs");
        let (begins, begun) = channel::<Option<PathBuf>>();
        let name = target.name;
        // It ends with the run, whose sender it hears.
        std::thread::spawn(move || {
            let mut running: Option<PathBuf> = None;
            loop {
                match begun.recv_timeout(LONG) {
                    Ok(next) => running = next,
                    Err(RecvTimeoutError::Timeout) => {
                        if let Some(path) = running {
                            eprintln!(
                                "{name}: an input of seed {seed} takes more than {LONG:?}; it is in {}",
                                path.display()
                            );
                            std::process::abort();
                        }
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        let harmful = harmful.join(format!("{name}-{seed}"));
        let file = File::create(&harmful).expect("a file for each input");
        let memory = Memory::now();
        Self { target, seed, harmful, file, begins, memory, longest: Duration::ZERO, used_kib: 0 }
    }

    /// Gives the target one input; says whether it went further than the first check.
    fn one(&mut self, input: &[u8], number: Option<u64>) -> bool {
        // Written before it is tried, as what ends this process says nothing more: a stack that is
        // too small, memory that is not there.
        let path = &self.harmful;
        let written = self.file.set_len(0).and_then(|()| self.file.write_all_at(input, 0));
        written.expect("a folder that can be written");
        let harm = |what: &str| -> ! {
            let kept = path.with_extension("harm");
            // It stays where it is, should that fail.
            let _ = fs::rename(path, &kept);
            let (name, seed) = (self.target.name, self.seed);
            panic!("{name}: {what}; execution {number:?} of seed {seed}, in {}", kept.display());
        };
        // An error means that the watch has ended, and so has the process.
        let _ = self.begins.send(Some(path.clone()));
        let start = Instant::now();
        let taken = catch_unwind(AssertUnwindSafe(|| (self.target.take)(input)));
        let took = start.elapsed();
        let _ = self.begins.send(None);
        let Ok(further) = taken else { harm("it panicked") };
        let after = Memory::now();
        if after.reserved_peak > self.memory.reserved_peak
            && after.reserved_peak > self.memory.reserved + RESERVED_KIB_MAX
        {
            harm(&format!("it asked for memory: {:?}, then {after:?}", self.memory));
        }
        if after.used_peak > self.memory.used_peak {
            let used = after.used_peak.saturating_sub(self.memory.used);
            if used > USED_KIB_MAX {
                harm(&format!("it used memory: {:?}, then {after:?}", self.memory));
            }
            self.used_kib = self.used_kib.max(used);
        }
        self.memory = after;
        self.longest = self.longest.max(took);
        further
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        // What did harm has another name.
        let _ = fs::remove_file(&self.harmful);
    }
}

/// What this process has of memory, in KiB.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    reserved: u64,
    reserved_peak: u64,
    used: u64,
    used_peak: u64,
}

impl Memory {
    fn now() -> Self {
        let text = fs::read_to_string("/proc/self/status").expect("a Linux with /proc");
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).expect("a size of this process")
        };
        Self {
            reserved: of("VmSize:"),
            reserved_peak: of("VmPeak:"),
            used: of("VmRSS:"),
            used_peak: of("VmHWM:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A target that has one of the faults that are looked for.
    fn tried(take: &dyn Fn(&[u8]) -> bool) -> Result<(), String> {
        let folder = tempfile::tempdir().expect("a folder");
        let target = Target {
            name: "faulty",
            corpus: vec![b"GOOD 1234 and more".to_vec()],
            mend: unmended,
            take,
            further_percent: 20,
        };
        let short = Duration::from_millis(300);
        let check = || target.check_for(short, folder.path(), folder.path());
        catch_unwind(AssertUnwindSafe(check))
            .map_err(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default())
    }

    #[test]
    fn faults_are_found_and_their_input_is_kept() {
        tried(&|bytes| bytes.starts_with(b"GOOD")).expect("nothing is wrong");
        let panics = |bytes: &[u8]| {
            assert!(!bytes.windows(4).any(|word| word == b"9999"), "a number that is too large");
            bytes.starts_with(b"GOOD")
        };
        let said = tried(&panics).expect_err("it panics");
        assert!(said.contains("it panicked") && said.contains("faulty-20261130.harm"), "{said}");
        let takes = |bytes: &[u8]| {
            if bytes.len() > 100 {
                let mut much = vec![0_u8; 1 << 30];
                much.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
                assert_eq!(std::hint::black_box(much)[4096], 1);
            }
            bytes.starts_with(b"GOOD")
        };
        let said = tried(&takes).expect_err("it takes memory");
        assert!(said.contains("it used memory"), "{said}");
        let first = Cell::new(true);
        let said = tried(&|_| first.replace(false)).expect_err("nothing else gets in");
        assert!(said.contains("went further"), "{said}");
        let said = tried(&|_| false).expect_err("nothing is sound");
        assert!(said.contains("was turned away"), "{said}");
    }
}
