//! The UDP source ports of encapsulated packets, as they are seen on the wire (RFC 7348 section 5).

use anyhow::{Result, ensure};
use netns_tests::frames::{self, Link, mac, read_vxlan};
use netns_tests::packet_socket::PacketSocket;
use netns_tests::{Network, Overlay, Role, Shape, Topology, plan};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[test]
fn they_spread_over_flows_and_stay_with_a_flow_on_the_tap_port() -> Result<()> {
    source_ports(Role::port("tap"))
}

#[test]
fn they_spread_over_flows_and_stay_with_a_flow_on_the_udp_port() -> Result<()> {
    source_ports(Role::port("udp"))
}

#[test]
fn they_spread_over_flows_and_stay_with_a_flow_by_the_kernel_too() -> Result<()> {
    source_ports(Role::Kernel)
}

fn source_ports(node: Role) -> Result<()> {
    const FLOWS: u16 = 1000;
    // Without offloads: a super-frame of the UDP port shows the inner header of its first packet only.
    let topology = Topology::build(&Shape::hosts(2).offloads(false))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[node, Role::Kernel])?;
    let (pod, remote) = (overlay.pod(0), overlay.pod(1));
    let link = Link { from: mac(&pod.mac), to: mac(plan::GATEWAY_MAC) };
    let to = (remote.v4.into(), 2222);
    let wire = PacketSocket::open(&topology.switch, "h0")?;
    let sender = PacketSocket::open(&pod.ns, "eth0")?;
    let mut ports: BTreeMap<u16, BTreeSet<u16>> = BTreeMap::new();
    for _ in 0..2 {
        for flow in 0..FLOWS {
            sender.send(&frames::udp(link, (pod.v4.into(), 10_000 + flow), to, 64, b"flow"))?;
            // A few at a time: no queue on the way overflows.
            if flow % 50 == 49 {
                let seen = wire.collect(Duration::from_millis(20), |frame| {
                    let (outer, _, inner) = read_vxlan(frame, plan::VXLAN_PORT)?;
                    Some((frames::read(&inner).filter(|i| i.payload == b"flow")?.udp?.0, outer.udp?.0))
                })?;
                for (flow, port) in seen {
                    ports.entry(flow).or_default().insert(port);
                }
            }
        }
    }
    ensure!(ports.len() == usize::from(FLOWS), "{} of {FLOWS} flows were seen", ports.len());
    ensure!(ports.values().all(|p| p.len() == 1), "a flow keeps its source port: {ports:?}");
    let each: Vec<u16> = ports.values().flatten().copied().collect();
    ensure!(each.iter().all(|port| *port >= 1024), "no privileged port: {each:?}");
    let (squares, limit) = chi_square(&each);
    ensure!(squares <= limit, "unevenly spread: chi-square {squares:.1} > {limit:.1}: {each:?}");
    topology.pass()
}

/// Pearson's statistic of how evenly `ports` are spread, and the value that evenly spread ones exceed once in a million.
fn chi_square(ports: &[u16]) -> (f64, f64) {
    const CELLS: usize = 20;
    let distinct: BTreeSet<u16> = ports.iter().copied().collect();
    let (least, most) = (*distinct.first().unwrap_or(&0), *distinct.last().unwrap_or(&0));
    // A pool of sockets has few ports, each a cell of its own; otherwise the range is cut into equal ones.
    let few = distinct.len() <= 4 * CELLS;
    let mut cells: BTreeMap<usize, f64> = BTreeMap::new();
    if few {
        // No fewer sockets than this belong to a worker; cells that are missing are empty ones.
        cells = (0..16usize.saturating_sub(distinct.len()))
            .map(|n| (usize::from(u16::MAX) + 1 + n, 0.0))
            .collect();
    } else {
        cells.extend((0..CELLS).map(|n| (n, 0.0)));
    }
    for port in ports {
        let width = usize::from(most - least) / CELLS + 1;
        let cell = if few { usize::from(*port) } else { usize::from(port - least) / width };
        *cells.entry(cell).or_insert(0.0) += 1.0;
    }
    let expected = ports.len() as f64 / cells.len() as f64;
    let squares = cells.values().map(|n| (n - expected).powi(2) / expected).sum();
    // Wilson and Hilferty: the cube root of chi-square over its freedom is nearly normal; 4.75 sigma is 1e-6.
    let freedom = (cells.len() - 1) as f64;
    let spread = 2.0 / (9.0 * freedom);
    (squares, freedom * (1.0 - spread + 4.75 * spread.sqrt()).powi(3))
}

#[test]
fn the_statistic_tells_even_from_uneven() {
    let even: Vec<u16> = (0..1000).map(|n| 49_152 + n * 16).collect();
    let (squares, limit) = chi_square(&even);
    assert!(squares < limit / 2.0, "{squares} {limit}");
    // Half of all flows in an eighth of the range.
    let uneven: Vec<u16> = (0..1000).map(|n| 49_152 + if n % 2 == 0 { n * 16 } else { n * 2 }).collect();
    let (squares, limit) = chi_square(&uneven);
    assert!(squares > limit, "{squares} {limit}");
    // Three of the sockets take everything.
    let (squares, limit) = chi_square(&(0..1000).map(|n| 40_000 + n % 3).collect::<Vec<_>>());
    assert!(squares > limit, "{squares} {limit}");
}
