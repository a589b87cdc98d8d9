//! A workload behind the TAP port and a kernel VXLAN device at another host, a router in between.

mod common;

use std::net::IpAddr;

use canal_dataplane::net::HashSeed;
use canal_dataplane::port::{Egress, Ingress, Port, Received};
use canal_io::bpf::{Steering, Underlay};
use canal_io::tun::{TapConfig, TapDevice, TapPort};
use canal_io::udp::{UdpAbilities, UdpConfig, UdpPort};
use common::daemon::{Both, Worker};
use common::overlay::Overlay;
use common::{Namespace, root, tcp_transfer, veth};

/// What carries the outer packets.
#[derive(Clone, Copy)]
enum Wire {
    Tap,
    Udp,
}

/// host — router — peer; a workload at the host, a kernel VXLAN device at the peer, one layer-2 network over both.
struct Site {
    host: Namespace,
    #[expect(dead_code, reason = "lives as long as the others")]
    router: Namespace,
    peer: Namespace,
    workload: Namespace,
    overlay: Overlay,
}

impl Site {
    fn new(v6: bool, outer_checksum: bool) -> Self {
        let [host, router, peer, workload] = ["host", "router", "peer", "pod"].map(Namespace::new);
        veth(&host, "eth0", &router, "left");
        veth(&peer, "eth0", &router, "right");
        veth(&host, "wl", &workload, "eth0");
        let (left, right, length) =
            if v6 { ("2001:db8:1::", "2001:db8:2::", 64) } else { ("192.0.2.", "198.51.100.", 24) };
        for (namespace, device, net, last) in [
            (&host, "eth0", left, 1),
            (&router, "left", left, 9),
            (&router, "right", right, 9),
            (&peer, "eth0", right, 1),
        ] {
            let nodad = if v6 { "nodad" } else { "" };
            namespace.ip(&format!("addr add {net}{last}/{length} dev {device} {nodad}"));
        }
        host.ip(&format!("route add default via {left}9"));
        peer.ip(&format!("route add default via {right}9"));
        router.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        let (local, remote) = (format!("{left}1"), format!("{right}1"));
        peer.ip(&format!(
            "link add vx0 type vxlan id 7 dstport 8472 local {remote} remote {local} nolearning udp6zerocsumrx"
        ));
        peer.ip("link set vx0 up");
        peer.ip("addr add 10.9.0.2/24 dev vx0");
        workload.ip("addr add 10.9.0.1/24 dev eth0");
        for namespace in [&peer, &workload] {
            let device = if std::ptr::eq(namespace, &peer) { "vx0" } else { "eth0" };
            namespace.ip(&format!("link set {device} mtu 1430"));
        }
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let overlay =
            Overlay { local: address(&local), remote: address(&remote), port: 8472, vni: 7, outer_checksum };
        Self { host, router, peer, workload, overlay }
    }

    fn underlay(&self) -> Underlay {
        Underlay {
            ifindex: self.host.ifindex("eth0"),
            vtep_v4: match self.overlay.local {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            },
            vtep_v6: match self.overlay.local {
                IpAddr::V6(address) => Some(address),
                IpAddr::V4(_) => None,
            },
            vxlan_port: self.overlay.port,
            pod_subnets_v4: Vec::new(),
            pod_subnets_v6: Vec::new(),
        }
    }

    fn join(&self, wire: Wire) -> Worker {
        match wire {
            Wire::Tap => self.join_by_tap(),
            Wire::Udp => self.join_by_udp(),
        }
    }

