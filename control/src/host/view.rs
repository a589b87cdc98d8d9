//! What the kernel has: links, addresses and the few routes canal cares for, as one comparable value.

use std::net::IpAddr;
use std::num::NonZeroU16;

use canal_dataplane::net::Mac;
use ipnetwork::IpNetwork;

/// `IN6_ADDR_GEN_MODE_NONE` (linux/if_link.h): the kernel makes no link-local address by itself.
pub const ADDR_GEN_MODE_NONE: u8 = 1;

/// `RTPROT_KERNEL` (linux/rtnetlink.h): a route the kernel made by itself, with an address for instance.
pub const PROTOCOL_KERNEL: u8 = 2;

/// One network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel's interface index; not reused while the host is up.
    pub index: u32,
    /// Name, e.g. `eth0`.
    pub name: String,
    /// Largest packet without the Ethernet header, bytes.
    pub mtu: u32,
    /// Ethernet address; `None` where the device has none (TUN, ipip) or one of another length.
    pub mac: Option<Mac>,
    /// `IFLA_INFO_KIND`: `veth`, `bridge`, `tun`…; `None` for hardware and loopback.
    pub kind: Option<String>,
    /// Namespace id of the other end (`IFLA_LINK_NETNSID`), where that end is in another namespace.
    pub peer_netns: Option<i32>,
    /// `IFF_UP`: an administrator wants it up.
    pub up: bool,
    /// `IFF_RUNNING`: it has a carrier.
    pub running: bool,
    /// `IFF_LOOPBACK`.
    pub loopback: bool,
    /// `IFF_NOARP`: no ARP and no neighbour discovery on it.
    pub noarp: bool,
    /// Packets that wait for the device before the kernel drops (`txqueuelen`).
    pub tx_queue_len: u32,
    /// How the kernel makes IPv6 link-local addresses (`IFLA_INET6_ADDR_GEN_MODE`); `None` where IPv6 is off.
    pub addr_gen_mode: Option<u8>,
}

/// How far an address or a route reaches (`RT_SCOPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everywhere (`RT_SCOPE_UNIVERSE`).
    Global,
    /// The site (deprecated by RFC 3879).
    Site,
    /// The attached link only.
    Link,
    /// This host only.
    Host,
    /// A user-defined scope, or "nowhere".
    Other(u8),
}

impl From<u8> for Scope {
    fn from(raw: u8) -> Self {
        match raw {
            0 => Self::Global,
            200 => Self::Site,
            253 => Self::Link,
            254 => Self::Host,
            other => Self::Other(other),
        }
    }
}

impl From<Scope> for u8 {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Global => 0,
            Scope::Site => 200,
            Scope::Link => 253,
            Scope::Host => 254,
            Scope::Other(other) => other,
        }
    }
}

/// One address of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The device.
    pub ifindex: u32,
    /// Own address (not the peer's) with its prefix length.
    pub net: IpNetwork,
    /// Where it is valid.
    pub scope: Scope,
    /// `IFA_F_*` bits of linux/if_addr.h, read by the methods.
    pub flags: u32,
}

impl Address {
    /// `IFA_F_SECONDARY`; for IPv6 the same bit says temporary (RFC 8981).
    pub const TEMPORARY: u32 = 0x01;
    /// `IFA_F_DADFAILED`: somebody else on the link has it.
    pub const DUPLICATE: u32 = 0x08;
    /// `IFA_F_DEPRECATED`: its preferred lifetime has passed.
    pub const DEPRECATED: u32 = 0x20;
    /// `IFA_F_TENTATIVE`: duplicate detection has not ended; it can not be bound yet.
    pub const TENTATIVE: u32 = 0x40;
    /// `IFA_F_PERMANENT`: no lifetime, neither DHCP's nor a router's.
    pub const PERMANENT: u32 = 0x80;

    /// True if the bit is set.
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// True for 169.254.0.0/16 and fe80::/10, whatever scope the kernel was told, and for everything of link scope.
    pub fn is_link_local(&self) -> bool {
        self.scope == Scope::Link
            || match self.net.ip() {
                IpAddr::V4(ip) => ip.is_link_local(),
                IpAddr::V6(ip) => ip.is_unicast_link_local(),
            }
    }
}

