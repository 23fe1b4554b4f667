//! People on the scheduler's own host, who are known there by their account.
//!
//! They call a socket of the file system, and the kernel says which account calls (`SO_PEERCRED`, unix(7)).
//! Nothing that a caller sends is read: it gets one answer, an invitation to join over the network as
//! everybody else does. Who is invited is the scheduler's business.

use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_wire::{Invitation, frame};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

use crate::error::LinkError;

/// An invitation has some hundred bytes; more is not read.
const INVITATION_BYTES_MAX: u64 = 4096;
/// How long each end waits for the other.
const WITHIN: Duration = Duration::from_secs(5);

/// The socket, which every account of the host may call.
#[derive(Debug)]
pub struct Local {
    listener: UnixListener,
    path: PathBuf,
}

/// An account that has called.
#[derive(Debug)]
pub struct LocalCaller {
    /// Its number.
    pub uid: u32,
    stream: tokio::net::UnixStream,
}

impl Local {
    /// Makes the socket. One that a scheduler has left which runs no more is replaced.
    ///
    /// # Errors
    /// Where another scheduler answers there, the path is something else, or nothing can be made there.
    pub fn bind(path: &Path) -> Result<Self, LinkError> {
        let fail = |reason: String| LinkError::File {
            what: "listening to people of this host at",
            path: path.to_owned(),
            reason,
        };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(fail("it is there, and is no socket; set another local_socket".into()));
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                let why =
                    "another scheduler answers there; set another local_socket for one of them";
                return Err(fail(why.into()));
            }
            Ok(_) => std::fs::remove_file(path).map_err(|error| fail(error.to_string()))?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(path)
            .map_err(|error| fail(format!("{error}; its folder must be there and be writable")))?;
        // Everybody may call: who calls is what the kernel says, not what the file lets in.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
            .map_err(|error| fail(error.to_string()))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Waits for the next caller.
    ///
    /// # Errors
    /// Where the kernel gives none, as with too many open files.
    pub async fn accept(&self) -> io::Result<LocalCaller> {
        let (stream, _) = self.listener.accept().await?;
        Ok(LocalCaller { uid: stream.peer_cred()?.uid(), stream })
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl LocalCaller {
    /// Answers, and hangs up. Whoever has gone misses it.
    pub async fn answer(mut self, invitation: &Invitation) {
        let Ok(bytes) = frame::write(invitation) else { return };
        let _ = tokio::time::timeout(WITHIN, self.stream.write_all(&bytes)).await;
    }
}

/// Calls the scheduler of this host as the account that this process runs as.
///
/// # Errors
/// Where nobody answers there, or not as gantry does.
pub fn call(path: &Path) -> Result<Invitation, LinkError> {
    let fail = |error: io::Error| LinkError::File {
        what: "asking the scheduler of this host at",
        path: path.to_owned(),
        reason: format!("{error}; check that it runs (gantry scheduler)"),
    };
    let stream = UnixStream::connect(path).map_err(fail)?;
    stream.set_read_timeout(Some(WITHIN)).map_err(fail)?;
    let mut bytes = Vec::new();
    stream.take(INVITATION_BYTES_MAX).read_to_end(&mut bytes).map_err(fail)?;
    Ok(frame::read(&bytes)?)
}

#[cfg(test)]
mod tests {
    use gantry_model::Reject;
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn the_kernel_says_who_calls_and_one_answer_is_given() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("scheduler.sock");
        let local = Local::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        let said = Invitation::Refused(Reject::invalid("no"));
        let asked = tokio::task::spawn_blocking({
            let path = path.clone();
            move || call(&path)
        });
        let caller = local.accept().await.unwrap();
        assert_eq!(
            caller.uid,
            std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&path).unwrap())
        );
        caller.answer(&said).await;
        assert_eq!(asked.await.unwrap().unwrap(), said);
        let again = Local::bind(&path).unwrap_err().to_string();
        assert!(again.contains("another scheduler answers there"), "{again}");
        drop(local);
        assert!(!path.exists(), "an end leaves no socket");
    }

    #[tokio::test]
    async fn what_a_dead_scheduler_has_left_is_replaced_and_nothing_else() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("scheduler.sock");
        // As after kill -9: the socket is there, and nobody listens.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(call(&path).unwrap_err().to_string().contains("check that it runs"));
        drop(Local::bind(&path).unwrap());
        std::fs::write(&path, "mine").unwrap();
        let refused = Local::bind(&path).unwrap_err().to_string();
        assert!(refused.contains("is no socket"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn whatever_answers_there_that_is_not_gantry_is_an_error() {
        for bytes in [&b""[..], b"SSH-2.0", &[b'G'; 10_000]] {
            let folder = TempDir::new().unwrap();
            let path = folder.path().join("scheduler.sock");
            let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
            let answer = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = io::Write::write_all(&mut stream, bytes);
            });
            assert!(call(&path).is_err());
            answer.join().unwrap();
        }
    }
}
