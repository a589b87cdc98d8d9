//! Resources in a datastore: found, written under a condition, deleted.

mod guards;

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha224};

use super::document::{ALLOW_PROFILE, Resource, allow_profile};
use super::error::FieldError;
use super::kind::Kind;
use super::name::{shown_policy_name, stored_policy_name};
use super::prepare::{pool_defaults, prepare};
use super::schema::{Object, object_of};
use super::stamp::Stamp;
use crate::datastore::{Datastore, Error, Expect, KeyValue, Revision, Written};

/// How often a write is tried when somebody else is always faster; calicoctl's number.
const TRIES_MAX: u32 = 5;

/// Bytes of a digest that stand for a content: enough that nobody meets the same twice by chance.
const VERSION_BYTES: usize = 12;

/// Between two tries, times the number of the try.
const PAUSE: Duration = Duration::from_millis(50);

/// What shall happen to what is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Created or replaced.
    Apply,
    /// It must not be there.
    Create,
    /// It must be there.
    Replace,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It was not there.
    Created(Revision),
    /// It was there and is another now.
    Updated(Revision),
    /// It was there and is the same: nothing was written.
    Unchanged(Revision),
}

/// Why a resource was not written, or not deleted.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The datastore's own.
    #[error(transparent)]
    Datastore(#[from] Error),
    /// Fields that do not go with what is there.
    #[error("{}", sentences(.0))]
    Invalid(Vec<FieldError>),
    /// It is there.
    #[error("already exists")]
    Exists,
    /// It is not there.
    #[error("does not exist")]
    Missing,
    /// It is not what its author has seen.
    #[error("resourceVersion {given} is out of date, the latest is {latest}: get it again and change that")]
    Stale {
        /// In the document.
        given: String,
        /// In the datastore.
        latest: String,
    },
    /// Somebody else was faster, [`TRIES_MAX`] times.
    #[error("is being written by somebody else all the time; try again")]
    Contended,
    /// Other resources stand against it.
    #[error("{0}")]
    Refused(String),
}

fn sentences(errors: &[FieldError]) -> String {
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    errors.join("; ")
}

/// A resource in the datastore.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// What it is.
    pub kind: Kind,
    /// Empty for kinds that have none.
    pub namespace: String,
    /// Its name in the key.
    pub stored_name: String,
    /// The value as it is stored.
    pub object: Object,
    /// Of the last write; 0 for what is not stored.
    pub revision: Revision,
    /// `resourceVersion`: the revision, or what stands for the content where revisions do not last. Empty for what is not
    /// stored.
    pub version: String,
}

impl Found {
    /// Its name for people.
    pub fn name(&self) -> &str {
        if self.kind.is_policy() { shown_policy_name(&self.stored_name) } else { &self.stored_name }
    }

    /// The value as calicoctl shows it: the name for people, the revision, what a pool means by saying nothing.
    pub fn shown(&self) -> Value {
        let mut object = self.object.clone();
        if self.kind.name() == "IPPool"
            && let Some(Value::Object(spec)) = object.get_mut("spec")
        {
            pool_defaults(spec);
        }
        if let Value::Object(meta) = object.entry("metadata").or_insert_with(|| Value::Object(Object::new()))
        {
            meta.insert("name".to_owned(), self.name().into());
            if !self.version.is_empty() {
                meta.insert("resourceVersion".to_owned(), self.version.as_str().into());
            }
        }
        Value::Object(object)
    }
}

/// A value under a resource's key that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The key.
    pub key: String,
    /// What the parser says.
    pub reason: String,
}

/// Resources in a datastore.
#[derive(Clone, Copy, Debug)]
pub struct ResourceStore<'a> {
    store: &'a dyn Datastore,
}

impl<'a> ResourceStore<'a> {
    /// In that one.
    pub fn new(store: &'a dyn Datastore) -> Self {
        Self { store }
    }

    /// One resource by its name for people.
    ///
    /// # Errors
    /// The datastore's.
    pub async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Found>, Error> {
        if kind.name() == "Profile" && name == ALLOW_PROFILE {
            return Ok(Some(built_in(kind)));
        }
        for stored in stored_names(kind, name) {
            let key = key(kind, namespace, &stored);
            if let Some(entry) = self.store.get(&key).await? {
                // One that cannot be read is there, and can be replaced.
                return Ok(Some(self.found(kind, &entry).unwrap_or_else(|_| Found {
                    kind,
                    namespace: namespace.to_owned(),
                    stored_name: stored,
                    object: Object::new(),
                    revision: entry.mod_revision,
                    version: self.version(&entry),
                })));
            }
        }
        Ok(None)
    }

    /// All resources of a kind, in one namespace or in all, in order of key.
    ///
    /// # Errors
    /// The datastore's.
    pub async fn list(
        &self,
        kind: Kind,
        namespace: Option<&str>,
    ) -> Result<(Vec<Found>, Vec<Unreadable>), Error> {
        let mut prefix = kind.prefix();
        if let Some(namespace) = namespace.filter(|_| kind.is_namespaced()) {
            prefix.push_str(namespace);
            prefix.push('/');
        }
        let listed = self.store.list(&prefix).await?;
        let (mut resources, mut unreadable) = (Vec::new(), Vec::new());
        if kind.name() == "Profile" {
            resources.push(built_in(kind));
        }
        for entry in &listed.entries {
            match self.found(kind, entry) {
                Ok(found) => resources.push(found),
                Err(reason) => unreadable.push(Unreadable { key: entry.key.clone(), reason }),
            }
        }
        Ok((resources, unreadable))
    }

