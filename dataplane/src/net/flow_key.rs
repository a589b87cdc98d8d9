//! The identity of a connection, the same for both of its directions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which way a packet runs through its connection's canonical key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// Source is the key's first end.
    Forward = 0,
    /// Source is the key's second end.
    Reverse = 1,
}

impl Direction {
    /// The other one.
    #[inline]
    pub fn flip(self) -> Self {
        match self {
            Self::Forward => Self::Reverse,
            Self::Reverse => Self::Forward,
        }
    }
}

/// Five machine words that name a connection: two (address, port) ends in ascending order, protocol and shape.
///
/// The ends are ordered so that both directions of a connection have one key. Everything that a decision about the
/// packet may read is in it: packets of two families never share a key, nor do ICMP messages of two types or codes.
/// Ports: TCP, UDP, SCTP, UDP-Lite as on the wire; ICMP echo: the identifier at both ends; everything else 0.
#[derive(Clone, Copy, Default)]
pub struct FlowKey {
    words: [u64; 5],
}

impl PartialEq for FlowKey {
    /// Without branches: the derived comparison of five words is a call to `memcmp`.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let [a, b, c, d, e] = self.words;
        let [v, w, x, y, z] = other.words;
        (a ^ v) | (b ^ w) | (c ^ x) | (d ^ y) | (e ^ z) == 0
    }
}

impl Eq for FlowKey {}

const FLAG_V6: u64 = 1 << 8;
const FLAG_FRAGMENT: u64 = 1 << 9;
/// Bits 16 to 31 hold type and code of an ICMP question.
const FLAG_ICMP: u64 = 1 << 10;
/// It is the second end that asks.
const FLAG_ASKED_BACK: u64 = 1 << 11;

impl FlowKey {
    /// Of no connection: no packet has this key.
    pub const NONE: Self = Self { words: [0; 5] };

    /// Key of an IPv4 packet (addresses as big-endian numbers), and the packet's direction through it.
    #[inline(always)]
    pub fn v4(
        source: u32,
        target: u32,
        ports: (u16, u16),
        protocol: u8,
        fragment: bool,
    ) -> (Self, Direction) {
        let shape = u64::from(protocol) | if fragment { FLAG_FRAGMENT } else { 0 };
        let from = u64::from(source) << 16 | u64::from(ports.0);
        let to = u64::from(target) << 16 | u64::from(ports.1);
        let (first, second) = (from.min(to), from.max(to));
        let ports = first << 48 | (second & 0xffff) << 32;
        let direction = if from > to { Direction::Reverse } else { Direction::Forward };
        (Self { words: [0, first >> 16, 0, second >> 16, ports | shape] }, direction)
    }

    /// Key of an IPv6 packet, and the packet's direction through it.
    #[inline(always)]
    pub fn v6(
        source: u128,
        target: u128,
        ports: (u16, u16),
        protocol: u8,
        fragment: bool,
    ) -> (Self, Direction) {
        let shape = u64::from(protocol) | FLAG_V6 | if fragment { FLAG_FRAGMENT } else { 0 };
        let split = |a: u128| ((a >> 64) as u64, a as u64);
        let (s, t) = (split(source), split(target));
        let word = |p: u16, q: u16| u64::from(p) << 48 | u64::from(q) << 32 | shape;
        if (source, ports.0) > (target, ports.1) {
            (Self { words: [t.0, t.1, s.0, s.1, word(ports.1, ports.0)] }, Direction::Reverse)
        } else {
            (Self { words: [s.0, s.1, t.0, t.1, word(ports.0, ports.1)] }, Direction::Forward)
        }
    }

    /// The key of an ICMP message made one of its question's type and code, and of the direction in which that is asked:
    /// a question and its answer have one key, two ends that ask each other have two. The owner stays the same.
    #[inline]
    pub fn with_icmp(mut self, kind: u8, code: u8, asked: Direction) -> Self {
        // An end that asks itself has but one direction.
        let back = if asked == Direction::Reverse && !self.of_one_address() { FLAG_ASKED_BACK } else { 0 };
        self.words[4] |= FLAG_ICMP | back | u64::from(kind) << 16 | u64::from(code) << 24;
        self
    }

    #[inline]
    fn of_one_address(&self) -> bool {
        let [a0, a1, b0, b1, _] = self.words;
        (a0, a1) == (b0, b1)
    }

    /// Which way the connection was opened by a packet that runs in `direction` and answers what was sent before: the other
    /// way round, but for an end that speaks to itself, which has but one direction.
    pub fn opened_before(&self, direction: Direction) -> Direction {
        let (source, destination) = self.ends(direction);
        if source == destination { direction } else { direction.flip() }
    }

    /// Type and code of the question, if this is a connection of ICMP.
    pub fn icmp(&self) -> Option<(u8, u8)> {
        let shape = self.words[4];
        (shape & FLAG_ICMP != 0).then_some(((shape >> 16) as u8, (shape >> 24) as u8))
    }

