//! Equal sets of labels kept once: the pods of one deployment have the same.

use std::collections::HashSet;
use std::sync::Arc;

use crate::model::calico::resources::Labels;

/// Sets below this number are not worth looking for unused ones.
const FEW: usize = 1024;

/// Label sets in use. Says nothing about the state it is part of: equal states may differ here.
#[derive(Clone, Debug, Default)]
pub(super) struct Interner {
    sets: HashSet<Arc<Labels>>,
    /// At this size unused ones are looked for.
    sweep_at: usize,
}

impl Interner {
    /// The set kept for equal ones.
    pub(super) fn share(&mut self, labels: Arc<Labels>) -> Arc<Labels> {
        if let Some(known) = self.sets.get(&labels) {
            return Arc::clone(known);
        }
        if self.sets.len() >= self.sweep_at.max(FEW) {
            self.sets.retain(|set| Arc::strong_count(set) > 1);
            self.sweep_at = self.sets.len() * 2;
        }
        self.sets.insert(Arc::clone(&labels));
        labels
    }
}

impl PartialEq for Interner {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Interner {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_are_one_and_unused_ones_go() {
        let set = |n: usize| Arc::new(Labels::from([("n".to_owned(), n.to_string())]));
        let mut interner = Interner::default();
        let kept = interner.share(set(0));
        assert!(Arc::ptr_eq(&kept, &interner.share(set(0))));
        for n in 1..10 * FEW {
            interner.share(set(n));
        }
        assert!(interner.sets.len() <= FEW + 1, "{}", interner.sets.len());
        assert!(Arc::ptr_eq(&kept, &interner.share(set(0))));
    }
}
