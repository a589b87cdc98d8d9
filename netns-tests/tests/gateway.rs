//! Plain hosts behind a second interface of a canal node reach the overlay, and are reached.

use anyhow::{Context, Result, ensure};
use netns_tests::behind::{Far, Link, Plain, address_v4, address_v6};
use netns_tests::calico::{Kind, Resource, namespace_profile};
use netns_tests::overlay::exchange_one_way;
use netns_tests::traffic::{Ping, Service, Transfer, tcp, tcp_connects};
use netns_tests::{
    Canal, CanalOptions, Etcd, Netns, Network, Overlay, Pod, Role, Shape, Store, Topology, flannel, wait,
};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Replies between a pod and a host behind its node's gateway cross one router.
const NEAR_TTL: u8 = 63;

/// Those to a pod of another node cross that node, too.
const FAR_TTL: u8 = 62;

/// A dual-stack canal node with a gateway interface, `eth1`, and one host behind it.
struct Site<'t> {
    overlay: Overlay<'t>,
    link: Link,
    plain: Plain,
}

impl<'t> Site<'t> {
    fn build(topology: &'t Topology, others: &[Role], words: &[&str]) -> Result<Self> {
        let link = Link::new(topology, &topology.hosts[0], 1)?;
        let plain = link.host(2)?;
        let options = CanalOptions::with(&[&["--gateway-iface", "eth1"], words].concat());
        let roles = [&[Role::Canal(options)], others].concat();
        let overlay = Overlay::start(topology, &Network { dual: true, ..Network::default() }, &roles)?;
        let site = Self { overlay, link, plain };
        site.wait_talking(site.overlay.pod(0))?;
        Ok(site)
    }

    fn wait_talking(&self, pod: &Pod) -> Result<()> {
        for to in self.plain.addresses() {
            wait_answer(pod, to)?;
        }
        Ok(())
    }
}

fn wait_answer(pod: &Pod, to: IpAddr) -> Result<()> {
    wait::until(&format!("{} reaches {to}", pod.ns.name()), wait::SOON, || {
        Ping::to(to).count(1).expect_all(&pod.ns).map(|_| true)
    })
}

fn exchange(pod: &Pod, plain: &Plain, ttl: u8) -> Result<()> {
    for to in plain.addresses() {
        // The plain host has more room on its link than there is on the way, and has to find out: what finds out is lost.
        for size in [1500, 1450] {
            Ping::to(pod.address_like(to)).packet_size(size).dont_fragment().run(&plain.ns)?;
        }
        exchange_one_way(&pod.ns, &plain.ns, to, ttl)?;
        exchange_one_way(&plain.ns, &pod.ns, pod.address_like(to), ttl)?;
    }
    Ok(())
}

fn local_pod(shape: &Shape) -> Result<()> {
    let topology = Topology::build(shape)?;
    let site = Site::build(&topology, &[], &[])?;
    exchange(site.overlay.pod(0), &site.plain, NEAR_TTL)?;
    topology.pass()
}

#[test]
fn pods_and_hosts_behind_a_gateway_talk() -> Result<()> {
    local_pod(&Shape::hosts(1))
}

#[test]
fn pods_and_hosts_behind_a_gateway_talk_without_offloads() -> Result<()> {
    local_pod(&Shape::hosts(1).offloads(false))
}

#[test]
fn the_hosts_own_traffic_stays_the_kernels_whatever_becomes_of_the_daemon() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let mut site = Site::build(&topology, &[], &[])?;
    let base = site.overlay.subnets(0)?.v4;
    let host = &topology.hosts[0];
    // Its address on the link, on the underlay, and in the overlay.
    for to in [address_v4(1, 1).into(), address_v6(1, 1).into(), host.v4.into(), IpAddr::V4(base)] {
        Ping::to(to).expect_all(&site.plain.ns)?;
    }
    tcp::transfer(&site.plain.ns, &host.ns, address_v4(1, 1).into(), 4_000_000)?;
    for to in site.plain.addresses() {
        Ping::to(to).expect_all(&host.ns)?;
    }
    let stream = Transfer::endless(&site.plain.ns, &host.ns, address_v4(1, 1).into(), 2_000_000)?;
    site.overlay.canal_mut(0).kill()?;
    stream.expect_progress(1_000_000, wait::SOON)?;
    stream.finish(wait::SOON)?;
    site.overlay.canal_mut(0).restart()?;
    site.wait_talking(site.overlay.pod(0))?;
    topology.pass()
}

