//! What the daemon promises to need.

use anyhow::{Context, Result, ensure};
use netns_tests::frames::{Link, mac};
use netns_tests::packet_socket::PacketSocket;
use netns_tests::traffic::udp::Echo;
use netns_tests::traffic::{Flows, Ping};
use netns_tests::{CanalOptions, DirStore, Network, Overlay, Role, Shape, Store, Topology, plan, wait};
use serde_json::json;
use std::net::SocketAddrV4;
use std::time::Duration;

const FLOWS: usize = 1_000_000;
const VTEPS: usize = 5_000;
/// Bytes; resident, with all of the above.
const PROMISED: u64 = 150_000_000;
/// First port of the echo servers.
const PORT: u16 = 7002;

#[test]
fn a_million_flows_and_five_thousand_vteps_fit_into_the_memory_that_is_promised() -> Result<()> {
    [1, 2].into_iter().try_for_each(fits_with)
}

fn fits_with(workers: usize) -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2).without_captures())?;
    let store = DirStore::new(&topology.evidence.dir("data")?)?;
    // Room for thousands of nodes beside those of the laboratory.
    let config = json!({"Network": "10.0.0.0/8", "SubnetMin": "10.244.1.0"});
    let network = Network { config, ..Network::default() };
    // One pod has them all, and none may be forgotten before the last one is there.
    let alone = ["--flows-per-workload", "1048576", "--flow-timeout", "udp=1200,udp-stream=1200"];
    let role = Role::Canal(CanalOptions { workers, ..CanalOptions::with(&alone) });
    let overlay = Overlay::on(&topology, store, &network, &[role, Role::Kernel])?;
    let canal = overlay.canal(0);
    let before = canal.resident()?;
    for n in 0..VTEPS {
        let (a, b) = (n / 250, n % 250);
        let value = format!(
            r#"{{"PublicIP":"172.16.{a}.{b}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:01:{a:02x}:{b:02x}"}}}}"#
        );
        overlay.store.put_lease(&format!("10.{}.{b}.0-24", 100 + a), &value)?;
    }
    wait::until("every VTEP is known", wait::SOON, || {
        Ok(canal.show("vteps")?.as_array().context("a list")?.len() > VTEPS)
    })?;
    let with_vteps = canal.resident()?;

    let (pod, remote) = (overlay.pod(0), overlay.pod(1));
    let mut echoes = Vec::new();
    for port in (PORT..).take(Flows::ports_for(FLOWS)) {
        echoes.push(Echo::start_at(&remote.ns, (remote.v4, port).into())?);
    }
    let link = Link { from: mac(&pod.mac), to: mac(plan::GATEWAY_MAC) };
    let mut flows = Flows::new(link, pod.v4, SocketAddrV4::new(remote.v4, PORT));
    let socket = PacketSocket::open(&pod.ns, "eth0")?;
    let outcome = flows.drive(&socket, FLOWS, |_| {})?;
    ensure!(outcome.answered == FLOWS, "{outcome:?}");
    // Counters are published by a worker that has nothing else to do.
    wait::until("every flow is counted", Duration::from_secs(5), || {
        let workers = canal.show("workers")?;
        let held = workers.as_array().context("a list")?.iter().filter_map(|w| w["flows"].as_u64());
        Ok(held.sum::<u64>() >= FLOWS as u64)
    })?;
    let with_all = canal.resident()?;
    println!(
        "{workers} workers; resident bytes: {before}; with {VTEPS} VTEPs: {with_vteps}; with {FLOWS} flows as well: {with_all}"
    );
    ensure!(with_all <= PROMISED, "{with_all} bytes; {before} at first, {with_vteps} with the VTEPs");
    Ping::to(remote.v4).expect_all(&pod.ns)?;
    topology.pass()
}
