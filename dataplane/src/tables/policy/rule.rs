//! Rules over numbered sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ipnetwork::IpNetwork;

use super::class::SetNumber;
use super::registry::{Inner, SetHandle};
use crate::spec::policy::{self, Action, Family, Icmp, SetId};

/// How often a rule, or the end of a list, was met. All workers add to it: only the first packets of connections do.
#[derive(Debug, Default)]
pub struct HitCounter {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl HitCounter {
    /// Counts one packet of `bytes` bytes.
    #[inline]
    pub fn add(&self, bytes: u64) {
        self.packets.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Packets and bytes.
    pub fn get(&self) -> (u64, u64) {
        (self.packets.load(Relaxed), self.bytes.load(Relaxed))
    }
}

/// The rules of one policy or profile for one direction, compiled.
#[derive(Debug)]
pub struct RuleSet {
    /// What it was made from.
    pub source: Arc<policy::RuleSet>,
    /// In order.
    pub rules: Box<[Rule]>,
    /// Of each rule.
    pub counters: Box<[Arc<HitCounter>]>,
    /// Sets that the rules name: their numbers stay theirs while this lives.
    handles: Vec<Arc<SetHandle>>,
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// Families in which it can match at all.
    pub families: Families,
    /// Only this protocol.
    pub protocol: Option<u8>,
    /// Any protocol but this.
    pub not_protocol: Option<u8>,
    /// Only these messages.
    pub icmp: Option<Icmp>,
    /// Any but these messages.
    pub not_icmp: Option<Icmp>,
    /// About the sender.
    pub source: Side,
    /// About the receiver.
    pub destination: Side,
    /// Sets that must exist, or else the rule does not match: a class may still name one that went.
    pub must_exist: Box<[Existence]>,
}

/// Criteria about one end.
#[derive(Debug, Default)]
pub struct Side {
    /// The address is in all of these, as far as they are asked for in its family.
    pub all: Box<[(SetNumber, Families)]>,
    /// The address is in none of these.
    pub none: Box<[SetNumber]>,
    /// The port is one of these.
    pub ports: Option<Ports>,
    /// The port is none of these.
    pub not_ports: Option<Ports>,
    /// Address, protocol and port are in all of these.
    pub endpoint_sets: Box<[SetNumber]>,
}

/// A choice of ports.
#[derive(Debug)]
pub struct Ports {
    /// Both ends included.
    pub ranges: Box<[(u16, u16)]>,
    /// Sets of (address, protocol, port).
    pub named: Box<[SetNumber]>,
}

/// Some of the two families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families(u8);

impl Families {
    /// IPv4 and IPv6.
    pub const BOTH: Self = Self(3);
    /// Neither.
    pub const NONE: Self = Self(0);

    /// One of them.
    pub const fn one(family: Family) -> Self {
        match family {
            Family::V4 => Self(1),
            Family::V6 => Self(2),
        }
    }

    /// Is this one among them?
    #[inline]
    pub const fn has(self, family: Family) -> bool {
        self.0 & Self::one(family).0 != 0
    }

    /// Those in both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are not here.
    pub const fn others(self) -> Self {
        Self(!self.0 & 3)
    }

    fn where_some(mut test: impl FnMut(Family) -> bool) -> Self {
        let bit = |family, is| if is { Self::one(family).0 } else { 0 };
        Self(bit(Family::V4, test(Family::V4)) | bit(Family::V6, test(Family::V6)))
    }
}

/// A set that exists and holds addresses, or (address, protocol, port).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Existence(u64);

impl Existence {
    /// Of a set of networks.
    pub fn of_nets(set: SetNumber) -> Self {
        Self(u64::from(set) << 1)
    }

    /// Of a set of ports.
    pub fn of_ports(set: SetNumber) -> Self {
        Self(u64::from(set) << 1 | 1)
    }
}

impl RuleSet {
    /// Compiles rules; `before` = what this policy was, whose counters go on where a rule stayed as it was.
    pub fn compile(source: &Arc<policy::RuleSet>, before: Option<&Self>, registry: &mut Inner) -> Self {
        let mut names = Names { registry, handles: Vec::new() };
        let rules = source.rules.iter().map(|rule| names.rule(rule)).collect();
        let handles = names.handles;
        let mut counters: Vec<Option<Arc<HitCounter>>> = vec![None; source.rules.len()];
        if let Some(before) = before {
            // In order; a rule that moved ahead of others still finds its own.
            let mut left: Vec<(&policy::Rule, &Arc<HitCounter>)> =
                before.source.rules.iter().zip(&before.counters).collect();
            for (rule, counter) in source.rules.iter().zip(&mut counters) {
                if let Some(at) = left.iter().position(|(old, _)| *old == rule) {
                    *counter = Some(Arc::clone(left.remove(at).1));
                }
            }
        }
        let counters = counters.into_iter().map(Option::unwrap_or_default).collect();
        Self { source: Arc::clone(source), rules, counters, handles }
    }

