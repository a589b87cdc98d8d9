//! Who lives behind which address of this node: what connections are bound to beside their addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnetwork::IpNetwork;

use super::Lpm;
use crate::net::{Direction, FlowKey};
use crate::spec;

/// The local workloads' serials. A serial stays with an endpoint for as long as its name and its networks stay the same,
/// and is never used again.
#[derive(Clone, Debug, Default)]
pub struct Residents {
    known: Arc<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// In the order of the spec: name, networks, serial.
    endpoints: Vec<(String, Vec<IpNetwork>, u32)>,
    by_address: Lpm<u32>,
    last_serial: u32,
    /// The generation in which any of this became what it is.
    since: u64,
}

impl Residents {
    /// Of these endpoints, in this generation.
    pub fn new(endpoints: &[spec::Endpoint], previous: Option<&Self>, generation: u64) -> Self {
        let none = Self::default();
        let known = &previous.unwrap_or(&none).known;
        let same = |(endpoint, (name, networks, _)): (&spec::Endpoint, &(String, Vec<IpNetwork>, u32))| {
            endpoint.name == *name && endpoint.networks == *networks
        };
        if endpoints.len() == known.endpoints.len() && endpoints.iter().zip(&known.endpoints).all(same) {
            return Self { known: Arc::clone(known) };
        }
        let before: HashMap<(&str, &[IpNetwork]), u32, FixedState> = known
            .endpoints
            .iter()
            .map(|(name, networks, serial)| ((name.as_str(), networks.as_slice()), *serial))
            .collect();
        let mut new = Known { last_serial: known.last_serial, since: generation, ..Known::default() };
        for endpoint in endpoints {
            let kept = before.get(&(endpoint.name.as_str(), endpoint.networks.as_slice()));
            let serial = kept.copied().unwrap_or_else(|| {
                new.last_serial += 1;
                new.last_serial
            });
            for network in &endpoint.networks {
                new.by_address.insert(*network, serial);
            }
            new.endpoints.push((endpoint.name.clone(), endpoint.networks.clone(), serial));
        }
        Self { known: Arc::new(new) }
    }

    /// Serial of the endpoint with this index in the spec; from 1 on.
    pub fn serial(&self, index: usize) -> u32 {
        self.known.endpoints[index].2
    }

    /// The generation in which somebody came, went or moved last.
    #[inline]
    pub fn since(&self) -> u64 {
        self.known.since
    }

    /// Serial of the workload that has this address, by the longest prefix, and by the last endpoint of equals; 0 = none.
    pub fn at(&self, address: IpAddr) -> u32 {
        self.known.by_address.lookup(address).unwrap_or(0)
    }

    /// Both ends of a connection in one number: another one if either end is somebody else.
    pub fn parties(&self, key: &FlowKey) -> u32 {
        let (first, second) = key.addresses(Direction::Forward);
        let at = |address: u128| {
            if key.is_v6() {
                self.at(Ipv6Addr::from_bits(address).into())
            } else {
                self.at(Ipv4Addr::from_bits(address as u32).into())
            }
        };
        at(first).wrapping_mul(0x9e37_79b1) ^ at(second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;

    fn key(a: IpAddr, b: IpAddr) -> FlowKey {
        match (a, b) {
            (IpAddr::V4(a), IpAddr::V4(b)) => FlowKey::v4(a.to_bits(), b.to_bits(), (1, 2), 6, false).0,
            (IpAddr::V6(a), IpAddr::V6(b)) => FlowKey::v6(a.to_bits(), b.to_bits(), (1, 2), 6, false).0,
            _ => panic!("two families"),
        }
    }

    #[test]
    fn a_serial_stays_while_name_and_networks_stay() {
        let mut endpoints = world::spec(2).endpoints;
        let first = Residents::new(&endpoints, None, 1);
        assert_eq!((first.serial(0), first.serial(1), first.since()), (1, 2, 1));
        // Another interface, another Ethernet address: the same workload.
        endpoints[0].ifindex = None;
        endpoints[1].mac = None;
        let second = Residents::new(&endpoints, Some(&first), 2);
        assert_eq!((second.serial(0), second.serial(1), second.since()), (1, 2, 1));
        // Another address: another one. The index of the other one changes, its serial does not.
        let mut moved = endpoints.clone();
        moved[0].networks.pop();
        let third = Residents::new(&moved, Some(&second), 3);
        assert_eq!((third.serial(0), third.serial(1), third.since()), (3, 2, 3));
        moved.remove(0);
        let fourth = Residents::new(&moved, Some(&third), 4);
        assert_eq!((fourth.serial(0), fourth.since()), (2, 4));
        // Who comes back is a newcomer.
        let fifth = Residents::new(&endpoints, Some(&fourth), 5);
        assert_eq!((fifth.serial(0), fifth.serial(1)), (4, 2));
    }

    #[test]
    fn parties_change_with_either_end_and_with_nothing_else() {
        let endpoints = world::spec(2).endpoints;
        for v6 in [false, true] {
            let (a, b, remote) = (world::pod(1, 1, v6), world::pod(1, 2, v6), world::pod(2, 1, v6));
            let all = Residents::new(&endpoints, None, 1);
            let one = Residents::new(&endpoints[..1], Some(&all), 2);
            let again = Residents::new(&endpoints, Some(&one), 3);
            assert_eq!(all.parties(&key(a, b)), all.parties(&key(b, a)));
            assert_ne!(all.parties(&key(a, b)), one.parties(&key(a, b)));
            assert_ne!(all.parties(&key(a, b)), again.parties(&key(a, b)));
            assert_ne!(all.parties(&key(remote, b)), one.parties(&key(remote, b)));
            assert_eq!(all.parties(&key(a, remote)), one.parties(&key(a, remote)));
            assert_eq!(all.parties(&key(remote, remote)), 0);
        }
    }
}
