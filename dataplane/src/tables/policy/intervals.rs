//! Classes by ranges of addresses: what networks, as opposed to single addresses, belong to.
//!
//! All covering networks count, not only the longest, so that the space of addresses is kept as intervals of one class
//! each. They lie in chunks that later versions share; a change rewrites the chunks it touches.

use std::sync::Arc;

use hashbrown::HashMap;

use super::class::{Change, Class, Classes, Membership};

/// A chunk is split beyond this many intervals; a rewritten one gets half as many.
const CHUNK: usize = 128;

/// An address as a number.
pub trait Number: Copy + Ord + std::fmt::Debug {
    /// The first address.
    const FIRST: Self;
    /// The one after this; `None` = this is the last.
    fn next(self) -> Option<Self>;
    /// The one before this; `None` = this is the first.
    fn previous(self) -> Option<Self>;
}

impl Number for u32 {
    const FIRST: Self = 0;

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

impl Number for u128 {
    const FIRST: Self = 0;

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

/// From here to the start of the next interval, addresses are of this class.
type Interval<K> = (K, Option<Arc<Class>>);

/// Map from ranges of addresses to classes; cheap to copy.
#[derive(Clone, Debug)]
pub struct Intervals<K> {
    chunks: Arc<Chunks<K>>,
}

#[derive(Debug)]
struct Chunks<K> {
    /// Start of each chunk's first interval. The first is the first address.
    starts: Vec<K>,
    intervals: Vec<Arc<[Interval<K>]>>,
}

/// A range of addresses, both ends included, that enters or leaves a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeChange<K> {
    /// First address.
    pub first: K,
    /// Last address.
    pub last: K,
    /// The membership.
    pub membership: Membership,
    /// It begins; otherwise it ends.
    pub begins: bool,
}

impl<K: Number> Default for Intervals<K> {
    fn default() -> Self {
        let nothing: Arc<[Interval<K>]> = Arc::new([(K::FIRST, None)]);
        Self { chunks: Arc::new(Chunks { starts: vec![K::FIRST], intervals: vec![nothing] }) }
    }
}

impl<K: Number> Intervals<K> {
    /// The class of an address.
    #[inline]
    pub fn get(&self, address: K) -> Option<&Arc<Class>> {
        let intervals = &self.chunks.intervals[self.chunk_of(address)];
        let at = intervals.partition_point(|(start, _)| *start <= address);
        intervals[at - 1].1.as_ref()
    }

    #[inline]
    fn chunk_of(&self, address: K) -> usize {
        self.chunks.starts.partition_point(|start| *start <= address) - 1
    }

    /// Makes changes; `changes` are sorted by their first address, and those of one set do not overlap.
    pub fn apply(&mut self, changes: &[RangeChange<K>], classes: &mut Classes) {
        if changes.is_empty() {
            return;
        }
        let old = &self.chunks;
        let mut new = Chunks { starts: Vec::new(), intervals: Vec::new() };
        let (mut done, mut rest) = (0, changes);
        while let Some(first) = rest.first() {
            // All changes that touch a run of neighbouring chunks.
            let from = self.chunk_of(first.first);
            let mut to = self.chunk_of(first.last);
            let mut count = 1;
            while let Some(next) = rest.get(count).filter(|next| self.chunk_of(next.first) <= to) {
                to = to.max(self.chunk_of(next.last));
                count += 1;
            }
            let (now, later) = rest.split_at(count);
            rest = later;
            new.keep(old, done, from);
            let window: Vec<&Interval<K>> =
                old.intervals[from..=to].iter().flat_map(|chunk| chunk.iter()).collect();
            new.push(&rewritten(&window, now, classes));
            done = to + 1;
        }
        new.keep(old, done, old.starts.len());
        self.chunks = Arc::new(new);
    }

    /// How many intervals there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.chunks.intervals.iter().map(|chunk| chunk.len()).sum()
    }
}

impl<K: Number> Chunks<K> {
    /// Appends chunks of another version as they are.
    fn keep(&mut self, other: &Self, from: usize, to: usize) {
        self.starts.extend(&other.starts[from..to]);
        self.intervals.extend_from_slice(&other.intervals[from..to]);
    }

    /// Appends intervals in new chunks.
    fn push(&mut self, intervals: &[Interval<K>]) {
        let size = if intervals.len() > CHUNK { CHUNK / 2 } else { CHUNK };
        for chunk in intervals.chunks(size) {
            self.starts.push(chunk[0].0);
            self.intervals.push(chunk.into());
        }
    }
}

