//! Counted members of a set: an address that two endpoints have stays until both are gone.

use std::collections::HashMap;
use std::hash::Hash;

/// Changes of counts that have not been brought to the list of members yet, and the counts above one.
#[derive(Debug)]
pub struct Tally<M> {
    pending: Vec<(M, i32)>,
    /// Counts less one of members that count twice and more; most count once and are not here.
    extra: HashMap<M, u32>,
}

impl<M> Default for Tally<M> {
    fn default() -> Self {
        Self { pending: Vec::new(), extra: HashMap::new() }
    }
}

impl<M: Copy + Ord + Hash> Tally<M> {
    /// Counts a member once more (`1`) or once less (`-1`).
    pub fn count(&mut self, member: M, change: i32) {
        self.pending.push((member, change));
    }

    /// How many changes the list does not show yet.
    pub const fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What becomes of the list by the changes; `None` = it stays. `members` is what the last call gave (at first
    /// nothing); sorted.
    pub fn settle(&mut self, members: &[M]) -> Option<Vec<M>> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.sort_unstable();
        let mut edits = Vec::new();
        for changes in pending.chunk_by(|a, b| a.0 == b.0) {
            let member = changes[0].0;
            let change: i32 = changes.iter().map(|(_, change)| change).sum();
            edits.extend(self.recount(member, change, members));
        }
        (!edits.is_empty()).then(|| edited(members, &edits))
    }

    /// The member, and where it goes in or out.
    fn recount(&mut self, member: M, change: i32, members: &[M]) -> Option<Edit<M>> {
        if change == 0 {
            return None;
        }
        let place = members.binary_search(&member);
        let extra = self.extra.get(&member).copied().unwrap_or(0);
        let before = if place.is_ok() { 1 + extra } else { 0 };
        let Some(after) = before.checked_add_signed(change) else {
            unreachable!("a member was taken away more often than it was given")
        };
        match after {
            0 | 1 => self.extra.remove(&member),
            more => self.extra.insert(member, more - 1),
        };
        match place {
            Ok(at) if after == 0 => Some(Edit::Remove(at)),
            Err(at) if after > 0 => Some(Edit::Insert(at, member)),
            _ => None,
        }
    }
}

enum Edit<M> {
    Remove(usize),
    Insert(usize, M),
}

/// One pass over the list; edits are in its order.
fn edited<M: Copy>(members: &[M], edits: &[Edit<M>]) -> Vec<M> {
    let mut out = Vec::with_capacity(members.len() + edits.len());
    let mut copied = 0;
    for edit in edits {
        match *edit {
            Edit::Remove(at) => {
                out.extend_from_slice(&members[copied..at]);
                copied = at + 1;
            }
            Edit::Insert(at, member) => {
                out.extend_from_slice(&members[copied..at]);
                out.push(member);
                copied = at;
            }
        }
    }
    out.extend_from_slice(&members[copied..]);
    out.shrink_to_fit();
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_that_does_not_change_is_not_made_anew() {
        let mut tally = Tally::default();
        tally.count(5, 1);
        assert_eq!(tally.settle(&[]), Some(vec![5]));
        tally.count(5, 1);
        assert_eq!(tally.settle(&[5]), None);
        tally.count(5, -1);
        tally.count(7, 1);
        tally.count(7, -1);
        assert_eq!(tally.settle(&[5]), None);
        tally.count(5, -1);
        assert_eq!(tally.settle(&[5]), Some(vec![]));
    }

    proptest! {
        #[test]
        fn members_are_those_that_count(rounds in prop::collection::vec(prop::collection::vec((0u8..12, 1i32..4), 0..12), 1..8), seed in any::<u64>()) {
            let (mut tally, mut members, mut counts) = (Tally::default(), Vec::new(), BTreeMap::<u8, i32>::new());
            let mut dice = seed;
            for round in rounds {
                for (member, amount) in round {
                    dice = dice.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
                    let count = counts.entry(member).or_default();
                    let change = if dice % 2 == 0 { amount } else { -amount.min(*count) };
                    *count += change;
                    (0..change.abs()).for_each(|_| tally.count(member, change.signum()));
                }
                let before = members.clone();
                let settled = tally.settle(&members);
                prop_assert_ne!(settled.as_ref(), Some(&before));
                members = settled.unwrap_or(members);
                let expected: Vec<u8> = counts.iter().filter(|(_, count)| **count > 0).map(|(member, _)| *member).collect();
                prop_assert_eq!(&members, &expected);
            }
        }
    }
}
