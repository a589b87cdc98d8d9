//! The network config changes under a running daemon: it is said, and nothing is half-applied.

use anyhow::{Context, Result, ensure};
use netns_tests::flannel::{self, PREFIX};
use netns_tests::overlay::wait_reachable;
use netns_tests::traffic::{Ping, Transfer};
use netns_tests::{Canal, Network, Overlay, Role, Shape, Store, Topology, wait};
use serde_json::{Value, json};

fn overlay(topology: &Topology) -> Result<Overlay<'_>> {
    Overlay::start(topology, &Network::default(), &[Role::canal(), Role::Kernel])
}

/// Waits until `canal status` is degraded and says all of `words`.
fn wait_degraded(canal: &Canal<'_>, words: &[&str]) -> Result<()> {
    wait::until(&format!("degraded: {words:?}"), wait::SOON, || {
        let (exit, text) = canal.status_text()?;
        ensure!(exit == Some(1) && words.iter().all(|word| text.contains(word)), "{exit:?} {text}");
        Ok(true)
    })
}

fn wait_content(canal: &Canal<'_>) -> Result<()> {
    wait::until("the status is content again", wait::SOON, || canal.status().map(|_| true))
}

#[test]
fn a_changed_config_asks_for_a_restart_and_forwarding_goes_on() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = overlay(&topology)?;
    let (canal, store) = (overlay.canal(0), &overlay.store);
    let (a, b) = (overlay.pod(0), overlay.pod(1));
    let lease = canal.lease(store)?;
    let stream = Transfer::endless(&a.ns, &b.ns, b.v4.into(), 10_000_000)?;
    let mut other_network = flannel::net_conf(false, &json!({}));
    other_network["Network"] = json!("10.240.0.0/13");
    let changes = [
        ("Backend", flannel::net_conf(false, &json!({"VNI": 7}))),
        ("Backend", flannel::net_conf(false, &json!({"Type": "host-gw"}))),
        // What could not even be started with.
        ("Backend", flannel::net_conf(false, &json!({"Type": "wireguard"}))),
        ("Network", other_network),
        ("IPv6Network", flannel::net_conf(true, &json!({}))),
    ];
    for (member, conf) in &changes {
        store.set_net_conf(conf)?;
        wait_degraded(canal, &["has changed", member, "restart"])?;
        Ping::to(b.v4).expect_all(&a.ns)?;
        store.set_net_conf(&flannel::net_conf(false, &json!({})))?;
        wait_content(canal)?;
    }
    ensure!(canal.lease(store)? == lease, "the lease stays as it was");
    stream.expect_progress(5_000_000, wait::SOON)?;
    stream.finish(wait::SOON)?;
    overlay.exchange(a, b, 62)?;
    topology.pass()
}

#[test]
fn a_restart_takes_the_changed_config_over() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let mut overlay = overlay(&topology)?;
    let before = overlay.canal(0).lease(&overlay.store)?;
    overlay.store.set_net_conf(&flannel::net_conf(false, &json!({"VNI": 7})))?;
    wait_degraded(overlay.canal(0), &["has changed", "Backend", "restart"])?;
    overlay.canal_mut(0).terminate()?;
    overlay.canal_mut(0).restart()?;
    let key = before.subnets.key();
    let leases = overlay.store.raw_leases()?;
    let (_, value) = leases.iter().find(|(k, _)| *k == key).context("the subnet is kept")?;
    let value: Value = serde_json::from_str(value)?;
    ensure!(value["BackendData"]["VNI"] == 7, "the lease says what is in force: {value}");
    topology.pass()
}

#[test]
fn a_config_that_cannot_be_read_is_said_and_changes_nothing() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = overlay(&topology)?;
    let (a, b) = (overlay.pod(0), overlay.pod(1));
    for nonsense in ["{", "[]", r#"{"Network":"10.244.0.0/40"}"#, r#"{"Network":7}"#] {
        overlay.store.put(&format!("{PREFIX}/config"), nonsense)?;
        wait_degraded(overlay.canal(0), &["network config", "not valid"])?;
        Ping::to(b.v4).expect_all(&a.ns)?;
    }
    overlay.store.set_net_conf(&flannel::net_conf(false, &json!({})))?;
    wait_content(overlay.canal(0))?;
    overlay.exchange(a, b, 62)?;
    topology.pass()
}

#[test]
fn a_config_that_disappears_changes_nothing() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = overlay(&topology)?;
    let (a, b) = (overlay.pod(0), overlay.pod(1));
    let lease = overlay.canal(0).lease(&overlay.store)?;
    overlay.store.delete(&format!("{PREFIX}/config"))?;
    // A peer that is written afterwards is heard of afterwards.
    overlay
        .store
        .put_lease("10.244.200.0-24", &overlay.kernel(1).lease().value(1).replace("77.11", "77.99"))?;
    overlay.canal(0).wait_vtep("192.168.77.99", true)?;
    overlay.exchange(a, b, 62)?;
    ensure!(overlay.canal(0).lease(&overlay.store)? == lease, "the lease stays as it was");
    wait_degraded(overlay.canal(0), &["lost its content"])?;
    overlay.store.set_net_conf(&flannel::net_conf(false, &json!({})))?;
    overlay.kernel(1).retire(&overlay.store)?;
    overlay.kernel(1).publish(&overlay.store)?;
    wait_reachable(a, b.v4.into())?;
    overlay.exchange(a, b, 62)?;
    topology.pass()
}
