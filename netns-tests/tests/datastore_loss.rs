//! The datastore goes away in every way there is; forwarding goes on, and what changed meanwhile is caught up with.

use anyhow::{Result, ensure};
use netns_tests::overlay::{wait_reachable, wait_unreachable};
use netns_tests::traffic::{Ping, Transfer};
use netns_tests::{Canal, Store};
use netns_tests::{CanalOptions, DirStore, Network, Overlay, Pod, Role, Shape, Topology, flannel, wait};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const ROLES: fn() -> [Role; 2] = || [Role::canal(), Role::Kernel];

#[test]
fn etcd_stops_and_comes_back() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let mut overlay = Overlay::start(&topology, &Network::default(), &ROLES())?;
    let to = overlay.pod(1).v4;
    let stream = Transfer::endless(&overlay.pod(0).ns, &overlay.pod(1).ns, to.into(), 10_000_000)?;
    overlay.store.stop()?;
    stream.expect_progress(20_000_000, wait::SOON)?;
    Ping::to(to).expect_all(&overlay.pod(0).ns)?;
    wait::until("the status says what is wrong", wait::SOON, || {
        let (code, text) = overlay.canal(0).status_text()?;
        Ok(code.is_some_and(|c| c != 0) && !text.is_empty())
    })?;
    overlay.store.restart()?;
    wait::until("the status is content again", wait::SOON, || overlay.canal(0).status().map(|_| true))?;
    // And it listens again.
    overlay.kernel(1).retire(&overlay.store)?;
    wait_unreachable(overlay.pod(0), to.into())?;
    overlay.kernel(1).publish(&overlay.store)?;
    wait_reachable(overlay.pod(0), to.into())?;
    stream.finish(wait::SOON)?;
    topology.pass()
}

#[test]
fn what_changed_while_the_daemon_could_not_see_is_caught_up_with_after_a_compaction() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(3))?;
    let mut overlay =
        Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::Kernel, Role::Kernel])?;
    // Cut the canal host off from etcd only: its watch hangs, etcd goes on and compacts.
    let block =
        |verb: &str| overlay.host(0).ns.ip(&format!("rule {verb} pref 1 to 192.168.77.1/32 blackhole"));
    block("add")?;
    overlay.kernel(1).retire(&overlay.store)?;
    overlay.store.compact()?;
    Ping::to(overlay.pod(2).v4).expect_all(&overlay.pod(0).ns)?;
    block("del")?;
    // A silent partition is found out by keep-alives or by the restart that follows.
    overlay.store.stop()?;
    overlay.store.restart()?;
    wait_unreachable(overlay.pod(0), overlay.pod(1).v4.into())?;
    Ping::to(overlay.pod(2).v4).expect_all(&overlay.pod(0).ns)?;
    topology.pass()
}

/// Silence after which the client asks, and how long it waits for the answer: the defaults of canal-control's etcd options.
const KEEP_ALIVE: Duration = Duration::from_secs(30 + 10);

#[test]
fn a_silent_partition_is_noticed_by_keep_alives_and_the_watch_goes_on_after_it() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(3))?;
    let roles = [Role::canal(), Role::Kernel, Role::Kernel];
    let overlay = Overlay::start(&topology, &Network::default(), &roles)?;
    let to = overlay.pod(2).v4;
    let stream = Transfer::endless(&overlay.pod(0).ns, &overlay.pod(2).ns, to.into(), 10_000_000)?;
    let subnets = overlay.subnets(0)?;
    for (number, compacted) in [(11, false), (12, true)] {
        let began = Instant::now();
        overlay.store.partition(overlay.host(0))?;
        // Nobody tells the client: neither is the connection closed, nor does any packet say that it is dead.
        let told = || {
            let (code, text) = overlay.canal(0).status_text()?;
            Ok(code == Some(1) && text.contains("the datastore is away"))
        };
        wait::until("the status says that etcd is away", KEEP_ALIVE + wait::SOON, told)?;
        println!("noticed after {:?}", began.elapsed());
        stream.expect_progress(20_000_000, wait::SOON)?;
        Ping::to(to).expect_all(&overlay.pod(0).ns)?;

        // What happens meanwhile: a node goes, a pod comes, another comes and goes.
        overlay.kernel(1).retire(&overlay.store)?;
        let pod = Pod::new(&topology, overlay.host(0), subnets, number, overlay.pod_mtu)?;
        let short_lived = Pod::new(&topology, overlay.host(0), subnets, 100 + number, overlay.pod_mtu)?;
        pod.attach(&overlay.store)?;
        short_lived.attach(&overlay.store)?;
        short_lived.detach(&overlay.store)?;
        if compacted {
            overlay.store.compact()?;
        }
        Ping::to(overlay.pod(1).v4).expect_all(&overlay.pod(0).ns)?;

        overlay.store.heal()?;
        wait::until("the status is content again", wait::SOON, || overlay.canal(0).status().map(|_| true))?;
        wait_unreachable(overlay.pod(0), overlay.pod(1).v4.into())?;
        wait_reachable(overlay.pod(0), pod.v4.into())?;
        overlay.canal(0).wait_endpoint(&short_lived.interface, false)?;
        // And it listens again.
        overlay.kernel(1).publish(&overlay.store)?;
        wait_reachable(overlay.pod(0), overlay.pod(1).v4.into())?;
        pod.detach(&overlay.store)?;
        wait_unreachable(overlay.pod(0), pod.v4.into())?;
    }
    stream.finish(wait::SOON)?;
    topology.pass()
}

