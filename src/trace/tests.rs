//! Packets through the tables of a small node, told stage by stage.

use std::sync::Arc;

use canal_dataplane::net::{Mac, Vni};
use canal_dataplane::spec::policy::{
    Action, EndpointToHost, HostEndpoint, HostPolicy, IpSet, Members, Origin, OriginKind, PolicyDirection,
    PolicyList, Ports, Rule, RuleSet, Side, Tier, TierEnd,
};
use canal_dataplane::spec::{Endpoint, Gateway, Hop, LocalVtep, Route, Settings, Via, Vtep, Vxlan};
use canal_dataplane::verdict::DropReason;

use super::question::{Connection, From, Protocol, TcpFlags};
use super::report::{Outcome, StageResult};
use super::*;

const SEED: HashSeed = HashSeed(1, 2);

fn endpoint(name: &str, ifindex: u32, networks: &[&str]) -> Endpoint {
    Endpoint {
        name: format!("default/n1-k8s-{name}-eth0"),
        interface: format!("cali-{name}"),
        ifindex: (ifindex > 0).then_some(ifindex),
        mac: Some(Mac([2, 0, 0, 0, 1, ifindex as u8])),
        networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
        mtu: 1450,
        policy: EndpointPolicy::allow_all(),
    }
}

/// Node 192.0.2.1 with pods 10.1.1.2 (a), .3 (b, dual-stack) and .4 (down); peers 192.0.2.2 (10.1.2.0/24, tunnel) and
/// 192.0.2.3 (10.1.3.0/24, direct).
fn spec() -> NodeSpec {
    let network = |text: &str| text.parse().unwrap();
    let local = LocalVtep { address: [192, 0, 2, 1].into(), mac: Mac([2, 0, 0, 0, 0, 1]), mtu: 1450 };
    let peer = "192.0.2.2".parse().unwrap();
    NodeSpec {
        revision: 9,
        settings: Settings::default(),
        vxlan: Some(Vxlan { vni: Vni::new(1).unwrap(), port: 8472, v4: Some(local), v6: None }),
        host_addresses: vec!["10.1.1.0".parse().unwrap(), "192.0.2.1".parse().unwrap()],
        gateway_v4: Some([10, 1, 1, 0].into()),
        endpoints: vec![
            endpoint("a", 7, &["10.1.1.2/32"]),
            endpoint("b", 8, &["10.1.1.3/32", "fd00::3/128"]),
            endpoint("down", 0, &["10.1.1.4/32"]),
        ]
        .into(),
        vteps: vec![Vtep {
            outer: peer,
            mac: Mac([2, 0, 0, 0, 0, 2]),
            owns: vec![network("10.1.2.0/24"), network("192.0.2.2/32")],
        }]
        .into(),
        routes: vec![
            Route { prefix: network("10.1.1.0/24"), via: Via::Drop(DropReason::UnassignedAddress) },
            Route { prefix: network("10.1.2.0/24"), via: Via::Vtep(peer) },
            Route {
                prefix: network("10.1.3.0/24"),
                via: Via::Direct { next_hop: "192.0.2.3".parse().unwrap(), mtu: 1500 },
            },
        ]
        .into(),
        direct_sources: vec![network("10.1.3.0/24")].into(),
        ..NodeSpec::default()
    }
}

fn ask(from: From, to: &str, protocol: Protocol) -> Question {
    Question::new(from, to, protocol)
}

fn workload(name: &str) -> From {
    From::Workload(name.into())
}

fn tcp(port: u16) -> Protocol {
    Protocol::Tcp { port, flags: None }
}

fn through(workers: u32, question: &Question) -> Result<Report, TraceError> {
    let tables = compile(&spec(), None, 3);
    Tracer::new(SEED, workers).trace(question, &spec(), &tables, 1000)
}

fn trace(question: &Question) -> Report {
    through(1, question).unwrap()
}

