//! Which of the sockets that share the VXLAN port gets a datagram: that of the worker that owns the inner flow.

mod common;

use std::net::UdpSocket;

use canal_dataplane::frame::FramePool;
use canal_dataplane::limits::{BATCH, SMALL_FRAME_BUFFER};
use canal_dataplane::net::{FlowKey, HashSeed};
use canal_io::bpf::Steering;
use canal_io::tun::{TapConfig, TapDevice};
use canal_io::udp::UdpReceiver;
use common::{Namespace, root};

/// As wide as those of a daemon: small keys do not spread flows.
const SEED: HashSeed = HashSeed(0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03);
const WORKERS: usize = 3;
const FLOWS: u16 = 60;
const PORT: u16 = 4789;

/// A VXLAN datagram with a UDP packet of flow number `flow` inside.
fn datagram(flow: u16) -> Vec<u8> {
    let mut bytes = vec![8, 0, 0, 0, 0, 0, 9, 0];
    bytes.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    bytes.extend([0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
    bytes.extend(flow.to_be_bytes());
    bytes.extend([0, 53, 0, 8, 0, 0]);
    bytes
}

fn owner(flow: u16) -> usize {
    let (from, to) = (u32::from_be_bytes([10, 9, 0, 1]), u32::from_be_bytes([10, 9, 0, 2]));
    FlowKey::v4(from, to, (flow, 53), 17, false).0.owner(SEED, WORKERS as u32) as usize
}

/// The flow in a frame whose outer headers are back.
fn flow_of(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[42 + 42], frame[42 + 43]])
}

/// How many datagrams arrived, and how many of them at their owners.
fn spread(with_program: bool) -> (usize, usize) {
    let namespace = Namespace::new("host");
    namespace.enter(move || {
        let (device, queues) = TapDevice::create(&TapConfig::new(WORKERS, 1430)).unwrap();
        let mut steering = Steering::open(&device, &queues, SEED, None).unwrap();
        let vtep = [127, 0, 0, 1].into();
        let mut receivers: Vec<_> =
            (0..WORKERS).map(|_| UdpReceiver::open(vtep, PORT, 1430).unwrap()).collect();
        if with_program {
            steering.spread(std::os::fd::AsFd::as_fd(&receivers[0])).unwrap();
        }
        // One outer flow: by that alone, all would arrive at one socket.
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for flow in 1..=FLOWS {
            sender.send_to(&datagram(flow), ("127.0.0.1", PORT)).unwrap();
        }
        // Not VXLAN: somebody gets it all the same.
        sender.send_to(&[0; 9], ("127.0.0.1", PORT)).unwrap();
        let mut pool = FramePool::new(4 * BATCH, SMALL_FRAME_BUFFER);
        let (mut arrived, mut at_owner) = (0, 0);
        for (worker, receiver) in receivers.iter_mut().enumerate() {
            let mut received = Vec::new();
            receiver.receive(&mut pool, &mut received, 2 * BATCH);
            arrived += received.len();
            for packet in received {
                let frame = packet.frame.data();
                at_owner += usize::from(frame.len() > 42 + 43 && owner(flow_of(frame)) == worker);
                pool.give(packet.frame);
            }
        }
        (arrived, at_owner)
    })
}

#[test]
fn every_datagram_arrives_at_the_worker_that_owns_the_inner_flow() {
    if !root("every_datagram_arrives_at_the_worker_that_owns_the_inner_flow") {
        return;
    }
    let flows = usize::from(FLOWS);
    assert_eq!(spread(true), (flows + 1, flows));
    let (arrived, by_chance) = spread(false);
    assert_eq!(arrived, flows + 1);
    assert!(by_chance < flows * 2 / 3, "the kernel alone knows outer flows only: {by_chance} of {flows}");
}
