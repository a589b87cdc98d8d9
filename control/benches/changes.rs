//! What one change costs the control side of a node in a large cluster: 100,000 endpoints on 1,000 nodes, 10,000 policies
//! of ten rules. From the value as the datastore gives it to the published tables, by steps: `policy` = reading it and
//! following it through Calico's model, `resolve` = the node's spec, `compare` = with the one in force, `compile` = to tables,
//! `publish` = putting them in force and freeing the ones before. A reader takes every generation, as a worker does.
//!
//! `cargo bench --bench changes [-- ENDPOINTS POLICIES]`

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use canal_control::datastore::{Change, KeyValue, Revision};
use canal_control::felix::Values;
use canal_control::flannel::identity::Identity;
use canal_control::host::select::External;
use canal_control::host::view::{Address, HostView, Link, Scope};
use canal_control::model::calico::decode::Key;
use canal_control::model::flannel::{NetworkConfig, Prefix, Subnets};
use canal_control::resolve::calico::routes::RouteSource;
use canal_control::resolve::calico::{CalicoGraph, change_of, sync};
use canal_control::resolve::{NodeFacts, Policy, Resolver};
use canal_control::state::State;
use canal_dataplane::net::Mac;
use canal_dataplane::spec::{NodeSpec, Settings};
use canal_dataplane::tables::{Publisher, Tables, compile};

const NETWORK: &str = r#"{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}}"#;
/// The node that we are, with 100 endpoints as every other.
const HERE: usize = 7;
const ON_A_NODE: usize = 100;
/// Changes of each kind.
const CHANGES: usize = 200;
const STEPS: [&str; 5] = ["policy", "resolve", "compare", "compile", "publish"];

/// Address of an endpoint: in its node's subnet.
fn pod(n: usize) -> Ipv4Addr {
    let node = n / ON_A_NODE + 1;
    Ipv4Addr::from(0x0a00_0000 | (node as u32) << 8 | (n % ON_A_NODE + 2) as u32)
}

fn value(key: String, value: String) -> Change {
    let entry = KeyValue { key: key.clone(), value: value.into_bytes(), mod_revision: 1, lease: None };
    Change { key, value: Some(entry), revision: 1 }
}

fn gone(change: Change) -> Change {
    Change { value: None, ..change }
}

fn lease(node: usize) -> Change {
    let subnet = Ipv4Addr::from(0x0a00_0000 | (node as u32 + 1) << 8);
    let public = Ipv4Addr::from(0xac10_0001 + node as u32);
    let mac = format!("02:00:00:00:{:02x}:{:02x}", node >> 8, node & 255);
    let text = format!(
        r#"{{"PublicIP":"{public}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}}}"#
    );
    value(format!("/coreos.com/network/subnets/{subnet}-24"), text)
}

/// A pod as the CNI plugin writes it; ten have one deployment's labels, a thousand share a namespace.
fn endpoint(n: usize, version: usize) -> Change {
    let (node, deployment, namespace) = (n / ON_A_NODE, n / 10, n / 1000);
    let name = format!("node--{node}-k8s-web--{deployment:x}--{n:05x}-eth0");
    let text = format!(
        r#"{{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","namespace":"ns-{namespace}",
        "labels":{{"app":"web-{deployment:x}","version":"v{version}","tier":"backend","projectcalico.org/namespace":"ns-{namespace}",
        "projectcalico.org/orchestrator":"k8s","projectcalico.org/serviceaccount":"default"}}}},
        "spec":{{"orchestrator":"k8s","node":"node-{node}","pod":"web-{n:05x}","endpoint":"eth0","ipNetworks":["{}/32"],
        "profiles":["kns.ns-{namespace}"],"interfaceName":"cali{n:011x}",
        "ports":[{{"name":"http","protocol":"TCP","port":8080}}]}}}}"#,
        pod(n)
    );
    value(format!("/calico/resources/v3/projectcalico.org/workloadendpoints/ns-{namespace}/{name}"), text)
}

/// A policy of ten rules about one deployment. Every hundredth is about a whole namespace, ours among them, and names all
/// pods of the cluster.
fn policy(n: usize, order: usize, port: usize) -> Change {
    let (namespace, wide) = (n / 100, n.is_multiple_of(100));
    let selector = if wide { "all()".to_owned() } else { format!("app == 'web-{:x}'", n) };
    let mut rules = String::new();
    for rule in 0..10 {
        let comma = if rule > 0 { "," } else { "" };
        let from =
            if wide && rule == 0 { "all()".to_owned() } else { format!("app == 'web-{:x}'", n + rule) };
        write!(
            rules,
            r#"{comma}{{"action":"Allow","protocol":"TCP","source":{{"namespaceSelector":"all()","selector":"{from}"}},
            "destination":{{"ports":[{port},"8000:8090","http"]}}}}"#
        )
        .expect("a string");
    }
    let text = format!(
        r#"{{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{{"name":"default.p{n}","namespace":"ns-{namespace}"}},
        "spec":{{"order":{order},"selector":"{selector}","types":["Ingress"],"ingress":[{rules}]}}}}"#
    );
    value(format!("/calico/resources/v3/projectcalico.org/networkpolicies/ns-{namespace}/default.p{n}"), text)
}

