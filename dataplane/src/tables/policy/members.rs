//! What a set that changes means to addresses: who joins and who leaves.
//!
//! Members are sorted, so that one merge finds the difference, after the common head and tail have been skipped. Single
//! addresses and wider networks go separate ways; of networks only what they cover counts, so that one inside another
//! of the same set is nothing new.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::class::{Change, Membership, SetNumber};
use super::intervals::{Number, RangeChange};
use crate::spec::policy::Members;

/// All changes of one generation, by family.
#[derive(Debug, Default)]
pub struct Changes {
    /// IPv4.
    pub v4: FamilyChanges<u32>,
    /// IPv6.
    pub v6: FamilyChanges<u128>,
}

/// Changes in one family.
#[derive(Debug)]
pub struct FamilyChanges<K> {
    /// Of single addresses.
    pub hosts: Vec<(K, Change)>,
    /// Of networks.
    pub ranges: Vec<RangeChange<K>>,
}

impl<K> Default for FamilyChanges<K> {
    fn default() -> Self {
        Self { hosts: Vec::new(), ranges: Vec::new() }
    }
}

/// An address family's numbers, as networks use them.
pub trait Addresses: Number {
    /// First and last address of a network.
    fn range(net: &IpNetwork) -> (Self, Self);
    /// The network of this length that contains this one.
    fn widened(net: &IpNetwork, len: u8) -> IpNetwork;
}

impl Addresses for u32 {
    fn range(net: &IpNetwork) -> (Self, Self) {
        match net {
            IpNetwork::V4(net) => (net.network().to_bits(), net.broadcast().to_bits()),
            IpNetwork::V6(_) => unreachable!("lists are split by family"),
        }
    }

    fn widened(net: &IpNetwork, len: u8) -> IpNetwork {
        let mask = if len == 0 { 0 } else { u32::MAX << (32 - len) };
        let address = std::net::Ipv4Addr::from(Self::range(net).0 & mask);
        IpNetwork::new(address.into(), len).unwrap_or(*net)
    }
}

impl Addresses for u128 {
    fn range(net: &IpNetwork) -> (Self, Self) {
        match net {
            IpNetwork::V6(net) => (net.network().to_bits(), net.broadcast().to_bits()),
            IpNetwork::V4(_) => unreachable!("lists are split by family"),
        }
    }

    fn widened(net: &IpNetwork, len: u8) -> IpNetwork {
        let mask = if len == 0 { 0 } else { u128::MAX << (128 - len) };
        let address = std::net::Ipv6Addr::from(Self::range(net).0 & mask);
        IpNetwork::new(address.into(), len).unwrap_or(*net)
    }
}

/// A network of one address.
fn is_host(net: &IpNetwork) -> bool {
    match net {
        IpNetwork::V4(net) => net.prefix() == 32,
        IpNetwork::V6(net) => net.prefix() == 128,
    }
}

/// The two families of a sorted list.
fn split(nets: &[IpNetwork]) -> (&[IpNetwork], &[IpNetwork]) {
    nets.split_at(nets.partition_point(IpNetwork::is_ipv4))
}

impl Changes {
    /// Notes that a set with this number has become `new`; `None` = it was not, or is no longer, there.
    pub fn of_set(&mut self, set: SetNumber, old: Option<&Members>, new: Option<&Members>) {
        match (old, new) {
            (Some(Members::Ports(old)), Some(Members::Ports(new))) => self.of_ports(set, old, new),
            (Some(Members::Nets(old)), Some(Members::Nets(new))) => self.of_nets(set, old, new),
            (old, new) => {
                match old {
                    Some(Members::Ports(old)) => self.of_ports(set, old, &[]),
                    Some(Members::Nets(old)) => self.of_nets(set, old, &[]),
                    None => {}
                }
                match new {
                    Some(Members::Ports(new)) => self.of_ports(set, &[], new),
                    Some(Members::Nets(new)) => self.of_nets(set, &[], new),
                    None => {}
                }
            }
        }
    }

    /// Notes what a set of networks has become.
    pub fn of_nets(&mut self, set: SetNumber, old: &[IpNetwork], new: &[IpNetwork]) {
        debug_assert!(old.is_sorted() && new.is_sorted(), "members are sorted");
        let ((old_v4, old_v6), (new_v4, new_v6)) = (split(old), split(new));
        self.v4.of_nets(Membership::address(set), old_v4, new_v4);
        self.v6.of_nets(Membership::address(set), old_v6, new_v6);
    }

