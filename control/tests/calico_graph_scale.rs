//! What a change costs among 100,000 endpoints and 10,000 policies. A measurement, hence ignored:
//! `cargo test --release -p canal-control --test calico_graph_scale -- --ignored --nocapture`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use canal_control::model::calico::resources::{
    Action, Entity, Labels, NamedPort, NetworkSet, Policy, PolicyKey, Port, Profile, Rule,
};
use canal_control::model::calico::selector::Selector;
use canal_control::model::calico::{WorkloadEndpoint, WorkloadKey};
use canal_control::resolve::calico::routes::RouteSource;
use canal_control::resolve::calico::{CalicoGraph, Change};
use ipnetwork::IpNetwork;

const NODES: usize = 1000;
const PODS: usize = 100_000;
const NAMESPACES: usize = 1000;
const POLICIES: usize = 10_000;
const HERE: &str = "node-0";

/// What the policies are like.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// Each is about one application in one namespace, and names others of its namespace and one other namespace.
    Namespaces,
    /// Each is about all pods, and names one application of the cluster.
    Everybody,
}

fn pod(nth: usize, generation: usize) -> Change {
    let namespace = format!("ns-{}", nth % NAMESPACES);
    let labels = [
        ("app", format!("app-{}", nth / NAMESPACES % 10)),
        ("pod-template-hash", format!("{:x}", nth % 5000)),
        ("statefulset.kubernetes.io/pod-name", format!("pod-{nth}")),
        ("projectcalico.org/namespace", namespace.clone()),
        ("projectcalico.org/orchestrator", "k8s".into()),
        ("projectcalico.org/serviceaccount", "default".into()),
    ];
    let address = std::net::Ipv4Addr::from(0x0a00_0000 + u32::try_from(nth + generation * PODS).unwrap());
    let endpoint = WorkloadEndpoint {
        node: format!("node-{}", nth / 100 % NODES).into(),
        interface: "cali0123456789a".into(),
        networks: [IpNetwork::from(std::net::IpAddr::from(address))].into(),
        mac: None,
        labels: Arc::new(labels.into()),
        profiles: [format!("kns.{namespace}"), format!("ksa.{namespace}.default")].map(Arc::from).into(),
        ports: [NamedPort { name: "http".into(), protocol: 6, port: 8080 }].into(),
        floating: [].into(),
    };
    let name = format!("node--{}-k8s-pod--{nth}-eth0", nth / 100 % NODES);
    Change::Workload(WorkloadKey::new(&namespace, &name), Some(Arc::new(endpoint)))
}

fn profile(nth: usize, team: usize) -> Change {
    let labels = Labels::from([
        ("pcns.team".to_owned(), format!("team-{team}")),
        ("pcns.projectcalico.org/name".to_owned(), format!("ns-{nth}")),
    ]);
    let profile =
        Profile { labels: Arc::new(labels), ingress: vec![allow(Entity::default())], egress: vec![] };
    Change::Profile(format!("kns.ns-{nth}"), Some(Arc::new(profile)))
}

fn allow(source: Entity) -> Rule {
    Rule {
        action: Action::Allow,
        ip_version: None,
        protocol: Some(6),
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: source.into(),
        destination: Arc::new(Entity {
            ports: Some(vec![Port::Named("http".into()), Port::Range(443, 443)]),
            ..Entity::default()
        }),
        http: false,
        unreadable: false,
    }
}

fn policy(shape: Shape, nth: usize, order: f64) -> Change {
    let from =
        |text: String| allow(Entity { selector: Some(Selector::parse(&text).unwrap()), ..Entity::default() });
    let namespace = format!("projectcalico.org/namespace == 'ns-{}'", nth % NAMESPACES);
    let (selector, rules) = match shape {
        Shape::Namespaces => (
            format!("app == 'app-{}' && {namespace}", nth / NAMESPACES),
            vec![
                from(format!("{namespace} && app in {{'app-1', 'app-2'}}")),
                from(format!("pcns.team == 'team-{}'", nth % 100)),
            ],
        ),
        Shape::Everybody => (
            "projectcalico.org/orchestrator == 'k8s'".to_owned(),
            vec![from(format!("app == 'app-{}' && {namespace}", nth / NAMESPACES))],
        ),
    };
    let policy = Policy {
        tier: "default".into(),
        order: Some(order),
        selector: Selector::parse(&selector).unwrap(),
        ingress: Some(rules),
        egress: None,
        do_not_track: false,
        pre_dnat: false,
        apply_on_forward: false,
    };
    let key = PolicyKey {
        tie_break: format!("ns-{}/policy-{nth}", nth % NAMESPACES).into(),
        namespace: "ns".into(),
    };
    Change::Policy(key, Some(Arc::new(policy)))
}