/// `stage: text`, with a mark where it ends.
fn told(report: &Report) -> Vec<String> {
    let line = |stage: &report::StageView| {
        let mark = match stage.result {
            StageResult::Pass => "",
            StageResult::Drop => "DROP ",
            StageResult::Reply => "REPLY ",
        };
        format!("{mark}{}: {}", stage.stage, stage.text)
    };
    report.stages.iter().map(line).collect()
}

fn ending(report: &Report) -> (Outcome, Option<&str>, Option<&str>) {
    (report.verdict.outcome, report.verdict.reason.as_deref(), report.verdict.to.as_deref())
}

#[test]
fn to_a_pod_of_another_node() {
    let report = through(2, &ask(workload("a"), "10.1.2.9", tcp(80))).unwrap();
    assert_eq!((report.generation, report.revision), (3, 9));
    assert_eq!(report.packet.ingress, "workload default/n1-k8s-a-eth0 (cali-a)");
    let owner = told(&report)[2].clone();
    assert!(owner.starts_with("owner: worker ") && owner.ends_with(" of 2 has the flow"), "{owner}");
    assert_eq!(
        told(&report),
        [
            "classify: IPv4 packet of 40 bytes, protocol TCP",
            "source: 10.1.1.2 is one of the addresses of workload default/n1-k8s-a-eth0",
            owner.as_str(),
            "conntrack: no such connection is assumed",
            "egress: workload default/n1-k8s-a-eth0: allowed by Profile projectcalico-default-allow, egress rule 0 (Allow)",
            "route: 10.1.2.0/24 through the tunnel to VTEP 192.0.2.2",
            "forward: 40 bytes fit the MTU, 1450; TTL 64 becomes 63",
            "encap: into the tunnel to VTEP 192.0.2.2, VNI 1, UDP port 8472",
        ]
    );
    assert_eq!(ending(&report), (Outcome::Forwarded, None, Some("VTEP 192.0.2.2")));
    let [sent] = report.sent.as_slice() else { panic!("{:?}", report.sent) };
    assert_eq!((sent.egress.as_str(), sent.length), ("underlay", 14 + 40 + 50));
    let port = sent.layers[2].strip_prefix("UDP ").unwrap().split(' ').next().unwrap();
    assert_eq!(
        sent.layers,
        [
            "Ethernet, addresses left to the kernel",
            "IPv4 192.0.2.1 > 192.0.2.2, TTL 64, 90 bytes",
            &format!("UDP {port} > 8472"),
            "VXLAN VNI 1",
            "Ethernet 02:00:00:00:00:01 > 02:00:00:00:00:02",
            "IPv4 10.1.1.2 > 10.1.2.9, TTL 63, 40 bytes",
            "TCP 40000 > 80, SYN, 0 bytes of data",
        ]
    );
}

#[test]
fn between_pods_by_every_name_they_have() {
    for from in ["default/n1-k8s-a-eth0", "default/a", "a", "10.1.1.2", "cali-a"] {
        for to in ["10.1.1.3", "b", "default/b"] {
            let report = trace(&ask(workload(from), to, Protocol::Udp { port: 53 }));
            let to = "workload default/n1-k8s-b-eth0 (cali-b)";
            assert_eq!(ending(&report), (Outcome::Delivered, None, Some(to)));
            assert_eq!(report.sent[0].layers[0], "Ethernet ee:ee:ee:ee:ee:ee > 02:00:00:00:01:08");
        }
    }
    let refused = through(1, &ask(workload("nobody"), "10.1.1.3", tcp(80))).unwrap_err().to_string();
    assert!(refused.contains("default/n1-k8s-a-eth0"), "who there is: {refused}");
    let refused = through(1, &ask(workload("down"), "10.1.1.3", tcp(80))).unwrap_err().to_string();
    assert!(refused.contains("cali-down"), "{refused}");
    assert!(through(1, &ask(workload("a"), "fd00::3", tcp(80))).unwrap_err().to_string().contains("IPv6"));
}

