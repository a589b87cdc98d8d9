//! Whose addresses are, for the programs that take plain packets (`destinations_v4`, `destinations_v6`).

use std::collections::BTreeMap;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use ipnetwork::IpNetwork;

use super::programs::if_there;

/// Whose addresses are, by the longest prefix (`CANAL_KERNELS` and so on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Whose {
    /// The kernel's business, as are those of no prefix at all.
    Kernel = 0,
    /// Pods' and nodes'.
    Overlay = 1,
    /// Those of hosts behind our gateways.
    Behind = 2,
}

/// The two maps, and what was written to them.
pub struct Destinations {
    v4: LpmTrie<MapData, [u8; 4], u32>,
    v6: LpmTrie<MapData, [u8; 16], u32>,
    known: BTreeMap<IpNetwork, Whose>,
}

impl Destinations {
    pub(crate) fn new(v4: LpmTrie<MapData, [u8; 4], u32>, v6: LpmTrie<MapData, [u8; 16], u32>) -> Self {
        Self { v4, v6, known: BTreeMap::new() }
    }

    /// Replaces what is known; only what differs is written. Prefixes have no host bits. What is to be left to the kernel
    /// is left before anything else is taken.
    ///
    /// # Errors
    /// The kernel's, e.g. when there are more than a quarter of a million prefixes of one family. What was done is kept.
    pub fn set(&mut self, wanted: &BTreeMap<IpNetwork, Whose>) -> Result<(), MapError> {
        for whose in [Whose::Kernel, Whose::Behind, Whose::Overlay] {
            for prefix in wanted.iter().filter(|(_, wanted)| **wanted == whose).map(|(prefix, _)| *prefix) {
                if self.known.get(&prefix) != Some(&whose) {
                    self.insert(prefix, whose)?;
                    self.known.insert(prefix, whose);
                }
            }
        }
        let gone: Vec<IpNetwork> =
            self.known.keys().filter(|prefix| !wanted.contains_key(prefix)).copied().collect();
        for prefix in gone {
            self.remove(prefix)?;
            self.known.remove(&prefix);
        }
        Ok(())
    }

    fn insert(&mut self, prefix: IpNetwork, whose: Whose) -> Result<(), MapError> {
        let value = whose as u32;
        match prefix {
            IpNetwork::V4(net) => self.v4.insert(&key_v4(net), value, 0),
            IpNetwork::V6(net) => self.v6.insert(&key_v6(net), value, 0),
        }
    }

    fn remove(&mut self, prefix: IpNetwork) -> Result<(), MapError> {
        if_there(match prefix {
            IpNetwork::V4(net) => self.v4.remove(&key_v4(net)),
            IpNetwork::V6(net) => self.v6.remove(&key_v6(net)),
        })
    }
}

fn key_v4(net: ipnetwork::Ipv4Network) -> Key<[u8; 4]> {
    Key::new(net.prefix().into(), net.network().octets())
}

fn key_v6(net: ipnetwork::Ipv6Network) -> Key<[u8; 16]> {
    Key::new(net.prefix().into(), net.network().octets())
}
