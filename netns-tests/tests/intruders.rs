//! What has been exploited elsewhere is dropped here, counted under its own name, and reaches nobody.

use anyhow::{Result, ensure};
use netns_tests::frames::{self, Link, Vxlan, mac};
use netns_tests::packet_socket::PacketSocket;
use netns_tests::traffic::Ping;
use netns_tests::{Network, Overlay, Role, Shape, Topology, plan};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Frames sent of each kind: a counter that grew by chance does not grow so far.
const EACH: u64 = 5;
/// What marks the frames of an intruder.
const MARK: &[u8] = b"intruder";

/// A canal node (host 0), a kernel node (host 1), a stranger (host 2), and sockets at every place.
struct Scene<'t> {
    overlay: Overlay<'t>,
    peer: PacketSocket,
    stranger: PacketSocket,
    pod: PacketSocket,
    vtep: [u8; 6],
}

impl<'t> Scene<'t> {
    fn new(topology: &'t Topology, dual: bool) -> Result<Self> {
        let network = Network { dual, ..Network::default() };
        let roles = [Role::canal(), Role::Kernel, Role::Bystander];
        let overlay = Overlay::start(topology, &network, &roles)?;
        let vtep = mac(&overlay.canal(0).lease(&overlay.store)?.mac_v4.unwrap_or_default());
        let peer = PacketSocket::open(&overlay.host(1).ns, "eth0")?;
        let stranger = PacketSocket::open(&overlay.host(2).ns, "eth0")?;
        let pod = PacketSocket::open(&overlay.pod(0).ns, "eth0")?;
        Ok(Self { overlay, peer, stranger, pod, vtep })
    }

    /// The link inside a VXLAN packet from the kernel node to canal.
    fn inner_link(&self) -> Link {
        Link { from: mac(self.overlay.kernel(1).mac()), to: self.vtep }
    }

    /// A marked datagram from `from` to the canal node's pod, as it lies inside a VXLAN packet.
    fn inner(&self, from: IpAddr) -> Vec<u8> {
        let to = self.overlay.pod(0).address_like(from);
        frames::udp(self.inner_link(), (from, 1), (to, 2), 9, MARK)
    }

    /// `payload` in a datagram from host `from` to the canal node's VXLAN port.
    fn outer(&self, from: usize, payload: &[u8]) -> Vec<u8> {
        let (from, to) = (self.overlay.host(from), self.overlay.host(0));
        let link = Link { from: mac(&from.mac()), to: mac(&to.mac()) };
        frames::udp(link, (from.v4.into(), 40_000), (to.v4.into(), plan::VXLAN_PORT), 64, payload)
    }

    /// Sends `frame` from `socket`; one of `reasons` must count it, and no pod may see it.
    fn is_dropped(&self, socket: &PacketSocket, frame: &[u8], reasons: &[&str]) -> Result<()> {
        let remote = PacketSocket::open(&self.overlay.pod(1).ns, "eth0")?;
        self.overlay
            .canal(0)
            .expect_drops(reasons, EACH, || (0..EACH).try_for_each(|_| socket.send(frame)))?;
        for watched in [&self.pod, &remote] {
            let seen = watched.collect(Duration::from_millis(100), |f| {
                f.windows(MARK.len()).any(|w| w == MARK).then_some(())
            })?;
            ensure!(seen.is_empty(), "{} of them reached a pod", seen.len());
        }
        Ok(())
    }

    /// The link from the canal node's pod to its gateway.
    fn pod_link(&self) -> Link {
        Link { from: mac(&self.overlay.pod(0).mac), to: mac(plan::GATEWAY_MAC) }
    }

    /// Ordinary traffic still works afterwards.
    fn end(self, topology: &Topology) -> Result<()> {
        Ping::to(self.overlay.pod(1).v4).expect_all(&self.overlay.pod(0).ns)?;
        topology.pass()
    }
}

