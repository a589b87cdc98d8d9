//! From hashes to entries: four bytes a slot, sixteen slots a cache line.
//!
//! A slot holds an entry's number and, in the bits that number does not need, some of its hash. That is too little to say
//! where a slot's entry would like to be, so entries never move: one that finds no room in its line goes to the next,
//! and every line counts those that went on. A search ends at a line that nobody went on from.

/// Slots of a line: one cache line of words.
const LINE: usize = 16;
const BYTES: usize = LINE * size_of::<u32>();

#[derive(Debug)]
pub(super) struct Index {
    /// 0 = empty; else the entry's number plus one, below the high bits of its hash.
    slots: Vec<u32>,
    /// Slots in front of the first line, so that lines are cache lines.
    skipped: usize,
    /// Slots in lines, less one: the low bits of a hash are its home.
    mask: usize,
    /// Bits of a slot that belong to the hash.
    tag: u32,
    /// For each line, how many entries went on from it because it was full.
    passed: Vec<u32>,
}

impl Index {
    /// Room for `capacity` entries (at most 2³¹) at half load at most.
    pub fn new(capacity: usize) -> Self {
        let count = (capacity * 2).next_power_of_two().max(LINE);
        // Zeroed by the system: memory is touched only as slots come into use.
        let slots = vec![0u32; count + LINE];
        let skipped = slots.as_ptr().align_offset(BYTES);
        let skipped = if skipped < LINE { skipped } else { 0 };
        let number = u32::MAX.checked_shr((capacity as u32).leading_zeros()).unwrap_or(0);
        Self { slots, skipped, mask: count - 1, tag: !number, passed: vec![0; count / LINE] }
    }

    /// The slot where the search for `hash` begins.
    #[inline(always)]
    pub fn home(&self, hash: u32) -> usize {
        self.skipped + (hash as usize & self.mask)
    }

    /// The slots, for prefetching.
    #[inline(always)]
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// The first entry with this hash that `same` confirms; it may be asked about numbers that no entry has.
    #[inline(always)]
    pub fn find(&self, hash: u32, mut same: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = hash as usize & self.mask;
        for _ in 0..LINE {
            let slot = self.slots[self.skipped + at];
            if (slot ^ hash) & self.tag == 0 {
                let id = (slot & !self.tag).wrapping_sub(1);
                if same(id) {
                    return Some(id);
                }
            }
            at = next_in_line(at);
        }
        if self.passed[at / LINE] == 0 { None } else { self.find_farther(hash, same) }
    }

    /// In the lines after the first.
    #[cold]
    fn find_farther(&self, hash: u32, mut same: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut line = self.next(self.line(hash));
        for _ in 1..self.passed.len() {
            for slot in &self.slots[self.skipped + line * LINE..][..LINE] {
                let id = (slot & !self.tag).wrapping_sub(1);
                if (slot ^ hash) & self.tag == 0 && same(id) {
                    return Some(id);
                }
            }
            if self.passed[line] == 0 {
                return None;
            }
            line = self.next(line);
        }
        None
    }

    /// The entry of `hash`'s home if it may have this hash, unconfirmed: a hint for prefetching.
    #[inline(always)]
    pub fn hint(&self, hash: u32) -> Option<u32> {
        let slot = self.slots[self.home(hash)];
        ((slot ^ hash) & self.tag == 0 && slot != 0).then(|| (slot & !self.tag).wrapping_sub(1))
    }

    /// Adds an entry that is not there yet. The caller keeps to the capacity.
    pub fn insert(&mut self, hash: u32, id: u32) {
        let mut line = self.line(hash);
        loop {
            if let Some(at) = self.place(line, hash, 0) {
                self.slots[at] = self.slot(hash, id);
                return;
            }
            self.passed[line] += 1;
            line = self.next(line);
        }
    }

    /// Removes an entry; nothing happens when it is not there.
    pub fn remove(&mut self, hash: u32, id: u32) {
        let (home, slot) = (self.line(hash), self.slot(hash, id));
        let mut line = home;
        for _ in 0..self.passed.len() {
            if let Some(at) = self.place(line, hash, slot) {
                self.slots[at] = 0;
                let mut behind = home;
                while behind != line {
                    self.passed[behind] -= 1;
                    behind = self.next(behind);
                }
                return;
            }
            if self.passed[line] == 0 {
                return;
            }
            line = self.next(line);
        }
    }

    /// Where in the line, seen from the hash's home on, the first slot of this content is.
    fn place(&self, line: usize, hash: u32, content: u32) -> Option<usize> {
        let first = self.skipped + line * LINE;
        let mut places = (0..LINE).map(|step| first + (hash as usize + step) % LINE);
        places.find(|at| self.slots[*at] == content)
    }

    fn slot(&self, hash: u32, id: u32) -> u32 {
        hash & self.tag | (id + 1)
    }

