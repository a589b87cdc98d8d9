//! What a VTEP owes the wire: MTU and its discovery, TTL, ECN, source ports, reserved bits, checksums.
//!
//! Where the kernel's own VXLAN node follows the same rule, the same test runs against it as well: a rule that the kernel
//! does not pass here is a mistake of the test.

use anyhow::{Result, ensure};
use netns_tests::frames::{self, Link, Vxlan, mac, read_vxlan};
use netns_tests::packet_socket::PacketSocket;
use netns_tests::traffic::{Ping, tcp};
use netns_tests::{Network, Overlay, Pod, Role, Shape, Topology, plan, wait};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

fn canal_and_kernel<'t>(topology: &'t Topology, dual: bool) -> Result<Overlay<'t>> {
    node_and_kernel(topology, dual, Role::canal())
}

/// The node under test on host 0, a kernel node on host 1.
fn node_and_kernel<'t>(topology: &'t Topology, dual: bool, node: Role) -> Result<Overlay<'t>> {
    let network = Network { dual, ..Network::default() };
    Overlay::start(topology, &network, &[node, Role::Kernel])
}

/// Lets both ends of the pod's veth carry more than the overlay can.
fn widen(overlay: &Overlay<'_>, pod: &Pod, mtu: u16) -> Result<()> {
    pod.ns.ip(&format!("link set eth0 mtu {mtu}"))?;
    overlay.host(0).ns.ip(&format!("link set {} mtu {mtu}", pod.interface))?;
    Ok(())
}

/// Whom a pod on host 0 may hear errors from: its gateway, by either of the addresses that name it.
fn addresses_of_the_router(overlay: &Overlay<'_>) -> Result<[String; 2]> {
    Ok([plan::GATEWAY_V4.to_string(), overlay.subnets(0)?.v4.to_string()])
}

/// A datagram from the pod towards `to`, as the pod's kernel would frame it.
fn from_pod(pod: &Pod, ports: (u16, u16), to: IpAddr, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let link = Link { from: mac(&pod.mac), to: mac(plan::GATEWAY_MAC) };
    frames::udp(link, (pod.address_like(to), ports.0), (to, ports.1), ttl, payload)
}

/// What the kernel node on host 1 would send to the canal node on host 0: `inner` (an IP packet's frame) encapsulated.
struct FromPeer {
    outer: Link,
    ends: (Ipv4Addr, Ipv4Addr),
    inner: Link,
}

impl FromPeer {
    fn new(overlay: &Overlay<'_>) -> Result<Self> {
        let (canal, peer) = (overlay.host(0), overlay.host(1));
        let vtep = overlay.lease(0)?.mac_v4.unwrap_or_default();
        Ok(Self {
            outer: Link { from: mac(&peer.mac()), to: mac(&canal.mac()) },
            ends: (peer.v4, canal.v4),
            inner: Link { from: mac(overlay.kernel(1).mac()), to: mac(&vtep) },
        })
    }

    fn wrap(&self, header: Vxlan, inner: &[u8]) -> Vec<u8> {
        let (from, to) = ((self.ends.0.into(), 45_678), (self.ends.1.into(), plan::VXLAN_PORT));
        frames::udp(self.outer, from, to, 64, &header.wrap(inner))
    }
}

#[test]
fn a_packet_one_byte_too_big_is_answered_with_the_mtu_by_the_gateway() -> Result<()> {
    one_byte_too_big(Role::canal())
}

#[test]
fn a_packet_one_byte_too_big_is_answered_with_the_mtu_by_the_gateway_by_the_kernel_too() -> Result<()> {
    one_byte_too_big(Role::Kernel)
}

fn one_byte_too_big(node: Role) -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = node_and_kernel(&topology, false, node)?;
    let (pod, to) = (overlay.pod(0), overlay.pod(1).v4);
    widen(&overlay, pod, 1500)?;
    Ping::to(to).packet_size(1450).dont_fragment().expect_all(&pod.ns)?;
    let answers = Ping::to(to).packet_size(1451).dont_fragment().expect_none(&pod.ns)?;
    ensure!(answers.mtus.contains(&1450), "{answers:?}");
    let routers = addresses_of_the_router(&overlay)?;
    ensure!(answers.errors.iter().any(|(who, _)| routers.contains(who)), "from the gateway: {answers:?}");
    topology.pass()
}

