//! `canal trace` says what happens: each packet is first asked about and then sent.

use anyhow::{Context, Result, ensure};
use netns_tests::calico::{Kind, Resource, endpoint, namespace_profile};
use netns_tests::frames::{self, Link, Vxlan, mac};
use netns_tests::packet_socket::PacketSocket;
use netns_tests::pod::NAMESPACE;
use netns_tests::{Network, Overlay, Pod, Role, Shape, Store, Topology, admin, plan, wait};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Frames sent of each kind: a counter that grew by chance does not grow so far.
const EACH: u64 = 5;
/// What marks our datagrams.
const MARK: &[u8] = b"asked-about";
/// Where every datagram goes, and where it comes from.
const PORT: u16 = 9999;
const FROM_PORT: u16 = 5555;

/// A canal node with two pods (host 0), a kernel node (host 1), a stranger (host 2), and sockets at every place.
struct Scene<'t> {
    overlay: Overlay<'t>,
    second: Pod,
    pod: PacketSocket,
    neighbour: PacketSocket,
    remote: PacketSocket,
    peer: PacketSocket,
    stranger: PacketSocket,
    device: PacketSocket,
    vtep: [u8; 6],
}

/// A packet: the words that describe it to `canal trace`, and itself.
struct Case<'s> {
    what: &'static str,
    words: Vec<String>,
    socket: &'s PacketSocket,
    frame: Vec<u8>,
}

impl<'t> Scene<'t> {
    fn new(topology: &'t Topology) -> Result<Self> {
        let overlay =
            Overlay::start(topology, &Network::default(), &[Role::canal(), Role::Kernel, Role::Bystander])?;
        let second = overlay.another_pod(0, 7)?;
        let host = &overlay.host(0).ns;
        // Larger than the overlay, so that it is canal's business to say so.
        for pod in [overlay.pod(0), &second] {
            pod.ns.ip("link set eth0 mtu 1500")?;
            host.ip(&format!("link set {} mtu 1500", pod.interface))?;
        }
        Ok(Self {
            pod: PacketSocket::open(&overlay.pod(0).ns, "eth0")?,
            neighbour: PacketSocket::open(&second.ns, "eth0")?,
            remote: PacketSocket::open(&overlay.pod(1).ns, "eth0")?,
            peer: PacketSocket::open(&overlay.host(1).ns, "eth0")?,
            stranger: PacketSocket::open(&overlay.host(2).ns, "eth0")?,
            device: PacketSocket::open(host, "canal0")?,
            vtep: mac(&overlay.canal(0).lease(&overlay.store)?.mac_v4.unwrap_or_default()),
            second,
            overlay,
        })
    }

    /// Words for a datagram to `to`.
    fn words(&self, sender: &[&str], to: IpAddr, frame: &[u8], more: &[&str]) -> Vec<String> {
        let size = (frame.len() - 14).to_string();
        let to = format!("{to}:{PORT}/udp");
        let own = ["--to", &to, "--from-port", "5555", "--size", &size];
        [sender, &own, more].concat().iter().map(|word| (*word).to_owned()).collect()
    }

    /// A datagram of the first pod's, with `len` bytes behind the mark.
    fn datagram(&self, source: Ipv4Addr, to: Ipv4Addr, ttl: u8, len: usize) -> Vec<u8> {
        let link = Link { from: mac(&self.overlay.pod(0).mac), to: mac(plan::GATEWAY_MAC) };
        let payload = [MARK, &vec![0; len]].concat();
        frames::udp(link, (source.into(), FROM_PORT), (to.into(), PORT), ttl, &payload)
    }

