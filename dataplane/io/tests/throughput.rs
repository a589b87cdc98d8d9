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

/// Processor time of this process so far, in seconds: everything but the kernel's own threads, both ends included.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime and stime, fields 14 and 15, in ticks of 10 ms.
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// Gbit/s and processor seconds per gigabyte of each run.
fn stream(from: &Namespace, to: &Namespace) -> Vec<(f64, f64)> {
    (0..RUNS)
        .map(|run| {
            let before = processor();
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
                (total as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9, total as f64 / 1e9)
            });
            wait.recv().unwrap();
            from.enter(move || {
                let mut stream = TcpStream::connect(("10.9.0.2", port)).unwrap();
                let (buffer, start) = (vec![0; 1 << 17], Instant::now());
                while start.elapsed() < Duration::from_secs(SECONDS) {
                    stream.write_all(&buffer).unwrap();
                }
            });
            let (rate, gigabytes) = receiving.join().unwrap();
            (rate, (processor() - before) / gigabytes)
        })
        .collect()
}

fn report(name: &str, runs: Vec<(f64, f64)>) -> f64 {
    let (mut rates, mut costs): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
    rates.sort_by(f64::total_cmp);
    costs.sort_by(f64::total_cmp);
    let (rate, cost) = (rates[RUNS / 2], costs[RUNS / 2]);
    println!(
        "{name}: median {rate:.1} Gbit/s, from {:.1} to {:.1}; {cost:.2} processor seconds per gigabyte",
        rates[0],
        rates[RUNS - 1]
    );
    rate
}

fn through(wire: Wire) {
    let (one, two) = two_hosts();
    let (_first, _second) = (one.join(wire), two.join(wire));
    one.workload.run("ping -c 1 -W 5 10.9.0.2");
    assert!(report(&format!("{wire:?}"), stream(&one.workload, &two.workload)) > 0.0);
}

#[test]
#[ignore = "a measurement"]
fn by_tap() {
    if root("by_tap") {
        through(Wire::Tap);
    }
}

#[test]
#[ignore = "a measurement"]
fn by_udp() {
    if root("by_udp") {
        through(Wire::Udp);
    }
}

#[test]
#[ignore = "a measurement"]
fn by_af_xdp() {
    if root("by_af_xdp") {
        through(Wire::Xdp(canal_io::xdp::Mode::Native));
    }
}

/// The kernel's VXLAN device on a bridge with the workload.
#[test]
#[ignore = "a measurement"]
fn by_kernel() {
    if !root("by_kernel") {
        return;
    }
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
    assert!(report("Kernel", stream(&one.workload, &two.workload)) > 0.0);
}
