//! Reads the directory into the current key space, file by file, keeping what was good.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use inotify::{WatchDescriptor, WatchMask, Watches};
use nix::fcntl::OFlag;

use super::documents::{Document, Reason, documents};
use super::layout::{Format, Layout, Place, RESOURCES, SUBNETS, is_ignored};

/// Longest file that is read. A Calico policy is a few KiB; a whole cluster's resources in one file fit.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// Most files; etcd's recommended size of a whole cluster is of this order.
const FILES_MAX: usize = 100_000;

/// Directories below `resources/`, one in the other.
const DEPTH_MAX: usize = 8;

/// Most complaints kept.
const COMPLAINTS_MAX: usize = 1000;

/// A file that changed less than this ago may still be being written, and the file system's clock may be too
/// coarse to show its next change: it is looked at again before it is believed.
const SETTLE: Duration = Duration::from_millis(50);

/// What we want to hear of a directory. Writing is heard of when the writer closes the file.
const DIRECTORY_EVENTS: WatchMask = WatchMask::CREATE
    .union(WatchMask::CLOSE_WRITE)
    .union(WatchMask::MOVED_FROM)
    .union(WatchMask::MOVED_TO)
    .union(WatchMask::DELETE)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MOVE_SELF)
    .union(WatchMask::ATTRIB)
    .union(WatchMask::ONLYDIR);

/// Something about a file that its owner should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The file or directory.
    pub path: PathBuf,
    /// What is wrong. The file's last good content goes on counting.
    pub reason: Reason,
}

/// Tells whether a file is the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.len(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Whether the last change is long enough ago. A clock that was set back must not keep a file out.
    fn is_settled(self, now: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(self.changed.0), u32::try_from(self.changed.1)) else {
            return true;
        };
        let changed = UNIX_EPOCH + Duration::new(seconds, nanos);
        now.duration_since(changed).map_or(true, |age| age >= SETTLE)
    }
}

/// What is remembered of a file.
#[derive(Clone, Debug)]
struct Known {
    stamp: Stamp,
    /// It had settled when it was read; otherwise it is read again.
    settled: bool,
    good: Vec<Document>,
    complaint: Option<Reason>,
}

/// Which unsettled files are read all the same.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trust<'a> {
    /// None: they are looked at again in a moment.
    Settled,
    /// All: at start there is nothing older to go on with.
    All,
    /// Those that canal itself writes, whole.
    Own(&'a [PathBuf]),
}

/// What a scan found.
#[derive(Debug)]
pub(super) struct Found<'a> {
    /// Every key with its value, and the file that counts.
    pub(super) keys: BTreeMap<&'a str, (&'a [u8], &'a Path)>,
    pub(super) complaints: Vec<Complaint>,
    /// A file had not settled: look again in [`SETTLE`].
    pub(super) again: bool,
}

/// The directory is not there (or not a directory).
#[derive(Debug)]
pub(super) struct RootMissing(pub(super) io::Error);

/// The reader of the directory, with what it knows of each file.
#[derive(Debug)]
pub(super) struct Scanner {
    layout: Layout,
    watches: Option<Watches>,
    /// Watched instead while the root is missing, to see it come.
    ancestor: Option<WatchDescriptor>,
    known: BTreeMap<PathBuf, Known>,
}

/// A file to look at, with what it is.
struct Candidate {
    path: PathBuf,
    meaning: Result<(Place, Format), Reason>,
}

/// One scan under way.
#[derive(Default)]
struct Walk {
    candidates: Vec<Candidate>,
    /// Directories that could not be read: their files' last good content stays.
    unreadable: Vec<PathBuf>,
    complaints: Vec<Complaint>,
}

