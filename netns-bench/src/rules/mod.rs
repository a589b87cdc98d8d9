//! N policies about one pod, the same for everyone: as Calico's resources, and as what Calico's agent makes of them for
//! iptables, nftables and Open vSwitch.
//!
//! All select the pod, in both directions. All but the last name a set of addresses that never come (and every other one a
//! TCP port besides); the last one's set has the peers. There are at most [`MOST_SETS`] sets: thousands of policies share
//! them, as they do in clusters.

pub mod calico;
pub mod iptables;
pub mod nftables;
pub mod openflow;

use std::net::Ipv4Addr;

/// Sets of addresses, at most.
pub const MOST_SETS: usize = 200;
/// Addresses in a set that never matches.
const STRANGERS: u8 = 8;

/// The policies of one pod.
#[derive(Clone, Debug)]
pub struct Policies {
    count: usize,
    peers: Vec<Ipv4Addr>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Number of the set that the other end has to be in.
    pub set: usize,
    /// Only TCP to this port.
    pub tcp_port: Option<u16>,
}

impl Policies {
    /// `count` policies (at least one), of which the last lets `peers` pass.
    pub fn new(count: usize, peers: Vec<Ipv4Addr>) -> Self {
        Self { count: count.max(1), peers }
    }

    /// Number of sets.
    pub fn sets(&self) -> usize {
        self.count.min(MOST_SETS)
    }

    /// Addresses in a set.
    pub fn members(&self, set: usize) -> Vec<Ipv4Addr> {
        if set + 1 == self.sets() {
            return self.peers.clone();
        }
        (0..STRANGERS).map(|n| Ipv4Addr::new(11, 0, set as u8, n)).collect()
    }

    /// Every policy, in the order in which they are asked.
    pub fn all(&self) -> impl Iterator<Item = Policy> {
        let (count, sets) = (self.count, self.sets());
        (0..count).map(move |n| {
            if n + 1 == count {
                return Policy { set: sets - 1, tcp_port: None };
            }
            let tcp_port = (n % 2 == 1).then_some(1 + (n % 60_000) as u16);
            Policy { set: n % (sets - 1), tcp_port }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_policy_lets_the_peers_pass() {
        let peer = Ipv4Addr::new(10, 244, 2, 2);
        for count in [1, 2, 100, 1_000] {
            let policies = Policies::new(count, vec![peer]);
            let all: Vec<Policy> = policies.all().collect();
            assert_eq!(all.len(), count);
            let naming_peer: Vec<&Policy> =
                all.iter().filter(|p| policies.members(p.set).contains(&peer)).collect();
            assert_eq!(naming_peer, [&Policy { set: policies.sets() - 1, tcp_port: None }]);
            assert_eq!(all.last(), naming_peer.first().copied());
        }
    }
}
