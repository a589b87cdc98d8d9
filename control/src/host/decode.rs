//! rtnetlink messages to the values of [`super::view`].

use std::net::IpAddr;
use std::num::NonZeroU16;

use canal_dataplane::net::Mac;
use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteType,
};

use super::kernel::RouteTo;
use super::view::{Address, HostRoute, Link, Scope};

/// A device; `None` for messages that describe something else of it (a bridge port, AF_BRIDGE) or are nameless.
pub fn link(message: &LinkMessage) -> Option<Link> {
    if message.header.interface_family == AddressFamily::Bridge {
        return None;
    }
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        mac: None,
        kind: None,
        peer_netns: None,
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::Running),
        loopback: flags.contains(LinkFlags::Loopback),
        noarp: flags.contains(LinkFlags::Noarp),
        tx_queue_len: 0,
        addr_gen_mode: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(octets) => link.mac = octets.as_slice().try_into().ok().map(Mac),
            LinkAttribute::TxQueueLen(len) => link.tx_queue_len = *len,
            LinkAttribute::LinkNetNsId(id) => link.peer_netns = Some(*id),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            LinkAttribute::AfSpecUnspec(specs) => link.addr_gen_mode = addr_gen_mode(specs),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn addr_gen_mode(specs: &[AfSpecUnspec]) -> Option<u8> {
    specs.iter().find_map(|spec| match spec {
        AfSpecUnspec::Inet6(inner) => inner.iter().find_map(|attribute| match attribute {
            AfSpecInet6::AddrGenMode(mode) => Some(mode.into()),
            _ => None,
        }),
        _ => None,
    })
}

/// An address; `None` without one.
pub fn address(message: &AddressMessage) -> Option<Address> {
    let mut own = None;
    let mut other = None;
    // The header has room for eight of the flags only; IFA_FLAGS, where present, holds them all.
    let mut flags = u32::from(message.header.flags.bits());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => own = Some(*ip),
            AddressAttribute::Address(ip) => other = Some(*ip),
            AddressAttribute::Flags(all) => flags = all.bits(),
            _ => {}
        }
    }
    // On a point-to-point device IFA_ADDRESS is the peer; IPv6 sends IFA_LOCAL only there.
    let ip = own.or(other)?;
    Some(Address {
        ifindex: message.header.index,
        net: IpNetwork::new(ip, message.header.prefix_len).ok()?,
        scope: Scope::from(u8::from(message.header.scope)),
        flags,
    })
}

/// A neighbour, and how it is, by ip(8)'s names: `REACHABLE`, `STALE`, `FAILED`…
pub fn neighbour(message: &NeighbourMessage) -> Option<((u32, IpAddr), &'static str)> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })?;
    let state = match message.header.state {
        NeighbourState::Incomplete => "INCOMPLETE",
        NeighbourState::Reachable => "REACHABLE",
        NeighbourState::Stale => "STALE",
        NeighbourState::Delay => "DELAY",
        NeighbourState::Probe => "PROBE",
        NeighbourState::Failed => "FAILED",
        NeighbourState::Noarp => "NOARP",
        NeighbourState::Permanent => "PERMANENT",
        _ => "NONE",
    };
    Some(((message.header.ifindex, address), state))
}

/// The next hops of a unicast route of the main table; empty for every other route.
pub fn routes(message: &RouteMessage) -> Vec<HostRoute> {
    let header = &message.header;
    let mut table = u32::from(header.table);
    let mut dst = None;
    let mut metric = 0;
    let mut src = None;
    let mut hops = Vec::new();
    let mut oif = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Destination(address) => dst = ip(address),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::PrefSource(address) => src = ip(address),
            RouteAttribute::Oif(index) => oif = Some(*index),
            RouteAttribute::MultiPath(paths) => {
                // The kernel's number is one less than what ip(8) calls the weight.
                let hop = |path: &RouteNextHop| {
                    let weight = NonZeroU16::MIN.saturating_add(path.hops.into());
                    (path.interface_index, gateway(&path.attributes), weight)
                };
                hops.extend(paths.iter().map(hop));
            }
            _ => {}
        }
    }
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0u8; 4]),
        AddressFamily::Inet6 => IpAddr::from([0u8; 16]),
        _ => return Vec::new(),
    };
    let Ok(dst) = IpNetwork::new(dst.unwrap_or(any), header.destination_prefix_length) else {
        return Vec::new();
    };
    if header.kind != RouteType::Unicast || table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return Vec::new();
    }
    if let Some(ifindex) = oif {
        hops.push((ifindex, gateway(&message.attributes), NonZeroU16::MIN));
    }
    hops.into_iter()
        .map(|(ifindex, gateway, weight)| HostRoute {
            dst,
            metric,
            ifindex,
            gateway,
            weight,
            src,
            scope: Scope::from(u8::from(header.scope)),
            protocol: header.protocol.into(),
        })
        .collect()
}