#[test]
fn a_spoofed_source_is_told_from_the_right_ones() {
    let question =
        Question { source: Some("10.1.1.3".parse().unwrap()), ..ask(workload("a"), "10.1.2.9", tcp(80)) };
    let report = trace(&question);
    assert_eq!(ending(&report), (Outcome::Dropped, Some("spoofed_source"), None));
    assert_eq!(report.sent, []);
    let why = "DROP source: The source address does not belong to the workload or node that sent the packet. \
               10.1.1.3 is not among the addresses of workload default/n1-k8s-a-eth0: 10.1.1.2/32.";
    assert_eq!(told(&report).last().unwrap(), why);
    assert_eq!(report.stages.last().unwrap().facts["allowed"], "10.1.1.2/32");
}

#[test]
fn arriving_in_the_tunnel() {
    let from = |node: &str, vni| From::Vxlan { node: node.parse().unwrap(), vni };
    let question = |node, vni, source: &str| Question {
        source: Some(source.parse().unwrap()),
        ..ask(from(node, vni), "10.1.1.2", tcp(80))
    };
    let report = trace(&question("192.0.2.2", None, "10.1.2.9"));
    assert_eq!(told(&report)[0], "decap: out of the tunnel from VTEP 192.0.2.2, VNI 1");
    assert_eq!(ending(&report).0, Outcome::Delivered);
    assert_eq!(report.packet.layers.len(), 7, "{:?}", report.packet.layers);
    let cases = [
        (question("192.0.2.9", None, "10.1.2.9"), "unknown_vtep"),
        (question("192.0.2.2", Some(5), "10.1.2.9"), "unknown_vni"),
        (question("192.0.2.2", None, "10.1.3.9"), "spoofed_source"),
        (question("192.0.2.2", None, "10.1.1.3"), "spoofed_source"),
    ];
    for (question, reason) in cases {
        let report = trace(&question);
        assert_eq!(ending(&report), (Outcome::Dropped, Some(reason), None));
        assert_eq!(report.stages.last().unwrap().facts["reason"], reason);
    }
    let refused = through(1, &ask(from("192.0.2.2", None), "10.1.1.2", tcp(80)));
    assert!(refused.unwrap_err().to_string().contains("through the tunnel"));
}

#[test]
fn without_tunnel_and_from_the_host() {
    let direct = Question {
        source: Some("10.1.3.9".parse().unwrap()),
        ..ask(From::Direct, "10.1.1.2", Protocol::Icmp { kind: None, code: None })
    };
    let report = trace(&direct);
    assert_eq!(told(&report)[1], "source: 10.1.3.9 may come without a tunnel");
    assert_eq!(ending(&report).0, Outcome::Delivered);

    let report = trace(&ask(From::Host, "10.1.2.9", tcp(80)));
    assert_eq!(told(&report)[0], "classify: IPv4 packet of 40 bytes, protocol TCP");
    assert_eq!(report.stages[0].facts["source"], "10.1.1.0", "the tunnel's address");
    assert_eq!(ending(&report).0, Outcome::Forwarded);

    let report = trace(&ask(workload("a"), "10.1.3.9", tcp(80)));
    assert_eq!(ending(&report), (Outcome::Forwarded, None, Some("direct 192.0.2.3")));
    let report = trace(&ask(workload("a"), "192.0.2.1", tcp(22)));
    assert_eq!(ending(&report), (Outcome::Delivered, None, Some("host")));
}

#[test]
fn where_no_way_leads() {
    let cases = [
        ("10.9.9.9", "no_route", "DROP route: No route leads to the destination."),
        (
            "10.1.1.77",
            "unassigned_address",
            "DROP route: The address is in this node's subnet, and no workload has it. The route is 10.1.1.0/24.",
        ),
        (
            "10.1.1.4",
            "endpoint_down",
            "DROP route: The destination workload's interface does not exist. The route is 10.1.1.4/32.",
        ),
        ("224.0.0.1", "multicast", "DROP route: Multicast and broadcast do not cross the overlay."),
    ];
    for (to, reason, line) in cases {
        let report = trace(&ask(workload("a"), to, tcp(80)));
        assert_eq!(ending(&report), (Outcome::Dropped, Some(reason), None));
        assert_eq!(told(&report).last().unwrap(), line);
    }
}

