//! Pods and their own node: who talks to whom on one host, and pods that come and go while the daemon runs.

use anyhow::{Context, Result, ensure};
use netns_tests::overlay::{wait_reachable, wait_unreachable};
use netns_tests::traffic::{Ping, tcp};
use netns_tests::{Netns, Network, Overlay, Pod, Role, Shape, Store, Topology, attached, plan, pod, wait};
use std::net::IpAddr;

/// TCP both ways between a pod and a host that is known by `address`.
fn tcp_with_host(pod: &Pod, host: &Netns, address: IpAddr) -> Result<()> {
    tcp::transfer(&pod.ns, host, address, 8_000_000)?;
    tcp::transfer(host, &pod.ns, pod.address_like(address), 8_000_000)
}

#[test]
fn pods_of_one_host_talk() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let network = Network { dual: true, ..Network::default() };
    let overlay = Overlay::start(&topology, &network, &[Role::canal()])?;
    let other = overlay.another_pod(0, 3)?;
    // One router between them.
    overlay.exchange(overlay.pod(0), &other, 63)?;
    topology.pass()
}

#[test]
fn pods_of_one_host_talk_without_offloads() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1).offloads(false))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal()])?;
    let other = overlay.another_pod(0, 3)?;
    overlay.exchange(overlay.pod(0), &other, 63)?;
    topology.pass()
}

#[test]
fn a_pod_and_its_own_host_talk_by_the_overlay_address() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let network = Network { dual: true, ..Network::default() };
    let overlay = Overlay::start(&topology, &network, &[Role::canal()])?;
    let (pod, host) = (overlay.pod(0), &overlay.host(0).ns);
    for base in overlay.subnets(0)?.bases() {
        Ping::to(base).expect_all(&pod.ns)?;
        Ping::to(pod.address_like(base)).from(base).expect_all(host)?;
        tcp_with_host(pod, host, base)?;
    }
    topology.pass()
}

#[test]
fn a_pod_and_its_own_host_talk_by_the_node_address() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal()])?;
    let (pod, host) = (overlay.pod(0), overlay.host(0));
    Ping::to(host.v4).expect_all(&pod.ns)?;
    Ping::to(pod.v4).from(host.v4).expect_all(&host.ns)?;
    tcp_with_host(pod, &host.ns, host.v4.into())?;
    topology.pass()
}

#[test]
fn a_remote_kernel_host_and_a_pod_talk() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let network = Network { dual: true, ..Network::default() };
    let overlay = Overlay::start(&topology, &network, &[Role::canal(), Role::Kernel])?;
    for base in overlay.subnets(1)?.bases() {
        Ping::to(base).expect_all(&overlay.pod(0).ns)?;
        tcp_with_host(overlay.pod(0), &overlay.host(1).ns, base)?;
    }
    topology.pass()
}

#[test]
fn a_canal_host_and_remote_pods_talk() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(3))?;
    let roles = [Role::canal(), Role::canal(), Role::Kernel];
    let overlay = Overlay::start(&topology, &Network::default(), &roles)?;
    let base = overlay.subnets(0)?.v4;
    for remote in [1, 2] {
        let pod = overlay.pod(remote);
        Ping::to(pod.v4).expect_all(&overlay.host(0).ns)?;
        Ping::to(base).expect_all(&pod.ns)?;
        tcp_with_host(pod, &overlay.host(0).ns, base.into())?;
    }
    topology.pass()
}

#[test]
fn the_gateway_is_the_daemons_own() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let network = Network { dual: true, ..Network::default() };
    let overlay = Overlay::start(&topology, &network, &[Role::canal()])?;
    let pod = overlay.pod(0);
    let host = &overlay.host(0).ns;
    Ping::to(overlay.subnets(0)?.v4).expect_all(&pod.ns)?;
    let neighbours = pod.ns.ip("neigh show dev eth0")?;
    ensure!(
        neighbours.contains(&format!("{} lladdr {}", plan::GATEWAY_V4, plan::GATEWAY_MAC)),
        "the pod learnt the gateway's MAC: {neighbours}"
    );
    let addresses = host.ip("addr show")?;
    ensure!(!addresses.contains("169.254.1.1"), "no gateway address on the host: {addresses}");
    ensure!(host.run(&["sysctl", "-n", "net.ipv4.ip_forward"])?.trim() == "0", "forwarding stays off");
    topology.pass()
}

