//! Keys and values from files.
//!
//! A directory is one of the `dir` datastore, or simply holds Calico's resources. A file is a dump of etcd: what
//! `etcdctl get --prefix "" -w json` prints, or an object of keys and values, or a list of `{key, value}`.

use std::path::Path;

use canal_control::datastore::dir::{Dir, FILE_BYTES_MAX, Format, Place, documents};
use canal_control::datastore::{Datastore, KeyValue, Revision};
use canal_control::model::flannel::Prefix;
use serde_json::{Map, Value};

use super::OfflineError;

/// Longest dump, bytes: a cluster of 100,000 endpoints.
const DUMP_BYTES_MAX: u64 = 1 << 30;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Every key, in order.
    pub entries: Vec<KeyValue>,
    /// Files and values that could not be read.
    pub complaints: Vec<String>,
}

/// Reads a directory or a dump.
///
/// # Errors
/// [`OfflineError::Unreadable`].
pub fn read(path: &Path, prefix: &Prefix) -> Result<Found, OfflineError> {
    let unreadable = |why: String| OfflineError::Unreadable { path: path.display().to_string(), why };
    let meta = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    if meta.is_dir() {
        return if is_datastore(path) { datastore(path, prefix) } else { resources(path) };
    }
    if meta.len() > DUMP_BYTES_MAX {
        return Err(unreadable(format!("longer than {DUMP_BYTES_MAX} bytes")));
    }
    let text = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    let value = serde_json::from_slice(&text).map_err(|error| unreadable(format!("not JSON: {error}")))?;
    dump(value).map_err(unreadable)
}

/// Has it what only a datastore's directory has?
fn is_datastore(path: &Path) -> bool {
    let names = ["subnets", "resources"].into_iter().map(str::to_owned);
    let extensions = ["json", "yaml", "yml"];
    let configs = ["net-conf", "config"].into_iter();
    let configs = configs.flat_map(|name| extensions.map(|extension| format!("{name}.{extension}")));
    names.chain(configs).any(|name| path.join(name).exists())
}

fn datastore(path: &Path, prefix: &Prefix) -> Result<Found, OfflineError> {
    let unreadable = |why: String| OfflineError::Unreadable { path: path.display().to_string(), why };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| unreadable(error.to_string()))?;
    runtime.block_on(async {
        let dir = Dir::open(path, &prefix.to_string()).map_err(|error| unreadable(error.to_string()))?;
        let listed = dir.list("").await.map_err(|error| unreadable(error.to_string()))?;
        let complaint = |complaint: canal_control::datastore::dir::Complaint| {
            format!("{}: {}", complaint.path.display(), complaint.reason)
        };
        Ok(Found {
            entries: listed.entries,
            complaints: dir.complaints().into_iter().map(complaint).collect(),
        })
    })
}

/// Every document of every file in a directory, not looking into further ones.
fn resources(path: &Path) -> Result<Found, OfflineError> {
    let unreadable = |error: std::io::Error| OfflineError::Unreadable {
        path: path.display().to_string(),
        why: error.to_string(),
    };
    let mut found = Found::default();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        files.push(entry.map_err(unreadable)?.path());
    }
    files.sort_unstable();
    for file in files {
        let format = match file.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Format::Json,
            Some("yaml" | "yml") => Format::Yaml,
            _ => continue,
        };
        match contents(&file, format) {
            Ok(entries) => found.entries.extend(entries),
            Err(why) => found.complaints.push(format!("{}: {why}", file.display())),
        }
    }
    found.entries.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(found)
}

fn contents(file: &Path, format: Format) -> Result<Vec<KeyValue>, String> {
    let text = |error: std::io::Error| error.to_string();
    let meta = std::fs::metadata(file).map_err(text)?;
    if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
        return Err(format!("no file of at most {FILE_BYTES_MAX} bytes"));
    }
    let bytes = std::fs::read(file).map_err(text)?;
    let documents = documents(&Place::Resources, format, &bytes).map_err(|reason| reason.to_string())?;
    Ok(documents.into_iter().map(|document| entry(document.key, document.value, 1)).collect())
}