    /// Writes a resource. `stamp` is what it gets if it is new.
    ///
    /// # Errors
    /// Why it was not written. The datastore is as it was then, unless the connection was lost.
    pub async fn write(&self, resource: &Resource, mode: Mode, stamp: &Stamp) -> Result<Done, StoreError> {
        let kind = resource.kind();
        for attempt in 1..=TRIES_MAX {
            let existing = self.get(kind, resource.namespace(), resource.name()).await?;
            match (mode, &existing) {
                (Mode::Create, Some(_)) => return Err(StoreError::Exists),
                (Mode::Replace, None) => return Err(StoreError::Missing),
                _ => {}
            }
            if let (Some(existing), Some(given)) = (&existing, resource.resource_version())
                && given != existing.version
            {
                return Err(StoreError::Stale { given: given.to_owned(), latest: existing.version.clone() });
            }
            if existing.is_none() {
                guards::before_create(self, resource, stamp).await?;
            }
            let stored = existing.as_ref().map(|existing| &existing.object);
            let prepared = prepare(resource, stored, stamp).map_err(StoreError::Invalid)?;
            if let Some(existing) = existing.as_ref().filter(|existing| existing.object == prepared.object) {
                return Ok(Done::Unchanged(existing.revision));
            }
            let expect =
                existing.as_ref().map_or(Expect::Absent, |existing| Expect::Unchanged(existing.revision));
            let name = existing.as_ref().map_or(prepared.name.as_str(), |existing| &existing.stored_name);
            let key = key(kind, resource.namespace(), name);
            match self.store.put(&key, &prepared.encode(kind), expect, None).await? {
                Written::At(revision) if existing.is_none() => return Ok(Done::Created(revision)),
                Written::At(revision) => return Ok(Done::Updated(revision)),
                Written::Conflict => tokio::time::sleep(PAUSE * attempt).await,
            }
        }
        Err(StoreError::Contended)
    }

    /// Deletes a resource by its name for people; `version` is the revision it must have, if any.
    ///
    /// # Errors
    /// Why it was not deleted.
    pub async fn delete(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        version: Option<&str>,
    ) -> Result<Found, StoreError> {
        for attempt in 1..=TRIES_MAX {
            let existing = self.get(kind, namespace, name).await?.ok_or(StoreError::Missing)?;
            if let Some(given) = version.filter(|given| **given != existing.version) {
                return Err(StoreError::Stale { given: given.to_owned(), latest: existing.version });
            }
            guards::before_delete(self, &existing).await?;
            let key = key(kind, namespace, &existing.stored_name);
            match self.store.delete(&key, Expect::Unchanged(existing.revision)).await? {
                Written::At(_) => return Ok(existing),
                Written::Conflict => tokio::time::sleep(PAUSE * attempt).await,
            }
        }
        Err(StoreError::Contended)
    }

    fn found(&self, kind: Kind, entry: &KeyValue) -> Result<Found, String> {
        let rest = entry.key.strip_prefix(&kind.prefix()).unwrap_or_default();
        let (namespace, name) = match rest.split_once('/') {
            Some((namespace, name)) if kind.is_namespaced() => (namespace, name),
            None if !kind.is_namespaced() => ("", rest),
            _ => return Err(format!("the key is not that of a {kind}")),
        };
        if name.is_empty() || name.contains('/') {
            return Err(format!("the key is not that of a {kind}"));
        }
        let object: Object = serde_json::from_slice(&entry.value).map_err(|error| error.to_string())?;
        let (namespace, stored_name) = (namespace.to_owned(), name.to_owned());
        let (revision, version) = (entry.mod_revision, self.version(entry));
        Ok(Found { kind, namespace, stored_name, object, revision, version })
    }

    fn version(&self, entry: &KeyValue) -> String {
        if self.store.keeps_revisions() {
            return entry.mod_revision.to_string();
        }
        let digest = Sha224::digest(&entry.value);
        digest.iter().take(VERSION_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }
}

fn key(kind: Kind, namespace: &str, name: &str) -> String {
    let prefix = kind.prefix();
    if kind.is_namespaced() { format!("{prefix}{namespace}/{name}") } else { format!("{prefix}{name}") }
}

/// Where a policy may be: with its tier in front, as most versions of calicoctl have it, or as it is.
fn stored_names(kind: Kind, name: &str) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    if kind.is_policy() {
        names.insert(0, stored_policy_name(name));
        names.dedup();
    }
    names
}

fn built_in(kind: Kind) -> Found {
    let stored_name = ALLOW_PROFILE.to_owned();
    let (namespace, version) = (String::new(), String::new());
    Found { kind, namespace, stored_name, object: allow_profile(), revision: 0, version }
}

/// A found object's specification.
fn spec_of(found: &Found) -> Object {
    object_of(&found.object, "spec").cloned().unwrap_or_default()
}
