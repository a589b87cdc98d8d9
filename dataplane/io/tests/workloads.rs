//! Workloads behind veth pairs, joined by a daemon in miniature over the TAP port.

mod common;

use canal_dataplane::net::HashSeed;
use canal_dataplane::port::{Egress, Ingress, Received};
use canal_io::bpf::{AttachMode, Steering};
use canal_io::tun::{TapConfig, TapDevice, TapPort};
use common::daemon::Worker;
use common::{Namespace, root, tcp_transfer, veth};

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
        for (namespace, last) in [(&a, 1), (&b, 2)] {
            namespace.ip(&format!("addr add 10.9.0.{last}/24 dev eth0"));
            namespace.ip(&format!("addr add fd00:9::{last}/64 dev eth0 nodad"));
        }
        Self { host, a, b }
    }

    fn join(&self, mode: Option<AttachMode>) -> Worker {
        let (wa, wb) = (self.host.ifindex("wa"), self.host.ifindex("wb"));
        let (mac_a, mac_b) = (self.a.mac("eth0"), self.b.mac("eth0"));
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
            if data[0] & 1 == 0 {
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
