//! Two nodes of the peer with a pod on each: what users have, end to end.

use crate::packets::generator::{Generator, Stream};
use crate::packets::sink::Sink;
use crate::packets::{Direction, Ends};
use crate::peer::{Forwarder, Peer};
use crate::report::Samples;
use crate::rules::{Policies, calico, iptables, nftables};
use crate::scenario::{Scenario, idle, memory, start, stream};
use crate::site::{Plan, Site};
use anyhow::{Context, Result};
use netns_tests::frames::mac;
use netns_tests::overlay::wait_reachable;
use netns_tests::plan::GATEWAY_MAC;
use netns_tests::pod::NAMESPACE;
use netns_tests::traffic::{Flows, rtt, udp::Echo};
use netns_tests::{CanalOptions, DirStore, Network, Overlay, Role, Store, Topology, wait};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The echo server's first port; many flows need several.
pub const ECHO_PORT: u16 = 7002;
/// Flows of the memory scenario.
pub const FLOWS: usize = 1_000_000;
/// Pause between probes: the path is idle, and not asleep.
pub const GAP: Duration = Duration::from_micros(200);
/// Packets a second beside the probes.
pub const LOAD: f64 = 100_000.0;
/// How many flows they belong to.
pub const LOAD_FLOWS: u32 = 100;
/// Probes of a measurement.
pub const PROBES: usize = 5_000;

/// The two nodes. No server runs beside them: desired state is in a directory.
pub struct Pair<'t> {
    /// The nodes and pods.
    pub overlay: Overlay<'t, DirStore>,
    /// Who.
    pub peer: Peer,
    /// The datastore's directory.
    pub data: PathBuf,
    _echoes: Vec<Echo>,
}

impl<'t> Pair<'t> {
    /// Sets `peer` up on a topology of two hosts, and waits until the pods reach each other.
    pub fn up(topology: &'t Topology, peer: &Peer, plan: &Plan) -> Result<Self> {
        let data = topology.evidence.dir("data")?;
        let store = DirStore::new(&data)?;
        // Room for thousands of nodes beside the two.
        let config = json!({"Network": "10.0.0.0/8", "SubnetMin": "10.244.1.0"});
        let network = Network { config, ..Network::default() };
        let role = || match &peer.forwarder {
            Forwarder::Canal(port) => Ok(Role::Canal(options(port, plan)?)),
            _ => anyhow::Ok(Role::Kernel),
        };
        let overlay = Overlay::on(topology, store, &network, &[role()?, role()?])?;
        let pair = Self { overlay, peer: peer.clone(), data, _echoes: Vec::new() };
        if let Some(count) = peer.policies {
            pair.enforce(count)?;
        }
        let (here, there) = (pair.overlay.pod(0), pair.overlay.pod(1));
        wait_reachable(here, there.v4.into())?;
        wait_reachable(there, here.v4.into())?;
        let ports = (ECHO_PORT..).take(Flows::ports_for(FLOWS));
        let echoes =
            ports.map(|port| Echo::start_at(&there.ns, (there.v4, port).into())).collect::<Result<_>>()?;
        Ok(Self { _echoes: echoes, ..pair })
    }

    fn enforce(&self, count: usize) -> Result<()> {
        let pods: Vec<Ipv4Addr> = [0, 1].map(|host| self.overlay.pod(host).v4).to_vec();
        let policies = Policies::new(count, pods);
        for host in [0, 1] {
            let (ns, pod) = (&self.overlay.host(host).ns, self.overlay.pod(host));
            match self.peer.forwarder {
                Forwarder::Iptables => iptables::install(ns, &pod.interface, &policies)?,
                Forwarder::Nftables => nftables::install(ns, &pod.interface, &policies)?,
                Forwarder::Canal(_) => {
                    let endpoint = netns_tests::calico::endpoint(pod, &[calico::LABEL], &[]);
                    self.overlay.store.put_workload(NAMESPACE, &pod.endpoint_name(), &endpoint)?;
                }
                Forwarder::Kernel | Forwarder::Gateway | Forwarder::Bound | Forwarder::OpenVSwitch => {}
            }
        }
        if matches!(self.peer.forwarder, Forwarder::Canal(_)) {
            for (n, resource) in calico::resources(&policies).iter().enumerate() {
                self.overlay.store.put_resource(&format!("policy.{n:05}"), &resource.value())?;
            }
        }
        for canal in self.overlay.canals.iter().flatten() {
            // A rule for each direction of each policy.
            wait::until("all policies in force", wait::SOON, || {
                Ok(canal.show("policies")?.as_array().context("a list")?.len() >= 2 * count)
            })?;
        }
        Ok(())
    }

