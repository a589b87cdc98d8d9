//! Which subnets a new node may pick from.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};
use rand::{Rng, RngExt as _};

use crate::model::flannel::addr::{mask4, mask6};
use crate::model::flannel::{NetworkConfig, Pool4, Pool6, Subnets};

/// flannel collects this many free subnets and picks one of them, so that nodes that start
/// together seldom meet.
pub const MAX_CANDIDATES: usize = 100;

/// No subnet is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("out of subnets: no {family} subnet between SubnetMin and SubnetMax is free")]
pub struct OutOfSubnets {
    /// `IPv4` or `IPv6`.
    pub family: &'static str,
}

/// The first [`MAX_CANDIDATES`] subnets from `subnet_min` to `subnet_max` that share no address
/// with a held one, whatever its length.
pub fn candidates4(pool: &Pool4, held: impl IntoIterator<Item = Ipv4Network>) -> Vec<Ipv4Network> {
    let ranges = held.into_iter().map(|net| {
        let mask = mask4(net.prefix());
        (u128::from(u32::from(net.ip() & mask)), u128::from(u32::from(net.ip() | !mask)))
    });
    let walk = Walk {
        first: u32::from(pool.subnet_min).into(),
        last: u32::from(pool.subnet_max).into(),
        size: 1 << (32 - u32::from(pool.subnet_len)),
    };
    let nets = walk.free(ranges.collect()).into_iter().map(|base| {
        let base = Ipv4Addr::from(u32::try_from(base).unwrap_or_else(|_| unreachable!("at most subnet_max")));
        Ipv4Network::new(base, pool.subnet_len).unwrap_or_else(|_| unreachable!("a checked config's length"))
    });
    nets.collect()
}

/// As [`candidates4`].
pub fn candidates6(pool: &Pool6, held: impl IntoIterator<Item = Ipv6Network>) -> Vec<Ipv6Network> {
    let ranges = held.into_iter().map(|net| {
        let mask = mask6(net.prefix());
        (u128::from(net.ip() & mask), u128::from(net.ip() | !mask))
    });
    let walk = Walk {
        first: pool.subnet_min.into(),
        last: pool.subnet_max.into(),
        size: 1 << (128 - u32::from(pool.subnet_len)),
    };
    let nets = walk.free(ranges.collect()).into_iter().map(|base| {
        Ipv6Network::new(Ipv6Addr::from(base), pool.subnet_len)
            .unwrap_or_else(|_| unreachable!("a checked config's length"))
    });
    nets.collect()
}

/// One of the candidates of each family, uniformly and independently.
///
/// # Errors
/// [`OutOfSubnets`]; also when the config has no IPv4 pool, which is no flannel network.
pub fn pick(config: &NetworkConfig, held: &[Subnets], rng: &mut impl Rng) -> Result<Subnets, OutOfSubnets> {
    let free4 = config.v4.map(|pool| candidates4(&pool, held.iter().map(|subnets| subnets.v4)));
    let v4 = choose(&free4.unwrap_or_default(), rng).ok_or(OutOfSubnets { family: "IPv4" })?;
    let v6 = match config.v6 {
        None => None,
        Some(pool) => {
            // Leases of IPv4-only nodes hold nothing here; flannel takes them for ::/0.
            let free6 = candidates6(&pool, held.iter().filter_map(|subnets| subnets.v6));
            Some(choose(&free6, rng).ok_or(OutOfSubnets { family: "IPv6" })?)
        }
    };
    Ok(Subnets { v4, v6 })
}

fn choose<T: Copy>(among: &[T], rng: &mut impl Rng) -> Option<T> {
    if among.is_empty() { None } else { Some(among[rng.random_range(0..among.len())]) }
}

/// A walk over both families' addresses as numbers.
struct Walk {
    first: u128,
    last: u128,
    size: u128,
}

