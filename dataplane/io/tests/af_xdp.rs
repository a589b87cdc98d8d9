//! AF_XDP sockets on the underlay, workloads behind the TAP device: in the driver and behind it, with a kernel VXLAN peer
//! behind a router, with ourselves, and beside everything else that an interface carries.

mod common;

use std::time::{Duration, Instant};

use canal_io::xdp::{AttachError, Memory, Mode, Needs, XdpConfig, XdpDevice, XdpError};
use common::site::Wire;
use common::sites::{Site, two_hosts};
use common::{root, tcp_transfer};

const MODES: [Mode; 2] = [Mode::Native, Mode::Generic];
const SIZE: usize = 4_000_000;
/// Segments that it takes at least.
const SEGMENTS: u64 = SIZE as u64 / 1500;

impl Site {
    /// Ping and TCP both ways, all of it arriving.
    fn talk(&self, mode: Mode) {
        let worker = self.site.join(Wire::Xdp(mode));
        self.exchange();
        let stats = worker.stop();
        assert_eq!((stats.tx_errors, stats.tx_full), (0, 0), "{mode:?}");
        assert!(stats.tx_frames > SEGMENTS, "the sockets sent {} frames, {mode:?}", stats.tx_frames);
        // Behind the driver, super-frames of a sender on this machine come by the TAP device.
        let expected = if mode == Mode::Native { SEGMENTS } else { 10 };
        assert!(stats.rx_frames > expected, "the sockets received {} frames, {mode:?}", stats.rx_frames);
    }

    fn exchange(&self) {
        let workload = &self.site.workload;
        // The first packets have the kernel find the router; the others find it known.
        workload.run("ping -c 4 -i 0.2 -W 5 10.9.0.2");
        tcp_transfer(workload, &self.peer, "10.9.0.2:7000", SIZE);
        tcp_transfer(&self.peer, workload, "10.9.0.1:7000", SIZE);
    }
}

#[test]
fn a_kernel_vxlan_peer_over_ipv4() {
    if root("a_kernel_vxlan_peer_over_ipv4") {
        MODES.iter().for_each(|mode| Site::new(false, false).talk(*mode));
    }
}

#[test]
fn a_kernel_vxlan_peer_over_ipv4_with_outer_checksums() {
    if root("a_kernel_vxlan_peer_over_ipv4_with_outer_checksums") {
        MODES.iter().for_each(|mode| Site::new(false, true).talk(*mode));
    }
}

#[test]
fn a_kernel_vxlan_peer_over_ipv6() {
    if root("a_kernel_vxlan_peer_over_ipv6") {
        MODES.iter().for_each(|mode| Site::new(true, true).talk(*mode));
    }
}

/// Senders that finish checksums and cut themselves, at either end.
#[test]
fn offloads_may_be_off() {
    if !root("offloads_may_be_off") {
        return;
    }
    for mode in MODES {
        let site = Site::new(false, false);
        for (namespace, device) in [
            (&site.peer, "eth0"),
            (&site.peer, "vx0"),
            (&site.router, "left"),
            (&site.router, "right"),
            (&site.site.workload, "eth0"),
        ] {
            namespace.run(&format!("ethtool -K {device} tx off tso off gso off gro off"));
        }
        site.talk(mode);
    }
}

/// Outer fragments take the kernel's way: reassembled there, they reach the daemon by its socket.
#[test]
fn outer_fragments_are_reassembled_by_the_kernel() {
    if !root("outer_fragments_are_reassembled_by_the_kernel") {
        return;
    }
    for mode in MODES {
        let site = Site::new(false, false);
        site.router.ip("route replace 192.0.2.0/24 dev left mtu lock 900");
        let worker = site.site.join(Wire::Xdp(mode));
        site.peer.run("ping -c 3 -i 0.2 -W 5 -s 1300 10.9.0.1");
        let stats = worker.stop();
        assert_eq!((stats.tx_errors, stats.rx_dropped), (0, 0));
    }
}

/// The host's own traffic is none of ours: address resolution, echo, a TCP connection to a service of the host.
#[test]
fn the_host_s_own_traffic_passes() {
    if !root("the_host_s_own_traffic_passes") {
        return;
    }
    for mode in MODES {
        let site = Site::new(false, false);
        let worker = site.site.join(Wire::Xdp(mode));
        site.router.ip("neigh flush dev left");
        site.peer.run("ping -c 2 -i 0.2 -W 5 192.0.2.1");
        tcp_transfer(&site.peer, &site.site.host, "192.0.2.1:22", SIZE);
        tcp_transfer(&site.site.host, &site.peer, "198.51.100.1:22", SIZE);
        // UDP to the overlay's port of another of the host's addresses.
        site.site.host.ip("addr add 192.0.2.77/32 dev lo");
        site.exchange();
        worker.stop();
    }
}

