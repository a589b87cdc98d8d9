//! A small network, and one worker of one node in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::counters::Counters;
use crate::flow::{FlowInfo, Quota};
use crate::frame::FramePool;
use crate::limits::SMALL_FRAME_BUFFER;
use crate::net::{HashSeed, Mac, Vni};
use crate::offload::{Caps, Offload};
use crate::port::mem::{MemPort, Sent};
use crate::port::{Ingress, Port};
use crate::reply::GATEWAY_MAC;
use crate::spec::policy::EndpointPolicy;
use crate::spec::{Endpoint, Gateway, Hop, LocalVtep, NodeSpec, Route, Settings, Via, Vtep, Vxlan};
use crate::tables::{self, Tables};
use crate::testing::packets::{self, Ip};
use crate::verdict::DropReason;
use crate::worker::{Ports, Worker, WorkerConfig};

/// Inner address of our VTEP over IPv4.
pub const OUR_MAC: Mac = Mac([0x02, 0, 0, 0, 0x0f, 0x01]);
/// Inner address of our VTEP over IPv6.
pub const OUR_MAC6: Mac = Mac([0x02, 0, 0, 0, 0x0f, 0x06]);
/// Flow hash keys.
pub const SEED: HashSeed = HashSeed(0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344);

/// Our underlay address.
pub fn our_outer(v6: bool) -> IpAddr {
    if v6 {
        "fd50::1".parse().unwrap_or(IpAddr::V6(Ipv6Addr::LOCALHOST))
    } else {
        Ipv4Addr::new(192, 168, 50, 1).into()
    }
}

/// Node `n`'s underlay address (n from 2 on; we are 1).
pub fn outer(n: u16, v6: bool) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    if v6 {
        Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, n).into()
    } else {
        Ipv4Addr::new(192, 168, 50 + high, low).into()
    }
}

/// Node `n`'s inner Ethernet address.
pub fn mac(n: u16, v6: bool) -> Mac {
    let [high, low] = n.to_be_bytes();
    Mac([0x02, 0, u8::from(v6), 0, high, low])
}

/// Node `n`'s pod number `i`.
pub fn pod(n: u16, i: u8, v6: bool) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    if v6 {
        Ipv6Addr::new(0xfd10, 5, 0, n, 0, 0, 0, u16::from(i)).into()
    } else {
        Ipv4Addr::new(10, high, low, i).into()
    }
}

/// Node `n`'s subnet.
pub fn subnet(n: u16, v6: bool) -> IpNetwork {
    network(pod(n, 0, v6), if v6 { 64 } else { 24 })
}

fn network(address: IpAddr, len: u8) -> IpNetwork {
    IpNetwork::new(address, len).unwrap_or_else(|_| IpNetwork::from(address))
}

/// Host-side interface of our pod `i`.
pub fn ifindex(i: u8) -> u32 {
    100 + u32::from(i)
}

/// Ethernet address of our pod `i`.
pub fn pod_mac(i: u8) -> Mac {
    Mac([0x02, 0xff, 0, 0, 0, i])
}

/// Gateway interface `g` of ours.
pub fn gateway_ifindex(g: u8) -> u32 {
    50 + u32::from(g)
}

/// Its name.
pub fn gateway_name(g: u8) -> Arc<str> {
    format!("eth{g}").into()
}

/// Host `i` on the link of our gateway interface `g`; 1 is ourselves.
pub fn behind(g: u8, i: u8, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd72, 16, 0, g.into(), 0, 0, 0, i.into()).into()
    } else {
        Ipv4Addr::new(172, 16, g, i).into()
    }
}

/// The network of that link.
pub fn link(g: u8, v6: bool) -> IpNetwork {
    network(behind(g, 0, v6), if v6 { 64 } else { 24 })
}

/// Gateway interface `g` with its link behind it.
pub fn gateway(g: u8, mtu: u16) -> Gateway {
    let (IpAddr::V4(v4), IpAddr::V6(v6)) = (behind(g, 1, false), behind(g, 1, true)) else {
        unreachable!("families")
    };
    Gateway {
        name: gateway_name(g),
        ifindex: Some(gateway_ifindex(g)),
        mtu,
        address_v4: Some(v4),
        address_v6: Some(v6),
        sources: vec![link(g, false), link(g, true)],
    }
}

/// The way to hosts on the link of gateway interface `g`, or (`router`) by a router there.
pub fn hop(g: u8, router: Option<IpAddr>) -> Hop {
    Hop { interface: gateway_name(g), next_hop: router, weight: NonZeroU16::MIN }
}

