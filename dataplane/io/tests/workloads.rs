//! Workloads behind veth pairs, joined by a daemon in miniature over the TAP port.

mod common;

use canal_dataplane::net::HashSeed;
use canal_dataplane::port::{Egress, Ingress, Received};
use canal_io::bpf::{AttachMode, Steering};
use canal_io::tun::{TapConfig, TapDevice, TapPort};
use common::daemon::Worker;
use common::{Namespace, root, tcp_transfer, veth};

/// ARP, or neighbour discovery: an answer is addressed to who asked.
fn is_neighbor_message(frame: &[u8]) -> bool {
    match [frame[12], frame[13]] {
        [0x08, 0x06] => true,
        [0x86, 0xdd] => frame[20] == 58 && matches!(frame.get(54), Some(133..=137)),
        _ => false,
    }
}

/// Two workloads, a and b, at one host.
struct Pair {
    host: Namespace,
    a: Namespace,
    b: Namespace,
}

impl Pair {
    fn new() -> Self {
        let [host, a, b] = ["host", "a", "b"].map(Namespace::new);
        veth(&host, "wa", &a, "eth0");
        veth(&host, "wb", &b, "eth0");
        let pair = Self { host, a, b };
        pair.number();
        pair
    }

    fn number(&self) {
        for (namespace, last) in [(&self.a, 1), (&self.b, 2)] {
            namespace.ip(&format!("addr add 10.9.0.{last}/24 dev eth0"));
            namespace.ip(&format!("addr add fd00:9::{last}/64 dev eth0 nodad"));
        }
    }

    /// The same with a bridge between each host-side interface and its workload, as in front of a virtual machine: frames
    /// go out of the interface, and only the right station takes them.
    fn bridged() -> Self {
        let [host, a, b] = ["host", "a", "b"].map(Namespace::new);
        for (namespace, name) in [(&a, "a"), (&b, "b")] {
            host.ip(&format!("link add w{name} type veth peer name p{name}"));
            host.ip(&format!("link add br{name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"));
            veth(&host, &format!("v{name}"), namespace, "eth0");
            for port in [format!("p{name}"), format!("v{name}")] {
                host.ip(&format!("link set {port} master br{name} up"));
            }
            host.ip(&format!("link set w{name} up"));
            host.ip(&format!("link set br{name} up"));
        }
        let pair = Self { host, a, b };
        pair.number();
        pair
    }

    /// Runs a daemon in miniature that knows the workloads' Ethernet addresses.
    fn join(&self, mode: Option<AttachMode>) -> Worker {
        self.join_as(mode, self.a.mac("eth0"), self.b.mac("eth0"))
    }

    /// Runs one that does not, and writes what the core writes then.
    fn join_without_addresses(&self) -> Worker {
        self.join_as(None, [0xff; 6], [0xff; 6])
    }

    fn join_as(&self, mode: Option<AttachMode>, mac_a: [u8; 6], mac_b: [u8; 6]) -> Worker {
        let (wa, wb) = (self.host.ifindex("wa"), self.host.ifindex("wb"));
        let open = move || {
            let (device, mut queues) = TapDevice::create(&TapConfig::new(1, 1500)).unwrap();
            let mut steering = Steering::open(&device, &queues, HashSeed(1, 2), mode).unwrap();
            steering.attach_workload(wa).unwrap();
            steering.attach_workload(wb).unwrap();
            assert_eq!(steering.queue_program(), Ok(()));
            assert_eq!(steering.attached().len(), 3);
            (TapPort::new(&device, queues.remove(0), steering.next_hops()), steering)
        };
        Worker::start(&self.host, open, move |packet: &mut Received| {
            let (to, mac) = match packet.ingress {
                Ingress::Workload(from) if from == wa => (wb, mac_b),
                Ingress::Workload(from) if from == wb => (wa, mac_a),
                _ => return None,
            };
            let data = packet.frame.data_mut();
            if data[0] & 1 == 0 && !is_neighbor_message(data) {
                data[..6].copy_from_slice(&mac);
            }
            Some(Egress::Workload(to))
        })
    }
}

fn two_workloads_talk(mode: Option<AttachMode>) {
    let pair = Pair::new();
    let worker = pair.join(mode);
    pair.a.run("ping -c 2 -i 0.2 -W 5 10.9.0.2");
    pair.a.run("ping -c 2 -i 0.2 -W 5 fd00:9::2");
    tcp_transfer(&pair.a, &pair.b, "10.9.0.2:7000", 20_000_000);
    tcp_transfer(&pair.b, &pair.a, "[fd00:9::1]:7000", 20_000_000);
    assert!(worker.largest_frame() > 30_000, "super-frames stay whole: {}", worker.largest_frame());
    let stats = worker.stop();
    assert_eq!((stats.tx_errors, stats.tx_full), (0, 0));
}

#[test]
fn two_workloads_talk_through_tcx() {
    if root("two_workloads_talk_through_tcx") {
        two_workloads_talk(None);
    }
}

#[test]
fn two_workloads_talk_through_clsact() {
    if root("two_workloads_talk_through_clsact") {
        two_workloads_talk(Some(AttachMode::Clsact));
    }
}

/// TCP in both directions and families, again after one of the two has changed its address.
fn workloads_of_unknown_address_talk(pair: &Pair) {
    let worker = pair.join_without_addresses();
    let exchange = || {
        tcp_transfer(&pair.b, &pair.a, "10.9.0.1:7000", 1_000_000);
        tcp_transfer(&pair.a, &pair.b, "[fd00:9::2]:7000", 1_000_000);
    };
    pair.a.run("ping -c 1 -W 5 10.9.0.2");
    exchange();
    pair.a.ip("link set eth0 address 02:00:00:00:00:aa");
    pair.a.run("ping -c 1 -W 5 10.9.0.2");
    exchange();
    let stats = worker.stop();
    assert_eq!((stats.tx_errors, stats.tx_full), (0, 0));
}

#[test]
fn workloads_whose_address_nobody_knows_take_tcp_behind_veths() {
    if root("workloads_whose_address_nobody_knows_take_tcp_behind_veths") {
        workloads_of_unknown_address_talk(&Pair::new());
    }
}

#[test]
fn workloads_whose_address_nobody_knows_take_tcp_behind_bridges() {
    if root("workloads_whose_address_nobody_knows_take_tcp_behind_bridges") {
        workloads_of_unknown_address_talk(&Pair::bridged());
    }
}