#[test]
fn what_is_too_big_is_cut_or_refused() {
    let question = |size, dont_fragment| Question {
        size: Some(size),
        dont_fragment,
        ..ask(workload("a"), "10.1.2.9", Protocol::Udp { port: 53 })
    };
    assert_eq!(ending(&trace(&question(1450, true))).0, Outcome::Forwarded);
    let report = trace(&question(3000, false));
    assert_eq!((ending(&report).0, report.sent.len()), (Outcome::Forwarded, 3));
    assert!(told(&report).contains(&"fragment: cut into 3 pieces".to_owned()), "{:?}", told(&report));
    assert!(report.sent[1].layers[5].ends_with("bytes, fragment from byte 1424"), "{:?}", report.sent[1]);

    let report = trace(&question(1451, true));
    let to = "workload default/n1-k8s-a-eth0 (cali-a)";
    assert_eq!(ending(&report), (Outcome::Answered, Some("too_big"), Some(to)));
    let told = told(&report);
    let forward =
        "REPLY forward: 1451 bytes are more than the MTU, 1450, and DF is set: its sender is to be told";
    assert_eq!(told[told.len() - 2..], [forward, "REPLY icmp_error: its sender is told: too big, MTU 1450"]);
    assert!(report.sent[0].layers[2].starts_with("ICMP type 3 code 4"), "{:?}", report.sent[0]);

    let report = trace(&Question { ttl: Some(1), ..ask(workload("a"), "10.1.2.9", tcp(80)) });
    assert_eq!(ending(&report), (Outcome::Answered, Some("ttl_expired"), Some(to)));
    assert!(report.sent[0].layers[2].starts_with("ICMP type 11 code 0"), "{:?}", report.sent[0]);
    // As large as can be: memory for all pieces is there, and comes back.
    let tables = compile(&spec(), None, 3);
    let tracer = Tracer::new(SEED, 1);
    for _ in 0..3 {
        let report = tracer.trace(&question(u16::MAX, false), &spec(), &tables, 0).unwrap();
        assert_eq!((ending(&report).0, report.sent.len()), (Outcome::Forwarded, 47));
    }
}

#[test]
fn part_of_an_answered_connection() {
    let tcp =
        |flags: Option<&str>| Protocol::Tcp { port: 80, flags: flags.map(|text| text.parse().unwrap()) };
    for connection in [Connection::Established, Connection::Answering] {
        for protocol in [
            tcp(None),
            Protocol::Udp { port: 53 },
            Protocol::Sctp { port: 5000 },
            Protocol::Icmp { kind: None, code: None },
            Protocol::Other(47),
        ] {
            for (from, to) in [(workload("a"), "10.1.2.9"), (workload("a"), "b"), (From::Host, "10.1.1.2")] {
                let question = Question { connection, ..ask(from, to, protocol.clone()) };
                let report = trace(&question);
                assert!(report.verdict.outcome.gets_through(), "{question:?} {report:#?}");
                let conntrack = report.stages.iter().find(|stage| stage.stage == "conntrack").unwrap();
                assert_eq!(conntrack.facts["connection"], "known", "{question:?}");
            }
        }
    }
    let nobody =
        Question { connection: Connection::Established, ..ask(workload("a"), "10.9.9.9", tcp(None)) };
    assert!(through(1, &nobody).unwrap_err().to_string().contains("10.9.9.9"));
    let unassigned =
        Question { connection: Connection::Established, ..ask(workload("a"), "10.1.1.77", tcp(None)) };
    assert!(through(1, &unassigned).is_err());
    let spoofed = Question {
        connection: Connection::Established,
        source: Some("10.1.1.3".parse().unwrap()),
        ..ask(workload("a"), "10.1.2.9", tcp(None))
    };
    let refused = through(1, &spoofed).unwrap_err().to_string();
    assert!(refused.contains("packet number 1") && refused.contains("spoofed_source"), "{refused}");
}