#[test]
fn addresses_that_are_not_behind_the_gateway_are_not_believed() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let site = Site::build(&topology, &[], &[])?;
    let (canal, pod) = (site.overlay.canal(0), site.overlay.pod(0));
    // Nobody's, another pod's, and the node's own.
    let another = site.overlay.subnets(0)?.pod_v4(77);
    for (from, reasons) in [
        ("10.99.0.5".parse()?, ["gateway_source"]),
        (IpAddr::V4(another), ["gateway_source"]),
        (IpAddr::V4(site.overlay.subnets(0)?.v4), ["martian_source"]),
    ] {
        site.plain.ns.ip(&format!("addr add {from}/32 dev lo"))?;
        canal.expect_drops(&reasons, 3, || {
            Ping::to(pod.v4).from(from).expect_none(&site.plain.ns).map(drop)
        })?;
    }
    topology.pass()
}

#[test]
fn senders_on_both_sides_are_told_what_does_not_fit_and_what_has_come_too_far() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let site = Site::build(&topology, &[], &[])?;
    let (pod, plain) = (site.overlay.pod(0), &site.plain);
    let subnets = site.overlay.subnets(0)?;
    // Who has told of an error, and what MTUs.
    let errors = |ping: Ping, ns| -> Result<(Vec<String>, Vec<u32>)> {
        let answers = ping.run(ns)?;
        ensure!(answers.received == 0, "{answers:?}");
        // ping ends an address that itself ends in colons like any other: with a colon.
        let who = |(who, _): (String, String)| who.trim_end_matches(':').to_owned();
        Ok((answers.errors.into_iter().map(who).collect(), answers.mtus))
    };
    let bases = [IpAddr::V4(subnets.v4), IpAddr::V6(subnets.v6.unwrap_or(plain.v6))];
    let bases = bases.map(|base| base.to_string().trim_end_matches(':').to_owned());
    let own: [IpAddr; 2] = [address_v4(1, 1).into(), address_v6(1, 1).into()];
    for (family, to) in plain.addresses().into_iter().enumerate() {
        let back = pod.address_like(to);
        // Pods have less room than the link.
        let (told, mtus) = errors(Ping::to(back).count(1).packet_size(1500).dont_fragment(), &plain.ns)?;
        ensure!(told.contains(&own[family].to_string()), "{told:?}");
        ensure!(mtus.contains(&u32::from(site.overlay.pod_mtu)), "{mtus:?}");
        let (told, _) = errors(Ping::to(back).count(1).ttl(1), &plain.ns)?;
        ensure!(told.contains(&own[family].to_string()), "{told:?}");
        let (told, _) = errors(Ping::to(to).count(1).ttl(1), &pod.ns)?;
        ensure!(told.contains(&bases[family]), "{told:?}");
    }
    // The link gets less room than pods have.
    topology.hosts[0].ns.ip("link set eth1 mtu 1300")?;
    for (family, to) in plain.addresses().into_iter().enumerate() {
        wait::until("the pod is told of the smaller link", wait::SOON, || {
            let (told, mtus) = errors(Ping::to(to).count(1).packet_size(1400).dont_fragment(), &pod.ns)?;
            let who = told.contains(&bases[family]);
            Ok(mtus.contains(&1300) && (who || told.is_empty()))
        })?;
        tcp::transfer(&pod.ns, &plain.ns, to, 4_000_000)?;
    }
    topology.pass()
}

#[test]
fn an_interface_that_goes_and_comes_back_is_taken_up_again() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let mut site = Site::build(&topology, &[], &[])?;
    site.link.unplug()?;
    let canal = site.overlay.canal(0);
    wait::until("the daemon says that the interface is missing", wait::SOON, || {
        let (code, text) = canal.status_text()?;
        Ok(code == Some(1) && text.contains("\"gateway\"") && text.contains("eth1 does not exist"))
    })?;
    site.link.plug(&topology.hosts[0])?;
    site.wait_talking(site.overlay.pod(0))?;
    site.overlay.canal(0).status()?;
    site.overlay.canal_mut(0).terminate()?;
    Ping::to(site.plain.v4).expect_all(&topology.hosts[0].ns)?;
    site.overlay.canal_mut(0).restart()?;
    site.wait_talking(site.overlay.pod(0))?;
    topology.pass()
}

