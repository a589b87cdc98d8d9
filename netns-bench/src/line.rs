//! The arrangement for packet rates: a pod, the forwarder, and a wire behind which the remote node is only pretended.
//!
//! ```text
//!   pod ── eth0 ══ cali… ─ forwarder ─ eth0 ══ h0 ── switch
//!   generator →                                   sink      encapsulating
//!   sink                                     ← generator    decapsulating
//! ```
//! The remote node is a lease and an address at the switch. Packets are made and taken away at the outer ends of the two
//! veth pairs, on a core of their own.

use crate::bulk;
use crate::machine::{self, CoreTime, FORWARDER_CORE, Receivers, Urgency};
use crate::packets::generator::{Generator, Stream};
use crate::packets::sink::{Count, Sink};
use crate::packets::{Direction, Ends};
use crate::peer::{Forwarder, Peer};
use crate::report::Samples;
use crate::rules::{Policies, calico, iptables, nftables};
use crate::scenario::{Scenario, newflows, rate};
use crate::site::{Plan, Site};
use anyhow::{Context, Result, ensure};
use netns_tests::flannel::{self, Lease};
use netns_tests::frames::mac;
use netns_tests::plan::Subnets;
use netns_tests::{Canal, CanalOptions, Etcd, KernelPeer, Netns, PeerOptions, Pod, Store, Topology, wait};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Tunnel address of the node that is only pretended.
const REMOTE_VTEP: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 200);
/// Its subnet.
const REMOTE_SUBNET: Ipv4Addr = Ipv4Addr::new(10, 244, 200, 0);
/// Its VTEP's MAC address.
const REMOTE_MAC: &str = "02:ca:fe:00:01:c8";
/// MTU of the pod.
const POD_MTU: u16 = 1450;
/// Connections there is room for, with every peer: a measurement must not end because a table is full.
pub const CONNECTIONS: usize = 4_194_304;
/// A sink looks for packets by itself this often: waking its core would be charged to the sender. Nanoseconds.
const SINK_TIMER: &str = "20000";
/// How often it does so without finding any before it wants to be woken.
const SINK_PATIENCE: &str = "1000000";

/// Where the forwarder's receiving is worked off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// On the forwarder's core, as all it does: what it costs, in one place.
    OneCore,
    /// On the sender's core, as if a NIC put the packets where they are needed: only the process counts.
    Split,
}

/// What was seen in an interval, a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    /// Packets offered.
    pub offered: f64,
    /// Packets that came out as they should.
    pub forwarded: f64,
    /// Packets that came out otherwise.
    pub wrong: f64,
    /// Busy part of the forwarder's core.
    pub busy: f64,
}

impl Rate {
    /// Processor time of the forwarder's core for each packet that came out; `None` if none did.
    pub fn ns_per_packet(&self) -> Option<f64> {
        (self.forwarded > 0.0).then(|| self.busy * 1e9 / self.forwarded)
    }
}

/// The forwarder; what it made goes with it.
enum Node<'t> {
    Kernel(KernelPeer<'t>),
    Canal(Canal<'t>),
}

/// A peer between generator and sink.
pub struct Line<'t> {
    /// Who.
    pub peer: Peer,
    topology: &'t Topology,
    _node: Node<'t>,
    pod: Pod,
    ends: Ends,
    sinks: [Sink; 2],
    receivers: Vec<(Side, Receivers)>,
    next_flow: u32,
    _etcd: Etcd<'t>,
}

/// Ends of a veth pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The forwarder's.
    Inner,
    /// The generator's and the sink's.
    Outer,
}

