//! What the benches share: a worker in memory, the tables it reads, the packets it is fed, and how its time is taken.
// Every bench uses a part of it.
#![allow(dead_code)]

#[path = "../../dataplane/tests/counting/mod.rs"]
mod counting;

use std::cell::RefCell;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use canal_dataplane::counters::Counters;
use canal_dataplane::flow::Quota;
use canal_dataplane::frame::FramePool;
use canal_dataplane::limits::{BATCH, SMALL_FRAME_BUFFER};
use canal_dataplane::net::{FlowKey, Vni};
use canal_dataplane::offload::{Caps, Offload};
use canal_dataplane::port::mem::MemPort;
use canal_dataplane::port::{Ingress, Outgoing, Received};
use canal_dataplane::reply::GATEWAY_MAC;
use canal_dataplane::stage::output::OutputCaps;
use canal_dataplane::tables::Tables;
use canal_dataplane::testing::packets::{self, Ip};
use canal_dataplane::testing::world;
use canal_dataplane::trace::{NoTrace, Trace};
use canal_dataplane::worker::{Ports, Worker, WorkerConfig};

pub const CAPS: OutputCaps =
    OutputCaps { access: Caps::ALL, underlay: Caps::ALL, gateways_by_underlay: false };

/// Connections that are opened before all of them are forgotten.
pub const ROUND: u32 = 32_768;

/// One direction of traffic: a template packet and how to turn it into that of flow `i`.
#[derive(Clone)]
pub struct Traffic {
    ingress: Ingress,
    template: Vec<u8>,
    /// Where the ports of the inner UDP header stand, right behind its addresses.
    ports: usize,
    /// Source and destination port change places.
    back: bool,
}

impl Traffic {
    /// From our pod 1 to a pod of another node: 64 bytes on the wire, 14 + 20 + 8 + 18, and 4 of frame check sequence.
    pub fn encap() -> Self {
        Self::from_pod(world::pod(7, 9, false))
    }

    /// From our pod 1 to our pod 2, of the same size.
    pub fn local() -> Self {
        Self::from_pod(world::pod(1, 2, false))
    }

    fn from_pod(to: IpAddr) -> Self {
        Self::of_pod(&packets::udp((world::pod(1, 1, false), 0), (to, 0), 18))
    }

    fn of_pod(packet: &Ip) -> Self {
        let template = packet.frame(GATEWAY_MAC, world::pod_mac(1));
        Self { ingress: Ingress::Workload(101), template, ports: 34, back: false }
    }

    /// As [`Self::encap`], the first piece of a datagram. All are of one datagram, whatever their ports.
    pub fn piece() -> Self {
        let packet = packets::udp((world::pod(1, 1, false), 0), (world::pod(7, 9, false), 0), 16);
        Self::of_pod(&Ip { fragment: (true, 0), ..packet })
    }

    /// As [`Self::encap`], of 1,500 bytes that may be cut: two pieces fit the tunnel.
    pub fn large() -> Self {
        let packet = packets::udp((world::pod(1, 1, false), 0), (world::pod(7, 9, false), 0), 1472);
        Self::of_pod(&packet)
    }

    /// Our pod 1 asks who has its gateway's address.
    pub fn question() -> Self {
        let mac = world::pod_mac(1).0;
        let IpAddr::V4(pod) = world::pod(1, 1, false) else { unreachable!("of IPv4") };
        let mut template = [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac].concat();
        template.extend([&pod.octets()[..], &[0; 6], &[169, 254, 1, 1]].concat());
        // The ports go into the padding that every frame of this length has.
        template.resize(60, 0);
        Self { ingress: Ingress::Workload(101), template, ports: 44, back: false }
    }

    /// From a pod of another node to our pod 1; the inner packet is of the same size.
    pub fn decap() -> Self {
        let packet = packets::udp((world::pod(7, 9, false), 0), (world::pod(1, 1, false), 0), 18);
        let inner = packet.frame(world::OUR_MAC, world::mac(7, false));
        let outer = (world::outer(7, false), world::our_outer(false));
        let template = packets::encapsulated(outer, 8472, Vni::FLANNEL, 0, &inner);
        Self { ingress: Ingress::Underlay, template, ports: 84, back: false }
    }

    /// What answers [`Self::encap`].
    pub fn answers() -> Self {
        Self { back: true, ..Self::decap() }
    }
}

impl Traffic {
    /// How many packets leave for one that comes.
    fn pieces(&self) -> usize {
        if self.template.len() > 1464 { 2 } else { 1 }
    }

