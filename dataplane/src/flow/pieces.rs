//! Datagrams in pieces: which connection their later pieces belong to.
//!
//! Only the first piece has the ports (or the ICMP type) that policy and connections are about, so every other one is
//! treated as its first was. Pieces that come before their first are not kept: they would be memory that any sender can
//! fill. Senders and routers send the first piece first.

use super::entry::NONE;
use crate::net::{FlowKey, HashSeed};
use crate::packet::Headers;

/// Places, in sets of [`WAYS`]: enough for a second's datagrams in pieces at tens of thousands of them a second.
const SETS: usize = 512;
const WAYS: usize = 8;

/// How long later pieces are waited for: they follow their first back to back.
const LIFE_MS: u32 = 5000;

/// First pieces of one worker. Memory is taken when the first one comes.
#[derive(Debug, Default)]
pub struct Pieces {
    places: Vec<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    first: Headers,
    /// Milliseconds, wrapping.
    seen: u32,
}

impl Place {
    const EMPTY: Self = Self { first: Headers::NONE, seen: 0 };

    fn is_of(&self, piece: &Headers) -> bool {
        let (first, key) = (&self.first, piece.key.of_pieces());
        first.datagram == piece.datagram && first.key.of_pieces() == key && self.is_from(piece)
    }

    /// Of the same sender?
    fn is_from(&self, piece: &Headers) -> bool {
        self.first.key != FlowKey::NONE && self.first.source_v6() == piece.source_v6()
    }

    fn age(&self, now: u32) -> u32 {
        if self.first.key == FlowKey::NONE { NONE } else { now.wrapping_sub(self.seen) }
    }
}

impl Pieces {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers the first piece of a datagram. In a full set the oldest one of the sender that has most has to go: a flood
    /// of first pieces takes the room of its sender's own.
    #[cold]
    pub fn note(&mut self, first: &Headers, seed: HashSeed, now: u32) {
        if self.places.is_empty() {
            self.places = vec![Place::EMPTY; SETS * WAYS];
        }
        let set = self.set(first, seed);
        let places = &mut self.places[set..set + WAYS];
        let at = (0..WAYS)
            .find(|at| places[*at].is_of(first))
            .or_else(|| (0..WAYS).find(|at| places[*at].age(now) >= LIFE_MS))
            .or_else(|| {
                let share =
                    |at: usize| places.iter().filter(|place| place.is_from(&places[at].first)).count();
                let own = |at: usize| places[at].is_from(first);
                (0..WAYS).max_by_key(|at| (share(*at), own(*at), places[*at].age(now)))
            });
        if let Some(at) = at {
            places[at] = Place { first: *first, seen: now };
        }
    }

    /// The first piece of the datagram that this is a later one of.
    #[cold]
    pub fn first_of(&self, piece: &Headers, seed: HashSeed, now: u32) -> Option<&Headers> {
        if self.places.is_empty() {
            return None;
        }
        let set = self.set(piece, seed);
        let place = self.places[set..set + WAYS].iter().find(|place| place.is_of(piece))?;
        (place.age(now) < LIFE_MS).then_some(&place.first)
    }

    fn set(&self, piece: &Headers, seed: HashSeed) -> usize {
        let hash = piece.key.of_pieces().hash(seed) ^ u64::from(piece.datagram).wrapping_mul(seed.0 | 1);
        (hash >> 48) as usize % SETS * WAYS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Direction;
    use crate::packet::Fragment;

    const SEED: HashSeed = HashSeed(0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03);

    fn piece(source: u32, ports: (u16, u16), datagram: u32, fragment: Fragment) -> Headers {
        let later = fragment == Fragment::Later;
        let ports = if later { (0, 0) } else { ports };
        let (key, direction) = FlowKey::v4(source, 0x0a00_0063, ports, 17, later);
        Headers { key, direction, fragment, datagram, destination_port: ports.1, ..Headers::NONE }
    }

    #[test]
    fn later_pieces_take_the_name_of_their_first_for_some_seconds() {
        let mut pieces = Pieces::new();
        let first = piece(7, (1000, 53), 9, Fragment::First);
        assert!(pieces.first_of(&piece(7, (0, 0), 9, Fragment::Later), SEED, 0).is_none());
        pieces.note(&first, SEED, 1000);
        for now in [1000, 1000 + LIFE_MS - 1] {
            let mut later = piece(7, (0, 0), 9, Fragment::Later);
            later.take_name(pieces.first_of(&later, SEED, now).expect("known"));
            assert_eq!(
                (later.key, later.direction, later.destination_port),
                (first.key, first.direction, 53)
            );
            assert_eq!(later.fragment, Fragment::Later);
        }
        assert!(pieces.first_of(&piece(7, (0, 0), 9, Fragment::Later), SEED, 1000 + LIFE_MS).is_none());
    }

    #[test]
    fn other_datagrams_and_the_other_direction_are_not_meant() {
        let mut pieces = Pieces::new();
        pieces.note(&piece(7, (1000, 53), 9, Fragment::First), SEED, 0);
        let later = piece(7, (0, 0), 9, Fragment::Later);
        let (key, direction) = FlowKey::v4(0x0a00_0063, 7, (0, 0), 17, true);
        assert_eq!((key, direction), (later.key, later.direction.flip()));
        let back = Headers { direction: Direction::Reverse, ..later };
        let tcp = Headers { key: FlowKey::v4(7, 0x0a00_0063, (0, 0), 6, true).0, ..later };
        for other in [Headers { datagram: 10, ..later }, piece(8, (0, 0), 9, Fragment::Later), back, tcp] {
            assert!(pieces.first_of(&other, SEED, 0).is_none(), "{other:?}");
        }
        // The same identification again, from another port: the newer first counts.
        pieces.note(&piece(7, (2000, 53), 9, Fragment::First), SEED, 1);
        assert_eq!(
            pieces.first_of(&later, SEED, 1).map(|first| first.key.ends(first.direction).0.1),
            Some(2000)
        );
    }

    #[test]
    fn a_flood_of_first_pieces_leaves_those_of_others_alone() {
        let mut pieces = Pieces::new();
        // The flood is older than the victim's, so every place is taken when those come.
        let flood = |pieces: &mut Pieces, from: u32, now: u32| {
            for datagram in from..from + 100_000 {
                pieces.note(&piece(666, (1, 2), datagram, Fragment::First), SEED, now);
            }
        };
        flood(&mut pieces, 0, 0);
        let victims = 0..64;
        for datagram in victims.clone() {
            pieces.note(&piece(7, (1000, 53), datagram, Fragment::First), SEED, 1);
        }
        flood(&mut pieces, 100_000, 2);
        for datagram in victims {
            let later = piece(7, (0, 0), datagram, Fragment::Later);
            assert!(pieces.first_of(&later, SEED, 2).is_some(), "{datagram}");
        }
    }
}
