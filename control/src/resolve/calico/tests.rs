//! Stories of small clusters, as the node `here` sees them.

use std::sync::Arc;

use canal_dataplane::policy::{Facts, Outcome, Transport, judge};
use canal_dataplane::spec::calico::{PoolKind, RouteKind};
use canal_dataplane::spec::policy::{Action as Does, EndpointPolicy, IpSet, Members, PolicyList, TierEnd};
use canal_dataplane::spec::{Endpoint, NodeSpec};
use canal_dataplane::tables::compile;
use canal_dataplane::tables::policy::Memo;

use super::*;
use crate::model::calico::resources::*;
use crate::model::calico::selector::Selector;
use crate::model::calico::{WorkloadEndpoint, WorkloadKey};

fn labels(pairs: &[(&str, &str)]) -> Arc<Labels> {
    Arc::new(pairs.iter().copied().collect())
}

fn workload_key(name: &str) -> WorkloadKey {
    WorkloadKey::new("ns", name)
}

fn workload(name: &str, node: &str, net: &str, own: &[(&str, &str)], profiles: &[&str]) -> Change {
    let endpoint = WorkloadEndpoint {
        node: node.into(),
        interface: "cali0".into(),
        networks: [net.parse().unwrap()].into(),
        mac: None,
        labels: labels(own),
        profiles: profiles.iter().map(|name| Arc::from(*name)).collect(),
        ports: [NamedPort { name: "http".into(), protocol: 6, port: 8080 }].into(),
        floating: [].into(),
    };
    Change::Workload(workload_key(name), Some(Arc::new(endpoint)))
}

fn selector(text: &str) -> Option<Selector> {
    Some(Selector::parse(text).unwrap())
}

fn from(entity: Entity) -> Rule {
    Rule { source: entity.into(), ..Rule::any(Action::Allow) }
}

fn policy_of(tier: &str, order: Option<f64>, ingress: Vec<Rule>) -> Policy {
    Policy {
        tier: tier.into(),
        order,
        selector: Selector::all(),
        ingress: Some(ingress),
        egress: None,
        do_not_track: false,
        pre_dnat: false,
        apply_on_forward: false,
    }
}

fn policy(name: &str, policy: Policy) -> Change {
    Change::Policy(PolicyKey { tie_break: name.into(), namespace: "".into() }, Some(Arc::new(policy)))
}

fn tier(name: &str, order: f64, ends_with_pass: bool) -> Change {
    Change::Tier(name.into(), Some(Tier { order, ends_with_pass }))
}

fn graph(changes: impl IntoIterator<Item = Change>) -> CalicoGraph {
    let mut graph = CalicoGraph::new("here", routes::RouteSource::Blocks);
    changes.into_iter().for_each(|change| graph.apply(change));
    graph.flush();
    graph
}

/// `tier(policies): end`, then profiles.
fn shown(list: &PolicyList) -> String {
    let tiers = list.tiers.iter().map(|tier| {
        let names: Vec<&str> = tier.policies.iter().map(|rules| &*rules.origin.name).collect();
        let end = if tier.end == TierEnd::Pass { "pass" } else { "deny" };
        format!("{}({}): {end}", tier.name, names.join(" "))
    });
    let profiles = list.profiles.iter().map(|rules| rules.origin.name.to_string());
    tiers.chain(profiles).collect::<Vec<_>>().join("; ")
}

fn ingress_of(graph: &CalicoGraph, name: &str) -> String {
    shown(&graph.resolution().workloads[&workload_key(name)].ingress)
}

fn members(resolution: &Resolution) -> Vec<String> {
    let text = |set: &Members| match set {
        Members::Nets(nets) => nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        Members::Ports(ports) => format!("{ports:?}"),
    };
    resolution.sets.values().map(|set| text(&set.members)).collect()
}

