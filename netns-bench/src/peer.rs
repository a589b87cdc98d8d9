//! Who is measured, by name.

use anyhow::{Context, Result, bail};
use std::fmt;
use std::str::FromStr;

/// What forwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forwarder {
    /// The kernel's VXLAN device.
    Kernel,
    /// The same with iptables and ipset.
    Iptables,
    /// The same with nftables.
    Nftables,
    /// canal with this `--port`.
    Canal(String),
    /// canal between two interfaces, both on AF_XDP, for a plain host behind one of them.
    Gateway,
    /// The emptiest forwarder over AF_XDP.
    Bound,
    /// Open vSwitch in user space, over AF_XDP.
    OpenVSwitch,
}

/// A forwarder with so many policies about its pod; `None`: no policy at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What forwards.
    pub forwarder: Forwarder,
    /// Number of policies.
    pub policies: Option<usize>,
}

impl Peer {
    /// The kernel forwards, which works where packets are received and has no process.
    pub fn is_kernel(&self) -> bool {
        matches!(self.forwarder, Forwarder::Kernel | Forwarder::Iptables | Forwarder::Nftables)
    }

    /// It is canal's daemon that forwards.
    pub fn is_canal(&self) -> bool {
        matches!(self.forwarder, Forwarder::Canal(_) | Forwarder::Gateway)
    }
}

impl FromStr for Peer {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        // What stands last may be a number of policies; ports have dashes in their names, too.
        let (what, policies) = match name.rsplit_once('-') {
            Some((what, last)) if !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()) => {
                (what, Some(last.parse().with_context(|| format!("{name}: {last}"))?))
            }
            _ => (name, None),
        };
        let forwarder = match (what, policies) {
            ("kernel-vxlan", None) => Forwarder::Kernel,
            ("kernel-iptables", Some(_)) => Forwarder::Iptables,
            ("kernel-nftables", Some(_)) => Forwarder::Nftables,
            ("af-xdp-bound", None) => Forwarder::Bound,
            ("ovs-none", None) | ("ovs-ct", Some(_)) => Forwarder::OpenVSwitch,
            ("canal-gateway", _) => Forwarder::Gateway,
            _ => match what.strip_prefix("canal-") {
                Some(port) if !port.is_empty() => Forwarder::Canal(port.to_owned()),
                _ => bail!(
                    "unknown peer {name}; there are kernel-vxlan, kernel-iptables-N, kernel-nftables-N, canal-PORT, canal-PORT-N, canal-gateway, canal-gateway-N, ovs-none, ovs-ct-N, af-xdp-bound"
                ),
            },
        };
        Ok(Self { forwarder, policies })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.forwarder {
            Forwarder::Kernel => write!(f, "kernel-vxlan")?,
            Forwarder::Iptables => write!(f, "kernel-iptables")?,
            Forwarder::Nftables => write!(f, "kernel-nftables")?,
            Forwarder::Canal(port) => write!(f, "canal-{port}")?,
            Forwarder::Gateway => write!(f, "canal-gateway")?,
            Forwarder::Bound => write!(f, "af-xdp-bound")?,
            Forwarder::OpenVSwitch if self.policies.is_none() => write!(f, "ovs-none")?,
            Forwarder::OpenVSwitch => write!(f, "ovs-ct")?,
        }
        self.policies.map_or(Ok(()), |n| write!(f, "-{n}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let kernel = ["kernel-vxlan", "kernel-iptables-100", "kernel-nftables-1"];
        let ours = ["canal-tap", "canal-udp-10000", "canal-af-xdp", "canal-af-xdp-1", "canal-gateway-10"];
        let others = ["af-xdp-bound", "ovs-none", "ovs-ct-1000"];
        for name in kernel.iter().chain(&ours).chain(&others) {
            assert_eq!(name.parse::<Peer>().expect("a peer").to_string(), *name);
        }
        for name in [
            "",
            "kernel",
            "kernel-iptables",
            "kernel-iptables-x",
            "kernel-vxlan-1",
            "canal",
            "canal-",
            "canal-1",
            "ovs",
            "ovs-ct",
            "ovs-none-1",
            "af-xdp-bound-1",
        ] {
            assert!(name.parse::<Peer>().is_err(), "{name}");
        }
    }
}