/// The next hop's address is what the kernel believes, whenever that changes.
#[test]
fn a_router_that_changes_its_address_is_followed() {
    if !root("a_router_that_changes_its_address_is_followed") {
        return;
    }
    let site = Site::new(false, false);
    let worker = site.site.join(Wire::Xdp(Mode::Native));
    site.exchange();
    site.router.ip("link set left down");
    site.router.ip("link set left address 02:00:00:00:77:77");
    site.router.ip("link set left up");
    // The host believes the old address until its kernel has asked again, with or without us.
    site.site.host.ip("neigh flush dev eth0");
    site.exchange();
    worker.stop();
}

#[test]
fn what_was_taken_over_is_given_back_and_can_be_taken_again_at_once() {
    if !root("what_was_taken_over_is_given_back_and_can_be_taken_again_at_once") {
        return;
    }
    for mode in MODES {
        let site = Site::new(false, false);
        let config = site.site.xdp_config(mode);
        site.site.host.enter(move || {
            let needs = Needs::of(&config).unwrap();
            let memory = Memory::new(needs).unwrap();
            for _ in 0..3 {
                let (device, wires) = XdpDevice::open(&config, &memory).unwrap();
                match XdpDevice::open(&config, &memory) {
                    Err(XdpError::Attach(AttachError::Taken(whose))) => {
                        assert!(whose.starts_with("canal_xdp (id "), "{whose}");
                    }
                    other => panic!("taken twice: {:?}", other.map(|(device, _)| device.abilities().clone())),
                }
                drop(wires);
                device.close();
                assert!(memory.serves(needs), "the memory of closed sockets is free again");
            }
        });
        let begin = Instant::now();
        while site.site.host.run("ip -d link show dev eth0").contains("xdp") {
            assert!(begin.elapsed() < Duration::from_secs(10), "the program is still there");
        }
    }
}

#[test]
fn a_frame_that_fits_no_chunk_is_refused_beforehand() {
    if !root("a_frame_that_fits_no_chunk_is_refused_beforehand") {
        return;
    }
    let site = Site::new(false, false);
    let config = XdpConfig { mtu: 9000, ..site.site.xdp_config(Mode::Native) };
    let refusal = site.site.host.enter(move || Needs::of(&config).err().map(|e| e.to_string()));
    assert!(refusal.unwrap().contains("9000"));
    assert!(!site.site.host.run("ip -d link show dev eth0").contains("xdp"));
}

/// Two hosts with canal, wire to wire.
fn two_hosts_talk(a: Wire, b: Wire) {
    let (one, two) = two_hosts();
    let (first, second) = (one.join(a), two.join(b));
    one.workload.run("ping -c 2 -i 0.2 -W 5 10.9.0.2");
    tcp_transfer(&one.workload, &two.workload, "10.9.0.2:7000", SIZE);
    tcp_transfer(&two.workload, &one.workload, "10.9.0.1:7000", SIZE);
    for worker in [first, second] {
        let stats = worker.stop();
        assert_eq!((stats.tx_errors, stats.tx_full), (0, 0));
    }
}

#[test]
fn both_by_af_xdp() {
    if root("both_by_af_xdp") {
        MODES.iter().for_each(|mode| two_hosts_talk(Wire::Xdp(*mode), Wire::Xdp(*mode)));
    }
}

#[test]
fn one_by_af_xdp_the_other_by_tap_or_sockets() {
    if root("one_by_af_xdp_the_other_by_tap_or_sockets") {
        for mode in MODES {
            two_hosts_talk(Wire::Xdp(mode), Wire::Tap);
            two_hosts_talk(Wire::Udp, Wire::Xdp(mode));
        }
    }
}

/// Frames by all queues, each with a socket of its own.
#[test]
fn several_queues_of_one_worker() {
    if !root("several_queues_of_one_worker") {
        return;
    }
    for mode in MODES {
        let site = Site::with_queues(4);
        let worker = site.site.join(Wire::Xdp(mode));
        let (workload, peer) = (&site.site.workload, &site.peer);
        workload.run("ping -c 2 -i 0.2 -W 5 10.9.0.2");
        for port in 7000..7016 {
            tcp_transfer(peer, workload, &format!("10.9.0.1:{port}"), SIZE / 16);
        }
        let statistics = site.site.host.run("ethtool -S eth0");
        let stats = worker.stop();
        assert_eq!((stats.tx_errors, stats.tx_full, stats.rx_dropped), (0, 0, 0), "{mode:?}");
        if mode == Mode::Native {
            let used = (0..4).filter(|queue| {
                let packets = format!("rx_queue_{queue}_xdp_redirect: ");
                statistics.lines().any(|line| line.trim().strip_prefix(&packets).is_some_and(|n| n != "0"))
            });
            assert!(used.count() > 1, "{statistics}");
        }
    }
}
