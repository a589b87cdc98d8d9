//! Every scenario of the bench still runs, with each kind of peer: once, for a moment, with little data. No number is judged.

use serde_json::Value;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// One bench at a time: its generator has so high a priority that two leave the kernel's own threads, and with them every
/// wait for a grace period (making and removing devices), too little of the cores.
static ALONE: Mutex<()> = Mutex::new(());

/// The metrics that `arguments` produce, as "peer scenario metric".
fn measured(arguments: &[&str]) -> Vec<String> {
    assert!(nix::unistd::geteuid().is_root(), "the bench needs root: sudo scripts/test.sh");
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let done = Command::new("timeout")
        .args(["--kill-after=5", "600", env!("CARGO_BIN_EXE_canal-bench"), "--smoke", "-o", "json"])
        .args(arguments)
        .output()
        .expect("the bench starts");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{arguments:?}: {said}");
    let lines = String::from_utf8(done.stdout).expect("text");
    let metric = |line: &str| {
        let value: Value = serde_json::from_str(line).expect(line);
        assert_eq!(value["n"], 1, "{line}");
        assert!(value["median"].as_f64().is_some_and(f64::is_finite), "{line}");
        let [peer, scenario, metric] = ["peer", "scenario", "metric"].map(|k| value[k].as_str().expect(k));
        format!("{peer} {scenario} {metric}")
    };
    lines.lines().map(metric).collect()
}

fn expect(found: &[String], wanted: &[&str]) {
    for metric in wanted {
        assert!(found.iter().any(|f| f == metric), "no {metric} in {found:#?}");
    }
}

#[test]
fn two_nodes() {
    let found = measured(&[
        "tcp-1",
        "tcp-8",
        "rtt",
        "memory",
        "start",
        "rtt-load",
        "--peers",
        "kernel-iptables-3,canal-tap-3,canal-af-xdp",
    ]);
    expect(
        &found,
        &[
            "kernel-iptables-3 tcp-1 gbit_per_s",
            "canal-tap-3 tcp-1 gbit_per_s",
            "canal-tap-3 tcp-8 gbit_per_s",
            "canal-tap-3 rtt p99_us",
            "canal-tap-3 memory flows_mb",
            "canal-tap-3 start lease_to_packet_ms",
            "canal-tap-3 rtt-load p99_us",
            "canal-af-xdp tcp-1 gbit_per_s",
            "canal-af-xdp memory flows_mb",
        ],
    );
}

#[test]
fn packets_through_one_node() {
    let found = measured(&[
        "newflows",
        "encap-64",
        "decap-64",
        "encap-imix",
        "decap-imix",
        "encap-1400",
        "flows-1000",
        "flows-100000",
        "--peers",
        "kernel-iptables-10,kernel-nftables-10,canal-tap-10,canal-udp,canal-af-xdp-10,af-xdp-bound",
    ]);
    expect(
        &found,
        &[
            "kernel-iptables-10 newflows flows_per_s",
            "kernel-nftables-10 newflows flows_per_s",
            "canal-tap-10@1core newflows flows_per_s",
            "canal-tap-10@split newflows ns_per_flow",
            "kernel-nftables-10 encap-64 pps",
            "canal-tap-10@1core decap-64 ns_per_packet",
            "canal-udp@split encap-imix gbit_per_s",
            "canal-udp@1core decap-imix pps",
            "kernel-iptables-10 encap-1400 pps",
            "canal-tap-10@1core flows-1000 pps",
            "canal-tap-10@split flows-100000 pps",
            "canal-af-xdp-10@split newflows flows_per_s",
            "af-xdp-bound@1core encap-64 pps",
            "af-xdp-bound@split decap-imix ns_per_packet",
        ],
    );
}

#[test]
fn one_node_in_trouble() {
    let peers = "canal-tap-3,canal-udp-3,canal-af-xdp-3,canal-gateway-3";
    let found = measured(&["restart", "overload", "--peers", peers]);
    expect(
        &found,
        &[
            "canal-tap-3 restart terminated_blocked_ms",
            "canal-udp-3 restart killed_blocked_ms",
            "canal-tap-3@1core overload status_p99_ms",
            "canal-tap-3@split overload unaccounted_percent",
            "canal-udp-3@split overload enforced_p99_ms",
            "canal-af-xdp-3@1core overload after_by_before",
            "canal-gateway-3@split overload unaccounted_percent",
        ],
    );
}

#[test]
fn round_trips_through_one_node() {
    let peers = "kernel-vxlan,canal-tap-3,canal-af-xdp,af-xdp-bound";
    let found = measured(&["rtt-node", "rtt-node-load", "--peers", peers]);
    for peer in peers.split(',') {
        expect(&found, &[&format!("{peer} rtt-node p99.9_us"), &format!("{peer} rtt-node-load pps")]);
    }
}

/// Without Open vSwitch on the machine nothing is measured, and that is no failure.
#[test]
fn open_vswitch_where_it_is_installed() {
    let installed =
        Command::new("ovs-vswitchd").arg("--version").output().is_ok_and(|done| done.status.success());
    let scenarios = ["encap-64", "decap-64", "newflows", "rtt-node", "rtt-node-load"];
    let found = measured(&[&scenarios[..], &["--peers", "ovs-none,ovs-ct-10"]].concat());
    if installed {
        expect(
            &found,
            &[
                "ovs-none@1core encap-64 pps",
                "ovs-none@split decap-64 pps",
                "ovs-ct-10@split encap-64 ns_per_packet",
                "ovs-ct-10@split newflows flows_per_s",
                "ovs-none rtt-node p99.9_us",
                "ovs-ct-10 rtt-node-load pps",
            ],
        );
    } else {
        assert_eq!(found, [""; 0]);
    }
}

#[test]
fn a_large_cluster_in_small() {
    let found = measured(&["policy-change", "load", "updates"]);
    expect(
        &found,
        &[
            "canal-tap policy-change enforced_p99_ms",
            "canal-tap load seconds",
            "canal-tap load over_raw_b_per_endpoint",
            "canal-tap updates p99_us",
            "kernel-vxlan updates updates_per_s",
        ],
    );
}