#[test]
fn an_ipv6_packet_too_big_is_answered_with_the_mtu_over_an_ipv6_underlay() -> Result<()> {
    too_big_v6(Role::canal())
}

#[test]
fn an_ipv6_packet_too_big_is_answered_with_the_mtu_over_an_ipv6_underlay_by_the_kernel_too() -> Result<()> {
    too_big_v6(Role::Kernel)
}

fn too_big_v6(node: Role) -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = node_and_kernel(&topology, true, node)?;
    let pod = overlay.pod(0);
    let Some(to) = overlay.pod(1).v6 else { unreachable!("a dual-stack pod") };
    widen(&overlay, pod, 1500)?;
    Ping::to(to).packet_size(1430).dont_fragment().expect_all(&pod.ns)?;
    let answers = Ping::to(to).packet_size(1480).dont_fragment().expect_none(&pod.ns)?;
    ensure!(answers.mtus.contains(&1430), "{answers:?}");
    topology.pass()
}

#[test]
fn a_packet_too_big_that_may_be_fragmented_is_fragmented() -> Result<()> {
    fragmented(Role::canal())
}

#[test]
fn a_packet_too_big_that_may_be_fragmented_is_fragmented_by_the_kernel_too() -> Result<()> {
    fragmented(Role::Kernel)
}

fn fragmented(node: Role) -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = node_and_kernel(&topology, false, node)?;
    let pod = overlay.pod(0);
    widen(&overlay, pod, 1500)?;
    // Without DF: a raw frame of 1500 bytes arrives whole at the other pod's socket.
    let echo = netns_tests::traffic::udp::Echo::start(&overlay.pod(1).ns, overlay.pod(1).v4.into())?;
    let answers = PacketSocket::open(&pod.ns, "eth0")?;
    let payload = vec![7; 1500 - 28];
    let frame = from_pod(pod, (7777, echo.address.port()), overlay.pod(1).v4.into(), 64, &payload);
    answers.send(&frames::may_fragment(frame))?;
    let first = answers.expect("the echo, or its first fragment", wait::SOON, |frame| {
        let ip = frame.get(14..34)?;
        (frame.get(12..14)? == [8, 0] && ip[12..16] == overlay.pod(1).v4.octets()).then(|| ip.to_vec())
    })?;
    ensure!(first[9] == 17, "UDP: {first:?}");
    topology.pass()
}

#[test]
fn tcp_finds_the_mtu_of_the_overlay() -> Result<()> {
    tcp_finds_mtu(Role::canal())
}

#[test]
fn tcp_finds_the_mtu_of_the_overlay_by_the_kernel_too() -> Result<()> {
    tcp_finds_mtu(Role::Kernel)
}

fn tcp_finds_mtu(node: Role) -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = node_and_kernel(&topology, true, node)?;
    widen(&overlay, overlay.pod(0), 1500)?;
    // The other end announces a large segment size, too.
    let remote = overlay.pod(1);
    remote.ns.ip("link set eth0 mtu 1500")?;
    overlay.host(1).ns.ip(&format!("link set {} mtu 1500", remote.interface))?;
    for to in remote.addresses() {
        tcp::transfer(&overlay.pod(0).ns, &remote.ns, to, 8_000_000)?;
        tcp::transfer(&remote.ns, &overlay.pod(0).ns, overlay.pod(0).address_like(to), 8_000_000)?;
    }
    topology.pass()
}

#[test]
fn tcp_crosses_an_underlay_with_a_smaller_mtu() -> Result<()> {
    tcp_small_underlay(Role::canal())
}

#[test]
fn tcp_crosses_an_underlay_with_a_smaller_mtu_by_the_kernel_too() -> Result<()> {
    tcp_small_underlay(Role::Kernel)
}

fn tcp_small_underlay(node: Role) -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2).behind_router(1).router_mtu(1400))?;
    let overlay = node_and_kernel(&topology, false, node)?;
    let (a, b) = (overlay.pod(0), overlay.pod(1));
    tcp::transfer(&a.ns, &b.ns, b.v4.into(), 8_000_000)?;
    tcp::transfer(&b.ns, &a.ns, a.v4.into(), 8_000_000)?;
    topology.pass()
}