impl Scanner {
    pub(super) fn new(layout: Layout, watches: Option<Watches>) -> Self {
        Self { layout, watches, ancestor: None, known: BTreeMap::new() }
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How many keys the file of `path` gives.
    pub(super) fn keys_in(&self, path: &Path) -> usize {
        self.known.get(path).map_or(0, |known| known.good.len())
    }

    /// The file that counts for a key. Looks through all of them: it is asked when canal writes, which is seldom, and a copy
    /// of all keys kept for it would be as large as the directory.
    pub(super) fn holder_of(&self, key: &str) -> Option<&Path> {
        let holds = |known: &Known| known.good.iter().any(|document| document.key == key);
        self.known.iter().find(|(_, known)| holds(known)).map(|(path, _)| path.as_path())
    }

    /// Looks at every file; reads those that changed.
    pub(super) fn scan(&mut self, trust: Trust<'_>, now: SystemTime) -> Result<Found<'_>, RootMissing> {
        let mut walk = Walk::default();
        if let Err(error) = self.walk_root(&mut walk) {
            self.watch_ancestor();
            return Err(RootMissing(error));
        }
        self.leave_ancestor();

        walk.candidates.sort_by(|a, b| a.path.cmp(&b.path));
        let (mut complaints, mut again) = (walk.complaints, false);
        let mut before = std::mem::take(&mut self.known);
        for Candidate { path, meaning } in walk.candidates {
            let previous = before.remove(&path);
            match meaning {
                Ok((place, format)) => {
                    if let Some(known) = look(&path, &place, format, previous, trust, now, &mut again) {
                        self.known.insert(path, known);
                    }
                }
                Err(reason) => complain(&mut complaints, &path, reason),
            }
        }
        for directory in &walk.unreadable {
            let kept: Vec<PathBuf> =
                before.keys().filter(|path| path.starts_with(directory)).cloned().collect();
            for path in kept {
                if let Some(known) = before.remove(&path) {
                    self.known.insert(path, known);
                }
            }
        }
        Ok(self.collect(complaints, again))
    }

    /// All keys of all files: the first file in order wins.
    fn collect(&self, complaints: Vec<Complaint>, again: bool) -> Found<'_> {
        let mut found = Found { keys: BTreeMap::new(), complaints, again };
        for (path, known) in &self.known {
            if let Some(reason) = &known.complaint {
                complain(&mut found.complaints, path, reason.clone());
            }
            for document in &known.good {
                if let Some((_, first)) = found.keys.get(&*document.key) {
                    let reason = Reason::Duplicate { key: document.key.clone(), first: (*first).to_owned() };
                    complain(&mut found.complaints, path, reason);
                } else {
                    found.keys.insert(&document.key, (&document.value, path));
                }
            }
        }
        found
    }

    fn walk_root(&mut self, walk: &mut Walk) -> io::Result<()> {
        let root = self.layout.root.clone();
        for (name, path, meta) in self.entries(&root, walk)? {
            if meta.is_file() {
                if let Some(meaning) = self.layout.root_file(&name) {
                    walk.candidates.push(Candidate { path, meaning: Ok(meaning) });
                }
            } else if meta.is_dir() && name == SUBNETS {
                self.walk_subnets(&path, walk);
            } else if meta.is_dir() && name == RESOURCES {
                self.walk_resources(&path, walk);
            }
        }
        Ok(())
    }

    fn walk_subnets(&mut self, directory: &Path, walk: &mut Walk) {
        for (name, path, meta) in self.entries_or_keep(directory, walk) {
            if let (true, Some(meaning)) = (meta.is_file(), self.layout.subnet_file(&name)) {
                let meaning = meaning.map_err(|()| Reason::NotASubnet);
                walk.candidates.push(Candidate { path, meaning });
            }
        }
    }

    fn walk_resources(&mut self, top: &Path, walk: &mut Walk) {
        // Symbolic links are followed (Kubernetes mounts consist of them), so a directory may be met again.
        let mut seen = HashSet::new();
        let mut waiting = vec![(top.to_owned(), 0)];
        while let Some((directory, depth)) = waiting.pop() {
            for (name, path, meta) in self.entries_or_keep(&directory, walk) {
                if meta.is_dir() {
                    if depth + 1 >= DEPTH_MAX {
                        complain(&mut walk.complaints, &path, Reason::Limit("8 nested directories"));
                    } else if seen.insert((meta.dev(), meta.ino())) {
                        waiting.push((path, depth + 1));
                    }
                } else if let (true, Some(meaning)) = (meta.is_file(), Layout::resource_file(&name)) {
                    if walk.candidates.len() >= FILES_MAX {
                        complain(&mut walk.complaints, &directory, Reason::Limit("100,000 files"));
                        return;
                    }
                    walk.candidates.push(Candidate { path, meaning: Ok(meaning) });
                }
            }
        }
    }

    fn entries_or_keep(&mut self, directory: &Path, walk: &mut Walk) -> Vec<(String, PathBuf, Metadata)> {
        match self.entries(directory, walk) {
            Ok(entries) => entries,
            // Removed since it was listed: its files are gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                walk.unreadable.push(directory.to_owned());
                complain(&mut walk.complaints, directory, Reason::Unreadable(error.to_string()));
                Vec::new()
            }
        }
    }

