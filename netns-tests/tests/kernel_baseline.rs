//! The laboratory itself, proved with the kernel alone: when these fail, no other result here means anything.

use anyhow::{Result, anyhow, ensure};
use netns_tests::fingerprint::{Fingerprint, Owned};
use netns_tests::frames::{self, read_vxlan};
use netns_tests::packet_socket::PacketSocket;
use netns_tests::traffic::{Ping, iperf, tcp, udp::Echo};
use netns_tests::{Etcd, KernelPeer, PeerOptions, Pod, Shape, Store, Topology, flannel, plan, wait};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Two kernel nodes that know one another, and a pod on each.
struct Pair<'t> {
    etcd: Etcd<'t>,
    peers: Vec<KernelPeer<'t>>,
    pods: Vec<Pod>,
}

fn pair<'t>(topology: &'t Topology, options: &PeerOptions) -> Result<Pair<'t>> {
    let etcd = Etcd::start(topology)?;
    etcd.set_net_conf(&flannel::net_conf(options.dual, &json!({})))?;
    let mut peers = Vec::new();
    for index in 0..2 {
        let peer = KernelPeer::new(topology, index, options.clone())?;
        peer.publish(&etcd)?;
        peers.push(peer);
    }
    let mtu = if options.dual { 1430 } else { 1450 };
    let mut pods = Vec::new();
    for peer in &mut peers {
        peer.sync(&etcd)?;
        pods.push(Pod::routed_by_kernel(topology, peer.host, peer.subnets, 5, mtu)?);
    }
    Ok(Pair { etcd, peers, pods })
}

fn exchange(options: &PeerOptions, shape: &Shape) -> Result<()> {
    let topology = Topology::build(shape)?;
    let pair = pair(&topology, options)?;
    let [a, b] = &pair.pods[..] else { unreachable!("two pods") };
    for to in b.addresses() {
        let answers = Ping::to(to).expect_all(&a.ns)?;
        ensure!(answers.ttls == [62; 3], "two routers between the pods: {answers:?}");
        tcp::transfer(&a.ns, &b.ns, to, 20_000_000)?;
        tcp::transfer(&b.ns, &a.ns, a.address_like(to), 20_000_000)?;
        let echo = Echo::start(&b.ns, to)?;
        let sizes = [1, 100, 1300, 4000];
        ensure!(echo.ask(&a.ns, &sizes)? == sizes.len(), "UDP datagrams lost");
    }
    topology.pass()
}

#[test]
fn kernel_peers_exchange_pod_traffic_with_offloads() -> Result<()> {
    exchange(&PeerOptions::default(), &Shape::hosts(2))
}

#[test]
fn kernel_peers_exchange_pod_traffic_without_offloads() -> Result<()> {
    exchange(&PeerOptions::default(), &Shape::hosts(2).offloads(false))
}

#[test]
fn kernel_peers_exchange_dual_stack_pod_traffic() -> Result<()> {
    exchange(&PeerOptions { dual: true, ..PeerOptions::default() }, &Shape::hosts(2))
}

#[test]
fn kernel_peers_exchange_pod_traffic_with_gbp_and_another_port_and_vni() -> Result<()> {
    exchange(&PeerOptions { vni: 4711, port: 4789, gbp: true, dual: false }, &Shape::hosts(2))
}

#[test]
fn kernel_peers_exchange_pod_traffic_through_the_router() -> Result<()> {
    exchange(&PeerOptions::default(), &Shape::hosts(2).behind_router(1).router_mtu(1400))
}

#[test]
fn a_retired_kernel_peer_is_forgotten() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let mut pair = pair(&topology, &PeerOptions::default())?;
    let to = pair.pods[1].v4;
    Ping::to(to).expect_all(&pair.pods[0].ns)?;
    pair.peers[1].retire(&pair.etcd)?;
    pair.peers[0].sync(&pair.etcd)?;
    let routes = topology.hosts[0].ns.ip("route show dev flannel.1")?;
    ensure!(!routes.contains("10.244.101.0/24"), "{routes}");
    topology.pass()
}

#[test]
fn raw_frames_reach_the_kernel_peers_pod_and_are_seen_on_the_wire() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let pair = pair(&topology, &PeerOptions::default())?;
    let wire = PacketSocket::open(&topology.switch, "h0")?;
    let pod = PacketSocket::open(&pair.pods[1].ns, "eth0")?;
    let (a, b) = (&pair.pods[0], &pair.pods[1]);
    let link = frames::Link { from: frames::mac(&a.mac), to: frames::mac(plan::GATEWAY_MAC) };
    let ends = ((IpAddr::V4(a.v4), 1111), (IpAddr::V4(b.v4), 2222));
    PacketSocket::open(&a.ns, "eth0")?.send(&frames::udp(link, ends.0, ends.1, 9, b"raw"))?;
    let (outer, header, inner) =
        wire.expect("VXLAN packet", wait::SOON, |f| read_vxlan(f, plan::VXLAN_PORT))?;
    ensure!(outer.from == IpAddr::V4(topology.hosts[0].v4) && outer.ttl == 64, "{outer:?}");
    ensure!(header == [8, 0, 0, 0, 0, 0, 1, 0], "{header:?}");
    ensure!(frames::read(&inner).is_some_and(|i| i.ttl == 8), "lowered once by the sending host");
    let seen = pod.expect("raw datagram", wait::SOON, |f| frames::read(f).filter(|s| s.payload == b"raw"))?;
    ensure!(seen.ttl == 7, "lowered once more by the receiving host: {seen:?}");
    topology.pass()
}

