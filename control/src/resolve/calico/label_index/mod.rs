//! Which objects match which selectors, kept up to date change by change.
//!
//! An object has labels of its own and inherits those of its parents (profiles): its own value first, else that of the
//! first parent in its list that has the label.
//!
//! At a hundred thousand objects and ten thousand selectors nobody can ask every pair. Most selectors name a label that
//! an object must have ([`Selector::restrictions`]); they are filed under it (`filing`), and a changed object asks only
//! those filed under one of its labels. A new selector asks only the objects that carry such a label (`population`).

mod filing;
mod parents;
mod population;

#[cfg(test)]
mod properties;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;

use self::filing::Filing;
use self::parents::{ParentId, Parents};
use self::population::Population;
use super::slots::Slots;
use crate::model::calico::resources::Labels;
use crate::model::calico::selector::Selector;

/// An object; its owner numbers them.
pub type ObjectId = u32;

/// A selector in the index.
pub type SelectorId = u32;

/// An object and a selector found each other, or parted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Match {
    /// Which selector.
    pub selector: SelectorId,
    /// Which object.
    pub object: ObjectId,
    /// It matches now; before it did not.
    pub begins: bool,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct LabelIndex {
    objects: HashMap<ObjectId, Object>,
    parents: Parents,
    population: Population,
    selectors: Slots<Selection>,
    ids: HashMap<Selector, SelectorId>,
    filing: Filing,
    hasher: Hasher,
}

#[derive(Debug)]
struct Object {
    labels: Arc<Labels>,
    parents: Vec<ParentId>,
    /// Selectors that match it, sorted.
    selections: Vec<SelectorId>,
}

#[derive(Debug)]
struct Selection {
    selector: Selector,
    users: usize,
    objects: BTreeSet<ObjectId>,
}

/// Labels and values as keys of tables: four times smaller than the strings. Two labels may share a key; whatever is
/// found under one is asked before it is believed.
#[derive(Debug, Default)]
struct Hasher(RandomState);

impl Hasher {
    fn label(&self, label: &str) -> u64 {
        self.0.hash_one((label, None::<&str>))
    }

    fn value(&self, label: &str, value: &str) -> u64 {
        self.0.hash_one((label, Some(value)))
    }
}

impl LabelIndex {
    /// Learns of an object or of its new labels. `parents`: in order of precedence.
    pub fn set_object(
        &mut self,
        id: ObjectId,
        labels: &Arc<Labels>,
        parents: &[String],
        out: &mut Vec<Match>,
    ) {
        let before = self.objects.get(&id);
        if before.is_some_and(|object| object.labels == *labels && self.parents.are(&object.parents, parents))
        {
            return;
        }
        let selections = self.unlink(id);
        let parents = self.parents.adopt(id, parents);
        self.population.add(labels, &self.hasher, id);
        self.objects.insert(id, Object { labels: Arc::clone(labels), parents, selections });
        self.select_anew(id, out);
    }

    /// Forgets an object.
    pub fn remove_object(&mut self, id: ObjectId, out: &mut Vec<Match>) {
        for selector in self.unlink(id) {
            self.selectors[selector].objects.remove(&id);
            out.push(Match { selector, object: id, begins: false });
        }
    }

    /// Labels of a parent, `None` = there is no such parent.
    pub fn set_parent(&mut self, name: &str, labels: Option<&Arc<Labels>>, out: &mut Vec<Match>) {
        for child in self.parents.set_labels(name, labels, &self.hasher) {
            self.select_anew(child, out);
        }
    }

    /// Adds a selector, or one more user of it. What it matches is in [`Self::objects`].
    pub fn acquire(&mut self, selector: &Selector) -> SelectorId {
        if let Some(id) = self.ids.get(selector) {
            self.selectors[*id].users += 1;
            return *id;
        }
        let found = self.candidates(selector).into_iter();
        let objects: BTreeSet<ObjectId> =
            found.filter(|id| self.matches(selector, &self.objects[id])).collect();
        let selector = selector.clone();
        let id = self.selectors.insert(Selection { selector: selector.clone(), users: 1, objects });
        for object in &self.selectors[id].objects {
            if let Some(object) = self.objects.get_mut(object)
                && let Err(at) = object.selections.binary_search(&id)
            {
                object.selections.insert(at, id);
            }
        }
        self.filing.add(id, &selector, &self.hasher);
        self.ids.insert(selector, id);
        id
    }