    /// The entries of a directory in order, which is watched from before it is read, so that nothing that
    /// changes afterwards is missed.
    fn entries(&mut self, directory: &Path, walk: &mut Walk) -> io::Result<Vec<(String, PathBuf, Metadata)>> {
        if let Some(watches) = &mut self.watches
            && let Err(error) = watches.add(directory, DIRECTORY_EVENTS)
            && error.kind() != io::ErrorKind::NotFound
        {
            complain(&mut walk.complaints, directory, Reason::Unwatched(error.to_string()));
        }
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            // A name that is not text is not one of ours.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if is_ignored(&name) {
                continue;
            }
            let path = entry.path();
            // Follows links; one that leads nowhere is as good as absent.
            if let Ok(meta) = fs::metadata(&path) {
                entries.push((name, path, meta));
            }
        }
        entries.sort_by(|a, b| a.1.cmp(&b.1));
        Ok(entries)
    }

    fn watch_ancestor(&mut self) {
        self.leave_ancestor();
        let Some(watches) = &mut self.watches else { return };
        for ancestor in self.layout.root.ancestors().skip(1) {
            let ancestor = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
            if let Ok(watch) = watches.add(ancestor, DIRECTORY_EVENTS) {
                self.ancestor = Some(watch);
                return;
            }
        }
    }

    fn leave_ancestor(&mut self) {
        if let (Some(watches), Some(watch)) = (&mut self.watches, self.ancestor.take()) {
            // It may be gone by itself, with its directory.
            let _ = watches.remove(watch);
        }
    }
}

/// What is known of a file after a look at it; `None` if it is gone.
fn look(
    path: &Path,
    place: &Place,
    format: Format,
    previous: Option<Known>,
    trust: Trust<'_>,
    now: SystemTime,
    again: &mut bool,
) -> Option<Known> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(unreadable(previous, &error)),
    };
    let stamp = Stamp::of(&meta);
    if let Some(known) = &previous
        && known.stamp == stamp
        && known.settled
    {
        return previous;
    }
    let settled = stamp.is_settled(now);
    let trusted = match trust {
        Trust::Settled => settled,
        Trust::All => true,
        Trust::Own(own) => settled || own.iter().any(|own| own == path),
    };
    *again |= !settled;
    if !trusted {
        return previous;
    }
    let result = read(path).and_then(|text| documents(place, format, &text));
    let (good, complaint) = match result {
        Ok(good) => (good, None),
        Err(reason) => (previous.map(|known| known.good).unwrap_or_default(), Some(reason)),
    };
    Some(Known { stamp, settled, good, complaint })
}

fn unreadable(previous: Option<Known>, error: &io::Error) -> Known {
    Known {
        stamp: Stamp { device: 0, inode: 0, bytes: 0, changed: (0, 0) },
        settled: false,
        good: previous.map(|known| known.good).unwrap_or_default(),
        complaint: Some(Reason::Unreadable(error.to_string())),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Reason> {
    let unreadable = |error: io::Error| Reason::Unreadable(error.to_string());
    // Not blocking: what was a file may be a pipe by now.
    let file =
        File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    let too_large = |bytes| Reason::TooLarge { bytes, limit: FILE_BYTES_MAX };
    if meta.len() > FILE_BYTES_MAX {
        return Err(too_large(meta.len()));
    }
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(too_large(text.len() as u64));
    }
    Ok(text)
}

fn complain(complaints: &mut Vec<Complaint>, path: &Path, reason: Reason) {
    if complaints.len() < COMPLAINTS_MAX {
        complaints.push(Complaint { path: path.to_owned(), reason });
    }
}
