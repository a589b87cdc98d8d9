//! Who may talk to whom, as Calico's resources in etcd say it, between pods of one node and of two.

use anyhow::{Result, ensure};
use netns_tests::calico::{Kind, Resource, endpoint, namespace_profile};
use netns_tests::pod::NAMESPACE;
use netns_tests::traffic::{Ping, Service, tcp_connects, udp_answers};
use netns_tests::{Network, Overlay, Pod, Role, Shape, Store, Topology, wait};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

const HTTP: u16 = 8080;
const OTHER: u16 = 9090;

/// Three pods: `client` and `server` on one canal node, `remote` on another; the server answers at two ports.
struct Town<'t> {
    overlay: Overlay<'t>,
    server: Pod,
    _services: Vec<Service>,
}

impl<'t> Town<'t> {
    fn build(topology: &'t Topology) -> Result<Self> {
        Self::of(topology, &Network::default())
    }

    fn of(topology: &'t Topology, network: &Network) -> Result<Self> {
        let overlay = Overlay::start(topology, network, &[Role::canal(), Role::canal()])?;
        let server = overlay.another_pod(0, 5)?;
        let mut services = Vec::new();
        for address in server.addresses() {
            for port in [HTTP, OTHER] {
                services.push(Service::start(&server.ns, address, port)?);
            }
        }
        // From here on policy is in use: labels and the profile that allows everything.
        namespace_profile().put(&overlay.store)?;
        let town = Self { overlay, server, _services: services };
        town.label(town.client(), &[("role", "client"), ("tier", "front")])?;
        town.label(town.remote(), &[("role", "remote"), ("tier", "front")])?;
        town.label(&town.server, &[("role", "server"), ("tier", "back")])?;
        town.expect("before any policy", town.client(), HTTP, true)?;
        town.expect("before any policy", town.remote(), HTTP, true)?;
        Ok(town)
    }

    fn client(&self) -> &Pod {
        self.overlay.pod(0)
    }

    fn remote(&self) -> &Pod {
        self.overlay.pod(1)
    }

    fn label(&self, pod: &Pod, labels: &[(&str, &str)]) -> Result<()> {
        self.name_ports(pod, labels, &[])
    }

    fn name_ports(&self, pod: &Pod, labels: &[(&str, &str)], ports: &[(&str, &str, u16)]) -> Result<()> {
        let value = endpoint(pod, labels, ports);
        self.overlay.store.put_workload(NAMESPACE, &pod.endpoint_name(), &value)?;
        self.overlay.wait_enforced()
    }

    /// Writes it, and waits until it is in force.
    fn put(&self, resource: &Resource) -> Result<()> {
        resource.put(&self.overlay.store)?;
        self.overlay.wait_enforced()
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.server.v4), port)
    }

    /// Waits until TCP from `pod` to the server's `port` is as it should be, and looks a second time.
    fn expect(&self, when: &str, pod: &Pod, port: u16, passes: bool) -> Result<()> {
        self.expect_at(when, pod, self.at(port), passes)
    }

    fn expect_at(&self, when: &str, pod: &Pod, to: SocketAddr, passes: bool) -> Result<()> {
        let what = format!("{when}: TCP {} -> {to} passes={passes}", pod.ns.name());
        wait::until(&what, wait::SOON, || Ok(tcp_connects(&pod.ns, to)? == passes))?;
        ensure!(tcp_connects(&pod.ns, to)? == passes, "{what}, but not the second time");
        Ok(())
    }

    fn expect_udp(&self, when: &str, pod: &Pod, port: u16, passes: bool) -> Result<()> {
        let (what, to) = (format!("{when}: UDP {} -> {port} passes={passes}", pod.ns.name()), self.at(port));
        wait::until(&what, wait::SOON, || Ok(udp_answers(&pod.ns, to)? == passes))
    }
}

fn policy(name: &str, spec: Value) -> Resource {
    Resource::namespaced(Kind::NetworkPolicy, &format!("default.{name}"), spec)
}