impl<'t> Line<'t> {
    /// Sets `peer` up on a topology of one host, and waits until packets pass in both directions.
    pub fn up(topology: &'t Topology, peer: &Peer) -> Result<Self> {
        let host = &topology.hosts[0];
        topology.switch.ip(&format!("addr add {REMOTE_VTEP}/24 dev br0"))?;
        let etcd = Etcd::start(topology)?;
        etcd.set_net_conf(&flannel::net_conf(false, &Value::Null))?;
        let remote = remote_lease();
        etcd.put_lease(&remote.subnets.key(), &remote.value(1))?;
        let remote_pod = remote.subnets.pod_v4(2);
        // Room at the interfaces for frames that no socket has made.
        host.ns.run(&["ethtool", "-K", "eth0", "gro", "on"])?;
        let (node, pod) = match &peer.forwarder {
            Forwarder::Canal(port) => canal_node(topology, &etcd, port, peer.policies, remote_pod)?,
            _ => kernel_node(topology, &etcd)?,
        };
        host.ns.run(&["ethtool", "-K", &pod.interface, "gro", "on"])?;
        let policies = peer.policies.map(|n| policies(n, &pod, remote_pod));
        match (&peer.forwarder, &policies) {
            (Forwarder::Iptables, Some(policies)) => iptables::install(&host.ns, &pod.interface, policies)?,
            (Forwarder::Nftables, Some(policies)) => nftables::install(&host.ns, &pod.interface, policies)?,
            _ => {}
        }
        let (vtep_mac, outer_mac) = (vtep_mac(&node, &etcd)?, switch_mac(topology)?);
        for (address, mac, device) in
            [(REMOTE_VTEP, outer_mac.as_str(), "eth0"), (pod.v4, &pod.mac, &pod.interface)]
        {
            host.ns.ip(&format!("neigh replace {address} lladdr {mac} dev {device} nud permanent"))?;
        }
        let ends = Ends {
            pod: pod.v4,
            pod_mac: mac(&pod.mac),
            remote_pod,
            vtep: host.v4,
            underlay_mac: mac(&host.mac()),
            vtep_mac,
            remote_vtep: REMOTE_VTEP,
            remote_vtep_mac: mac(REMOTE_MAC),
        };
        let sinks = [
            Sink::attach(&topology.switch, "h0", Direction::Encap, &ends)?,
            Sink::attach(&pod.ns, "eth0", Direction::Decap, &ends)?,
        ];
        let receivers = vec![
            (Side::Inner, Receivers::new("eth0")),
            (Side::Inner, Receivers::new(&pod.interface)),
            (Side::Outer, Receivers::new("h0")),
            (Side::Outer, Receivers::new("eth0")),
        ];
        let line = Self {
            peer: peer.clone(),
            topology,
            _node: node,
            pod,
            ends,
            sinks,
            receivers,
            next_flow: 1 << 20,
            _etcd: etcd,
        };
        line.wait_forwarding()?;
        Ok(line)
    }

    /// The pod has to open the connection: nobody is allowed to open one to it but by policy, which has to be there first.
    fn wait_forwarding(&self) -> Result<()> {
        for direction in [Direction::Encap, Direction::Decap] {
            wait::until(&format!("{}: {direction:?}", self.peer), wait::SOON, || {
                let before = self.count(direction)?;
                let stream = Stream { rate: Some(10_000.0), ..Stream::new(direction, 64) };
                let _generator = self.start(&stream)?;
                std::thread::sleep(Duration::from_millis(100));
                Ok(self.count(direction)?.good > before.good)
            })?;
        }
        Ok(())
    }

    fn count(&self, direction: Direction) -> Result<Count> {
        self.sinks[usize::from(direction == Direction::Decap)].count()
    }

    /// Starts sending; what comes out is counted.
    pub fn start(&self, stream: &Stream) -> Result<Generator> {
        match stream.direction {
            Direction::Encap => Generator::start(&self.pod.ns, "eth0", stream, &self.ends),
            Direction::Decap => Generator::start(&self.topology.switch, "h0", stream, &self.ends),
        }
    }

    /// Sends for `warm` and then counts for `window`.
    pub fn measure_rate(&self, stream: &Stream, warm: Duration, window: Duration) -> Result<Rate> {
        let generator = self.start(stream)?;
        std::thread::sleep(warm);
        let (begin, core) = (Instant::now(), CoreTime::now(FORWARDER_CORE)?);
        let (sent, count) = (generator.sent()?, self.count(stream.direction)?);
        std::thread::sleep(window);
        let (core_after, seconds) = (CoreTime::now(FORWARDER_CORE)?, begin.elapsed().as_secs_f64());
        let (sent_after, after) = (generator.sent()?, self.count(stream.direction)?);
        Ok(Rate {
            offered: (sent_after - sent) as f64 / seconds,
            forwarded: (after.good - count.good) as f64 / seconds,
            wrong: (after.other - count.other) as f64 / seconds,
            busy: core_after.busy_since(&core),
        })
    }

    /// Numbers of `count` flows that nobody has seen yet.
    pub fn fresh_flows(&mut self, count: u32) -> u32 {
        let first = self.next_flow;
        self.next_flow = first.wrapping_add(count);
        first
    }

    /// Makes the kernel forget every connection.
    pub fn forget_connections(&self) -> Result<()> {
        if self.peer.is_kernel() && self.peer.policies.is_some() {
            self.topology.hosts[0].ns.run(&["conntrack", "-F"]).context("forgetting connections")?;
        }
        Ok(())
    }

    /// Puts what receives where it belongs.
    pub fn arrange(&mut self, arrangement: Arrangement) -> Result<()> {
        let other = machine::other_core()?;
        self.each_interface(|ns, side, receivers| match (side, arrangement) {
            (Side::Inner, Arrangement::OneCore) => receivers.on_core(ns, FORWARDER_CORE, Urgency::Ordinary),
            (Side::Inner, Arrangement::Split) => receivers.with_sender(ns),
            (Side::Outer, _) => {
                receivers.on_core(ns, other, Urgency::First)?;
                receivers
                    .set(ns, &[("gro_flush_timeout", SINK_TIMER), ("napi_defer_hard_irqs", SINK_PATIENCE)])
            }
        })
    }

