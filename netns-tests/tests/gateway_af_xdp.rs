//! A gateway whose interfaces AF_XDP carries: both, either one of them, each in its own mode, while they change, while one
//! of them is flooded, and where what comes in segments is merged. From a kernel node's pod to a plain host and back, so that packets cross the canal node from one
//! interface to the other.

use anyhow::{Context, Result, ensure};
use netns_tests::behind::{Link, Plain, address_v4};
use netns_tests::frames::{self, mac};
use netns_tests::overlay::exchange_one_way;
use netns_tests::topology::Host;
use netns_tests::traffic::{Flood, Ping, tcp};
use netns_tests::{Canal, CanalOptions, Netns, Network, Overlay, Role, Shape, Topology, attached, wait};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};

/// Across the pod's node and the gateway.
const TTL: u8 = 62;

/// Who floods: more than one worker can keep up with on any machine that runs this test.
const SENDERS: u16 = 3;
/// The port that is flooded.
const PORT: u16 = 9000;
/// Frames that its sockets have no room for before a gateway interface counts as flooded.
const MANY: u64 = 10_000;
/// Questions that pass beside the flood, and how many of them may be lost.
const QUESTIONS: u32 = 100;
const FEW: u32 = 1;

struct Site<'t> {
    overlay: Overlay<'t>,
    link: Link,
    plain: Plain,
}

impl<'t> Site<'t> {
    fn build(topology: &'t Topology, port: &str, workers: usize) -> Result<Self> {
        Self::behind(topology, Link::new(topology, &topology.hosts[0], 1)?, port, workers)
    }

    fn behind(topology: &'t Topology, link: Link, port: &str, workers: usize) -> Result<Self> {
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
        let mut counted = BTreeMap::<String, (u64, u64)>::new();
        for port in self.overlay.canal(0).xdp_ports()? {
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

/// Each of these takes the kernel some milliseconds, and packets pass before the last two.
#[test]
fn what_packets_need_is_attached_before_af_xdp() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let mut site = Site::build(&topology, "af-xdp", 1)?;
    // The pod and the gateway are known this time when it starts.
    site.overlay.canal_mut(0).terminate()?;
    site.overlay.canal_mut(0).restart()?;
    let canal = site.overlay.canal(0);
    let links = attached::links(canal.pid().context("it runs")?)?;
    // Of the device, the underlay, the workload and the gateway; of the underlay and the gateway.
    ensure!(links == ["tcx", "tcx", "tcx", "tcx", "xdp", "xdp"], "{links:?}");
    topology.pass()
}

/// Reading and parsing the types of the kernel takes as long as all else that a start has to do.
#[test]
fn the_types_of_the_kernel_are_read_once() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let site = Site::build(&topology, "af-xdp", 1)?;
    let pid = site.overlay.canal(0).pid().context("it runs")?;
    let io = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let read: u64 = io.lines().find_map(|line| line.strip_prefix("rchar: ")).context("rchar")?.parse()?;
    let types = std::fs::metadata("/sys/kernel/btf/vmlinux")?.len();
    ensure!(read < 2 * types, "{read} bytes were read, and the types are {types}");
    topology.pass()
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

/// Puts an interface whose driver knows no XDP in the place of the host's one on `link`.
fn without_native(host: &Host, link: &Link) -> Result<()> {
    let (name, wire) = (&link.interface, "wire1");
    for words in [
        format!("link set {name} down"),
        format!("link set {name} name {wire}"),
        format!("addr flush dev {wire}"),
        format!("link set {wire} up"),
        format!("link add link {wire} name {name} type macvlan mode passthru"),
        format!("link set {name} up"),
        format!("addr add {}/24 dev {name}", address_v4(1, 1)),
    ] {
        host.ns.ip(&words)?;
    }
    Ok(())
}

/// Super-frames of a sender on this machine do not fit where no driver cuts them; a NIC's frames all fit.
#[test]
fn the_underlay_in_native_mode_and_the_gateway_in_generic_mode() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2).offloads(false))?;
    let link = Link::new(&topology, &topology.hosts[0], 1)?;
    without_native(&topology.hosts[0], &link)?;
    let site = Site::behind(&topology, link, "af-xdp", 1)?;
    site.exchange()?;
    site.used(&["eth0", "eth1"])?;
    let modes: BTreeMap<_, _> = site
        .overlay
        .canal(0)
        .xdp_ports()?
        .iter()
        .map(|port| (port["name"].to_string(), port["xdp"]["mode"].to_string()))
        .collect();
    let expected = [("eth0", "native"), ("eth1", "generic")];
    let expected = expected.map(|(name, mode)| (format!("\"{name}\""), format!("\"{mode}\"")));
    ensure!(modes == expected.into(), "{modes:?}");
    topology.pass()
}

