//! Policy that changes under traffic, connections that go on or are cut, and pods that misbehave.

use anyhow::{Context, Result, ensure};
use netns_tests::calico::{Kind, Resource, endpoint, namespace_profile};
use netns_tests::frames::{self, Link, mac};
use netns_tests::packet_socket::PacketSocket;
use netns_tests::plan::GATEWAY_MAC;
use netns_tests::pod::NAMESPACE;
use netns_tests::traffic::{Service, Transfer, tcp_connects};
use netns_tests::{CanalOptions, Network, Overlay, Pod, Role, Shape, Store, Topology, wait};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PORT: u16 = 8080;

fn labelled(overlay: &Overlay<'_>, pod: &Pod, role: &str) -> Result<()> {
    let value = endpoint(pod, &[("role", role)], &[]);
    overlay.store.put_workload(NAMESPACE, &pod.endpoint_name(), &value)
}

fn ingress(selector: &str, rules: Value) -> Value {
    json!({"selector": selector, "types": ["Ingress"], "ingress": rules})
}

fn global(name: &str, spec: Value) -> Resource {
    Resource::global(Kind::GlobalNetworkPolicy, &format!("default.{name}"), spec)
}

fn wait_tcp(pod: &Pod, to: SocketAddr, passes: bool) -> Result<()> {
    let what = format!("TCP {} -> {to} passes={passes}", pod.ns.name());
    wait::until(&what, wait::SOON, || Ok(tcp_connects(&pod.ns, to)? == passes))
}

#[test]
fn established_connections_go_on_when_a_policy_forbids_new_ones() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::canal()])?;
    namespace_profile().put(&overlay.store)?;
    labelled(&overlay, overlay.pod(0), "client")?;
    labelled(&overlay, overlay.pod(1), "server")?;
    let to = SocketAddr::new(overlay.pod(1).v4.into(), PORT);
    let _service = Service::start(&overlay.pod(1).ns, to.ip(), PORT)?;
    wait_tcp(overlay.pod(0), to, true)?;
    let stream = Transfer::endless(&overlay.pod(0).ns, &overlay.pod(1).ns, to.ip(), 10_000_000)?;
    stream.expect_progress(1_000_000, wait::SOON)?;
    global("deny", ingress("role == 'server'", json!([{"action": "Deny"}]))).put(&overlay.store)?;
    wait_tcp(overlay.pod(0), to, false)?;
    stream.expect_progress(10_000_000, wait::SOON)?;
    stream.finish(wait::SOON)?;
    topology.pass()
}

#[test]
fn connections_of_an_endpoint_that_went_away_are_cut() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::canal()])?;
    namespace_profile().put(&overlay.store)?;
    let first = overlay.another_pod(0, 7)?;
    let address = first.v4;
    let back = UdpSocketAt::open(&first, 5000)?;
    let remote = UdpSocketAt::open(overlay.pod(1), 5001)?;
    let reaches = |from: &UdpSocketAt, to: SocketAddr, at: &UdpSocketAt| -> Result<bool> {
        from.0.send_to(b"x", to)?;
        Ok(at.0.recv(&mut [0; 8]).is_ok())
    };
    let (here, there) =
        (SocketAddr::new(address.into(), 5000), SocketAddr::new(overlay.pod(1).v4.into(), 5001));
    wait::until("first packet", wait::SOON, || reaches(&back, there, &remote))?;
    ensure!(reaches(&remote, here, &back)?, "and its answer");
    // Another pod gets the address; nothing is allowed to it.
    first.detach(&overlay.store)?;
    overlay.canal(0).wait_endpoint(&first.interface, false)?;
    overlay.host(0).ns.ip(&format!("link del {}", first.interface))?;
    let second = Pod::new(&topology, overlay.host(0), overlay.subnets(0)?, 7, overlay.pod_mtu)?;
    // The policy before the endpoint: there is no moment at which the stranger is open.
    global("closed", ingress("role == 'stranger'", json!([]))).put(&overlay.store)?;
    labelled(&overlay, &second, "stranger")?;
    overlay.canal(0).wait_endpoint(&second.interface, true)?;
    let stranger = UdpSocketAt::open(&second, 5000)?;
    for _ in 0..3 {
        ensure!(!reaches(&remote, here, &stranger)?, "the old connection does not lead to the new pod");
    }
    topology.pass()
}

