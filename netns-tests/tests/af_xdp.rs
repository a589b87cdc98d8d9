//! canal with AF_XDP sockets on the underlay: in the overlay with a kernel node and with itself, what it says of them, and what it
//! does where they cannot be.

use anyhow::{Context, Result, ensure};
use netns_tests::frames::{Link, mac};
use netns_tests::overlay::wait_reachable;
use netns_tests::packet_socket::PacketSocket;
use netns_tests::plan::GATEWAY_MAC;
use netns_tests::traffic::udp::Echo;
use netns_tests::traffic::{Flows, tcp};
use netns_tests::{Canal, CanalOptions, Network, Overlay, Role, Shape, Topology, cmd, wait};
use serde_json::{Value, json};
use std::net::{SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

/// Replies cross two routers: the node of the sender and the node of the receiver.
const REMOTE_TTL: u8 = 62;
/// Of the echo server of many flows, and their number.
const PORT: u16 = 7002;
const FLOWS: usize = 40_000;

fn af_xdp() -> Role {
    Role::port("af-xdp")
}

fn exchange(shape: &Shape, dual: bool, roles: &[Role]) -> Result<()> {
    let topology = Topology::build(shape)?;
    let network = Network { dual, ..Network::default() };
    let overlay = Overlay::start(&topology, &network, roles)?;
    overlay.exchange(overlay.pod(0), overlay.pod(1), REMOTE_TTL)?;
    let ports = underlay_ports(overlay.canal(0))?;
    let sum = |key: &str| ports.iter().filter_map(|port| port[key].as_u64()).sum::<u64>();
    ensure!(sum("rx_frames") > 100 && sum("tx_frames") > 100, "the sockets carry it: {ports:?}");
    ensure!(sum("tx_errors") == 0, "{ports:?}");
    topology.pass()
}

/// AF_XDP sockets, of which there must be some.
fn underlay_ports(canal: &Canal<'_>) -> Result<Vec<Value>> {
    let ports = canal.xdp_ports()?;
    ensure!(!ports.is_empty(), "no AF_XDP sockets: {}\n{}", canal.show("ports")?, canal.log_text());
    Ok(ports)
}

#[test]
fn kernel_node_with_offloads() -> Result<()> {
    exchange(&Shape::hosts(2), false, &[af_xdp(), Role::Kernel])
}

#[test]
fn kernel_node_without_offloads() -> Result<()> {
    exchange(&Shape::hosts(2).offloads(false), false, &[af_xdp(), Role::Kernel])
}

#[test]
fn kernel_node_dual_stack() -> Result<()> {
    exchange(&Shape::hosts(2), true, &[af_xdp(), Role::Kernel])
}

#[test]
fn kernel_node_behind_a_router() -> Result<()> {
    exchange(&Shape::hosts(2).behind_router(1), true, &[af_xdp(), Role::Kernel])
}

#[test]
fn both_by_af_xdp() -> Result<()> {
    exchange(&Shape::hosts(2), true, &[af_xdp(), af_xdp()])
}

#[test]
fn more_workers_than_queues() -> Result<()> {
    let options = CanalOptions { port: "af-xdp".into(), workers: 2, ..CanalOptions::default() };
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::Canal(options), Role::port("tap")])?;
    let (here, there) = (overlay.pod(0), overlay.pod(1));
    overlay.exchange(here, there, REMOTE_TTL)?;
    // Half of the answers are received by the one and delivered by the other: more of them than there are frames.
    let _echo = Echo::start_at(&there.ns, (there.v4, PORT).into())?;
    let link = Link { from: mac(&here.mac), to: mac(GATEWAY_MAC) };
    let mut flows = Flows::new(link, here.v4, SocketAddrV4::new(there.v4, PORT));
    let outcome = flows.drive(&PacketSocket::open(&here.ns, "eth0")?, FLOWS, |_| {})?;
    ensure!(outcome.answered == FLOWS, "{outcome:?}: {}", overlay.canal(0).show("ports")?);
    let ports = underlay_ports(overlay.canal(0))?;
    ensure!(ports[0]["xdp"]["queues"] == json!([0]) && ports[0]["rx_dropped"] == 0, "{ports:?}");
    topology.pass()
}