#[test]
fn an_icmp_error_quotes_what_it_is_about() {
    let question = ask(workload("a"), "10.1.2.9", Protocol::Icmp { kind: Some(3), code: Some(3) });
    let report = trace(&question);
    assert_eq!(report.packet.layers[2], "ICMP type 3 code 3");
    assert_eq!(report.packet.length, 14 + 20 + 8 + 28);
}

#[test]
fn before_anything_was_published() {
    let tables = Tables::closed();
    let mut world = spec();
    world.revision = 0;
    let report =
        Tracer::new(SEED, 1).trace(&ask(workload("a"), "10.1.2.9", tcp(80)), &world, &tables, 0).unwrap();
    assert_eq!(ending(&report), (Outcome::Dropped, Some("not_ready"), None));
    assert_eq!(told(&report), ["DROP admit: No complete picture of the network has been loaded yet."]);
}

#[test]
fn a_learnt_path_mtu_counts() {
    let tables = compile(&spec(), None, 3);
    let adjacency = &tables.adjacencies[tables.vteps[0].adjacency as usize];
    adjacency.path_mtu().unwrap().lower(1300, 0);
    let question =
        Question { size: Some(1400), ..ask(workload("a"), "10.1.2.9", Protocol::Udp { port: 53 }) };
    let report = Tracer::new(SEED, 1).trace(&question, &spec(), &tables, 1).unwrap();
    let line = "forward: 1400 bytes are more than the MTU, 1300 (learnt from an ICMP error; configured: 1450): it is \
                to be cut; TTL 64 becomes 63";
    assert!(told(&report).contains(&line.to_owned()), "{:?}", told(&report));
}

#[test]
fn reports_and_questions_survive_the_socket() {
    let question = Question {
        connection: Connection::Answering,
        ..ask(From::Host, "10.1.2.9", Protocol::Tcp { port: 80, flags: Some(TcpFlags::SYN_ACK) })
    };
    let text = serde_json::to_string(&question).unwrap();
    assert_eq!(serde_json::from_str::<Question>(&text).unwrap(), question);
    let report = trace(&question);
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}

/// Pod a may open connections to nothing but port 80 of pod b's set, and pod b takes none but from the host.
fn with_policy() -> NodeSpec {
    let mut spec = spec();
    let set = |id: &str, net: &str| {
        let members = Members::Nets(vec![net.parse().unwrap()]);
        Arc::new(IpSet { id: id.into(), members })
    };
    spec.sets = vec![set("s:b", "10.1.1.3/32"), set("s:host", "10.1.1.0/32")];
    let list = |name: &str, direction, rule: Rule| {
        let origin = Origin { kind: OriginKind::NetworkPolicy, name: name.into(), direction };
        let policies = vec![Arc::new(RuleSet { origin, rules: vec![Rule::any(Action::Log), rule] })];
        let tier = Tier { name: "default".into(), end: TierEnd::Deny, policies };
        Arc::new(PolicyList { tiers: vec![tier], profiles: Vec::new() })
    };
    let ports = Some(Ports { ranges: vec![(80, 80)], named: Vec::new() });
    let destination = Side { sets: vec!["s:b".into()], ports, ..Side::default() };
    let to_b = Rule { protocol: Some(6), destination, ..Rule::any(Action::Allow) };
    spec.endpoints[0].policy.egress = list("team/out", PolicyDirection::Egress, to_b);
    let source = Side { sets: vec!["s:host".into()], ..Side::default() };
    let from_host = Rule { source, ..Rule::any(Action::Allow) };
    spec.endpoints[1].policy.ingress = list("team/in", PolicyDirection::Ingress, from_host);
    spec.settings.endpoint_to_host = EndpointToHost::Drop;
    spec
}