struct UdpSocketAt(UdpSocket);

impl UdpSocketAt {
    fn open(pod: &Pod, port: u16) -> Result<Self> {
        let at = SocketAddr::new(pod.v4.into(), port);
        let socket = pod.ns.enter(move || UdpSocket::bind(at).context("binding"))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        Ok(Self(socket))
    }
}

/// Two policies flip together between two ports, in one transaction. A packet that met the egress policy of one moment and
/// the ingress policy of another would be dropped, whatever its port.
#[test]
fn no_packet_is_judged_by_two_moments() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal()])?;
    namespace_profile().put(&overlay.store)?;
    let server = overlay.another_pod(0, 5)?;
    labelled(&overlay, overlay.pod(0), "client")?;
    labelled(&overlay, &server, "server")?;
    const PORTS: [u16; 2] = [7001, 7002];
    let flip = |port: u16| -> Result<()> {
        let rule = json!([{"action": "Allow", "protocol": "UDP", "destination": {"ports": [port]}}]);
        let out = global("out", json!({"selector": "role == 'client'", "types": ["Egress"], "egress": rule}));
        let into = global("in", ingress("role == 'server'", rule));
        let changes: Vec<_> = [out, into].iter().map(|r| (r.key(), Some(r.value().to_string()))).collect();
        overlay.store.put_all(&changes)
    };
    flip(PORTS[0])?;
    let sinks: Vec<UdpSocketAt> =
        PORTS.iter().map(|p| UdpSocketAt::open(&server, *p)).collect::<Result<_>>()?;
    let to: Vec<SocketAddr> = PORTS.iter().map(|p| SocketAddr::new(server.v4.into(), *p)).collect();
    wait_policy(overlay.pod(0), &to[0], &sinks[0])?;
    // Each pair of packets has a port of its own: nothing of it is remembered.
    let stop = AtomicBool::new(false);
    const FLIPS: usize = 20;
    let pairs = std::thread::scope(|scope| -> Result<usize> {
        let sender = scope.spawn(|| -> Result<usize> {
            let client = IpAddr::V4(overlay.pod(0).v4);
            overlay.pod(0).ns.enter(|| {
                let mut pairs = 0_usize;
                while !stop.load(Ordering::Relaxed) && pairs < 40_000 {
                    let port = 10_000 + (pairs % 50_000) as u16;
                    let socket = UdpSocket::bind((client, port))?;
                    for target in &to {
                        socket.send_to(&(pairs as u32).to_be_bytes(), target)?;
                    }
                    pairs += 1;
                    // What arrives stays in the sockets until the end: it must fit there.
                    std::thread::sleep(Duration::from_millis(6));
                }
                Ok(pairs)
            })
        });
        for n in 1..=FLIPS {
            flip(PORTS[n % 2])?;
            std::thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Relaxed);
        sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?
    })?;
    let mut seen = vec![0_u8; pairs];
    for sink in &sinks {
        let mut buffer = [0; 4];
        while let Ok(4) = sink.0.recv(&mut buffer) {
            seen[u32::from_be_bytes(buffer) as usize] += 1;
        }
    }
    // A flip may fall between the two packets of a pair, once each.
    let (none, both) = (seen.iter().filter(|n| **n == 0).count(), seen.iter().filter(|n| **n == 2).count());
    ensure!(pairs > 100, "{pairs} pairs are too few to tell");
    ensure!(
        none <= FLIPS && both <= FLIPS,
        "of {pairs} pairs {none} were dropped whole and {both} passed whole"
    );
    topology.pass()
}