    /// The key of all pieces between the two ends whose ports nobody knows; it names the worker that puts pieces together.
    pub fn of_pieces(mut self) -> Self {
        // The ends stay where they are: ports order them only where the addresses are equal.
        self.words[4] = self.words[4] & (0xff | FLAG_V6) | FLAG_FRAGMENT;
        self
    }

    /// True for an IPv6 connection.
    #[inline]
    pub fn is_v6(&self) -> bool {
        self.words[4] & FLAG_V6 != 0
    }

    /// True for pieces of a datagram whose ports are not known.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.words[4] & FLAG_FRAGMENT != 0
    }

    /// IP protocol number.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.words[4] as u8
    }

    /// Source and target addresses as numbers, as seen in direction `direction`; IPv4 in the low 32 bits.
    #[inline(always)]
    pub fn addresses(&self, direction: Direction) -> (u128, u128) {
        let [a0, a1, b0, b1, _] = self.words;
        let (a, b) = (u128::from(a0) << 64 | u128::from(a1), u128::from(b0) << 64 | u128::from(b1));
        match direction {
            Direction::Forward => (a, b),
            Direction::Reverse => (b, a),
        }
    }

    /// The low 64 bits of the source's address, all of it over IPv4, as seen in direction `direction`.
    #[inline(always)]
    pub fn source_low(&self, direction: Direction) -> u64 {
        self.words[1 + 2 * direction as usize]
    }

    /// Source and target (address, port) as seen in direction `direction`.
    pub fn ends(&self, direction: Direction) -> ((IpAddr, u16), (IpAddr, u16)) {
        let [a0, a1, b0, b1, rest] = self.words;
        let address = |high: u64, low: u64| {
            if self.is_v6() {
                IpAddr::V6(Ipv6Addr::from(u128::from(high) << 64 | u128::from(low)))
            } else {
                IpAddr::V4(Ipv4Addr::from(low as u32))
            }
        };
        let first = (address(a0, a1), (rest >> 48) as u16);
        let second = (address(b0, b1), (rest >> 32) as u16);
        match direction {
            Direction::Forward => (first, second),
            Direction::Reverse => (second, first),
        }
    }

    /// Keyed 64-bit hash for the flow table. Folded multiplication; the keys are random per process so that a sender
    /// cannot aim at one bucket.
    #[inline(always)]
    pub fn hash(&self, seed: HashSeed) -> u64 {
        let [a, b, c, d, e] = self.words;
        let left = folded(a ^ seed.0 ^ d, b ^ seed.1);
        let right = folded(c ^ seed.1.rotate_left(32) ^ e, d ^ seed.0.rotate_left(32));
        folded(left ^ e.rotate_left(17), right ^ seed.0)
    }

    /// Keyed 32-bit hash that names the worker owning the connection. The TAP device's steering program computes the
    /// same number from the packet, so it is made of few 64-bit multiplications that eBPF has:
    ///
    /// ```text
    /// fold(addr)  = v4: the address; v6: XOR of its four 32-bit words (big-endian numbers)
    /// end(addr, port) = ((fold(addr) << 16 | port) ^ k0) * k1          (wrapping, k1 odd)
    /// sum  = end(source) + end(target) + protocol                     (wrapping)
    /// hash = high 32 bits of ((sum ^ sum >> 32) * k1)
    /// ```
    #[inline(always)]
    pub fn owner_hash(&self, seed: HashSeed) -> u32 {
        let [a0, a1, b0, b1, rest] = self.words;
        let multiplier = seed.1 | 1;
        let fold = |high: u64, low: u64| {
            let x = high ^ low;
            if self.is_v6() { (x ^ x >> 32) & 0xffff_ffff } else { x }
        };
        let end = |address: u64, port: u64| ((address << 16 | port) ^ seed.0).wrapping_mul(multiplier);
        let sum = end(fold(a0, a1), rest >> 48)
            .wrapping_add(end(fold(b0, b1), rest >> 32 & 0xffff))
            .wrapping_add(rest & 0xff);
        ((sum ^ sum >> 32).wrapping_mul(multiplier) >> 32) as u32
    }

    /// The worker (`0..workers`) that owns the connection: the high bits of [`Self::owner_hash`] times `workers`.
    #[inline(always)]
    pub fn owner(&self, seed: HashSeed, workers: u32) -> u32 {
        ((u64::from(self.owner_hash(seed)) * u64::from(workers)) >> 32) as u32
    }
}

impl std::fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ((from, from_port), (to, to_port)) = self.ends(Direction::Forward);
        let fragment = if self.is_fragment() { " fragment" } else { "" };
        write!(f, "proto {} {from} {from_port} <-> {to} {to_port}{fragment}", self.protocol())?;
        match self.icmp() {
            Some((kind, code)) => write!(f, " type {kind} code {code}"),
            None => Ok(()),
        }
    }
}

