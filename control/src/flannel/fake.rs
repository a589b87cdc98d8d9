//! A datastore for the tests of this module: etcd's rules in a map, and somebody else who writes
//! between two calls.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::datastore::{
    Datastore, Error, Expect, KeyValue, LeaseId, Revision, Snapshot, WatchEvent, Written,
};

/// A write that another node gets in before ours, which is to the key given.
type Interference = Box<dyn FnMut(&mut State, &str) + Send>;

#[derive(Default)]
pub struct State {
    pub revision: Revision,
    pub entries: BTreeMap<String, KeyValue>,
    pub granted: LeaseId,
    pub revoked: Vec<LeaseId>,
    pub log: Vec<String>,
    pub down: bool,
}

impl State {
    pub fn set(&mut self, key: &str, value: &str, lease: Option<LeaseId>) {
        self.revision += 1;
        let entry = KeyValue { key: key.into(), value: value.into(), mod_revision: self.revision, lease };
        self.entries.insert(key.into(), entry);
    }

    pub fn unset(&mut self, key: &str) {
        self.revision += 1;
        self.entries.remove(key);
    }

    fn holds(&self, key: &str, expect: Expect) -> bool {
        match (expect, self.entries.get(key)) {
            (Expect::Anything, _) | (Expect::Absent, None) => true,
            (Expect::Unchanged(revision), Some(entry)) => entry.mod_revision == revision,
            (Expect::Absent, Some(_)) | (Expect::Unchanged(_), None) => false,
        }
    }
}

#[derive(Default)]
pub struct Fake {
    pub state: Mutex<State>,
    before_put: Mutex<Option<Interference>>,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

impl Fake {
    pub fn with(entries: &[(&str, &str, Option<LeaseId>)]) -> Self {
        let fake = Self::default();
        for (key, value, lease) in entries {
            fake.state.lock().unwrap().set(key, value, *lease);
        }
        fake
    }

    /// Runs before each put, until it is replaced.
    pub fn before_put(&self, interference: impl FnMut(&mut State, &str) + Send + 'static) {
        *self.before_put.lock().unwrap() = Some(Box::new(interference));
    }

    pub fn get(&self, key: &str) -> Option<KeyValue> {
        self.state.lock().unwrap().entries.get(key).cloned()
    }

    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }

    fn up(&self) -> Result<std::sync::MutexGuard<'_, State>, Error> {
        let state = self.state.lock().unwrap();
        if state.down { Err(Error::Unavailable("down".into())) } else { Ok(state) }
    }
}

#[async_trait]
impl Datastore for Fake {
    fn describe(&self) -> String {
        "fake".into()
    }

    async fn list(&self, prefix: &str) -> Result<Snapshot, Error> {
        let state = self.up()?;
        let entries = state.entries.values().filter(|entry| entry.key.starts_with(prefix)).cloned().collect();
        Ok(Snapshot { revision: state.revision, history: 1, entries })
    }

    async fn watch(
        &self,
        _prefix: &str,
        _from: Revision,
    ) -> Result<BoxStream<'static, Result<WatchEvent, Error>>, Error> {
        Err(Error::Protocol("nothing here watches".into()))
    }

    async fn put(
        &self,
        key: &str,
        value: &[u8],
        expect: Expect,
        lease: Option<LeaseId>,
    ) -> Result<Written, Error> {
        let mut state = self.up()?;
        if let Some(interference) = self.before_put.lock().unwrap().as_mut() {
            interference(&mut state, key);
        }
        if !state.holds(key, expect) {
            state.log.push(format!("put {key} conflict"));
            return Ok(Written::Conflict);
        }
        state.set(key, std::str::from_utf8(value).unwrap(), lease);
        state.log.push(format!("put {key} lease {lease:?}"));
        Ok(Written::At(state.revision))
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<Written, Error> {
        let mut state = self.up()?;
        if !state.holds(key, expect) {
            return Ok(Written::Conflict);
        }
        state.unset(key);
        state.log.push(format!("delete {key}"));
        Ok(Written::At(state.revision))
    }

    async fn grant(&self, ttl: Duration) -> Result<Option<LeaseId>, Error> {
        assert_eq!(ttl, Duration::from_secs(86_400));
        let mut state = self.up()?;
        state.granted += 1;
        Ok(Some(state.granted))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        let mut state = self.up()?;
        state.entries.retain(|_, entry| entry.lease != Some(lease));
        state.revoked.push(lease);
        Ok(())
    }
}
