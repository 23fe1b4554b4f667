//! Output files of a job's own choice: links to them stand where the task's output would be.
//!
//! Where commands run as their submitter the agent is root, and a job may name any file. So the agent
//! makes no such file: the command's starter opens it with the user's rights. The link belongs to the
//! user from then on, to nobody before, and is read and written through only while the file behind it
//! has the same owner: naming a file shows nothing that the user could not see, and a file that was
//! put in its place later gets none of the agent's words. What is no file (a pipe, a device) is never
//! waited for and never read: it may have no other end, or none at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, lchown, symlink};
use std::path::Path;

use gantry_config::RunAs;
use rustix::fs::OFlags;

/// Opens without waiting for the other end of a pipe.
pub(super) const AT_ONCE: i32 = OFlags::NONBLOCK.bits() as i32;

/// Owns a link whose file was not opened by its user yet: no account has this number.
const NOBODY_YET: u32 = u32::MAX - 1;

/// Puts a link to a file in the place of an output. A link of an earlier start is left as it is.
pub(super) fn link(place: &Path, file: &Path, run_as: RunAs) -> io::Result<()> {
    if run_as == RunAs::Agent || !rustix::process::geteuid().is_root() {
        super::append_to(file)?;
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
    checked(place, File::options().read(true))
}

/// Opens an output that is there, to append to it.
pub(super) fn append(place: &Path) -> io::Result<File> {
    checked(place, File::options().append(true))
}

fn checked(place: &Path, how: &mut OpenOptions) -> io::Result<File> {
    let link = fs::symlink_metadata(place)?;
    let file = how.custom_flags(AT_ONCE).open(place)?;
    let facts = file.metadata()?;
    let bound = link.is_symlink() && link.uid() != rustix::process::geteuid().as_raw();
    if bound && facts.uid() != link.uid() {
        return Err(io::Error::new(
            ErrorKind::PermissionDenied,
            "the file that the job has named is not its user's",
        ));
    }
    if !facts.is_file() {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "what the job has named is no file, so that nothing of it can be shown",
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
            assert_eq!(append(&place).is_ok(), shown, "{of_link} and {of_file}");
        }
        let (place, file) = (folder.path().join("1.out"), folder.path().join("a/file"));
        link(&place, &file, RunAs::Agent).unwrap();
        assert!(file.exists() && open(&place).is_ok());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }

    /// Each of these once kept the agent, and with it its node, waiting for ever.
    #[test]
    fn a_pipe_without_another_end_is_not_waited_for() {
        let folder = TempDir::new().unwrap();
        let (place, pipe) = (folder.path().join("0.out"), folder.path().join("pipe"));
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(super::super::append_to(&pipe).is_err(), "a command's output");
        assert!(link(&place, &pipe, RunAs::Agent).is_err());
        // It takes the place of a file that was there at the start.
        symlink(&pipe, &place).unwrap();
        assert!(open(&place).is_err() && append(&place).is_err());
        // A command may still write to nowhere, and what it wrote is not looked for there.
        let nowhere = Path::new("/dev/null");
        let aside = folder.path().join("1.out");
        link(&aside, nowhere, RunAs::Agent).unwrap();
        assert!(super::super::append_to(nowhere).is_ok());
        assert!(open(&aside).unwrap_err().to_string().contains("no file"));
    }
}