#[test]
fn a_trickle_by_one_gateway_passes_beside_a_flood_by_another() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1).without_captures())?;
    let host = &topology.hosts[0];
    let (loud, quiet) = (Link::new(&topology, host, 1)?, Link::new(&topology, host, 2)?);
    let (flooder, asker) = (loud.host(2)?, quiet.host(2)?);
    let words = ["--gateway-iface", "eth1", "--gateway-iface", "eth2"];
    let options = CanalOptions { port: "af-xdp".into(), workers: 1, ..CanalOptions::with(&words) };
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::Canal(options)])?;
    let (canal, pod) = (overlay.canal(0), overlay.pod(0));
    for plain in [&flooder, &asker] {
        wait::until("the pod answers", wait::SOON, || {
            Ping::to(pod.v4).count(1).expect_all(&plain.ns).map(|_| true)
        })?;
    }
    // Somebody listens, so that no ICMP errors come back.
    let address = pod.v4;
    let _listener = pod.ns.enter(move || Ok(UdpSocket::bind((address, PORT))?))?;
    let lost = |interface: &str| -> Result<u64> {
        let of = canal.xdp_ports()?.into_iter().filter(|port| port["name"] == interface);
        of.map(|port| port["rx_dropped"].as_u64().context("no count")).sum()
    };
    let ethernet = frames::Link { from: mac("02:00:0b:00:01:02"), to: mac("02:00:0b:00:01:01") };
    let frame =
        |n| frames::udp(ethernet, (flooder.v4.into(), 10_000 + n), (pod.v4.into(), PORT), 64, &[7; 22]);
    let flood = Flood::start(&flooder.ns, "eth0", (0..SENDERS).map(frame).collect())?;
    wait::until("more than the worker can take", wait::SOON, || Ok(lost("eth1")? >= MANY))?;
    let (before, answers) = (lost("eth1")?, Ping::to(pod.v4).count(QUESTIONS).run(&asker.ns)?);
    ensure!(lost("eth1")? >= before + MANY, "the flood goes on");
    let sent = flood.finish()?;
    ensure!(lost("eth2")? == 0, "{:?}", canal.xdp_ports()?);
    ensure!(answers.received + FEW >= QUESTIONS, "beside {sent} frames: {answers:?}");
    topology.pass()
}

/// Bytes of a transfer, and segments that fill the wire for them, at the least.
const BYTES: u64 = 16_000_000;
const SEGMENTS: u64 = BYTES / 1460;
/// Segments, on average, that are one packet where they are merged: a worker that keeps up has few at a time.
const MERGED: u64 = 4;

/// Packets that the gateway interface's sockets have received, that the worker has handled, and that the TAP device was given.
#[derive(Clone, Copy, Debug)]
struct Counted {
    segments: u64,
    handled: u64,
    written: u64,
}

impl Counted {
    fn now(canal: &Canal<'_>) -> Result<Self> {
        let (ports, workers) = (canal.show("ports")?, canal.show("workers")?);
        let sum = |list: &Value, key: &str, value: Value, field: &str| -> Result<u64> {
            let all = list.as_array().context("no list")?.iter().filter(|one| one[key] == value);
            all.map(|one| one[field].as_u64().with_context(|| format!("no {field}"))).sum()
        };
        Ok(Self {
            segments: sum(&ports, "name", "eth1".into(), "rx_frames")?,
            handled: sum(&workers, "worker", 0.into(), "received")?,
            written: sum(&ports, "kind", "tap".into(), "tx_frames")?,
        })
    }

    /// Of a transfer from a plain host.
    fn during(canal: &Canal<'_>, plain: &Plain, server: &Netns, to: IpAddr) -> Result<Self> {
        let before = Self::now(canal)?;
        tcp::transfer(&plain.ns, server, to, BYTES)?;
        let after = Self::now(canal)?;
        let counted = Self {
            segments: after.segments - before.segments,
            handled: after.handled - before.handled,
            written: after.written - before.written,
        };
        ensure!(counted.segments >= SEGMENTS, "they came by the sockets, one by one: {counted:?}");
        Ok(counted)
    }
}

fn merged_for_a_pod_of_the_node(shape: &Shape) -> Result<()> {
    let topology = Topology::build(shape)?;
    let link = Link::new(&topology, &topology.hosts[0], 1)?;
    let plain = link.host(2)?;
    let words = ["--gateway-iface", "eth1"];
    let options = CanalOptions { port: "af-xdp".into(), workers: 1, ..CanalOptions::with(&words) };
    let network = Network { dual: true, ..Network::default() };
    let overlay = Overlay::start(&topology, &network, &[Role::Canal(options)])?;
    let pod = overlay.pod(0);
    for to in pod.addresses() {
        wait::until("the pod answers", wait::SOON, || {
            Ping::to(to).count(1).expect_all(&plain.ns).map(|_| true)
        })?;
        let counted = Counted::during(overlay.canal(0), &plain, &pod.ns, to)?;
        ensure!(counted.written * MERGED <= counted.segments, "{to}: {counted:?}");
    }
    topology.pass()
}

#[test]
fn segments_for_a_pod_of_the_node_are_merged() -> Result<()> {
    merged_for_a_pod_of_the_node(&Shape::hosts(1))
}

#[test]
fn segments_for_a_pod_of_the_node_are_merged_without_offloads() -> Result<()> {
    merged_for_a_pod_of_the_node(&Shape::hosts(1).offloads(false))
}

/// Where another interface's sockets would have to cut them again they are not.
#[test]
fn segments_for_the_overlay_are_merged_for_a_port_that_takes_super_frames() -> Result<()> {
    for (port, merges) in [("af-xdp", false), ("eth0=tap,eth1=af-xdp", true)] {
        let topology = Topology::build(&Shape::hosts(2).offloads(false))?;
        let site = Site::build(&topology, port, 1)?;
        let (canal, pod) = (site.overlay.canal(0), site.overlay.pod(1));
        let counted = Counted::during(canal, &site.plain, &pod.ns, pod.v4.into())?;
        // Answers are handled, too.
        let as_they_came = counted.handled >= counted.segments;
        ensure!(as_they_came != merges, "{port}: {counted:?}");
        topology.pass()?;
    }
    Ok(())
}
