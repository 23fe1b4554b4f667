//! Output files of a job's own choice: links to them stand where the task's output would be.
//!
//! Where commands run as their submitter the agent is root, and a job may name any file. So the agent
//! makes no such file: the command's starter opens it with the user's rights. The link belongs to the
//! user from then on, to nobody before, and is read through only while the file behind it has the
//! same owner: naming a file shows nothing that the user could not see.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::Path;

use gantry_config::RunAs;

/// Owns a link whose file was not opened by its user yet: no account has this number.
const NOBODY_YET: u32 = u32::MAX - 1;

/// Puts a link to a file in the place of an output. A link of an earlier start is left as it is.
pub(super) fn link(place: &Path, file: &Path, run_as: RunAs) -> io::Result<()> {
    if run_as == RunAs::Agent || !rustix::process::geteuid().is_root() {
        if let Some(above) = file.parent() {
            fs::create_dir_all(above)?;
        }
        File::options().create(true).append(true).open(file)?;
        return kept(symlink(file, place));
    }
    // Under its name only once it has its owner.
    let aside = place.with_extension("link");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(file, &aside)?;
    lchown(&aside, Some(NOBODY_YET), None)?;
    kept(fs::hard_link(&aside, place))?;
    fs::remove_file(&aside)
}

fn kept(made: io::Result<()>) -> io::Result<()> {
    match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Opens an output to read it.
pub(super) fn open(place: &Path) -> io::Result<File> {
    let link = fs::symlink_metadata(place)?;
    let file = File::open(place)?;
    let bound = link.is_symlink() && link.uid() != rustix::process::geteuid().as_raw();
    if bound && file.metadata()?.uid() != link.uid() {
        return Err(io::Error::new(
            ErrorKind::PermissionDenied,
            "the file that the job has named is not its user's",
        ));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn a_file_is_shown_to_its_owner_only() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("SKIPPED: only root can give a link to another user");
        }
        let folder = TempDir::new().unwrap();
        let (place, file) = (folder.path().join("0.out"), folder.path().join("file"));
        link(&place, &file, RunAs::Submitter).unwrap();
        link(&place, &file, RunAs::Submitter).unwrap();
        assert!(!file.exists(), "whoever may make it makes it");
        fs::write(&file, "").unwrap();
        for (of_link, of_file, shown) in [(NOBODY_YET, 0, false), (2, 0, false), (2, 2, true)] {
            lchown(&place, Some(of_link), None).unwrap();
            lchown(&file, Some(of_file), None).unwrap();
            assert_eq!(open(&place).is_ok(), shown, "{of_link} and {of_file}");
        }
        let (place, file) = (folder.path().join("1.out"), folder.path().join("a/file"));
        link(&place, &file, RunAs::Agent).unwrap();
        assert!(file.exists() && open(&place).is_ok());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }
}
