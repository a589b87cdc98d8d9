use canal_dataplane::spec::Endpoint;
use canal_dataplane::spec::policy::{EndpointPolicy, Icmp, Tier};
use canal_dataplane::tables::compile;

use super::*;

fn set(kind: OriginKind, name: &str, direction: PolicyDirection, rules: Vec<Rule>) -> Arc<RuleSet> {
    Arc::new(RuleSet { origin: Origin { kind, name: name.into(), direction }, rules })
}

fn endpoint(name: &str, policy: EndpointPolicy) -> Endpoint {
    Endpoint {
        name: name.into(),
        interface: "cali1".into(),
        ifindex: None,
        mac: None,
        networks: Vec::new(),
        mtu: 1450,
        policy,
    }
}

fn to_port(port: u16) -> Rule {
    let ports = Ports { ranges: vec![(port, port)], named: Vec::new() };
    let destination = Side { ports: Some(ports), ..Side::default() };
    Rule { protocol: Some(6), destination, ..Rule::any(Action::Allow) }
}

/// Two workloads with one policy, of which one has a profile for the other direction.
fn spec() -> NodeSpec {
    let web = set(
        OriginKind::NetworkPolicy,
        "default/web",
        PolicyDirection::Ingress,
        vec![to_port(80), Rule::any(Action::Deny)],
    );
    let tiers = vec![Tier { name: "default".into(), end: TierEnd::Deny, policies: vec![web] }];
    let ingress = Arc::new(PolicyList { tiers, profiles: Vec::new() });
    let kns =
        set(OriginKind::Profile, "kns.default", PolicyDirection::Egress, vec![Rule::any(Action::Allow)]);
    let egress = Arc::new(PolicyList { tiers: Vec::new(), profiles: vec![kns] });
    let both = EndpointPolicy { ingress: Arc::clone(&ingress), egress };
    let one = EndpointPolicy { ingress, egress: Arc::default() };
    NodeSpec {
        endpoints: vec![endpoint("default/a", both), endpoint("default/b", one)].into(),
        ..NodeSpec::default()
    }
}

#[test]
fn policies_and_profiles_are_those_in_use_with_what_they_met() {
    let tables = compile(&spec(), None, 1);
    let compiled = tables.policy.rule_sets();
    let web = compiled.iter().find(|set| &*set.source.origin.name == "default/web").unwrap();
    web.counters[1].add(60);
    web.counters[1].add(40);
    let rule = |rule, action: &str, criteria: &str, packets, bytes| RuleView {
        rule,
        action: action.into(),
        criteria: criteria.into(),
        packets,
        bytes,
    };
    let expected = RuleSetView {
        kind: "NetworkPolicy".into(),
        name: "default/web".into(),
        tier: Some("default".into()),
        direction: "ingress".into(),
        endpoints: 2,
        rules: vec![rule(0, "Allow", "tcp to ports 80", 0, 0), rule(1, "Deny", "everything", 2, 100)],
    };
    let end = |tier: Option<&str>, direction: &str, endpoints, (packets, bytes)| RuleSetView {
        endpoints,
        ..end_view(tier, direction, (packets, bytes))
    };
    let (_, counter) = tables.policy.endpoint(1).ingress.ends().next().unwrap();
    counter.add(70);
    assert_eq!(policies(&spec(), &tables), [expected, end(Some("default"), "ingress", 2, (1, 70))]);
    let expected = RuleSetView {
        kind: "Profile".into(),
        name: "kns.default".into(),
        tier: None,
        direction: "egress".into(),
        endpoints: 1,
        rules: vec![rule(0, "Allow", "everything", 0, 0)],
    };
    let ends = ["ingress", "egress"].map(|direction| end(None, direction, 2, (0, 0)));
    assert_eq!(profiles(&spec(), &tables)[..1], [expected]);
    assert_eq!(profiles(&spec(), &tables)[1..], ends);
    assert_eq!(names(&spec().endpoints[0].policy.ingress), ["default/default/web"]);
    assert_eq!(names(&spec().endpoints[0].policy.egress), ["kns.default"]);
}

#[test]
fn every_criterion_has_words() {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    let source = Side {
        nets: Some(nets(&["10.0.0.0/8", "fd00::/8"])),
        not_nets: nets(&["10.1.0.0/16"]),
        sets: vec!["s:a".into()],
        not_sets: vec!["s:b".into()],
        ..Side::default()
    };
    let destination = Side {
        nets: Some(Vec::new()),
        ports: Some(Ports { ranges: vec![(80, 80), (8000, 8080)], named: vec!["n:http".into()] }),
        not_ports: Ports { ranges: vec![(22, 22)], named: Vec::new() },
        endpoint_sets: vec!["svc:x".into()],
        ..Side::default()
    };
    let rule = Rule {
        family: Some(Family::V4),
        protocol: Some(17),
        not_protocol: Some(47),
        icmp: Some(Icmp { kind: 8, code: None }),
        not_icmp: Some(Icmp { kind: 3, code: Some(4) }),
        source,
        destination,
        ..Rule::any(Action::Allow)
    };
    assert_eq!(
        criteria(&rule),
        "IPv4 udp not protocol 47 type 8 not type 3 code 4 from 10.0.0.0/8,fd00::/8 and not 10.1.0.0/16 and set s:a and \
         not set s:b to nothing and ports 80,8000:8080,n:http and not ports 22 and service svc:x"
    );
}

#[test]
fn sets_are_listed_up_to_a_bound() {
    let many = (0..2000u32).map(|n| std::net::IpAddr::from((0x0a00_0000 + n).to_be_bytes()).into()).collect();
    let ports = vec![("10.0.0.1".parse().unwrap(), 6, 80), ("fd00::1".parse().unwrap(), 17, 53)];
    let sets = [("n:x", Members::Ports(ports)), ("s:x", Members::Nets(many))];
    let sets = sets.map(|(id, members)| Arc::new(IpSet { id: id.into(), members }));
    let shown = ip_sets(&NodeSpec { sets: sets.into(), ..NodeSpec::default() });
    assert_eq!((shown[0].kind.as_str(), shown[0].count), ("ports", 2));
    assert_eq!(shown[0].members, ["10.0.0.1:80,tcp", "[fd00::1]:53,udp"]);
    assert_eq!(
        (shown[1].kind.as_str(), shown[1].count, shown[1].members.len()),
        ("networks", 2000, MAX_MEMBERS)
    );
}