/// Packets that `far` has received by the router with this number.
fn received_by(far: &Far, number: u8) -> Result<u64> {
    far.ns.link_counter(&Far::interface(number), "rx", "packets")
}

#[test]
fn flows_are_spread_over_routers_and_keep_theirs() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let site = Site::build(&topology, &[], &[])?;
    let (pod, host) = (site.overlay.pod(0), &topology.hosts[0].ns);
    let far = Far::new()?;
    let _routers = [site.link.router(11, &far)?, site.link.router(12, &far)?];
    let hops = |v6: bool| {
        [11, 12].map(|number| match v6 {
            false => address_v4(1, number).to_string(),
            true => address_v6(1, number).to_string(),
        })
    };
    for (v6, network) in [(false, Far::NETWORK_V4), (true, Far::NETWORK_V6)] {
        let [a, b] = hops(v6);
        host.ip(&format!("route add {network} nexthop via {a} dev eth1 nexthop via {b} dev eth1"))?;
    }
    for to in far.addresses() {
        wait_answer(pod, to)?;
        let counted = || -> Result<[u64; 2]> { Ok([received_by(&far, 11)?, received_by(&far, 12)?]) };
        // One connection takes one way, all of it.
        for _ in 0..3 {
            let before = counted()?;
            tcp::transfer(&pod.ns, &far.ns, to, 1_000_000)?;
            let after = counted()?;
            let grown = [after[0] - before[0], after[1] - before[1]];
            ensure!(grown.iter().any(|grown| *grown <= 4) && grown.iter().sum::<u64>() > 8, "{grown:?}");
        }
        // Many take both.
        let before = counted()?;
        for _ in 0..24 {
            tcp::transfer(&pod.ns, &far.ns, to, 20_000)?;
        }
        let after = counted()?;
        ensure!(after[0] > before[0] + 8 && after[1] > before[1] + 8, "{before:?} {after:?}");
    }
    let shown = site.overlay.canal(0).show("gateways")?;
    let networks = shown[0]["networks"].as_array().context("networks")?;
    let behind = networks.iter().find(|net| net["prefix"] == Far::NETWORK_V4).context("the far network")?;
    let states: Vec<&str> = (0..2).filter_map(|hop| behind["next_hops"][hop]["state"].as_str()).collect();
    ensure!(states.len() == 2 && !states.contains(&"NONE"), "{behind}");
    // A way goes: its connections move, the others stay, and nothing breaks.
    let streams = (0..6)
        .map(|_| Transfer::endless(&pod.ns, &far.ns, far.v4.into(), 200_000))
        .collect::<Result<Vec<_>>>()?;
    wait::until("all streams run", wait::SOON, || Ok(streams.iter().all(|s| s.received() > 100_000)))?;
    let [a, _] = hops(false);
    host.ip(&format!("route replace {} via {a} dev eth1", Far::NETWORK_V4))?;
    wait::until("nothing comes by the second router any more", wait::SOON, || {
        let before = received_by(&far, 12)?;
        std::thread::sleep(Duration::from_millis(300));
        // Neighbours are still looked for now and then.
        Ok(received_by(&far, 12)? <= before + 3)
    })?;
    streams.iter().try_for_each(|stream| stream.expect_progress(100_000, wait::SOON))?;
    streams.into_iter().try_for_each(|stream| stream.finish(wait::SOON).map(drop))?;
    topology.pass()
}

/// Sends datagrams of this many connections.
fn open_many(pod: &Pod, to: IpAddr, connections: usize) -> Result<()> {
    let from = pod.address_like(to);
    pod.ns.enter(move || {
        for _ in 0..connections {
            UdpSocket::bind((from, 0))?.send_to(&[7; 32], (to, 9))?;
        }
        Ok(())
    })
}

