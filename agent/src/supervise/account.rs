//! The account of the user as whom a command runs.
//!
//! Accounts come from wherever the node gets them (files, a directory service), through the C
//! library. All of it is looked up before the command's process exists: between fork and exec only
//! numbers are handed to the kernel.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr;

use rustix::process::{Gid, Uid};

/// Bytes for the strings of an account; what a directory service gives is well below.
const STRINGS_BYTES_MAX: usize = 1 << 20;
/// Bytes to try it with first.
const STRINGS_BYTES: usize = 4096;
/// Groups of one user: the kernel's limit.
const GROUPS_MAX: usize = 65_536;

/// A user's account on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// The name it was asked for by.
    pub(super) name: String,
    /// Its number.
    pub(super) uid: Uid,
    /// Its first group.
    pub(super) gid: Gid,
    /// All its groups.
    pub(super) groups: Vec<Gid>,
    /// Its home, which need not be there.
    pub(super) home: PathBuf,
    /// Its shell.
    pub(super) shell: OsString,
}

impl Account {
    /// The account of this name; nothing where there is none.
    pub(super) fn find(name: &str) -> io::Result<Option<Self>> {
        let Ok(asked) = CString::new(name) else { return Ok(None) };
        let mut strings = vec![0_u8; STRINGS_BYTES];
        loop {
            let mut entry = MaybeUninit::<libc::passwd>::zeroed();
            let mut found = ptr::null_mut();
            // SAFETY: the name ends with a zero; the entry and the result are values of the right
            // types; the buffer is as long as it is said to be and outlives every use of the entry.
            let error = unsafe {
                libc::getpwnam_r(
                    asked.as_ptr(),
                    entry.as_mut_ptr(),
                    strings.as_mut_ptr().cast(),
                    strings.len(),
                    &raw mut found,
                )
            };
            match error {
                libc::ERANGE if strings.len() < STRINGS_BYTES_MAX => {
                    strings.resize(strings.len() * 4, 0);
                }
                libc::EINTR => {}
                // The ways in which a C library says that there is none.
                0 | libc::ENOENT | libc::ESRCH if found.is_null() => return Ok(None),
                0 => {
                    // SAFETY: zeroed bytes are a valid value, and the call has filled it in.
                    let entry = unsafe { entry.assume_init() };
                    return Self::of(name, &entry, &asked).map(Some);
                }
                error => return Err(io::Error::from_raw_os_error(error)),
            }
        }
    }

    fn of(name: &str, entry: &libc::passwd, asked: &CStr) -> io::Result<Self> {
        let text = |text: *const libc::c_char| {
            if text.is_null() {
                return OsString::new();
            }
            // SAFETY: the strings of an entry end with a zero, and live as long as its buffer, which
            // the caller holds.
            OsStr::from_bytes(unsafe { CStr::from_ptr(text) }.to_bytes()).to_owned()
        };
        Ok(Self {
            name: name.to_owned(),
            uid: Uid::from_raw(entry.pw_uid),
            gid: Gid::from_raw(entry.pw_gid),
            groups: groups(asked, entry.pw_gid)?,
            home: text(entry.pw_dir).into(),
            shell: text(entry.pw_shell),
        })
    }
}

/// All groups of a user.
fn groups(name: &CStr, first: libc::gid_t) -> io::Result<Vec<Gid>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut count = libc::c_int::try_from(groups.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the name ends with a zero, and the list is as long as it is said to be.
        let found = unsafe {
            libc::getgrouplist(name.as_ptr(), first, groups.as_mut_ptr(), &raw mut count)
        };
        if found >= 0 {
            groups.truncate(count.max(0) as usize);
            return Ok(groups.into_iter().map(Gid::from_raw).collect());
        }
        if groups.len() >= GROUPS_MAX {
            return Err(io::Error::other("it is in more groups than a process can have"));
        }
        groups.resize(groups.len() * 4, 0);
    }
}

/// Does something with the rights of a user: opens a file that only the user may open, and does not
/// open one that only root may.
pub(crate) fn as_user<T: Send>(
    account: &Account,
    act: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    // The kernel has rights for each thread: this one ends with the user's, and no other has them.
    std::thread::scope(|scope| {
        let act = scope.spawn(|| become_user(account).and_then(|()| act()));
        act.join().unwrap_or_else(|_| Err(io::Error::other("its thread has failed")))
    })
}

/// Gives this thread the rights of a user, for good. Makes system calls and nothing else.
pub(super) fn become_user(account: &Account) -> io::Result<()> {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    set_thread_groups(&account.groups)?;
    set_thread_res_gid(account.gid, account.gid, account.gid)?;
    set_thread_res_uid(account.uid, account.uid, account.uid)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use tempfile::TempDir;

    #[test]
    fn accounts_are_found_by_name() {
        let root = Account::find("root").unwrap().unwrap();
        assert!(root.uid.is_root() && root.groups.contains(&root.gid));
        assert_eq!((root.name.as_str(), root.home), ("root", PathBuf::from("/root")));
        for nobody in ["gantry-no-such-user", "", "a\0b", "0", "root:x"] {
            assert_eq!(Account::find(nobody).unwrap(), None, "{nobody:?}");
        }
    }

    #[test]
    fn what_is_done_as_a_user_is_done_with_its_rights_and_no_other_thread_has_them() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("SKIPPED: only root can act as another user");
        }
        let account = Account::find("daemon").unwrap().unwrap();
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, "root's").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let refused = as_user(&account, || File::open(&secret)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let made = folder.path().join("made");
        as_user(&account, || File::create(&made)).unwrap();
        assert_eq!(made.metadata().unwrap().uid(), account.uid.as_raw());
        File::open(&secret).unwrap();
    }
}
