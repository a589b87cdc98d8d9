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
        let number =
            |text: &str| text.parse::<usize>().with_context(|| format!("{name}: {text} is no number"));
        let words: Vec<&str> = name.split('-').collect();
        let (forwarder, policies) = match words[..] {
            ["kernel", "vxlan"] => (Forwarder::Kernel, None),
            ["kernel", "iptables", n] => (Forwarder::Iptables, Some(number(n)?)),
            ["kernel", "nftables", n] => (Forwarder::Nftables, Some(number(n)?)),
            ["canal", "af", "xdp"] => (Forwarder::Canal("af-xdp".into()), None),
            ["canal", "af", "xdp", n] => (Forwarder::Canal("af-xdp".into()), Some(number(n)?)),
            ["canal", port] => (Forwarder::Canal(port.to_owned()), None),
            ["canal", port, n] => (Forwarder::Canal(port.to_owned()), Some(number(n)?)),
            _ => bail!(
                "unknown peer {name}; there are kernel-vxlan, kernel-iptables-N, kernel-nftables-N, canal-PORT, canal-PORT-N"
            ),
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
        for name in [
            "kernel-vxlan",
            "kernel-iptables-100",
            "kernel-nftables-1",
            "canal-tap",
            "canal-udp-10000",
            "canal-af-xdp",
            "canal-af-xdp-7",
        ] {
            assert_eq!(name.parse::<Peer>().expect("a peer").to_string(), name);
        }
        for name in ["", "kernel", "kernel-iptables", "kernel-iptables-x", "canal", "canal-tap-1-2"] {
            assert!(name.parse::<Peer>().is_err(), "{name}");
        }
    }
}
