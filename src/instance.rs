//! One daemon per run directory: a lock that the kernel drops with the process, however it ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// File name of the lock in the run directory.
pub const LOCK_NAME: &str = "canal.lock";

/// Why this instance may not run.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Another one does.
    #[error(
        "another canal-fwd (pid {pid}) runs with {path}; stop it, or give this one its own --run-dir, --device and \
         --nodename"
    )]
    Running {
        /// The other one, as far as its lock says.
        pid: String,
        /// The lock.
        path: PathBuf,
    },
    /// No lock can be had.
    #[error("cannot lock {path}")]
    Io {
        /// The lock.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Proof of being the only one; released when dropped.
#[derive(Debug)]
pub struct Instance {
    _lock: Flock<File>,
}

impl Instance {
    /// Makes the run directory and takes its lock.
    ///
    /// # Errors
    /// [`InstanceError`].
    pub fn acquire(run_dir: &Path) -> Result<Self, InstanceError> {
        let path = run_dir.join(LOCK_NAME);
        let failed = |source| InstanceError::Io { path: path.clone(), source };
        std::fs::create_dir_all(run_dir).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o644);
        let file = options.open(&path).map_err(failed)?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((file, Errno::EWOULDBLOCK)) => {
                return Err(InstanceError::Running { pid: holder(file), path });
            }
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut lock).map_err(failed)?;
        Ok(Self { _lock: lock })
    }
}

fn holder(mut file: File) -> String {
    let mut text = String::new();
    let known = Read::take(&mut file, 16).read_to_string(&mut text).is_ok();
    let pid = text.trim();
    if known && !pid.is_empty() { pid.to_owned() } else { "unknown".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_instance_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        let first = Instance::acquire(&run_dir).unwrap();
        let refusal = Instance::acquire(&run_dir).unwrap_err().to_string();
        let pid = format!("(pid {})", std::process::id());
        assert!(refusal.contains(&pid) && refusal.contains("--run-dir"), "{refusal}");
        drop(first);
        Instance::acquire(&run_dir).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let refusal = Instance::acquire(&file).unwrap_err().to_string();
        assert!(refusal.contains("file/canal.lock"), "{refusal}");
    }
}
