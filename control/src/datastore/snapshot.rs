//! The last good state on disk, to go on with when the daemon starts and the datastore is away.
//!
//! A text file: one header line (JSON: version, source, revision, time, number of entries, checksum of what
//! follows), then one line per key. Written beside, synced and renamed, readable by the owner only, because
//! values may hold secrets of the cluster.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Revision;

/// Version of the format; another one is not read.
const VERSION: u32 = 1;

/// Longest file that is read: 100,000 keys of 10 KiB.
const BYTES_MAX: u64 = 1 << 30;

/// A state and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved<E = BTreeMap<String, Vec<u8>>> {
    /// [`super::Datastore::describe`] of the store; a state of another store is not to be gone on with.
    pub source: String,
    /// The revision of the state, in its store's history.
    pub revision: Revision,
    /// When it was saved, to the millisecond.
    pub saved_at: SystemTime,
    /// Every key with its value.
    pub entries: E,
}

/// Why there is no state to go on with, or none was saved.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Written by another version.
    #[error("{}: format {found}, this program reads {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Not what was once written.
    #[error("{}: damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it shows.
        what: Damage,
    },
}

/// What shows that a file is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// No header line, or not one of ours.
    #[error("no header")]
    Header,
    /// Not as long as any state of ours.
    #[error("longer than {BYTES_MAX} bytes")]
    Length,
    /// The checksum of the entries is another one.
    #[error("checksum does not match")]
    Checksum,
    /// An entry cannot be read (counted from 1).
    #[error("entry {0} is not one")]
    Entry(usize),
    /// Entries are missing or too many, or a key comes twice.
    #[error("number of entries does not match")]
    Count,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    canal_snapshot: u32,
    source: String,
    revision: Revision,
    saved_at_unix_ms: u64,
    entries: usize,
    checksum: u64,
}

/// The part of the header that every version has.
#[derive(Deserialize)]
struct AnyHeader {
    canal_snapshot: u32,
}

/// One line: a value that is text is kept as text, so that a human can read the file.
#[derive(Debug, Serialize, Deserialize)]
struct Entry<'a> {
    k: std::borrow::Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    text: Option<std::borrow::Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    bytes: Option<std::borrow::Cow<'a, [u8]>>,
}

/// FNV-1a, 64 bits: against torn and rotten files, not against anybody.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Writes a state so that either it or the one before is there, whatever happens meanwhile. Directories on the
/// way must exist. Blocks on the disk. Returns the bytes written. Entries, each key once, are taken one by one: they need
/// not be in memory at the same time.
///
/// # Errors
/// [`SnapshotError::Io`].
pub fn save<K: AsRef<str>, V: AsRef<[u8]>>(
    path: &Path,
    state: Saved<impl IntoIterator<Item = (K, V)>>,
) -> Result<u64, SnapshotError> {
    let failed = |source| SnapshotError::Io { path: path.to_owned(), source };
    let (mut body, mut entries) = (Vec::new(), 0);
    for (key, value) in state.entries {
        let (key, value) = (key.as_ref(), value.as_ref());
        let text = std::str::from_utf8(value).ok();
        let entry =
            Entry { k: key.into(), text: text.map(Into::into), bytes: text.is_none().then(|| value.into()) };
        serde_json::to_writer(&mut body, &entry).map_err(|error| failed(error.into()))?;
        body.push(b'\n');
        entries += 1;
    }
    let age = state.saved_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let header = Header {
        canal_snapshot: VERSION,
        source: state.source,
        revision: state.revision,
        saved_at_unix_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        entries,
        checksum: checksum(&body),
    };
    let mut text = serde_json::to_vec(&header).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    write(path, &text, &body).map_err(failed)?;
    Ok((text.len() + body.len()) as u64)
}