/// The answer to `RTM_GETROUTE` for one address; `None` where packets would not be sent or delivered.
pub fn route_to(message: &RouteMessage) -> Option<RouteTo> {
    let local = match message.header.kind {
        RouteType::Unicast => false,
        RouteType::Local => true,
        _ => return None,
    };
    let mut ifindex = None;
    let mut prefsrc = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::PrefSource(address) => prefsrc = ip(address),
            _ => {}
        }
    }
    Some(RouteTo { ifindex: ifindex?, gateway: gateway(&message.attributes), prefsrc, local })
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    use netlink_packet_route::route::RouteVia;
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::address::AddressFlags;
    use netlink_packet_route::route::RouteProtocol;

    use super::*;

    #[test]
    fn the_peer_of_a_point_to_point_device_is_not_our_address() {
        let mut message = AddressMessage::default();
        message.header.index = 4;
        message.header.prefix_len = 32;
        message.attributes.push(AddressAttribute::Address("10.0.0.2".parse().unwrap()));
        message.attributes.push(AddressAttribute::Local("10.0.0.1".parse().unwrap()));
        assert_eq!(address(&message).unwrap().net, "10.0.0.1/32".parse().unwrap());
    }

    #[test]
    fn wide_flags_replace_those_of_the_header() {
        let mut message = AddressMessage::default();
        message.header.prefix_len = 64;
        message.attributes.push(AddressAttribute::Address("fd00::1".parse().unwrap()));
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Permanent | AddressFlags::Noprefixroute));
        let address = address(&message).unwrap();
        assert_eq!(address.flags, 0x280);
        assert!(address.has(Address::PERMANENT));
    }

    #[test]
    fn bridge_ports_are_not_links() {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName("eth0".into()));
        assert_eq!(link(&message).unwrap().name, "eth0");
        message.header.interface_family = AddressFamily::Bridge;
        assert_eq!(link(&message), None);
    }

    #[test]
    fn a_neighbour_is_called_as_ip_calls_it() {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 3;
        message.header.state = NeighbourState::Stale;
        assert_eq!(neighbour(&message), None, "of no address");
        let address = "fe80::2".parse().unwrap();
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)));
        assert_eq!(neighbour(&message), Some(((3, address.into()), "STALE")));
    }

    fn default_route() -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        message.header.protocol = RouteProtocol::Dhcp;
        message
    }

    #[test]
    fn a_multipath_default_route_has_one_entry_a_hop_with_its_weight() {
        let mut message = default_route();
        let hops = [2, 3].map(|index| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = index;
            hop.hops = index as u8 - 2;
            hop.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet([10, 0, 0, index as u8].into())));
            hop
        });
        message.attributes.push(RouteAttribute::MultiPath(hops.to_vec()));
        let hop = |route: HostRoute| (route.ifindex, route.gateway, route.weight.get());
        let seen: Vec<_> = routes(&message).into_iter().map(hop).collect();
        assert_eq!(seen, [(2, "10.0.0.2".parse().ok(), 1), (3, "10.0.0.3".parse().ok(), 2)]);
    }

    #[test]
    fn other_tables_and_blackholes_are_no_routes_of_ours() {
        let mut message = default_route();
        message.attributes.push(RouteAttribute::Oif(2));
        assert_eq!(routes(&message).len(), 1);
        message.attributes.push(RouteAttribute::Table(100));
        assert_eq!(routes(&message), []);
        message.attributes.pop();
        message.header.kind = RouteType::BlackHole;
        assert_eq!(routes(&message), []);
        assert_eq!(route_to(&message), None);
    }
}