#[test]
fn policies_are_asked_by_tier_then_order_then_name() {
    let graph = graph([
        workload("a", "here", "10.0.0.1/32", &[], &["p"]),
        tier("last", 2e6, true),
        tier("first", 1.0, true),
        policy("default.zero", policy_of("default", Some(0.0), vec![])),
        policy("default.minus", policy_of("default", Some(-0.5), vec![])),
        policy("default.none", policy_of("default", None, vec![])),
        policy("default.b", policy_of("default", Some(7.0), vec![])),
        policy("default.a", policy_of("default", Some(7.0), vec![])),
        policy("last.a", policy_of("last", Some(0.0), vec![])),
        policy("first.a", policy_of("first", Some(9.0), vec![])),
    ]);
    assert_eq!(
        ingress_of(&graph, "a"),
        "first(first.a): pass; \
         default(default.minus default.zero default.a default.b default.none): deny; \
         last(last.a): pass; p"
    );
    let egress = &graph.resolution().workloads[&workload_key("a")].egress;
    assert_eq!(shown(egress), "p", "a policy without egress leaves its direction to the profiles");
}

#[test]
fn without_tiers_there_is_one_and_a_policy_of_an_unknown_one_is_not_asked() {
    let mut graph = graph([
        workload("a", "here", "10.0.0.1/32", &[], &["projectcalico-default-allow"]),
        policy("default.a", policy_of("default", None, vec![])),
        policy(
            "lost.b",
            policy_of(
                "lost",
                None,
                vec![from(Entity { selector: selector("x == 'y'"), ..Entity::default() })],
            ),
        ),
    ]);
    assert_eq!(ingress_of(&graph, "a"), "default(default.a): deny; projectcalico-default-allow");
    let complaint = graph.resolution().complaints().next().unwrap();
    assert_eq!(complaint.key, "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/lost.b");
    assert_eq!(complaint.sentence, "its tier \"lost\" does not exist; the policy is not in force");
    assert!(graph.resolution().sets.is_empty() && graph.resolution().active_policies.len() == 1);

    graph.apply(tier("lost", 3.0, false));
    graph.flush();
    let now = "lost(lost.b): deny; default(default.a): deny; projectcalico-default-allow";
    assert_eq!(ingress_of(&graph, "a"), now);
    assert_eq!((graph.resolution().complaints.len(), graph.resolution().sets.len()), (0, 1));

    graph.apply(tier("default", 1.0, true));
    graph.flush();
    let now = "default(default.a): pass; lost(lost.b): deny; projectcalico-default-allow";
    assert_eq!(ingress_of(&graph, "a"), now);
    graph.apply(Change::Tier("default".into(), None));
    graph.flush();
    let now = "lost(lost.b): deny; default(default.a): deny; projectcalico-default-allow";
    assert_eq!(ingress_of(&graph, "a"), now);
}

#[test]
fn a_profile_that_does_not_exist_denies_and_the_built_in_one_allows() {
    let mut graph =
        graph([workload("a", "here", "10.0.0.1/32", &[], &["nope", "projectcalico-default-allow"])]);
    let actions = |graph: &CalicoGraph| -> Vec<Vec<Does>> {
        let policy = &graph.resolution().workloads[&workload_key("a")];
        let profiles = policy.ingress.profiles.iter().chain(&policy.egress.profiles);
        profiles.map(|rules| rules.rules.iter().map(|rule| rule.action).collect()).collect()
    };
    assert_eq!(actions(&graph), [[Does::Deny], [Does::Allow], [Does::Deny], [Does::Allow]]);
    assert!(
        graph.resolution().complaints.contains_key("/calico/resources/v3/projectcalico.org/profiles/nope")
    );
    let profile = Profile { ingress: vec![Rule::any(Action::Log)], ..Profile::default() };
    graph.apply(Change::Profile("nope".into(), Some(Arc::new(profile))));
    graph.flush();
    assert_eq!(actions(&graph), [vec![Does::Log], vec![Does::Allow], vec![], vec![Does::Allow]]);
    assert!(graph.resolution().complaints.is_empty());
}

