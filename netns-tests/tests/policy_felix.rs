//! What Felix's own tests look at, for workloads: the host and its pods, families, profiles, tiers and sets that change.

use anyhow::{Context, Result, ensure};
use netns_tests::calico::{Kind, Resource, endpoint, namespace_profile};
use netns_tests::pod::NAMESPACE;
use netns_tests::traffic::{Ping, Service, tcp_connects};
use netns_tests::{Netns, Network, Overlay, Pod, Role, Shape, Store, Topology, wait};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

const PORT: u16 = 8080;

fn global(name: &str, spec: Value) -> Resource {
    Resource::global(Kind::GlobalNetworkPolicy, &format!("default.{name}"), spec)
}

fn labelled(overlay: &Overlay<'_>, pod: &Pod, role: &str) -> Result<()> {
    let value = endpoint(pod, &[("role", role)], &[]);
    overlay.store.put_workload(NAMESPACE, &pod.endpoint_name(), &value)?;
    overlay.wait_enforced()
}

/// Waits until TCP is as it should be, and looks a second time.
fn expect(when: &str, from: &Netns, to: SocketAddr, passes: bool) -> Result<()> {
    let what = format!("{when}: TCP {} -> {to} passes={passes}", from.name());
    wait::until(&what, wait::SOON, || Ok(tcp_connects(from, to)? == passes))?;
    ensure!(tcp_connects(from, to)? == passes, "{what}, but not the second time");
    Ok(())
}

/// A client on the first node, a server that answers on the second.
struct Pair<'t> {
    overlay: Overlay<'t>,
    _services: Vec<Service>,
}

impl<'t> Pair<'t> {
    fn build(topology: &'t Topology, dual: bool) -> Result<Self> {
        let network = Network { dual, ..Network::default() };
        let overlay = Overlay::start(topology, &network, &[Role::canal(), Role::canal()])?;
        namespace_profile().put(&overlay.store)?;
        labelled(&overlay, overlay.pod(0), "client")?;
        labelled(&overlay, overlay.pod(1), "server")?;
        let server = overlay.pod(1);
        let services = server.addresses().into_iter().map(|a| Service::start(&server.ns, a, PORT));
        let services = services.collect::<Result<_>>()?;
        let pair = Self { overlay, _services: services };
        for address in pair.server().addresses() {
            expect("before any policy", &pair.client().ns, SocketAddr::new(address, PORT), true)?;
        }
        Ok(pair)
    }

    fn client(&self) -> &Pod {
        self.overlay.pod(0)
    }

    fn server(&self) -> &Pod {
        self.overlay.pod(1)
    }

    fn at_server(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.server().v4), PORT)
    }

    /// Writes it, and waits until both nodes enforce it.
    fn put(&self, resource: &Resource) -> Result<()> {
        resource.put(&self.overlay.store)?;
        self.overlay.wait_enforced()
    }

    fn expect(&self, when: &str, passes: bool) -> Result<()> {
        expect(when, &self.client().ns, self.at_server(), passes)
    }
}

#[test]
fn the_host_reaches_its_own_pods_under_default_deny_and_another_host_does_not() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let pair = Pair::build(&topology, false)?;
    pair.put(&global("closed", json!({"selector": "all()", "types": ["Ingress", "Egress"]})))?;
    pair.expect("denied", false)?;
    let server = pair.server();
    // As a kubelet probes it: from the host's own address, by TCP and by ping; its answers are not asked about either.
    expect("its own host", &pair.overlay.host(1).ns, pair.at_server(), true)?;
    Ping::to(server.v4).expect_all(&pair.overlay.host(1).ns)?;
    expect("another host", &pair.overlay.host(0).ns, pair.at_server(), false)?;
    // A pod that may send nothing opens nothing to its host.
    let host = pair.overlay.host(1);
    let service = Service::start(&host.ns, host.v4.into(), PORT)?;
    expect("the pod to its host", &server.ns, SocketAddr::new(host.v4.into(), PORT), false)?;
    drop(service);
    topology.pass()
}

#[test]
fn a_rule_for_ipv6_alone_says_nothing_of_ipv4() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let pair = Pair::build(&topology, true)?;
    let v6 = SocketAddr::new(pair.server().v6.context("dual-stack")?.into(), PORT);
    let rule = |rule: Value| {
        global("one-family", json!({"selector": "role == 'server'", "types": ["Ingress"], "ingress": [rule]}))
    };
    pair.put(&rule(json!({"action": "Allow", "ipVersion": 6})))?;
    pair.expect("IPv6 alone", false)?;
    expect("IPv6 alone", &pair.client().ns, v6, true)?;
    pair.put(&rule(json!({"action": "Allow", "ipVersion": 4, "protocol": "TCP"})))?;
    pair.expect("IPv4 alone", true)?;
    expect("IPv4 alone", &pair.client().ns, v6, false)?;
    let client = pair.client().v6.context("dual-stack")?;
    pair.put(&rule(json!({"action": "Allow", "source": {"nets": [format!("{client}/128")]}})))?;
    expect("by an IPv6 network", &pair.client().ns, v6, true)?;
    pair.expect("by an IPv6 network", false)?;
    topology.pass()
}