#[test]
fn routers_get_connections_by_the_weights_of_the_kernels_route() -> Result<()> {
    const CONNECTIONS: usize = 600;
    let topology = Topology::build(&Shape::hosts(1))?;
    let site = Site::build(&topology, &[], &[])?;
    let (pod, host) = (site.overlay.pod(0), &topology.hosts[0].ns);
    let far = Far::new()?;
    let _routers = [site.link.router(11, &far)?, site.link.router(12, &far)?];
    let [v4, v6] = far.addresses();
    for (to, network, hops) in [
        (v4, Far::NETWORK_V4, [11, 12].map(|number| address_v4(1, number).to_string())),
        (v6, Far::NETWORK_V6, [11, 12].map(|number| address_v6(1, number).to_string())),
    ] {
        let [a, b] = &hops;
        // The other way round the second time: it is the kernel's number that counts, not the place.
        for weights in [[4, 1], [1, 4]] {
            let [of_a, of_b] = weights;
            host.ip(&format!(
                "route replace {network} nexthop via {a} dev eth1 weight {of_a} nexthop via {b} dev eth1 weight {of_b}"
            ))?;
            wait::until("the weights are known", wait::SOON, || {
                let shown = site.overlay.canal(0).show("gateways")?;
                let networks = shown[0]["networks"].as_array().context("networks")?;
                let behind = networks.iter().find(|net| net["prefix"] == network);
                Ok(behind.is_some_and(|net| {
                    [0, 1].map(|hop| net["next_hops"][hop]["weight"].as_u64()) == weights.map(Some)
                }))
            })?;
            wait_answer(pod, to)?;
            let counted = || -> Result<[u64; 2]> { Ok([received_by(&far, 11)?, received_by(&far, 12)?]) };
            let before = counted()?;
            open_many(pod, to, CONNECTIONS)?;
            let mut grown = [0; 2];
            wait::until("all have come by either router", wait::SOON, || {
                let after = counted()?;
                grown = [after[0] - before[0], after[1] - before[1]];
                Ok(grown.iter().sum::<u64>() >= CONNECTIONS as u64)
            })?;
            // Four in five, within more than five standard deviations.
            let heavier = grown[usize::from(of_b > of_a)] as f64 / grown.iter().sum::<u64>() as f64;
            ensure!((0.7..0.9).contains(&heavier), "{to}, weights {weights:?}: {grown:?}");
        }
    }
    let table = site.overlay.canal(0).show_table("gateways")?;
    ensure!(table.contains("weight 4"), "{table}");
    topology.pass()
}

/// Policy of the host endpoint that stands for `eth1`, by its label.
fn forward_policy(name: &str, order: u32, spec: Value) -> Resource {
    let mut all = json!({"selector": "role == 'edge'", "order": order, "applyOnForward": true});
    for (key, value) in spec.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    Resource::global(Kind::GlobalNetworkPolicy, &format!("default.{name}"), all)
}

fn expect(when: &str, from: &Netns, to: SocketAddr, passes: bool) -> Result<()> {
    let what = format!("{when}: TCP {} -> {to} passes={passes}", from.name());
    wait::until(&what, wait::SOON, || Ok(tcp_connects(from, to)? == passes))?;
    ensure!(tcp_connects(from, to)? == passes, "{what}, but not the second time");
    Ok(())
}

