//! Two workers: who gets which packets, how many belong to the other, and what is said about their time.

use anyhow::{Context, Result, ensure};
use netns_tests::frames::{Link, mac};
use netns_tests::packet_socket::PacketSocket;
use netns_tests::traffic::Flows;
use netns_tests::traffic::udp::Echo;
use netns_tests::{Canal, CanalOptions, Network, Overlay, Role, Shape, Topology, plan, wait};
use serde_json::Value;
use std::net::SocketAddrV4;
use std::time::Duration;

/// Connections that a pod opens to a pod of a kernel node; each is one packet there and one back.
const FLOWS: u64 = 2_000;
/// Frames that may arrive at the wrong worker all the same. The kernel merges datagrams of two inner flows that happen to have
/// one outer source port; they go together.
const STRAYS: u64 = FLOWS / 50;
/// The echo server's port.
const PORT: u16 = 7002;

fn two_workers(port: &str) -> Role {
    Role::Canal(CanalOptions { port: port.into(), workers: 2, ..CanalOptions::default() })
}

fn exchange(overlay: &Overlay<'_>) -> Result<()> {
    let (pod, remote) = (overlay.pod(0), overlay.pod(1));
    let _echo = Echo::start_at(&remote.ns, (remote.v4, PORT).into())?;
    let link = Link { from: mac(&pod.mac), to: mac(plan::GATEWAY_MAC) };
    let mut flows = Flows::new(link, pod.v4, SocketAddrV4::new(remote.v4, PORT));
    let socket = PacketSocket::open(&pod.ns, "eth0")?;
    let outcome = flows.drive(&socket, FLOWS as usize, |_| {})?;
    ensure!(outcome.answered as u64 == FLOWS, "{outcome:?}");
    Ok(())
}

/// What `canal show workers` says of both, once it is complete: numbers of time are published by idle workers.
fn workers(canal: &Canal<'_>) -> Result<[Value; 2]> {
    let mut shown = Vec::new();
    wait::until("all packets are counted", Duration::from_secs(5), || {
        let view = canal.show("workers")?;
        shown = view.as_array().context("a list")?.clone();
        let flows: u64 = shown.iter().filter_map(|worker| worker["flows"].as_u64()).sum();
        Ok(flows >= FLOWS && shown.iter().all(|worker| worker["idle_ns"].as_u64() > Some(0)))
    })?;
    shown.try_into().map_err(|shown| anyhow::anyhow!("not two workers: {shown:?}"))
}

/// What each worker has handed over so far.
fn handed(canal: &Canal<'_>) -> Result<Vec<u64>> {
    let view = canal.show("workers")?;
    view.as_array().context("a list")?.iter().map(|worker| number(worker, "handed_over")).collect()
}

fn number(worker: &Value, key: &str) -> Result<u64> {
    worker[key].as_u64().with_context(|| format!("no {key}: {worker}"))
}

#[test]
fn the_steering_program_gives_every_packet_to_its_owner() -> Result<()> {
    for port in ["tap", "udp"] {
        let topology = Topology::build(&Shape::hosts(2))?;
        let overlay = Overlay::start(&topology, &Network::default(), &[two_workers(port), Role::Kernel])?;
        let before = handed(overlay.canal(0))?;
        exchange(&overlay)?;
        for (worker, before) in workers(overlay.canal(0))?.iter().zip(before) {
            // A half of the flows each, give or take what a hash does.
            ensure!(number(worker, "received")? > 2 * FLOWS / 5, "{port}: {worker}");
            let handed = number(worker, "handed_over")?;
            ensure!(handed <= before + STRAYS, "{port}: {before} before {worker}");
            let share = worker["rates"]["handed_over"].as_f64().context("no share")?;
            ensure!((share > 0.0) == (handed > 0) && share < 0.1, "{port}: {worker}");
        }
        topology.pass()?;
    }
    Ok(())
}

#[test]
fn what_a_nic_spreads_by_outer_headers_is_handed_over_and_arrives() -> Result<()> {
    for queues in [1, 2] {
        // Who sends to the interface spreads flows over its queues by a hash, as a NIC does that receives.
        let topology = Topology::build(&Shape::hosts(2).queues(queues))?;
        let overlay = Overlay::start(&topology, &Network::default(), &[two_workers("af-xdp"), Role::Kernel])?;
        ensure!(
            overlay.canal(0).xdp_ports()?.len() == usize::from(queues),
            "{:?}",
            overlay.canal(0).show("ports")?
        );
        exchange(&overlay)?;
        let workers = workers(overlay.canal(0))?;
        let sum = |key: &str| -> Result<u64> { Ok(number(&workers[0], key)? + number(&workers[1], key)?) };
        let handed = sum("handed_over")?;
        // The answers arrive where the outer headers say; the owner of every other of them is the other worker.
        ensure!(handed > 2 * FLOWS / 5 && handed < 3 * FLOWS / 5, "{queues} queues: {handed}: {workers:?}");
        ensure!(sum("taken_over")? == handed, "{workers:?}");
        if queues == 1 {
            ensure!(number(&workers[1], "handed_over")? <= STRAYS, "it has no queue: {workers:?}");
        }
        topology.pass()?;
    }
    Ok(())
}

#[test]
fn where_the_time_goes_is_shown() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[two_workers("tap"), Role::Kernel])?;
    let mut timed = 0;
    wait::until("some turn has been timed", wait::SOON, || {
        exchange(&overlay)?;
        let view = overlay.canal(0).show("workers")?;
        let view = view.as_array().context("a list")?;
        timed = view.iter().filter_map(|worker| worker["timed_frames"].as_u64()).sum();
        Ok(timed > 0)
    })?;
    for worker in &workers(overlay.canal(0))? {
        let frames = number(worker, "received")? + number(worker, "taken_over")?;
        ensure!(number(worker, "batches")? <= frames && number(worker, "sleeps")? > 0, "{worker}");
        ensure!(worker["rates"]["batch"].as_f64() >= Some(1.0), "{worker}");
        let busy = worker["rates"]["busy"].as_f64().context("no share")?;
        ensure!(busy > 0.0 && busy < 1.0, "{worker}");
        let parts = worker["parts"].as_array().context("no parts")?;
        let all: u64 = parts.iter().filter_map(|part| part["timed_ns"].as_u64()).sum();
        ensure!(
            all <= number(worker, "busy_ns")?,
            "parts of its work take no longer than all of it: {worker}"
        );
        ensure!((number(worker, "timed_frames")? > 0) == (all > 0), "{worker}");
    }
    let table = overlay.canal(0).show_table("workers")?;
    for word in ["BUSY", "NS/FRAME", "receive", "conntrack", "encap", "transmit", "all"] {
        ensure!(table.contains(word), "{word}: {table}");
    }
    topology.pass()
}