    fn of_ports(&mut self, set: SetNumber, old: &[(IpAddr, u8, u16)], new: &[(IpAddr, u8, u16)]) {
        debug_assert!(old.is_sorted() && new.is_sorted(), "members are sorted");
        let (old, new, _) = unlike(old, new);
        merge(old, new, |(address, protocol, port), begins| {
            let change = (Membership::port(set, *protocol, *port), begins);
            match address {
                IpAddr::V4(address) => self.v4.hosts.push((address.to_bits(), change)),
                IpAddr::V6(address) => self.v6.hosts.push((address.to_bits(), change)),
            }
        });
    }
}

impl<K: Addresses> FamilyChanges<K> {
    fn of_nets(&mut self, membership: Membership, old: &[IpNetwork], new: &[IpNetwork]) {
        let (old_part, new_part, head) = unlike(old, new);
        merge(old_part, new_part, |net, begins| {
            if is_host(net) {
                self.hosts.push((K::range(net).0, (membership, begins)));
            }
        });
        let wider = || old_part.iter().chain(new_part).filter(|net| !is_host(net));
        let (Some(first), Some(last)) = (wider().min(), wider().map(|net| K::range(net).1).max()) else {
            return;
        };
        // Who else covers these addresses: networks around the first of them, which stand in the common head, and those
        // in the tail that begin before they end.
        let lengths = 0..first.prefix();
        let around: Vec<IpNetwork> = lengths
            .map(|len| K::widened(first, len))
            .filter(|net| old[..head].binary_search(net).is_ok())
            .collect();
        let tail = &old[head + old_part.len()..];
        let tail = &tail[..tail.partition_point(|net| K::range(net).0 <= last)];
        let (before, after) = (covered::<K>(&around, old_part, tail), covered::<K>(&around, new_part, tail));
        let mut change = |(first, last), begins| {
            self.ranges.push(RangeChange { first, last, membership, begins });
        };
        subtract(&after, &before).into_iter().for_each(|range| change(range, true));
        subtract(&before, &after).into_iter().for_each(|range| change(range, false));
    }
}

/// What is left of two lists without their common head and tail, and the length of the head.
fn unlike<'a, T: PartialEq>(old: &'a [T], new: &'a [T]) -> (&'a [T], &'a [T], usize) {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[head..], &new[head..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    (&old[..old.len() - tail], &new[..new.len() - tail], head)
}

/// Tells what is in one sorted list only: in the new one (`true`), or in the old one.
fn merge<T: Ord>(mut old: &[T], mut new: &[T], mut tell: impl FnMut(&T, bool)) {
    while let (Some((a, old_rest)), Some((b, new_rest))) = (old.split_first(), new.split_first()) {
        match a.cmp(b) {
            std::cmp::Ordering::Less => {
                tell(a, false);
                old = old_rest;
            }
            std::cmp::Ordering::Greater => {
                tell(b, true);
                new = new_rest;
            }
            std::cmp::Ordering::Equal => (old, new) = (old_rest, new_rest),
        }
    }
    old.iter().for_each(|member| tell(member, false));
    new.iter().for_each(|member| tell(member, true));
}

/// The ranges that networks cover together, ascending and apart from each other. `around` comes first in order.
fn covered<K: Addresses>(around: &[IpNetwork], part: &[IpNetwork], tail: &[IpNetwork]) -> Vec<(K, K)> {
    let mut ranges: Vec<(K, K)> = Vec::new();
    for net in around.iter().chain(part).chain(tail).filter(|net| !is_host(net)) {
        let (first, last) = K::range(net);
        match ranges.last_mut() {
            Some((_, end)) if *end >= first || end.next() == Some(first) => *end = (*end).max(last),
            _ => ranges.push((first, last)),
        }
    }
    ranges
}