fn scene(dual: bool, test: impl FnOnce(&Scene<'_>) -> Result<()>) -> Result<()> {
    let topology = Topology::build(&Shape::hosts(3))?;
    let scene = Scene::new(&topology, dual)?;
    test(&scene)?;
    scene.end(&topology)
}

#[test]
fn a_frame_that_is_all_right_arrives() -> Result<()> {
    // The counterpart of every test below: the same frame without its fault is delivered.
    scene(false, |s| {
        let inner = s.inner(s.overlay.pod(1).v4.into());
        s.peer.send(&s.outer(1, &Vxlan::plain(1).wrap(&inner)))?;
        s.pod.expect("the datagram", Duration::from_secs(5), |f| {
            frames::read(f).filter(|p| p.payload == MARK)
        })?;
        Ok(())
    })
}

#[test]
fn an_unknown_vtep_is_not_listened_to() -> Result<()> {
    scene(false, |s| {
        let inner = s.inner(s.overlay.pod(1).v4.into());
        s.is_dropped(&s.stranger, &s.outer(2, &Vxlan::plain(1).wrap(&inner)), &["unknown_vtep"])
    })
}

#[test]
fn an_inner_source_that_its_node_does_not_own_is_dropped() -> Result<()> {
    scene(false, |s| {
        let own_subnet = s.overlay.subnets(0)?;
        for from in [Ipv4Addr::new(10, 244, 250, 5), own_subnet.pod_v4(9), Ipv4Addr::new(8, 8, 8, 8)] {
            let frame = s.outer(1, &Vxlan::plain(1).wrap(&s.inner(from.into())));
            s.is_dropped(&s.peer, &frame, &["spoofed_source"])?;
        }
        Ok(())
    })
}

#[test]
fn an_unknown_vni_is_dropped() -> Result<()> {
    scene(false, |s| {
        let inner = s.inner(s.overlay.pod(1).v4.into());
        for vni in [0, 2, 0xff_ffff] {
            s.is_dropped(&s.peer, &s.outer(1, &Vxlan::plain(vni).wrap(&inner)), &["unknown_vni"])?;
        }
        Ok(())
    })
}

#[test]
fn a_header_without_the_vni_flag_is_dropped() -> Result<()> {
    scene(false, |s| {
        let header = Vxlan { flags: 0, ..Vxlan::plain(1) };
        let inner = s.inner(s.overlay.pod(1).v4.into());
        s.is_dropped(&s.peer, &s.outer(1, &header.wrap(&inner)), &["vxlan_no_vni"])
    })
}

#[test]
fn an_inner_frame_for_another_mac_is_dropped() -> Result<()> {
    scene(false, |s| {
        let mut inner = s.inner(s.overlay.pod(1).v4.into());
        inner[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0x99]);
        s.is_dropped(&s.peer, &s.outer(1, &Vxlan::plain(1).wrap(&inner)), &["inner_mac"])
    })
}

#[test]
fn an_inner_vlan_tag_is_dropped() -> Result<()> {
    scene(false, |s| {
        let inner = frames::with_vlan(s.inner(s.overlay.pod(1).v4.into()), 5);
        s.is_dropped(&s.peer, &s.outer(1, &Vxlan::plain(1).wrap(&inner)), &["vlan_tag"])
    })
}

#[test]
fn an_inner_frame_that_is_not_ip_is_dropped() -> Result<()> {
    scene(false, |s| {
        let mut inner = s.inner(s.overlay.pod(1).v4.into());
        inner[12..14].copy_from_slice(&[0x88, 0xcc]);
        s.is_dropped(&s.peer, &s.outer(1, &Vxlan::plain(1).wrap(&inner)), &["unknown_ethertype"])
    })
}

#[test]
fn a_truncated_inner_frame_is_dropped() -> Result<()> {
    scene(false, |s| {
        let inner = s.inner(s.overlay.pod(1).v4.into());
        let reasons = ["malformed_ethernet", "malformed_ipv4", "malformed_transport", "malformed_outer"];
        for length in [0, 5, 13, 20, 33] {
            s.is_dropped(&s.peer, &s.outer(1, &Vxlan::plain(1).wrap(&inner[..length])), &reasons)?;
        }
        Ok(())
    })
}

#[test]
fn vxlan_inside_of_vxlan_is_not_decapsulated_again() -> Result<()> {
    scene(false, |s| {
        let innermost = s.inner(s.overlay.pod(1).v4.into());
        let nested = Vxlan::plain(1).wrap(&innermost);
        let ends = ((s.overlay.host(1).v4.into(), 40_000), (s.overlay.host(0).v4.into(), plan::VXLAN_PORT));
        let middle = frames::udp(s.inner_link(), ends.0, ends.1, 64, &nested);
        s.is_dropped(&s.peer, &s.outer(1, &Vxlan::plain(1).wrap(&middle)), &["nested_vxlan"])
    })
}

#[test]
fn a_decapsulated_packet_does_not_leave_for_the_underlay() -> Result<()> {
    scene(false, |s| {
        let from = (s.overlay.pod(1).v4.into(), 1);
        let to = (s.overlay.host(2).v4.into(), 2);
        let inner = frames::udp(s.inner_link(), from, to, 9, MARK);
        s.is_dropped(&s.peer, &s.outer(1, &Vxlan::plain(1).wrap(&inner)), &["no_route"])?;
        let seen = s.stranger.collect(Duration::from_millis(100), |f| {
            f.windows(MARK.len()).any(|w| w == MARK).then_some(())
        })?;
        ensure!(seen.is_empty(), "it left for the underlay");
        Ok(())
    })
}

