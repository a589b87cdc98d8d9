//! A kernel in memory that obeys operations with the side effects that matter here, for deterministic tests.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use ipnetwork::IpNetwork;
use nix::errno::Errno;

use super::delta::{Change, Op};
use super::kernel::{Error, Kernel};
use super::view::{ADDR_GEN_MODE_NONE, Address, HostView, Link, Scope};

/// A device for tests: Ethernet, up and running, kernel's defaults.
pub fn link(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mtu: 1500,
        mac: Some(canal_dataplane::net::Mac::local_from([0, 0, 0, 0, 0, index as u8])),
        kind: None,
        peer_netns: None,
        up: true,
        running: true,
        loopback: false,
        noarp: false,
        tx_queue_len: 500,
        addr_gen_mode: Some(0),
    }
}

/// A permanent address of global scope for tests.
pub fn address(ifindex: u32, net: &str) -> Address {
    let net = net.parse().expect("an address with prefix length");
    Address { ifindex, net, scope: Scope::Global, flags: Address::PERMANENT }
}

/// The kernel. Models: `up` generates a link-local address unless told not to; `down` takes routes and IPv6 addresses
/// away; the first IPv4 address of a subnet takes the others with it; an address takes along the IPv4 routes it is the
/// source of; two routes of one destination and metric exclude each other on whatever device.
#[derive(Debug, Default)]
pub struct FakeKernel {
    view: Mutex<HostView>,
    obeyed: Mutex<Vec<Op>>,
}

impl FakeKernel {
    /// A kernel in this state.
    pub fn new(mut view: HostView) -> Self {
        view.sort();
        Self { view: Mutex::new(view), obeyed: Mutex::default() }
    }

    /// Its state, to look at or to disturb as another program would.
    pub fn state(&self) -> MutexGuard<'_, HostView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Operations obeyed since last asked.
    pub fn take_obeyed(&self) -> Vec<Op> {
        std::mem::take(&mut self.obeyed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does one thing.
    pub fn obey(&self, op: &Op) -> Result<(), Error> {
        let mut view = self.state();
        let done = change(&mut view, op);
        view.sort();
        drop(view);
        done.map_err(|errno| Error::Refused { request: "an operation", errno })?;
        self.obeyed.lock().unwrap_or_else(PoisonError::into_inner).push(op.clone());
        Ok(())
    }
}

fn change(view: &mut HostView, op: &Op) -> Result<(), Errno> {
    let ifindex = op.ifindex;
    let link = view.links.iter_mut().find(|link| link.index == ifindex).ok_or(Errno::ENODEV)?;
    match &op.change {
        Change::NoAddrGen => link.addr_gen_mode = Some(ADDR_GEN_MODE_NONE),
        Change::TxQueueLen(len) => link.tx_queue_len = *len,
        Change::Mtu(mtu) => link.mtu = *mtu,
        Change::NoArp(noarp) => link.noarp = *noarp,
        Change::Up(true) => {
            link.up = true;
            if link.addr_gen_mode.is_some_and(|mode| mode != ADDR_GEN_MODE_NONE) {
                view.addresses.push(Address { scope: Scope::Link, ..address(ifindex, "fe80::1/64") });
            }
        }
        Change::Up(false) => {
            link.up = false;
            view.routes.retain(|route| route.ifindex != ifindex);
            view.addresses.retain(|address| address.ifindex != ifindex || address.net.is_ipv4());
        }
        Change::AddressAdd(net) => add_address(view, ifindex, *net)?,
        Change::AddressDel(net) => remove_address(view, ifindex, *net)?,
        Change::RouteAdd(route) => {
            if !link.up {
                return Err(Errno::ENETDOWN);
            }
            if route.src.is_some_and(|src| view.owner_of(src).is_none()) {
                return Err(Errno::EINVAL);
            }
            if view.routes.iter().any(|other| (other.dst, other.metric) == (route.dst, route.metric)) {
                return Err(Errno::EEXIST);
            }
            view.routes.push(route.on(ifindex));
        }
        Change::RouteDel(route) => {
            let at = view.routes.iter().position(|other| other == route).ok_or(Errno::ESRCH)?;
            view.routes.remove(at);
        }
    }
    Ok(())
}

fn add_address(view: &mut HostView, ifindex: u32, net: IpNetwork) -> Result<(), Errno> {
    let mut new = Address { ifindex, net, scope: Scope::Global, flags: Address::PERMANENT };
    for there in view.addresses_of(ifindex).map(|address| address.net) {
        if there == net || (net.is_ipv6() && there.ip() == net.ip()) {
            return Err(Errno::EEXIST);
        }
        if in_one_subnet(there, net) {
            new.flags |= Address::TEMPORARY;
        }
    }
    view.addresses.push(new);
    Ok(())
}

fn remove_address(view: &mut HostView, ifindex: u32, net: IpNetwork) -> Result<(), Errno> {
    let own = |address: &Address| address.ifindex == ifindex;
    let at = view.addresses.iter().position(|address| own(address) && address.net == net);
    let removed = view.addresses.remove(at.ok_or(Errno::EADDRNOTAVAIL)?);
    let mut gone = vec![removed.net.ip()];
    if !removed.has(Address::TEMPORARY) {
        view.addresses.retain(|address| {
            let goes = own(address) && address.has(Address::TEMPORARY) && in_one_subnet(address.net, net);
            if goes {
                gone.push(address.net.ip());
            }
            !goes
        });
    }
    gone.retain(|ip| view.owner_of(*ip).is_none());
    forget_sources(view, &gone);
    Ok(())
}

fn forget_sources(view: &mut HostView, gone: &[IpAddr]) {
    let lost = |src: Option<IpAddr>| src.is_some_and(|ip| gone.contains(&ip));
    view.routes.retain(|route| route.dst.is_ipv6() || !lost(route.src));
    for route in view.routes.iter_mut().filter(|route| lost(route.src)) {
        route.src = None;
    }
}

fn in_one_subnet(a: IpNetwork, b: IpNetwork) -> bool {
    a.is_ipv4() && (a.network(), a.prefix()) == (b.network(), b.prefix())
}

#[async_trait]
impl Kernel for FakeKernel {
    async fn view(&self, device: &str) -> Result<HostView, Error> {
        let mut view = self.state().clone();
        view.retain_routes(device, &[]);
        Ok(view)
    }

    async fn apply(&self, op: &Op) -> Result<(), Error> {
        self.obey(op)
    }
}
