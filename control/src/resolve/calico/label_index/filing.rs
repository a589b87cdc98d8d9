//! Selectors under the labels they ask for.

use std::collections::HashMap;

use super::{Hasher, SelectorId};
use crate::model::calico::selector::{Restriction, Selector};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Filing {
    drawers: HashMap<u64, Vec<SelectorId>>,
    places: HashMap<SelectorId, Place>,
    /// Those that ask for nothing in particular (`!has(x)`): every object has to ask them.
    unrestricted: Vec<SelectorId>,
}

#[derive(Debug)]
enum Place {
    Unrestricted,
    /// In these drawers. None at all: nothing can match it (`a in {}`).
    Drawers(Vec<u64>),
}

impl Hasher {
    /// The keys of which an object carries at least one if it obeys the restriction.
    pub(super) fn keys(&self, label: &str, restriction: &Restriction<'_>) -> Vec<u64> {
        match restriction {
            Restriction::Present => vec![self.label(label)],
            Restriction::OneOf(values) => values.iter().map(|value| self.value(label, value)).collect(),
        }
    }
}

impl Filing {
    /// Files a selector where the fewest objects will look: under values rather than a mere label, and of those under
    /// the emptiest. Thus `orchestrator == "k8s"`, which all pods share, never collects what `app == "x"` could hold.
    pub(super) fn add(&mut self, id: SelectorId, selector: &Selector, hasher: &Hasher) {
        let restrictions = selector.restrictions();
        let rated = restrictions.iter().map(|(label, restriction)| {
            let keys = hasher.keys(label, restriction);
            let fullest = keys.iter().map(|key| self.under(*key).len()).max().unwrap_or(0);
            let mere_label = *restriction == Restriction::Present;
            ((mere_label, fullest, keys.len()), keys)
        });
        let place = match rated.min_by(|a, b| a.0.cmp(&b.0)) {
            Some((_, keys)) => Place::Drawers(keys),
            None => Place::Unrestricted,
        };
        match &place {
            Place::Unrestricted => self.unrestricted.push(id),
            Place::Drawers(keys) => {
                for key in keys {
                    self.drawers.entry(*key).or_default().push(id);
                }
            }
        }
        self.places.insert(id, place);
    }

    pub(super) fn remove(&mut self, id: SelectorId) {
        match self.places.remove(&id) {
            None => {}
            Some(Place::Unrestricted) => self.unrestricted.retain(|have| *have != id),
            Some(Place::Drawers(keys)) => {
                for key in keys {
                    let Some(drawer) = self.drawers.get_mut(&key) else { continue };
                    drawer.retain(|have| *have != id);
                    if drawer.is_empty() {
                        self.drawers.remove(&key);
                    }
                }
            }
        }
    }

    /// Selectors filed under a label or value.
    pub(super) fn under(&self, key: u64) -> &[SelectorId] {
        self.drawers.get(&key).map_or(&[], Vec::as_slice)
    }

    pub(super) fn unrestricted(&self) -> &[SelectorId] {
        &self.unrestricted
    }
}

#[cfg(test)]
impl Filing {
    pub(super) fn is_empty(&self) -> bool {
        self.drawers.is_empty() && self.places.is_empty() && self.unrestricted.is_empty()
    }
}