fn global(name: &str, spec: Value) -> Resource {
    Resource::global(Kind::GlobalNetworkPolicy, &format!("default.{name}"), spec)
}

#[test]
fn a_policy_isolates_what_it_selects_and_allows_what_it_says() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let town = Town::build(&topology)?;
    let rule = json!({"action": "Allow", "protocol": "TCP", "source": {"selector": "role == 'client'"},
                      "destination": {"ports": [HTTP]}});
    let only_client =
        policy("server", json!({"selector": "role == 'server'", "types": ["Ingress"], "ingress": [rule]}));
    town.put(&only_client)?;
    town.expect("allowed by label", town.client(), HTTP, true)?;
    town.expect("another port", town.client(), OTHER, false)?;
    town.expect("another label, from another node", town.remote(), HTTP, false)?;
    town.expect_udp("another protocol", town.client(), HTTP, false)?;
    // A label that changes on another node's endpoint changes what passes here.
    town.label(town.remote(), &[("role", "client")])?;
    town.expect("relabelled", town.remote(), HTTP, true)?;
    only_client.delete(&town.overlay.store)?;
    town.expect("without the policy", town.client(), OTHER, true)?;
    town.expect_udp("without the policy", town.client(), HTTP, true)?;
    topology.pass()
}

#[test]
fn egress_and_ingress_must_both_agree_between_pods_of_one_node() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let town = Town::build(&topology)?;
    let to_server = json!([{"action": "Allow", "protocol": "TCP",
                            "destination": {"selector": "role == 'server'", "ports": [HTTP, OTHER]}}]);
    town.put(&policy(
        "out",
        json!({"selector": "role == 'client'", "types": ["Egress"], "egress": to_server}),
    ))?;
    let from_front = json!([{"action": "Allow", "protocol": "TCP", "source": {"selector": "tier == 'front'"}, "destination": {"ports": [HTTP]}}]);
    town.put(&policy(
        "in",
        json!({"selector": "role == 'server'", "types": ["Ingress"], "ingress": from_front}),
    ))?;
    town.expect("both agree", town.client(), HTTP, true)?;
    town.expect("ingress refuses", town.client(), OTHER, false)?;
    let remote = SocketAddr::new(town.remote().v4.into(), HTTP);
    let service = Service::start(&town.remote().ns, town.remote().v4.into(), HTTP)?;
    town.expect_at("egress refuses", town.client(), remote, false)?;
    town.expect_at("nobody asks the server's egress", &town.server, remote, true)?;
    drop(service);
    topology.pass()
}

#[test]
fn order_decides_and_the_first_match_wins() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let town = Town::build(&topology)?;
    let all = |action: &str| json!([{"action": action}]);
    town.put(&global(
        "b-allow",
        json!({"order": 20, "selector": "role == 'server'", "types": ["Ingress"], "ingress": all("Allow")}),
    ))?;
    town.expect("one that allows", town.client(), HTTP, true)?;
    let deny = global(
        "a-deny",
        json!({"order": 10.5, "selector": "role == 'server'", "types": ["Ingress"], "ingress": all("Deny")}),
    );
    town.put(&deny)?;
    town.expect("one that denies goes first", town.client(), HTTP, false)?;
    let late =
        json!({"order": 30, "selector": "role == 'server'", "types": ["Ingress"], "ingress": all("Deny")});
    town.put(&global("a-deny", late))?;
    town.expect("it goes last", town.client(), HTTP, true)?;
    topology.pass()
}