/// A dual-stack node 1 with pods 1 and 2 and `nodes - 1` remote nodes, an underlay MTU of 1500 in both families.
pub fn spec(nodes: u16) -> NodeSpec {
    let (IpAddr::V4(v4), IpAddr::V6(v6)) = (our_outer(false), our_outer(true)) else {
        unreachable!("families")
    };
    let mut spec = NodeSpec {
        revision: 1,
        settings: Settings::default(),
        vxlan: Some(Vxlan {
            vni: Vni::FLANNEL,
            port: 8472,
            v4: Some(LocalVtep { address: v4, mac: OUR_MAC, mtu: 1450 }),
            v6: Some(LocalVtep { address: v6, mac: OUR_MAC6, mtu: 1430 }),
        }),
        host_addresses: vec![pod(1, 0, false), pod(1, 0, true), our_outer(false), our_outer(true)],
        ..NodeSpec::default()
    };
    if let (IpAddr::V4(a), IpAddr::V6(b)) = (pod(1, 0, false), pod(1, 0, true)) {
        (spec.gateway_v4, spec.gateway_v6) = (Some(a), Some(b));
    }
    for i in 1..=2 {
        spec.endpoints.push(Endpoint {
            name: format!("default/pod-{i}"),
            interface: format!("cali{i}"),
            ifindex: Some(ifindex(i)),
            mac: Some(pod_mac(i)),
            networks: vec![IpNetwork::from(pod(1, i, false)), IpNetwork::from(pod(1, i, true))],
            mtu: 1450,
            policy: EndpointPolicy::allow_all(),
        });
    }
    for v6 in [false, true] {
        spec.routes.push(Route { prefix: subnet(1, v6), via: Via::Drop(DropReason::UnassignedAddress) });
        for n in 2..=nodes {
            let owns = vec![subnet(n, v6), IpNetwork::from(outer(n, v6))];
            spec.direct_sources.extend(&owns);
            for prefix in &owns {
                spec.routes.push(Route { prefix: *prefix, via: Via::Vtep(outer(n, v6)) });
            }
            spec.vteps.push(Vtep { outer: outer(n, v6), mac: mac(n, v6), owns });
        }
    }
    spec
}

/// As [`spec`], but every remote node has one VTEP, over this family, and owns its subnets of both families.
pub fn spec_over(nodes: u16, outer_v6: bool) -> NodeSpec {
    let mut spec = spec(nodes);
    spec.vteps.clear();
    spec.routes.retain(|route| !matches!(route.via, Via::Vtep(_)));
    for n in 2..=nodes {
        let owns = vec![subnet(n, false), subnet(n, true), IpNetwork::from(outer(n, outer_v6))];
        let via = Via::Vtep(outer(n, outer_v6));
        spec.routes.extend(owns.iter().map(|prefix| Route { prefix: *prefix, via: via.clone() }));
        spec.vteps.push(Vtep { outer: outer(n, outer_v6), mac: mac(n, outer_v6), owns });
    }
    spec
}

/// A packet as our pod `i` puts it on its interface.
pub fn from_pod(i: u8, packet: &Ip) -> Vec<u8> {
    packet.frame(GATEWAY_MAC, pod_mac(i))
}

/// The Ethernet frame that node `n` sends us inside the tunnel over this family.
pub fn inner_frame(n: u16, outer_v6: bool, packet: &Ip) -> Vec<u8> {
    packet.frame(if outer_v6 { OUR_MAC6 } else { OUR_MAC }, mac(n, outer_v6))
}

/// A packet as node `n` sends it to us through the tunnel, congestion marks copied outward.
pub fn from_node(n: u16, outer_v6: bool, packet: &Ip) -> Vec<u8> {
    let inner = inner_frame(n, outer_v6, packet);
    let ends = (outer(n, outer_v6), our_outer(outer_v6));
    packets::encapsulated(ends, 8472, Vni::FLANNEL, packet.tos & 3, &inner)
}

/// One worker with its ports.
#[derive(Debug)]
pub struct World {
    /// Tables in force.
    pub tables: Tables,
    /// The worker.
    pub worker: Worker,
    /// Its port, for everything unless there is another.
    pub port: MemPort,
    /// Its port towards VTEPs, where that is another.
    pub underlay: Option<MemPort>,
    /// Its counters.
    pub counters: Arc<Counters>,
    /// Its clock.
    pub now_ms: u64,
    frames: usize,
}

/// For how long after its start the worker takes up connections in their middle, in milliseconds.
pub const PICKUP_MS: u64 = 60_000;

/// The one worker of a world, at its start.
pub fn config(now_ms: u64) -> WorkerConfig {
    let flow_capacity = 4096;
    WorkerConfig {
        index: 0,
        workers: 1,
        seed: SEED,
        flow_capacity,
        flow_quota: Quota::of(flow_capacity),
        pickup_ms: PICKUP_MS,
        frames: 512,
        frame_size: SMALL_FRAME_BUFFER,
        now_ms,
        clock_ns: || 0,
    }
}

