//! How fast the ports are: one TCP stream from workload to workload over two hosts on this machine. Run by hand:
//!
//! ```text
//! cargo test --release -p canal-io --test throughput -- --ignored --nocapture --test-threads 1
//! ```

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::overlay::Overlay;
use common::site::{Host, Wire};
use common::{Namespace, root, veth};

const RUNS: usize = 5;
const SECONDS: u64 = 2;

fn two_hosts() -> (Host, Host) {
    let (left, right) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    let overlay = Overlay { local: left, remote: right, port: 4789, vni: 9, outer_checksum: false };
    let (one, two) = (Host::new(overlay, 1), Host::new(Overlay { local: right, remote: left, ..overlay }, 2));
    veth(&one.host, "eth0", &two.host, "eth0");
    one.host.ip("addr add 192.0.2.1/24 dev eth0");
    two.host.ip("addr add 192.0.2.2/24 dev eth0");
    (one, two)
}

/// Gbit/s of each run.
fn stream(from: &Namespace, to: &Namespace) -> Vec<f64> {
    (0..RUNS)
        .map(|run| {
            let port = 7100 + run as u16;
            let (ready, wait) = std::sync::mpsc::channel();
            let receiving = to.spawn(move || {
                let listener = TcpListener::bind(("10.9.0.2", port)).unwrap();
                ready.send(()).unwrap();
                let (mut stream, _) = listener.accept().unwrap();
                let (mut buffer, mut total, start) = (vec![0; 1 << 17], 0u64, Instant::now());
                while let Ok(len @ 1..) = stream.read(&mut buffer) {
                    total += len as u64;
                }
                total as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9
            });
            wait.recv().unwrap();
            from.enter(move || {
                let mut stream = TcpStream::connect(("10.9.0.2", port)).unwrap();
                let (buffer, start) = (vec![0; 1 << 17], Instant::now());
                while start.elapsed() < Duration::from_secs(SECONDS) {
                    stream.write_all(&buffer).unwrap();
                }
            });
            receiving.join().unwrap()
        })
        .collect()
}

fn report(name: &str, mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    let median = runs[RUNS / 2];
    println!("{name}: median {median:.1} Gbit/s, from {:.1} to {:.1}", runs[0], runs[RUNS - 1]);
    median
}

#[test]
#[ignore = "a measurement"]
fn one_tcp_stream() {
    if !root("one_tcp_stream") {
        return;
    }
    for wire in [Wire::Tap, Wire::Udp] {
        let (one, two) = two_hosts();
        let (_first, _second) = (one.join(wire), two.join(wire));
        one.workload.run("ping -c 1 -W 5 10.9.0.2");
        let median = report(&format!("{wire:?}"), stream(&one.workload, &two.workload));
        assert!(median > 0.0);
    }
    // The kernel's VXLAN device on a bridge with the workload.
    let (one, two) = two_hosts();
    for (site, remote) in [(&one, "192.0.2.2"), (&two, "192.0.2.1")] {
        site.host.ip("link add br0 type bridge");
        site.host.ip(&format!("link add vx0 type vxlan id 9 dstport 4789 remote {remote} dev eth0"));
        site.host.ip("link set vx0 master br0");
        site.host.ip("link set wl master br0");
        for device in ["br0", "vx0"] {
            site.host.ip(&format!("link set {device} up"));
        }
    }
    one.workload.run("ping -c 3 -i 0.3 -W 5 10.9.0.2");
    assert!(report("kernel", stream(&one.workload, &two.workload)) > 0.0);
}
