//! A flannel node made of iproute2 alone: the kernel's VXLAN device, programmed by hand from the leases.

use crate::flannel::Lease;
use crate::netns::Netns;
use crate::plan::{self, Subnets};
use crate::store::Store;
use crate::topology::{Host, Topology, forwarding, offloads_off};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// How the node differs from an ordinary one.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    /// Also an IPv6 device and subnet.
    pub dual: bool,
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Group based policy extension: the header may carry the sender's mark.
    pub gbp: bool,
}

impl Default for PeerOptions {
    fn default() -> Self {
        Self { dual: false, vni: 1, port: plan::VXLAN_PORT, gbp: false }
    }
}

/// One family's half of a remote node: where its subnet is and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Remote {
    mac: String,
    outer: IpAddr,
}

/// The node. Its device disappears with the host's namespace.
#[derive(Debug)]
pub struct KernelPeer<'t> {
    /// The host it runs on.
    pub host: &'t Host,
    /// The subnets it holds.
    pub subnets: Subnets,
    options: PeerOptions,
    mac: String,
    address: Ipv4Addr,
    remotes: BTreeMap<IpAddr, Remote>,
}

impl<'t> KernelPeer<'t> {
    /// Makes the devices on host `index`; nobody knows of them before [`KernelPeer::publish`].
    pub fn new(topology: &'t Topology, index: usize, options: PeerOptions) -> Result<Self> {
        let host = &topology.hosts[index];
        let subnets = Subnets::planned(host.index, options.dual);
        let mac = format!("02:ca:fe:00:01:{:02x}", host.index);
        let peer = Self { host, subnets, options, mac, address: host.v4, remotes: BTreeMap::new() };
        forwarding(&host.ns)?;
        for base in peer.subnets.bases() {
            peer.add_device(base)?;
            if !topology.offloads {
                offloads_off(&host.ns, &peer.device(base))?;
            }
        }
        Ok(peer)
    }

    fn ns(&self) -> &Netns {
        &self.host.ns
    }

    /// flannel's name for the device of this family.
    fn device(&self, family: IpAddr) -> String {
        match family {
            IpAddr::V4(_) => format!("flannel.{}", self.options.vni),
            IpAddr::V6(_) => format!("flannel-v6.{}", self.options.vni),
        }
    }

    fn add_device(&self, base: IpAddr) -> Result<()> {
        let device = self.device(base);
        let (local, overhead, length) = match base {
            IpAddr::V4(_) => (IpAddr::V4(self.host.v4), 50, 32),
            IpAddr::V6(_) => (IpAddr::V6(self.host.v6), 70, 128),
        };
        let gbp = if self.options.gbp { "gbp" } else { "" };
        self.ns().ip(&format!(
            "link add {device} address {} type vxlan id {} dev eth0 local {local} dstport {} nolearning {gbp}",
            self.mac, self.options.vni, self.options.port
        ))?;
        self.ns().ip(&format!("link set {device} mtu {}", plan::UNDERLAY_MTU - overhead))?;
        self.ns().ip(&format!("addr add {base}/{length} dev {device}"))?;
        self.ns().ip(&format!("link set {device} up"))?;
        Ok(())
    }

    /// The lease this node holds.
    pub fn lease(&self) -> Lease {
        Lease {
            subnets: self.subnets,
            public_v4: self.address,
            public_v6: self.options.dual.then_some(self.host.v6),
            backend: Some("vxlan".to_owned()),
            mac_v4: Some(self.mac.clone()),
            mac_v6: self.options.dual.then(|| self.mac.clone()),
        }
    }

    /// Writes the lease.
    pub fn publish(&self, store: &dyn Store) -> Result<()> {
        store.put_lease(&self.subnets.key(), &self.lease().value(self.options.vni))
    }

    /// Deletes the lease; the device stays.
    pub fn retire(&self, store: &dyn Store) -> Result<()> {
        store.delete_lease(&self.subnets.key())
    }