#[test]
fn a_pod_that_speaks_vxlan_itself_is_dropped() -> Result<()> {
    scene(false, |s| {
        let payload = Vxlan::plain(1).wrap(&s.inner(s.overlay.pod(1).v4.into()));
        for to in [s.overlay.host(0).v4, s.overlay.host(1).v4, s.overlay.pod(1).v4] {
            let from = (s.overlay.pod(0).v4.into(), 40_000);
            let frame = frames::udp(s.pod_link(), from, (to.into(), plan::VXLAN_PORT), 64, &payload);
            s.is_dropped(&s.pod, &frame, &["encap_from_workload"])?;
        }
        Ok(())
    })
}

#[test]
fn a_pod_that_borrows_an_address_is_dropped() -> Result<()> {
    scene(false, |s| {
        let to = (s.overlay.pod(1).v4.into(), 2);
        for from in [s.overlay.subnets(0)?.pod_v4(99), s.overlay.pod(1).v4, Ipv4Addr::new(8, 8, 8, 8)] {
            let frame = frames::udp(s.pod_link(), (from.into(), 1), to, 64, MARK);
            s.is_dropped(&s.pod, &frame, &["spoofed_source"])?;
        }
        Ok(())
    })
}

#[test]
fn martians_are_dropped() -> Result<()> {
    scene(false, |s| {
        let base = s.overlay.subnets(0)?.v4;
        let never: [Ipv4Addr; 6] =
            [[127, 0, 0, 1], [0, 0, 0, 1], [240, 0, 0, 1], [224, 0, 0, 5], [169, 254, 9, 9], base.octets()]
                .map(Ipv4Addr::from);
        for from in never {
            let reasons = ["martian_source", "spoofed_source"];
            let frame = s.outer(1, &Vxlan::plain(1).wrap(&s.inner(from.into())));
            s.is_dropped(&s.peer, &frame, &reasons)?;
            let to = (s.overlay.pod(1).v4.into(), 2);
            let frame = frames::udp(s.pod_link(), (from.into(), 1), to, 64, MARK);
            s.is_dropped(&s.pod, &frame, &reasons)?;
        }
        // Nobody reaches what the host offers on its loopback.
        let from = (s.overlay.pod(0).v4.into(), 1);
        let frame = frames::udp(s.pod_link(), from, (Ipv4Addr::LOCALHOST.into(), 2), 64, MARK);
        s.is_dropped(&s.pod, &frame, &["martian_destination"])
    })
}

#[test]
fn router_advertisements_from_a_pod_are_dropped() -> Result<()> {
    scene(true, |s| {
        let link = s.pod_link();
        let frame = frames::router_advertisement(link.from, "fe80::bad".parse()?);
        s.is_dropped(&s.pod, &frame, &["forbidden_neighbor"])
    })
}

#[test]
fn router_advertisements_from_an_ipv4_only_pod_are_dropped() -> Result<()> {
    scene(false, |s| {
        let frame = frames::router_advertisement(s.pod_link().from, "fe80::bad".parse()?);
        s.is_dropped(&s.pod, &frame, &["forbidden_neighbor", "spoofed_source", "spoofed_neighbor"])
    })
}

#[test]
fn arp_with_a_foreign_sender_is_dropped() -> Result<()> {
    scene(false, |s| {
        let link = Link { from: s.pod_link().from, to: [0xff; 6] };
        let victim = s.overlay.subnets(0)?.pod_v4(50);
        let asks = frames::arp(link, 1, (link.from, victim), ([0; 6], plan::GATEWAY_V4));
        s.is_dropped(&s.pod, &asks, &["spoofed_neighbor"])?;
        let claims_gateway =
            frames::arp(link, 2, (link.from, plan::GATEWAY_V4), (link.from, plan::GATEWAY_V4));
        s.is_dropped(&s.pod, &claims_gateway, &["spoofed_neighbor"])
    })
}

#[test]
fn multicast_and_broadcast_do_not_cross() -> Result<()> {
    scene(false, |s| {
        let from = (s.overlay.pod(0).v4.into(), 1);
        for to in [Ipv4Addr::new(239, 1, 2, 3), Ipv4Addr::BROADCAST] {
            let mut link = s.pod_link();
            link.to = [0xff; 6];
            let frame = frames::udp(link, from, (to.into(), 2), 64, MARK);
            s.is_dropped(&s.pod, &frame, &["multicast", "no_route"])?;
        }
        Ok(())
    })
}

#[test]
fn an_address_that_no_workload_has_leads_nowhere() -> Result<()> {
    scene(false, |s| {
        let from = (s.overlay.pod(0).v4.into(), 1);
        let to = (s.overlay.subnets(0)?.pod_v4(200).into(), 2);
        let frame = frames::udp(s.pod_link(), from, to, 64, MARK);
        s.is_dropped(&s.pod, &frame, &["unassigned_address"])
    })
}