/// Keys of the flow hashes: random per process, fixed in simulations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashSeed(pub u64, pub u64);

#[inline(always)]
fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEED: HashSeed = HashSeed(0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03);

    proptest! {
        #[test]
        fn both_directions_have_one_key_and_one_owner(
            a: u128, b: u128, p: u16, q: u16, proto: u8, fragment: bool, v6: bool, seed: (u64, u64), n in 1u32..64
        ) {
            let make = |a: u128, b: u128, p, q| if v6 {
                FlowKey::v6(a, b, (p, q), proto, fragment)
            } else {
                FlowKey::v4(a as u32, b as u32, (p, q), proto, fragment)
            };
            let ((k, d), (l, e)) = (make(a, b, p, q), make(b, a, q, p));
            let seed = HashSeed(seed.0, seed.1);
            prop_assert_eq!(k, l);
            prop_assert_eq!(k.hash(seed), l.hash(seed));
            prop_assert!(k.owner(seed, n) < n);
            prop_assert_eq!((k.is_v6(), k.is_fragment(), k.protocol()), (v6, fragment, proto));
            if !(p == q && (if v6 { a == b } else { a as u32 == b as u32 })) { prop_assert_ne!(d, e); }
            let address = |x: u128| if v6 { IpAddr::from(x.to_be_bytes()) } else { IpAddr::from((x as u32).to_be_bytes()) };
            prop_assert_eq!(k.ends(d), ((address(a), p), (address(b), q)));
        }
    }

    #[test]
    fn an_answer_was_asked_from_the_other_end_if_there_is_another() {
        let opened = |to, port| {
            let (key, direction) = FlowKey::v4(1, to, (3, port), 6, false);
            (direction, key.opened_before(direction))
        };
        assert_eq!(opened(2, 3), (Direction::Forward, Direction::Reverse));
        assert_eq!(opened(1, 2), (Direction::Reverse, Direction::Forward));
        assert_eq!(opened(1, 3), (Direction::Forward, Direction::Forward));
    }

    #[test]
    fn keys_that_differ_in_one_field_differ() {
        let key = |s, t, p, proto, frag| FlowKey::v4(s, t, p, proto, frag).0;
        let base = key(1, 2, (3, 4), 6, false);
        for other in [
            key(2, 2, (3, 4), 6, false),
            key(1, 3, (3, 4), 6, false),
            key(1, 2, (4, 4), 6, false),
            key(1, 2, (3, 5), 6, false),
            key(1, 2, (3, 4), 17, false),
            key(1, 2, (3, 4), 6, true),
            FlowKey::v6(1, 2, (3, 4), 6, false).0,
        ] {
            assert_ne!(base, other);
            assert_ne!(base.hash(SEED), other.hash(SEED));
        }
    }

    #[test]
    fn a_question_and_its_answer_have_one_key_and_other_messages_others() {
        let (key, forth) = FlowKey::v4(1, 2, (7, 7), 1, false);
        let (same, back) = FlowKey::v4(2, 1, (7, 7), 1, false);
        let question = key.with_icmp(8, 0, forth);
        assert_eq!(question, same.with_icmp(8, 0, back.flip()));
        assert_eq!(question.icmp(), Some((8, 0)));
        assert_eq!(question.owner(SEED, 61), key.owner(SEED, 61));
        for other in [
            key,
            same.with_icmp(8, 0, back),
            key.with_icmp(8, 1, forth),
            key.with_icmp(13, 0, forth),
            key.with_icmp(0, 0, forth),
        ] {
            assert_ne!(question, other);
            assert_ne!(question.hash(SEED), other.hash(SEED));
        }
    }

    #[test]
    fn pieces_of_both_directions_have_one_key_whatever_their_ports() {
        let whole = |s, t, p| FlowKey::v4(s, t, p, 17, false).0;
        let pieces = FlowKey::v4(1, 2, (0, 0), 17, true).0;
        for key in [whole(1, 2, (3, 4)), whole(2, 1, (3, 4)), whole(1, 2, (0, 0))] {
            assert_eq!(key.of_pieces(), pieces);
        }
        assert_eq!(whole(1, 1, (9, 3)).of_pieces(), FlowKey::v4(1, 1, (0, 0), 17, true).0);
        assert_eq!(FlowKey::v6(9, 2, (3, 4), 6, false).0.of_pieces(), FlowKey::v6(2, 9, (0, 0), 6, true).0);
    }

    #[test]
    fn owners_are_spread_evenly() {
        let mut count = [0u32; 4];
        for i in 0..4000u32 {
            let key = FlowKey::v4(0x0a00_0001 + i / 100, 0x0a01_0001, (1024 + i as u16, 80), 6, false).0;
            count[key.owner(SEED, 4) as usize] += 1;
        }
        assert!(count.iter().all(|n| (800..1200).contains(n)), "{count:?}");
    }
}