    /// The first echo server.
    pub fn echo(&self) -> SocketAddr {
        (self.overlay.pod(1).v4, ECHO_PORT).into()
    }

    fn rtt(&self, scenario: Scenario, plan: &Plan, samples: &mut Samples) -> Result<()> {
        let (to, count) = (self.echo(), plan.scale(PROBES, 200));
        let trips = self.overlay.pod(0).ns.enter(move || rtt::probe(to, count, GAP))?;
        add_trips(&trips, &self.peer.to_string(), scenario.name(), samples)
    }

    /// Round trips beside packets that go the same way, and that are taken away where they arrive.
    fn rtt_under_load(&self, plan: &Plan, samples: &mut Samples) -> Result<()> {
        let (here, there) = (self.overlay.pod(0), self.overlay.pod(1));
        let host = self.overlay.host(0);
        let ends = Ends {
            pod: here.v4,
            pod_mac: mac(&here.mac),
            router_mac: mac(GATEWAY_MAC),
            remote_pod: there.v4,
            vtep: host.v4,
            underlay_mac: mac(&host.mac()),
            vtep_mac: [0; 6],
            remote_vtep: self.overlay.host(1).v4,
            remote_underlay_mac: [0; 6],
            remote_vtep_mac: [0; 6],
        };
        // The same for every peer: with it an interface takes frames that no socket has made.
        host.ns.run(&["ethtool", "-K", &here.interface, "gro", "on"])?;
        let plain = Sink::attach(
            &there.ns,
            "eth0",
            Direction::Decap,
            &Ends { pod: there.v4, remote_pod: here.v4, ..ends },
        )?;
        let stream = Stream { flows: LOAD_FLOWS, rate: Some(LOAD), ..Stream::new(Direction::Encap, 64) };
        let generator = Generator::start(&here.ns, "eth0", &stream, &ends)?;
        std::thread::sleep(Duration::from_millis(300));
        let (begin, before, sent) = (Instant::now(), plain.count()?, generator.sent()?);
        self.rtt(Scenario::RttLoad, plan, samples)?;
        let (after, sent_after) = (plain.count()?, generator.sent()?);
        let seconds = begin.elapsed().as_secs_f64();
        let name = self.peer.to_string();
        samples.add(&name, "rtt-load", "offered_pps", (sent_after - sent) as f64 / seconds);
        samples.add(&name, "rtt-load", "pps", (after.good - before.good) as f64 / seconds);
        Ok(())
    }
}

/// Notes the percentiles of round trips.
pub fn add_trips(trips: &rtt::RoundTrips, peer: &str, scenario: &str, samples: &mut Samples) -> Result<()> {
    for (metric, percent) in [("p50_us", 50.0), ("p99_us", 99.0), ("p99.9_us", 99.9)] {
        let trip = trips.percentile(percent).context("no round trip")?;
        samples.add(peer, scenario, metric, trip.as_nanos() as f64 / 1000.0);
    }
    if trips.lost > 0 {
        samples.add(peer, scenario, "lost", trips.lost as f64);
    }
    Ok(())
}

/// The daemon as it chooses, except that one pod may have all flows and none is forgotten while others are counted.
fn options(port: &str, plan: &Plan) -> Result<CanalOptions> {
    let cores = std::thread::available_parallelism()?.get();
    let flows = FLOWS.next_power_of_two().to_string();
    let extra = ["--flows-per-workload", &flows, "--flow-timeout", "udp=1200,udp-stream=1200"];
    Ok(CanalOptions {
        port: port.to_owned(),
        workers: plan.workers.unwrap_or(cores.min(4)),
        ..CanalOptions::with(&extra)
    })
}

impl Site for Pair<'_> {
    fn measure(&mut self, scenario: Scenario, plan: &Plan, samples: &mut Samples) -> Result<()> {
        match scenario {
            Scenario::Tcp1 => stream::measure(self, 1, plan, samples),
            Scenario::Tcp8 => stream::measure(self, 8, plan, samples),
            Scenario::Rtt => self.rtt(scenario, plan, samples),
            Scenario::RttLoad => self.rtt_under_load(plan, samples),
            Scenario::Memory => memory::measure(self, plan, samples),
            Scenario::Start => start::measure(self, samples),
            Scenario::Idle => idle::measure(self, plan, samples),
            other => unreachable!("{other} is measured elsewhere"),
        }
    }
}