/// What of `ranges` is not in `others`; both ascending and disjoint.
fn subtract<K: Addresses>(ranges: &[(K, K)], mut others: &[(K, K)]) -> Vec<(K, K)> {
    let mut left = Vec::new();
    for (first, last) in ranges {
        // The first address that may be left; none after the last of all.
        let mut from = Some(*first);
        while let (Some(start), Some(((other_first, other_last), rest))) = (from, others.split_first()) {
            if other_first > last {
                break;
            }
            if *other_first > start {
                left.extend(other_first.previous().map(|end| (start, end)));
            }
            if *other_last >= start {
                from = other_last.next();
            }
            if other_last > last {
                break;
            }
            others = rest;
        }
        left.extend(from.filter(|start| start <= last).map(|start| (start, *last)));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Networks of /24 to /32 in one /24, and of /120 to /128 in one /120: what is covered can be counted.
    fn nets() -> impl Strategy<Value = Vec<IpNetwork>> {
        let net = (any::<bool>(), 0u8..=8, any::<u8>()).prop_map(|(v6, wide, low)| {
            let low = u128::from(u32::from(low) >> wide << wide);
            let (address, len): (IpAddr, u8) = match v6 {
                true => (std::net::Ipv6Addr::from(0xfd00 << 112 | low).into(), 128 - wide),
                false => (std::net::Ipv4Addr::from(0x0a00_0000 | low as u32).into(), 32 - wide),
            };
            let net = IpNetwork::new(address, len).unwrap();
            IpNetwork::new(net.network(), len).unwrap()
        });
        prop::collection::btree_set(net, 0..12).prop_map(|nets| nets.into_iter().collect())
    }

    fn wider_than_one(nets: &[IpNetwork], address: IpAddr) -> bool {
        nets.iter().any(|net| !is_host(net) && net.contains(address))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
        #[test]
        fn changes_turn_the_old_set_into_the_new_one(old in nets(), new in nets(), keep in nets()) {
            let join = |a: &[IpNetwork]| {
                let mut all = [a, &keep[..]].concat();
                all.sort_unstable();
                all.dedup();
                all
            };
            let (old, new) = (join(&old), join(&new));
            let mut changes = Changes::default();
            changes.of_nets(7, &old, &new);
            let count = |ranges: &[RangeChange<u128>], at: u128| -> i32 {
                let hit = ranges.iter().filter(|range| (range.first..=range.last).contains(&at));
                hit.map(|range| if range.begins { 1 } else { -1 }).sum()
            };
            let widen = |range: &RangeChange<u32>| RangeChange {
                first: range.first.into(),
                last: range.last.into(),
                membership: range.membership,
                begins: range.begins,
            };
            let v4: Vec<_> = changes.v4.ranges.iter().map(widen).collect();
            for low in 0..256u32 {
                let v4_address = std::net::Ipv4Addr::from(0x0a00_0000 | low);
                let v6_address = std::net::Ipv6Addr::from(0xfd00u128 << 112 | u128::from(low));
                let (v4_number, v6_number) = (v4_address.to_bits().into(), v6_address.to_bits());
                for (address, ranges, number) in [
                    (IpAddr::from(v4_address), &v4, v4_number),
                    (v6_address.into(), &changes.v6.ranges, v6_number),
                ] {
                    let (was, is) = (wider_than_one(&old, address), wider_than_one(&new, address));
                    prop_assert_eq!(count(ranges, number), i32::from(is) - i32::from(was), "{}", address);
                    let hosts: Vec<bool> = match address {
                        IpAddr::V4(a) => changes.v4.hosts.iter().filter(|h| h.0 == a.to_bits()).map(|h| h.1.1).collect(),
                        IpAddr::V6(a) => changes.v6.hosts.iter().filter(|h| h.0 == a.to_bits()).map(|h| h.1.1).collect(),
                    };
                    let host = IpNetwork::from(address);
                    let expected: &[bool] = match (old.contains(&host), new.contains(&host)) {
                        (false, true) => &[true],
                        (true, false) => &[false],
                        _ => &[],
                    };
                    prop_assert_eq!(hosts, expected, "{}", address);
                }
            }
        }
    }

    #[test]
    fn everything_can_come_and_go() {
        let all: Vec<IpNetwork> = ["0.0.0.0/0", "128.0.0.0/1", "::/0"].map(|net| net.parse().unwrap()).into();
        let mut changes = Changes::default();
        changes.of_nets(1, &all[1..2], &all);
        let range = &changes.v4.ranges;
        assert_eq!(range.len(), 1);
        assert_eq!((range[0].first, range[0].last, range[0].begins), (0, u32::MAX >> 1, true));
        assert_eq!((changes.v6.ranges[0].first, changes.v6.ranges[0].last), (0, u128::MAX));
    }

    #[test]
    fn ports_join_and_leave_with_their_addresses() {
        let member = |low: u8, port| (IpAddr::from([10, 0, 0, low]), 6, port);
        let old = Members::Ports(vec![member(1, 80), member(2, 80)]);
        let new = Members::Ports(vec![member(1, 80), member(1, 81)]);
        let mut changes = Changes::default();
        changes.of_set(3, Some(&old), Some(&new));
        let there: Vec<_> =
            changes.v4.hosts.iter().map(|(address, change)| (address & 255, *change)).collect();
        let change = |port, begins| (Membership::port(3, 6, port), begins);
        assert_eq!(there, [(1, change(81, true)), (2, change(80, false))]);
    }
}