#[test]
fn policy_of_the_interfaces_host_endpoint_judges_both_ways() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let site = Site::build(&topology, &[], &[])?;
    let (etcd, pod, plain) = (&site.overlay.store, site.overlay.pod(0), &site.plain);
    namespace_profile().put(etcd)?;
    let mut services = Vec::new();
    for port in [8080, 9090] {
        services.push(Service::start(&pod.ns, pod.v4.into(), port)?);
        services.push(Service::start(&plain.ns, plain.v4.into(), port)?);
    }
    let (inward, outward) =
        (|port| SocketAddr::new(pod.v4.into(), port), |port| SocketAddr::new(plain.v4.into(), port));
    let host = json!({"node": "node0", "interfaceName": "eth1", "expectedIPs": [], "profiles": []});
    let host = Resource::global(Kind::HostEndpoint, "edge", host).labelled(json!({"role": "edge"}));
    host.put(etcd)?;
    // A host endpoint without policy for what is forwarded lets it pass.
    wait::until("the host endpoint is known", wait::SOON, || {
        Ok(site.overlay.canal(0).show("gateways")?.to_string().contains("\"edge\""))
    })?;
    expect("no policy", &plain.ns, inward(8080), true)?;
    expect("no policy", &pod.ns, outward(8080), true)?;
    let tcp = |port: u16| json!([{"action": "Allow", "protocol": "TCP", "destination": {"ports": [port]}}]);
    let both = json!({"types": ["Ingress", "Egress"], "ingress": tcp(8080), "egress": tcp(9090)});
    forward_policy("edge", 10, both).put(etcd)?;
    expect("policy", &plain.ns, inward(9090), false)?;
    expect("policy", &plain.ns, inward(8080), true)?;
    expect("policy", &pod.ns, outward(8080), false)?;
    expect("policy", &pod.ns, outward(9090), true)?;
    let shown = site.overlay.canal(0).show("policies")?.to_string();
    ensure!(shown.contains("default.edge"), "{shown}");
    site.overlay
        .canal(0)
        .expect_drops(&["gateway_denied_ingress"], 1, || tcp_connects(&plain.ns, inward(9090)).map(drop))?;
    site.overlay
        .canal(0)
        .expect_drops(&["gateway_denied_egress"], 1, || tcp_connects(&pod.ns, outward(8080)).map(drop))?;
    // The host's own services on the interface are not canal's to judge.
    let own = Service::start(&topology.hosts[0].ns, address_v4(1, 1).into(), 9090)?;
    expect("the host itself", &plain.ns, SocketAddr::new(address_v4(1, 1).into(), 9090), true)?;
    drop(own);
    host.delete(etcd)?;
    expect("no host endpoint", &plain.ns, inward(9090), true)?;
    expect("no host endpoint", &pod.ns, outward(8080), true)?;
    topology.pass()
}

#[test]
fn labels_of_a_network_set_stand_for_hosts_behind_a_gateway_and_change_under_traffic() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let site = Site::build(&topology, &[], &[])?;
    let (etcd, pod, plain) = (&site.overlay.store, site.overlay.pod(0), &site.plain);
    namespace_profile().put(etcd)?;
    let to = SocketAddr::new(pod.v4.into(), 8080);
    let _service = Service::start(&pod.ns, pod.v4.into(), 8080)?;
    let set = |nets: Value| {
        Resource::global(Kind::GlobalNetworkSet, "friends", json!({"nets": nets}))
            .labelled(json!({"trust": "yes"}))
    };
    set(json!(["172.16.1.0/24"])).put(etcd)?;
    let friends = json!([{"action": "Allow", "source": {"selector": "trust == 'yes'"}}]);
    let spec = json!({"selector": "all()", "types": ["Ingress"], "ingress": friends});
    Resource::global(Kind::GlobalNetworkPolicy, "default.friends", spec).put(etcd)?;
    wait::until("the policy is enforced", wait::SOON, || {
        Ok(site.overlay.canal(0).show("policies")?.to_string().contains("default.friends"))
    })?;
    expect("a friend", &plain.ns, to, true)?;
    let stream = Transfer::endless(&plain.ns, &pod.ns, pod.v4.into(), 500_000)?;
    stream.expect_progress(100_000, wait::SOON)?;
    set(json!(["172.16.1.77/32"])).put(etcd)?;
    expect("a friend no more", &plain.ns, to, false)?;
    stream.expect_progress(100_000, wait::SOON)?;
    set(json!(["172.16.1.2/32"])).put(etcd)?;
    expect("a friend again", &plain.ns, to, true)?;
    stream.expect_progress(100_000, wait::SOON)?;
    stream.finish(wait::SOON)?;
    topology.pass()
}

