//! What a host's policy never closes, to be found by port. The slow twin is in [`crate::policy`].

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::policy::{Facts, Transport, peer};
use crate::spec::policy::{Failsafe, Failsafes, PolicyDirection};

/// Both ways.
#[derive(Clone, Debug, Default)]
pub(super) struct FailsafeTables {
    inbound: FailsafeTable,
    outbound: FailsafeTable,
}

impl FailsafeTables {
    pub(super) fn compile(failsafes: &Failsafes) -> Self {
        Self {
            inbound: FailsafeTable::compile(&failsafes.inbound),
            outbound: FailsafeTable::compile(&failsafes.outbound),
        }
    }

    /// As [`crate::policy::is_spared`].
    pub(super) fn spare(&self, direction: PolicyDirection, facts: &Facts) -> bool {
        let Transport::Ports(_, port) = facts.transport else { return false };
        self.of(direction).has(facts.protocol, port, peer(direction, facts))
    }

    /// As [`crate::policy::is_spared_untracked`].
    pub(super) fn spare_untracked(&self, direction: PolicyDirection, facts: &Facts) -> bool {
        let Transport::Ports(source, _) = facts.transport else { return false };
        let other_way = match direction {
            PolicyDirection::Ingress => PolicyDirection::Egress,
            PolicyDirection::Egress => PolicyDirection::Ingress,
        };
        self.spare(direction, facts) || self.of(other_way).has(facts.protocol, source, peer(direction, facts))
    }

    const fn of(&self, direction: PolicyDirection) -> &FailsafeTable {
        match direction {
            PolicyDirection::Ingress => &self.inbound,
            PolicyDirection::Egress => &self.outbound,
        }
    }
}

/// One way. Ports come with the networks of those for whom they are open, in one sorted list.
#[derive(Clone, Debug, Default)]
struct FailsafeTable {
    /// Protocol in the high half, port in the low one; first and behind the last of its networks. Empty = everybody.
    ports: Vec<(u32, std::ops::Range<u32>)>,
    nets: Vec<IpNetwork>,
}

impl FailsafeTable {
    fn compile(failsafes: &[Failsafe]) -> Self {
        let mut sorted: Vec<Failsafe> = failsafes.to_vec();
        // Among equal ports the one that is open for everybody comes first.
        sorted.sort_unstable();
        let mut table = Self::default();
        for group in sorted.chunk_by(|a, b| (a.protocol, a.port) == (b.protocol, b.port)) {
            let start = table.nets.len() as u32;
            if group[0].net.is_some() {
                table.nets.extend(group.iter().filter_map(|failsafe| failsafe.net));
            }
            let end = table.nets.len() as u32;
            table.ports.push((key(group[0].protocol, group[0].port), start..end));
        }
        table
    }

    fn has(&self, protocol: u8, port: u16, peer: IpAddr) -> bool {
        let Ok(at) = self.ports.binary_search_by_key(&key(protocol, port), |(key, _)| *key) else {
            return false;
        };
        let nets = &self.nets[self.ports[at].1.start as usize..self.ports[at].1.end as usize];
        nets.is_empty() || nets.iter().any(|net| net.contains(peer))
    }
}

const fn key(protocol: u8, port: u16) -> u32 {
    (protocol as u32) << 16 | port as u32
}
