//! The difference between desired and actual, as operations on our own device.

use std::fmt;

use ipnetwork::IpNetwork;

use super::desired::{Desired, Route};
use super::view::{ADDR_GEN_MODE_NONE, HostRoute, HostView, Link, PROTOCOL_KERNEL};

/// One change of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The device; [`diff`] only ever writes our own here.
    pub ifindex: u32,
    /// What to do to it.
    pub change: Change,
}

/// What can be done to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Let the kernel make no link-local address by itself (`addrgenmode none`).
    NoAddrGen,
    /// Set the transmit queue's length, packets.
    TxQueueLen(u32),
    /// Set the MTU, bytes.
    Mtu(u32),
    /// Set or clear `IFF_NOARP`.
    NoArp(bool),
    /// Bring it up or down.
    Up(bool),
    /// Remove a route; every field says which.
    RouteDel(HostRoute),
    /// Remove an address.
    AddressDel(IpNetwork),
    /// Add an address, without duplicate detection and without the prefix route the kernel would add.
    AddressAdd(IpNetwork),
    /// Add a (canonical) route. Fails where another device has one of the same destination and metric: never replaces.
    RouteAdd(Route),
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = self.ifindex;
        match &self.change {
            Change::NoAddrGen => write!(f, "set addrgenmode none on device {on}"),
            Change::TxQueueLen(len) => write!(f, "set txqueuelen {len} on device {on}"),
            Change::Mtu(mtu) => write!(f, "set mtu {mtu} on device {on}"),
            Change::NoArp(noarp) => write!(f, "set arp {} on device {on}", if *noarp { "off" } else { "on" }),
            Change::Up(up) => write!(f, "set device {on} {}", if *up { "up" } else { "down" }),
            Change::RouteDel(route) => write!(f, "remove route {} from device {on}", route.dst),
            Change::AddressDel(net) => write!(f, "remove address {net} from device {on}"),
            Change::AddressAdd(net) => write!(f, "add address {net} to device {on}"),
            Change::RouteAdd(route) => write!(f, "add route {} to device {on}", route.dst),
        }
    }
}

/// What to do, in order, so that the device becomes as desired. Empty when it is, and when it does not exist.
///
/// Order: properties before `up` (an address generated meanwhile would have to go again), removals before additions
/// (an IPv4 route with the same destination and metric must be gone first), addresses before the routes whose source
/// they are. Routes the kernel made itself stay: they follow their address.
pub fn diff(desired: &Desired, view: &HostView) -> Vec<Op> {
    let Some(link) = view.link_by_name(&desired.device) else {
        return Vec::new();
    };
    let mut changes = link_changes(desired, link);

    let routes = desired.canonical_routes();
    let stays =
        |there: &HostRoute| there.protocol == PROTOCOL_KERNEL || routes.iter().any(|wanted| wanted.is(there));
    let old_routes = view.routes_of(link.index).filter(|there| !stays(there));
    changes.extend(old_routes.cloned().map(Change::RouteDel));

    let addresses = desired.canonical_addresses();
    let there: Vec<IpNetwork> = view.addresses_of(link.index).map(|address| address.net).collect();
    let old_addresses = there.iter().filter(|net| !addresses.contains(net));
    changes.extend(old_addresses.copied().map(Change::AddressDel));
    let new_addresses = addresses.iter().filter(|net| !there.contains(net));
    changes.extend(new_addresses.copied().map(Change::AddressAdd));

    let new_routes = routes.iter().filter(|wanted| !view.routes_of(link.index).any(|there| wanted.is(there)));
    changes.extend(new_routes.copied().map(Change::RouteAdd));

    changes.into_iter().map(|change| Op { ifindex: link.index, change }).collect()
}

fn link_changes(desired: &Desired, link: &Link) -> Vec<Change> {
    let mut changes = Vec::new();
    // Without IPv6 on the device there is nothing to turn off, and asking would be refused.
    if link.addr_gen_mode.is_some_and(|mode| mode != ADDR_GEN_MODE_NONE) {
        changes.push(Change::NoAddrGen);
    }
    if link.tx_queue_len < Desired::MIN_TX_QUEUE_LEN {
        changes.push(Change::TxQueueLen(Desired::MIN_TX_QUEUE_LEN));
    }
    if link.mtu != desired.mtu {
        changes.push(Change::Mtu(desired.mtu));
    }
    if link.noarp != desired.noarp {
        changes.push(Change::NoArp(desired.noarp));
    }
    if link.up != desired.up {
        changes.push(Change::Up(desired.up));
    }
    changes
}

#[cfg(test)]
mod tests;