/// A run of intervals after changes that all lie within it.
fn rewritten<K: Number>(
    old: &[&Interval<K>],
    changes: &[RangeChange<K>],
    classes: &mut Classes,
) -> Vec<Interval<K>> {
    // Where changes begin (true) and where they no longer hold, in order.
    let mut edges: Vec<(K, bool, usize)> = Vec::with_capacity(2 * changes.len());
    for (index, change) in changes.iter().enumerate() {
        edges.push((change.first, true, index));
        edges.extend(change.last.next().map(|end| (end, false, index)));
    }
    edges.sort_unstable_by_key(|(at, ..)| *at);
    let mut edges = edges.into_iter().peekable();
    let mut old = old.iter().peekable();
    let mut active: Vec<Change> = Vec::new();
    // Many intervals of few classes lie under one wide change.
    let mut seen: HashMap<Option<u64>, Option<Arc<Class>>> = HashMap::new();
    let mut new: Vec<Interval<K>> = Vec::new();
    let mut before: Option<&Arc<Class>> = None;
    loop {
        let at = match (old.peek(), edges.peek()) {
            (Some((start, _)), Some((edge, ..))) => *start.min(edge),
            (Some((start, _)), None) => *start,
            (None, Some((edge, ..))) => *edge,
            (None, None) => return new,
        };
        if let Some((_, class)) = old.next_if(|(start, _)| *start == at) {
            before = class.as_ref();
        }
        while let Some((_, begins, index)) = edges.next_if(|(edge, ..)| *edge == at) {
            let change = (changes[index].membership, changes[index].begins);
            if begins {
                active.push(change);
            } else if let Some(there) = active.iter().position(|other| *other == change) {
                active.swap_remove(there);
            }
            seen.clear();
        }
        let class = match active.is_empty() {
            true => before.cloned(),
            false => seen
                .entry(before.map(|class| class.serial))
                .or_insert_with(|| classes.after(before, &active))
                .clone(),
        };
        let same = new.last().is_some_and(|(_, last)| serial(last) == serial(&class));
        if !same {
            new.push((at, class));
        }
    }
}

fn serial(class: &Option<Arc<Class>>) -> u64 {
    class.as_ref().map_or(0, |class| class.serial)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A change per set of 16, never over a range it holds on already.
    fn steps() -> impl Strategy<Value = Vec<Vec<(u32, u32, u32)>>> {
        let range = (0u32..2000, 1u32..400, 0u32..16);
        prop::collection::vec(prop::collection::vec(range, 1..20), 1..12)
    }

    proptest! {
        #[test]
        fn equals_a_list_of_sets_for_each_address(batches in steps()) {
            let mut classes = Classes::default();
            let mut map = Intervals::<u32>::default();
            let mut model = vec![0u16; 2400];
            for batch in batches {
                let mut changes = Vec::new();
                let mut touched = [false; 16];
                for (first, len, set) in batch {
                    if std::mem::replace(&mut touched[set as usize], true) {
                        continue;
                    }
                    let range = first as usize..(first + len) as usize;
                    // A range of one state, turned around: changes are what has changed.
                    let begins = model[range.start] >> set & 1 == 0;
                    let end = range.clone().find(|at| (model[*at] >> set & 1 == 0) != begins).unwrap_or(range.end);
                    model[range.start..end].iter_mut().for_each(|sets| *sets ^= 1 << set);
                    let membership = Membership::address(set);
                    changes.push(RangeChange { first, last: end as u32 - 1, membership, begins });
                }
                changes.sort_by_key(|change| change.first);
                map.apply(&changes, &mut classes);
                for (address, sets) in model.iter().enumerate() {
                    let class = map.get(address as u32);
                    let there = class.map_or(0, |class| class.sets().fold(0, |sets, set| sets | 1u16 << set));
                    prop_assert_eq!(there, *sets, "{}", address);
                }
                prop_assert!(map.get(5000).is_none());
            }
        }
    }

    #[test]
    fn what_leaves_no_trace_leaves_no_interval() {
        let mut classes = Classes::default();
        let mut map = Intervals::<u128>::default();
        let change = |n: u128, begins| RangeChange {
            first: n * 10,
            last: n * 10 + 4,
            membership: Membership::address(1),
            begins,
        };
        let whole =
            |begins| RangeChange { first: 0, last: u128::MAX, membership: Membership::address(2), begins };
        let all: Vec<_> = (0..1000).map(|n| change(n, true)).collect();
        map.apply(&all, &mut classes);
        assert_eq!(map.len(), 2000);
        map.apply(&[whole(true)], &mut classes);
        assert!(map.get(u128::MAX).unwrap().contains(2) && map.get(12).unwrap().contains(1));
        map.apply(&[whole(false)], &mut classes);
        assert_eq!(map.len(), 2000);
        let none: Vec<_> = (0..1000).map(|n| change(n, false)).collect();
        map.apply(&none, &mut classes);
        assert!(map.len() <= map.chunks.starts.len());
        assert!(map.get(3).is_none());
    }
}
