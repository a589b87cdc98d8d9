//! Which objects match which selectors, kept up to date change by change.
//!
//! An object has labels of its own and inherits those of its parents (profiles): its own value first, else that of the
//! first parent in its list that has the label.
//!
//! At a hundred thousand objects and ten thousand selectors nobody can ask every pair. Objects with the same labels and
//! parents, such as the pods of one deployment, are one *kind* and asked once. Most selectors name a label that
//! an object must have ([`Selector::restrictions`]); they are filed under it (`filing`), and a new kind asks only
//! those filed under one of its labels. A new selector asks only the kinds that carry such a label (`population`).

mod filing;
mod parents;
mod population;

#[cfg(test)]
mod properties;

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use self::filing::Filing;
use self::parents::{ParentId, Parents};
use self::population::Population;
use super::id_set::IdSet;
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
    kind_of: HashMap<ObjectId, KindId>,
    kinds: Slots<Kind>,
    by_content: HashMap<Content, KindId>,
    parents: Parents,
    population: Population,
    selectors: Slots<Selection>,
    ids: HashMap<Selector, SelectorId>,
    filing: Filing,
    hasher: Hasher,
}

/// A kind of objects.
type KindId = u32;

/// What makes a kind: labels and parents.
type Content = (Arc<Labels>, Arc<[ParentId]>);

/// Objects with the same labels and parents: they match the same selectors.
#[derive(Debug)]
struct Kind {
    content: Content,
    /// Selectors that match it, sorted.
    selections: Vec<SelectorId>,
    objects: IdSet,
}

