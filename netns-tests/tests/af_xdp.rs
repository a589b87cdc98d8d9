//! canal with AF_XDP sockets on the underlay: in the overlay with a kernel node and with itself, what it says of them, and what it
//! does where they cannot be.

use anyhow::{Context, Result, ensure};
use netns_tests::{Canal, CanalOptions, Network, Overlay, Role, Shape, Topology};
use serde_json::Value;

/// Replies cross two routers: the node of the sender and the node of the receiver.
const REMOTE_TTL: u8 = 62;

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

/// The ports of kind `af-xdp`, of which there must be one.
fn underlay_ports(canal: &Canal<'_>) -> Result<Vec<Value>> {
    let ports = canal.show("ports")?;
    let ports = ports.as_array().context("ports are a list")?;
    let ports: Vec<Value> = ports.iter().filter(|port| port["kind"] == "af-xdp").cloned().collect();
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
    exchange(&Shape::hosts(2), false, &[Role::Canal(options), Role::port("tap")])
}

#[test]
fn what_it_says_of_its_sockets() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[af_xdp(), Role::Kernel])?;
    let canal = overlay.canal(0);
    let port = &underlay_ports(canal)?[0];
    ensure!(port["name"] == "eth0" && port["carries"] == serde_json::json!(["underlay"]), "{port}");
    ensure!(port["xdp"]["zero_copy"] == false, "veth copies: {port}");
    ensure!(port["xdp"]["queues"] == serde_json::json!([0]), "{port}");
    let table = canal.show_table("ports")?;
    ensure!(table.contains("af-xdp: asked for by --port af-xdp"), "{table}");
    topology.pass()
}

#[test]
fn an_interface_that_cannot_have_it_is_carried_otherwise_and_says_why() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    topology.hosts[0].ns.ip("link set eth0 mtu 9000")?;
    let overlay = Overlay::start(&topology, &Network::default(), &[af_xdp(), Role::Kernel])?;
    overlay.exchange(overlay.pod(0), overlay.pod(1), REMOTE_TTL)?;
    let status = overlay.canal(0).status()?;
    let why = status["port_why"].as_str().context("a reason")?;
    ensure!(status["port"] != "af-xdp", "{status}");
    ensure!(why.contains("AF_XDP cannot have eth0") && why.contains("9000"), "{why}");
    topology.pass()
}