    /// The first pod sends to `to`.
    fn pod_to(&self, what: &'static str, to: Ipv4Addr) -> Case<'_> {
        let pod = self.overlay.pod(0);
        let frame = frames::may_fragment(self.datagram(pod.v4, to, 64, 0));
        let words = self.words(&["--from", &pod.interface], to.into(), &frame, &[]);
        Case { what, words, socket: &self.pod, frame }
    }

    /// A datagram from `source` to the first pod, encapsulated by a host.
    fn in_tunnel(&self, what: &'static str, host: usize, vni: u32, source: Ipv4Addr) -> Case<'_> {
        let to = self.overlay.pod(0).v4;
        let link = Link { from: mac(self.overlay.kernel(1).mac()), to: self.vtep };
        let inner = frames::udp(link, (source.into(), FROM_PORT), (to.into(), PORT), 64, MARK);
        let (from, canal) = (self.overlay.host(host), self.overlay.host(0));
        let outer = frames::udp(
            Link { from: mac(&from.mac()), to: mac(&canal.mac()) },
            (from.v4.into(), 40_000),
            (canal.v4.into(), plan::VXLAN_PORT),
            64,
            &Vxlan::plain(vni).wrap(&inner),
        );
        let (node, source, vni) = (from.v4.to_string(), source.to_string(), vni.to_string());
        let sender = ["--vxlan-from", &node, "--from", &source, "--vni", &vni];
        let words = self.words(&sender, to.into(), &inner, &["--df"]);
        let socket = if host == 1 { &self.peer } else { &self.stranger };
        Case { what, words, socket, frame: outer }
    }

    fn cases(&self) -> Result<Vec<Case<'_>>> {
        let (pod, remote, second) = (self.overlay.pod(0), self.overlay.pod(1), &self.second);
        let own = self.overlay.subnets(0)?;
        let spoofed = self.datagram(second.v4, remote.v4, 64, 0);
        let expiring = self.datagram(pod.v4, remote.v4, 1, 0);
        let too_big = self.datagram(pod.v4, remote.v4, 64, 1440);
        let to_be_cut = frames::may_fragment(self.datagram(pod.v4, remote.v4, 64, 1440));
        let from = ["--from", &pod.interface];
        let second_address = second.v4.to_string();
        let case = |what, words, frame| Case { what, words, socket: &self.pod, frame };
        let to = remote.v4.into();
        Ok(vec![
            self.pod_to("to a pod of this node", second.v4),
            self.pod_to("to a pod of another node", remote.v4),
            self.pod_to("to this host", self.overlay.host(0).v4),
            self.pod_to("to an address that nobody has", own.pod_v4(99)),
            self.pod_to("to a network that nobody has", Ipv4Addr::new(10, 244, 250, 1)),
            self.pod_to("to a group", Ipv4Addr::new(224, 1, 1, 1)),
            self.pod_to("to a loopback address", Ipv4Addr::new(127, 9, 9, 9)),
            case(
                "with its neighbour's address",
                self.words(&[&from[..], &["--source", &second_address]].concat(), to, &spoofed, &["--df"]),
                spoofed,
            ),
            case("with a used-up TTL", self.words(&from, to, &expiring, &["--df", "--ttl", "1"]), expiring),
            case("too big, not to be cut", self.words(&from, to, &too_big, &["--df"]), too_big),
            case("too big, cut", self.words(&from, to, &to_be_cut, &[]), to_be_cut),
            self.in_tunnel("out of the tunnel", 1, 1, remote.v4),
            self.in_tunnel("from a stranger", 2, 1, remote.v4),
            self.in_tunnel("in another overlay", 1, 7, remote.v4),
            self.in_tunnel("with an inner source of ours", 1, 1, second.v4),
            self.in_tunnel("with an inner source of nobody's", 1, 1, Ipv4Addr::new(10, 244, 250, 5)),
        ])
    }

    /// Every socket at which a packet may turn up, and what `canal trace` calls the place.
    fn places(&self) -> Result<Vec<(String, &PacketSocket)>> {
        let workload = |pod: &Pod| format!("({})", pod.interface);
        Ok(vec![
            (workload(self.overlay.pod(0)), &self.pod),
            (workload(&self.second), &self.neighbour),
            (format!("VTEP {}", self.overlay.host(1).v4), &self.remote),
            ("host".to_owned(), &self.device),
        ])
    }

    /// Asks, sends, and compares.
    fn compare(&self, case: &Case<'_>) -> Result<()> {
        let canal = self.overlay.canal(0);
        let words: Vec<&str> = case.words.iter().map(String::as_str).collect();
        let (code, report) = canal.trace(&words)?;
        let verdict = &report["verdict"];
        let outcome = verdict["outcome"].as_str().context("no outcome")?;
        let through = matches!(outcome, "delivered" | "forwarded");
        ensure!(code == Some(i32::from(!through)), "{code:?} {report:#}");
        let to = verdict["to"].as_str().filter(|_| outcome != "dropped");

        let before = canal.drops()?;
        for (_, socket) in self.places()? {
            drain(socket)?;
        }
        (0..EACH).try_for_each(|_| case.socket.send(&case.frame))?;
        // Wherever it is said to go, it turns up; and nowhere else.
        for (place, socket) in self.places()? {
            let expected = to.is_some_and(|to| to.ends_with(&place));
            let patience = Duration::from_millis(if expected { 1000 } else { 100 });
            let wanted = |frame: &[u8]| arrived(frame, outcome, case);
            if expected {
                let seen = socket.expect(case.what, patience, wanted);
                seen.with_context(|| format!("it was to be {outcome} to {place}: {report:#}"))?;
            } else if place != "host" {
                let seen = socket.collect(patience, wanted)?;
                ensure!(seen.is_empty(), "{outcome}, and yet it turned up at {place}: {report:#}");
            }
        }
        let reason = verdict["reason"].as_str().filter(|_| outcome == "dropped");
        let counted = wait::until(case.what, Duration::from_secs(2), || {
            let grown = admin::growth(&before, &canal.drops()?);
            Ok(reason.is_none_or(|reason| grown.get(reason).is_some_and(|n| *n >= EACH)))
        });
        counted.with_context(|| format!("it was to be dropped for {reason:?}: {report:#}"))
    }
}

fn drain(socket: &PacketSocket) -> Result<()> {
    let mut buffer = vec![0; 70_000];
    while socket.receive_now(&mut buffer)?.is_some() {}
    Ok(())
}

/// Is this frame the case's packet (or its first piece), or the ICMP error about it?
fn arrived(frame: &[u8], outcome: &str, case: &Case<'_>) -> Option<()> {
    // What a socket on the sender's own link sees is what was sent, not what came.
    let sent = frame == case.frame;
    // IPv4 all of it; receivers answer with errors of their own, which quote the mark.
    let is_protocol = |number: u8| frame.get(23) == Some(&number);
    let marked = is_protocol(17) && frame.windows(MARK.len()).any(|bytes| bytes == MARK);
    let error = is_protocol(1) && frame.windows(2).any(|bytes| bytes == PORT.to_be_bytes());
    let wanted = if outcome == "answered" { error } else { marked };
    (wanted && !sent).then_some(())
}

#[test]
fn what_is_said_of_a_packet_is_what_it_experiences() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(3))?;
    let scene = Scene::new(&topology)?;
    let mut outcomes = Vec::new();
    for case in scene.cases()? {
        scene.compare(&case).with_context(|| case.what)?;
        let words: Vec<&str> = case.words.iter().map(String::as_str).collect();
        outcomes.push(scene.overlay.canal(0).trace(&words)?.1["verdict"].clone());
    }
    // The cases are not all of one kind.
    let has = |name: &str, value: &str| outcomes.iter().any(|verdict: &Value| verdict[name] == value);
    for outcome in ["delivered", "forwarded", "answered", "dropped"] {
        ensure!(has("outcome", outcome), "no packet was {outcome}: {outcomes:?}");
    }
    for reason in ["spoofed_source", "unknown_vtep", "unknown_vni", "too_big", "ttl_expired", "no_route"] {
        ensure!(has("reason", reason), "no packet met {reason}: {outcomes:?}");
    }
    topology.pass()
}

