//! A directory of JSON and YAML documents as a datastore: the embedded default, which needs no server.
//!
//! It shows the same key space as etcd (see `layout` for which file is which key), so that everything above is
//! the same. Files may be edited by hand, copied in, mounted or written by canal; changes are seen through
//! inotify and, should that fail, by a slow scan. A file that cannot be used (half-written, wrong, too large)
//! keeps its last good content and is complained about. A directory that is missing altogether is a datastore
//! that is away, not an empty one.
//!
//! Revisions count within this process only. There are no lease objects: what is written stays until deleted.

mod documents;
mod follow;
mod layout;
mod scan;
mod write;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::stream::BoxStream;
use inotify::Inotify;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

pub use documents::{Document, Reason, documents};
pub use layout::{Format, Place};
pub use scan::{Complaint, FILE_BYTES_MAX};

use super::feed::{Edit, Feed, Log};
use super::{Datastore, Error, Expect, LeaseId, Revision, Snapshot, Unusable, WatchEvent, Written};
use follow::Follower;
use layout::{Layout, shown};
use scan::{Found, RootMissing, Scanner, Trust};

/// Changes remembered for watchers; one that is further behind lists again, which costs no more in one process than a copy
/// of every value would cost in memory.
const HISTORY_CAPACITY: usize = 1000;

/// A directory datastore; dropping it ends its watch streams.
pub struct Dir {
    inner: Arc<Inner>,
    /// Ends the thread that scans, when dropped.
    _follower: Follower,
}

struct Inner {
    feed: Arc<Feed>,
    root: PathBuf,
    state: Mutex<State>,
}

struct State {
    scanner: Scanner,
    complaints: Vec<Complaint>,
    missing: Option<String>,
    unwatched: Option<Complaint>,
    /// The complaints, as those see them who know no files.
    unusable: watch::Sender<Arc<[Unusable]>>,
}

impl fmt::Debug for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dir").field("root", &self.inner.root).finish_non_exhaustive()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        self.inner.feed.cut();
    }
}

impl Dir {
    /// Opens the directory at `root` and reads it. It need not exist yet. `flannel_prefix` is the key prefix of
    /// flannel's network, e.g. `/coreos.com/network`. Where the system gives no notifications (inotify's
    /// instances are few) the directory is scanned instead and [`Dir::complaints`] says so.
    ///
    /// # Errors
    /// [`Error::Io`] if the system gives no thread or descriptor.
    pub fn open(root: impl Into<PathBuf>, flannel_prefix: &str) -> Result<Self, Error> {
        let root: PathBuf = root.into();
        let layout = Layout::new(root.clone(), flannel_prefix);
        let (inotify, unwatched) = match Inotify::init() {
            Ok(inotify) => (Some(inotify), None),
            Err(error) => {
                let reason = Reason::Unwatched(error.to_string());
                (None, Some(Complaint { path: root.clone(), reason }))
            }
        };
        let scanner = Scanner::new(layout, inotify.as_ref().map(Inotify::watches));
        let unusable = watch::Sender::new(Arc::default());
        let state = State { scanner, complaints: Vec::new(), missing: None, unwatched, unusable };
        let feed = Feed::new(Log::new(1, HISTORY_CAPACITY));
        let inner = Arc::new(Inner { feed, root, state: Mutex::new(state) });
        // What is there at start counts at once; whether a file was still being written shows in a moment.
        let again = inner.state().rescan(&inner.feed, Trust::All);
        let follower =
            Follower::start(inner.clone(), inotify, again).map_err(|source| io_error(&inner.root, source))?;
        Ok(Self { inner, _follower: follower })
    }

    /// What is wrong with files right now, in order of path.
    pub fn complaints(&self) -> Vec<Complaint> {
        self.inner.state().complaints()
    }

    /// Runs on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.inner.clone();
        match spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(error) => Err(Error::Unavailable(format!("directory datastore: {error}"))),
        }
    }
}

impl State {
    fn complaints(&self) -> Vec<Complaint> {
        let all = self.unwatched.iter().chain(&self.complaints);
        let mut complaints: Vec<Complaint> = all.cloned().collect();
        complaints.sort_by(|a, b| a.path.cmp(&b.path));
        complaints
    }

    /// Scans, commits what changed as one revision and says what cannot be used. Returns whether to look again soon.
    fn rescan(&mut self, feed: &Feed, trust: Trust<'_>) -> bool {
        let again = self.read(feed, trust);
        let told = |complaint: Complaint| Unusable {
            place: shown(&complaint.path),
            why: complaint.reason.to_string(),
        };
        let unusable: Arc<[Unusable]> = self.complaints().into_iter().map(told).collect();
        self.unusable.send_if_modified(|current| {
            let news = *current != unusable;
            *current = unusable;
            news
        });
        again
    }

    fn read(&mut self, feed: &Feed, trust: Trust<'_>) -> bool {
        let before: Vec<Complaint> = std::mem::take(&mut self.complaints);
        match self.scanner.scan(trust, SystemTime::now()) {
            Ok(found) => {
                self.missing = None;
                for complaint in found.complaints.iter().filter(|complaint| !before.contains(complaint)) {
                    tracing::warn!(path = %shown(&complaint.path), reason = %complaint.reason, "file not used");
                }
                let edits = difference(feed, &found);
                self.complaints = found.complaints;
                if !edits.is_empty() {
                    feed.commit(edits);
                }
                found.again
            }
            Err(RootMissing(error)) => {
                // What was known stays known, and who asks is told that the store is away.
                if self.missing.replace(error.to_string()).is_none() {
                    feed.cut();
                }
                false
            }
        }
    }

