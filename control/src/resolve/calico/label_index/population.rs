//! Kinds of objects by their own labels and values.

use std::collections::HashMap;

use super::Hasher;
use crate::model::calico::resources::Labels;
use crate::resolve::calico::id_set::IdSet;

/// Numbers of kinds (or parents) by the keys of labels and of values that they carry.
#[derive(Debug, Default)]
pub(super) struct Population {
    carriers: HashMap<u64, IdSet>,
}

impl Population {
    pub(super) fn add(&mut self, labels: &Labels, hasher: &Hasher, id: u32) {
        for key in keys(labels, hasher) {
            self.carriers.entry(key).or_default().insert(id);
        }
    }

    pub(super) fn remove(&mut self, labels: &Labels, hasher: &Hasher, id: u32) {
        for key in keys(labels, hasher) {
            let Some(carriers) = self.carriers.get_mut(&key) else { continue };
            carriers.remove(id);
            if carriers.is_empty() {
                self.carriers.remove(&key);
            }
        }
    }

    pub(super) fn count(&self, key: u64) -> usize {
        self.carriers.get(&key).map_or(0, IdSet::len)
    }

    pub(super) fn with(&self, key: u64) -> impl Iterator<Item = u32> {
        self.carriers.get(&key).into_iter().flat_map(IdSet::iter)
    }
}

/// May hold a key twice when two labels share it; adding and removing treat it alike.
fn keys(labels: &Labels, hasher: &Hasher) -> impl Iterator<Item = u64> {
    labels.iter().flat_map(|(label, value)| [hasher.label(label), hasher.value(label, value)])
}

#[cfg(test)]
impl Population {
    pub(super) fn is_empty(&self) -> bool {
        self.carriers.is_empty()
    }
}