#[test]
fn tcp_between_canals_crosses_an_underlay_with_a_smaller_mtu() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2).behind_router(1).router_mtu(1400))?;
    let network = Network { dual: true, ..Network::default() };
    let overlay = Overlay::start(&topology, &network, &[Role::canal(), Role::canal()])?;
    let (a, b) = (overlay.pod(0), overlay.pod(1));
    for to in b.addresses() {
        tcp::transfer(&a.ns, &b.ns, to, 8_000_000)?;
        tcp::transfer(&b.ns, &a.ns, a.address_like(to), 8_000_000)?;
    }
    topology.pass()
}

#[test]
fn a_forged_packet_too_big_is_ignored() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(3))?;
    let roles = [Role::canal(), Role::Kernel, Role::Bystander];
    let overlay = Overlay::start(&topology, &Network::default(), &roles)?;
    let (canal, peer, liar) = (overlay.host(0), overlay.host(1), overlay.host(2));
    let link = Link { from: mac(&liar.mac()), to: mac(&canal.mac()) };
    // It quotes a VXLAN packet that could have been sent, with a flow nobody has.
    let quoted_link = Link { from: mac(&canal.mac()), to: mac(&peer.mac()) };
    let ends = ((canal.v4.into(), 44_444), (peer.v4.into(), plan::VXLAN_PORT));
    let quoted = frames::udp(quoted_link, ends.0, ends.1, 64, &Vxlan::plain(99).wrap(&[0; 40]));
    let socket = PacketSocket::open(&liar.ns, "eth0")?;
    let mtus = [68, 576, 1280];
    overlay.canal(0).expect_drops(&["pmtu_forged"], mtus.len() as u64, || {
        let lie = |mtu| frames::frag_needed(link, liar.v4, canal.v4, mtu, &quoted[14..]);
        mtus.into_iter().try_for_each(|mtu| socket.send(&lie(mtu)))
    })?;
    Ping::to(overlay.pod(1).v4).packet_size(1450).dont_fragment().expect_all(&overlay.pod(0).ns)?;
    topology.pass()
}

#[test]
fn every_router_lowers_the_ttl_once_and_the_outer_one_is_constant() -> Result<()> {
    ttl(Role::canal())
}

#[test]
fn every_router_lowers_the_ttl_once_and_the_outer_one_is_constant_by_the_kernel_too() -> Result<()> {
    ttl(Role::Kernel)
}

fn ttl(node: Role) -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = node_and_kernel(&topology, false, node)?;
    let (pod, remote) = (overlay.pod(0), overlay.pod(1));
    let wire = PacketSocket::open(&topology.switch, "h0")?;
    let arrived = PacketSocket::open(&remote.ns, "eth0")?;
    let sender = PacketSocket::open(&pod.ns, "eth0")?;
    for ttl in [3, 17, 255] {
        sender.send(&from_pod(pod, (1111, 2222), remote.v4.into(), ttl, &[ttl; 8]))?;
        let inner_ttl = wire.expect("VXLAN packet", wait::SOON, |frame| {
            let (outer, _, inner) = read_vxlan(frame, plan::VXLAN_PORT)?;
            let inner = frames::read(&inner)?;
            (inner.payload == [ttl; 8]).then_some((outer.ttl, inner.ttl))
        })?;
        ensure!(inner_ttl == (64, ttl - 1), "sent {ttl}, on the wire (outer, inner): {inner_ttl:?}");
        let seen = arrived
            .expect("the datagram", wait::SOON, |f| frames::read(f).filter(|s| s.payload == [ttl; 8]))?;
        ensure!(seen.ttl == ttl - 2, "sent {ttl}, arrived {}", seen.ttl);
    }
    topology.pass()
}

#[test]
fn traceroute_shows_the_real_hops() -> Result<()> {
    traceroute(Role::canal())
}

#[test]
fn traceroute_shows_the_real_hops_by_the_kernel_too() -> Result<()> {
    traceroute(Role::Kernel)
}