#[test]
fn a_profile_that_goes_closes_and_one_that_returns_opens() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let pair = Pair::build(&topology, false)?;
    namespace_profile().delete(&pair.overlay.store)?;
    pair.expect("without the profile", false)?;
    pair.put(&namespace_profile())?;
    pair.expect("with it", true)?;
    // Its rules and labels are obeyed as they are now.
    let any = json!([{"action": "Allow"}]);
    let closed = |labels: Value, ingress: Value| {
        let spec = json!({"ingress": ingress, "egress": any, "labelsToApply": labels});
        Resource::global(Kind::Profile, &format!("kns.{NAMESPACE}"), spec)
    };
    pair.put(&closed(json!({}), json!([{"action": "Deny"}])))?;
    pair.expect("its rule denies", false)?;
    pair.put(&global(
        "inherited",
        json!({"selector": "team == 'blue'", "types": ["Ingress"], "ingress": [{"action": "Allow"}]}),
    ))?;
    pair.put(&closed(json!({"team": "blue"}), json!([{"action": "Deny"}])))?;
    pair.expect("a policy for what is inherited goes before it", true)?;
    pair.put(&closed(json!({"team": "red"}), json!([{"action": "Deny"}])))?;
    pair.expect("inherited no more", false)?;
    topology.pass()
}

#[test]
fn tiers_change_places_and_ends_while_they_are_asked() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let pair = Pair::build(&topology, false)?;
    let tier = |name: &str, order: u32| Resource::global(Kind::Tier, name, json!({"order": order}));
    let policy = |tier: &str, action: &str| {
        let spec = json!({"tier": tier, "selector": "role == 'server'", "types": ["Ingress"],
                          "ingress": [{"action": action}]});
        Resource::global(Kind::GlobalNetworkPolicy, &format!("{tier}.all"), spec)
    };
    pair.put(&tier("default", 1_000_000))?;
    pair.put(&tier("first", 10))?;
    pair.put(&tier("second", 20))?;
    pair.put(&policy("first", "Allow"))?;
    pair.put(&policy("second", "Deny"))?;
    pair.expect("the first one allows", true)?;
    pair.put(&tier("second", 5))?;
    pair.expect("the second one has become the first", false)?;
    pair.put(&tier("first", 1))?;
    pair.expect("and back", true)?;
    let bare = |end: &str| Resource::global(Kind::Tier, "first", json!({"order": 1, "defaultAction": end}));
    let nothing =
        json!({"tier": "first", "selector": "role == 'server'", "types": ["Ingress"], "ingress": []});
    pair.put(&Resource::global(Kind::GlobalNetworkPolicy, "first.all", nothing))?;
    policy("second", "Deny").delete(&pair.overlay.store)?;
    pair.expect("its end denies", false)?;
    pair.put(&bare("Pass"))?;
    pair.expect("its end passes on to the profile", true)?;
    pair.put(&bare("Deny"))?;
    pair.expect("and denies again", false)?;
    topology.pass()
}

#[test]
fn a_network_set_counts_as_it_is_now() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let pair = Pair::build(&topology, false)?;
    let set = |nets: Value, kind: &str| {
        Resource::global(Kind::GlobalNetworkSet, "friends", json!({"nets": nets}))
            .labelled(json!({"kind": kind}))
    };
    let rule = json!([{"action": "Allow", "source": {"selector": "kind == 'friend'"}}]);
    pair.put(&global(
        "friends",
        json!({"selector": "role == 'server'", "types": ["Ingress"], "ingress": rule}),
    ))?;
    pair.expect("there is no set", false)?;
    let client = pair.client().v4;
    pair.put(&set(json!([client]), "friend"))?;
    pair.expect("its address", true)?;
    pair.put(&set(json!([]), "friend"))?;
    pair.expect("an empty set is nobody", false)?;
    pair.put(&set(json!([format!("{client}/24")]), "friend"))?;
    pair.expect("a network, written with host bits", true)?;
    pair.put(&set(json!([format!("{client}/24")]), "stranger"))?;
    pair.expect("another label", false)?;
    topology.pass()
}

/// Ten thousand networks in a set that every new connection is asked about: who is in it gets through, who is not does not,
/// and what is known goes on.
#[test]
fn a_set_of_ten_thousand_decides_about_its_members_and_no_others() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let pair = Pair::build(&topology, false)?;
    let rule = json!([{"action": "Allow", "source": {"selector": "kind == 'crowd'"}}]);
    pair.put(&global(
        "crowd",
        json!({"selector": "role == 'server'", "types": ["Ingress"], "ingress": rule}),
    ))?;
    pair.expect("there is no set", false)?;
    let others = (0..10_000_u32).map(|n| format!("172.{}.{}.{}/32", 16 + n / 65_536, n / 256 % 256, n % 256));
    let put = |client: bool| -> Result<()> {
        let mut nets: Vec<String> = others.clone().collect();
        nets.extend(client.then(|| format!("{}/32", pair.client().v4)));
        let crowd = Resource::global(Kind::GlobalNetworkSet, "crowd", json!({"nets": nets}))
            .labelled(json!({"kind": "crowd"}));
        pair.overlay.store.put_long(&crowd.key(), &crowd.value().to_string())
    };
    put(true)?;
    pair.expect("one of many", true)?;
    let shown = pair.overlay.canal(1).show("ipsets")?;
    let counts: Vec<u64> =
        shown.as_array().context("a list")?.iter().filter_map(|set| set["count"].as_u64()).collect();
    ensure!(counts.contains(&10_001), "{counts:?}");
    put(false)?;
    pair.expect("not among them any more", false)?;
    put(true)?;
    pair.expect("again", true)?;
    topology.pass()
}