#[test]
fn queues_that_are_polled_busily() -> Result<()> {
    let options = CanalOptions { port: "af-xdp".into(), ..CanalOptions::with(&["--busy-poll", "20"]) };
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::Canal(options), Role::Kernel])?;
    overlay.exchange(overlay.pod(0), overlay.pod(1), REMOTE_TTL)?;
    let ports = underlay_ports(overlay.canal(0))?;
    ensure!(ports[0]["offloads"] == json!(["native", "copy", "busy-poll"]), "{ports:?}");
    ensure!(ports[0]["rx_frames"].as_u64() > Some(100) && ports[0]["tx_errors"] == 0, "{ports:?}");
    topology.pass()
}

#[test]
fn what_it_says_of_its_sockets() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[af_xdp(), Role::Kernel])?;
    let canal = overlay.canal(0);
    let port = &underlay_ports(canal)?[0];
    ensure!(port["name"] == "eth0" && port["carries"] == json!(["underlay"]), "{port}");
    ensure!(port["xdp"]["zero_copy"] == false, "veth copies: {port}");
    ensure!(port["xdp"]["queues"] == json!([0]), "{port}");
    let table = canal.show_table("ports")?;
    ensure!(table.contains("af-xdp: asked for by --port af-xdp"), "{table}");
    topology.pass()
}

#[test]
fn every_queue_has_a_worker_and_is_used() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2).queues(4))?;
    let options = CanalOptions { port: "af-xdp".into(), workers: 2, ..CanalOptions::default() };
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::Canal(options), Role::Kernel])?;
    let (here, there) = (overlay.pod(0), overlay.pod(1));
    overlay.exchange(here, there, REMOTE_TTL)?;
    // Each is a flow of its own, hence in a queue by its hash: one in 32,768 times all are one worker's.
    for _ in 0..16 {
        tcp::transfer(&there.ns, &here.ns, here.v4.into(), 500_000)?;
    }
    let ports = underlay_ports(overlay.canal(0))?;
    let queues: Vec<_> = ports.iter().map(|port| port["xdp"]["queues"].clone()).collect();
    ensure!(queues == [json!([0, 2]), json!([1, 3])], "{ports:?}");
    for port in &ports {
        ensure!(port["rx_frames"].as_u64() > Some(100), "each worker receives: {ports:?}");
        ensure!(port["tx_errors"] == 0 && port["rx_dropped"] == 0, "{port}");
    }
    topology.pass()
}

#[test]
fn an_interface_that_cannot_have_it_is_carried_otherwise_says_why_and_has_it_once_it_can() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    topology.hosts[0].ns.ip("link set eth0 mtu 9000")?;
    let overlay = Overlay::start(&topology, &Network::default(), &[af_xdp(), Role::Kernel])?;
    overlay.exchange(overlay.pod(0), overlay.pod(1), REMOTE_TTL)?;
    let status = overlay.canal(0).status()?;
    let why = status["port_why"].as_str().context("a reason")?;
    ensure!(status["port"] != "af-xdp", "{status}");
    ensure!(why.contains("AF_XDP cannot have eth0") && why.contains("9000"), "{why}");
    topology.hosts[0].ns.ip("link set eth0 mtu 1500")?;
    taken_over(overlay.canal(0))?;
    overlay.exchange(overlay.pod(0), overlay.pod(1), REMOTE_TTL)?;
    topology.pass()
}

#[test]
fn an_interface_that_goes_and_comes_back_is_taken_over_again() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let mut overlay = Overlay::start(&topology, &Network::default(), &[af_xdp(), Role::Kernel])?;
    for times in 1..=2 {
        overlay.exchange(overlay.pod(0), overlay.pod(1), REMOTE_TTL)?;
        let host = overlay.host(0);
        topology.switch.ip(&format!("link del {}", host.port()))?;
        wait::until("its loss is told", wait::SOON, || {
            Ok(overlay.canal(0).status_text()?.1.contains("no such interface"))
        })?;
        topology.connect(host)?;
        wait::until("AF_XDP has the new one", wait::SOON, || {
            let taken = overlay.canal(0).log_text().matches("AF_XDP has taken the interface over").count();
            Ok(taken == 1 + times)
        })?;
        overlay.canal_mut(0).wait_ready(wait::SOON)?;
        // The kernel node, too, has to find its neighbour again.
        wait_reachable(overlay.pod(0), overlay.pod(1).v4.into())?;
    }
    overlay.exchange(overlay.pod(0), overlay.pod(1), REMOTE_TTL)?;
    topology.pass()
}

