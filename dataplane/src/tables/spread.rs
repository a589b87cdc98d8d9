//! Several next hops to one destination: every connection takes one of them, and keeps it.
//!
//! Rendezvous hashing: each way has a score with each connection, and the highest one wins. So a way that goes takes only
//! its own connections along, one that comes takes over only its share, and the order in which they are named does not
//! matter. It is asked about the first packet of a connection in each generation of the tables that has other ways, not about
//! every one.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;

/// Ways that connections are spread over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    ways: Box<[Way]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    name: u64,
    adjacency: u32,
}

/// The number by which a way is known to [`score`], the same in every generation of a process.
pub fn name(way: &impl Hash) -> u64 {
    FixedState::default().hash_one(way)
}

/// How well a way and a connection (by its keyed hash) go together. The mixing function is that of MurmurHash3's end.
pub fn score(connection: u64, way: u64) -> u64 {
    let mut x = connection ^ way;
    for multiplier in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53_u64] {
        x = (x ^ x >> 33).wrapping_mul(multiplier);
    }
    x ^ x >> 33
}

impl Spread {
    /// Over these ways: the name of each, and its adjacency.
    pub fn new(ways: impl IntoIterator<Item = (u64, u32)>) -> Self {
        Self { ways: ways.into_iter().map(|(name, adjacency)| Way { name, adjacency }).collect() }
    }

    /// The adjacency that the connection with this hash takes; `None` when there is none.
    pub fn pick(&self, connection: u64) -> Option<u32> {
        self.ways.iter().max_by_key(|way| (score(connection, way.name), way.name)).map(|way| way.adjacency)
    }

    /// All adjacencies.
    pub fn adjacencies(&self) -> impl Iterator<Item = u32> {
        self.ways.iter().map(|way| way.adjacency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn over(ways: &[u64]) -> Spread {
        Spread::new(ways.iter().map(|way| (name(way), *way as u32)))
    }

    #[test]
    fn nothing_is_spread_over_nothing() {
        assert_eq!(over(&[]).pick(7), None);
    }

    #[test]
    fn every_way_gets_its_share() {
        for ways in 2..=16 {
            let spread = over(&(0..ways).collect::<Vec<_>>());
            let mut taken = vec![0u64; ways as usize];
            for connection in 0..ways * 1000 {
                // Keyed hashes are spread over all bits.
                let hash = score(connection, 0x1234_5678_9abc_def0);
                taken[spread.pick(hash).unwrap() as usize] += 1;
            }
            assert!(taken.iter().all(|count| (800..1200).contains(count)), "{taken:?}");
        }
    }

    proptest! {
        #[test]
        fn only_what_must_move_moves(
            mut ways in prop::collection::btree_set(any::<u32>(), 1..12),
            more in any::<u32>(),
            connections in prop::collection::vec(any::<u64>(), 1..200),
            reversed in any::<bool>(),
        ) {
            ways.remove(&more);
            let mut before: Vec<u64> = ways.iter().map(|way| u64::from(*way)).collect();
            let few = over(&before);
            before.push(more.into());
            if reversed {
                before.reverse();
            }
            let many = over(&before);
            for connection in connections {
                let (with, without) = (many.pick(connection).unwrap(), few.pick(connection));
                // Whether `more` comes or goes: nobody else's connections change their way.
                prop_assert!(with == more || Some(with) == without);
            }
        }
    }
}
