//! What writers left behind and no record names: found first, removed then.
//!
//! A writer that is killed between an object and the record that is to name it leaves the object, and one
//! that is killed while it writes leaves a temporary file. Both take space for ever, unless somebody
//! removes them; nothing else is wrong with them. An object is left over where it is older than a while
//! and no record names it. All records are read for that, after the objects were listed, and one that is
//! damaged ends it: it may name any of them.
//!
//! Writers are at work meanwhile, on any host. One that has written an object names it soon after: the
//! object is young, and stays. One that finds its object there does not write it again, and the sweep must
//! not remove what it is about to name. So it makes an object that is older than half of the least age
//! young before it goes on ([`super::objects`]), and the sweep removes only what is still exactly as old as
//! it was when listed. Between a look and a removal there is a moment, in which a writer could refresh and
//! name; each of the two therefore claims the object while it does its part ([`super::claims`]). If the writer
//! comes first, the sweep finds another age and leaves the object; if the sweep comes first, the writer
//! finds none and writes it. It does not matter how long after the listing the removal is.
//!
//! Shards ([`super::shards`]) are left over once nobody has used them for that while, and at once where a
//! sample of theirs is gone. Whoever takes one makes its record young, which spares it as above; where the two
//! meet all the same, the reader finds its shard gone and makes it anew.
//!
//! What is promised holds for writers that name an object within half of the age that the sweep was given.
//! Ages are by the storage's clock where it tells one.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::at_once::at_once;
use crate::bucket::{Bucket, Entry};
use crate::claims::{CLAIMS, Claim};
use crate::error::LibraryError;
use crate::files;
use crate::ids::{ObjectHash, SampleId};
use crate::limits::{LEFTOVER_AGE_MIN, PUTS_MAX, TEMPORARY_AGE_MAX};
use crate::objects::Objects;
use crate::records::{BELOW, Records};
use crate::root::{KEPT, Library, now_ms};
use crate::shards::{SHARDS, ShardRecord};

/// How many there are, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// Something that was left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// The file, or the name within the bucket.
    pub place: PathBuf,
    /// How many bytes it has.
    pub bytes: u64,
    /// How old it is.
    pub age_s: u64,
    /// When it was changed last, in milliseconds since 1970, which tells whether it still is the same.
    #[serde(skip)]
    changed_ms: u64,
    /// The object that it is, or that it is the record of; none of a temporary file.
    #[serde(skip)]
    object: Option<ObjectHash>,
    #[serde(skip)]
    within: Within,
}

/// What holds something that was left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Folder,
    Bucket,
}

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Leftovers {
    /// Records that were read.
    pub records: u64,
    /// Objects that are there.
    pub objects: u64,
    /// Objects that no record names and that are young: their writers may be at work.
    pub young: Tally,
    /// Objects that no record names, in the order of their places.
    pub unnamed: Vec<Leftover>,
    /// Files that were begun and never got their names.
    pub temporary: Vec<Leftover>,
    /// Shards of prepared samples that nobody has used, or of which a sample is gone: their records, with
    /// the bytes of the shards and the time since their last use.
    pub shards: Vec<Leftover>,
    /// The objects that these shards are.
    #[serde(skip)]
    of_shards: Vec<Leftover>,
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Objects.
    pub objects: Tally,
    /// Temporary files.
    pub temporary: Tally,
    /// Shards of prepared samples.
    pub shards: Tally,
    /// What was found and is left, since a writer has come back to it or it is gone already.
    pub spared: u64,
}

impl Leftovers {
    /// All that is left over.
    pub fn all(&self) -> impl Iterator<Item = &Leftover> {
        self.unnamed.iter().chain(&self.temporary).chain(&self.shards)
    }

    /// Bytes of all that is left over.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.all().map(|one| one.bytes).sum()
    }
}