impl Walk {
    /// Takes as many steps as there are held ranges and candidates, not as there are subnets: an
    /// IPv6 pool may have 2^126.
    fn free(&self, mut held: Vec<(u128, u128)>) -> Vec<u128> {
        held.sort_unstable();
        let mut free = Vec::new();
        let mut held = held.into_iter().peekable();
        let mut at = Some(self.first);
        while let Some(base) = at.filter(|base| *base <= self.last && free.len() < MAX_CANDIDATES) {
            // Ranges of networks are nested or apart, so one that ends before `base` is done with
            // even if an earlier, wider one is not: the wider one has moved `base` already.
            if held.next_if(|(_, end)| *end < base).is_some() {
                continue;
            }
            let end = base.saturating_add(self.size - 1);
            at = match held.peek() {
                Some((start, held_end)) if *start <= end => {
                    let steps = (held_end - base) / self.size + 1;
                    steps.checked_mul(self.size).and_then(|skip| base.checked_add(skip))
                }
                _ => {
                    free.push(base);
                    base.checked_add(self.size)
                }
            };
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::flannel::addr::{next4, overlaps4};
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn config(text: &str) -> NetworkConfig {
        NetworkConfig::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_end_of_the_address_space_ends_the_walk() {
        let config = config(r#"{"Network":"255.255.255.0/28"}"#.replace(".0/28", ".240/28").as_str());
        let got = candidates4(&config.v4.unwrap(), []);
        let text: Vec<_> = got.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["255.255.255.244/30", "255.255.255.248/30", "255.255.255.252/30"]);
    }

    #[test]
    fn a_huge_ipv6_pool_is_walked_in_no_time() {
        let config =
            config(r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"2000::/3","IPv6SubnetLen":126}"#);
        let pool = config.v6.unwrap();
        let taken: Ipv6Network = "2000::/4".parse().unwrap();
        let got = candidates6(&pool, [taken]);
        assert_eq!(got.len(), MAX_CANDIDATES);
        assert_eq!(got[0].to_string(), "3000::/126");
    }

    #[test]
    fn picks_reach_every_candidate() {
        let config = config(r#"{"Network":"10.3.0.0/28"}"#);
        let mut rng = StdRng::seed_from_u64(1);
        let mut seen: Vec<_> =
            (0..64).map(|_| pick(&config, &[], &mut rng).unwrap().v4.to_string()).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, ["10.3.0.12/30", "10.3.0.4/30", "10.3.0.8/30"]);
    }

    /// The walk as flannel does it: every subnet against every lease.
    fn slow(pool: &Pool4, held: &[Ipv4Network]) -> Vec<Ipv4Network> {
        let mut free = Vec::new();
        let mut net = Ipv4Network::new(pool.subnet_min, pool.subnet_len).unwrap();
        while net.ip() <= pool.subnet_max && free.len() < MAX_CANDIDATES {
            if !held.iter().any(|other| overlaps4(net, *other)) {
                free.push(net);
            }
            net = next4(net);
        }
        free
    }

    proptest! {
        #[test]
        fn candidates_match_the_slow_walk(
            network_len in 16u8..=24, more in 2u8..=6, bounds in any::<(u8, u8)>(),
            held in prop::collection::vec(
                // Wide ones are rare: one of them hides what all others would have shown.
                (0u32..=0xffff, prop_oneof![1 => 14u8..20, 30 => 20u8..=32], any::<bool>()), 0..16,
            ),
        ) {
            let subnet_len = network_len + more;
            let size = 1u32 << (32 - subnet_len);
            let count = 1u32 << more;
            let base = 0x0a03_0000u32;
            let at = |n: u8| Ipv4Addr::from(base + u32::from(n) % count * size);
            let pool = Pool4 {
                network: Ipv4Network::new(base.into(), network_len).unwrap(),
                subnet_len,
                subnet_min: at(bounds.0),
                subnet_max: at(bounds.1),
            };
            // Around the pool; half of them at a subnet's very first address, where off-by-ones live.
            let held: Vec<_> = held
                .into_iter()
                .map(|(low, len, first)| (low % (count * size * 9 / 8), len, first))
                .map(|(low, len, first)| (base + if first { low & !(size - 1) } else { low }, len))
                .map(|(at, len)| Ipv4Network::new(at.into(), len).unwrap())
                .collect();
            let fast = candidates4(&pool, held.iter().copied());
            prop_assert_eq!(&fast, &slow(&pool, &held));
            for net in &fast {
                prop_assert!(!held.iter().any(|other| overlaps4(*net, *other)), "{net} overlaps {held:?}");
            }
        }
    }
}