#[test]
fn labels_are_inherited_from_the_first_profile_that_has_them() {
    let gives =
        |value: &str| Some(Arc::new(Profile { labels: labels(&[("team", value)]), ..Profile::default() }));
    let blue = from(Entity { selector: selector("team == 'blue'"), ..Entity::default() });
    let mut graph = graph([
        workload("own", "there", "10.0.0.1/32", &[("team", "blue")], &["p"]),
        workload("first", "there", "10.0.0.2/32", &[], &["p", "q"]),
        workload("second", "there", "10.0.0.3/32", &[], &["none", "q", "p"]),
        workload("here", "here", "10.0.0.4/32", &[("team", "red")], &[]),
        Change::Profile("p".into(), gives("red")),
        Change::Profile("q".into(), gives("blue")),
        policy("default.a", policy_of("default", None, vec![blue])),
    ]);
    assert_eq!(members(graph.resolution()), ["10.0.0.1/32 10.0.0.3/32"]);
    graph.apply(Change::Profile("p".into(), gives("blue")));
    graph.flush();
    assert_eq!(members(graph.resolution()), ["10.0.0.1/32 10.0.0.2/32 10.0.0.3/32"]);
}

#[test]
fn of_two_with_one_address_it_is_enough_that_one_is_meant() {
    let meant =
        Entity { selector: selector("all()"), not_selector: selector("bad == 'yes'"), ..Entity::default() };
    let mut graph = graph([
        workload("good", "here", "10.0.0.1/32", &[], &[]),
        workload("bad", "there", "10.0.0.1/32", &[("bad", "yes")], &[]),
        policy("default.a", policy_of("default", None, vec![from(meant)])),
    ]);
    assert_eq!(members(graph.resolution()), ["10.0.0.1/32"]);
    graph.apply(workload("good", "here", "10.0.0.9/32", &[], &[]));
    graph.flush();
    assert_eq!(members(graph.resolution()), ["10.0.0.9/32"]);
}

#[test]
fn a_named_port_is_that_of_the_endpoints_selected() {
    let with_ports = |ports, selector| Rule {
        destination: Arc::new(Entity { ports: Some(ports), selector, ..Entity::default() }),
        protocol: Some(6),
        ..Rule::any(Action::Allow)
    };
    let named = || Port::Named("http".into());
    let graph = graph([
        workload("a", "here", "10.0.0.1/32", &[("app", "web")], &[]),
        workload("b", "there", "10.0.0.2/32", &[], &[]),
        policy(
            "default.a",
            policy_of(
                "default",
                None,
                vec![
                    with_ports(vec![named()], selector("app == 'web'")),
                    with_ports(vec![Port::Range(1, 9), named()], selector("app == 'web'")),
                    with_ports(vec![named()], None),
                ],
            ),
        ),
    ]);
    let resolution = graph.resolution();
    let rules = &resolution.workloads[&workload_key("a")].ingress.tiers[0].policies[0].rules;
    let counts = rules.iter().map(|rule| {
        let side = &rule.destination;
        (side.sets.len(), side.ports.as_ref().unwrap().named.len())
    });
    assert_eq!(counts.collect::<Vec<_>>(), [(0, 1), (1, 1), (0, 1)], "alone it has the selector in it");
    let mut sets = members(resolution);
    sets.sort();
    assert_eq!(sets, ["10.0.0.1/32", "[(10.0.0.1, 6, 8080), (10.0.0.2, 6, 8080)]", "[(10.0.0.1, 6, 8080)]"]);
}

