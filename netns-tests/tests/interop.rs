//! canal and the kernel's VXLAN device in one overlay: every kind of traffic, both directions, every form of the wire.

use anyhow::{Result, ensure};
use netns_tests::frames::read_vxlan;
use netns_tests::packet_socket::PacketSocket;
use netns_tests::traffic::{Ping, tcp};
use netns_tests::{CanalOptions, Network, Overlay, PeerOptions, Role, Shape, Topology, plan, wait};
use serde_json::json;

/// Replies cross two routers: the node of the sender and the node of the receiver.
const REMOTE_TTL: u8 = 62;

fn with_kernel(shape: &Shape, network: &Network, canal: Role) -> Result<()> {
    let topology = Topology::build(shape)?;
    let overlay = Overlay::start(&topology, network, &[canal, Role::Kernel])?;
    overlay.exchange(overlay.pod(0), overlay.pod(1), REMOTE_TTL)?;
    topology.pass()
}

#[test]
fn kernel_node_with_offloads() -> Result<()> {
    with_kernel(&Shape::hosts(2), &Network::default(), Role::canal())
}

#[test]
fn kernel_node_without_offloads() -> Result<()> {
    with_kernel(&Shape::hosts(2).offloads(false), &Network::default(), Role::canal())
}

#[test]
fn kernel_node_with_offloads_over_the_udp_port() -> Result<()> {
    with_kernel(&Shape::hosts(2), &Network::default(), Role::port("udp"))
}

#[test]
fn kernel_node_without_offloads_over_the_udp_port() -> Result<()> {
    with_kernel(&Shape::hosts(2).offloads(false), &Network::default(), Role::port("udp"))
}

#[test]
fn kernel_node_dual_stack_with_offloads() -> Result<()> {
    let network = Network { dual: true, ..Network::default() };
    with_kernel(&Shape::hosts(2), &network, Role::canal())
}

#[test]
fn kernel_node_dual_stack_without_offloads() -> Result<()> {
    let network = Network { dual: true, ..Network::default() };
    with_kernel(&Shape::hosts(2).offloads(false), &network, Role::canal())
}

#[test]
fn kernel_node_dual_stack_over_the_udp_port() -> Result<()> {
    let network = Network { dual: true, ..Network::default() };
    with_kernel(&Shape::hosts(2), &network, Role::port("udp"))
}

#[test]
fn kernel_node_with_another_port_and_vni() -> Result<()> {
    let network = Network {
        backend: json!({"VNI": 4711, "Port": 4789}),
        peers: PeerOptions { vni: 4711, port: 4789, ..PeerOptions::default() },
        ..Network::default()
    };
    with_kernel(&Shape::hosts(2), &network, Role::canal())
}

#[test]
fn kernel_node_that_sends_group_ids() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let network =
        Network { peers: PeerOptions { gbp: true, ..PeerOptions::default() }, ..Network::default() };
    let overlay = Overlay::start(&topology, &network, &[Role::canal(), Role::Kernel])?;
    let wire = PacketSocket::open(&topology.switch, "h1")?;
    // The node's own pings carry a mark, which its GBP device writes into the header.
    Ping::to(overlay.pod(0).v4).mark(0x1234).expect_all(&overlay.host(1).ns)?;
    let header = wire
        .expect("VXLAN packet", wait::SOON, |frame| read_vxlan(frame, plan::VXLAN_PORT).map(|(_, h, _)| h))?;
    ensure!(header[..4] == [0x88, 0, 0x12, 0x34], "the peer did send a group id: {header:02x?}");
    overlay.exchange(overlay.pod(0), overlay.pod(1), REMOTE_TTL)?;
    topology.pass()
}

#[test]
fn kernel_node_that_routes_directly_is_understood() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::Kernel])?;
    // The peer now sends plain pod packets on the underlay; canal goes on encapsulating.
    overlay.kernel(1).route_directly(overlay.subnets(0)?.v4, overlay.host(0).v4)?;
    Ping::to(overlay.pod(0).v4).expect_all(&overlay.pod(1).ns)?;
    tcp::transfer(&overlay.pod(1).ns, &overlay.pod(0).ns, overlay.pod(0).v4.into(), 4_000_000)?;
    topology.pass()
}

fn canal_pair(a: Role, b: Role, shape: &Shape, dual: bool) -> Result<()> {
    let topology = Topology::build(shape)?;
    let network = Network { dual, ..Network::default() };
    let overlay = Overlay::start(&topology, &network, &[a, b])?;
    overlay.exchange(overlay.pod(0), overlay.pod(1), REMOTE_TTL)?;
    topology.pass()
}

#[test]
fn canal_and_canal() -> Result<()> {
    canal_pair(Role::canal(), Role::canal(), &Shape::hosts(2), true)
}

#[test]
fn canal_and_canal_without_offloads() -> Result<()> {
    canal_pair(Role::canal(), Role::canal(), &Shape::hosts(2).offloads(false), true)
}

#[test]
fn canal_and_canal_over_udp_ports() -> Result<()> {
    canal_pair(Role::port("udp"), Role::port("udp"), &Shape::hosts(2), false)
}

#[test]
fn canal_tap_and_canal_udp() -> Result<()> {
    canal_pair(Role::port("tap"), Role::port("udp"), &Shape::hosts(2), false)
}

#[test]
fn canal_with_two_workers() -> Result<()> {
    let two = Role::Canal(CanalOptions { workers: 2, ..CanalOptions::default() });
    canal_pair(two.clone(), two, &Shape::hosts(2), false)
}

#[test]
fn two_canals_and_a_kernel_node_mesh() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(3))?;
    let roles = [Role::canal(), Role::canal(), Role::Kernel];
    let overlay = Overlay::start(&topology, &Network::default(), &roles)?;
    for (a, b) in [(0, 1), (1, 2), (2, 0)] {
        overlay.exchange(overlay.pod(a), overlay.pod(b), REMOTE_TTL)?;
    }
    topology.pass()
}

#[test]
fn canal_with_direct_routing_does_not_encapsulate_in_one_segment() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let network = Network { backend: json!({"DirectRouting": true}), ..Network::default() };
    let overlay = Overlay::start(&topology, &network, &[Role::canal(), Role::canal()])?;
    let wire = PacketSocket::open(&topology.switch, "h0")?;
    overlay.exchange(overlay.pod(0), overlay.pod(1), REMOTE_TTL)?;
    let encapsulated =
        wire.collect(std::time::Duration::from_millis(200), |f| read_vxlan(f, plan::VXLAN_PORT))?;
    ensure!(encapsulated.is_empty(), "{} packets were encapsulated", encapsulated.len());
    topology.pass()
}

#[test]
fn host_gw_between_two_canals() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let network = Network { backend: json!({"Type": "host-gw"}), ..Network::default() };
    let overlay = Overlay::start(&topology, &network, &[Role::canal(), Role::canal()])?;
    let lease = overlay.canal(0).lease(&overlay.store)?;
    ensure!(lease.backend.as_deref() == Some("host-gw") && lease.mac_v4.is_none(), "{lease:?}");
    overlay.exchange(overlay.pod(0), overlay.pod(1), REMOTE_TTL)?;
    topology.pass()
}