    /// Lists of networks among its criteria: sets without a name.
    pub fn unnamed(&self) -> impl Iterator<Item = &Arc<SetHandle>> {
        self.handles.iter().filter(|handle| handle.nets.is_some())
    }
}

/// Finds numbers and keeps their handles.
struct Names<'a> {
    registry: &'a mut Inner,
    handles: Vec<Arc<SetHandle>>,
}

impl Names<'_> {
    fn named(&mut self, ids: &[SetId]) -> Box<[SetNumber]> {
        let numbers = ids.iter().map(|id| {
            let handle = self.registry.named(id);
            let number = handle.number;
            self.handles.push(handle);
            number
        });
        numbers.collect()
    }

    /// The set of those networks that are of these families.
    fn unnamed(&mut self, nets: &[IpNetwork], families: Families) -> SetNumber {
        let of_families = nets.iter().filter(|net| families.has(family_of(net))).copied();
        let handle = self.registry.unnamed(of_families.collect());
        let number = handle.number;
        self.handles.push(handle);
        number
    }

    fn rule(&mut self, rule: &policy::Rule) -> Rule {
        let mut must_exist = Vec::new();
        let (source, source_families) = self.side(&rule.source, &mut must_exist);
        let (destination, destination_families) = self.side(&rule.destination, &mut must_exist);
        let families = rule.family.map_or(Families::BOTH, Families::one);
        Rule {
            action: rule.action,
            families: families.and(source_families).and(destination_families),
            protocol: rule.protocol,
            not_protocol: rule.not_protocol,
            icmp: rule.icmp,
            not_icmp: rule.not_icmp,
            source,
            destination,
            must_exist: must_exist.into(),
        }
    }

    /// The criteria, and the families in which they can be met.
    fn side(&mut self, side: &policy::Side, must_exist: &mut Vec<Existence>) -> (Side, Families) {
        let mut families = Families::BOTH;
        let named = self.named(&side.sets);
        let mut all: Vec<(SetNumber, Families)> = named.iter().map(|set| (*set, Families::BOTH)).collect();
        let mut none = self.named(&side.not_sets).into_vec();
        must_exist.extend(named.iter().chain(&none).map(|set| Existence::of_nets(*set)));
        if let Some(nets) = &side.nets {
            families = families.and(mentioned(nets));
            // A network that is everything asks for nothing.
            let asked = families.and(wholly(nets).others());
            if asked != Families::NONE {
                all.push((self.unnamed(nets, asked), asked));
            }
        }
        if !side.not_nets.is_empty() {
            families = families.and(mentioned(&side.not_nets)).and(wholly(&side.not_nets).others());
            none.push(self.unnamed(&side.not_nets, families));
        }
        let ports = side.ports.as_ref().map(|ports| self.ports(ports));
        let not_ports = (!side.not_ports.is_empty()).then(|| self.ports(&side.not_ports));
        let named = ports.iter().chain(&not_ports).flat_map(|ports| &ports.named);
        must_exist.extend(named.map(|set| Existence::of_ports(*set)));
        let endpoint_sets = self.named(&side.endpoint_sets);
        must_exist.extend(endpoint_sets.iter().map(|set| Existence::of_ports(*set)));
        (Side { all: all.into(), none: none.into(), ports, not_ports, endpoint_sets }, families)
    }

    fn ports(&mut self, ports: &policy::Ports) -> Ports {
        Ports { ranges: ports.ranges.clone().into(), named: self.named(&ports.named) }
    }
}

fn family_of(net: &IpNetwork) -> Family {
    if net.is_ipv6() { Family::V6 } else { Family::V4 }
}

/// Families that a list has networks of.
fn mentioned(nets: &[IpNetwork]) -> Families {
    Families::where_some(|family| nets.iter().any(|net| family_of(net) == family))
}

/// Families of which a list has every address, by one network that is all of it.
fn wholly(nets: &[IpNetwork]) -> Families {
    Families::where_some(|family| nets.iter().any(|net| family_of(net) == family && net.prefix() == 0))
}

impl Side {
    /// Does it ask for ports in any way?
    pub fn asks_for_ports(&self) -> bool {
        self.ports.is_some() || self.not_ports.is_some() || !self.endpoint_sets.is_empty()
    }
}