#[derive(Debug)]
struct Selection {
    selector: Selector,
    users: usize,
    kinds: IdSet,
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
        parents: &[Arc<str>],
        out: &mut Vec<Match>,
    ) {
        let (before, now) = (self.kind_of.get(&id).copied(), self.kind(labels, parents));
        if before == Some(now) {
            return;
        }
        self.kinds[now].objects.insert(id);
        self.kind_of.insert(id, now);
        let former = before.map_or(&[][..], |kind| &self.kinds[kind].selections);
        out.extend(differences(former, &self.kinds[now].selections).map(|found| found.of(id)));
        if let Some(before) = before {
            self.leave(before, id);
        }
    }

    /// Forgets an object.
    pub fn remove_object(&mut self, id: ObjectId, out: &mut Vec<Match>) {
        let Some(kind) = self.kind_of.remove(&id) else { return };
        out.extend(differences(&self.kinds[kind].selections, &[]).map(|parted| parted.of(id)));
        self.leave(kind, id);
    }

    /// Labels of a parent, `None` = there is no such parent.
    pub fn set_parent(&mut self, name: &str, labels: Option<&Arc<Labels>>, out: &mut Vec<Match>) {
        for kind in self.parents.set_labels(name, labels, &self.hasher).iter() {
            self.select_anew(kind, out);
        }
    }

    /// Adds a selector, or one more user of it. What it matches is in [`Self::objects`].
    pub fn acquire(&mut self, selector: &Selector) -> SelectorId {
        if let Some(id) = self.ids.get(selector) {
            self.selectors[*id].users += 1;
            return *id;
        }
        let found = self.candidates(selector).into_iter();
        let kinds: IdSet = found.filter(|id| self.matches(selector, &self.kinds[*id])).collect();
        let selector = selector.clone();
        let id = self.selectors.insert(Selection { selector: selector.clone(), users: 1, kinds });
        for kind in self.selectors[id].kinds.iter() {
            let selections = &mut self.kinds[kind].selections;
            if let Err(at) = selections.binary_search(&id) {
                selections.insert(at, id);
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
        for kind in selection.kinds.iter() {
            self.kinds[kind].selections.retain(|have| *have != id);
        }
        self.filing.remove(id);
        self.ids.remove(&selection.selector);
    }

    /// The objects that a selector matches, in no particular order.
    pub fn objects(&self, selector: SelectorId) -> impl Iterator<Item = ObjectId> {
        let kinds = self.selectors[selector].kinds.iter();
        kinds.flat_map(|kind| self.kinds[kind].objects.iter())
    }

    /// Whether a selector matches any object.
    pub fn matches_any(&self, selector: SelectorId) -> bool {
        !self.selectors[selector].kinds.is_empty()
    }

    /// The selectors that match an object, sorted.
    pub fn selections(&self, object: ObjectId) -> &[SelectorId] {
        self.kind_of.get(&object).map_or(&[], |kind| &self.kinds[*kind].selections)
    }

    /// The kind of such objects; a new one has none yet.
    fn kind(&mut self, labels: &Arc<Labels>, parents: &[Arc<str>]) -> KindId {
        let content = (Arc::clone(labels), self.parents.ids(parents));
        if let Some(id) = self.by_content.get(&content) {
            return *id;
        }
        let kind = Kind { content: content.clone(), selections: Vec::new(), objects: IdSet::default() };
        let selections = self.matching(&kind);
        let id = self.kinds.insert(kind);
        self.parents.adopt(id, &content.1);
        self.population.add(labels, &self.hasher, id);
        for selector in &selections {
            self.selectors[*selector].kinds.insert(id);
        }
        self.kinds[id].selections = selections;
        self.by_content.insert(content, id);
        id
    }

    /// Takes an object out of a kind, which goes with the last one.
    fn leave(&mut self, kind: KindId, id: ObjectId) {
        let objects = &mut self.kinds[kind].objects;
        objects.remove(id);
        if !objects.is_empty() {
            return;
        }
        let Some(gone) = self.kinds.remove(kind) else { return };
        self.by_content.remove(&gone.content);
        let (labels, parents) = gone.content;
        self.population.remove(&labels, &self.hasher, kind);
        self.parents.abandon(kind, &parents);
        for selector in gone.selections {
            self.selectors[selector].kinds.remove(kind);
        }
    }

    fn select_anew(&mut self, id: KindId, out: &mut Vec<Match>) {
        let now = self.matching(&self.kinds[id]);
        let kind = &mut self.kinds[id];
        for change in differences(&kind.selections, &now) {
            let kinds = &mut self.selectors[change.selector].kinds;
            if change.begins {
                kinds.insert(id)
            } else {
                kinds.remove(id)
            };
            out.extend(kind.objects.iter().map(|object| change.of(object)));
        }
        kind.selections = now;
    }

    /// The selectors that match a kind, sorted, by asking those filed under its labels.
    fn matching(&self, kind: &Kind) -> Vec<SelectorId> {
        let mut found = Vec::new();
        let mut ask = |ids: &[SelectorId]| {
            found.extend(ids.iter().filter(|id| self.matches(&self.selectors[**id].selector, kind)));
        };
        ask(self.filing.unrestricted());
        self.each_label(kind, |label, value| {
            ask(self.filing.under(self.hasher.label(label)));
            ask(self.filing.under(self.hasher.value(label, value)));
        });
        found.sort_unstable();
        found.dedup();
        found.shrink_to_fit();
        found
    }

    fn matches(&self, selector: &Selector, kind: &Kind) -> bool {
        selector.matches(|label| self.value(kind, label))
    }

    fn value<'a>(&'a self, kind: &'a Kind, label: &str) -> Option<&'a str> {
        let (own, parents) = &kind.content;
        own.get(label).or_else(|| parents.iter().find_map(|parent| self.parents.label(*parent, label)))
    }

    /// Labels that count, own and inherited, each once.
    fn each_label(&self, kind: &Kind, mut visit: impl FnMut(&str, &str)) {
        let (own, parents) = &kind.content;
        for (label, value) in own.iter() {
            visit(label, value);
        }
        for (nth, parent) in parents.iter().enumerate() {
            for (label, value) in self.parents.labels(*parent) {
                let earlier = parents[..nth].iter().any(|p| self.parents.label(*p, label).is_some());
                if !earlier && own.get(label).is_none() {
                    visit(label, value);
                }
            }
        }
    }

    /// Kinds that a selector may match, once each: those that carry the rarest of the labels it asks for.
    fn candidates(&self, selector: &Selector) -> Vec<KindId> {
        let count = |keys: &Vec<u64>| -> usize {
            keys.iter().map(|key| self.population.count(*key) + self.parents.count(*key)).sum()
        };
        let restrictions = selector.restrictions();
        let keys = restrictions.iter().map(|(label, restriction)| self.hasher.keys(label, restriction));
        let Some(rarest) = keys.min_by_key(count) else {
            return self.kinds.iter().map(|(id, _)| id).collect();
        };
        let mut found: Vec<KindId> = rarest
            .iter()
            .flat_map(|key| self.population.with(*key).chain(self.parents.children(*key)))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// A selector that begins to match, or ends.
#[derive(Clone, Copy)]
struct Difference {
    selector: SelectorId,
    begins: bool,
}

impl Difference {
    const fn of(self, object: ObjectId) -> Match {
        Match { selector: self.selector, object, begins: self.begins }
    }
}

/// What differs between two lists of selectors, both sorted.
fn differences<'a>(before: &'a [SelectorId], now: &'a [SelectorId]) -> impl Iterator<Item = Difference> + 'a {
    let only = |some: &'a [SelectorId], others: &'a [SelectorId], begins| {
        let missing = some.iter().filter(move |selector| others.binary_search(selector).is_err());
        missing.map(move |selector| Difference { selector: *selector, begins })
    };
    only(before, now, false).chain(only(now, before, true))
}

#[cfg(test)]
impl LabelIndex {
    fn is_empty(&self) -> bool {
        self.kind_of.is_empty()
            && self.kinds.iter().next().is_none()
            && self.by_content.is_empty()
            && self.parents.is_empty()
            && self.population.is_empty()
            && self.selectors.iter().next().is_none()
            && self.ids.is_empty()
            && self.filing.is_empty()
    }
}
