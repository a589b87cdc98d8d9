//! The arrangement for packet rates: a pod, the forwarder, and a wire behind which the remote node is only pretended.
//!
//! ```text
//!   pod ── eth0 ══ cali… ─ forwarder ─ eth0 ══ h0 ── switch
//!   generator →                                   sink      encapsulating
//!   sink                                     ← generator    decapsulating
//! ```
//! The remote node is a lease, an address at the switch, and one pod that answers. Packets are made and taken away at the outer ends of the two
//! veth pairs, on a core of their own.

pub mod node;
mod remote;

use crate::machine::{self, CoreTime, FORWARDER_CORE, Receivers, Urgency};
use crate::packets::generator::{Generator, Stream};
use crate::packets::sink::{Count, Sink};
use crate::packets::{Direction, Ends};
use crate::pair::LOAD;
use crate::peer::Peer;
use crate::report::Samples;
use crate::scenario::{Scenario, newflows, overload, rate, restart, round_trip};
use crate::site::{Plan, Site};
use anyhow::{Context, Result};
use clap::ValueEnum;
use netns_tests::flannel::{self, Lease};
use netns_tests::frames::{mac, mac_text};
use netns_tests::plan::Subnets;
use netns_tests::{Etcd, Netns, Store, Topology, wait};
use node::{Node, Station};
use remote::Remote;
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Tunnel address of the node that is only pretended.
const REMOTE_VTEP: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 200);
/// Its subnet.
const REMOTE_SUBNET: Ipv4Addr = Ipv4Addr::new(10, 244, 200, 0);
/// The only pod in it that is heard of.
const REMOTE_POD: Ipv4Addr = Ipv4Addr::new(10, 244, 200, 2);
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arrangement {
    /// On the forwarder's core, as all it does: what it costs, in one place.
    #[value(name = "1core")]
    OneCore,
    /// On the sender's core, as if a NIC put the packets where they are needed: only the process counts.
    Split,
}

impl Arrangement {
    /// As users call it.
    fn name(self) -> &'static str {
        match self {
            Self::OneCore => "1core",
            Self::Split => "split",
        }
    }
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

/// A peer between generator and sink.
pub struct Line<'t> {
    /// Who.
    pub peer: Peer,
    /// Where it stands.
    pub topology: &'t Topology,
    /// What forwards.
    pub node: Node<'t>,
    /// Who sends and receives.
    pub station: Station,
    /// Who answers, of what is not the generator's.
    pub remote: Remote,
    ends: Ends,
    sinks: [Sink; 2],
    receivers: Vec<(Side, Receivers)>,
    next_flow: u32,
    /// The datastore.
    pub etcd: Etcd<'t>,
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
        // Room at the interfaces for frames that no socket has made.
        host.ns.run(&["ethtool", "-K", "eth0", "gro", "on"])?;
        let (node, station, ends) = Node::up(topology, &etcd, peer)?;
        host.ns.run(&["ethtool", "-K", &station.interface, "gro", "on"])?;
        let outer_mac = mac_text(ends.remote_underlay_mac);
        for (address, mac, device) in
            [(REMOTE_VTEP, &outer_mac, "eth0"), (station.v4, &station.mac, &station.interface)]
        {
            host.ns.ip(&format!("neigh replace {address} lladdr {mac} dev {device} nud permanent"))?;
        }
        let sinks = [
            Sink::attach(&topology.switch, "h0", Direction::Encap, &ends)?,
            Sink::attach(&station.ns, "eth0", Direction::Decap, &ends)?,
        ];
        let receivers = vec![
            (Side::Inner, Receivers::new("eth0")),
            (Side::Inner, Receivers::new(&station.interface)),
            (Side::Outer, Receivers::new("h0")),
            (Side::Outer, Receivers::new("eth0")),
        ];
        let remote = Remote::up(topology, peer, &station, &ends)?;
        let peer = peer.clone();
        let next_flow = 1 << 20;
        let mut line =
            Self { peer, topology, node, station, ends, sinks, receivers, remote, next_flow, etcd };
        line.wait_forwarding()?;
        line.node.set_awake(false)?;
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

    /// What has come out so far.
    pub fn count(&self, direction: Direction) -> Result<Count> {
        self.sinks[usize::from(direction == Direction::Decap)].count()
    }

    /// Starts sending; what comes out is counted.
    pub fn start(&self, stream: &Stream) -> Result<Generator> {
        match stream.direction {
            Direction::Encap => Generator::start(&self.station.ns, "eth0", stream, &self.ends),
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

    /// What is to be measured: each arrangement, and what is seen in it by name. With the kernel, all of which runs on one core,
    /// there is one.
    pub fn arrangements(&self, plan: &Plan) -> Vec<(Arrangement, String)> {
        if self.peer.is_kernel() {
            return vec![(Arrangement::OneCore, self.peer.to_string())];
        }
        let named = |of: &Arrangement| (*of, format!("{}@{}", self.peer, of.name()));
        plan.arrangements.iter().map(named).collect()
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
        self.node.set_awake(false)?;
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
        let places: [&Netns; 4] = [host, host, &self.topology.switch, &self.station.ns];
        let mut all = places.into_iter().zip(&mut self.receivers);
        all.try_for_each(|(ns, (side, receivers))| work(ns, *side, receivers))
    }
}

impl Site for Line<'_> {
    fn measure(&mut self, scenario: Scenario, plan: &Plan, samples: &mut Samples) -> Result<()> {
        self.node.set_awake(true)?;
        let measured = match (scenario, scenario.traffic()) {
            (Scenario::NewFlows, _) => newflows::measure(self, plan, samples),
            (Scenario::RttNode, _) => round_trip::measure(self, scenario, None, plan, samples),
            (Scenario::RttNodeLoad, _) => round_trip::measure(self, scenario, Some(LOAD), plan, samples),
            (Scenario::Restart, _) => restart::measure(self, samples),
            (Scenario::Overload, _) => overload::measure(self, plan, samples),
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

/// Where everything is, with a node whose inner MAC address is `vtep_mac`.
fn ends(topology: &Topology, station: &Station, vtep_mac: [u8; 6]) -> Result<Ends> {
    let host = &topology.hosts[0];
    Ok(Ends {
        pod: station.v4,
        pod_mac: mac(&station.mac),
        router_mac: mac(station.router_mac),
        remote_pod: REMOTE_POD,
        vtep: host.v4,
        underlay_mac: mac(&host.mac()),
        vtep_mac,
        remote_vtep: REMOTE_VTEP,
        remote_underlay_mac: node::switch_mac(topology)?,
        remote_vtep_mac: mac(REMOTE_MAC),
    })
}