/// Resident memory, bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn cluster(shape: Shape) -> Vec<Change> {
    let profiles = (0..NAMESPACES).map(|nth| profile(nth, nth % 100));
    let policies = (0..POLICIES).map(|nth| policy(shape, nth, 1000.0));
    profiles.chain(policies).chain((0..PODS).map(|nth| pod(nth, 0))).collect()
}

/// Median and worst of single changes, each worked off by itself.
fn cost(graph: &mut CalicoGraph, what: &str, changes: impl Iterator<Item = Change>) -> Duration {
    let mut took: Vec<Duration> = changes
        .map(|change| {
            let start = Instant::now();
            graph.apply(change);
            graph.flush();
            start.elapsed()
        })
        .collect();
    took.sort();
    let median = took[took.len() / 2];
    println!(
        "  {what:<42} median {median:>10.1?}   worst {:>10.1?}   of {}",
        took[took.len() - 1],
        took.len()
    );
    median
}

fn measure(shape: Shape, limit: Duration) {
    let before = resident();
    let changes = cluster(shape);
    let resources = resident() - before;
    let (start, mut graph) = (Instant::now(), CalicoGraph::new(HERE, RouteSource::Blocks));
    changes.into_iter().for_each(|change| graph.apply(change));
    graph.flush();
    let took = start.elapsed();
    let grown = (resident() - before).saturating_sub(resources);
    let resolution = graph.resolution();
    println!(
        "{shape:?}: {PODS} endpoints ({} here), {POLICIES} policies ({} active), {} sets; loaded in {took:.2?}; \
         resources {} MB, the graph {} MB: {} bytes an endpoint",
        resolution.workloads.len(),
        resolution.active_policies.len(),
        resolution.sets.len(),
        resources >> 20,
        grown >> 20,
        grown / PODS,
    );
    let few = || (0..200usize).map(|n| n * 37 + 101);
    let local = || 0..50usize;
    let gone = |change: Change| match change {
        Change::Workload(key, _) => Change::Workload(key, None),
        Change::Policy(key, _) => Change::Policy(key, None),
        other => other,
    };
    let medians = [
        cost(&mut graph, "a remote endpoint gets another address", few().map(|n| pod(n, 1))),
        cost(&mut graph, "a remote endpoint goes", few().map(|n| gone(pod(n, 1)))),
        cost(&mut graph, "a remote endpoint comes", few().map(|n| pod(n, 2))),
        cost(&mut graph, "a local endpoint goes", local().map(|n| gone(pod(n, 0)))),
        cost(&mut graph, "a local endpoint comes", local().map(|n| pod(n, 0))),
        cost(&mut graph, "a policy goes", few().map(|n| gone(policy(shape, n, 0.0)))),
        cost(&mut graph, "a policy comes", few().map(|n| policy(shape, n, 1000.0))),
        cost(&mut graph, "a policy of local pods changes order", local().map(|n| policy(shape, n, 5.0))),
        cost(&mut graph, "a namespace's labels change", (1..50usize).map(|n| profile(n, n % 100 + 1))),
        cost(&mut graph, "a network set of 10,000 entries comes", (0..5usize).map(network_set)),
    ];
    if !cfg!(debug_assertions) {
        for median in &medians[..7] {
            assert!(*median < limit, "{median:?}");
        }
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert!(grown / PODS < 2048, "{grown}");
    }
}

fn network_set(nth: usize) -> Change {
    let net = |entry: u32| IpNetwork::from(std::net::IpAddr::from((0xc000_0000 + entry * 3).to_be_bytes()));
    let labels = Labels::from([("pcns.team".to_owned(), format!("team-{nth}"))]);
    let set =
        NetworkSet { nets: (0..10_000).map(net).collect(), labels: Arc::new(labels), profiles: [].into() };
    Change::NetworkSet(format!("set-{nth}"), Some(Arc::new(set)))
}

#[test]
#[ignore = "a measurement"]
fn policies_of_namespaces() {
    measure(Shape::Namespaces, Duration::from_millis(2));
}

#[test]
#[ignore = "a measurement"]
fn policies_about_everybody() {
    measure(Shape::Everybody, Duration::from_millis(20));
}
