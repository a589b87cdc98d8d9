//! AF_XDP sockets over a device that is full: what it does not take waits in the ring until it is offered again.

mod common;

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use canal_dataplane::frame::FramePool;
use canal_dataplane::limits::SUPER_FRAME_BUFFER;
use canal_dataplane::net::{HashSeed, Mac};
use canal_dataplane::offload::Offload;
use canal_dataplane::port::{Egress, Outgoing, Port};
use canal_dataplane::testing::packets;
use canal_io::bpf::Steering;
use canal_io::tun::{TapConfig, TapDevice, TapPort};
use canal_io::xdp::{Memory, Needs, Ours, Vtep, XdpConfig, XdpDevice, XdpPort};
use common::{Namespace, root, run, veth};
use nix::sys::socket::{setsockopt, sockopt};

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const PORT: u16 = 7000;
/// Packets: several times the 256 that wait for a receiver of a veth device, and fewer than a socket's ring has room for.
const PACKETS: usize = 1500;
/// Attempts, a millisecond apart.
const ATTEMPTS: usize = 1000;

/// Has the interface's packets received by a thread of the kernel on core 0, which waits for whoever has a higher priority.
fn receive_in_a_thread(namespace: &Namespace, interface: &str) {
    namespace.run(&format!("ethtool -K {interface} gro on"));
    let threaded = format!("echo 1 > /sys/class/net/{interface}/threaded");
    run("ip", &["netns", "exec", &namespace.name, "sh", "-c", &threaded]);
    let name = format!("napi/{interface}-");
    let thread = std::fs::read_dir("/proc").unwrap().flatten().find(|process| {
        std::fs::read_to_string(process.path().join("comm")).is_ok_and(|comm| comm.starts_with(&name))
    });
    let thread = thread.expect("the thread").file_name();
    run("taskset", &["-pc", "0", thread.to_str().unwrap()]);
}

/// From now on the calling thread has core 0 for itself, but when it sleeps.
fn take_core_0() {
    let thread = nix::unistd::gettid().to_string();
    run("taskset", &["-pc", "0", &thread]);
    run("chrt", &["--fifo", "--pid", "1", &thread]);
}

fn port(config: &XdpConfig) -> (XdpPort, impl Sized) {
    let (tap, mut queues) = TapDevice::create(&TapConfig::new(1, config.mtu)).unwrap();
    let steering = Steering::open(&tap, &queues, HashSeed(1, 2), None).unwrap();
    let detour = TapPort::new(&tap, queues.remove(0), steering.next_hops()).writer();
    let memory = Memory::new(Needs::of(config).unwrap()).unwrap();
    let (device, mut wires) = XdpDevice::open(config, &memory).unwrap();
    (XdpPort::new(wires.remove(0).unwrap(), detour), (tap, steering, device))
}

/// Packets with these numbers in them.
fn outgoing(pool: &mut FramePool, numbers: std::ops::Range<usize>) -> Vec<Outgoing> {
    let packet = |number: usize| {
        let mut ip = packets::udp((HOST.into(), PORT), (PEER.into(), PORT), 8);
        ip.payload[8..].copy_from_slice(&number.to_be_bytes());
        let mut frame = pool.take().expect("a frame");
        assert!(frame.fill(&[&[0; 12][..], &[8, 0], &ip.finished().bytes()].concat()));
        Outgoing { frame, offload: Offload::default(), egress: Egress::Underlay }
    };
    numbers.map(packet).collect()
}

#[test]
fn what_a_full_device_has_not_taken_is_sent_when_it_is_offered_again() {
    if !root("what_a_full_device_has_not_taken_is_sent_when_it_is_offered_again") {
        return;
    }
    // Kernel threads have no namespace: their names must be this test's.
    let far = format!("p{}", std::process::id());
    let [host, peer] = ["host", "peer"].map(Namespace::new);
    veth(&host, "eth0", &peer, &far);
    host.ip(&format!("addr add {HOST}/24 dev eth0"));
    peer.ip(&format!("addr add {PEER}/24 dev {far}"));
    let mac = Mac(peer.mac(&far));
    host.ip(&format!("neigh replace {PEER} lladdr {mac} dev eth0 nud permanent"));
    // The thread receives nothing of a sender that leaves segmentation to others.
    host.run("ethtool -K eth0 tso off");
    receive_in_a_thread(&peer, &far);
    let receiver = peer.enter(|| {
        let socket = UdpSocket::bind((PEER, PORT)).unwrap();
        setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    });
    let config = XdpConfig {
        ifindex: host.ifindex("eth0"),
        name: "eth0".into(),
        ours: Ours::Vxlan { vtep: Vtep { v4: Some(HOST), v6: None, port: 8472 }, overlay_mtu: 1450 },
        local: Vec::new(),
        mtu: 1500,
        workers: 1,
        forbid_native: false,
        busy_poll: None,
    };
    host.enter(move || {
        let (mut port, _device) = port(&config);
        let mut pool = FramePool::new(PACKETS, SUPER_FRAME_BUFFER);
        let mut received = Vec::new();
        let arrived = move || {
            let mut number = [0; 8];
            std::iter::from_fn(|| receiver.recv(&mut number).ok().map(|_| u64::from_be_bytes(number)))
                .collect::<Vec<_>>()
        };
        // The next hop is looked up when it is first needed.
        let found = (0..ATTEMPTS).any(|_| {
            port.transmit(&mut outgoing(&mut pool, 0..1), &mut pool);
            std::thread::sleep(Duration::from_millis(1));
            port.stats().tx_frames > 0
        });
        assert!(found, "the next hop");
        assert!(!port.is_held_up());
        std::thread::sleep(Duration::from_millis(50));
        arrived();

        take_core_0();
        port.transmit(&mut outgoing(&mut pool, 0..PACKETS), &mut pool);
        let mut times = 0;
        while port.is_held_up() {
            times += 1;
            assert!(times < ATTEMPTS, "{times} times held up");
            std::thread::sleep(Duration::from_millis(1));
            port.receive(&mut pool, &mut received, 64);
        }
        std::thread::sleep(Duration::from_millis(50));
        let arrived = arrived();
        assert!(times > 0, "the device takes everything at once");
        // The device drops the one that finds it full.
        assert!(arrived.len() >= PACKETS - times, "{} of {PACKETS}, held up {times} times", arrived.len());
        assert!(arrived.is_sorted(), "in another order: {arrived:?}");
        let stats = port.stats();
        assert_eq!((stats.tx_full, stats.tx_errors, pool.available()), (0, 0, PACKETS));
    });
}