impl Library {
    /// Looks for what writers left behind that is older than this. Nothing is changed.
    ///
    /// # Errors
    /// Where the age is less than an hour, a record is damaged, or the storage fails.
    pub fn find_leftovers(&self, older_than: Duration) -> Result<Leftovers, LibraryError> {
        if older_than < LEFTOVER_AGE_MIN {
            return Err(LibraryError::Invalid(format!(
                "what is younger than {} minutes may be at the hands of a writer; sweep what is older",
                LEFTOVER_AGE_MIN.as_secs() / 60
            )));
        }
        let mut found = Leftovers::default();
        let there = match self.objects() {
            Objects::Folder(folder) => of_folder(folder)?,
            Objects::Bucket(bucket) => {
                of_bucket(bucket, older_than.max(TEMPORARY_AGE_MAX), &mut found.temporary)?
            }
        };
        self.temporaries(older_than.max(TEMPORARY_AGE_MAX), &mut found.temporary);
        // After the listing: an object that was named since is listed and named.
        let (records, named) = self.named_objects()?;
        (found.records, found.objects) = (records, there.len() as u64);
        found.shards = self.unused_shards(older_than)?;
        let unused: BTreeSet<ObjectHash> =
            found.shards.iter().filter_map(|shard| shard.object.clone()).collect();
        for one in there {
            if one.object.as_ref().is_some_and(|hash| unused.contains(hash)) {
                found.of_shards.push(one);
                continue;
            }
            if one.object.as_ref().is_none_or(|hash| named.contains(hash)) {
                continue;
            }
            if one.age_s > older_than.as_secs() {
                found.unnamed.push(one);
            } else {
                found.young.count += 1;
                found.young.bytes += one.bytes;
            }
        }
        found.unnamed.sort_by(|one, other| one.place.cmp(&other.place));
        Ok(found)
    }

    /// Shards that are older than this, and those that have lost a sample.
    fn unused_shards(&self, older_than: Duration) -> Result<Vec<Leftover>, LibraryError> {
        let all = match self.records() {
            Records::Folder(root) => {
                let now = files::storage_now(root);
                let mut all = Vec::new();
                for name in self.records().names(SHARDS)? {
                    let path = root.join(&name);
                    let Some(facts) = files::facts(&path)? else { continue };
                    all.push((name, Leftover::of_file(&path, &facts, now, None)));
                }
                all
            }
            Records::Bucket(bucket, _) => {
                let begin = bucket.below(BELOW);
                let listed = bucket.list(&format!("{begin}{SHARDS}/"), Some('/'))?;
                let now_ms = listed.begun_ms.unwrap_or_else(now_ms);
                let one = |entry: Entry| {
                    let name = entry.key[begin.len()..].to_owned();
                    (name, Leftover::of_entry(entry, now_ms, None))
                };
                listed.keys.into_iter().map(one).collect()
            }
        };
        // After the listing: the samples of a shard are there before it is.
        let names = self.records().names("samples")?;
        let mut unused = Vec::new();
        for (name, mut one) in all {
            let record = match self.records().read_anew::<ShardRecord>(&name) {
                Ok(record) => Some(record),
                // It is gone meanwhile, or damaged.
                Err(_) if !self.records().holds_now(&name)? => continue,
                Err(_) => None,
            };
            let lost = record.as_ref().is_some_and(|record| {
                let there =
                    |id: &SampleId| names.binary_search(&format!("samples/{id}.json")).is_ok();
                record.members.iter().any(|member| !there(&member.sample))
            });
            if lost || one.age_s > older_than.as_secs() {
                if let Some(record) = record {
                    (one.bytes, one.object) = (record.bytes, Some(record.object));
                }
                unused.push(one);
            }
        }
        Ok(unused)
    }

    /// Removes what was found, unless a writer has come back to it since.
    ///
    /// # Errors
    /// Where the storage fails; what is removed until then is removed.
    pub fn remove_leftovers(&self, found: &Leftovers) -> Result<Removed, LibraryError> {
        let mut removed = Removed::default();
        // Claims are among the temporary files, and the objects' removal makes some of its own.
        for (of, tally) in
            [(&found.unnamed, &mut removed.objects), (&found.temporary, &mut removed.temporary)]
        {
            let gone = at_once(of, PUTS_MAX, |one| self.remove(one))?;
            for (one, gone) in of.iter().zip(gone) {
                if gone {
                    tally.count += 1;
                    tally.bytes += one.bytes;
                } else {
                    removed.spared += 1;
                }
            }
        }
        for one in &found.shards {
            // The record first, so that no record names what is not there.
            let record = Leftover { object: None, ..one.clone() };
            if !self.remove(&record)? {
                removed.spared += 1;
                continue;
            }
            // Unless somebody has just made it anew; what stays is an object that no record names.
            if let Some(object) = found.of_shards.iter().find(|object| object.object == one.object)
            {
                self.remove(object)?;
            }
            removed.shards.count += 1;
            removed.shards.bytes += one.bytes;
        }
        Ok(removed)
    }