#[test]
fn policy_is_told_rule_by_rule_and_counts_nothing() {
    let spec = with_policy();
    let tables = compile(&spec, None, 1);
    let tracer = Tracer::new(SEED, 1);
    let trace = |from, to, port| tracer.trace(&ask(from, to, tcp(port)), &spec, &tables, 1000).unwrap();
    let view = |report: &Report, name: &str| {
        let mut stages = report.stages.iter().filter(|stage| stage.stage == name);
        stages.next_back().cloned().unwrap_or_else(|| panic!("no {name} in {:?}", told(report)))
    };
    let refused = trace(workload("a"), "10.1.1.3", 443);
    assert_eq!(ending(&refused).1, Some("policy_denied_egress"));
    let policy = view(&refused, "egress").policy.unwrap();
    assert_eq!((policy.outcome.as_str(), policy.decider.as_str()), ("denied", "end of tier default"));
    let steps: Vec<_> = policy.steps.iter().map(|s| (s.matched, s.mismatch.as_deref())).collect();
    let why = Some("destination port is not among those asked for");
    assert_eq!(steps, [(true, None), (false, why), (true, None)]);
    let refused = trace(workload("a"), "10.1.1.3", 80);
    assert_eq!(ending(&refused).1, Some("policy_denied_ingress"));
    let allowed_by = "tier default, NetworkPolicy team/out, egress rule 1 (Allow)";
    assert_eq!(view(&refused, "egress").policy.unwrap().decider, allowed_by);
    let ingress = view(&refused, "ingress");
    assert_eq!(ingress.result, StageResult::Drop);
    assert_eq!(ingress.facts["reason"], "policy_denied_ingress");
    let why = "source address is not in set s:host";
    assert_eq!(ingress.policy.unwrap().steps[1].mismatch.as_deref(), Some(why));
    // The host is not refused, whatever policy says.
    let host = trace(From::Host, "10.1.1.3", 80);
    assert!(view(&host, "ingress").text.starts_with("what the host itself opens"));
    assert_eq!(ending(&host).0, Outcome::Delivered);
    let to_host = trace(workload("b"), "10.1.1.0", 80);
    assert_eq!(view(&to_host, "endpoint_to_host").facts["reason"], "endpoint_to_host_denied");
    assert_eq!(counted(&tables), 0);
}

/// What rules and ends have counted.
fn counted(tables: &Tables) -> u64 {
    let rules = tables
        .policy
        .rule_sets()
        .into_iter()
        .flat_map(|rules| rules.counters.iter().map(|counter| counter.get()));
    let ends = tables.policy.programs().flat_map(|program| program.ends()).map(|(_, counter)| counter.get());
    rules.chain(ends).map(|(packets, _)| packets).sum()
}

#[test]
fn a_worker_for_traces_neither_counts_nor_logs_where_others_do() {
    let spec = with_policy();
    let tables = compile(&spec, None, 1);
    let mut scratch = Scratch::new();
    // A Log rule, a rule that allows, the end of a tier that denies.
    for port in [443, 80] {
        let arrival = Arrival::new(&ask(workload("a"), "10.1.1.3", tcp(port)), &spec, SEED).unwrap();
        let mut run = scratch.begin(SEED, 1000);
        let before = counted(&tables);
        run.packet(&arrival.packet, &tables);
        assert!(run.log().is_empty());
        assert_eq!(counted(&tables), before);
        drop(run);
        let mut run = scratch.begin_counting(SEED, 1000);
        run.packet(&arrival.packet, &tables);
        assert!(!run.log().is_empty());
    }
    assert_eq!(counted(&tables), 2 + 4, "egress: Log and the end; Log and Allow, ingress: Log and the end");
}