fn entry(key: String, value: Vec<u8>, mod_revision: Revision) -> KeyValue {
    KeyValue { key, value, mod_revision, lease: None }
}

fn dump(value: Value) -> Result<Found, String> {
    let mut found = Found::default();
    match value {
        Value::Object(mut object) if object.contains_key("kvs") || object.contains_key("header") => {
            let Some(Value::Array(entries)) = object.remove("kvs") else { return Ok(found) };
            for (number, value) in entries.into_iter().enumerate() {
                match etcdctl(&value) {
                    Some(entry) => found.entries.push(entry),
                    None => found.complaints.push(format!("entry {number}: no key and value in base64")),
                }
            }
        }
        Value::Object(object) => {
            found.entries = object.into_iter().map(|(key, value)| entry(key, raw(value), 1)).collect();
        }
        Value::Array(entries) => {
            for (number, value) in entries.into_iter().enumerate() {
                match plain(value) {
                    Some(entry) => found.entries.push(entry),
                    None => found.complaints.push(format!("entry {number}: no object with key and value")),
                }
            }
        }
        _ => return Err("neither an object nor a list".to_owned()),
    }
    found.entries.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(found)
}

fn etcdctl(value: &Value) -> Option<KeyValue> {
    let text = |name| value.get(name).and_then(Value::as_str);
    let key = String::from_utf8(base64(text("key")?)?).ok()?;
    // etcdctl leaves out what is empty.
    let content = base64(text("value").unwrap_or_default())?;
    Some(entry(key, content, revision(value)))
}

fn plain(value: Value) -> Option<KeyValue> {
    let revision = revision(&value);
    let Value::Object(mut object) = value else { return None };
    let key = member(&mut object, "key")?.as_str()?.to_owned();
    Some(entry(key, raw(member(&mut object, "value")?), revision))
}

fn member(object: &mut Map<String, Value>, name: &str) -> Option<Value> {
    object.remove(name)
}

fn revision(value: &Value) -> Revision {
    value.get("mod_revision").and_then(Value::as_i64).unwrap_or(1)
}

/// A text is the value as it is stored; anything else is stored as JSON.
fn raw(value: Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.into_bytes(),
        other => other.to_string().into_bytes(),
    }
}

/// Standard base64 (RFC 4648 §4).
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for character in text.trim_end_matches('=').bytes() {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(found: &Found) -> Vec<(String, String, Revision)> {
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        found
            .entries
            .iter()
            .map(|entry| (entry.key.clone(), text(&entry.value), entry.mod_revision))
            .collect()
    }

    #[test]
    fn base64_of_every_length() {
        for (text, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("/a-24&b>?", "L2EtMjQmYj4/")]
        {
            assert_eq!(base64(coded).unwrap(), text.as_bytes(), "{coded}");
        }
        assert_eq!(base64("!"), None);
    }

    #[test]
    fn dumps_of_three_shapes() {
        let etcdctl = json!({"header": {"revision": 9}, "kvs": [
            {"key": "L2I=", "mod_revision": 7, "value": "e30="},
            {"key": "L2E=", "mod_revision": 3},
            {"value": "e30="},
        ]});
        let found = dump(etcdctl).unwrap();
        assert_eq!(shown(&found), [("/a".into(), String::new(), 3), ("/b".into(), "{}".into(), 7)]);
        assert_eq!(found.complaints.len(), 1);
        assert_eq!(dump(json!({"header": {}})).unwrap().entries, []);

        let object = dump(json!({"/b": {"x": 1}, "/a": "raw"})).unwrap();
        assert_eq!(shown(&object), [("/a".into(), "raw".into(), 1), ("/b".into(), r#"{"x":1}"#.into(), 1)]);

        let list = dump(json!([{"key": "/a", "value": true, "mod_revision": 5}, {"key": "/b"}, 7])).unwrap();
        assert_eq!(shown(&list), [("/a".into(), "true".into(), 5)]);
        assert_eq!(list.complaints.len(), 2);
        assert!(dump(json!(7)).is_err());
    }
}
