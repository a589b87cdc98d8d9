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
        !matches!(self.forwarder, Forwarder::Canal(_))
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
            _ => match what.strip_prefix("canal-") {
                Some(port) if !port.is_empty() => Forwarder::Canal(port.to_owned()),
                _ => bail!(
                    "unknown peer {name}; there are kernel-vxlan, kernel-iptables-N, kernel-nftables-N, canal-PORT, canal-PORT-N"
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
        let ours = ["canal-tap", "canal-udp-10000", "canal-af-xdp", "canal-af-xdp-1"];
        for name in kernel.iter().chain(&ours) {
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
        ] {
            assert!(name.parse::<Peer>().is_err(), "{name}");
        }
    }
}
