//! An overlay ready for traffic: etcd, a node on every host, a pod on every node.

use crate::canal::{Canal, CanalOptions};
use crate::etcd::Etcd;
use crate::flannel::{self, Lease};
use crate::kernel_peer::{KernelPeer, PeerOptions};
use crate::netns::Netns;
use crate::plan::Subnets;
use crate::pod::Pod;
use crate::store::Store;
use crate::topology::{Host, Topology};
use crate::traffic::{Ping, tcp, udp::Echo};
use crate::wait;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::IpAddr;

/// Number of the pod every node begins with.
pub const FIRST_POD: u8 = 2;

/// What a host is in the overlay.
#[derive(Clone, Debug)]
pub enum Role {
    /// It runs canal.
    Canal(CanalOptions),
    /// It is a kernel flannel node.
    Kernel,
    /// It is only there.
    Bystander,
}

impl Role {
    /// canal with the default options.
    pub fn canal() -> Self {
        Self::Canal(CanalOptions::default())
    }

    /// canal with this `--port`.
    pub fn port(port: &str) -> Self {
        Self::Canal(CanalOptions { port: port.to_owned(), ..CanalOptions::default() })
    }
}

/// What the network config says.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// Also IPv6.
    pub dual: bool,
    /// Further keys of `Backend`.
    pub backend: Value,
    /// Further keys beside it, such as another `Network`.
    pub config: Value,
    /// How kernel nodes differ from ordinary ones; `dual` is taken from above.
    pub peers: PeerOptions,
}

/// The running overlay. Nodes and pods are found by the index of their host.
#[derive(Debug)]
pub struct Overlay<'t, S = Etcd<'t>> {
    /// The laboratory.
    pub topology: &'t Topology,
    /// canal nodes, by host.
    pub canals: Vec<Option<Canal<'t>>>,
    /// Kernel nodes, by host.
    pub kernels: Vec<Option<KernelPeer<'t>>>,
    /// The first pod of every node, by host.
    pods: Vec<Option<Pod>>,
    /// MTU of pods.
    pub pod_mtu: u16,
    /// The datastore.
    pub store: S,
}

impl<'t> Overlay<'t> {
    /// Starts etcd, writes the network config, starts a node on every host and waits until all pods talk.
    pub fn start(topology: &'t Topology, network: &Network, roles: &[Role]) -> Result<Self> {
        let etcd = Etcd::start(topology)?;
        Self::on(topology, etcd, network, roles)
    }

    /// Waits until every canal node enforces everything that has been written. Until then a packet may meet what was there
    /// before, so that nothing is proven by what passes.
    pub fn wait_enforced(&self) -> Result<()> {
        let revision = self.store.revision()?;
        for canal in self.canals.iter().flatten() {
            let (code, said) = canal.wait_revision(revision, "20s")?;
            ensure!(code == Some(0), "{}: {said}", canal.host.node());
        }
        Ok(())
    }
}

impl<'t, S: Store> Overlay<'t, S> {
    /// Starts the overlay on a datastore that is there already.
    pub fn on(topology: &'t Topology, store: S, network: &Network, roles: &[Role]) -> Result<Self> {
        let mut conf = flannel::net_conf(network.dual, &network.backend);
        for (key, value) in network.config.as_object().into_iter().flatten() {
            conf[key] = value.clone();
        }
        store.set_net_conf(&conf)?;
        let pod_mtu = if network.dual { 1430 } else { 1450 };
        let (canals, kernels, pods) = (Vec::new(), Vec::new(), Vec::new());
        let mut overlay = Self { topology, canals, kernels, pods, pod_mtu, store };
        for (index, role) in roles.iter().enumerate() {
            overlay.add_node(index, role, network)?;
        }
        overlay.sync()?;
        overlay.wait_mesh()?;
        Ok(overlay)
    }

    fn add_node(&mut self, index: usize, role: &Role, network: &Network) -> Result<()> {
        let (mut canal, mut kernel, mut pod) = (None, None, None);
        match role {
            Role::Canal(options) => {
                let node = Canal::start(self.topology, index, &self.store, options.clone())?;
                let subnets = node.subnets(&self.store)?;
                let made = Pod::new(self.topology, node.host, subnets, FIRST_POD, self.pod_mtu)?;
                made.attach(&self.store)?;
                (canal, pod) = (Some(node), Some(made));
            }
            Role::Kernel => {
                let options = PeerOptions { dual: network.dual, ..network.peers.clone() };
                let node = KernelPeer::new(self.topology, index, options)?;
                node.publish(&self.store)?;
                let (host, subnets) = (node.host, node.subnets);
                pod = Some(Pod::routed_by_kernel(self.topology, host, subnets, FIRST_POD, self.pod_mtu)?);
                kernel = Some(node);
            }
            Role::Bystander => {}
        }
        self.canals.push(canal);
        self.kernels.push(kernel);
        self.pods.push(pod);
        Ok(())
    }