#[test]
fn what_cannot_be_read_lets_nothing_pass() {
    let unreadable = |action| Rule { unreadable: true, ..Rule::any(action) };
    let actions = [Action::Allow, Action::Pass, Action::Deny, Action::Log];
    let graph = graph([
        workload("a", "here", "10.0.0.1/32", &[], &[]),
        policy("default.a", policy_of("default", None, actions.map(unreadable).into())),
    ]);
    let rules = &graph.resolution().workloads[&workload_key("a")].ingress.tiers[0].policies[0].rules;
    let never: Vec<bool> = rules.iter().map(|rule| rule.source.nets == Some(vec![])).collect();
    assert_eq!(never, [true, true, false, false]);
}

#[test]
fn what_is_not_enforced_is_said() {
    let http = Rule { http: true, ..Rule::any(Action::Allow) };
    let service = Entity { service: Some("ns/svc".into()), ..Entity::default() };
    let mut graph = graph([
        workload("a", "here", "10.0.0.1/32", &[], &[]),
        policy("default.a", policy_of("default", None, vec![http, from(service)])),
    ]);
    let keys: Vec<&String> = graph.resolution().complaints.keys().collect();
    assert_eq!(
        keys,
        ["/calico/resources/v3/projectcalico.org/globalnetworkpolicies/default.a", "service ns/svc"]
    );
    let slice = ServiceSlice {
        service: "ns/svc".into(),
        addresses: vec!["10.0.0.7".parse().unwrap()],
        ports: vec![],
    };
    graph.apply(Change::ServiceSlice("x".into(), Some(Arc::new(slice))));
    graph.flush();
    assert_eq!(
        (graph.resolution().complaints.len(), members(graph.resolution())),
        (1, vec!["10.0.0.7/32".to_owned()])
    );
    graph.apply(workload("a", "there", "10.0.0.1/32", &[], &[]));
    let resolution = graph.flush();
    assert!(
        resolution.complaints.is_empty() && resolution.sets.is_empty() && resolution.workloads.is_empty()
    );
}

/// Felix looks for what stands behind services in Kubernetes' own API only; with etcd such rules meet nobody.
#[test]
fn a_rule_with_a_service_that_nothing_is_told_of_meets_nobody() {
    let service = || Entity { service: Some("ns/svc".into()), ..Entity::default() };
    let to_service = |action| Rule { destination: service().into(), ..Rule::any(action) };
    let egress = |name: &str, rules| {
        let nobody = policy_of("default", None, vec![]);
        policy(name, Policy { ingress: None, egress: Some(rules), ..nobody })
    };
    let (from, to) = ("10.0.0.1".parse().unwrap(), "10.0.0.7".parse().unwrap());
    let facts = Facts { source: from, destination: to, protocol: 6, transport: Transport::Ports(1000, 80) };
    let outcome = |rules| {
        let graph = graph([workload("a", "here", "10.0.0.1/32", &[], &[]), egress("default.a", rules)]);
        let resolution = graph.resolution();
        let sets: Vec<_> = resolution.sets.values().cloned().collect();
        let list = &resolution.workloads[&workload_key("a")].egress;
        let tables = compile(&spec_of(list, &sets), None, 1).policy;
        let compiled = tables.judge(&tables.endpoint(0).egress, &mut Memo::default(), &facts).outcome;
        assert_eq!(compiled, judge(list, &sets, &facts).outcome);
        compiled
    };
    assert_eq!(outcome(vec![to_service(Action::Allow)]), Outcome::Denied, "closed, not open");
    let allowed = vec![to_service(Action::Deny), Rule::any(Action::Allow)];
    assert_eq!(outcome(allowed), Outcome::Allowed, "as with Felix");
}

/// A node with one workload that has this policy for what it opens.
fn spec_of(egress: &Arc<PolicyList>, sets: &[Arc<IpSet>]) -> NodeSpec {
    let endpoint = Endpoint {
        name: "a".into(),
        interface: "cali0".into(),
        ifindex: None,
        mac: None,
        networks: vec![],
        mtu: 1500,
        policy: EndpointPolicy { egress: Arc::clone(egress), ..EndpointPolicy::default() },
    };
    NodeSpec { endpoints: vec![endpoint].into(), sets: sets.to_vec(), ..NodeSpec::default() }
}