/// Waits until AF_XDP has the underlay.
fn taken_over(canal: &Canal<'_>) -> Result<()> {
    wait::until("AF_XDP has the interface", wait::SOON, || {
        Ok(canal.status()?["port"] == "af-xdp" && !canal.xdp_ports()?.is_empty())
    })
}

/// Packets that wait for the daemon while it is stopped: fewer than the TAP device's queue has room for, several times what
/// an underlay device takes whose other end does not look.
const BURST: usize = 900;
/// Times that are tried.
const BURSTS: usize = 5;
/// Time in which they have to be there: far more than it takes, and less than a worker sleeps.
const BURST_TIME: Duration = Duration::from_millis(300);

/// The other end of the underlay receives in a thread of the kernel on the worker's core, and the worker comes first there:
/// the device is full as long as the worker does not sleep.
#[test]
fn a_worker_does_not_sleep_for_long_over_a_full_device() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2).without_captures())?;
    let overlay = Overlay::start(&topology, &Network::default(), &[af_xdp(), Role::Kernel])?;
    let (here, there, canal) = (overlay.pod(0), overlay.pod(1), overlay.canal(0));
    wait_reachable(here, there.v4.into())?;
    let (host, port) = (overlay.host(0), overlay.host(0).port());
    // That thread receives nothing of a sender that leaves segmentation to others.
    host.ns.run(&["ethtool", "-K", "eth0", "tso", "off"])?;
    topology.switch.run(&["ethtool", "-K", &port, "gro", "on"])?;
    let threaded = format!("echo 1 > /sys/class/net/{port}/threaded");
    cmd::run(&["ip", "netns", "exec", topology.switch.name(), "sh", "-c", &threaded])?;
    let receiver = thread_named("/proc", &format!("napi/{port}-"))?;
    let daemon = canal.pid().context("it runs")?.to_string();
    let worker = thread_named(&format!("/proc/{daemon}/task"), "canal-w0")?;
    for thread in [&receiver, &worker] {
        cmd::run(&["taskset", "-pc", "0", thread])?;
    }
    cmd::run(&["chrt", "--fifo", "--pid", "1", &worker])?;
    let (sender, listener) = (
        here.ns.enter(|| Ok(UdpSocket::bind((here.v4, 0))?))?,
        there.ns.enter(|| Ok(UdpSocket::bind((there.v4, PORT))?))?,
    );
    sender.connect((there.v4, PORT))?;
    let came = |time: Duration| -> Result<usize> {
        let (end, mut count) = (Instant::now() + time, 0);
        while let left = end.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            listener.set_read_timeout(Some(left))?;
            count += usize::from(listener.recv(&mut [0; 8]).is_ok());
        }
        Ok(count)
    };
    sender.send(&[0])?;
    ensure!(came(Duration::from_secs(2))? == 1, "one packet comes");
    // Somebody else may need the core for as long as a worker sleeps, but hardly each time.
    let burst = || -> Result<(usize, usize)> {
        cmd::run(&["kill", "-STOP", &daemon])?;
        for _ in 0..BURST {
            sender.send(&[0])?;
        }
        cmd::run(&["kill", "-CONT", &daemon])?;
        Ok((came(BURST_TIME)?, came(Duration::from_secs(2))?))
    };
    let mut bursts = Vec::new();
    // Some are lost: each attempt costs one as long as the device is full.
    while !bursts.last().is_some_and(|(soon, later)| *soon > BURST / 3 && *later == 0) {
        ensure!(bursts.len() < BURSTS, "of {BURST} so many came at once, and so many later: {bursts:?}");
        bursts.push(burst()?);
    }
    let carried = underlay_ports(canal)?.iter().filter_map(|port| port["tx_frames"].as_u64()).sum::<u64>();
    ensure!(carried > BURST as u64, "the sockets carry it: {carried}");
    topology.pass()
}

/// The thread below `directory` whose name begins so.
fn thread_named(directory: &str, name: &str) -> Result<String> {
    let mut all = std::fs::read_dir(directory)?.flatten();
    let named = |entry: &std::fs::DirEntry| {
        std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.starts_with(name))
    };
    let found = all.find(named).with_context(|| format!("no thread {name}"))?;
    Ok(found.file_name().to_string_lossy().into_owned())
}
