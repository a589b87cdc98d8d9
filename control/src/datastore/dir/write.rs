//! Writes one file so that a reader sees the old content or the new, never half of it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Makes temporary names of one process differ.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// The lock file of the directory; it stays there, empty.
const LOCK: &str = ".lock";

/// How long another process may hold the lock. Its holders only write one small file.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Between two tries to get the lock.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Holds the directory's lock: all writers through canal keep to it, so that a condition that was checked still
/// holds when the file is written. Editors do not, as ever.
pub(super) fn lock(root: &Path) -> io::Result<Flock<File>> {
    let mut file = File::options().create(true).truncate(false).write(true).open(root.join(LOCK))?;
    let begun = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) if begun.elapsed() < LOCK_PATIENCE => {
                file = back;
                thread::sleep(LOCK_RETRY);
            }
            Err((_, errno)) => return Err(errno.into()),
        }
    }
}

/// Replaces `path` with `text`: temporary file beside it, fsync, rename, fsync of the directory. Directories on
/// the way are made.
pub(super) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(parent)?;
    let temporary = temporary_name(path, parent);
    let written = write_synced(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to tell; a temporary file left behind is ignored by every reader.
        let _ = fs::remove_file(&temporary);
    }
    written.and_then(|()| sync(parent))
}

/// Removes `path` for good.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    path.parent().map_or(Ok(()), sync)
}

fn temporary_name(path: &Path, parent: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    parent.join(format!(".{name}.{}.{serial}.tmp", std::process::id()))
}

fn write_synced(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(text)?;
    file.sync_all()
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
