//! How our device must look.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnetwork::IpNetwork;

use super::view::{HostRoute, Scope};

/// `IP6_RT_PRIO_USER`: what the kernel makes of an IPv6 route without a metric.
pub const IPV6_METRIC: u32 = 1024;

/// `RTPROT` of our routes, so that `ip route show proto 202` lists them. Free in iproute2's rt_protos.
pub const PROTOCOL: u8 = 202;

/// A route through our device: on the link, no gateway, main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Destination; host bits are ignored.
    pub dst: IpNetwork,
    /// Source of the host's own packets, one of the host's addresses.
    pub src: Option<IpAddr>,
    /// Lower wins; 0 = the family's default (0 for IPv4, [`IPV6_METRIC`] for IPv6).
    pub metric: u32,
}

impl Route {
    /// The same route as the kernel would show it: no host bits, metric filled in.
    pub fn canonical(self) -> Self {
        let metric = if self.dst.is_ipv6() && self.metric == 0 { IPV6_METRIC } else { self.metric };
        Self { dst: canonical(self.dst), metric, ..self }
    }

    /// How the kernel shows this (canonical) route on device `ifindex` when we have made it.
    pub fn on(self, ifindex: u32) -> HostRoute {
        HostRoute {
            dst: self.dst,
            metric: self.metric,
            ifindex,
            gateway: None,
            weight: NonZeroU16::MIN,
            src: self.src,
            scope: self.scope(),
            protocol: PROTOCOL,
        }
    }

    /// True if `there` does what this (canonical) route wants, whoever made it.
    pub fn is(self, there: &HostRoute) -> bool {
        let HostRoute { dst, metric, ifindex: _, gateway, weight: _, src, scope, protocol: _ } = *there;
        (dst, metric, gateway, src, scope) == (self.dst, self.metric, None, self.src, self.scope())
    }

    /// `scope link` for IPv4, as for every destination that is on the link; IPv6 has no route scopes.
    pub fn scope(self) -> Scope {
        if self.dst.is_ipv4() { Scope::Link } else { Scope::Global }
    }
}

/// The device that carries the overlay, its addresses and its routes. Whatever else is found on that device goes away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Its name, `canal0`. Who opens the TAP makes it; here it is only configured.
    pub device: String,
    /// Its MTU, bytes without Ethernet header. Below 1280 the kernel turns IPv6 off (RFC 8200 §5).
    pub mtu: u32,
    /// Up or down; routes exist only while it is up.
    pub up: bool,
    /// No ARP and no neighbour discovery: the daemon is the only station behind it.
    pub noarp: bool,
    /// Own addresses: flannel's `x.y.z.0/32`, and /128 for IPv6.
    pub addresses: Vec<IpNetwork>,
    /// Routes, e.g. the whole cluster network.
    pub routes: Vec<Route>,
}

impl Desired {
    /// Least `txqueuelen` of our device, packets: room for a burst while the workers are busy. A TAP starts with 500.
    pub const MIN_TX_QUEUE_LEN: u32 = 1000;

    /// Routes to have, canonical; none while the device shall be down. Of several with one destination and metric
    /// the first counts: the kernel takes only one.
    pub fn canonical_routes(&self) -> BTreeSet<Route> {
        let mut taken = BTreeSet::new();
        let routes = self.routes.iter().filter(|_| self.up).map(|route| route.canonical());
        routes.filter(|route| taken.insert((route.dst, route.metric))).collect()
    }

    /// Addresses to have. Of several IPv6 ones that differ in prefix length only the first counts, for the same reason.
    pub fn canonical_addresses(&self) -> BTreeSet<IpNetwork> {
        let mut taken = BTreeSet::new();
        let addresses = self.addresses.iter().copied();
        addresses.filter(|net| net.is_ipv4() || taken.insert(net.ip())).collect()
    }
}

fn canonical(net: IpNetwork) -> IpNetwork {
    IpNetwork::new(net.network(), net.prefix()).unwrap_or(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_routes_are_as_the_kernel_shows_them() {
        let route = |dst: &str, metric| Route { dst: dst.parse().unwrap(), src: None, metric };
        assert_eq!(route("10.244.3.9/16", 0).canonical(), route("10.244.0.0/16", 0));
        assert_eq!(route("fd00::9/48", 0).canonical(), route("fd00::/48", IPV6_METRIC));
        assert_eq!(route("fd00::/48", 7).canonical(), route("fd00::/48", 7));
    }

    #[test]
    fn a_device_that_is_down_wants_no_routes() {
        let route = Route { dst: "10.244.0.0/16".parse().unwrap(), src: None, metric: 0 };
        let mut desired = Desired {
            device: "canal0".into(),
            mtu: 1450,
            up: true,
            noarp: true,
            addresses: vec![],
            routes: vec![route, route],
        };
        assert_eq!(desired.canonical_routes().len(), 1);
        desired.up = false;
        assert_eq!(desired.canonical_routes().len(), 0);
    }
}