    /// The connection of the packet with these ports.
    fn key(&self, ports: u32) -> FlowKey {
        let address = |at: usize| {
            let bytes = self.template[at..].first_chunk().expect("inside of the header");
            u32::from_be_bytes(*bytes)
        };
        let ends = (address(self.ports - 8), address(self.ports - 4));
        FlowKey::v4(ends.0, ends.1, ((ports >> 16) as u16, ports as u16), 17, false).0
    }
}

/// A worker that is fed packets of a number of flows, a batch at a time.
pub struct Rig {
    pub worker: Worker,
    pub tables: Arc<Tables>,
    pub now_ms: u64,
    traffic: Traffic,
    flows: u32,
    /// Which worker of how many this is.
    member: (u32, u32),
    batch: usize,
    pool: FramePool,
    received: Vec<Received>,
    sent: Vec<Outgoing>,
    next: u32,
    /// Connections opened since they were last forgotten.
    opened: usize,
    /// How often the stages have asked for memory, and for how many packets.
    allocations: (u64, u64),
}

impl Rig {
    /// One that has seen no packet yet; its table has room for `capacity` connections, all of which one sender may have.
    pub fn new(tables: Arc<Tables>, traffic: &Traffic, flows: u32, capacity: usize) -> Self {
        Self::member(tables, traffic, flows, capacity, (0, 1))
    }

    /// As [`Self::new`], a worker of several: which one of how many. It gets the flows that it owns.
    fn member(
        tables: Arc<Tables>,
        traffic: &Traffic,
        flows: u32,
        capacity: usize,
        member: (u32, u32),
    ) -> Self {
        let flow_capacity = capacity.max(4096);
        let flow_quota = Quota { workload: flow_capacity, node: flow_capacity };
        let (index, workers) = member;
        let config =
            WorkerConfig { index, workers, flow_capacity, flow_quota, frames: BATCH, ..world::config(1000) };
        Self {
            worker: Worker::new(config, Arc::new(Counters::default())),
            tables,
            now_ms: 1000,
            traffic: traffic.clone(),
            flows,
            member,
            batch: BATCH,
            pool: FramePool::new(BATCH, SMALL_FRAME_BUFFER),
            received: Vec::with_capacity(BATCH),
            sent: Vec::with_capacity(2 * BATCH),
            next: 0,
            opened: ROUND as usize,
            allocations: (0, 0),
        }
    }

    /// One whose flows are all established.
    pub fn warm(tables: Arc<Tables>, traffic: &Traffic, flows: u32) -> Self {
        Self::warm_member(tables, traffic, flows, (0, 1))
    }

    /// As [`Self::warm`], a worker of several: which one of how many, so that of `flows` flows it has its share.
    pub fn warm_member(tables: Arc<Tables>, traffic: &Traffic, flows: u32, member: (u32, u32)) -> Self {
        let mut rig = Self::member(tables, traffic, flows, flows as usize, member);
        for _ in 0..(2 * flows as usize).div_ceil(BATCH) + 2 {
            rig.run(&mut NoTrace);
        }
        rig.allocations = (0, 0);
        rig
    }

    /// One whose packets each open a connection, and that remembers the decisions of policy that it needs for that.
    pub fn opening(tables: Arc<Tables>, traffic: &Traffic) -> Self {
        let mut rig = Self::new(tables, traffic, ROUND, 8 * ROUND as usize);
        rig.open(2 * u64::from(ROUND), &mut NoTrace);
        rig.allocations = (0, 0);
        rig
    }

    /// One whose flows have all been answered, too.
    pub fn answered(tables: Arc<Tables>, flows: u32) -> Self {
        let mut rig = Self::warm(tables, &Traffic::encap(), flows);
        rig.traffic = Traffic::answers();
        for _ in 0..(2 * flows as usize).div_ceil(BATCH) {
            rig.run(&mut NoTrace);
        }
        rig.traffic = Traffic::encap();
        rig
    }

    /// From now on batches are of this many packets.
    pub fn in_batches_of(mut self, packets: usize) -> Self {
        self.batch = packets;
        self
    }

