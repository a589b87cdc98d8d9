//! One switch, any number of hosts: the wiring on which every test stands.
//!
//! ```text
//!   host 0 ── eth0 ══ h0 ┐                     ┌ h2 ══ eth0 ── host 2
//!                        ├─ br0 ─ (routed) ─ br1 ┤
//!   host 1 ── eth0 ══ h1 ┘  segment 0  segment 1 └ …
//! ```
//! The switch namespace has an address in each segment, routes between them, and is where etcd listens.

use crate::cmd::Background;
use crate::evidence::Evidence;
use crate::netns::Netns;
use crate::plan;
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

/// Offloads that make a veth peer hand over unfinished checksums and super-frames.
const OFFLOADS: [&str; 6] = ["tx", "rx", "tso", "gso", "gro", "tx-udp-segmentation"];

/// What a topology looks like, before it is built.
#[derive(Clone, Debug)]
pub struct Shape {
    segments: Vec<u8>,
    mtu: [u16; 2],
    offloads: bool,
    captures: bool,
    queues: u8,
}

impl Shape {
    /// `n` hosts in one segment of 1500 bytes, offloads on.
    pub fn hosts(n: usize) -> Self {
        Self { segments: vec![0; n], mtu: [plan::UNDERLAY_MTU; 2], offloads: true, captures: true, queues: 1 }
    }

    /// Turns the offloads of every veth (underlay and pods) on or off: off gives finished checksums and MTU-sized frames.
    pub fn offloads(mut self, on: bool) -> Self {
        self.offloads = on;
        self
    }

    /// Records no packets: for the tests of millions of them.
    pub fn without_captures(mut self) -> Self {
        self.captures = false;
        self
    }

    /// Gives each end of the hosts' links so many queues, in both directions.
    pub fn queues(mut self, count: u8) -> Self {
        self.queues = count;
        self
    }

    /// Puts host `index` into the second segment, behind the router.
    pub fn behind_router(mut self, index: usize) -> Self {
        self.segments[index] = 1;
        self
    }

    /// MTU of the router's link into the second segment; the hosts themselves keep 1500 and have to find out.
    pub fn router_mtu(mut self, mtu: u16) -> Self {
        self.mtu[1] = mtu;
        self
    }
}

/// One host of the topology: a namespace with `eth0`, addresses of both families and a default route.
#[derive(Debug)]
pub struct Host {
    /// Position in the topology.
    pub index: u8,
    segment: u8,
    queues: u8,
    /// Its namespace.
    pub ns: Netns,
    /// Underlay IPv4 address.
    pub v4: Ipv4Addr,
    /// Underlay IPv6 address.
    pub v6: Ipv6Addr,
}

impl Host {
    /// The node name canal and the workload endpoints use.
    pub fn node(&self) -> String {
        format!("node{}", self.index)
    }

    /// The other end of its `eth0`, in the switch.
    pub fn port(&self) -> String {
        format!("h{}", self.index)
    }

    /// MAC address of `eth0`.
    pub fn mac(&self) -> String {
        format!("02:00:0a:00:00:{:02x}", 10 + self.index)
    }
}

/// The built laboratory. Dropped last, it removes everything.
#[derive(Debug)]
pub struct Topology {
    /// `None`: nothing is recorded.
    captures: Option<Mutex<Vec<Background>>>,
    /// The hosts, in order.
    pub hosts: Vec<Host>,
    /// The switch and router, where etcd lives.
    pub switch: Netns,
    /// Whether veths offload.
    pub offloads: bool,
    /// Where this test writes.
    pub evidence: Arc<Evidence>,
}

impl Topology {
    /// Builds `shape`.
    pub fn build(shape: &Shape) -> Result<Self> {
        let evidence = Arc::new(Evidence::new()?);
        let switch = Netns::new("switch")?;
        prepare(&switch)?;
        forwarding(&switch)?;
        for segment in 0..2 {
            segment_up(&switch, segment)?;
        }
        let wanted = shape.captures && std::env::var("NETNS_CAPTURE").as_deref() != Ok("0");
        let mut topology = Self {
            captures: wanted.then(Mutex::default),
            hosts: Vec::new(),
            switch,
            offloads: shape.offloads,
            evidence,
        };
        for (index, segment) in shape.segments.iter().enumerate() {
            topology.add_host(u8::try_from(index)?, *segment, shape.queues)?;
        }
        // The bridge takes the least MTU of its ports by itself; a smaller one set by hand stays.
        topology.switch.ip(&format!("link set br1 mtu {}", shape.mtu[1]))?;
        Ok(topology)
    }