    fn join_by_udp(&self) -> Worker {
        let (workload, underlay) = (self.host.ifindex("wl"), self.underlay());
        let open = move || {
            let config = TapConfig { forbid_tunnel_gso: true, ..TapConfig::new(1, 1430) };
            let (device, mut queues) = TapDevice::create(&config).unwrap();
            let mut steering = Steering::open(&device, &queues, HashSeed(1, 2), None).unwrap();
            steering.attach_workload(workload).unwrap();
            let tap = TapPort::new(&device, queues.remove(0), steering.next_hops());
            let config = UdpConfig::new(underlay.vtep_v4, underlay.vtep_v6, underlay.vxlan_port);
            let udp = UdpPort::open(&config).unwrap();
            assert_eq!(udp.abilities(), UdpAbilities { gro: true, segments: 128 });
            (Both { tap, udp }, steering)
        };
        self.run(open)
    }

    fn join_by_tap(&self) -> Worker {
        let (workload, underlay) = (self.host.ifindex("wl"), self.underlay());
        let open = move || {
            let (device, mut queues) = TapDevice::create(&TapConfig::new(1, 1430)).unwrap();
            assert!(device.abilities.tunnel_gso, "{:?}", device.abilities);
            let mut steering = Steering::open(&device, &queues, HashSeed(1, 2), None).unwrap();
            steering.attach_workload(workload).unwrap();
            steering.set_underlay(Some(underlay)).unwrap();
            assert_eq!(steering.attached().len(), 3);
            (TapPort::new(&device, queues.remove(0), steering.next_hops()), steering)
        };
        self.run(open)
    }

    fn run<P: Port, K>(&self, open: impl FnOnce() -> (P, K) + Send + 'static) -> Worker {
        let (workload, overlay) = (self.host.ifindex("wl"), self.overlay);
        Worker::start(&self.host, open, move |packet: &mut Received| match packet.ingress {
            Ingress::Workload(_) => {
                overlay.encapsulate(packet, 0);
                Some(Egress::Underlay)
            }
            Ingress::Underlay => overlay.decapsulate(packet).then_some(Egress::Workload(workload)),
            _ => None,
        })
    }
}

fn a_kernel_vxlan_peer_talks_with_the_workload(wire: Wire, v6: bool, outer_checksum: bool) {
    let site = Site::new(v6, outer_checksum);
    let worker = site.join(wire);
    site.workload.run("ping -c 2 -i 0.2 -W 5 10.9.0.2");
    tcp_transfer(&site.workload, &site.peer, "10.9.0.2:7000", 20_000_000);
    tcp_transfer(&site.peer, &site.workload, "10.9.0.1:7000", 20_000_000);
    assert!(worker.largest_frame() > 30_000, "super-frames stay whole: {}", worker.largest_frame());
    let stats = worker.stop();
    assert_eq!((stats.tx_errors, stats.tx_full), (0, 0));
}

#[test]
fn a_kernel_vxlan_peer_over_ipv4() {
    if root("a_kernel_vxlan_peer_over_ipv4") {
        a_kernel_vxlan_peer_talks_with_the_workload(Wire::Tap, false, false);
    }
}

#[test]
fn a_kernel_vxlan_peer_over_ipv4_with_outer_checksums() {
    if root("a_kernel_vxlan_peer_over_ipv4_with_outer_checksums") {
        a_kernel_vxlan_peer_talks_with_the_workload(Wire::Tap, false, true);
    }
}

#[test]
fn a_kernel_vxlan_peer_over_ipv6() {
    if root("a_kernel_vxlan_peer_over_ipv6") {
        a_kernel_vxlan_peer_talks_with_the_workload(Wire::Tap, true, false);
        a_kernel_vxlan_peer_talks_with_the_workload(Wire::Tap, true, true);
    }
}

#[test]
fn a_kernel_vxlan_peer_over_ipv4_by_udp_sockets() {
    if root("a_kernel_vxlan_peer_over_ipv4_by_udp_sockets") {
        a_kernel_vxlan_peer_talks_with_the_workload(Wire::Udp, false, false);
    }
}

#[test]
fn a_kernel_vxlan_peer_over_ipv6_by_udp_sockets() {
    if root("a_kernel_vxlan_peer_over_ipv6_by_udp_sockets") {
        a_kernel_vxlan_peer_talks_with_the_workload(Wire::Udp, true, false);
    }
}