#[test]
fn etcd_compacts_under_a_running_watch() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &ROLES())?;
    for n in 0..20 {
        overlay.store.put("/elsewhere", &n.to_string())?;
    }
    overlay.store.compact()?;
    overlay.kernel(1).retire(&overlay.store)?;
    wait_unreachable(overlay.pod(0), overlay.pod(1).v4.into())?;
    overlay.kernel(1).publish(&overlay.store)?;
    wait_reachable(overlay.pod(0), overlay.pod(1).v4.into())?;
    topology.pass()
}

#[test]
fn etcd_loses_all_its_data() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let mut overlay = Overlay::start(&topology, &Network::default(), &ROLES())?;
    let before = overlay.canal(0).lease(&overlay.store)?;
    let to = overlay.pod(1).v4;
    let stream = Transfer::endless(&overlay.pod(0).ns, &overlay.pod(1).ns, to.into(), 10_000_000)?;
    overlay.store.wipe()?;
    // The network and the peers come back as an operator and their daemons bring them back.
    overlay.store.set_net_conf(&flannel::net_conf(false, &json!({})))?;
    overlay.kernel(1).publish(&overlay.store)?;
    overlay.pod(0).attach(&overlay.store)?;
    wait::until("the own lease is back", wait::SOON, || {
        Ok(overlay.canal(0).lease(&overlay.store)? == before)
    })?;
    wait_reachable(overlay.pod(0), to.into())?;
    stream.expect_progress(5_000_000, wait::SOON)?;
    stream.finish(wait::SOON)?;
    topology.pass()
}

#[test]
fn a_start_without_etcd_uses_what_it_knew_and_says_so() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let mut overlay = Overlay::start(&topology, &Network::default(), &ROLES())?;
    let to = overlay.pod(1).v4;
    overlay.store.stop()?;
    overlay.canal_mut(0).terminate()?;
    overlay.canal_mut(0).launch()?;
    wait_reachable(overlay.pod(0), to.into())?;
    overlay.exchange(overlay.pod(0), overlay.pod(1), 62)?;
    let (code, text) = overlay.canal(0).status_text()?;
    ensure!(code.is_some_and(|c| c != 0), "degraded, and the exit code says so: {text}");
    let log = overlay.canal(0).log_text().to_lowercase();
    ensure!(log.contains("what was saved"), "the log says where its knowledge comes from");
    overlay.store.restart()?;
    overlay.canal_mut(0).wait_ready(wait::SOON)?;
    overlay.exchange(overlay.pod(0), overlay.pod(1), 62)?;
    topology.pass()
}

#[test]
fn a_first_start_without_etcd_waits_for_it() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let mut etcd = netns_tests::Etcd::start(&topology)?;
    etcd.stop()?;
    let mut canal = Canal::prepare(&topology, 0, &etcd, CanalOptions::default())?;
    canal.launch()?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(canal.is_running(), "it waits");
    etcd.restart()?;
    etcd.set_net_conf(&flannel::net_conf(false, &json!({})))?;
    canal.wait_ready(wait::SOON)?;
    topology.pass()
}

#[test]
fn a_directory_serves_two_hosts_as_well() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(3))?;
    let store = DirStore::new(&topology.evidence.dir("data")?)?;
    let roles = [Role::canal(), Role::canal(), Role::Kernel];
    let overlay = Overlay::on(&topology, store, &Network::default(), &roles)?;
    overlay.exchange(overlay.pod(0), overlay.pod(1), 62)?;
    overlay.exchange(overlay.pod(0), overlay.pod(2), 62)?;
    // It is watched, too.
    overlay.kernel(2).retire(&overlay.store)?;
    wait_unreachable(overlay.pod(0), overlay.pod(2).v4.into())?;
    overlay.kernel(2).publish(&overlay.store)?;
    wait_reachable(overlay.pod(0), overlay.pod(2).v4.into())?;
    let other = overlay.another_pod(0, 3)?;
    other.detach(&overlay.store)?;
    wait_unreachable(overlay.pod(0), other.v4.into())?;
    topology.pass()
}

#[test]
fn a_half_written_document_in_a_directory_changes_nothing() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let dir = topology.evidence.dir("data")?;
    let overlay = Overlay::on(&topology, DirStore::new(&dir)?, &Network::default(), &ROLES())?;
    let lease = overlay.kernel(1).lease();
    let value = lease.value(1);
    std::fs::write(dir.join(format!("subnets/{}.json", lease.subnets.key())), &value[..value.len() / 2])?;
    std::fs::write(dir.join("net-conf.json"), "{\"Network\":")?;
    let canal = overlay.canal(0);
    let told = |names: &[&str]| {
        wait::until(&format!("canal status names {names:?}"), wait::SOON, || {
            let (code, text) = canal.status_text()?;
            let status: Value = serde_json::from_str(&text)?;
            let (reasons, ignored) = (status["reasons"].to_string(), status["complaints"].to_string());
            let said = reasons.contains("cannot be used") && names.iter().all(|name| ignored.contains(name));
            Ok(code == Some(1) && said)
        })
    };
    let names = [&*format!("subnets/{}.json", lease.subnets.key()), "net-conf.json"];
    told(&names)?;
    ensure!(canal.status_table()?.1.contains("2 documents cannot be used"), "for people, too");
    Ping::to(overlay.pod(1).v4).expect_all(&overlay.pod(0).ns)?;
    // Mended one by one.
    overlay.store.put_lease(&lease.subnets.key(), &value)?;
    told(&names[1..])?;
    overlay.store.set_net_conf(&flannel::net_conf(false, &json!({})))?;
    wait::until("the status is content again", wait::SOON, || canal.status().map(|_| true))?;
    Ping::to(overlay.pod(1).v4).expect_all(&overlay.pod(0).ns)?;
    topology.pass()
}
