//! What stands between the pod and the wire, set up for each kind of peer.

use super::{CONNECTIONS, POD_MTU, REMOTE_POD, ends};
use crate::bound::Bound;
use crate::bulk;
use crate::open_vswitch::OpenVSwitch;
use crate::packets::Ends;
use crate::peer::{Forwarder, Peer};
use crate::rules::{Policies, calico, iptables, nftables};
use anyhow::{Context, Result, bail, ensure};
use netns_tests::behind::address_v4;
use netns_tests::calico::Resource;
use netns_tests::frames::mac;
use netns_tests::plan::{GATEWAY_MAC, Subnets};
use netns_tests::topology::prepare;
use netns_tests::{Canal, CanalOptions, Etcd, KernelPeer, Netns, PeerOptions, Pod, Store, Topology};
use serde_json::Value;
use std::net::Ipv4Addr;

/// Inner MAC address of a node that has no way to choose its own.
const LOCAL_MAC: &str = "02:ca:fe:00:01:00";
/// The interface behind which a gateway's plain host is, its MAC address, and the host's.
const BEHIND: &str = "eth1";
const BEHIND_MAC: &str = "02:00:0b:00:01:01";
const STATION_MAC: &str = "02:00:0b:00:01:02";
/// Where a daemon serves its metrics, inside of its host.
pub const METRICS: &str = "127.0.0.1:9191";
/// The port of its probes.
pub const HEALTH_PORT: u16 = 8471;

/// The forwarder; what it made goes with it.
pub enum Node<'t> {
    /// The kernel's VXLAN device.
    Kernel { _node: KernelPeer<'t> },
    /// The daemon.
    Canal(Box<Canal<'t>>),
    /// The emptiest forwarder over AF_XDP.
    Bound { _process: Bound },
    /// Open vSwitch in user space.
    OpenVSwitch(OpenVSwitch<'t>),
}

/// Who sends and receives beside the forwarder.
#[derive(Debug)]
pub struct Station {
    /// Its namespace; the interface inside is `eth0`.
    pub ns: Netns,
    /// Name of the forwarder's interface towards it.
    pub interface: String,
    /// Its address.
    pub v4: Ipv4Addr,
    /// MAC address of its `eth0`.
    pub mac: String,
    /// MAC address of the forwarder's interface.
    pub router_mac: &'static str,
}

impl From<Pod> for Station {
    fn from(Pod { ns, interface, v4, mac, .. }: Pod) -> Self {
        Self { ns, interface, v4, mac, router_mac: GATEWAY_MAC }
    }
}

/// A node, who is beside it, and where everything is.
type Placed<'t> = (Node<'t>, Station, Ends);

impl<'t> Node<'t> {
    /// Sets `peer` up, policies included.
    pub fn up(topology: &'t Topology, etcd: &Etcd<'_>, peer: &Peer) -> Result<Placed<'t>> {
        match &peer.forwarder {
            Forwarder::Kernel | Forwarder::Iptables | Forwarder::Nftables => kernel(topology, etcd, peer),
            Forwarder::Canal(port) => canal(topology, etcd, port, peer.policies),
            Forwarder::Gateway => gateway(topology, etcd, peer.policies),
            Forwarder::Bound => bound(topology),
            Forwarder::OpenVSwitch => open_vswitch(topology, peer.policies),
        }
    }

    /// The daemon.
    pub fn daemon(&mut self) -> Result<&mut Canal<'t>> {
        match self {
            Self::Canal(canal) => Ok(canal),
            _ => bail!("no daemon"),
        }
    }

    /// Whoever looks for packets all the time does not while others are measured.
    pub fn set_awake(&mut self, awake: bool) -> Result<()> {
        match self {
            Self::OpenVSwitch(switch) => switch.set_awake(awake),
            _ => Ok(()),
        }
    }
}

/// The remote node's addresses and who is beside ours: whom the last policy lets pass.
fn policies(count: usize, station: Ipv4Addr) -> Policies {
    let [a, b, c, _] = REMOTE_POD.octets();
    let mut peers: Vec<Ipv4Addr> = (0..=255).map(|d| Ipv4Addr::new(a, b, c, d)).collect();
    peers.push(station);
    Policies::new(count, peers)
}

fn kernel<'t>(topology: &'t Topology, etcd: &Etcd<'_>, peer: &Peer) -> Result<Placed<'t>> {
    let mut node = KernelPeer::new(topology, 0, PeerOptions::default())?;
    node.publish(etcd)?;
    node.sync(etcd)?;
    let pod = Pod::routed_by_kernel(topology, node.host, node.subnets, 2, POD_MTU)?;
    if let Some(count) = peer.policies {
        let (ns, policies) = (&node.host.ns, policies(count, pod.v4));
        match peer.forwarder {
            Forwarder::Iptables => iptables::install(ns, &pod.interface, &policies)?,
            _ => nftables::install(ns, &pod.interface, &policies)?,
        }
    }
    let station = pod.into();
    let ends = ends(topology, &station, mac(node.mac()))?;
    Ok((Node::Kernel { _node: node }, station, ends))
}

