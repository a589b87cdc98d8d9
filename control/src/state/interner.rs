//! Equal things kept once.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use crate::model::calico::selector::Selector;

/// Below this number they are not worth looking for unused ones.
pub(super) const FEW: usize = 1024;

/// Something whose clones are one thing.
pub(super) trait Shared: Clone + Eq + Hash {
    /// How many there are.
    fn clones(&self) -> usize;
}

impl<T: ?Sized + Eq + Hash> Shared for Arc<T> {
    fn clones(&self) -> usize {
        Self::strong_count(self)
    }
}

impl Shared for Selector {
    fn clones(&self) -> usize {
        Self::clones(self)
    }
}

/// Things in use.
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
        self.share_with(thing, |_| {});
    }

    /// The same; what is new and will be kept is first put together of shared parts.
    pub(super) fn share_with(&mut self, thing: &mut T, share_parts: impl FnOnce(&mut T)) {
        if let Some(known) = self.known.get(thing) {
            thing.clone_from(known);
            return;
        }
        share_parts(thing);
        if self.known.len() >= self.sweep_at {
            self.sweep();
        }
        self.known.insert(thing.clone());
    }

    /// Forgets those that nobody else has.
    pub(super) fn sweep(&mut self) {
        self.known.retain(|known| known.clones() > 1);
        self.sweep_at = FEW.max(self.known.len() * 2);
        self.known.shrink_to(self.sweep_at);
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_things_are_one_and_unused_ones_go() {
        let thing = |n: usize| Arc::<str>::from(n.to_string());
        let mut interner = Interner::default();
        let (mut kept, mut equal) = (thing(0), thing(0));
        interner.share(&mut kept);
        interner.share(&mut equal);
        assert!(Arc::ptr_eq(&kept, &equal));
        for n in 1..10 * FEW {
            interner.share(&mut thing(n));
        }
        assert!(interner.len() <= FEW + 1, "{}", interner.len());
        let mut again = thing(0);
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