    fn add_host(&mut self, index: u8, segment: u8, queues: u8) -> Result<()> {
        let ns = Netns::new(&format!("host{index}"))?;
        prepare(&ns)?;
        let (v4, v6) = (plan::host_v4(segment, index), plan::host_v6(segment, index));
        let host = Host { index, segment, queues, ns, v4, v6 };
        self.connect(&host)?;
        self.capture(&self.switch, &host.port())?;
        self.hosts.push(host);
        Ok(())
    }

    /// Gives `host` its `eth0`: at first, and anew after it was deleted.
    pub fn connect(&self, host: &Host) -> Result<()> {
        let Host { segment, v4, v6, .. } = *host;
        let (port, queues) = (host.port(), format!("numtxqueues {0} numrxqueues {0}", host.queues));
        self.switch.ip(&format!(
            "link add {port} {queues} type veth peer name eth0 address {} {queues} netns {}",
            host.mac(),
            host.ns.name()
        ))?;
        self.switch.ip(&format!("link set {port} master br{segment} up"))?;
        host.ns.ip(&format!("addr add {v4}/24 dev eth0"))?;
        host.ns.ip(&format!("addr add {v6}/64 dev eth0 nodad"))?;
        host.ns.ip("link set eth0 up")?;
        host.ns.ip(&format!("route add default via {}", plan::switch_v4(segment)))?;
        host.ns.ip(&format!("-6 route add default via {}", plan::switch_v6(segment)))?;
        if !self.offloads {
            offloads_off(&host.ns, "eth0")?;
            offloads_off(&self.switch, &port)?;
        }
        Ok(())
    }

    /// Records `interface` of `ns` into the evidence, in a bounded ring of files. `NETNS_CAPTURE=0` turns captures off.
    pub fn capture(&self, ns: &Netns, interface: &str) -> Result<()> {
        let Some(captures) = &self.captures else { return Ok(()) };
        let dir = self.evidence.dir("pcap")?;
        let role = ns.name().rsplit('-').next().unwrap_or("ns");
        let file = dir.join(format!("{role}-{interface}.pcap"));
        let mut command = ns.command("tcpdump");
        // 2 files of 4 MB, 256 bytes of each frame: enough for the headers of the last few thousand super-frames.
        command.args(["-i", interface, "-n", "-U", "-s", "256", "-C", "4", "-W", "2", "-Z", "root", "-w"]);
        command.arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let capture = Background::start("tcpdump", &mut command)?;
        captures.lock().map_err(|_| anyhow::anyhow!("captures poisoned"))?.push(capture);
        Ok(())
    }

    /// The test has passed: nothing is kept.
    pub fn pass(&self) -> Result<()> {
        self.evidence.pass();
        Ok(())
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        if self.evidence.passed() {
            return;
        }
        for ns in self.hosts.iter().map(|h| &h.ns).chain([&self.switch]) {
            let mut text = String::new();
            for words in
                ["-d link", "addr", "route show table all", "-6 route show table all", "neigh", "-s link"]
            {
                text.push_str(&format!(
                    "== ip {words}\n{}\n",
                    ns.ip(words).unwrap_or_else(|e| format!("{e:#}"))
                ));
            }
            text.push_str(&ns.run(&["bridge", "fdb"]).unwrap_or_default());
            self.evidence.note(&format!("{}.net", ns.name()), &text);
        }
        // Captures write packet by packet; let them see the last one.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// Settings every namespace of the laboratory shares: no address detection delays, no surprises from routers.
pub fn prepare(ns: &Netns) -> Result<()> {
    for which in ["all", "default"] {
        ns.sysctl(&format!("net.ipv6.conf.{which}.accept_dad"), "0")?;
        ns.sysctl(&format!("net.ipv6.conf.{which}.accept_ra"), "0")?;
        ns.sysctl(&format!("net.ipv4.conf.{which}.rp_filter"), "0")?;
    }
    Ok(())
}

/// Makes `ns` a router of both families.
pub fn forwarding(ns: &Netns) -> Result<()> {
    ns.sysctl("net.ipv4.ip_forward", "1")?;
    ns.sysctl("net.ipv6.conf.all.forwarding", "1")
}

/// Turns off what makes a veth emit unfinished checksums and super-frames.
pub fn offloads_off(ns: &Netns, interface: &str) -> Result<()> {
    let mut argv = vec!["ethtool", "-K", interface];
    for feature in OFFLOADS {
        argv.extend([feature, "off"]);
    }
    ns.run(&argv).map(drop).context("turning offloads off")
}

fn segment_up(switch: &Netns, segment: u8) -> Result<()> {
    let bridge = format!("br{segment}");
    switch.ip(&format!("link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"))?;
    switch.ip(&format!("addr add {}/24 dev {bridge}", plan::switch_v4(segment)))?;
    switch.ip(&format!("addr add {}/64 dev {bridge} nodad", plan::switch_v6(segment)))?;
    switch.ip(&format!("link set {bridge} up"))?;
    Ok(())
}
