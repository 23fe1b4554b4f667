//! Scratch folders: one for each try, its own, removed with all that is in it at the try's end.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use gantry_model::TryId;
use rustix::fs::{Mode, OFlags, fchown, open};

use super::account::Account;
use super::isolation::Scratch;

impl Scratch {
    /// Makes the folder of a try, for its user alone.
    pub(super) fn make(&self, try_id: TryId, account: Option<&Account>) -> io::Result<PathBuf> {
        let folder = self.folder.join(format!("{}{try_id}", self.prefix));
        let make = || DirBuilder::new().mode(0o700).create(&folder);
        match make() {
            // One that could not be removed: no two tries of one agent have one number.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                remove(&folder)?;
                make()?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(&self.folder)?;
                make()?;
            }
            other => other?,
        }
        if let Some(account) = account {
            give(&folder, account)?;
        }
        Ok(folder)
    }
}

/// Makes a user the owner of a folder; a link is not followed.
pub(super) fn give(folder: &Path, account: &Account) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = File::from(open(folder, flags, Mode::empty())?);
    Ok(fchown(&folder, Some(account.uid), Some(account.gid))?)
}

/// Removes a folder with all that is in it; one that is not there is removed.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what an agent's tries have left. Gives how many folders those were.
pub(super) fn clear(scratch: &Scratch) -> usize {
    let Ok(left) = fs::read_dir(&scratch.folder) else { return 0 };
    let ours = left.flatten().filter(|one| {
        one.file_name().to_str().is_some_and(|name| name.starts_with(&scratch.prefix))
    });
    ours.filter(|one| remove(&one.path()).is_ok()).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};
    use tempfile::TempDir;

    #[test]
    fn a_try_has_a_folder_of_its_own_and_leaves_nothing() {
        let root = TempDir::new().unwrap();
        let scratch = Scratch { folder: root.path().join("scratch"), prefix: "gantry-a-".into() };
        let other = Scratch { prefix: "gantry-b-".into(), ..scratch.clone() };
        let folder = scratch.make(TryId(5), None).unwrap();
        assert_eq!(folder, scratch.folder.join("gantry-a-t5"));
        assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);
        // What lies outside stays, whatever links there are.
        let kept = root.path().join("kept");
        fs::write(&kept, "").unwrap();
        symlink(root.path(), folder.join("link")).unwrap();
        fs::create_dir(folder.join("below")).unwrap();
        let again = scratch.make(TryId(5), None).unwrap();
        assert_eq!(fs::read_dir(&again).unwrap().count(), 0, "it begins empty");
        other.make(TryId(6), None).unwrap();
        assert_eq!(clear(&scratch), 1);
        assert_eq!(clear(&scratch), 0);
        assert!(kept.exists() && other.folder.join("gantry-b-t6").exists());
        remove(&again).unwrap();
    }
}