impl World {
    /// A world over `spec`, whose port takes what `caps` says.
    pub fn new(spec: &NodeSpec, caps: Caps) -> Self {
        Self::with_frames(spec, caps, SMALL_FRAME_BUFFER)
    }

    /// As [`Self::new`], with frames of this size.
    pub fn with_frames(spec: &NodeSpec, caps: Caps, frame_size: usize) -> Self {
        let now_ms = 1000;
        Self::with_config(spec, caps, WorkerConfig { frame_size, ..config(now_ms) })
    }

    /// As [`Self::new`], with another worker.
    pub fn with_config(spec: &NodeSpec, caps: Caps, config: WorkerConfig) -> Self {
        let (counters, now_ms) = (Arc::new(Counters::default()), config.now_ms);
        Self {
            tables: tables::compile(spec, None, 1),
            worker: Worker::new(config, Arc::clone(&counters)),
            port: MemPort::new(caps),
            underlay: None,
            counters,
            now_ms,
            frames: config.frames,
        }
    }

    /// A new worker with closed tables; the frames are those of the old one.
    pub fn restart(&mut self) {
        let mut frames = Vec::new();
        while let Some(frame) = self.worker.pool().take() {
            frames.push(frame);
        }
        let frame_size = self.worker.pool().frame_size();
        self.frames = frames.len();
        self.counters = Arc::new(Counters::default());
        self.tables = Tables::closed();
        self.port = MemPort::new(self.port.caps());
        self.now_ms = 1000;
        let config = WorkerConfig { frames: 0, frame_size, ..config(self.now_ms) };
        self.worker = Worker::new(config, Arc::clone(&self.counters));
        *self.worker.pool() = FramePool::from_frames(frames, frame_size);
    }

    /// Puts a new spec in force.
    pub fn update(&mut self, spec: &NodeSpec) {
        self.tables = tables::compile(spec, Some(&self.tables), self.tables.generation + 1);
    }

    /// Lets the worker do what it does when no packets come, until it is done: old connections are forgotten, those of
    /// workloads that went are cut.
    pub fn settle(&mut self) {
        loop {
            let expired = self.counters.flows_expired.get();
            let sent = self.run([]);
            assert!(sent.is_empty(), "{sent:?} out of nothing");
            if self.counters.flows_expired.get() == expired && !self.worker.is_sweeping() {
                return;
            }
        }
    }

    /// Lets time pass.
    pub fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
        self.settle();
    }

    /// Its connections.
    pub fn flows(&self) -> Vec<FlowInfo> {
        self.worker.flows(usize::MAX, &self.tables, self.now_ms)
    }

    /// Sends packets through and returns what came out; asserts that no frame was lost on the way.
    pub fn run(&mut self, packets: impl IntoIterator<Item = (Ingress, Offload, Vec<u8>)>) -> Vec<Sent> {
        for (ingress, offload, packet) in packets {
            match &mut self.underlay {
                Some(underlay) if ingress == Ingress::Underlay => underlay.inject(ingress, offload, packet),
                _ => self.port.inject(ingress, offload, packet),
            }
        }
        let mut handover = Vec::new();
        let underlay = self.underlay.as_mut().map(|port| port as &mut dyn Port);
        let mut ports = Ports { access: &mut self.port, underlay };
        while self.worker.poll(&self.tables, self.now_ms, &mut ports, &mut handover) > 0 {}
        assert_eq!(self.worker.pool().available(), self.frames, "frames are conserved");
        let mut sent = self.port.take_sent();
        if let Some(underlay) = &mut self.underlay {
            sent.extend(underlay.take_sent());
        }
        sent
    }

    /// One finished packet in, at most one out.
    pub fn one(&mut self, ingress: Ingress, packet: Vec<u8>) -> Option<Sent> {
        let mut sent = self.run([(ingress, Offload::NONE, packet)]);
        assert!(sent.len() <= 1, "{sent:?}");
        sent.pop()
    }

    /// One finished packet in, and the reason why nothing came out.
    pub fn dropped(&mut self, ingress: Ingress, packet: Vec<u8>) -> Option<DropReason> {
        let before: Vec<u64> = DropReason::ALL.iter().map(|r| self.counters.drops(*r)).collect();
        let sent = self.one(ingress, packet);
        let reason =
            DropReason::ALL.iter().zip(before).find(|(r, n)| self.counters.drops(**r) != *n).map(|(r, _)| *r);
        assert!(sent.is_none() || reason.is_none(), "{reason:?} and yet {sent:?}");
        reason
    }
}