#[test]
fn tiers_pass_on_and_end_as_they_say() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let town = Town::build(&topology)?;
    town.put(&Resource::global(Kind::Tier, "security", json!({"order": 100})))?;
    town.put(&Resource::global(Kind::Tier, "default", json!({"order": 1_000_000})))?;
    let pass_http = json!([{"action": "Pass", "protocol": "TCP", "destination": {"ports": [HTTP]}}]);
    let first = |ingress: Value| {
        let spec = json!({"tier": "security", "selector": "role == 'server'", "types": ["Ingress"], "ingress": ingress});
        Resource::global(Kind::GlobalNetworkPolicy, "security.first", spec)
    };
    town.put(&first(pass_http))?;
    town.expect("passed on to the profile", town.client(), HTTP, true)?;
    town.expect("the tier's end denies", town.client(), OTHER, false)?;
    town.put(&global(
        "last",
        json!({"selector": "role == 'server'", "types": ["Ingress"], "ingress": [{"action": "Deny"}]}),
    ))?;
    town.expect("passed on to a tier that denies", town.client(), HTTP, false)?;
    town.put(&first(json!([{"action": "Allow"}])))?;
    town.expect("allowed before the last tier is asked", town.client(), OTHER, true)?;
    topology.pass()
}

#[test]
fn named_ports_are_those_of_the_endpoint() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let town = Town::build(&topology)?;
    let labels = [("role", "server")];
    let rule = json!([{"action": "Allow", "protocol": "TCP", "destination": {"ports": ["web"]}}]);
    town.put(&policy(
        "named",
        json!({"selector": "role == 'server'", "types": ["Ingress"], "ingress": rule}),
    ))?;
    town.expect("nobody has a port of that name", town.client(), HTTP, false)?;
    town.name_ports(&town.server, &labels, &[("web", "TCP", HTTP)])?;
    town.expect("now it has", town.client(), HTTP, true)?;
    town.expect("and only that one", town.remote(), OTHER, false)?;
    town.name_ports(&town.server, &labels, &[("web", "UDP", HTTP), ("web", "TCP", OTHER)])?;
    town.expect("it has moved", town.remote(), OTHER, true)?;
    town.expect("another protocol's port of that name is another port", town.client(), HTTP, false)?;
    topology.pass()
}

#[test]
fn ten_thousand_entries_of_a_network_set_decide_like_one() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let town = Town::build(&topology)?;
    let mut nets: Vec<String> =
        (0..10_000).map(|n| format!("172.{}.{}.0/24", 16 + n / 256 % 16, n % 256)).collect();
    nets.extend((0..6_000).map(|n| format!("198.18.{}.{}", n / 250, n % 250)));
    nets.push(format!("{}/32", town.client().v4));
    let set = |nets: &[String]| {
        Resource::global(Kind::GlobalNetworkSet, "blocked", json!({"nets": nets}))
            .labelled(json!({"list": "blocked"}))
    };
    let put = |nets: &[String]| {
        let set = set(nets);
        town.overlay.store.put_long(&set.key(), &set.value().to_string())?;
        town.overlay.wait_enforced()
    };
    put(&nets)?;
    let rules = json!([{"action": "Deny", "source": {"selector": "list == 'blocked'"}}, {"action": "Allow"}]);
    let spec = json!({"selector": "role == 'server'", "types": ["Ingress"], "ingress": rules});
    // A policy of a namespace means what is in it, unless it says otherwise.
    town.put(&policy("set", spec.clone()))?;
    town.expect("a set of another place", town.client(), HTTP, true)?;
    policy("set", spec.clone()).delete(&town.overlay.store)?;
    town.put(&global("set", spec))?;
    town.expect("in the set", town.client(), HTTP, false)?;
    town.expect("not in the set", town.remote(), HTTP, true)?;
    nets.pop();
    put(&nets)?;
    town.expect("taken out of the set", town.client(), HTTP, true)?;
    // A wide network in the same set holds the other node's pod.
    nets.push(format!("{}/24", town.overlay.subnets(1)?.v4));
    put(&nets)?;
    town.expect("its whole network is in the set", town.remote(), HTTP, false)?;
    topology.pass()
}