    fn present(&self) -> Result<(), Error> {
        match &self.missing {
            None => Ok(()),
            Some(error) => {
                Err(Error::Unavailable(format!("directory {}: {error}", shown(&self.scanner.layout().root))))
            }
        }
    }

    /// The files a writer of `key` may have written.
    fn files_of(&self, key: &str) -> Vec<PathBuf> {
        let new = self.scanner.layout().file_for(key).map(|(path, _)| path);
        let holder = self.scanner.holder_of(key).map(Path::to_owned);
        new.into_iter().chain(holder).collect()
    }

    /// The file to write `key` to, and what it then holds: where the key is now, if it is there alone.
    fn target(&self, key: &str) -> Result<(PathBuf, Place), Error> {
        let (new, place) = self.scanner.layout().file_for(key).ok_or_else(|| {
            refused(Path::new(key), "the directory datastore has no file for this key".to_owned())
        })?;
        match self.scanner.holder_of(key) {
            None => Ok((new, place)),
            Some(holder) if self.scanner.keys_in(holder) == 1 => Ok((holder.to_owned(), place)),
            Some(holder) => {
                Err(refused(holder, format!("holds other documents beside {key}: edit it by hand")))
            }
        }
    }
}

/// The edits that make the feed's keys those of the files.
fn difference(feed: &Feed, found: &Found<'_>) -> Vec<Edit> {
    let log = feed.log();
    let vanished = log.entries().keys().filter(|key| !found.keys.contains_key(key.as_str()));
    let mut edits: Vec<Edit> = vanished.map(|key| Edit::Delete { key: key.clone() }).collect();
    for (key, (value, _)) in &found.keys {
        if log.entries().get(*key).is_none_or(|entry| entry.value != *value) {
            edits.push(Edit::Put { key: (*key).to_owned(), value: value.to_vec(), lease: None });
        }
    }
    edits
}

fn refused(path: &Path, why: String) -> Error {
    io_error(path, io::Error::new(io::ErrorKind::Unsupported, why))
}

fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io { path: shown(path), source }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under the directory's lock and with a fresh look at the files: checks the condition, lets `act` change
    /// the key's file and takes the change in.
    fn write(
        &self,
        key: &str,
        expect: Expect,
        act: impl FnOnce(&Path, Place) -> Result<(), Error>,
    ) -> Result<Written, Error> {
        self.state().present()?;
        // Before our own mutex: another process may take its time, and readers here need not wait for it.
        let lock = write::lock(&self.root).map_err(|source| io_error(&self.root, source))?;
        let mut state = self.state();
        // Whoever wrote the key's file a moment ago under this lock has written it whole.
        let written = state.files_of(key);
        state.rescan(&self.feed, Trust::Own(&written));
        state.present()?;
        if !self.feed.log().holds(key, expect) {
            return Ok(Written::Conflict);
        }
        let (path, place) = state.target(key)?;
        act(&path, place)?;
        state.rescan(&self.feed, Trust::Own(&[path]));
        drop(lock);
        let log = self.feed.log();
        let revision = log.entries().get(key).map_or(log.revision(), |entry| entry.mod_revision);
        Ok(Written::At(revision))
    }
}

#[async_trait]
impl Datastore for Dir {
    fn describe(&self) -> String {
        format!("directory {}", shown(&self.inner.root))
    }

    fn keeps_revisions(&self) -> bool {
        false
    }

    async fn list(&self, prefix: &str) -> Result<Snapshot, Error> {
        let prefix = prefix.to_owned();
        self.blocking(move |inner| {
            let mut state = inner.state();
            state.rescan(&inner.feed, Trust::Settled);
            state.present()?;
            Ok(inner.feed.log().list(&prefix))
        })
        .await
    }

    async fn watch(
        &self,
        prefix: &str,
        from: Revision,
    ) -> Result<BoxStream<'static, Result<WatchEvent, Error>>, Error> {
        self.blocking(|inner| inner.state().present()).await?;
        Ok(self.inner.feed.watch(prefix, from))
    }

    async fn put(
        &self,
        key: &str,
        value: &[u8],
        expect: Expect,
        _: Option<LeaseId>,
    ) -> Result<Written, Error> {
        let (key, value) = (key.to_owned(), value.to_vec());
        self.blocking(move |inner| {
            inner.write(&key, expect, |path, place| {
                // What the file will be read as must be the key it is written for.
                let read_back = documents(&place, Format::Json, &value)
                    .map_err(|reason| refused(path, reason.to_string()))?;
                if !matches!(read_back.as_slice(), [document] if document.key == key) {
                    return Err(refused(path, format!("the value is not the resource of {key}")));
                }
                write::replace(path, &value).map_err(|source| io_error(path, source))
            })
        })
        .await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<Written, Error> {
        let key = key.to_owned();
        self.blocking(move |inner| {
            inner.write(&key, expect, |path, _| match write::remove(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path, error)),
                _ => Ok(()),
            })
        })
        .await
    }

    fn unusable(&self) -> watch::Receiver<Arc<[Unusable]>> {
        self.inner.state().unusable.subscribe()
    }

    async fn grant(&self, _: Duration) -> Result<Option<LeaseId>, Error> {
        Ok(None)
    }

    async fn revoke(&self, _: LeaseId) -> Result<(), Error> {
        Ok(())
    }
}
