//! A folder of a daemon on a file system that can be full, read-only or gone: a mount of this
//! process's own, and a link to it where the folder was.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// A mounted folder. It is unmounted when this is dropped, after the daemons that use it.
pub(super) struct Place {
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// What is mounted there; absent of a file system in memory.
    backing: Option<PathBuf>,
    _home: TempDir,
}

fn mount(arguments: &[&str]) -> Result<()> {
    let output = Command::new("mount").args(arguments).output().context("running mount")?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "mount {arguments:?}: {error}");
    Ok(())
}

/// Whether this process may mount anything.
pub(super) fn may_mount() -> bool {
    Place::small(1).is_ok()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

impl Place {
    fn new(backed: bool) -> Result<Self> {
        let home = TempDir::new()?;
        let (mount, backing) = (home.path().join("mount"), home.path().join("backing"));
        fs::create_dir(&mount)?;
        fs::create_dir(&backing)?;
        Ok(Self { mount, backing: backed.then_some(backing), _home: home })
    }

    /// A file system in memory of so many MiB.
    pub(super) fn small(mib: u32) -> Result<Self> {
        let place = Self::new(false)?;
        let size = format!("size={mib}m");
        mount(&["-t", "tmpfs", "-o", &size, "tmpfs", &text(&place.mount)])?;
        Ok(place)
    }

    /// A folder of this machine's, mounted at another place.
    pub(super) fn of_its_own() -> Result<Self> {
        let place = Self::new(true)?;
        place.come_back()?;
        Ok(place)
    }

    fn backing(&self) -> Result<String> {
        Ok(text(self.backing.as_ref().context("it is in memory")?))
    }

    /// Mounts it where it was.
    pub(super) fn come_back(&self) -> Result<()> {
        mount(&["--bind", &self.backing()?, &text(&self.mount)])
    }

    /// Lets the file system go from its place; what is open stays open.
    pub(super) fn vanish(&self) -> Result<()> {
        ensure!(unmount(&self.mount), "it could not be unmounted");
        // The daemon may make what it misses in the folder below.
        ensure!(!self.mount.join("agent.toml").exists(), "it is still there");
        Ok(())
    }

    /// Mounts it read-only over itself: a file system with open files is not made read-only by
    /// anything but its own errors.
    pub(super) fn forbid_writing(&self) -> Result<()> {
        mount(&["--bind", "-o", "ro", &self.backing()?, &text(&self.mount)])?;
        let probe = fs::write(self.mount.join("probe"), "").map_err(|error| error.kind());
        ensure!(probe == Err(std::io::ErrorKind::ReadOnlyFilesystem), "a probe gave {probe:?}");
        Ok(())
    }

    /// Lets it be written again.
    pub(super) fn allow_writing(&self) -> Result<()> {
        ensure!(unmount(&self.mount), "it could not be unmounted");
        fs::write(self.mount.join("probe"), "").context("it is still read-only")?;
        Ok(fs::remove_file(self.mount.join("probe"))?)
    }

    /// Moves a folder that nobody uses here, and leaves a link in its place.
    pub(super) fn take(&self, folder: &Path) -> Result<()> {
        let output =
            Command::new("cp").arg("-a").arg(folder.join(".")).arg(&self.mount).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::remove_dir_all(folder)?;
        std::os::unix::fs::symlink(&self.mount, folder)?;
        Ok(())
    }

    /// Takes all room that is left; gives the file that has it.
    pub(super) fn fill(&self) -> Result<PathBuf> {
        let filler = self.mount.join("filler");
        let mut file = fs::File::create(&filler)?;
        let block = vec![0; 64 * 1024];
        let full = loop {
            match std::io::Write::write_all(&mut file, &block) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        ensure!(full.kind() == std::io::ErrorKind::StorageFull, "filling it gave {full}");
        Ok(filler)
    }
}

fn unmount(place: &Path) -> bool {
    let output = Command::new("umount").arg("-l").arg(place).output();
    output.is_ok_and(|output| output.status.success())
}

impl Drop for Place {
    fn drop(&mut self) {
        // Once for each mount over another.
        while unmount(&self.mount) {}
    }
}
