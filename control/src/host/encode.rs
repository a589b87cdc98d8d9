//! Operations as rtnetlink messages.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteType};

use super::view::HostRoute;

/// A device with one attribute to set.
pub fn link(ifindex: u32, attribute: LinkAttribute) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.attributes.push(attribute);
    message
}

/// `addrgenmode none`.
pub fn no_addr_gen(ifindex: u32) -> LinkMessage {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    link(ifindex, LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]))
}

/// `arp off` / `arp on`.
pub fn noarp(ifindex: u32, noarp: bool) -> LinkMessage {
    flag(ifindex, LinkFlags::Noarp, noarp)
}

/// `up` / `down`.
pub fn up(ifindex: u32, up: bool) -> LinkMessage {
    flag(ifindex, LinkFlags::Up, up)
}

fn flag(ifindex: u32, flag: LinkFlags, on: bool) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.header.change_mask = flag;
    message.header.flags.set(flag, on);
    message
}

/// An address that exists.
pub fn address(ifindex: u32, net: IpNetwork) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(net.ip());
    message.header.prefix_len = net.prefix();
    message.header.index = ifindex;
    message.attributes.push(AddressAttribute::Local(net.ip()));
    message.attributes.push(AddressAttribute::Address(net.ip()));
    message
}

/// An address to make: nobody on the link could contest it, and its prefix route is ours to add.
pub fn new_address(ifindex: u32, net: IpNetwork) -> AddressMessage {
    let mut message = address(ifindex, net);
    let mut flags = AddressFlags::Noprefixroute;
    flags.set(AddressFlags::Nodad, net.is_ipv6());
    message.attributes.push(AddressAttribute::Flags(flags));
    message
}

/// A route of the main table, to make or to remove.
pub fn route(route: &HostRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.dst.ip());
    message.header.destination_prefix_length = route.dst.prefix();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = route.protocol.into();
    message.header.scope = u8::from(route.scope).into();
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Destination(route.dst.ip().into()));
    message.attributes.push(RouteAttribute::Oif(route.ifindex));
    message.attributes.push(RouteAttribute::Priority(route.metric));
    message.attributes.extend(route.src.map(|ip| RouteAttribute::PrefSource(ip.into())));
    message.attributes.extend(route.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
    message
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet }
}