    /// Gives the devices another MAC and publishes it, as a flannel node after a reboot does.
    pub fn change_mac(&mut self, mac: &str, store: &dyn Store) -> Result<()> {
        mac.clone_into(&mut self.mac);
        for base in self.subnets.bases() {
            let device = self.device(base);
            self.ns().ip(&format!("link set {device} address {mac}"))?;
        }
        // The kernel forgets every neighbour of a device that changes its address.
        self.sync(store)?;
        self.publish(store)
    }

    /// Moves the node to another underlay address and publishes it.
    pub fn change_address(&mut self, address: Ipv4Addr, store: &dyn Store) -> Result<()> {
        // Not the other way round: a second address of one subnet goes with the first.
        self.ns().ip(&format!("addr del {}/24 dev eth0", self.address))?;
        self.ns().ip(&format!("addr add {address}/24 dev eth0"))?;
        let device = self.device(self.subnets.v4.into());
        self.ns().ip(&format!("link set {device} type vxlan id {} local {address}", self.options.vni))?;
        self.address = address;
        self.publish(store)
    }

    /// MAC of the VXLAN devices.
    pub fn mac(&self) -> &str {
        &self.mac
    }

    /// Sends to the node behind `base` without encapsulation, as flannel's `DirectRouting` does.
    pub fn route_directly(&self, base: Ipv4Addr, through: Ipv4Addr) -> Result<()> {
        self.ns().ip(&format!("route replace {base}/24 via {through} dev eth0")).map(drop)
    }

    /// Programs what the leases say: new and changed nodes are written, vanished ones removed.
    pub fn sync(&mut self, store: &dyn Store) -> Result<()> {
        let mut wanted = BTreeMap::new();
        for lease in store.leases()? {
            if lease.subnets == self.subnets {
                continue;
            }
            if let Some(mac) = lease.mac_v4.clone() {
                wanted
                    .insert(IpAddr::V4(lease.subnets.v4), Remote { mac, outer: IpAddr::V4(lease.public_v4) });
            }
            if let (true, Some(base), Some(mac), Some(outer)) =
                (self.options.dual, lease.subnets.v6, lease.mac_v6.clone(), lease.public_v6)
            {
                wanted.insert(IpAddr::V6(base), Remote { mac, outer: IpAddr::V6(outer) });
            }
        }
        for (base, remote) in self.remotes.clone() {
            if wanted.get(&base) != Some(&remote) {
                self.forget(base, &remote)?;
            }
        }
        for (base, remote) in &wanted {
            self.learn(*base, remote)?;
        }
        self.remotes = wanted;
        Ok(())
    }

    fn learn(&self, base: IpAddr, remote: &Remote) -> Result<()> {
        let device = self.device(base);
        let length = if base.is_ipv4() { 24 } else { 64 };
        self.ns().ip(&format!("neigh replace {base} lladdr {} dev {device} nud permanent", remote.mac))?;
        self.fdb("replace", &device, remote)?;
        self.ns().ip(&format!("route replace {base}/{length} via {base} dev {device} onlink"))?;
        Ok(())
    }

    fn forget(&self, base: IpAddr, remote: &Remote) -> Result<()> {
        let device = self.device(base);
        let length = if base.is_ipv4() { 24 } else { 64 };
        self.ns().ip(&format!("route del {base}/{length} dev {device}"))?;
        self.fdb("del", &device, remote)?;
        self.ns().ip(&format!("neigh del {base} dev {device}"))?;
        Ok(())
    }

    fn fdb(&self, verb: &str, device: &str, remote: &Remote) -> Result<()> {
        let outer = remote.outer.to_string();
        let argv = [
            "bridge",
            "-n",
            self.ns().name(),
            "fdb",
            verb,
            &remote.mac,
            "dev",
            device,
            "self",
            "dst",
            &outer,
        ];
        let mut argv = argv.to_vec();
        if verb == "replace" {
            argv.push("permanent");
        }
        crate::cmd::run(&argv).map(drop).context("programming the fdb")
    }
}