/// Puts a bridge between a pod and its host-side interface, as in front of a virtual machine: whoever is behind it takes
/// only what is addressed to it.
fn put_behind_bridge(host: &Netns, pod: &Pod) -> Result<()> {
    let name = &pod.interface;
    host.ip(&format!("link set {name} down"))?;
    // A bridge keeps what is addressed to one of its ports, and the gateway's address was this one's.
    host.ip(&format!("link set {name} name far address 02:bb:00:00:00:fe"))?;
    host.ip(&format!(
        "link add {name} address {} mtu 1430 type veth peer name near mtu 1430",
        plan::GATEWAY_MAC
    ))?;
    host.ip("link add between type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
    for port in ["near", "far"] {
        host.ip(&format!("link set {port} master between up"))?;
    }
    host.ip("link set between up")?;
    host.ip(&format!("link set {name} up")).map(drop)
}

#[test]
fn a_pod_whose_document_says_no_mac_takes_tcp_also_after_it_has_changed_its_mac() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let network = Network { dual: true, ..Network::default() };
    let overlay = Overlay::start(&topology, &network, &[Role::canal(), Role::Kernel])?;
    let (local, remote, host) = (overlay.pod(0), overlay.pod(1), &overlay.host(0).ns);
    for (number, bridged) in [(5, false), (6, true)] {
        let pod = Pod::new(&topology, overlay.host(0), overlay.subnets(0)?, number, overlay.pod_mtu)?;
        if bridged {
            put_behind_bridge(host, &pod)?;
        }
        let mut document = pod.endpoint();
        document["spec"].as_object_mut().expect("an object").remove("mac");
        overlay.store.put_workload(pod::NAMESPACE, &pod.endpoint_name(), &document)?;
        overlay.canal(0).wait_endpoint(&pod.interface, true)?;
        let shown = overlay.canal(0).show("endpoints")?.to_string();
        ensure!(!shown.contains(&pod.mac), "nobody knows it: {shown}");

        let everybody = |mac: &str| {
            // A virtual machine that says nothing is not found; one word of its own is enough.
            wait_reachable(&pod, local.v4.into()).with_context(|| format!("as {mac}"))?;
            overlay.exchange(remote, &pod, 62)?;
            overlay.exchange(local, &pod, 63)?;
            tcp_with_host(&pod, host, overlay.subnets(0)?.v4.into())
        };
        everybody(&pod.mac)?;
        let other = format!("02:bb:00:00:ff:{number:02x}");
        pod.ns.ip(&format!("link set eth0 address {other}"))?;
        if !bridged {
            // In another namespace's end of a veth nobody asks for the address: not even a word is needed.
            tcp::transfer(&remote.ns, &pod.ns, pod.v4.into(), 1_000_000)?;
        }
        everybody(&other)?;
    }
    topology.pass()
}

#[test]
fn pods_attach_and_detach_while_traffic_flows() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::Kernel])?;
    let (pod, remote, host) = (overlay.pod(0), overlay.pod(1), &overlay.host(0).ns);
    let stream = tcp::Transfer::endless(&pod.ns, &remote.ns, remote.v4.into(), 10_000_000)?;
    for round in 0..3 {
        let other = overlay.another_pod(0, 10 + round)?;
        wait_reachable(&other, remote.v4.into())?;
        overlay.canal(0).wait_endpoint(&other.interface, true)?;
        ensure!(attached::programs(host)?.keys().any(|k| k.starts_with(&other.interface)), "steered");

        other.detach(&overlay.store)?;
        overlay.canal(0).wait_endpoint(&other.interface, false)?;
        wait_unreachable(remote, other.v4.into())?;
        // Steering is let go after the tables have forgotten the pod.
        wait::until("nothing is left attached", wait::SOON, || {
            let programs = attached::programs(host)?;
            ensure!(!programs.keys().any(|k| k.starts_with(&other.interface)), "{programs:?}");
            Ok(true)
        })?;
        stream.expect_progress(1_000_000, wait::SOON)?;
    }
    stream.finish(wait::SOON)?;
    topology.pass()
}

#[test]
fn an_endpoint_that_is_written_before_its_veth_exists_attaches_when_it_appears() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal()])?;
    let subnets = overlay.subnets(0)?;
    // The same number, hence the same name of the veth: the first pod goes, its endpoint stays, the second one comes.
    let first = Pod::new(&topology, overlay.host(0), subnets, 7, overlay.pod_mtu)?;
    first.attach(&overlay.store)?;
    wait_reachable(&first, overlay.pod(0).v4.into())?;
    // A namespace goes in the background; its veth must be gone before another one can have its name.
    overlay.host(0).ns.ip(&format!("link del {}", first.interface))?;
    let second = Pod::new(&topology, overlay.host(0), subnets, 7, overlay.pod_mtu)?;
    wait_reachable(&second, overlay.pod(0).v4.into())?;
    topology.pass()
}

#[test]
fn an_unknown_interface_reaches_nobody() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::Kernel])?;
    let unknown = Pod::new(&topology, overlay.host(0), overlay.subnets(0)?, 9, overlay.pod_mtu)?;
    // Even with the gateway's MAC known to it.
    unknown.ns.ip(&format!("neigh add {} lladdr {} dev eth0", plan::GATEWAY_V4, plan::GATEWAY_MAC))?;
    for to in [overlay.pod(0).v4, overlay.pod(1).v4, overlay.subnets(0)?.v4] {
        Ping::to(to).expect_none(&unknown.ns)?;
    }
    topology.pass()
}