    /// Nothing looks for packets any more: others are measured.
    fn rest(&mut self) -> Result<()> {
        self.each_interface(|ns, _, receivers| {
            receivers.set(ns, &[("gro_flush_timeout", "0"), ("napi_defer_hard_irqs", "0")])?;
            receivers.with_sender(ns)
        })
    }

    fn each_interface(
        &mut self,
        mut work: impl FnMut(&Netns, Side, &mut Receivers) -> Result<()>,
    ) -> Result<()> {
        let host = &self.topology.hosts[0].ns;
        let places: [&Netns; 4] = [host, host, &self.topology.switch, &self.pod.ns];
        let mut all = places.into_iter().zip(&mut self.receivers);
        all.try_for_each(|(ns, (side, receivers))| work(ns, *side, receivers))
    }
}

impl Site for Line<'_> {
    fn measure(&mut self, scenario: Scenario, plan: &Plan, samples: &mut Samples) -> Result<()> {
        let measured = match (scenario, scenario.traffic()) {
            (Scenario::NewFlows, _) => newflows::measure(self, plan, samples),
            (other, Some(traffic)) => rate::measure(self, other.name(), &traffic, plan, samples),
            (other, None) => unreachable!("{other} is measured elsewhere"),
        };
        self.rest().and(measured)
    }
}

fn remote_lease() -> Lease {
    Lease {
        subnets: Subnets { v4: REMOTE_SUBNET, v6: None },
        public_v4: REMOTE_VTEP,
        public_v6: None,
        backend: Some("vxlan".to_owned()),
        mac_v4: Some(REMOTE_MAC.to_owned()),
        mac_v6: None,
    }
}

/// The remote node's addresses and our pod: whom the last policy lets pass.
fn policies(count: usize, pod: &Pod, remote_pod: Ipv4Addr) -> Policies {
    let [a, b, c, _] = remote_pod.octets();
    let mut peers: Vec<Ipv4Addr> = (0..=255).map(|d| Ipv4Addr::new(a, b, c, d)).collect();
    peers.push(pod.v4);
    Policies::new(count, peers)
}

fn kernel_node<'t>(topology: &'t Topology, etcd: &Etcd<'_>) -> Result<(Node<'t>, Pod)> {
    let mut node = KernelPeer::new(topology, 0, PeerOptions::default())?;
    node.publish(etcd)?;
    node.sync(etcd)?;
    let pod = Pod::routed_by_kernel(topology, node.host, node.subnets, 2, POD_MTU)?;
    Ok((Node::Kernel(node), pod))
}

fn canal_node<'t>(
    topology: &'t Topology,
    etcd: &Etcd<'_>,
    port: &str,
    count: Option<usize>,
    remote_pod: Ipv4Addr,
) -> Result<(Node<'t>, Pod)> {
    let room = CONNECTIONS.to_string();
    let options = CanalOptions {
        port: port.to_owned(),
        ..CanalOptions::with(&["--flows", &room, "--flows-per-workload", &room])
    };
    let canal = Canal::start(topology, 0, etcd, options)?;
    let pod = Pod::new(topology, canal.host, canal.subnets(etcd)?, 2, POD_MTU)?;
    let endpoint = netns_tests::calico::endpoint(&pod, &[calico::LABEL], &[]);
    if let Some(count) = count {
        let resources = calico::resources(&policies(count, &pod, remote_pod));
        let entries: Vec<(String, String)> =
            resources.iter().map(|r| (r.key(), r.value().to_string())).collect();
        let revision = bulk::write_all(topology, etcd, &entries)?;
        let (code, said) = canal.wait_revision(revision.unsigned_abs(), "60s")?;
        ensure!(code == Some(0), "canal wait: {said}");
    }
    etcd.put_workload(netns_tests::pod::NAMESPACE, &pod.endpoint_name(), &endpoint)?;
    canal.wait_endpoint(&pod.interface, true)?;
    Ok((Node::Canal(canal), pod))
}

fn vtep_mac(node: &Node<'_>, etcd: &Etcd<'_>) -> Result<[u8; 6]> {
    Ok(match node {
        Node::Kernel(kernel) => mac(kernel.mac()),
        Node::Canal(canal) => mac(&canal.lease(etcd)?.mac_v4.context("no VtepMAC")?),
    })
}

fn switch_mac(topology: &Topology) -> Result<String> {
    let links: Value = serde_json::from_str(&topology.switch.ip("-j link show br0")?)?;
    Ok(links[0]["address"].as_str().context("the bridge's address")?.to_owned())
}