/// One next hop of a unicast route of the main table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostRoute {
    /// Destination; prefix length 0 = default route.
    pub dst: IpNetwork,
    /// Lower wins. IPv6 routes always have one (1024 unless said otherwise).
    pub metric: u32,
    /// Outgoing device.
    pub ifindex: u32,
    /// Next hop; `None` = the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Of several next hops: flows that take this one, in proportion to the others.
    pub weight: NonZeroU16,
    /// Preferred source address of the host's own packets.
    pub src: Option<IpAddr>,
    /// Reach; always [`Scope::Global`] for IPv6.
    pub scope: Scope,
    /// Who made it (`RTPROT_*`, /etc/iproute2/rt_protos).
    pub protocol: u8,
}

/// The host as the kernel describes it at one moment.
///
/// Routes are those of the main table that are default routes, leave through our own device or a gateway interface, or
/// lead to a part of what a gateway's lead to; a host may carry a full BGP table that is none of our business.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostView {
    /// Devices, by index.
    pub links: Vec<Link>,
    /// Addresses in the kernel's order: that order is a preference among otherwise equal ones.
    pub addresses: Vec<Address>,
    /// Routes, by destination, then metric.
    pub routes: Vec<HostRoute>,
}

impl HostView {
    /// The device of that name.
    pub fn link_by_name(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The device of that index.
    pub fn link_by_index(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// Addresses of a device, in the kernel's order.
    pub fn addresses_of(&self, ifindex: u32) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(move |address| address.ifindex == ifindex)
    }

    /// Known routes that leave through a device.
    pub fn routes_of(&self, ifindex: u32) -> impl Iterator<Item = &HostRoute> {
        self.routes.iter().filter(move |route| route.ifindex == ifindex)
    }

    /// Who has this address.
    pub fn owner_of(&self, ip: IpAddr) -> Option<&Address> {
        self.addresses.iter().find(|address| address.net.ip() == ip)
    }

    /// Default routes of one family, best first.
    pub fn default_routes(&self, ipv6: bool) -> impl Iterator<Item = &HostRoute> {
        self.routes.iter().filter(move |route| route.dst.prefix() == 0 && route.dst.is_ipv6() == ipv6)
    }

    /// Forgets routes that are none of our business: see [`HostView`].
    pub fn retain_routes(&mut self, device: &str, gateways: &[String]) {
        let index = |name: &str| self.link_by_name(name).map(|link| link.index);
        let (own, through): (_, Vec<u32>) =
            (index(device), gateways.iter().filter_map(|name| index(name)).collect());
        let behind: Vec<IpNetwork> = self
            .routes
            .iter()
            .filter(|route| through.contains(&route.ifindex) && route.dst.prefix() > 0)
            .map(|route| route.dst)
            .collect();
        self.routes.retain(|route| {
            let part =
                |wide: &IpNetwork| wide.prefix() <= route.dst.prefix() && wide.contains(route.dst.ip());
            route.dst.prefix() == 0 || Some(route.ifindex) == own || behind.iter().any(part)
        });
    }

    /// Brings links and routes into their order, so that equal hosts are equal values. Equal metrics of one
    /// destination keep the kernel's order (next hops of a multipath route).
    pub fn sort(&mut self) {
        self.links.sort_by_key(|link| link.index);
        self.routes.sort_by_key(|route| (route.dst, route.metric));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_round_trip_through_the_kernels_numbers() {
        for raw in 0..=u8::MAX {
            assert_eq!(u8::from(Scope::from(raw)), raw);
        }
    }

    #[test]
    fn link_local_is_told_by_address_or_scope() {
        let address = |net: &str, scope| Address { ifindex: 1, net: net.parse().unwrap(), scope, flags: 0 };
        assert!(address("169.254.3.4/16", Scope::Global).is_link_local());
        assert!(address("fe80::1/64", Scope::Link).is_link_local());
        assert!(address("10.0.0.1/24", Scope::Link).is_link_local());
        assert!(!address("10.0.0.1/24", Scope::Global).is_link_local());
        assert!(!address("fd00::1/64", Scope::Global).is_link_local());
    }

    #[test]
    fn best_default_route_comes_first() {
        let route = |dst: &str, metric, ifindex| HostRoute {
            dst: dst.parse().unwrap(),
            metric,
            ifindex,
            gateway: None,
            weight: NonZeroU16::MIN,
            src: None,
            scope: Scope::Global,
            protocol: 3,
        };
        let mut view = HostView {
            routes: vec![route("0.0.0.0/0", 600, 3), route("::/0", 1024, 9), route("0.0.0.0/0", 100, 2)],
            ..HostView::default()
        };
        view.sort();
        let best: Vec<u32> = view.default_routes(false).map(|route| route.ifindex).collect();
        assert_eq!(best, [2, 3]);
        assert_eq!(view.default_routes(true).next().unwrap().ifindex, 9);
    }
}
