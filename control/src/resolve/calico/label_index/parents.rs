//! Parents, from which kinds of objects inherit labels.

use std::collections::HashMap;
use std::sync::Arc;

use super::population::Population;
use super::{Hasher, KindId};
use crate::model::calico::resources::Labels;
use crate::resolve::calico::id_set::IdSet;
use crate::resolve::calico::slots::Slots;

/// A parent.
pub(super) type ParentId = u32;

/// Parents that exist or are named by a kind of objects.
#[derive(Debug, Default)]
pub(super) struct Parents {
    parents: Slots<Parent>,
    ids: HashMap<Arc<str>, ParentId>,
    population: Population,
}

#[derive(Debug)]
struct Parent {
    name: Arc<str>,
    /// `None` while no such parent exists.
    labels: Option<Arc<Labels>>,
    children: IdSet,
}

impl Parents {
    /// Their numbers. One that nobody has named yet gets its number now, and has to be adopted by someone.
    pub(super) fn ids(&mut self, names: &[Arc<str>]) -> Arc<[ParentId]> {
        names.iter().map(|name| self.id(name)).collect()
    }

    pub(super) fn adopt(&mut self, child: KindId, ids: &[ParentId]) {
        for id in ids {
            self.parents[*id].children.insert(child);
        }
    }

    pub(super) fn abandon(&mut self, child: KindId, ids: &[ParentId]) {
        for id in ids {
            // The list may name a parent twice.
            if self.parents.get(*id).is_some() {
                self.parents[*id].children.remove(child);
                self.collect(*id);
            }
        }
    }

    /// Sets a parent's labels; its children if they have to look again.
    pub(super) fn set_labels(&mut self, name: &str, labels: Option<&Arc<Labels>>, hasher: &Hasher) -> IdSet {
        let id = self.id(&name.into());
        let parent = &mut self.parents[id];
        let changed = parent.labels.as_ref() != labels;
        let children = if changed { parent.children.clone() } else { IdSet::default() };
        if let Some(old) = std::mem::replace(&mut parent.labels, labels.cloned()) {
            self.population.remove(&old, hasher, id);
        }
        if let Some(new) = labels {
            self.population.add(new, hasher, id);
        }
        self.collect(id);
        children
    }

    pub(super) fn labels(&self, id: ParentId) -> impl Iterator<Item = (&str, &str)> {
        self.parents[id].labels.iter().flat_map(|labels| labels.iter())
    }

    pub(super) fn label(&self, id: ParentId, label: &str) -> Option<&str> {
        self.parents[id].labels.as_ref()?.get(label)
    }

    /// How many kinds inherit something under this key; those with two such parents count twice.
    pub(super) fn count(&self, key: u64) -> usize {
        self.population.with(key).map(|id| self.parents[id].children.len()).sum()
    }

    /// Those kinds.
    pub(super) fn children(&self, key: u64) -> impl Iterator<Item = KindId> {
        self.population.with(key).flat_map(|id| self.parents[id].children.iter())
    }

    fn id(&mut self, name: &Arc<str>) -> ParentId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let name = Arc::clone(name);
        let parent = Parent { name: Arc::clone(&name), labels: None, children: IdSet::default() };
        let id = self.parents.insert(parent);
        self.ids.insert(name, id);
        id
    }

    /// Forgets a parent that neither exists nor is named.
    fn collect(&mut self, id: ParentId) {
        let parent = &self.parents[id];
        if parent.labels.is_none()
            && parent.children.is_empty()
            && let Some(parent) = self.parents.remove(id)
        {
            self.ids.remove(&parent.name);
        }
    }
}

#[cfg(test)]
impl Parents {
    pub(super) fn is_empty(&self) -> bool {
        self.parents.iter().next().is_none() && self.ids.is_empty() && self.population.is_empty()
    }
}