#[test]
fn a_host_endpoint_has_four_lists() {
    let host = HostEndpoint {
        node: "here".into(),
        interface: "eth0".into(),
        expected_ips: vec![],
        profiles: ["p".into()].into(),
        labels: labels(&[]),
        ports: vec![],
    };
    let flagged = |do_not_track, pre_dnat, apply_on_forward| Policy {
        egress: Some(vec![]),
        do_not_track,
        pre_dnat,
        apply_on_forward,
        ..policy_of("default", None, vec![])
    };
    let graph = graph([
        Change::HostEndpoint("h".into(), Some(Arc::new(host))),
        workload("w", "here", "10.0.0.1/32", &[], &[]),
        policy("normal", flagged(false, false, false)),
        policy("forward", flagged(false, false, true)),
        policy("pre", flagged(false, true, true)),
        policy("raw", flagged(true, true, true)),
    ]);
    let lists = &graph.resolution().host_endpoints["h"].lists;
    let all = |policy: &canal_dataplane::spec::policy::HostPolicy| {
        [&policy.untracked, &policy.pre_dnat, &policy.forward, &policy.normal].map(|list| shown(list))
    };
    let (raw, forward, normal) =
        ("default(raw): deny", "default(forward): deny", "default(forward normal): deny; p");
    assert_eq!(all(&lists.ingress), [raw, "default(pre): deny", forward, normal]);
    assert_eq!(all(&lists.egress), [raw, "", forward, normal]);
    assert_eq!(ingress_of(&graph, "w"), "default(forward normal): deny");
}

#[test]
fn pools_within_pools_add_up() {
    let pool = |cidr: &str, vxlan, nat_outgoing| IpPool {
        cidr: cidr.parse().unwrap(),
        vxlan,
        ipip: EncapMode::Never,
        nat_outgoing,
        disabled: false,
    };
    let node = |address: &str| {
        let network = Some("192.0.2.0/24".parse().unwrap());
        Some(Arc::new(Node {
            ipv4: Some(address.parse().unwrap()),
            ipv4_network: network,
            ..Node::default()
        }))
    };
    let cidr = "10.0.0.0/26".parse().unwrap();
    let block = Block { cidr, node: Some("there".into()), allocations: vec![] };
    let mut graph = graph([
        Change::Pool("wide".into(), Some(pool("10.0.0.0/8", EncapMode::CrossSubnet, true))),
        Change::Pool("narrow".into(), Some(pool("10.0.0.0/16", EncapMode::Never, false))),
        Change::Pool("zz-narrow-too".into(), Some(pool("10.0.0.0/16", EncapMode::Always, false))),
        Change::Block(cidr, Some(Arc::new(block))),
        Change::Node("here".into(), node("192.0.2.1")),
        Change::Node("there".into(), node("192.0.2.2")),
    ]);
    let route = &graph.resolution().routes[&cidr];
    assert_eq!((route.pool, route.nat_outgoing, route.same_subnet), (PoolKind::Plain, true, true));
    assert_eq!((route.kind, route.node.as_deref()), (RouteKind::RemoteWorkload, Some("there")));
    graph.apply(Change::Pool("narrow".into(), None));
    assert_eq!(graph.flush().routes[&cidr].pool, PoolKind::Vxlan, "the next one by name counts");
}

#[test]
fn a_tunnel_end_nobody_gave_an_address_gets_one_by_its_name() {
    // Recorded from Calico.
    let recorded = [
        ("node-1", "66:b3:68:28:39:8e", "66:24:ac:63:df:6c"),
        ("remotehostname", "66:3e:ca:a4:db:65", "66:a0:68:c9:4c:79"),
    ];
    for (node, v4, v6) in recorded {
        let macs = [false, true].map(|v6| vteps::derived_mac(node, v6).to_string());
        assert_eq!(macs, [v4, v6]);
    }
}