    /// Says whether it is removed.
    fn remove(&self, one: &Leftover) -> Result<bool, LibraryError> {
        let claim = match &one.object {
            None => None,
            Some(hash) => match Claim::try_take(self.objects(), hash)? {
                // A writer is making it young right now.
                None => return Ok(false),
                claim => claim,
            },
        };
        if changed_ms(self.objects(), one)? != Some(one.changed_ms) {
            return Ok(false);
        }
        if claim.as_ref().is_some_and(|claim| !claim.holds()) {
            return Ok(false);
        }
        match self.objects() {
            Objects::Bucket(bucket) if one.within == Within::Bucket => {
                bucket.remove(&one.place.to_string_lossy())?;
            }
            _ => match std::fs::remove_file(&one.place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                done => done.map_err(|error| LibraryError::file("removing", &one.place, error))?,
            },
        }
        Ok(true)
    }

    /// Temporary files of the folder that are older than this.
    fn temporaries(&self, older_than: Duration, to: &mut Vec<Leftover>) {
        let now = files::storage_now(self.root());
        for folder in KEPT {
            files::temporaries(&self.folder(folder), &mut |path, facts| {
                let one = Leftover::of_file(path, facts, now, None);
                if one.age_s > older_than.as_secs() {
                    to.push(one);
                }
            });
        }
    }
}

impl Leftover {
    fn of_file(
        path: &Path,
        facts: &std::fs::Metadata,
        now: SystemTime,
        object: Option<ObjectHash>,
    ) -> Self {
        let changed = facts.modified().unwrap_or(now);
        Self {
            place: path.to_owned(),
            bytes: facts.len(),
            age_s: now.duration_since(changed).unwrap_or_default().as_secs(),
            changed_ms: since_1970_ms(changed),
            object,
            within: Within::Folder,
        }
    }

    fn of_entry(entry: Entry, now_ms: u64, object: Option<ObjectHash>) -> Self {
        // Where the storage does not say when it was put, it is young.
        let changed_ms = if entry.changed_ms == 0 { now_ms } else { entry.changed_ms };
        Self {
            place: entry.key.into(),
            bytes: entry.bytes,
            age_s: now_ms.saturating_sub(changed_ms) / 1000,
            changed_ms,
            object,
            within: Within::Bucket,
        }
    }
}

/// When something was changed last, in milliseconds since 1970, as it was told when it was found; none
/// where it is not there.
fn changed_ms(objects: &Objects, one: &Leftover) -> Result<Option<u64>, LibraryError> {
    match objects {
        Objects::Bucket(bucket) if one.within == Within::Bucket => {
            let facts = bucket.facts(&one.place.to_string_lossy())?;
            // A listing may tell fractions of a second, which an answer's head has not.
            let same = |changed_ms: u64| changed_ms / 1000 == one.changed_ms / 1000;
            Ok(facts.map(
                |facts| {
                    if same(facts.changed_ms) { one.changed_ms } else { facts.changed_ms }
                },
            ))
        }
        _ => {
            let facts = files::facts_now(&one.place)?;
            Ok(facts.and_then(|facts| facts.modified().ok()).map(since_1970_ms))
        }
    }
}

fn since_1970_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// The objects of a folder. What has another name or place than an object's is none of ours.
fn of_folder(folder: &Path) -> Result<Vec<Leftover>, LibraryError> {
    let now = files::storage_now(folder);
    let mut there = Vec::new();
    for below in files::list(folder)?.into_iter().filter(|path| path.is_dir()) {
        for path in files::list(&below)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Ok(hash) = name.parse::<ObjectHash>() else { continue };
            if below.file_name() != Some(OsStr::new(&hash.as_str()[..2])) {
                continue;
            }
            let Some(facts) = files::facts(&path)? else { continue };
            there.push(Leftover::of_file(&path, &facts, now, Some(hash)));
        }
    }
    Ok(there)
}

