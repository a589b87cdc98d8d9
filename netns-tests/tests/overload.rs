//! More packets than the daemon can carry: everybody who asks gets an answer, changes are enforced, every packet that is lost
//! is counted, and afterwards all is as before.

use anyhow::{Context, Result, ensure};
use netns_tests::calico::{Kind, Resource, namespace_profile};
use netns_tests::frames::{self, Link, mac};
use netns_tests::overlay::{wait_reachable, wait_unreachable};
use netns_tests::plan::GATEWAY_MAC;
use netns_tests::traffic::{Flood, Ping};
use netns_tests::{Canal, CanalOptions, Netns, Network, Overlay, Pod, Role, Shape, Topology, http, wait};
use serde_json::json;
use std::net::UdpSocket;
use std::time::Duration;

/// Who floods: more than one worker can keep up with on any machine that runs this test.
const SENDERS: u16 = 3;
/// The port that is flooded.
const PORT: u16 = 9000;
/// Frames that the kernel drops at the device before it counts as overloaded.
const MANY: u64 = 10_000;

/// Value of a metric with one sample.
fn metric(host: &Netns, name: &str) -> Result<u64> {
    let (code, text) = http::get(host, "127.0.0.1:9191/metrics")?;
    ensure!(code == 200, "{code} {text}");
    let sample = text.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name}"))?;
    sample.rsplit(' ').next().context("a value")?.parse().context(sample.to_owned())
}

/// UDP datagrams that have reached the pod's stack, wanted or not. It counts those that wait at the socket when they are taken.
fn arrived(pod: &Pod, listener: &UdpSocket) -> Result<u64> {
    while listener.recv(&mut []).is_ok() {}
    let text = pod.ns.run(&["cat", "/proc/net/snmp"])?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let wanted = ["InDatagrams", "NoPorts", "InErrors"];
    names
        .split(' ')
        .zip(values.split(' '))
        .filter(|(name, _)| wanted.contains(name))
        .map(|(_, n)| Ok(n.parse::<u64>()?))
        .sum()
}

/// Packets that the pod's interface has taken.
fn sent_by(pod: &Pod) -> Result<u64> {
    pod.ns.link_counter("eth0", "tx", "packets")
}

/// Everything that counts losses of what the sender's interface has taken: canal's metrics and counters, and the kernel's
/// on the way from the daemon to the receiver.
fn lost(canal: &Canal<'_>, host: &Netns, to: &Pod) -> Result<u64> {
    let way_out =
        host.link_counter("canal0", "rx", "dropped")? + host.link_counter(&to.interface, "tx", "dropped")?;
    let queue = metric(host, "canal_device_lost_frames_total")?;
    Ok(queue + canal.lost()? + way_out)
}

fn flood(from: &Pod, to: &Pod) -> Result<Flood> {
    let link = Link { from: mac(&from.mac), to: mac(GATEWAY_MAC) };
    let frame = |n| frames::udp(link, (from.v4.into(), 10_000 + n), (to.v4.into(), PORT), 64, &[7; 22]);
    Flood::start(&from.ns, "eth0", (0..SENDERS).map(frame).collect())
}

#[test]
fn under_overload_everybody_is_answered_and_every_loss_is_counted() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1).without_captures())?;
    let options = CanalOptions::with(&["--metrics-addr=127.0.0.1:9191", "--healthz-port=8471"]);
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::Canal(options)])?;
    let (canal, host, etcd) = (overlay.canal(0), &overlay.host(0).ns, &overlay.store);
    namespace_profile().put(etcd)?;
    let (from, to) = (overlay.pod(0), overlay.another_pod(0, 7)?);
    // Somebody listens, so that no ICMP errors come back; what does not fit the socket has arrived all the same.
    let address = to.v4;
    let listener = to.ns.enter(move || Ok(UdpSocket::bind((address, PORT))?))?;
    listener.set_nonblocking(true)?;
    let (lost_before, arrived_before) = (lost(canal, host, &to)?, arrived(&to, &listener)?);
    let sent_before = sent_by(from)? + sent_by(&to)?;
    let device_before = metric(host, "canal_device_lost_frames_total")?;
    let flood = flood(from, &to)?;
    wait::until("more than the worker can take", wait::SOON, || {
        Ok(metric(host, "canal_device_lost_frames_total")? >= device_before + MANY)
    })?;
    ask(canal, host)?;
    let deny = json!({"selector": "all()", "types": ["Ingress"], "ingress": [{"action": "Deny"}]});
    change(canal, etcd, &Resource::global(Kind::GlobalNetworkPolicy, "default.deny", deny))?;
    let sent = flood.finish()?;
    // Known connections are judged anew, too.
    wait_unreachable(from, to.v4.into())?;
    Resource::global(Kind::GlobalNetworkPolicy, "default.deny", json!({})).delete(etcd)?;
    wait_reachable(from, to.v4.into())?;
    Ping::to(to.v4).expect_all(&from.ns)?;
    wait::until("every packet is accounted for", Duration::from_secs(5), || {
        let known = (arrived(&to, &listener)? - arrived_before) + (lost(canal, host, &to)? - lost_before);
        // What else the pods have sent may be among what was lost.
        let all = sent_by(from)? + sent_by(&to)? - sent_before;
        ensure!((sent..=all).contains(&known), "{known} packets are accounted for, of {sent} to {all}");
        Ok(true)
    })?;
    topology.pass()
}

/// Every way to ask how the daemon is.
fn ask(canal: &Canal<'_>, host: &Netns) -> Result<()> {
    for _ in 0..5 {
        canal.status()?;
        for (what, url) in [("ready", "127.0.0.1:8471/readyz"), ("alive", "127.0.0.1:8471/healthz")] {
            let (code, text) = http::get(host, url)?;
            ensure!(code == 200, "{what}: {code} {text}");
        }
        for what in ["flows", "drops", "workers", "endpoints", "policies"] {
            canal.show(what)?;
        }
    }
    Ok(())
}

/// A change is enforced while packets come.
fn change(canal: &Canal<'_>, etcd: &netns_tests::Etcd<'_>, resource: &Resource) -> Result<()> {
    let revision = etcd.put_at(&resource.key(), &resource.value().to_string())?;
    let (code, said) = canal.wait_revision(revision, "20s")?;
    ensure!(code == Some(0), "canal wait: {code:?} {said}");
    Ok(())
}