    /// How many packets a batch has.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// One batch of the next flows, all of which are let pass; returns the time that the stages took.
    pub fn run<T: Timed>(&mut self, trace: &mut T) -> Duration {
        for _ in 0..self.batch {
            let mut frame = self.pool.take().expect("every frame came back");
            let ports = self.next_ports();
            assert!(frame.fill(&self.traffic.template));
            frame.data_mut()[self.traffic.ports..self.traffic.ports + 4]
                .copy_from_slice(&ports.to_be_bytes());
            self.received.push(Received { frame, offload: Offload::NONE, ingress: self.traffic.ingress });
        }
        // The stores that made the packets are not the pipeline's to wait for; its own are (second fence).
        let asked = counting::calls();
        fence(Ordering::SeqCst);
        let start = Instant::now();
        trace.begin(start);
        self.worker.process(&mut self.received, false, &self.tables, self.now_ms, CAPS, trace);
        fence(Ordering::SeqCst);
        let end = Instant::now();
        trace.end(end);
        self.allocations.0 += counting::calls() - asked;
        self.allocations.1 += self.batch as u64;
        let outputs = self.worker.outputs();
        self.sent.extend(outputs.access.drain(..).chain(outputs.underlay.drain(..)));
        assert_eq!(self.sent.len(), self.batch * self.traffic.pieces(), "everything passes here");
        for (at, sent) in self.sent.drain(..).enumerate() {
            // What is more than came in has been the worker's own.
            let pool = if at < self.batch { &mut self.pool } else { self.worker.pool() };
            pool.give(black_box(sent).frame);
        }
        end - start
    }

    /// The ports of the next flow that this worker owns.
    fn next_ports(&mut self) -> u32 {
        loop {
            // A stride that visits all flows and never the neighbour of the last one.
            self.next = (self.next + 7919) % self.flows;
            // Destination ports from 0x8000 on, never VXLAN's; the UDP checksum of the template is not looked at.
            let ports = (0x0400 + (self.next >> 14)) << 16 | 0x8000 | self.next & 0x3fff;
            let ports: u32 = if self.traffic.back { ports.rotate_left(16) } else { ports };
            let (index, workers) = self.member;
            if workers == 1 || self.traffic.key(ports).owner(world::SEED, workers) == index {
                return ports;
            }
        }
    }

    /// Opens connections; returns how long the stages took for each of `packets`, times `packets`.
    pub fn open<T: Timed>(&mut self, packets: u64, trace: &mut T) -> Duration {
        let batches = packets.div_ceil(self.batch as u64);
        let taken = (0..batches).map(|_| self.open_batch(trace)).sum();
        scaled(taken, packets, self.batch)
    }

    /// Opens a batch of connections; when all have been opened, they are forgotten first.
    pub fn open_batch<T: Timed>(&mut self, trace: &mut T) -> Duration {
        if self.opened + self.batch > ROUND as usize {
            self.forget();
            self.opened = 0;
        }
        self.opened += self.batch;
        self.run(trace)
    }

    /// Opens connections while as many older ones expire; with the time that their expiry takes.
    pub fn turn_over(&mut self, packets: u64) -> Duration {
        let mut taken = Duration::ZERO;
        for _ in 0..packets.div_ceil(self.batch as u64) {
            // 30 seconds unanswered are some 30,000 connections.
            self.now_ms += 64;
            taken += self.run(&mut NoTrace);
            let start = Instant::now();
            self.poll();
            taken += start.elapsed();
        }
        scaled(taken, packets, self.batch)
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.worker.flows(usize::MAX, &self.tables, self.now_ms).len()
    }

    /// Says how often memory was asked for; never, once all is warm.
    pub fn report(&self, what: &str) {
        let (calls, packets) = self.allocations;
        println!("{what}: {calls} allocations in {packets} packets");
        assert_eq!(calls, 0, "{what}");
    }

    fn forget(&mut self) {
        self.now_ms += 100_000;
        while !self.worker.flows(1, &self.tables, self.now_ms).is_empty() {
            self.poll();
        }
    }

    /// A turn without packets.
    fn poll(&mut self) {
        let mut port = MemPort::new(Caps::ALL);
        let mut ports = Ports { access: &mut port, underlay: None };
        self.worker.poll(&self.tables, self.now_ms, &mut ports, &mut Vec::new());
    }
}

/// A trace that is told when a batch begins and ends.
pub trait Timed: Trace {
    fn begin(&mut self, _: Instant) {}
    fn end(&mut self, _: Instant) {}
}

impl Timed for NoTrace {}

/// The time that `packets` packets take in whole batches.
pub fn time(rig: &RefCell<Rig>, packets: u64) -> Duration {
    let mut rig = rig.borrow_mut();
    let batches = packets.div_ceil(rig.batch as u64);
    let taken = (0..batches).map(|_| rig.run(&mut NoTrace)).sum();
    scaled(taken, packets, rig.batch)
}

/// Of whole batches, the part that `packets` packets took.
pub fn scaled(taken: Duration, packets: u64, batch: usize) -> Duration {
    let batches = packets.div_ceil(batch as u64);
    taken.mul_f64(packets as f64 / (batches * batch as u64) as f64)
}