#[test]
fn icmp_rules_look_at_type_and_code_in_both_families() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let town = Town::of(&topology, &Network { dual: true, ..Network::default() })?;
    let pings = |passes: bool| -> Result<()> {
        for to in town.server.addresses() {
            for pod in [town.client(), town.remote()] {
                let what = format!("ping {} -> {to} passes={passes}", pod.ns.name());
                wait::until(&what, wait::SOON, || {
                    let ping = Ping::to(to).count(1);
                    let result = if passes {
                        ping.expect_all(&pod.ns).map(drop)
                    } else {
                        ping.expect_none(&pod.ns).map(drop)
                    };
                    result.map(|()| true)
                })?;
            }
        }
        Ok(())
    };
    let rules = |v4: Value, v6: Value| {
        let ingress = json!([{"action": "Allow", "protocol": "ICMP", "ipVersion": 4, "icmp": v4},
                             {"action": "Allow", "protocol": "ICMPv6", "ipVersion": 6, "icmp": v6}]);
        policy("icmp", json!({"selector": "role == 'server'", "types": ["Ingress"], "ingress": ingress}))
    };
    town.put(&rules(json!({"type": 8, "code": 0}), json!({"type": 128, "code": 0})))?;
    pings(true)?;
    town.expect("not ICMP", town.client(), HTTP, false)?;
    town.put(&rules(json!({"type": 13}), json!({"type": 130})))?;
    pings(false)?;
    topology.pass()
}

#[test]
fn nets_and_not_nets_of_one_family_say_nothing_of_the_other() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let town = Town::of(&topology, &Network { dual: true, ..Network::default() })?;
    let v6 = SocketAddr::new(town.server.v6.expect("dual-stack").into(), HTTP);
    let rules = json!([{"action": "Allow", "source": {"nets": [format!("{}/32", town.client().v4)]}},
                       {"action": "Allow", "source": {"notNets": ["fd00:244:ffff::/64"]}}]);
    town.put(&policy(
        "nets",
        json!({"selector": "role == 'server'", "types": ["Ingress"], "ingress": rules}),
    ))?;
    town.expect("the net's own", town.client(), HTTP, true)?;
    town.expect("neither rule is about it", town.remote(), HTTP, false)?;
    town.expect_at("outside of the notNets", town.remote(), v6, true)?;
    topology.pass()
}

#[test]
fn an_unknown_profile_denies_and_so_does_none() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let town = Town::build(&topology)?;
    for profiles in [json!(["kns.nope", format!("kns.{NAMESPACE}")]), json!([])] {
        let mut value = endpoint(&town.server, &[("role", "server")], &[]);
        value["spec"]["profiles"] = profiles.clone();
        town.overlay.store.put_workload(NAMESPACE, &town.server.endpoint_name(), &value)?;
        town.expect(&format!("profiles {profiles}"), town.client(), HTTP, false)?;
        town.label(&town.server, &[("role", "server")])?;
        town.expect("with its profile again", town.client(), HTTP, true)?;
    }
    topology.pass()
}

#[test]
fn a_policy_that_cannot_be_read_is_complained_of_and_does_not_stop_the_rest() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let town = Town::build(&topology)?;
    let selector = "role = 'server'";
    let bad =
        policy("bad", json!({"selector": selector, "types": ["Ingress"], "ingress": [{"action": "Allow"}]}));
    town.put(&bad)?;
    town.overlay.store.put(&policy("half", json!({})).key(), "{\"kind\": \"NetworkPol")?;
    town.put(&policy("good", json!({"selector": "role == 'server'", "types": ["Ingress"], "ingress": []})))?;
    town.expect("the good one is in force", town.client(), HTTP, false)?;
    wait::until("both are complained of", wait::SOON, || {
        let (code, said) = town.overlay.canal(0).status_table()?;
        let ignored = |name: &str| said.lines().any(|l| l.starts_with("ignored") && l.contains(name));
        ensure!(code == Some(0), "what others write wrong is not this node's trouble: {said}");
        Ok(ignored("default.bad") && ignored("default.half"))
    })?;
    bad.delete(&town.overlay.store)?;
    policy("half", json!({})).delete(&town.overlay.store)?;
    wait::until("no complaint is left", wait::SOON, || {
        Ok(!town.overlay.canal(0).status_table()?.1.contains("ignored"))
    })?;
    topology.pass()
}
