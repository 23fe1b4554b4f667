//! Ends that no agent was there to hear, one file each.
//!
//! A supervisor keeps an end in memory until its agent has it in its spool; where the agent is gone
//! the end goes to a file as well, written aside, synced and renamed, so that it outlives the
//! supervisor and the machine. A supervisor begins with the files it finds. Each begins with a
//! checksum of the value behind it: an exit code has no other form to be known by.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gantry_model::TryId;
use gantry_wire::codec;

use super::protocol::Held;

fn path(folder: &Path, try_id: TryId) -> PathBuf {
    folder.join(format!("{try_id}.exit"))
}

/// Writes the ends durably. Each is tried; the error is that of the first that failed.
pub(super) fn write(folder: &Path, ended: &[&Held]) -> io::Result<()> {
    if ended.is_empty() {
        return Ok(());
    }
    let written = ended.iter().map(|held| write_one(folder, held)).fold(Ok(()), Result::and);
    written.and(File::open(folder)?.sync_all())
}

fn write_one(folder: &Path, held: &Held) -> io::Result<()> {
    let path = path(folder, held.launch.try_id);
    let part = path.with_extension("part");
    let mut file = File::create(&part)?;
    let value = codec::encode(held).map_err(io::Error::other)?;
    file.write_all(&crc32fast::hash(&value).to_le_bytes())?;
    file.write_all(&value)?;
    file.sync_all()?;
    fs::rename(&part, &path)
}

/// The ends that an earlier supervisor of the folder has written. A damaged file is set aside: the
/// cluster hears that the node does not hold the try, and queues its task again.
pub(super) fn read(folder: &Path) -> io::Result<Vec<Held>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != "exit") {
            continue;
        }
        let held = fs::read(&path).ok().and_then(|bytes| parse(&bytes));
        if let Some(held) = held.filter(|held| held.end.is_some()) {
            all.push(held);
        } else {
            // Where even that fails it is tried again at the next start.
            let _ = fs::rename(&path, path.with_extension("damaged"));
        }
    }
    Ok(all)
}

/// What a file holds, where its checksum is right.
fn parse(bytes: &[u8]) -> Option<Held> {
    let (checksum, value) = bytes.split_first_chunk::<4>()?;
    let whole = crc32fast::hash(value) == u32::from_le_bytes(*checksum);
    codec::decode(value).ok().filter(|_| whole)
}

/// Removes an end that an agent has kept; there need not be a file.
pub(super) fn forget(folder: &Path, try_id: TryId) {
    // A file that stays is told once more, which harms nobody.
    let _ = fs::remove_file(path(folder, try_id));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::tests::launch;
    use gantry_model::{At, Exit, Usage};
    use tempfile::TempDir;

    #[test]
    fn ends_come_back_until_they_are_forgotten_and_damage_is_set_aside() {
        let folder = TempDir::new().unwrap();
        let held = |number: u64, exit: Exit| {
            let mut launch = launch(&["true"]);
            launch.try_id = TryId(number);
            Held { launch, since: At(7), read: 3, end: Some((exit, Usage::default())) }
        };
        let ends = [held(3, Exit::Code(0)), held(5, Exit::Signal(9)), held(6, Exit::Code(1))];
        write(folder.path(), &ends.iter().collect::<Vec<_>>()).unwrap();
        forget(folder.path(), TryId(5));
        forget(folder.path(), TryId(99));
        fs::write(folder.path().join("t9.exit"), b"junk").unwrap();
        let mut found = read(folder.path()).unwrap();
        found.sort_by_key(|held| held.launch.try_id);
        assert_eq!(found, [ends[0].clone(), ends[2].clone()]);
        assert!(folder.path().join("t9.damaged").exists());
        // Any bit of a file that is another.
        let path = folder.path().join("t3.exit");
        let whole = fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&bytes), None, "bit {bit}");
        }
        assert_eq!(parse(&whole).as_ref(), Some(&ends[0]));
    }
}
