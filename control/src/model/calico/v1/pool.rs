//! IP pools.

use std::collections::BTreeMap;

use super::super::net;
use super::super::problem::Problem;
use super::super::resources::{EncapMode, IpPool};
use super::super::v3;

/// An IPPool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// What resolution reads of it.
    pub pool: IpPool,
    /// For BGP.
    pub disable_bgp_export: bool,
}

impl Pool {
    /// Of a stored one.
    ///
    /// # Errors
    /// Its `cidr` is none.
    pub fn convert(spec: v3::IpPoolSpec) -> Result<Self, Problem> {
        let Some((cidr, _)) = net::cidr(&spec.cidr) else {
            return Err(Problem::unreadable("spec.cidr", spec.cidr, "network"));
        };
        let pool = IpPool {
            cidr,
            vxlan: mode(&spec.vxlan_mode),
            ipip: mode(&spec.ipip_mode),
            nat_outgoing: spec.nat_outgoing,
            disabled: spec.disabled,
        };
        Ok(Self { pool, disable_bgp_export: spec.disable_bgp_export })
    }
}

/// What is neither of the two is `Never`.
fn mode(text: &str) -> EncapMode {
    match text {
        "Always" => EncapMode::Always,
        "CrossSubnet" => EncapMode::CrossSubnet,
        _ => EncapMode::Never,
    }
}

/// Those that count of resources which Felix knows by something else than their names: of several with one key (for
/// pools: one network) the one whose name comes first.
pub fn effective<K: Ord, R>(
    resources: &BTreeMap<String, R>,
    key: impl Fn(&R) -> K,
) -> BTreeMap<K, (&str, &R)> {
    let mut winners = BTreeMap::new();
    for (name, resource) in resources {
        winners.entry(key(resource)).or_insert((name.as_str(), resource));
    }
    winners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_has_the_network() {
        let pool =
            |cidr: &str| Pool::convert(v3::IpPoolSpec { cidr: cidr.into(), ..Default::default() }).unwrap();
        let mut pools: BTreeMap<String, Pool> = [("b", "10.0.0.0/8"), ("a", "10.1.2.3/8"), ("c", "fd00::/8")]
            .map(|(name, cidr)| (name.to_owned(), pool(cidr)))
            .into();
        let names = |pools: &BTreeMap<String, Pool>| -> Vec<String> {
            effective(pools, |pool| pool.pool.cidr).values().map(|(name, _)| (*name).to_owned()).collect()
        };
        assert_eq!(names(&pools), ["a", "c"]);
        pools.remove("a");
        assert_eq!(names(&pools), ["b", "c"]);
    }
}