fn traceroute(node: Role) -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = node_and_kernel(&topology, false, node)?;
    let (pod, remote) = (overlay.pod(0), overlay.pod(1));
    let first = Ping::to(remote.v4).count(1).ttl(1).expect_none(&pod.ns)?;
    let routers = addresses_of_the_router(&overlay)?;
    let expired = |(who, what): &(String, String)| routers.contains(who) && what.contains("Time to live");
    ensure!(first.errors.iter().any(expired), "{first:?}");
    let second = Ping::to(remote.v4).count(1).ttl(2).expect_none(&pod.ns)?;
    ensure!(second.errors.iter().any(|(_, what)| what.contains("Time to live")), "{second:?}");
    Ping::to(remote.v4).count(1).ttl(3).expect_all(&pod.ns)?;
    // The other way canal is the second hop.
    let second = Ping::to(pod.v4).count(1).ttl(2).expect_none(&remote.ns)?;
    ensure!(second.errors.iter().any(|(_, what)| what.contains("Time to live")), "{second:?}");
    Ping::to(pod.v4).count(1).ttl(3).expect_all(&remote.ns)?;
    topology.pass()
}

#[test]
fn ecn_is_copied_outwards() -> Result<()> {
    ecn_outwards(Role::canal(), 0b11)
}

#[test]
fn ecn_is_copied_outwards_by_the_kernel_too_except_for_congestion() -> Result<()> {
    // The kernel resets CE to ECT(0), the older rule of RFC 3168 section 9.1.1.
    ecn_outwards(Role::Kernel, 0b10)
}

fn ecn_outwards(node: Role, congestion: u8) -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = node_and_kernel(&topology, false, node)?;
    let (pod, remote) = (overlay.pod(0), overlay.pod(1));
    let wire = PacketSocket::open(&topology.switch, "h0")?;
    let sender = PacketSocket::open(&pod.ns, "eth0")?;
    for ecn in 0..4 {
        let mark = [0xec, ecn];
        sender.send(&frames::with_tos(from_pod(pod, (1111, 2222), remote.v4.into(), 64, &mark), ecn))?;
        let outer = wire.expect("VXLAN packet", wait::SOON, |frame| {
            let (outer, _, inner) = read_vxlan(frame, plan::VXLAN_PORT)?;
            (frames::read(&inner)?.payload == mark).then_some(outer.tos)
        })?;
        let expected = if ecn == 0b11 { congestion } else { ecn };
        ensure!(outer & 0b11 == expected, "inner ECN {ecn:02b}, outer {outer:08b}");
    }
    topology.pass()
}

#[test]
fn ecn_is_combined_inwards_by_the_table_of_rfc_6040() -> Result<()> {
    ecn_inwards(Role::canal())
}

#[test]
fn ecn_is_combined_inwards_by_the_table_of_rfc_6040_by_the_kernel_too() -> Result<()> {
    ecn_inwards(Role::Kernel)
}

