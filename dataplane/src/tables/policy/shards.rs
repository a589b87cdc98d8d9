//! A hash map that shares what did not change with its earlier versions.
//!
//! Two levels of 64 branches lead to 4,096 small open-addressing tables. Copying the map copies one pointer; writing to it
//! copies the table that is written to and the two levels above it: some kilobytes, however large the map is. A look-up
//! ends in one cache line of one table, which is what counts when many addresses are asked for.

use std::sync::Arc;

const FAN: usize = 64;
const FAN_BITS: u32 = 6;

/// What a map can be asked by.
pub trait Key: Copy + Eq + Ord + std::fmt::Debug {
    /// Bits that differ, the highest best. Keys come from the datastore, not from packets: no secret is needed.
    fn mix(self) -> u64;
}

/// Odd, without pattern (from the golden ratio, as in Knuth's multiplicative hashing).
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl Key for u32 {
    #[inline]
    fn mix(self) -> u64 {
        u64::from(self).wrapping_mul(MULTIPLIER)
    }
}

impl Key for u128 {
    #[inline]
    fn mix(self) -> u64 {
        let folded = (self >> 64) as u64 ^ (self as u64).rotate_left(32).wrapping_mul(MULTIPLIER);
        folded.wrapping_mul(MULTIPLIER)
    }
}

type Table<K, V> = Arc<[Option<(K, V)>]>;
type Branch<K, V> = Arc<[Table<K, V>; FAN]>;

/// Map from `K` to `V`; cheap to copy, see the module.
#[derive(Debug)]
pub struct ShardMap<K, V> {
    branches: Arc<[Branch<K, V>; FAN]>,
    len: usize,
}

impl<K, V> Clone for ShardMap<K, V> {
    fn clone(&self) -> Self {
        Self { branches: Arc::clone(&self.branches), len: self.len }
    }
}

impl<K: Key, V: Clone> Default for ShardMap<K, V> {
    fn default() -> Self {
        let table: Table<K, V> = Arc::new([]);
        let branch: Branch<K, V> = Arc::new(std::array::from_fn(|_| Arc::clone(&table)));
        Self { branches: Arc::new(std::array::from_fn(|_| Arc::clone(&branch))), len: 0 }
    }
}

/// Where a key belongs: branch, table, and the rest of its hash.
#[inline]
fn place(hash: u64) -> (usize, usize, u64) {
    let branch = (hash >> (64 - FAN_BITS)) as usize;
    let table = (hash >> (64 - 2 * FAN_BITS)) as usize % FAN;
    (branch, table, hash >> (32 - 2 * FAN_BITS))
}

/// The slot of `key` in a table, or the free one where it would go; `None` = the table is full or has no slots.
#[inline]
fn slot<K: Key, V>(table: &[Option<(K, V)>], home: u64, key: K) -> Option<usize> {
    let mask = table.len().wrapping_sub(1);
    let home = home as usize;
    (0..table.len()).map(|step| home.wrapping_add(step) & mask).find(|at| match &table[*at] {
        Some((there, _)) => *there == key,
        None => true,
    })
}

impl<K: Key, V: Clone> ShardMap<K, V> {
    /// How many keys have a value.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The value of `key`.
    #[inline]
    pub fn get(&self, key: K) -> Option<&V> {
        let (branch, table, home) = place(key.mix());
        let table = &self.branches[branch][table];
        let at = slot(table, home, key)?;
        table[at].as_ref().map(|(_, value)| value)
    }

    /// Sets the value of `key`; `None` removes it.
    pub fn set(&mut self, key: K, value: Option<V>) {
        let (branch, table, home) = place(key.mix());
        let branch = &mut Arc::make_mut(&mut self.branches)[branch];
        let table = &mut Arc::make_mut(branch)[table];
        let there = slot(table, home, key).filter(|at| table[*at].is_some());
        match (there, value) {
            (Some(at), Some(value)) => Arc::make_mut(table)[at] = Some((key, value)),
            (None, Some(value)) => {
                self.len += 1;
                let used = table.iter().flatten().count();
                // Three quarters full at most, so that runs stay short.
                if (used + 1) * 4 > table.len() * 3 {
                    let entries = table.iter().flatten().cloned();
                    *table = rebuilt(entries, (table.len() * 2).max(2));
                }
                let at = slot(table, home, key).unwrap_or_else(|| unreachable!("a quarter is free"));
                Arc::make_mut(table)[at] = Some((key, value));
            }
            (Some(at), None) => {
                self.len -= 1;
                let rest =
                    table.iter().enumerate().filter(|(i, _)| *i != at).filter_map(|(_, entry)| entry.clone());
                *table = rebuilt(rest, table.len());
            }
            (None, None) => {}
        }
    }

    /// Every key with its value, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        let tables = self.branches.iter().flat_map(|branch| branch.iter());
        tables.flat_map(|table| table.iter()).flatten().map(|(key, value)| (*key, value))
    }
}

/// A table of `len` slots (a power of two) with these entries.
fn rebuilt<K: Key, V: Clone>(entries: impl Iterator<Item = (K, V)>, len: usize) -> Table<K, V> {
    let mut slots: Vec<Option<(K, V)>> = vec![None; len];
    for (key, value) in entries {
        let at = slot(&slots, place(key.mix()).2, key).unwrap_or_else(|| unreachable!("a quarter is free"));
        slots[at] = Some((key, value));
    }
    slots.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn equals_a_plain_map_and_leaves_older_versions_alone(
            steps in prop::collection::vec((0u32..300, prop::option::of(any::<u8>())), 1..600),
        ) {
            let mut map = ShardMap::default();
            let mut model = BTreeMap::new();
            let mut kept = Vec::new();
            for (key, value) in steps {
                // Few tables, so that they grow and shrink.
                let key = u128::from(key) << 96 | u128::from(key % 3);
                map.set(key, value);
                match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
                prop_assert_eq!(map.get(key).copied(), value);
                if kept.len() < 20 {
                    kept.push((map.clone(), model.clone()));
                }
            }
            kept.push((map, model));
            for (map, model) in kept {
                let mut there: Vec<_> = map.iter().map(|(key, value)| (key, *value)).collect();
                there.sort_unstable();
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(there, model.into_iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn neighbouring_addresses_spread_over_the_tables() {
        let mut map = ShardMap::default();
        for address in 0x0a00_0000u32..0x0a00_0000 + 100_000 {
            map.set(address, Some(()));
        }
        let largest = map.branches.iter().flat_map(|branch| branch.iter()).map(|table| table.len()).max();
        assert!(largest <= Some(64), "{largest:?}");
    }
}