/// Hosts behind eth1: 172.16.1.0/24 on its link. What comes in by it may go to port 80 only.
fn with_gateway() -> NodeSpec {
    let mut spec = spec();
    let (name, link): (Arc<str>, _) = ("eth1".into(), "172.16.1.0/24".parse().unwrap());
    spec.routes.push(Route {
        prefix: link,
        via: Via::Gateway(
            [Hop { interface: Arc::clone(&name), next_hop: None, weight: std::num::NonZeroU16::MIN }].into(),
        ),
    });
    spec.gateways = vec![Gateway {
        name: Arc::clone(&name),
        ifindex: Some(50),
        mtu: 1500,
        address_v4: Some([172, 16, 1, 1].into()),
        address_v6: None,
        sources: vec![link],
    }];
    let origin = Origin {
        kind: OriginKind::GlobalNetworkPolicy,
        name: "edge".into(),
        direction: PolicyDirection::Ingress,
    };
    let ports = Some(Ports { ranges: vec![(80, 80)], named: Vec::new() });
    let destination = Side { ports, ..Side::default() };
    let rule = Rule { protocol: Some(6), destination, ..Rule::any(Action::Allow) };
    let policies = vec![Arc::new(RuleSet { origin, rules: vec![rule] })];
    let tier = Tier { name: "default".into(), end: TierEnd::Deny, policies };
    let forward = Arc::new(PolicyList { tiers: vec![tier], profiles: Vec::new() });
    spec.host_endpoints = vec![HostEndpoint {
        name: "edge".into(),
        interface: Some(name),
        ingress: HostPolicy { forward, ..HostPolicy::default() },
        egress: HostPolicy::default(),
    }];
    spec
}

#[test]
fn packets_of_hosts_behind_a_gateway_and_to_them() {
    let spec = with_gateway();
    let tables = compile(&spec, None, 1);
    let tracer = Tracer::new(SEED, 1);
    let from = |source: &str, to, port| {
        let source = Some(source.parse().unwrap());
        let question = Question { source, ..ask(From::Gateway("eth1".into()), to, tcp(port)) };
        tracer.trace(&question, &spec, &tables, 1000).unwrap()
    };
    let report = from("172.16.1.2", "10.1.1.2", 80);
    assert_eq!(ending(&report).0, Outcome::Delivered);
    let lines = told(&report);
    let by = "tier default, GlobalNetworkPolicy edge, ingress rule 0 (Allow)";
    for line in [
        "source: 172.16.1.2 is one of the addresses of hosts behind gateway eth1".to_owned(),
        format!("gateway_ingress: host endpoint edge of eth1: allowed by {by}"),
    ] {
        assert!(lines.contains(&line), "{line} is not in {lines:#?}");
    }
    assert_eq!(ending(&from("172.16.1.2", "10.1.2.9", 443)).1, Some("gateway_denied_ingress"));
    let spoofed = from("10.9.9.9", "10.1.1.2", 80);
    assert_eq!(ending(&spoofed).1, Some("gateway_source"));
    assert_eq!(spoofed.stages.last().unwrap().facts["allowed"], "172.16.1.0/24");
    let out = tracer.trace(&ask(workload("a"), "172.16.1.2", tcp(443)), &spec, &tables, 1000).unwrap();
    assert_eq!(ending(&out).0, Outcome::Forwarded);
    assert!(told(&out).contains(&"route: 172.16.1.0/24 by gateway eth1".to_owned()), "{:#?}", told(&out));
    let why = "gateway_egress: host endpoint edge of eth1: allowed by end of the profiles";
    assert!(told(&out).contains(&why.to_owned()), "{:#?}", told(&out));
    let source = Some("172.16.1.2".parse().unwrap());
    let unknown = Question { source, ..ask(From::Gateway("eth9".into()), "10.1.1.2", tcp(80)) };
    let refused = tracer.trace(&unknown, &spec, &tables, 1000).unwrap_err().to_string();
    assert_eq!(refused, "eth9 is no gateway interface of this node; these are asked for: eth1");
}