fn link(index: u32, name: &str, kind: Option<&str>) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mtu: 1500,
        mac: None,
        kind: kind.map(str::to_owned),
        peer_netns: None,
        up: true,
        running: true,
        loopback: false,
        noarp: false,
        tx_queue_len: 500,
        addr_gen_mode: None,
    }
}

struct Node {
    state: State,
    graph: CalicoGraph,
    config: NetworkConfig,
    external: External,
    host: Arc<HostView>,
    on_link: BTreeSet<IpAddr>,
    published: NodeSpec,
    publisher: Publisher,
    generation: u64,
    revision: Revision,
    felix: Values,
    resolver: Resolver,
}

impl Node {
    fn new() -> Self {
        let name = format!("node-{HERE}");
        let own = Ipv4Addr::from(0xac10_0001 + HERE as u32);
        let mut links = vec![link(2, "eth0", None), link(3, "canal0", Some("tun"))];
        for n in HERE * ON_A_NODE..(HERE + 1) * ON_A_NODE {
            links.push(link(n as u32 + 10, &format!("cali{n:011x}"), Some("veth")));
        }
        let net = format!("{own}/16").parse().expect("a network");
        let outer = Address { ifindex: 2, net, scope: Scope::Global, flags: Address::PERMANENT };
        let external = External {
            ifindex: 2,
            name: "eth0".into(),
            mtu: 1500,
            v4: Some(own),
            v6: None,
            public_v4: Some(own),
            public_v6: None,
        };
        Self {
            state: State::new(&name, &Prefix::default()),
            graph: CalicoGraph::new(&name, RouteSource::default()),
            config: NetworkConfig::read(NETWORK.as_bytes()).expect("a config"),
            external,
            host: Arc::new(HostView { links, addresses: vec![outer], routes: vec![] }),
            on_link: BTreeSet::new(),
            published: NodeSpec::default(),
            publisher: Publisher::new(Tables::closed()),
            generation: 0,
            revision: 1,
            felix: Values::default(),
            resolver: Resolver::default(),
        }
    }

    /// Takes in what is there from the beginning.
    fn load(&mut self, endpoints: usize, policies: usize) {
        let config = value("/coreos.com/network/config".into(), NETWORK.into());
        let leases = (0..endpoints / ON_A_NODE).map(lease);
        let endpoints = (0..endpoints).map(|n| endpoint(n, 1));
        let policies = (0..policies).map(|n| policy(n, n, 80));
        let all: Vec<Change> = [config].into_iter().chain(leases).chain(endpoints).chain(policies).collect();
        self.state.apply(&all);
        sync(&mut self.graph, self.state.calico());
        self.graph.flush();
    }

    /// One change, from the datastore's value to tables in force; the time of each of [`STEPS`].
    fn change(&mut self, change: &Change) -> [Duration; 5] {
        self.revision += 1;
        let start = Instant::now();
        self.state.apply(std::slice::from_ref(change));
        if let Some(change) =
            Key::parse(&change.key).ok().and_then(|key| change_of(self.state.calico(), &key))
        {
            self.graph.apply(change);
        }
        self.graph.flush();
        let read = Instant::now();
        let (spec, resolved) = (self.resolve(), Instant::now());
        let (differs, compared) = (spec != self.published, Instant::now());
        if !differs {
            return [read - start, resolved - read, compared - resolved, Duration::ZERO, Duration::ZERO];
        }
        self.generation += 1;
        let tables = compile(&spec, Some(&self.publisher.current()), self.generation);
        let compiled = Instant::now();
        self.publisher.publish(tables);
        self.published = spec;
        let end = Instant::now();
        [read - start, resolved - read, compared - resolved, compiled - compared, end - compiled]
    }

