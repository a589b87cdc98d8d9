//! Connections: who may open one, what belongs to it, and what a change of policy or of workloads does to it.

mod errors;
mod judged;
mod life;
mod pieces;
mod room;
mod told;

use canal_dataplane::flow::FlowInfo;
use canal_dataplane::offload::Caps;
use canal_dataplane::port::Ingress;
use canal_dataplane::testing::packets::{self, Ip};
use canal_dataplane::testing::world::{self, PICKUP_MS, World, from_node, from_pod, pod};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIN: u8 = 0x01;
const RST: u8 = 0x04;

/// Our pod 1.
const POD1: Ingress = Ingress::Workload(101);
/// Our pod 2.
const POD2: Ingress = Ingress::Workload(102);

/// A node that has been up for so long that connections from before its start are of no interest.
fn strict() -> World {
    let mut world = World::new(&world::spec(3), Caps::NONE);
    world.settle();
    world.wait(PICKUP_MS);
    world
}

/// A TCP segment from our pod 1, port 1000, to port 80 of node 2's pod 7; or the other way.
fn segment(v6: bool, back: bool, flags: u8) -> (Ingress, Vec<u8>) {
    let (own, other) = ((pod(1, 1, v6), 1000), (pod(2, 7, v6), 80));
    if back {
        from_remote(&packets::tcp(other, own, flags, 8))
    } else {
        from_own(&packets::tcp(own, other, flags, 8))
    }
}

fn from_own(packet: &Ip) -> (Ingress, Vec<u8>) {
    (POD1, from_pod(1, packet))
}

fn from_remote(packet: &Ip) -> (Ingress, Vec<u8>) {
    (Ingress::Underlay, from_node(2, packet.source.is_ipv6(), packet))
}

/// Opens the connection of [`segment`].
fn open(world: &mut World, v6: bool) {
    for (back, flags) in [(false, SYN), (true, SYN | ACK), (false, ACK)] {
        let (ingress, packet) = segment(v6, back, flags);
        assert!(world.one(ingress, packet).is_some(), "{flags:#x}");
    }
}

/// The only connection.
fn only(world: &World) -> FlowInfo {
    let mut flows = world.flows();
    assert_eq!(flows.len(), 1, "{flows:?}");
    flows.remove(0)
}
