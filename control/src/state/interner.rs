//! Equal things kept once: the pods of one deployment have the same labels, the policies of one namespace the same
//! selectors.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use crate::model::calico::resources::Labels;
use crate::model::calico::selector::Selector;

/// Below this number they are not worth looking for unused ones.
const FEW: usize = 1024;

/// Something whose clones are one thing.
pub(super) trait Shared: Clone + Eq + Hash {
    /// How many there are.
    fn clones(&self) -> usize;
}

impl Shared for Arc<Labels> {
    fn clones(&self) -> usize {
        Arc::strong_count(self)
    }
}

impl Shared for Selector {
    fn clones(&self) -> usize {
        Self::clones(self)
    }
}

/// Things in use. Says nothing about the state it is part of: equal states may differ here.
#[derive(Clone, Debug)]
pub(super) struct Interner<T> {
    known: HashSet<T>,
    /// At this size unused ones are looked for.
    sweep_at: usize,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), sweep_at: FEW }
    }
}

impl<T: Shared> Interner<T> {
    /// Puts the one that is kept in the place of an equal one.
    pub(super) fn share(&mut self, thing: &mut T) {
        if let Some(known) = self.known.get(thing) {
            thing.clone_from(known);
            return;
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|known| known.clones() > 1);
            self.sweep_at = FEW.max(self.known.len() * 2);
        }
        self.known.insert(thing.clone());
    }
}

impl<T> PartialEq for Interner<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_things_are_one_and_unused_ones_go() {
        let set = |n: usize| Arc::new(Labels::from([("n".to_owned(), n.to_string())]));
        let mut interner = Interner::default();
        let (mut kept, mut equal) = (set(0), set(0));
        interner.share(&mut kept);
        interner.share(&mut equal);
        assert!(Arc::ptr_eq(&kept, &equal));
        for n in 1..10 * FEW {
            interner.share(&mut set(n));
        }
        assert!(interner.known.len() <= FEW + 1, "{}", interner.known.len());
        let mut again = set(0);
        interner.share(&mut again);
        assert!(Arc::ptr_eq(&kept, &again));
    }

    #[test]
    fn selectors_are_shared_whatever_their_blanks() {
        let mut interner = Interner::default();
        let (mut a, mut b) = (Selector::parse("a == 'b'").unwrap(), Selector::parse("a=='b'").unwrap());
        interner.share(&mut a);
        interner.share(&mut b);
        assert_eq!((a.clones(), a), (3, b));
    }
}