fn canal<'t>(
    topology: &'t Topology,
    etcd: &Etcd<'_>,
    port: &str,
    count: Option<usize>,
) -> Result<Placed<'t>> {
    let canal = Canal::start(topology, 0, etcd, options(port, &[]))?;
    let lease = canal.lease(etcd)?;
    let pod = Pod::new(topology, canal.host, lease.subnets, 2, POD_MTU)?;
    let endpoint = netns_tests::calico::endpoint(&pod, &[calico::LABEL], &[]);
    if let Some(count) = count {
        enforce(topology, etcd, &canal, &calico::resources(&policies(count, pod.v4)))?;
    }
    etcd.put_workload(netns_tests::pod::NAMESPACE, &pod.endpoint_name(), &endpoint)?;
    canal.wait_endpoint(&pod.interface, true)?;
    let station = pod.into();
    let ends = ends(topology, &station, mac(&lease.mac_v4.context("no VtepMAC")?))?;
    Ok((Node::Canal(Box::new(canal)), station, ends))
}

/// A daemon with room for every connection, that can be asked by HTTP.
fn options(port: &str, extra: &[&str]) -> CanalOptions {
    let room = CONNECTIONS.to_string();
    let (metrics, health) = (format!("--metrics-addr={METRICS}"), format!("--healthz-port={HEALTH_PORT}"));
    let words = [&["--flows", &room, "--flows-per-workload", &room, &metrics, &health], extra].concat();
    CanalOptions { port: port.to_owned(), ..CanalOptions::with(&words) }
}

/// Writes `resources`, and waits until `canal` enforces them.
fn enforce(topology: &Topology, etcd: &Etcd<'_>, canal: &Canal<'_>, resources: &[Resource]) -> Result<()> {
    let entries: Vec<(String, String)> = resources.iter().map(|r| (r.key(), r.value().to_string())).collect();
    let revision = bulk::write_all(topology, etcd, &entries)?;
    let (code, said) = canal.wait_revision(revision.unsigned_abs(), "60s")?;
    ensure!(code == Some(0), "canal wait: {said}");
    Ok(())
}

/// A daemon between its underlay and a plain host behind another interface.
fn gateway<'t>(topology: &'t Topology, etcd: &Etcd<'_>, count: Option<usize>) -> Result<Placed<'t>> {
    let host = &topology.hosts[0];
    let station = behind(topology)?;
    let canal = Canal::start(topology, 0, etcd, options("af-xdp", &["--gateway-iface", BEHIND]))?;
    let lease = canal.lease(etcd)?;
    if let Some(count) = count {
        let mut resources = calico::resources(&policies(count, station.v4));
        resources.push(calico::host_endpoint(&host.node(), BEHIND));
        enforce(topology, etcd, &canal, &resources)?;
    }
    let ends = ends(topology, &station, mac(&lease.mac_v4.context("no VtepMAC")?))?;
    Ok((Node::Canal(Box::new(canal)), station, ends))
}

/// A plain host whose router is our node.
fn behind(topology: &Topology) -> Result<Station> {
    let host = &topology.hosts[0];
    let ns = Netns::new("behind")?;
    prepare(&ns)?;
    let (ours, its) = (address_v4(1, 1), address_v4(1, 2));
    host.ns.ip(&format!(
        "link add {BEHIND} address {BEHIND_MAC} type veth peer name eth0 address {STATION_MAC} netns {}",
        ns.name()
    ))?;
    for (ns, interface, address) in [(&host.ns, BEHIND, ours), (&ns, "eth0", its)] {
        ns.ip(&format!("addr add {address}/24 dev {interface}"))?;
        ns.ip(&format!("link set {interface} up"))?;
    }
    ns.ip(&format!("route add default via {ours}"))?;
    let (interface, mac) = (BEHIND.to_owned(), STATION_MAC.to_owned());
    Ok(Station { ns, interface, v4: its, mac, router_mac: BEHIND_MAC })
}

fn bound(topology: &Topology) -> Result<Placed<'_>> {
    let (station, ends) = unrouted(topology)?;
    let process = Bound::start(&topology.hosts[0].ns, &station.interface, &ends)?;
    Ok((Node::Bound { _process: process }, station, ends))
}

fn open_vswitch(topology: &Topology, count: Option<usize>) -> Result<Placed<'_>> {
    let (station, ends) = unrouted(topology)?;
    let policies = count.map(|count| policies(count, station.v4));
    let switch = OpenVSwitch::start(topology, &station.interface, &ends, policies.as_ref())?;
    Ok((Node::OpenVSwitch(switch), station, ends))
}

/// A pod of which the host's kernel knows nothing.
fn unrouted(topology: &Topology) -> Result<(Station, Ends)> {
    let host = &topology.hosts[0];
    let pod = Pod::new(topology, host, Subnets::planned(host.index, false), 2, POD_MTU)?;
    let station = pod.into();
    let ends = ends(topology, &station, mac(LOCAL_MAC))?;
    Ok((station, ends))
}

/// MAC address of the host that pretends to be the remote node.
pub fn switch_mac(topology: &Topology) -> Result<[u8; 6]> {
    let links: Value = serde_json::from_str(&topology.switch.ip("-j link show br0")?)?;
    Ok(mac(links[0]["address"].as_str().context("the bridge's address")?))
}