fn ecn_inwards(node: Role) -> Result<()> {
    const DROP: Option<u8> = None;
    // Rows: inner Not-ECT, ECT(1), ECT(0), CE; columns: the same of the outer header (section 4.2).
    let table: [[Option<u8>; 4]; 4] = [
        [Some(0), Some(0), Some(0), DROP],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(2), Some(1), Some(2), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ];
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = node_and_kernel(&topology, false, node)?;
    let peer = FromPeer::new(&overlay)?;
    let (pod, remote) = (overlay.pod(0), overlay.pod(1));
    let sender = PacketSocket::open(&overlay.host(1).ns, "eth0")?;
    let arrived = PacketSocket::open(&pod.ns, "eth0")?;
    let mut wrong = Vec::new();
    for (inner, row) in table.iter().enumerate() {
        for (outer, expected) in row.iter().enumerate() {
            let mark = [0xec, inner as u8, outer as u8];
            let ends = ((remote.v4.into(), 5), (pod.v4.into(), 6));
            let frame = frames::with_tos(frames::udp(peer.inner, ends.0, ends.1, 9, &mark), inner as u8);
            sender.send(&frames::with_tos(peer.wrap(Vxlan::plain(1), &frame), outer as u8))?;
            let found = arrived.collect(Duration::from_millis(150), |f| {
                frames::read(f).filter(|s| s.payload == mark).map(|s| s.tos & 0b11)
            })?;
            if found.first().copied() != *expected || found.len() > 1 {
                wrong.push(format!("inner {inner:02b}, outer {outer:02b}: {found:?}, not {expected:?}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    topology.pass()
}

#[test]
fn reserved_bits_are_ignored_on_receive() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = canal_and_kernel(&topology, false)?;
    let peer = FromPeer::new(&overlay)?;
    let (pod, remote) = (overlay.pod(0), overlay.pod(1));
    let sender = PacketSocket::open(&overlay.host(1).ns, "eth0")?;
    let arrived = PacketSocket::open(&pod.ns, "eth0")?;
    let mut headers = Vec::new();
    for bit in (0..8).filter(|bit| *bit != 3) {
        headers.push(Vxlan { flags: 0x08 | 1 << bit, ..Vxlan::plain(1) });
    }
    for bit in 0..32 {
        headers.push(Vxlan { reserved: (1u32 << bit).to_be_bytes(), ..Vxlan::plain(1) });
    }
    for (n, header) in headers.iter().enumerate() {
        let ends = ((remote.v4.into(), 5), (pod.v4.into(), 6));
        sender.send(&peer.wrap(*header, &frames::udp(peer.inner, ends.0, ends.1, 9, &[0xee, n as u8])))?;
    }
    let found = arrived.collect(Duration::from_secs(1), |f| {
        frames::read(f)
            .filter(|s| s.payload.len() == 2 && s.payload[0] == 0xee)
            .map(|s| usize::from(s.payload[1]))
    })?;
    let found: BTreeSet<usize> = found.into_iter().collect();
    let missing: Vec<_> = headers.iter().enumerate().filter(|(n, _)| !found.contains(n)).collect();
    ensure!(missing.is_empty(), "not decapsulated: {missing:?}");
    topology.pass()
}

#[test]
fn outer_checksums_zero_and_unfinished_are_accepted() -> Result<()> {
    checksums(Role::canal())
}

#[test]
fn outer_checksums_zero_and_unfinished_are_accepted_by_the_kernel_too() -> Result<()> {
    checksums(Role::Kernel)
}

fn checksums(node: Role) -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = node_and_kernel(&topology, false, node)?;
    let peer = FromPeer::new(&overlay)?;
    let (pod, remote) = (overlay.pod(0), overlay.pod(1));
    let sender = PacketSocket::open(&overlay.host(1).ns, "eth0")?;
    let arrived = PacketSocket::open(&pod.ns, "eth0")?;
    let ends = ((remote.v4.into(), 5), (pod.v4.into(), 6));
    for mark in [b"sum0", b"good"] {
        let mut frame = peer.wrap(Vxlan::plain(1), &frames::udp(peer.inner, ends.0, ends.1, 9, mark));
        if mark == b"sum0" {
            frame[40..42].fill(0);
        }
        sender.send(&frame)?;
        arrived.expect("the datagram", wait::SOON, |f| frames::read(f).filter(|s| s.payload == mark))?;
    }
    topology.pass()
}

#[test]
fn what_is_sent_is_plain_vxlan() -> Result<()> {
    plain_vxlan(Role::canal())
}

#[test]
fn what_is_sent_is_plain_vxlan_by_the_kernel_too() -> Result<()> {
    plain_vxlan(Role::Kernel)
}

fn plain_vxlan(node: Role) -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2).offloads(false))?;
    let overlay = node_and_kernel(&topology, true, node)?;
    let wire = PacketSocket::open(&topology.switch, "h0")?;
    for to in overlay.pod(1).addresses() {
        let ping = Ping::to(to).count(1);
        ping.expect_all(&overlay.pod(0).ns)?;
        let (outer, header, inner) = wire.expect("VXLAN packet", wait::SOON, |f| {
            read_vxlan(f, plan::VXLAN_PORT).filter(|(o, ..)| o.from.is_ipv4() == to.is_ipv4())
        })?;
        ensure!(header == [8, 0, 0, 0, 0, 0, 1, 0], "reserved bits are zero: {header:02x?}");
        ensure!(outer.ttl == 64, "{outer:?}");
        let lease = overlay.lease(0)?;
        let own = if to.is_ipv4() { lease.mac_v4 } else { lease.mac_v6 };
        ensure!(inner[..6] == mac(overlay.kernel(1).mac()), "to the peer's VTEP MAC: {:02x?}", &inner[..6]);
        ensure!(
            Some(&inner[6..12]) == own.as_deref().map(mac).as_ref().map(<[u8; 6]>::as_slice),
            "from ours"
        );
    }
    topology.pass()
}