    /// Tells every kernel node what the leases say now.
    pub fn sync(&mut self) -> Result<()> {
        self.kernels.iter_mut().flatten().try_for_each(|kernel| kernel.sync(&self.store))
    }

    /// Waits until every pod reaches every other, over every family.
    pub fn wait_mesh(&self) -> Result<()> {
        for a in self.pods.iter().flatten() {
            for b in self.pods.iter().flatten().filter(|b| b.v4 != a.v4) {
                for to in b.addresses() {
                    wait_reachable(a, to)?;
                }
            }
        }
        Ok(())
    }

    /// A host.
    pub fn host(&self, index: usize) -> &'t Host {
        &self.topology.hosts[index]
    }

    /// The first pod on host `index`.
    ///
    /// # Panics
    /// When there is no node on that host: a mistake of the test.
    pub fn pod(&self, index: usize) -> &Pod {
        self.pods[index].as_ref().expect("a node on this host")
    }

    /// The daemon on host `index`.
    ///
    /// # Panics
    /// When that host does not run canal: a mistake of the test.
    pub fn canal(&self, index: usize) -> &Canal<'t> {
        self.canals[index].as_ref().expect("canal on this host")
    }

    /// The daemon on host `index`, to end and restart it.
    ///
    /// # Panics
    /// When that host does not run canal: a mistake of the test.
    pub fn canal_mut(&mut self, index: usize) -> &mut Canal<'t> {
        self.canals[index].as_mut().expect("canal on this host")
    }

    /// The kernel node on host `index`.
    ///
    /// # Panics
    /// When that host is no kernel node: a mistake of the test.
    pub fn kernel(&self, index: usize) -> &KernelPeer<'t> {
        self.kernels[index].as_ref().expect("a kernel node on this host")
    }

    /// The lease of the node on host `index`, as the datastore has it.
    pub fn lease(&self, index: usize) -> Result<Lease> {
        let address = self.host(index).v4;
        let found = self.store.leases()?.into_iter().find(|lease| lease.public_v4 == address);
        found.with_context(|| format!("no lease of {address}"))
    }

    /// The subnets of the node on host `index`.
    pub fn subnets(&self, index: usize) -> Result<Subnets> {
        Ok(self.lease(index)?.subnets)
    }

    /// Another pod on canal host `index`, attached and reachable from the host's first pod.
    pub fn another_pod(&self, index: usize, number: u8) -> Result<Pod> {
        let subnets = self.subnets(index)?;
        let pod = Pod::new(self.topology, self.host(index), subnets, number, self.pod_mtu)?;
        pod.attach(&self.store)?;
        wait_reachable(self.pod(index), pod.v4.into())?;
        Ok(pod)
    }

    /// Everything two pods can say to one another, both ways: pings with replies of this TTL, TCP, UDP of many sizes.
    pub fn exchange(&self, a: &Pod, b: &Pod, ttl: u8) -> Result<()> {
        for to in b.addresses() {
            let from = a.address_like(to);
            exchange_one_way(&a.ns, &b.ns, to, ttl).with_context(|| format!("{from} -> {to}"))?;
            exchange_one_way(&b.ns, &a.ns, from, ttl).with_context(|| format!("{to} -> {from}"))?;
        }
        Ok(())
    }
}

/// Everything that somebody in `a` can say to the address `to` in `b`: pings with replies of this TTL, TCP whose every byte
/// is compared, UDP of many sizes.
///
/// # Errors
/// When anything of it does not arrive, or not as it was sent.
pub fn exchange_one_way(a: &Netns, b: &Netns, to: IpAddr, ttl: u8) -> Result<()> {
    let answers = Ping::to(to).expect_all(a)?;
    ensure!(answers.ttls == [ttl; 3], "every router lowers the TTL once: {answers:?}, expected {ttl}");
    tcp::transfer(a, b, to, 16_000_000)?;
    let echo = Echo::start(b, to)?;
    // Empty, odd, just fitting and to be fragmented by the sender's own kernel.
    let sizes = [0, 1, 333, 1372, 1400, 1422, 9000];
    let answered = echo.ask(a, &sizes)?;
    ensure!(answered == sizes.len(), "{answered} of {} UDP datagrams came back", sizes.len());
    Ok(())
}

/// Waits until `from` gets an answer from `to`.
pub fn wait_reachable(from: &Pod, to: IpAddr) -> Result<()> {
    wait::until(&format!("{} reaches {to}", from.ns.name()), wait::SOON, || {
        Ping::to(to).count(1).expect_all(&from.ns).map(|_| true)
    })
}

/// Waits until `from` no longer gets an answer from `to`.
pub fn wait_unreachable(from: &Pod, to: IpAddr) -> Result<()> {
    wait::until(&format!("{} no longer reaches {to}", from.ns.name()), wait::SOON, || {
        Ping::to(to).count(1).expect_none(&from.ns).map(|_| true)
    })
}