    fn line(&self, hash: u32) -> usize {
        (hash as usize & self.mask) / LINE
    }

    fn next(&self, line: usize) -> usize {
        (line + 1) & (self.mask / LINE)
    }
}

/// The slot after this one, within its line.
#[inline(always)]
fn next_in_line(at: usize) -> usize {
    at & !(LINE - 1) | (at + 1) & (LINE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Hashes of which many fall into few lines, at both ends of the index too, and some are equal.
    fn hash(n: u32) -> u32 {
        [0, 0, u32::MAX, 0x8000_0000][n as usize % 4] ^ (n / 16 * 0x0001_0305)
    }

    proptest! {
        /// The slow twin: a map from entries to their hashes.
        #[test]
        fn equals_a_plain_map(capacity in 1usize..200, steps in prop::collection::vec(0u32..400, 1..600)) {
            let mut index = Index::new(capacity);
            let mut twin = BTreeMap::new();
            for n in steps {
                let id = n % capacity as u32;
                if let Some(known) = twin.remove(&id) {
                    index.remove(known, id);
                    prop_assert_eq!(index.find(known, |found| found == id), None);
                } else {
                    twin.insert(id, hash(n));
                    index.insert(hash(n), id);
                }
                for (id, hash) in &twin {
                    prop_assert_eq!(index.find(*hash, |found| found == *id), Some(*id));
                }
                // A hint is one of the entries, and a search offers no entry of another line's hashes but by chance of the tag.
                if let Some(id) = index.hint(hash(n)) {
                    prop_assert!(twin.contains_key(&id));
                }
            }
            twin.iter().for_each(|(id, hash)| index.remove(*hash, *id));
            prop_assert!(index.slots.iter().chain(&index.passed).all(|word| *word == 0), "nothing is left behind");
        }
    }

    #[test]
    fn what_was_never_there_is_neither_found_nor_removed() {
        let mut index = Index::new(100);
        (0..100).for_each(|id| index.insert(hash(id), id));
        index.remove(hash(7), 8);
        index.remove(0x1234_5678, 7);
        assert!((0..100).all(|id| index.find(hash(id), |found| found == id) == Some(id)));
        assert_eq!(index.find(hash(3), |_| false), None);
    }

    #[test]
    fn a_full_line_sends_entries_on_and_takes_room_back() {
        let mut index = Index::new(256);
        // All of them want the last line, so that the next one is the first.
        (0..40).for_each(|id| index.insert(u32::MAX, id));
        let last = index.passed.len() - 1;
        assert_eq!((index.passed[last], index.passed[0], index.passed[1]), (24, 8, 0));
        index.remove(u32::MAX, 3);
        index.remove(u32::MAX, 20);
        assert_eq!((index.passed[last], index.passed[0]), (23, 8), "only 20 had gone on");
        index.insert(u32::MAX, 50);
        assert_eq!((index.passed[last], index.passed[0]), (23, 8), "the room of 3");
        (0..40).chain([50]).for_each(|id| index.remove(u32::MAX, id));
        assert!(index.passed.iter().all(|passed| *passed == 0));
    }

    #[test]
    fn lines_are_cache_lines_and_a_full_table_needs_nine_bytes_an_entry() {
        for capacity in [1, 8, 4096, 262_144, 1 << 20] {
            let index = Index::new(capacity);
            let first = index.slots[index.skipped..].as_ptr();
            assert_eq!(first.align_offset(BYTES), 0, "{capacity}");
            let bytes = 4 * (index.slots.len() + index.passed.len());
            assert!(bytes <= capacity * 9 + 3 * BYTES, "{capacity}: {bytes}");
        }
    }

    #[test]
    fn tags_spare_the_look_at_nearly_every_other_entry() {
        const ENTRIES: u32 = 1 << 20;
        let mut index = Index::new(ENTRIES as usize);
        // A mixer of 32 bits stands for the flow hash.
        let hash = |n: u32| {
            let x = (n ^ n >> 16).wrapping_mul(0x7feb_352d);
            let x = (x ^ x >> 15).wrapping_mul(0x846c_a68b);
            x ^ x >> 16
        };
        (0..ENTRIES).for_each(|id| index.insert(hash(id), id));
        let (mut looks, mut elsewhere, mut misled) = (0u32, 0u32, 0u32);
        for id in 0..ENTRIES {
            let found = index.find(hash(id), |found| {
                looks += 1;
                found == id
            });
            assert_eq!(found, Some(id));
            misled += u32::from(index.hint(hash(id)).is_some_and(|hint| hint != id));
            elsewhere +=
                u32::from(index.place(index.line(hash(id)), hash(id), index.slot(hash(id), id)).is_none());
        }
        assert!(looks < ENTRIES + ENTRIES / 100, "{looks}");
        assert!(misled < ENTRIES / 100, "{misled}");
        assert!(elsewhere < ENTRIES / 100, "{elsewhere}");
    }
}