#[test]
fn etcd_survives_a_restart_a_compaction_and_a_wipe() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let mut etcd = Etcd::start(&topology)?;
    etcd.put("/a", "1")?;
    etcd.put("/a", "2")?;
    etcd.compact()?;
    etcd.stop()?;
    etcd.restart()?;
    let kept: Vec<_> = etcd.list("/")?.into_iter().map(|(k, v, _)| (k, v)).collect();
    ensure!(kept == [("/a".to_owned(), "2".to_owned())], "{kept:?}");
    ensure!(etcd.ctl(&["watch", "--rev=1", "/a"]).is_err(), "revision 1 is compacted");
    etcd.wipe()?;
    ensure!(etcd.list("/")?.is_empty(), "nothing is left");
    topology.pass()
}

#[test]
fn a_fingerprint_is_stable_and_sees_every_kind_of_change() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let ns = &topology.hosts[0].ns;
    let before = Fingerprint::of(ns)?;
    let none = Owned::nothing();
    let difference = before.difference(&Fingerprint::of(ns)?, &none);
    ensure!(difference.is_empty(), "reading changed something: {difference:?}");

    ns.run(&["nft", "add table ip foreign"])?;
    ns.run(&["iptables-legacy", "-A", "FORWARD", "-j", "ACCEPT"])?;
    ns.run(&["ipset", "create", "foreign", "hash:ip"])?;
    ns.ip("rule add pref 77 lookup 77")?;
    ns.ip("route add 10.9.0.0/16 dev eth0")?;
    ns.ip("link add canal0 type bridge")?;
    ns.sysctl("net.ipv4.ip_forward", "1")?;
    ns.run(&["tc", "qdisc", "add", "dev", "eth0", "clsact"])?;
    let difference = before.difference(&Fingerprint::of(ns)?, &Owned::by_canal(&[]));
    for section in ["nftables", "iptables-legacy", "ipset", "rules4", "routes4", "sysctls", "qdiscs"] {
        ensure!(difference.iter().any(|d| d.starts_with(section)), "{section} unseen in {difference:?}");
    }
    ensure!(!difference.iter().any(|d| d.contains("canal0")), "canal0 is canal's: {difference:?}");
    topology.pass()
}

#[test]
fn iperf3_reports_a_rate_between_kernel_peers() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let pair = pair(&topology, &PeerOptions::default())?;
    let rate = iperf::iperf3(&pair.pods[0].ns, &pair.pods[1].ns, pair.pods[1].v4.into(), 1, &[])?;
    ensure!(rate > 1e6, "{rate} bit/s");
    topology.pass()
}

/// An address that nobody has.
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 200);
/// Longer than ping waits for a path that has been quick.
const LATE: Duration = Duration::from_millis(500);

/// Answers the first of three echo requests to [`NOBODY`] at once, and the others late.
fn answer_late(socket: &PacketSocket) -> Result<()> {
    let answer = |frame: &[u8]| {
        frames::echo_reply(frame).filter(|_| frames::read(frame).is_some_and(|f| f.to == NOBODY))
    };
    socket.send(&socket.expect("the first request", wait::SOON, answer)?)?;
    let others = [(); 2].map(|()| socket.expect("another request", wait::SOON, answer));
    std::thread::sleep(LATE);
    others.into_iter().try_for_each(|other| socket.send(&other?))
}

#[test]
fn pings_are_waited_for_though_the_first_one_was_answered_at_once() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let [asker, other] = &topology.hosts[..] else { unreachable!("two hosts") };
    asker.ns.ip(&format!("neigh add {NOBODY} lladdr {} dev eth0", other.mac()))?;
    let socket = PacketSocket::open(&other.ns, "eth0")?;
    std::thread::scope(|scope| {
        let answering = scope.spawn(|| answer_late(&socket));
        Ping::to(NOBODY).expect_all(&asker.ns)?;
        answering.join().map_err(|_| anyhow!("panicked"))?
    })?;
    topology.pass()
}

#[test]
fn a_kernel_peer_answers_pings_to_its_base_address_and_ttl_ends_where_it_should() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let pair = pair(&topology, &PeerOptions::default())?;
    let (a, b) = (&pair.pods[0], &pair.pods[1]);
    Ping::to(pair.peers[1].subnets.v4).expect_all(&a.ns)?;
    let answers = Ping::to(b.v4).ttl(1).expect_none(&a.ns)?;
    ensure!(answers.errors.iter().all(|(_, what)| what.contains("Time to live exceeded")), "{answers:?}");
    ensure!(answers.errors.len() == 3, "{answers:?}");
    let answers = Ping::to(b.v4).packet_size(1500).dont_fragment().expect_none(&a.ns)?;
    ensure!(answers.mtus.contains(&1450), "{answers:?}");
    Ping::to(b.v4).packet_size(1450).dont_fragment().expect_all(&a.ns)?;
    let moved = Duration::from_secs(20);
    let transfer = netns_tests::traffic::Transfer::endless(&a.ns, &b.ns, b.v4.into(), 5_000_000)?;
    transfer.expect_progress(1_000_000, moved)?;
    ensure!(transfer.finish(moved)? > 1_000_000, "an endless transfer ends when told");
    topology.pass()
}