#[test]
fn what_is_said_of_policy_is_what_it_does() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(3))?;
    let scene = Scene::new(&topology)?;
    let (store, second) = (&scene.overlay.store, &scene.second);
    namespace_profile().put(store)?;
    Resource::global(Kind::Tier, "security", json!({"order": 100})).put(store)?;
    let pass = json!({"action": "Pass", "protocol": "UDP", "source": {"notNets": ["10.99.0.0/16"]}});
    let first =
        json!({"tier": "security", "selector": "role == 'guarded'", "types": ["Ingress"], "ingress": [pass]});
    Resource::global(Kind::GlobalNetworkPolicy, "security.first", first).put(store)?;
    let rules = json!([{"action": "Allow", "protocol": "TCP"},
                       {"action": "Deny", "protocol": "UDP", "destination": {"ports": [PORT]}},
                       {"action": "Allow"}]);
    let guard = json!({"selector": "role == 'guarded'", "types": ["Ingress"], "ingress": rules});
    Resource::namespaced(Kind::NetworkPolicy, "default.guard", guard).put(store)?;
    let guarded = endpoint(second, &[("role", "guarded")], &[]);
    store.put_workload(NAMESPACE, &second.endpoint_name(), &guarded)?;

    let case = scene.pod_to("to a pod whose policy denies it", second.v4);
    let words: Vec<&str> = case.words.iter().map(String::as_str).collect();
    let canal = scene.overlay.canal(0);
    wait::until("the trace says denied", wait::SOON, || {
        Ok(canal.trace(&words)?.1["verdict"]["reason"] == "policy_denied_ingress")
    })?;
    // Tier by tier, policy by policy, rule by rule.
    let (_, report) = canal.trace(&words)?;
    let stages = report["stages"].as_array().context("no stages")?;
    let stage = stages.iter().find(|stage| stage["stage"] == "ingress").context("no ingress stage")?;
    let guard = format!("{NAMESPACE}/default.guard");
    ensure!(stage["result"] == "drop", "{stage:#}");
    ensure!(stage["policy"]["outcome"] == "denied", "{stage:#}");
    let decider = format!("tier default, NetworkPolicy {guard}, ingress rule 1 (Deny)");
    ensure!(stage["policy"]["decider"] == json!(decider), "{stage:#}");
    let asked: Vec<Value> = stage["policy"]["steps"]
        .as_array()
        .context("no steps")?
        .iter()
        .map(|step| json!([step["tier"], step["name"], step["rule"], step["action"], step["matched"]]))
        .collect();
    let expected = [
        json!(["security", "security.first", 0, "Pass", true]),
        json!(["default", guard, 0, "Allow", false]),
        json!(["default", guard, 1, "Deny", true]),
    ];
    ensure!(asked == expected, "{asked:?}");
    // And so it is: the packets do not arrive, are dropped for this reason, and counted by this rule.
    let met = |rule: u64| -> Result<u64> {
        let policies = canal.show("policies")?;
        let sets = policies.as_array().context("no list")?;
        let set = sets.iter().find(|set| set["name"] == json!(guard)).context("no such policy")?;
        set["rules"][rule as usize]["packets"].as_u64().context("no number")
    };
    ensure!(met(1)? == 0, "traces are not counted");
    scene.compare(&case)?;
    ensure!(met(1)? == EACH && met(0)? == 0 && met(2)? == 0, "{} {} {}", met(0)?, met(1)?, met(2)?);
    topology.pass()
}

#[test]
fn nothing_of_the_daemon_is_touched() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal()])?;
    let (canal, pod) = (overlay.canal(0), overlay.pod(0));
    // Both are attached once they reach each other.
    let _second = overlay.another_pod(0, 7)?;
    let to = format!("{}:80/tcp", Ipv4Addr::new(10, 244, 250, 1));
    let (drops, flows) = (canal.drops()?, canal.show("flows")?);
    for _ in 0..200 {
        let (code, _) = canal.trace(&["--from", &pod.interface, "--to", &to])?;
        ensure!(code == Some(1));
    }
    ensure!(canal.drops()?.get("no_route") == drops.get("no_route"), "nothing was dropped");
    let count = |flows: &Value| flows.as_array().map_or(0, Vec::len);
    ensure!(count(&canal.show("flows")?) <= count(&flows), "no flow was made");
    topology.pass()
}