fn wait_policy(from: &Pod, to: &SocketAddr, sink: &UdpSocketAt) -> Result<()> {
    let client = UdpSocketAt::open(from, 9_999)?;
    wait::until("the first port is open", wait::SOON, || {
        client.0.send_to(b"first", to)?;
        Ok(sink.0.recv(&mut [0; 8]).is_ok())
    })
}

#[test]
fn an_endpoint_that_flaps_ends_as_it_was_last_written() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::canal()])?;
    namespace_profile().put(&overlay.store)?;
    global(
        "server",
        ingress("role == 'server'", json!([{"action": "Allow", "source": {"selector": "role == 'client'"}}])),
    )
    .put(&overlay.store)?;
    labelled(&overlay, overlay.pod(1), "server")?;
    overlay.wait_enforced()?;
    let to = SocketAddr::new(overlay.pod(1).v4.into(), PORT);
    let _service = Service::start(&overlay.pod(1).ns, to.ip(), PORT)?;
    for round in 0..4 {
        for n in 0..6 {
            labelled(&overlay, overlay.pod(0), if n % 2 == 0 { "client" } else { "nobody" })?;
        }
        let client = round % 2 == 0;
        labelled(&overlay, overlay.pod(0), if client { "client" } else { "nobody" })?;
        wait_tcp(overlay.pod(0), to, client)?;
        overlay.pod(0).detach(&overlay.store)?;
        overlay.pod(0).attach(&overlay.store)?;
    }
    topology.pass()
}

#[test]
fn policy_stays_in_force_while_etcd_is_away_and_changes_when_it_is_back() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let mut overlay = Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::canal()])?;
    namespace_profile().put(&overlay.store)?;
    labelled(&overlay, overlay.pod(1), "server")?;
    let to = SocketAddr::new(overlay.pod(1).v4.into(), PORT);
    let _service = Service::start(&overlay.pod(1).ns, to.ip(), PORT)?;
    let deny = global("deny", ingress("role == 'server'", json!([])));
    deny.put(&overlay.store)?;
    wait_tcp(overlay.pod(0), to, false)?;
    overlay.store.stop()?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(!tcp_connects(&overlay.pod(0).ns, to)?, "still denied without etcd");
    overlay.canal_mut(1).terminate()?;
    overlay.canal_mut(1).launch()?;
    std::thread::sleep(Duration::from_secs(8));
    ensure!(!tcp_connects(&overlay.pod(0).ns, to)?, "still denied after a restart without etcd");
    overlay.store.restart()?;
    deny.delete(&overlay.store)?;
    wait_tcp(overlay.pod(0), to, true)?;
    topology.pass()
}

#[test]
fn a_stray_ack_opens_nothing() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    // A daemon that has just started takes up connections of the one before it, unless it is told not to.
    let strict = || Role::Canal(CanalOptions::with(&["--flow-pickup", "0"]));
    let overlay = Overlay::start(&topology, &Network::default(), &[strict(), strict()])?;
    namespace_profile().put(&overlay.store)?;
    let (from, to) = (overlay.pod(0), overlay.pod(1));
    let link = Link { from: mac(&from.mac), to: mac(GATEWAY_MAC) };
    let socket = PacketSocket::open(&from.ns, "eth0")?;
    let sink = PacketSocket::open(&to.ns, "eth0")?;
    let arrives = |flags: frames::TcpFlags, port: u16| -> Result<bool> {
        let frame = frames::tcp(link, (from.v4, port), (to.v4, PORT), flags, b"");
        socket.send(&frame)?;
        let wanted = |seen: &[u8]| {
            (seen.len() > 37 && seen[23] == 6 && seen[34..36] == port.to_be_bytes()).then_some(())
        };
        Ok(!sink.collect(Duration::from_millis(500), wanted)?.is_empty())
    };
    ensure!(arrives(frames::TcpFlags::Syn, 4_000)?, "an opening passes");
    ensure!(!arrives(frames::TcpFlags::Ack, 4_001)?, "an acknowledgement of nothing does not");
    ensure!(!arrives(frames::TcpFlags::Rst, 4_002)?, "nor a reset of nothing");
    topology.pass()
}

