//! Where hosts stand: one with a kernel VXLAN peer behind a router, or two of ours, wire to wire.

use std::net::IpAddr;

use super::overlay::Overlay;
use super::site::{Host, MTU};
use super::{Namespace, veth, veth_with_queues};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// host — router — peer with a kernel VXLAN device; one layer-2 network over all.
pub struct Site {
    pub site: Host,
    pub router: Namespace,
    pub peer: Namespace,
}

impl Site {
    pub fn new(v6: bool, outer_checksum: bool) -> Self {
        Self::build(v6, outer_checksum, 1)
    }

    /// Over IPv4, with so many queues at each end of the links.
    pub fn with_queues(queues: u8) -> Self {
        Self::build(false, false, queues)
    }

    fn build(v6: bool, outer_checksum: bool, queues: u8) -> Self {
        let (left, right, length) =
            if v6 { ("2001:db8:1::", "2001:db8:2::", 64) } else { ("192.0.2.", "198.51.100.", 24) };
        let (local, remote) = (format!("{left}1"), format!("{right}1"));
        let overlay =
            Overlay { local: address(&local), remote: address(&remote), port: 8472, vni: 7, outer_checksum };
        let site = Host::new(overlay, 1);
        let [router, peer] = ["router", "peer"].map(Namespace::new);
        veth_with_queues(&site.host, "eth0", &router, "left", queues);
        veth_with_queues(&peer, "eth0", &router, "right", queues);
        for (namespace, device, net, last) in [
            (&site.host, "eth0", left, 1),
            (&router, "left", left, 9),
            (&router, "right", right, 9),
            (&peer, "eth0", right, 1),
        ] {
            let nodad = if v6 { "nodad" } else { "" };
            namespace.ip(&format!("addr add {net}{last}/{length} dev {device} {nodad}"));
        }
        site.host.ip(&format!("route add default via {left}9"));
        peer.ip(&format!("route add default via {right}9"));
        router.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        peer.ip(&format!(
            "link add vx0 type vxlan id 7 dstport 8472 local {remote} remote {local} nolearning udp6zerocsumrx"
        ));
        peer.ip(&format!("link set vx0 mtu {MTU} up"));
        peer.ip("addr add 10.9.0.2/24 dev vx0");
        Self { site, router, peer }
    }
}

/// Two hosts with canal, 10.9.0.1 and 10.9.0.2 behind them.
pub fn two_hosts() -> (Host, Host) {
    let (left, right) = (address("192.0.2.1"), address("192.0.2.2"));
    let overlay = Overlay { local: left, remote: right, port: 4789, vni: 9, outer_checksum: false };
    let reverse = Overlay { local: right, remote: left, ..overlay };
    let (one, two) = (Host::new(overlay, 1), Host::new(reverse, 2));
    veth(&one.host, "eth0", &two.host, "eth0");
    one.host.ip("addr add 192.0.2.1/24 dev eth0");
    two.host.ip("addr add 192.0.2.2/24 dev eth0");
    (one, two)
}