    /// One user less; the last one takes the selector along.
    pub fn release(&mut self, id: SelectorId) {
        self.selectors[id].users -= 1;
        if self.selectors[id].users > 0 {
            return;
        }
        let Some(selection) = self.selectors.remove(id) else { return };
        for object in &selection.objects {
            if let Some(object) = self.objects.get_mut(object) {
                object.selections.retain(|have| *have != id);
            }
        }
        self.filing.remove(id);
        self.ids.remove(&selection.selector);
    }

    /// The objects that a selector matches.
    pub fn objects(&self, selector: SelectorId) -> &BTreeSet<ObjectId> {
        &self.selectors[selector].objects
    }

    /// The selectors that match an object, sorted.
    pub fn selections(&self, object: ObjectId) -> &[SelectorId] {
        self.objects.get(&object).map_or(&[], |object| &object.selections)
    }

    /// Takes the object out of everything but its selectors' lists; the selectors it matched.
    fn unlink(&mut self, id: ObjectId) -> Vec<SelectorId> {
        let Some(object) = self.objects.remove(&id) else { return Vec::new() };
        self.population.remove(&object.labels, &self.hasher, id);
        self.parents.abandon(id, &object.parents);
        object.selections
    }

    fn select_anew(&mut self, id: ObjectId, out: &mut Vec<Match>) {
        let Some(object) = self.objects.get(&id) else { return };
        let now = self.matching(object);
        let parted = object.selections.iter().filter(|have| now.binary_search(have).is_err());
        let found = now.iter().filter(|new| object.selections.binary_search(new).is_err());
        let changes = parted.map(|id| (*id, false)).chain(found.map(|id| (*id, true)));
        let changes: Vec<(SelectorId, bool)> = changes.collect();
        for (selector, begins) in changes {
            let objects = &mut self.selectors[selector].objects;
            if begins {
                objects.insert(id)
            } else {
                objects.remove(&id)
            };
            out.push(Match { selector, object: id, begins });
        }
        if let Some(object) = self.objects.get_mut(&id) {
            object.selections = now;
        }
    }

    /// The selectors that match an object, sorted, by asking those filed under its labels.
    fn matching(&self, object: &Object) -> Vec<SelectorId> {
        let mut found = Vec::new();
        let mut ask = |ids: &[SelectorId]| {
            found.extend(ids.iter().filter(|id| self.matches(&self.selectors[**id].selector, object)));
        };
        ask(self.filing.unrestricted());
        self.each_label(object, |label, value| {
            ask(self.filing.under(self.hasher.label(label)));
            ask(self.filing.under(self.hasher.value(label, value)));
        });
        found.sort_unstable();
        found.dedup();
        found
    }

    fn matches(&self, selector: &Selector, object: &Object) -> bool {
        selector.matches(|label| self.value(object, label))
    }

    fn value<'a>(&'a self, object: &'a Object, label: &str) -> Option<&'a str> {
        let own = object.labels.get(label).map(String::as_str);
        own.or_else(|| object.parents.iter().find_map(|parent| self.parents.label(*parent, label)))
    }

    /// Labels that count, own and inherited, each once.
    fn each_label(&self, object: &Object, mut visit: impl FnMut(&str, &str)) {
        for (label, value) in &*object.labels {
            visit(label, value);
        }
        for (nth, parent) in object.parents.iter().enumerate() {
            for (label, value) in self.parents.labels(*parent) {
                let earlier = object.parents[..nth].iter().any(|p| self.parents.label(*p, label).is_some());
                if !earlier && !object.labels.contains_key(label) {
                    visit(label, value);
                }
            }
        }
    }

    /// Objects that a selector may match, once each: those that carry the rarest of the labels it asks for.
    fn candidates(&self, selector: &Selector) -> Vec<ObjectId> {
        let count = |keys: &Vec<u64>| -> usize {
            keys.iter().map(|key| self.population.count(*key) + self.parents.count(*key)).sum()
        };
        let restrictions = selector.restrictions();
        let keys = restrictions.iter().map(|(label, restriction)| self.hasher.keys(label, restriction));
        let Some(rarest) = keys.min_by_key(count) else { return self.objects.keys().copied().collect() };
        let mut found: Vec<ObjectId> = rarest
            .iter()
            .flat_map(|key| self.population.with(*key).chain(self.parents.children(*key)))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

#[cfg(test)]
impl LabelIndex {
    fn is_empty(&self) -> bool {
        self.objects.is_empty()
            && self.parents.is_empty()
            && self.population.is_empty()
            && self.selectors.iter().next().is_none()
            && self.ids.is_empty()
            && self.filing.is_empty()
    }
}
