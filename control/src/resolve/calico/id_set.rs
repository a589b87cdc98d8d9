//! Sets of small numbers, in as little memory as their shape allows: many have a single member, some nearly every number
//! there is.

use std::iter;
use std::num::NonZeroU64;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub enum IdSet {
    /// No member.
    #[default]
    Empty,
    /// One member.
    One(u32),
    /// Sorted.
    Listed(Vec<u32>),
    /// So many of those below the greatest that a bit for each number takes less than a list.
    Bits(Box<Bits>),
}

/// A bit for each number.
#[derive(Clone, Debug, Default)]
pub struct Bits {
    words: Vec<u64>,
    len: usize,
}

/// Shorter lists stay lists.
const SHORT: usize = 16;

impl IdSet {
    /// Whether it was not there yet.
    pub fn insert(&mut self, id: u32) -> bool {
        match self {
            Self::Empty => *self = Self::One(id),
            Self::One(have) if *have == id => return false,
            Self::One(have) => *self = Self::Listed(vec![id.min(*have), id.max(*have)]),
            Self::Listed(ids) => {
                let Err(at) = ids.binary_search(&id) else { return false };
                ids.insert(at, id);
                let words = ids.last().map_or(0, |last| word(*last) + 1);
                if ids.len() >= SHORT && ids.len() >= 2 * words {
                    *self = Self::Bits(Box::new(ids.iter().copied().collect()));
                }
            }
            Self::Bits(bits) if bits.has_room(id) => return bits.insert(id),
            Self::Bits(bits) => {
                *self = Self::Listed(bits.iter().collect());
                return self.insert(id);
            }
        }
        true
    }

    /// Whether it was there.
    pub fn remove(&mut self, id: u32) -> bool {
        match self {
            Self::Empty => return false,
            Self::One(have) if *have == id => *self = Self::Empty,
            Self::One(_) => return false,
            Self::Listed(ids) => {
                let Ok(at) = ids.binary_search(&id) else { return false };
                ids.remove(at);
                if let [only] = ids[..] {
                    *self = Self::One(only);
                }
            }
            Self::Bits(bits) => {
                if !bits.remove(id) {
                    return false;
                }
                if bits.is_sparse() {
                    *self = Self::Listed(bits.iter().collect());
                }
            }
        }
        true
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(_) => 1,
            Self::Listed(ids) => ids.len(),
            Self::Bits(bits) => bits.len,
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let (one, listed, bits) = match self {
            Self::Empty => (None, &[][..], None),
            Self::One(id) => (Some(*id), &[][..], None),
            Self::Listed(ids) => (None, &ids[..], None),
            Self::Bits(bits) => (None, &[][..], Some(bits)),
        };
        one.into_iter().chain(listed.iter().copied()).chain(bits.into_iter().flat_map(|bits| bits.iter()))
    }
}

impl FromIterator<u32> for IdSet {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        let mut set = Self::default();
        for id in ids {
            set.insert(id);
        }
        set
    }
}

impl FromIterator<u32> for Bits {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        let mut bits = Self::default();
        for id in ids {
            bits.insert(id);
        }
        bits
    }
}

impl Bits {
    fn insert(&mut self, id: u32) -> bool {
        if self.words.len() <= word(id) {
            self.words.resize(word(id) + 1, 0);
        }
        let changed = self.words[word(id)] & mask(id) == 0;
        self.words[word(id)] |= mask(id);
        self.len += usize::from(changed);
        changed
    }

    fn remove(&mut self, id: u32) -> bool {
        let Some(word) = self.words.get_mut(word(id)).filter(|word| **word & mask(id) != 0) else {
            return false;
        };
        *word &= !mask(id);
        self.len -= 1;
        true
    }

    /// Whether bits are still right with this member.
    fn has_room(&self, id: u32) -> bool {
        word(id) < self.words.len().max(2 * self.len)
    }

    /// A list would take a quarter of it. Not half: a set must not go back and forth.
    fn is_sparse(&self) -> bool {
        2 * self.len < self.words.len() || self.len < SHORT / 2
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        self.words.iter().zip((0..).step_by(64)).flat_map(|(word, first)| {
            let rest = iter::successors(NonZeroU64::new(*word), |rest| {
                NonZeroU64::new(rest.get() & (rest.get() - 1))
            });
            rest.map(move |rest| first + rest.trailing_zeros())
        })
    }
}

const fn word(id: u32) -> usize {
    id as usize / 64
}

const fn mask(id: u32) -> u64 {
    1 << (id % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn its_shape_follows_its_members() {
        let mut set: IdSet = (0..1000).collect();
        assert!(matches!(&set, IdSet::Bits(bits) if bits.words.len() == 16));
        set.insert(u32::MAX);
        assert!(matches!(&set, IdSet::Listed(ids) if ids.len() == 1001), "no gigabit for one member");
        set.remove(u32::MAX);
        (1..1000).for_each(|id| assert!(set.remove(id)));
        assert!(matches!(set, IdSet::One(0)));
        assert!(set.remove(0) && set.is_empty() && !set.remove(0));
        assert_eq!(size_of::<IdSet>(), size_of::<Vec<u32>>());
    }

    proptest! {
        #[test]
        fn it_holds_what_a_tree_holds(
            bulk in prop::collection::vec(0u32..400, 0..300),
            single in prop::collection::vec((any::<bool>(), prop_oneof![20 => 0u32..400, 1 => any::<u32>()]), 0..300),
            going in prop::collection::vec(0u32..400, 0..600),
        ) {
            let (mut set, mut tree) = (IdSet::default(), BTreeSet::new());
            let inserts = bulk.into_iter().map(|id| (true, id));
            let removals = going.into_iter().map(|id| (false, id));
            for (insert, id) in inserts.chain(single).chain(removals) {
                if insert {
                    prop_assert_eq!(set.insert(id), tree.insert(id));
                } else {
                    prop_assert_eq!(set.remove(id), tree.remove(&id));
                }
                prop_assert_eq!((set.len(), set.is_empty()), (tree.len(), tree.is_empty()));
            }
            prop_assert!(set.iter().eq(tree.iter().copied()));
        }
    }
}
