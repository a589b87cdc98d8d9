//! flannel's membership in etcd: leases, their format and their loss, and peers that come, go and change.

use anyhow::{Context, Result, ensure};
use netns_tests::flannel::{self, Lease, PREFIX};
use netns_tests::overlay::{wait_reachable, wait_unreachable};
use netns_tests::plan::Subnets;
use netns_tests::traffic::{Ping, Transfer};
use netns_tests::{Canal, CanalOptions, Etcd, Network, Overlay, Role, Shape, Store, Topology, wait};
use serde_json::json;
use std::net::Ipv4Addr;

/// An etcd with the default config, and nothing else running.
fn etcd(topology: &Topology) -> Result<Etcd<'_>> {
    let etcd = Etcd::start(topology)?;
    etcd.set_net_conf(&flannel::net_conf(false, &json!({})))?;
    Ok(etcd)
}

fn etcd_lease(etcd: &Etcd<'_>, key: &str) -> Result<i64> {
    let found = etcd.list(&format!("{PREFIX}/subnets/{key}"))?;
    Ok(found.first().context("the key is gone")?.2)
}

#[test]
fn a_lease_is_written_as_flanneld_writes_it() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let etcd = etcd(&topology)?;
    let canal = Canal::start(&topology, 0, &etcd, CanalOptions::default())?;
    let (key, value) = etcd.raw_leases()?.first().context("no lease")?.clone();
    let lease = canal.lease(&etcd)?;
    ensure!(
        lease.public_v4 == topology.hosts[0].v4 && lease.backend.as_deref() == Some("vxlan"),
        "{lease:?}"
    );
    ensure!(value == lease.value(1), "byte for byte:\n{value}\n{}", lease.value(1));
    let mac = netns_tests::frames::mac(lease.mac_v4.as_deref().context("no MAC")?);
    ensure!(mac[0] & 0b11 == 0b10, "locally administered, unicast: {mac:02x?}");
    let id = format!("{:x}", etcd_lease(&etcd, &key)?);
    let ttl = etcd.ctl(&["lease", "timetolive", &id])?;
    ensure!(ttl.contains("granted with TTL(86400s)"), "{ttl}");
    topology.pass()
}

#[test]
fn subnet_env_is_written_as_flanneld_writes_it() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let etcd = etcd(&topology)?;
    let canal = Canal::start(&topology, 0, &etcd, CanalOptions::default())?;
    let gateway = canal.subnets(&etcd)?.pod_v4(1);
    let expected = format!(
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET={gateway}/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
    );
    let written = std::fs::read_to_string(canal.subnet_file())?;
    ensure!(written == expected, "{written}");
    topology.pass()
}

#[test]
fn subnet_and_mac_are_kept_over_a_restart() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let etcd = etcd(&topology)?;
    let mut canal = Canal::start(&topology, 0, &etcd, CanalOptions::default())?;
    let before = canal.lease(&etcd)?;
    canal.terminate()?;
    canal.restart()?;
    ensure!(canal.lease(&etcd)? == before, "after SIGTERM");
    canal.kill()?;
    canal.restart()?;
    ensure!(canal.lease(&etcd)? == before, "after SIGKILL");
    // With the lease gone as well, subnet.env and the state directory still know.
    canal.terminate()?;
    etcd.delete_lease(&before.subnets.key())?;
    canal.restart()?;
    ensure!(canal.lease(&etcd)? == before, "with the lease gone");
    ensure!(etcd.raw_leases()?.len() == 1, "and nothing else was taken");
    topology.pass()
}

#[test]
fn a_reservation_without_expiry_stays_one() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let etcd = etcd(&topology)?;
    let reserved = Lease {
        subnets: Subnets { v4: Ipv4Addr::new(10, 244, 33, 0), v6: None },
        public_v4: topology.hosts[0].v4,
        public_v6: None,
        backend: Some("vxlan".to_owned()),
        mac_v4: None,
        mac_v6: None,
    };
    let key = reserved.subnets.key();
    etcd.put(&format!("{PREFIX}/subnets/{key}"), &reserved.value(1))?;
    let canal = Canal::start(&topology, 0, &etcd, CanalOptions::default())?;
    ensure!(canal.subnets(&etcd)? == reserved.subnets, "the reserved subnet is taken");
    ensure!(canal.lease(&etcd)?.mac_v4.is_some(), "and completed");
    ensure!(etcd_lease(&etcd, &key)? == 0, "it still never expires");
    topology.pass()
}

#[test]
fn two_nodes_that_start_together_take_different_subnets_and_a_third_says_there_is_none() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(3))?;
    let etcd = Etcd::start(&topology)?;
    let mut conf = flannel::net_conf(false, &json!({}));
    conf["SubnetMin"] = json!("10.244.1.0");
    conf["SubnetMax"] = json!("10.244.2.0");
    etcd.set_net_conf(&conf)?;
    let mut nodes = Vec::new();
    for index in 0..2 {
        let mut node = Canal::prepare(&topology, index, &etcd, CanalOptions::default())?;
        node.launch()?;
        nodes.push(node);
    }
    for node in &mut nodes {
        node.wait_ready(wait::SOON)?;
    }
    ensure!(nodes[0].subnets(&etcd)? != nodes[1].subnets(&etcd)?, "one subnet each");
    let mut third = Canal::prepare(&topology, 2, &etcd, CanalOptions::default())?;
    third.launch()?;
    wait::until("the third says why it has no subnet", wait::SOON, || {
        Ok(third.log_text().to_lowercase().contains("out of subnets"))
    })?;
    ensure!(etcd.raw_leases()?.len() == 2, "it took nobody's");
    topology.pass()
}

