//! A gateway whose interfaces AF_XDP carries: both, either one of them, and while they change. From a kernel node's pod to a
//! plain host and back, so that packets cross the canal node from one interface to the other.

use anyhow::{Result, ensure};
use netns_tests::behind::{Link, Plain};
use netns_tests::overlay::exchange_one_way;
use netns_tests::traffic::Ping;
use netns_tests::{CanalOptions, Network, Overlay, Role, Shape, Topology, wait};
use std::collections::BTreeMap;

/// Across the pod's node and the gateway.
const TTL: u8 = 62;

struct Site<'t> {
    overlay: Overlay<'t>,
    link: Link,
    plain: Plain,
}

impl<'t> Site<'t> {
    fn build(topology: &'t Topology, port: &str, workers: usize) -> Result<Self> {
        let link = Link::new(topology, &topology.hosts[0], 1)?;
        let plain = link.host(2)?;
        let options =
            CanalOptions { port: port.into(), workers, ..CanalOptions::with(&["--gateway-iface", "eth1"]) };
        let roles = [Role::Canal(options), Role::Kernel];
        let overlay = Overlay::start(topology, &Network::default(), &roles)?;
        // What a lease for the network behind the gateway would have flannel do.
        let base = overlay.subnets(0)?.v4;
        overlay.host(1).ns.ip(&format!("route add 172.16.1.0/24 via {base} dev flannel.1 onlink"))?;
        let site = Self { overlay, link, plain };
        site.wait_talking()?;
        Ok(site)
    }

    fn wait_talking(&self) -> Result<()> {
        wait::until("the plain host reaches the pod", wait::SOON, || {
            Ping::to(self.overlay.pod(1).v4).count(1).expect_all(&self.plain.ns).map(|_| true)
        })
    }

    fn exchange(&self) -> Result<()> {
        let pod = self.overlay.pod(1);
        // Whoever has more room on his link than there is on the way has to find out: what finds out is lost.
        Ping::to(pod.v4).packet_size(1500).dont_fragment().run(&self.plain.ns)?;
        exchange_one_way(&self.plain.ns, &pod.ns, pod.v4.into(), TTL)?;
        exchange_one_way(&pod.ns, &self.plain.ns, self.plain.v4.into(), TTL)
    }

    /// Frames received and sent by the sockets of each interface.
    fn sockets(&self) -> Result<BTreeMap<String, (u64, u64)>> {
        let ports = self.overlay.canal(0).show("ports")?;
        let mut counted = BTreeMap::<String, (u64, u64)>::new();
        for port in ports.as_array().into_iter().flatten().filter(|port| port["kind"] == "af-xdp") {
            ensure!(port["tx_errors"] == 0 && port["rx_dropped"] == 0, "{port}");
            let (received, sent) =
                counted.entry(port["name"].as_str().unwrap_or_default().into()).or_default();
            *received += port["rx_frames"].as_u64().unwrap_or(0);
            *sent += port["tx_frames"].as_u64().unwrap_or(0);
        }
        Ok(counted)
    }

    fn used(&self, interfaces: &[&str]) -> Result<()> {
        let counted = self.sockets()?;
        ensure!(counted.keys().eq(interfaces), "{counted:?}, not {interfaces:?}");
        for (received, sent) in counted.values() {
            ensure!(*received > 1000 && *sent > 1000, "they carry it: {counted:?}");
        }
        Ok(())
    }
}

fn through(port: &str, workers: usize, interfaces: &[&str]) -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let site = Site::build(&topology, port, workers)?;
    site.exchange()?;
    site.used(interfaces)?;
    topology.pass()
}

#[test]
fn both_interfaces_by_af_xdp() -> Result<()> {
    through("af-xdp", 1, &["eth0", "eth1"])
}

#[test]
fn the_gateway_by_af_xdp_the_underlay_by_tap() -> Result<()> {
    through("eth0=tap,eth1=af-xdp", 1, &["eth1"])
}

#[test]
fn the_gateway_by_af_xdp_the_underlay_by_sockets() -> Result<()> {
    through("udp,eth1=af-xdp", 1, &["eth1"])
}

#[test]
fn the_underlay_by_af_xdp_the_gateway_by_tap() -> Result<()> {
    through("eth0=af-xdp,eth1=tap", 1, &["eth0"])
}

/// The memory is made again for larger frames, and each interface keeps what it can carry.
#[test]
fn interfaces_of_different_mtus_that_go_and_come_back() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let site = Site::build(&topology, "af-xdp", 1)?;
    let host = &topology.hosts[0];
    site.exchange()?;
    host.ns.ip("link set eth1 mtu 3000")?;
    wait::until("both are taken over again", wait::SOON, || {
        Ok(site.sockets()?.values().all(|(received, _)| *received < 1000) && site.sockets()?.len() == 2)
    })?;
    site.wait_talking()?;
    site.exchange()?;
    site.used(&["eth0", "eth1"])?;
    site.link.unplug()?;
    wait::until("the gateway's sockets are gone", wait::SOON, || Ok(site.sockets()?.len() == 1))?;
    Ping::to(site.overlay.pod(1).v4).expect_all(&site.overlay.pod(0).ns)?;
    site.link.plug(host)?;
    site.wait_talking()?;
    wait::until("they are back", wait::SOON, || Ok(site.sockets()?.len() == 2))?;
    site.exchange()?;
    site.used(&["eth0", "eth1"])?;
    topology.pass()
}
