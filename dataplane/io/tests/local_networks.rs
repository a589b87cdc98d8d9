//! What AF_XDP sockets of a gateway merge beside those of another interface: segments for networks of this host, as these are
//! told at the moment, also to sockets that are open.

mod common;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use canal_dataplane::frame::FramePool;
use canal_dataplane::limits::SUPER_FRAME_BUFFER;
use canal_dataplane::net::{HashSeed, Mac};
use canal_dataplane::port::Port;
use canal_dataplane::testing::packets;
use canal_io::bpf::{Steering, Whose};
use canal_io::tun::{TapConfig, TapDevice, TapPort};
use canal_io::xdp::{Memory, Needs, Ours, XdpConfig, XdpDevice, XdpPort};
use common::{Namespace, root, veth};
use ipnetwork::IpNetwork;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

const SENDER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Addresses in two networks of the overlay.
const TARGETS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 1, 9), Ipv4Addr::new(10, 1, 2, 9)];
/// Segments sent to each.
const SEGMENTS: usize = 4;
/// Bytes of payload in each.
const BYTES: usize = 1000;
const ACK: u8 = 0x10;
/// Attempts, until all segments are found in the ring together.
const ATTEMPTS: usize = 100;

/// An interface with plain hosts behind it, in a host where these networks are.
fn gateway(host: &Namespace, name: &str, local: &str) -> XdpConfig {
    let overlay = "10.1.0.0/16".parse().unwrap();
    XdpConfig {
        ifindex: host.ifindex(name),
        name: name.into(),
        ours: Ours::Plain(Arc::new(BTreeMap::from([(overlay, Whose::Overlay)]))),
        local: Vec::from([local.parse::<IpNetwork>().unwrap()]),
        mtu: 1500,
        workers: 1,
        forbid_native: false,
        busy_poll: None,
    }
}

/// Sends the segments of two streams, one after the other.
fn send(from: &OwnedFd) {
    for target in TARGETS {
        for number in 0..SEGMENTS {
            let mut ip = packets::tcp((SENDER.into(), 1024), (target.into(), 80), ACK, BYTES);
            ip.dont_fragment = true;
            ip.payload[4..8].copy_from_slice(&((number * BYTES) as u32).to_be_bytes());
            let to = SockaddrIn::from(SocketAddrV4::new(target, 0));
            sendto(from.as_raw_fd(), &ip.finished().bytes(), &to, MsgFlags::empty()).unwrap();
        }
    }
}

/// How many packets each stream is that has arrived.
fn arrived(port: &mut XdpPort, pool: &mut FramePool) -> [usize; 2] {
    let mut received = Vec::new();
    port.receive(pool, &mut received, 64);
    let target = |frame: &[u8]| IpAddr::from(<[u8; 4]>::try_from(&frame[30..34]).unwrap());
    let count = |to: Ipv4Addr| received.iter().filter(|one| target(one.frame.data()) == to).count();
    let counted = TARGETS.map(count);
    received.into_iter().for_each(|one| pool.give(one.frame));
    counted
}

#[test]
fn sockets_that_are_open_merge_by_the_networks_that_are_told_later() {
    if !root("sockets_that_are_open_merge_by_the_networks_that_are_told_later") {
        return;
    }
    let [host, sender, other] = ["host", "sender", "other"].map(Namespace::new);
    veth(&host, "gate0", &sender, "eth0");
    veth(&host, "gate1", &other, "eth0");
    sender.ip(&format!("addr add {SENDER}/24 dev eth0"));
    sender.ip("route add 10.1.0.0/16 via 192.0.2.1");
    let mac = Mac(host.mac("gate0"));
    sender.ip(&format!("neigh add 192.0.2.1 lladdr {mac} dev eth0"));
    let from = sender
        .enter(|| socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw).unwrap());
    let [first, then] = ["10.1.1.0/24", "10.1.2.0/24"].map(|local| gateway(&host, "gate0", local));
    // What is for elsewhere could have to be cut again for this one.
    let beside = gateway(&host, "gate1", "10.1.1.0/24");
    assert!(first.same_sockets(&then), "they stay open");
    host.enter(move || {
        let (tap, mut queues) = TapDevice::create(&TapConfig::new(1, 1450)).unwrap();
        let steering = Steering::open(&tap, &queues, HashSeed(1, 2), None).unwrap();
        let detour = TapPort::new(&tap, queues.remove(0), steering.next_hops()).writer();
        let memory = Memory::new(Needs::of(&first).unwrap().and(Needs::of(&beside).unwrap())).unwrap();
        let (mut device, mut wires) = XdpDevice::open(&first, &memory).unwrap();
        let (_beside, mut of_beside) = XdpDevice::open(&beside, &memory).unwrap();
        let mut port = XdpPort::new(wires.remove(0).unwrap(), detour);
        port.add(of_beside.remove(0).unwrap());
        let mut pool = FramePool::new(64, SUPER_FRAME_BUFFER);
        let mut arrives_as = |expected: [usize; 2]| {
            let attempts = (0..ATTEMPTS).map(|_| {
                send(&from);
                std::thread::sleep(Duration::from_millis(5));
                arrived(&mut port, &mut pool)
            });
            let seen: Vec<_> = attempts.take_while(|seen| *seen != expected).collect();
            assert!(seen.len() < ATTEMPTS, "{expected:?} is not among {seen:?}");
        };
        arrives_as([1, SEGMENTS]);
        device.take(&then).unwrap();
        arrives_as([SEGMENTS, 1]);
    });
}