#[test]
fn a_flood_from_one_pod_does_not_close_the_door_for_its_neighbour() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::canal()])?;
    namespace_profile().put(&overlay.store)?;
    let hostile = overlay.another_pod(0, 6)?;
    let to = SocketAddr::new(overlay.pod(1).v4.into(), PORT);
    let _service = Service::start(&overlay.pod(1).ns, to.ip(), PORT)?;
    let stream = Transfer::endless(&overlay.pod(0).ns, &overlay.pod(1).ns, to.ip(), 5_000_000)?;
    stream.expect_progress(1_000_000, wait::SOON)?;
    let link = Link { from: mac(&hostile.mac), to: mac(GATEWAY_MAC) };
    let socket = PacketSocket::open(&hostile.ns, "eth0")?;
    // More connections than the flow tables have room for one endpoint, each of one packet.
    for n in 0..300_000_u32 {
        let target = (IpAddr::V4(overlay.pod(1).v4), 1_000 + (n / 50_000) as u16);
        let frame = frames::udp(link, (hostile.v4.into(), 10_000 + (n % 50_000) as u16), target, 64, b"x");
        // A full queue is the flood's own loss.
        socket.send(&frame).ok();
    }
    stream.expect_progress(1_000_000, wait::SOON)?;
    ensure!(tcp_connects(&overlay.pod(0).ns, to)?, "the neighbour opens a connection");
    stream.finish(wait::SOON)?;
    topology.pass()
}

#[test]
fn a_fragment_without_ports_does_not_slip_past_a_rule_about_ports() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::canal()])?;
    namespace_profile().put(&overlay.store)?;
    labelled(&overlay, overlay.pod(1), "server")?;
    let rule = json!([{"action": "Allow", "protocol": "UDP", "destination": {"ports": [5001]}}]);
    global("one-port", ingress("role == 'server'", rule)).put(&overlay.store)?;
    // Before it is in force the closed port is open.
    overlay.wait_enforced()?;
    let open = UdpSocketAt::open(overlay.pod(1), 5001)?;
    let closed = UdpSocketAt::open(overlay.pod(1), 5002)?;
    let client = UdpSocketAt::open(overlay.pod(0), 4000)?;
    // Larger than any MTU here: the pod's kernel cuts it, the receiver's puts it together again.
    let large = vec![7; 9000];
    let address = IpAddr::V4(overlay.pod(1).v4);
    let arrives = |socket: &UdpSocketAt, port: u16| -> Result<bool> {
        client.0.send_to(&large, SocketAddr::new(address, port))?;
        let mut buffer = vec![0; 10_000];
        Ok(socket.0.recv(&mut buffer).is_ok_and(|n| n == large.len()))
    };
    wait::until("a datagram in fragments to the open port", wait::SOON, || arrives(&open, 5001))?;
    for _ in 0..3 {
        ensure!(!arrives(&closed, 5002)?, "not to the closed one");
    }
    let fragments = PacketSocket::open(&overlay.pod(1).ns, "eth0")?;
    client.0.send_to(&large, SocketAddr::new(address, 5002))?;
    let later = |frame: &[u8]| {
        (frame[12..14] == [8, 0] && frame[20..22] != [0x40, 0] && frame[20..22] != [0, 0]).then_some(())
    };
    let seen = fragments.collect(Duration::from_millis(500), later)?;
    ensure!(seen.is_empty(), "{} fragments of a forbidden datagram arrived", seen.len());
    topology.pass()
}
