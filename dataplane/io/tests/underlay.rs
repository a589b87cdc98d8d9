//! A workload behind canal's ports and, at another host, a kernel VXLAN device or canal again.

mod common;

use common::site::Wire;
use common::sites::{Site, two_hosts};
use common::{root, tcp_transfer};

impl Site {
    fn talk(&self, wire: Wire) {
        let worker = self.site.join(wire);
        let workload = &self.site.workload;
        workload.run("ping -c 2 -i 0.2 -W 5 10.9.0.2");
        tcp_transfer(workload, &self.peer, "10.9.0.2:7000", 20_000_000);
        tcp_transfer(&self.peer, workload, "10.9.0.1:7000", 20_000_000);
        assert!(worker.largest_frame() > 30_000, "super-frames stay whole: {}", worker.largest_frame());
        let stats = worker.stop();
        assert_eq!((stats.tx_errors, stats.tx_full), (0, 0));
    }
}

#[test]
fn a_kernel_vxlan_peer_over_ipv4() {
    if root("a_kernel_vxlan_peer_over_ipv4") {
        Site::new(false, false).talk(Wire::Tap);
    }
}

#[test]
fn a_kernel_vxlan_peer_over_ipv4_with_outer_checksums() {
    if root("a_kernel_vxlan_peer_over_ipv4_with_outer_checksums") {
        Site::new(false, true).talk(Wire::Tap);
    }
}

#[test]
fn a_kernel_vxlan_peer_over_ipv6() {
    if root("a_kernel_vxlan_peer_over_ipv6") {
        Site::new(true, false).talk(Wire::Tap);
        Site::new(true, true).talk(Wire::Tap);
    }
}

#[test]
fn a_kernel_vxlan_peer_over_ipv4_by_udp_sockets() {
    if root("a_kernel_vxlan_peer_over_ipv4_by_udp_sockets") {
        Site::new(false, false).talk(Wire::Udp);
    }
}

#[test]
fn a_kernel_vxlan_peer_over_ipv6_by_udp_sockets() {
    if root("a_kernel_vxlan_peer_over_ipv6_by_udp_sockets") {
        Site::new(true, false).talk(Wire::Udp);
    }
}

/// Outer fragments take the kernel's way: reassembled there, they reach the daemon by its socket.
#[test]
fn outer_fragments_are_reassembled_by_the_kernel() {
    if !root("outer_fragments_are_reassembled_by_the_kernel") {
        return;
    }
    let site = Site::new(false, false);
    // The router cuts what the peer sends, which has no DF; the way back is wide.
    site.router.ip("route replace 192.0.2.0/24 dev left mtu lock 900");
    let worker = site.site.join(Wire::Tap);
    site.peer.run("ping -c 3 -i 0.2 -W 5 -s 1300 10.9.0.1");
    let stats = worker.stop();
    assert_eq!((stats.tx_errors, stats.rx_dropped), (0, 0));
    // The counters of IPv4 are two lines, names and values.
    let counters = site.router.run("cat /proc/net/snmp");
    let mut ip = counters.lines().filter(|line| line.starts_with("Ip:")).map(str::split_whitespace);
    let (names, values) = (ip.next().unwrap(), ip.next().unwrap());
    let created = names.zip(values).find(|(name, _)| *name == "FragCreates").unwrap().1;
    assert_ne!(created, "0", "the router did cut");
}

/// Two hosts with canal, wire to wire.
fn two_hosts_talk(a: Wire, b: Wire) {
    let (one, two) = two_hosts();
    let (first, second) = (one.join(a), two.join(b));
    one.workload.run("ping -c 2 -i 0.2 -W 5 10.9.0.2");
    tcp_transfer(&one.workload, &two.workload, "10.9.0.2:7000", 20_000_000);
    tcp_transfer(&two.workload, &one.workload, "10.9.0.1:7000", 20_000_000);
    for worker in [first, second] {
        assert!(worker.largest_frame() > 30_000);
        let stats = worker.stop();
        assert_eq!((stats.tx_errors, stats.tx_full, stats.rx_dropped), (0, 0, 0));
    }
}

#[test]
fn both_by_tap() {
    if root("both_by_tap") {
        two_hosts_talk(Wire::Tap, Wire::Tap);
    }
}

#[test]
fn both_by_udp_sockets() {
    if root("both_by_udp_sockets") {
        two_hosts_talk(Wire::Udp, Wire::Udp);
    }
}

#[test]
fn one_by_udp_sockets_the_other_by_tap() {
    if root("one_by_udp_sockets_the_other_by_tap") {
        two_hosts_talk(Wire::Udp, Wire::Tap);
    }
}