    fn resolve(&mut self) -> NodeSpec {
        let backend = self.config.backend().expect("a backend");
        let subnet = Ipv4Addr::from(0x0a00_0000 | (HERE as u32 + 1) << 8);
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let facts = NodeFacts {
            config: &self.config,
            backend: &backend,
            external: &self.external,
            subnets: Subnets { v4: format!("{subnet}/24").parse().expect("a subnet"), v6: None },
            identity: Identity { vtep_mac: mac, vtep_v6_mac: mac },
            host: &self.host,
            on_link: &self.on_link,
            device: "canal0",
            gateways: &[],
            settings: Settings::default(),
            felix: &self.felix,
        };
        self.resolver.resolve(&self.state, &facts, self.graph.resolution(), Policy::Enforced).spec
    }

    /// Median, 99th percentile and worst of changes one after the other, and the medians of their steps.
    fn measure(&mut self, what: &str, changes: impl Iterator<Item = Change>) {
        let mut reader = self.publisher.reader();
        let mut all: Vec<[Duration; 5]> = Vec::new();
        let before = self.generation;
        for change in changes {
            all.push(self.change(&change));
            assert_eq!(reader.load().generation, self.generation);
        }
        let ms = |mut times: Vec<Duration>| {
            times.sort_unstable();
            [times.len() / 2, times.len() * 99 / 100, times.len() - 1].map(|at| times[at].as_secs_f64() * 1e3)
        };
        let [median, high, worst] = ms(all.iter().map(|steps| steps.iter().sum()).collect());
        let mut line = format!("{what:<44} {median:8.3} {high:8.3} {worst:8.3}  ");
        for (step, name) in STEPS.iter().enumerate() {
            let [median, ..] = ms(all.iter().map(|steps| steps[step]).collect());
            write!(line, " {name} {median:.3}").expect("a string");
        }
        println!("{line}   {} of {} published", self.generation - before, all.len());
    }
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let [endpoints, policies] = numbers[..] else { return run(100_000, 10_000) };
    run(endpoints, policies);
}

fn run(endpoints: usize, policies: usize) {
    let mut node = Node::new();
    let start = Instant::now();
    node.load(endpoints, policies);
    let loaded = start.elapsed();
    let steps = node.change(&lease(HERE));
    println!(
        "{endpoints} endpoints, {policies} policies: taken in within {loaded:.2?}, then first tables {steps:.1?}"
    );
    println!(
        "{} sets, {} policies in force here",
        node.published.sets.len(),
        node.graph.resolution().active_policies.len()
    );
    println!(
        "{:<44} {:>8} {:>8} {:>8}   milliseconds; then medians of the steps",
        "", "median", "p99", "worst"
    );
    let remote = |i: usize| (i * 37 + 1009) % endpoints;
    let here = |i: usize| HERE * ON_A_NODE + i % ON_A_NODE;
    // Those that are about our namespace's deployments, and the one about all of it.
    let about_us = |i: usize| HERE * ON_A_NODE / 10 + i % 10;
    node.measure("an endpoint elsewhere goes", (0..CHANGES).map(|i| gone(endpoint(remote(i), 1))));
    node.measure("an endpoint elsewhere comes", (0..CHANGES).map(|i| endpoint(remote(i), 1)));
    node.measure("an endpoint elsewhere changes a label", (0..CHANGES).map(|i| endpoint(remote(i), 2)));
    node.measure("an endpoint here goes", (0..ON_A_NODE).map(|i| gone(endpoint(here(i), 1))));
    // Policies begin and end to be about somebody here; the sets that they name have all endpoints in them.
    let only = || endpoint(here(0), 1);
    node.measure(
        "the only endpoint here comes and goes",
        (0..CHANGES / 5).map(|i| if i.is_multiple_of(2) { only() } else { gone(only()) }),
    );
    node.measure("an endpoint here comes", (0..ON_A_NODE).map(|i| endpoint(here(i), 1)));
    node.measure(
        "a policy elsewhere changes",
        (0..CHANGES).map(|i| policy((i * 41 + 301) % policies, i, 81)),
    );
    node.measure(
        "a policy about endpoints here changes",
        (0..CHANGES).map(|i| policy(about_us(i), about_us(i), 90 + i)),
    );
    node.measure(
        "a policy about endpoints here goes",
        (0..10).map(|i| gone(policy(about_us(i), about_us(i), 0))),
    );
    node.measure(
        "a policy about endpoints here comes",
        (0..10).map(|i| policy(about_us(i), about_us(i), 80)),
    );
    node.measure("a policy about a whole namespace changes", (0..CHANGES).map(|i| policy(0, 0, 90 + i)));
    node.measure(
        "a lease elsewhere goes and comes",
        (0..CHANGES).map(|i| {
            let lease = lease(500 % (endpoints / ON_A_NODE).max(2) + 1);
            if i.is_multiple_of(2) { gone(lease) } else { lease }
        }),
    );
}
