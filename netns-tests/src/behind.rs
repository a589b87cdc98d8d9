//! What is behind a gateway interface: a link with plain hosts on it, that know nothing of the overlay but their router.
//!
//! ```text
//!                                   ┌ eth0 ── host 2 (a router, maybe)
//!   canal host ── eth1 ══ p1 ─ lan ─┤
//!                                   └ eth0 ── host 3
//! ```

use crate::netns::Netns;
use crate::topology::{Host, Topology, forwarding, offloads_off, prepare};
use anyhow::Result;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Address of host `number` on link `link`; the canal host is number 1.
pub fn address_v4(link: u8, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 16, link, number)
}

/// IPv6 twin of [`address_v4`].
pub fn address_v6(link: u8, number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd72, 16, 0, link.into(), 0, 0, 0, number.into())
}

/// The link; its own namespace is the switch.
#[derive(Debug)]
pub struct Link {
    switch: Netns,
    number: u8,
    /// Name of the canal host's interface.
    pub interface: String,
    offloads: bool,
}

impl Link {
    /// Gives `host` an interface `eth<number>` on a new link, with the addresses of number 1.
    pub fn new(topology: &Topology, host: &Host, number: u8) -> Result<Self> {
        let switch = Netns::new(&format!("lan{number}"))?;
        prepare(&switch)?;
        switch.ip("link add lan type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
        switch.ip("link set lan up")?;
        let link = Self { switch, number, interface: format!("eth{number}"), offloads: topology.offloads };
        link.plug(host)?;
        topology.capture(&link.switch, "p1")?;
        Ok(link)
    }

    /// Plugs the canal host in, again if its interface was removed.
    pub fn plug(&self, host: &Host) -> Result<()> {
        self.wire(&host.ns, &self.interface, 1)
    }

    /// Takes the canal host's interface away.
    pub fn unplug(&self) -> Result<()> {
        self.switch.ip("link del p1").map(drop)
    }

    fn wire(&self, ns: &Netns, interface: &str, number: u8) -> Result<()> {
        let (port, link) = (format!("p{number}"), self.number);
        self.switch.ip(&format!(
            "link add {port} type veth peer name {interface} address 02:00:0b:00:{link:02x}:{number:02x} netns {}",
            ns.name()
        ))?;
        self.switch.ip(&format!("link set {port} master lan up"))?;
        ns.ip(&format!("link set {interface} up"))?;
        ns.ip(&format!("addr add {}/24 dev {interface}", address_v4(link, number)))?;
        ns.ip(&format!("addr add {}/64 dev {interface} nodad", address_v6(link, number)))?;
        if !self.offloads {
            offloads_off(ns, interface)?;
            offloads_off(&self.switch, &port)?;
        }
        Ok(())
    }

    /// A host on the link whose way to everywhere else is the canal host.
    pub fn host(&self, number: u8) -> Result<Plain> {
        let plain = self.attach(number)?;
        plain.ns.ip(&format!("route add default via {}", address_v4(self.number, 1)))?;
        plain.ns.ip(&format!("-6 route add default via {}", address_v6(self.number, 1)))?;
        Ok(plain)
    }

    /// A router on the link; `far` is behind it (and, maybe, behind others).
    pub fn router(&self, number: u8, far: &Far) -> Result<Plain> {
        let plain = self.host(number)?;
        forwarding(&plain.ns)?;
        far.connect(&plain, self, number)?;
        Ok(plain)
    }

    fn attach(&self, number: u8) -> Result<Plain> {
        let ns = Netns::new(&format!("plain{}x{number}", self.number))?;
        prepare(&ns)?;
        self.wire(&ns, "eth0", number)?;
        Ok(Plain { ns, v4: address_v4(self.number, number), v6: address_v6(self.number, number) })
    }
}

/// A host that speaks plain IP.
#[derive(Debug)]
pub struct Plain {
    /// Its namespace.
    pub ns: Netns,
    /// Its address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

impl Plain {
    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// Its address of the same family as `other`.
    pub fn address_like(&self, other: IpAddr) -> IpAddr {
        self.addresses()[usize::from(other.is_ipv6())]
    }
}

/// A host behind routers: 172.20.0.7 and fd72:20::7 in networks of their own.
#[derive(Debug)]
pub struct Far {
    /// Its namespace.
    pub ns: Netns,
    /// Its address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

impl Far {
    /// The network that it is in.
    pub const NETWORK_V4: &str = "172.20.0.0/24";
    /// IPv6 twin.
    pub const NETWORK_V6: &str = "fd72:20::/64";

    /// Without any router yet.
    pub fn new() -> Result<Self> {
        let ns = Netns::new("far")?;
        prepare(&ns)?;
        let (v4, v6) = (Ipv4Addr::new(172, 20, 0, 7), Ipv6Addr::new(0xfd72, 0x20, 0, 0, 0, 0, 0, 7));
        ns.ip(&format!("addr add {v4}/32 dev lo"))?;
        ns.ip(&format!("addr add {v6}/128 dev lo"))?;
        Ok(Self { ns, v4, v6 })
    }

    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// Interface towards the router with this number on its link: what comes in there has come by it.
    pub fn interface(number: u8) -> String {
        format!("up{number}")
    }

    fn connect(&self, router: &Plain, link: &Link, number: u8) -> Result<()> {
        let up = Self::interface(number);
        router.ns.ip(&format!("link add below type veth peer name {up} netns {}", self.ns.name()))?;
        for (ns, interface, last) in [(&router.ns, "below", 1), (&self.ns, up.as_str(), 2)] {
            ns.ip(&format!("link set {interface} up"))?;
            ns.ip(&format!("addr add 172.21.{number}.{last}/24 dev {interface}"))?;
            ns.ip(&format!("addr add fd72:21:0:{number}::{last}/64 dev {interface} nodad"))?;
            if !link.offloads {
                offloads_off(ns, interface)?;
            }
        }
        router.ns.ip(&format!("route add {} via 172.21.{number}.2", Self::NETWORK_V4))?;
        router.ns.ip(&format!("route add {} via fd72:21:0:{number}::2", Self::NETWORK_V6))?;
        // The way back is that of the router named last: it need not be the way of the question.
        self.ns.ip(&format!("route replace default via 172.21.{number}.1 src {}", self.v4))?;
        self.ns.ip(&format!("-6 route replace default via fd72:21:0:{number}::1 src {}", self.v6))?;
        Ok(())
    }
}