fn write(path: &Path, header: &[u8], body: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    // One daemon per file: what is left of an earlier one that was killed is in nobody's use. Made anew, so that
    // its mode is ours.
    if let Err(error) = fs::remove_file(&temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(header)?;
    file.write_all(body)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Reads a state back; `None` if none was ever saved there. Blocks on the disk.
///
/// # Errors
/// [`SnapshotError`]; the file is left as it is.
pub fn load(path: &Path) -> Result<Option<Saved>, SnapshotError> {
    let failed = |source| SnapshotError::Io { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    parse(path, &text).map(Some)
}

fn parse(path: &Path, text: &[u8]) -> Result<Saved, SnapshotError> {
    let damaged = |what| SnapshotError::Damaged { path: path.to_owned(), what };
    if text.len() as u64 > BYTES_MAX {
        return Err(damaged(Damage::Length));
    }
    let end = text.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged(Damage::Header))?;
    let (header, body) = (&text[..end], &text[end + 1..]);
    let version: AnyHeader = serde_json::from_slice(header).map_err(|_| damaged(Damage::Header))?;
    if version.canal_snapshot != VERSION {
        return Err(SnapshotError::Version { path: path.to_owned(), found: version.canal_snapshot });
    }
    let header: Header = serde_json::from_slice(header).map_err(|_| damaged(Damage::Header))?;
    if checksum(body) != header.checksum {
        return Err(damaged(Damage::Checksum));
    }
    let mut entries = BTreeMap::new();
    let mut lines = 0;
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        lines += 1;
        let (key, value) = parse_entry(line).ok_or_else(|| damaged(Damage::Entry(lines)))?;
        entries.insert(key, value);
    }
    if entries.len() != header.entries || lines != header.entries {
        return Err(damaged(Damage::Count));
    }
    let saved_at = UNIX_EPOCH
        .checked_add(Duration::from_millis(header.saved_at_unix_ms))
        .ok_or_else(|| damaged(Damage::Header))?;
    Ok(Saved { source: header.source, revision: header.revision, saved_at, entries })
}

fn parse_entry(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let entry: Entry<'_> = serde_json::from_slice(line).ok()?;
    let value = match (entry.text, entry.bytes) {
        (Some(text), None) => text.into_owned().into_bytes(),
        (None, Some(bytes)) => bytes.into_owned(),
        _ => return None,
    };
    Some((entry.k.into_owned(), value))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn state(entries: BTreeMap<String, Vec<u8>>) -> Saved {
        Saved {
            source: "etcd http://127.0.0.1:2379".to_owned(),
            revision: 42,
            saved_at: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            entries,
        }
    }

    fn two() -> Saved {
        state(BTreeMap::from([
            ("/a\n\"b\"".to_owned(), b"{\"text\": \"\\n\"}\n".to_vec()),
            ("/b".to_owned(), vec![0xff, 0, b'\n']),
        ]))
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last-good.json");
        assert!(load(&path).unwrap().is_none());
        save(&path, state(BTreeMap::new())).unwrap();
        save(&path, two()).unwrap();
        assert_eq!(load(&path).unwrap(), Some(two()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_left_over_of_a_killed_daemon_is_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        fs::write(dir.path().join(".s.tmp"), "half").unwrap();
        save(&path, two()).unwrap();
        assert_eq!(load(&path).unwrap(), Some(two()));
        let nowhere = save(&dir.path().join("missing/s"), two());
        assert!(matches!(nowhere, Err(SnapshotError::Io { .. })), "{nowhere:?}");
    }

    #[test]
    fn another_version_says_so() {
        let found = parse(Path::new("/s"), b"{\"canal_snapshot\":2,\"new\":1}\nwhatever");
        assert!(matches!(found, Err(SnapshotError::Version { found: 2, .. })), "{found:?}");
    }

    #[test]
    fn every_single_wrong_bit_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        save(&path, two()).unwrap();
        let good = fs::read(&path).unwrap();
        let body = good.iter().position(|byte| *byte == b'\n').unwrap();
        for at in body..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(parse(&path, &bad).is_err(), "bit {bit} of byte {at}");
            }
        }
        for end in 0..good.len() {
            assert!(parse(&path, &good[..end]).is_err(), "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn any_state_comes_back(
            entries in prop::collection::btree_map(
                any::<String>(), prop::collection::vec(any::<u8>(), 0..40), 0..20
            )
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("s");
            save(&path, state(entries.clone())).unwrap();
            prop_assert_eq!(load(&path).unwrap(), Some(state(entries)));
        }

        #[test]
        fn no_file_makes_it_panic(
            header in "\\{\"canal_snapshot\":1,\"source\":\"\",\"revision\":[0-9]{1,20},\
                \"saved_at_unix_ms\":[0-9]{1,20},\"entries\":[0-9]{1,20},\"checksum\":[0-9]{1,20}\\}\n",
            body in prop::collection::vec(any::<u8>(), 0..100)
        ) {
            let mut text = header.into_bytes();
            text.extend(body);
            // The checksum is made up, and half a file has no header.
            prop_assert!(parse(Path::new("/s"), &text).is_err());
            prop_assert!(parse(Path::new("/s"), &text[text.len() / 2..]).is_err());
        }
    }
}