#[test]
fn other_nodes_send_to_announced_networks_through_this_one() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(3))?;
    let mut site = Site::build(&topology, &[Role::Kernel, Role::canal()], &["--gateway-announce"])?;
    let leases = |site: &Site<'_>| -> Result<Vec<String>> {
        Ok(site.overlay.store.raw_leases()?.into_iter().map(|(key, _)| key).collect())
    };
    let key = format!("{}-24&{}-64", address_v4(1, 0), address_v6(1, 0));
    wait::until("the network is announced", wait::SOON, || Ok(leases(&site)?.contains(&key)))?;
    // It says of the node what its own lease says.
    let values: Vec<String> = site
        .overlay
        .store
        .raw_leases()?
        .into_iter()
        .filter(|(_, value)| value.contains(&topology.hosts[0].v4.to_string()))
        .map(|(_, value)| value)
        .collect();
    ensure!(values.len() == 2 && values[0] == values[1], "{values:?}");
    site.overlay.sync()?;
    for index in [1, 2] {
        let pod = site.overlay.pod(index);
        site.wait_talking(pod)?;
        exchange(pod, &site.plain, FAR_TTL)?;
    }
    // The nodes themselves, kernel and canal.
    for index in [1, 2] {
        Ping::to(site.plain.v4).expect_all(&topology.hosts[index].ns)?;
    }
    // A clean stop takes it back.
    site.overlay.canal_mut(0).terminate()?;
    ensure!(!leases(&site)?.contains(&key), "{:?}", leases(&site)?);
    ensure!(leases(&site)?.len() == 3, "the node's own lease stays: {:?}", leases(&site)?);
    site.overlay.canal_mut(0).restart()?;
    wait::until("the network is announced again", wait::SOON, || Ok(leases(&site)?.contains(&key)))?;
    // A network that goes is announced no longer.
    topology.hosts[0].ns.ip("addr flush dev eth1")?;
    wait::until("the network is no longer announced", wait::SOON, || Ok(!leases(&site)?.contains(&key)))?;
    topology.pass()
}

#[test]
fn a_network_that_another_node_has_a_lease_of_is_not_announced_and_said_so() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let link = Link::new(&topology, &topology.hosts[0], 1)?;
    let plain = link.host(2)?;
    let etcd = Etcd::start(&topology)?;
    let key = format!("{}-24&{}-64", address_v4(1, 0), address_v6(1, 0));
    let theirs = r#"{"PublicIP":"192.168.77.99","PublicIPv6":"fd77::99","BackendType":"vxlan"}"#;
    etcd.put_lease(&key, theirs)?;
    let options = CanalOptions::with(&["--gateway-iface", "eth1", "--gateway-announce"]);
    let network = Network { dual: true, ..Network::default() };
    etcd.set_net_conf(&flannel::net_conf(true, &network.backend))?;
    let mut canal = Canal::prepare(&topology, 0, &etcd, options)?;
    canal.launch()?;
    wait::until("the daemon says so", wait::SOON, || {
        let (code, text) = canal.status_text()?;
        Ok(code == Some(1) && text.contains("is not announced: the node 192.168.77.99 has a lease of it"))
    })?;
    canal.terminate()?;
    let kept = etcd.raw_leases()?.into_iter().find(|(there, _)| *there == key);
    ensure!(kept.is_some_and(|(_, value)| value == theirs), "another node's lease is left alone");
    drop(plain);
    topology.pass()
}

#[test]
fn peers_that_route_directly_reach_hosts_behind_a_gateway() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let link = Link::new(&topology, &topology.hosts[0], 1)?;
    let plain = link.host(2)?;
    let gateway = Role::Canal(CanalOptions::with(&["--gateway-iface", "eth1", "--gateway-announce"]));
    let network = Network { backend: json!({"Type": "host-gw"}), ..Network::default() };
    let overlay = Overlay::start(&topology, &network, &[gateway, Role::canal()])?;
    let pod = overlay.pod(1);
    // Nothing here is forwarded by the kernel: these hosts are no routers.
    wait_answer(pod, plain.v4.into())?;
    let answers = Ping::to(plain.v4).expect_all(&pod.ns)?;
    ensure!(answers.ttls == [FAR_TTL; 3], "{answers:?}");
    tcp::transfer(&pod.ns, &plain.ns, plain.v4.into(), 16_000_000)?;
    tcp::transfer(&plain.ns, &pod.ns, pod.v4.into(), 16_000_000)?;
    topology.pass()
}
