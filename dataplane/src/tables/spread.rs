//! Several next hops to one destination: every connection takes one of them, and keeps it.
//!
//! Weighted rendezvous hashing: each way has a cost with each connection, and the lowest one wins. So a way that goes takes
//! only its own connections along, one that comes or gains weight takes over only its share, and the order in which they are
//! named does not matter. It is asked about the first packet of a connection in each generation of the tables that has other
//! ways, not about every one.

use std::hash::BuildHasher;
use std::num::NonZeroU16;

use foldhash::fast::FixedState;

use crate::spec::Hop;

/// Ways that connections are spread over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    ways: Box<[Way]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    name: u64,
    weight: NonZeroU16,
    adjacency: u32,
}

/// The number by which a way is known to [`cost`], the same in every generation of a process, whatever its weight.
pub fn name(hop: &Hop) -> u64 {
    FixedState::default().hash_one((&hop.interface, hop.next_hop))
}

/// How little a way of this weight and a connection (by its keyed hash) go together: exponentially distributed, and the least
/// of such numbers is each one's with a probability in proportion to its weight.
pub fn cost(connection: u64, way: u64, weight: NonZeroU16) -> f64 {
    // Of the middle of one of 2^53 steps between 0 and 1: as many as there are numbers to tell apart, and never either end.
    let uniform = ((mix(connection, way) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -uniform.ln() / f64::from(weight.get())
}

/// One number of two, spread over all bits. The function is that of MurmurHash3's end.
fn mix(connection: u64, way: u64) -> u64 {
    let mut x = connection ^ way;
    for multiplier in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53_u64] {
        x = (x ^ x >> 33).wrapping_mul(multiplier);
    }
    x ^ x >> 33
}

impl Spread {
    /// Over these ways: the name of each, its weight, and its adjacency.
    pub fn new(ways: impl IntoIterator<Item = (u64, NonZeroU16, u32)>) -> Self {
        let way = |(name, weight, adjacency)| Way { name, weight, adjacency };
        Self { ways: ways.into_iter().map(way).collect() }
    }

    /// The adjacency that the connection with this hash takes; `None` when there is none.
    pub fn pick(&self, connection: u64) -> Option<u32> {
        let costs = self.ways.iter().map(|way| (cost(connection, way.name, way.weight), way));
        let least = costs.min_by(|(a, x), (b, y)| a.total_cmp(b).then(x.name.cmp(&y.name)));
        least.map(|(_, way)| way.adjacency)
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

    /// Ways by a number, which is their adjacency too, with a weight.
    fn over(ways: &[(u32, u16)]) -> Spread {
        Spread::new(
            ways.iter().map(|(way, weight)| {
                (mix((*way).into(), 1), NonZeroU16::new(*weight).expect("a weight"), *way)
            }),
        )
    }

    /// Keyed hashes of connections, spread over all bits as those are.
    fn connections(seed: u64, count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(move |connection| mix(connection, seed))
    }

    /// The slow twin: a way of weight *n* draws *n* times, and the highest number of all wins.
    fn drawn(ways: &[(u32, u16)], connection: u64) -> u32 {
        let draws = ways.iter().flat_map(|(way, weight)| {
            let name = mix((*way).into(), 1);
            (0..*weight).map(move |draw| (mix(connection, mix(name, draw.into())), *way))
        });
        draws.max().expect("a way").1
    }

    /// Connections of each way.
    fn taken(ways: &[(u32, u16)], picked: impl Iterator<Item = u32>) -> Vec<f64> {
        let mut taken = vec![0.0; ways.len()];
        for way in picked {
            let index = ways.iter().position(|(of, _)| *of == way).expect("one of the ways");
            taken[index] += 1.0;
        }
        taken
    }

    /// Pearson's sum of what deviates from the weights' shares.
    fn chi_square(ways: &[(u32, u16)], taken: &[f64]) -> f64 {
        let (all, weights): (f64, f64) =
            (taken.iter().sum(), ways.iter().map(|(_, weight)| f64::from(*weight)).sum());
        let terms = ways.iter().zip(taken).map(|((_, weight), taken)| {
            let expected = all * f64::from(*weight) / weights;
            (taken - expected).powi(2) / expected
        });
        terms.sum()
    }

    /// What that sum exceeds less than once in a million times with this many degrees of freedom (the bound of Laurent and
    /// Massart).
    fn limit(freedom: usize) -> f64 {
        let (freedom, rare) = (freedom as f64, 1e6_f64.ln());
        freedom + 2.0 * (freedom * rare).sqrt() + 2.0 * rare
    }

    #[test]
    fn nothing_is_spread_over_nothing() {
        assert_eq!(over(&[]).pick(7), None);
    }

    #[test]
    fn every_way_gets_its_share_as_of_a_slow_twin() {
        let sets: [&[(u32, u16)]; 6] = [
            &[(1, 3), (2, 1)],
            &[(1, 1), (2, 1)],
            &[(7, 1), (8, 2), (9, 3), (10, 4)],
            &[(1, 256), (2, 1), (3, 16)],
            &[(1, 5), (2, 5), (3, 5), (4, 5), (5, 5), (6, 100)],
            &[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1), (8, 1), (9, 1), (10, 1)],
        ];
        for (ways, seed) in sets.into_iter().zip(1..) {
            let spread = over(ways);
            let ours =
                taken(ways, connections(seed, 20_000).map(|connection| spread.pick(connection).unwrap()));
            let twins = taken(ways, connections(seed, 20_000).map(|connection| drawn(ways, connection)));
            let limit = limit(ways.len() - 1);
            for taken in [ours, twins] {
                assert!(chi_square(ways, &taken) < limit, "{ways:?}: {taken:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn only_what_must_move_moves(
            mut ways in prop::collection::btree_map(any::<u32>(), 1..=256_u16, 1..12),
            more in (any::<u32>(), 1..=256_u16),
            connections in prop::collection::vec(any::<u64>(), 1..200),
            reversed in any::<bool>(),
        ) {
            ways.remove(&more.0);
            let mut before: Vec<(u32, u16)> = ways.into_iter().collect();
            let few = over(&before);
            before.push(more);
            if reversed {
                before.reverse();
            }
            let many = over(&before);
            for connection in connections {
                let (with, without) = (many.pick(connection).unwrap(), few.pick(connection));
                // Whether `more` comes or goes: nobody else's connections change their way.
                prop_assert!(with == more.0 || Some(with) == without);
            }
        }

        #[test]
        fn a_way_that_gains_weight_takes_over_and_loses_nothing(
            ways in prop::collection::btree_map(any::<u32>(), 1..=255_u16, 2..12),
            index in any::<prop::sample::Index>(),
            connections in prop::collection::vec(any::<u64>(), 1..200),
        ) {
            let mut ways: Vec<(u32, u16)> = ways.into_iter().collect();
            let before = over(&ways);
            let heavier = &mut ways[index.index(before.ways.len())];
            heavier.1 += 1;
            let heavier = heavier.0;
            let after = over(&ways);
            for connection in connections {
                let (now, once) = (after.pick(connection), before.pick(connection));
                prop_assert!(now == once || now == Some(heavier));
            }
        }
    }
}