#[test]
fn a_deleted_lease_is_taken_again_while_traffic_flows() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::canal()])?;
    let (a, b) = (overlay.pod(0), overlay.pod(1));
    let stream = Transfer::endless(&a.ns, &b.ns, b.v4.into(), 10_000_000)?;
    let before = overlay.canal(0).lease(&overlay.store)?;
    overlay.store.delete_lease(&before.subnets.key())?;
    wait::until("the lease is back", wait::SOON, || Ok(overlay.canal(0).lease(&overlay.store)? == before))?;
    stream.expect_progress(5_000_000, wait::SOON)?;
    stream.finish(wait::SOON)?;
    wait::until("the status is content again", wait::SOON, || overlay.canal(0).status().map(|_| true))?;
    topology.pass()
}

#[test]
fn a_peer_that_is_added_and_removed_is_reached_and_forgotten() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(3))?;
    let mut overlay =
        Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::Kernel, Role::Kernel])?;
    let late = overlay.pod(2).v4;
    overlay.kernel(2).retire(&overlay.store)?;
    wait_unreachable(overlay.pod(0), late.into())?;
    overlay.canal(0).wait_vtep(&overlay.host(2).v4.to_string(), false)?;
    Ping::to(overlay.pod(1).v4).expect_all(&overlay.pod(0).ns)?;
    overlay.kernel(2).publish(&overlay.store)?;
    wait_reachable(overlay.pod(0), late.into())?;
    overlay.sync()?;
    overlay.exchange(overlay.pod(0), overlay.pod(2), 62)?;
    topology.pass()
}

#[test]
fn a_peer_that_changes_its_mac_is_followed() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let mut overlay = Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::Kernel])?;
    let old = overlay.kernel(1).mac().to_owned();
    let new = "02:ca:fe:00:02:77";
    let Overlay { kernels, store, .. } = &mut overlay;
    kernels[1].as_mut().context("a kernel node")?.change_mac(new, store)?;
    // The kernel drops every frame to its old MAC, so an answer proves the new one.
    wait_reachable(overlay.pod(0), overlay.pod(1).v4.into())?;
    let fdb = overlay.canal(0).show("fdb")?.to_string();
    ensure!(fdb.contains(new) && !fdb.contains(&old), "no stale entry: {fdb}");
    overlay.exchange(overlay.pod(0), overlay.pod(1), 62)?;
    topology.pass()
}

#[test]
fn a_peer_that_changes_its_address_is_followed() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let mut overlay = Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::Kernel])?;
    let moved = Ipv4Addr::new(192, 168, 77, 99);
    let Overlay { kernels, store, .. } = &mut overlay;
    kernels[1].as_mut().context("a kernel node")?.change_address(moved, store)?;
    wait_reachable(overlay.pod(0), overlay.pod(1).v4.into())?;
    overlay.canal(0).wait_vtep(&moved.to_string(), true)?;
    overlay.canal(0).wait_vtep(&overlay.host(1).v4.to_string(), false)?;
    overlay.exchange(overlay.pod(0), overlay.pod(1), 62)?;
    topology.pass()
}

#[test]
fn nonsense_among_the_leases_harms_nobody() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::Kernel])?;
    let junk = [
        ("junk", "x"),
        ("10.244.209.0-24", "{"),
        ("10.244.208.0-24", r#"{"PublicIP":null}"#),
        (
            "10.244.7.0-24",
            r#"{"PublicIP":"192.168.77.50","BackendType":"wireguard","BackendData":{"PublicKey":"x"}}"#,
        ),
        (
            "10.244.6.0-24",
            r#"{"PublicIP":"192.168.77.51","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"no"}}"#,
        ),
        ("10.244.300.0-24", r#"{"PublicIP":"192.168.77.52"}"#),
    ];
    for (key, value) in junk {
        overlay.store.put(&format!("{PREFIX}/subnets/{key}"), value)?;
    }
    overlay.wait_enforced()?;
    Ping::to(overlay.pod(1).v4).expect_all(&overlay.pod(0).ns)?;
    // Somebody should look at them, so they are said; by whom they were written nobody knows.
    let (_, status) = overlay.canal(0).status_text()?;
    for (key, _) in junk {
        ensure!(status.contains(key), "{key} is not complained about: {status}");
    }
    topology.pass()
}

#[test]
fn a_peer_with_another_vni_in_its_lease_is_programmed_all_the_same() -> Result<()> {
    // flannel writes the VNI for information and never compares it.
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::Kernel])?;
    let lease = overlay.kernel(1).lease();
    overlay.store.put_lease(&lease.subnets.key(), &lease.value(7))?;
    overlay.wait_enforced()?;
    Ping::to(overlay.pod(1).v4).expect_all(&overlay.pod(0).ns)?;
    topology.pass()
}
