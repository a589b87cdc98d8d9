//! A router says that an outer packet is too big: the sockets' port tells the core what the wire would have told it.

mod common;

use std::net::IpAddr;
use std::time::Duration;

use canal_dataplane::frame::FramePool;
use canal_dataplane::limits::SUPER_FRAME_BUFFER;
use canal_dataplane::net::HashSeed;
use canal_dataplane::offload::Offload;
use canal_dataplane::path_mtu::quoted_source_port;
use canal_dataplane::port::{Egress, Ingress, Outgoing, Port, Received};
use canal_dataplane::wire::outer::{Payload, read};
use canal_io::udp::{UdpConfig, UdpPort};
use common::overlay::Overlay;
use common::{Namespace, root, veth};

const SEED: HashSeed = HashSeed(3, 4);

/// An inner UDP packet of `len` bytes of payload, Ethernet header and all.
fn inner(len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    frame.extend(((28 + len) as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x11, 0x22, 0x33, 0x44]);
    frame.extend(((8 + len) as u16).to_be_bytes());
    frame.resize(14 + 28 + len, 0);
    frame
}

fn too_big_is_told(v6: bool) {
    let [host, router, peer] = ["host", "router", "peer"].map(Namespace::new);
    veth(&host, "eth0", &router, "left");
    veth(&peer, "eth0", &router, "right");
    let (left, right, length) =
        if v6 { ("2001:db8:1::", "2001:db8:2::", "64 nodad") } else { ("192.0.2.", "198.51.100.", "24") };
    let length = |device: &str| length.replacen(' ', &format!(" dev {device} "), 1);
    for (namespace, device, net, last) in [
        (&host, "eth0", left, 1),
        (&router, "left", left, 9),
        (&router, "right", right, 9),
        (&peer, "eth0", right, 1),
    ] {
        let rest = if v6 { length(device) } else { format!("{} dev {device}", length(device)) };
        namespace.ip(&format!("addr add {net}{last}/{rest}"));
    }
    host.ip(&format!("route add default via {left}9"));
    peer.ip(&format!("route add default via {right}9"));
    router.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    router.ip("link set right mtu 1300");
    let address = |text: String| text.parse::<IpAddr>().unwrap();
    let (local, remote) = (address(format!("{left}1")), address(format!("{right}1")));
    host.enter(move || {
        let (a, b) = match local {
            IpAddr::V4(v4) => (Some(v4), None),
            IpAddr::V6(v6) => (None, Some(v6)),
        };
        let config = UdpConfig { dont_fragment: true, seed: Some(SEED), ..UdpConfig::new(a, b, 8472) };
        let mut port = UdpPort::open(&config).unwrap();
        let mut pool = FramePool::new(64, SUPER_FRAME_BUFFER);
        let overlay = Overlay { local, remote, port: 8472, vni: 7, outer_checksum: false };
        for _ in 0..100 {
            let mut frame = pool.take().unwrap();
            assert!(frame.fill(&inner(1350)));
            let mut packet = Received { frame, offload: Offload::NONE, ingress: Ingress::Host };
            overlay.encapsulate(&mut packet, 0);
            let Received { frame, offload, .. } = packet;
            port.transmit(&mut vec![Outgoing { frame, offload, egress: Egress::Underlay }], &mut pool);
            std::thread::sleep(Duration::from_millis(20));
            let mut received = Vec::new();
            port.receive(&mut pool, &mut received, 64);
            let Some(error) = received.pop() else { continue };
            assert_eq!((error.ingress, error.offload), (Ingress::Underlay, Offload::NONE));
            let outer = read(error.frame.data()).unwrap();
            let Payload::TooBig { mtu: 1300, quote } = outer.payload else { panic!("{outer:?}") };
            assert_eq!(outer.source, address(format!("{left}9")));
            assert_eq!(outer.destination, local);
            let udp = quote + if v6 { 40 } else { 20 };
            let data = error.frame.data();
            let expected = quoted_source_port(&inner(1350)[14..], SEED).unwrap();
            assert_eq!(data[udp..udp + 2], expected.to_be_bytes());
            assert_eq!(data[udp + 2..udp + 4], 8472u16.to_be_bytes());
            assert_eq!(data[udp + 12..udp + 15], [0, 0, 7]);
            assert_eq!(port.stats().tx_errors, 0);
            return;
        }
        panic!("no error was told: {:?}", port.stats());
    });
}

#[test]
fn fragmentation_needed_is_told() {
    if root("fragmentation_needed_is_told") {
        too_big_is_told(false);
    }
}

#[test]
fn packet_too_big_is_told() {
    if root("packet_too_big_is_told") {
        too_big_is_told(true);
    }
}