/// The objects of a bucket; claims that are older than this are left over too.
fn of_bucket(
    bucket: &Bucket,
    claims_older_than: Duration,
    temporary: &mut Vec<Leftover>,
) -> Result<Vec<Leftover>, LibraryError> {
    let listed = bucket.all()?;
    let now_ms = listed.begun_ms.unwrap_or_else(now_ms);
    let (records, claims) = (bucket.below(BELOW), bucket.below(CLAIMS));
    let mut there = Vec::new();
    for entry in listed.keys {
        if entry.key.starts_with(&claims) {
            let one = Leftover::of_entry(entry, now_ms, None);
            if one.age_s > claims_older_than.as_secs() {
                temporary.push(one);
            }
        } else if !entry.key.starts_with(&records) {
            let name = entry.key.rsplit('/').next().unwrap_or_default();
            let Ok(hash) = name.parse::<ObjectHash>() else { continue };
            if bucket.key(&hash) == entry.key {
                there.push(Leftover::of_entry(entry, now_ms, Some(hash)));
            }
        }
    }
    Ok(there)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;
    use crate::files::{NewFile, create_in_order};
    use crate::instances::Source;
    use crate::limits::REFRESH_AGE;
    use crate::quarantine::Quarantined;

    const DAY: Duration = Duration::from_hours(24);
    const BYTES: &[u8] = b"of a writer that was killed";

    fn age(path: &Path, by: Duration) {
        let file = File::open(path).unwrap();
        file.set_modified(SystemTime::now() - by).unwrap();
    }

    /// The steps of a writer that finds its object there and old, and of a sweep, each as the program
    /// takes them; a step that has to wait for the other's claim is not taken and says so.
    struct Race {
        folder: tempfile::TempDir,
        library: Library,
        hash: ObjectHash,
        claims: [Option<Claim>; 2],
        /// Whether the writer goes on to claim what it has found.
        old: bool,
        found: Option<Leftovers>,
        removes: bool,
    }

    impl Race {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let library = Library::create(folder.path()).unwrap();
            let hash = library.put_object(BYTES).unwrap();
            age(&library.object_path(&hash), 2 * DAY);
            let claims = [None, None];
            Self { folder, library, hash, claims, old: false, found: None, removes: false }
        }

        fn claim(&mut self, whose: usize) -> bool {
            self.claims[whose] = Claim::try_take(self.library.objects(), &self.hash).unwrap();
            self.claims[whose].is_some()
        }

        /// The writer's step: looks, claims, makes young, lets go, writes what is missing and names it.
        fn write(&mut self, step: usize) -> bool {
            let place = self.library.object_path(&self.hash);
            match step {
                0 => {
                    let facts = files::facts(&place).unwrap();
                    let now = SystemTime::now();
                    self.old = facts.is_some_and(|facts| {
                        now.duration_since(facts.modified().unwrap()).unwrap_or_default()
                            > REFRESH_AGE
                    });
                }
                1 if self.old => return self.claim(0),
                2 if self.old => files::refresh(&place, BYTES).unwrap(),
                3 => self.claims[0] = None,
                4 => {
                    let files = [NewFile { path: place, bytes: BYTES }];
                    create_in_order(&[&files]).unwrap();
                }
                5 => {
                    let record = Quarantined {
                        object: self.hash.clone(),
                        reason: "named".into(),
                        sentence: "it is named".into(),
                        bytes: BYTES.len() as u64,
                        source: Source::Import,
                        at_ms: now_ms(),
                    };
                    let name = format!("quarantine/{}.json", self.hash);
                    self.library.records().create(&name, &record).unwrap();
                }
                _ => {}
            }
            true
        }

        /// The sweep's step: finds, claims, looks again, removes, lets go.
        fn sweep(&mut self, step: usize) -> bool {
            let one = || self.found.as_ref().and_then(|found| found.unnamed.first());
            match step {
                0 => self.found = Some(self.library.find_leftovers(DAY).unwrap()),
                1 => {
                    let finds = one().is_some();
                    // A sweep does not wait, and leaves what is claimed.
                    if finds && !self.claim(1) {
                        self.found = None;
                    }
                }
                2 => {
                    self.removes = one().is_some_and(|one| {
                        changed_ms(self.library.objects(), one).unwrap() == Some(one.changed_ms)
                    });
                }
                3 if self.removes => fs::remove_file(&one().unwrap().place).unwrap(),
                4 => self.claims[1] = None,
                _ => {}
            }
            true
        }
    }

    /// Every order in which the steps of both can be taken.
    #[test]
    fn whatever_a_writer_names_is_there_in_every_order_of_its_steps_and_a_sweeps() {
        const STEPS: [usize; 2] = [6, 5];
        let (mut removed, mut orders) = (0, 0);
        for order in 0..1_u32 << (STEPS[0] + STEPS[1]) {
            if order.count_ones() as usize != STEPS[1] {
                continue;
            }
            let mut race = Race::new();
            let mut taken = [0, 0];
            let mut blocked = false;
            for place in 0..STEPS[0] + STEPS[1] {
                let who = (order >> place & 1) as usize;
                let done = if who == 0 { race.write(taken[0]) } else { race.sweep(taken[1]) };
                if !done {
                    // The writer waits here until the sweep has let go: that is another order.
                    blocked = true;
                    break;
                }
                taken[who] += 1;
            }
            if blocked {
                continue;
            }
            orders += 1;
            removed += u32::from(race.removes);
            let read = race.library.read_object(&race.hash);
            assert_eq!(read.unwrap(), BYTES, "in order {order:b}");
            let report = race.library.verify().unwrap();
            assert_eq!((report.damage.len(), report.unnamed), (0, 0), "in order {order:b}");
            let parts = fs::read_dir(race.folder.path().join("objects")).unwrap();
            assert_eq!(parts.count(), 1);
        }
        assert!(orders > 200 && removed > 10, "{removed} of {orders} orders removed it");
    }

    #[test]
    fn what_is_left_over_is_found_and_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::create(folder.path()).unwrap();
        let old = library.put_object(b"old").unwrap();
        let young = library.put_object(b"young").unwrap();
        library.quarantine(b"named", "named", "it is named", &Source::Import).unwrap();
        let named = library.quarantined().unwrap()[0].object.clone();
        let part = folder.path().join("samples/.part-1");
        fs::create_dir(folder.path().join("samples")).unwrap();
        fs::write(&part, b"half").unwrap();
        let foreign = folder.path().join("objects/notes.txt");
        fs::write(&foreign, b"of a person").unwrap();
        for path in [&library.object_path(&old), &library.object_path(&named), &part, &foreign] {
            age(path, 2 * DAY);
        }
        let found = library.find_leftovers(DAY).unwrap();
        let places = |of: &[Leftover]| of.iter().map(|one| one.place.clone()).collect::<Vec<_>>();
        assert_eq!(places(&found.unnamed), [library.object_path(&old)]);
        assert_eq!(places(&found.temporary), [part]);
        assert_eq!((found.records, found.objects, found.bytes()), (1, 3, 7));
        assert_eq!(found.young, Tally { count: 1, bytes: 5 });
        let removed = library.remove_leftovers(&found).unwrap();
        let one = |bytes| Tally { count: 1, bytes };
        assert_eq!(removed, Removed { objects: one(3), temporary: one(4), ..Removed::default() });
        assert!(library.read_object(&old).is_err() && library.read_object(&young).is_ok());
        assert!(library.read_object(&named).is_ok() && foreign.is_file());
        // Twice is once.
        assert_eq!(library.remove_leftovers(&found).unwrap().spared, 2);
        let none = library.find_leftovers(DAY).unwrap();
        assert_eq!((none.unnamed.len(), none.temporary.len()), (0, 0));
        let error = library.find_leftovers(Duration::from_mins(59)).unwrap_err().to_string();
        assert!(error.contains("at the hands of a writer"), "{error}");
    }

    #[test]
    fn an_old_object_that_is_kept_again_is_young_and_a_claim_of_the_dead_gives_way() {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::create(folder.path()).unwrap();
        let hash = library.put_object(BYTES).unwrap();
        let place = library.object_path(&hash);
        age(&place, 2 * DAY);
        let found = library.find_leftovers(DAY).unwrap();
        let claim = Claim::try_take(library.objects(), &hash).unwrap().unwrap();
        assert_eq!(library.remove_leftovers(&found).unwrap().spared, 1, "it is claimed");
        std::mem::forget(claim);
        let left = files::claim(&place, Duration::MAX).unwrap();
        assert!(left.is_none(), "it is claimed still");
        age(&place.with_file_name(format!(".part-claim-{hash}")), DAY);
        library.put_object(BYTES).unwrap();
        assert_eq!(library.remove_leftovers(&found).unwrap().spared, 1, "it is young");
        assert_eq!(library.find_leftovers(DAY).unwrap().young.count, 1);
        assert_eq!(library.read_object(&hash).unwrap(), BYTES);
        // A record that cannot be read may name anything.
        library.quarantine(b"named", "named", "it is named", &Source::Import).unwrap();
        let record = fs::read_dir(folder.path().join("quarantine")).unwrap().next().unwrap();
        fs::write(record.unwrap().path(), b"{}").unwrap();
        let error = library.find_leftovers(DAY).unwrap_err();
        assert!(matches!(error, LibraryError::Damaged { .. }), "{error}");
    }
}
