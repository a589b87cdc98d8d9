//! Which packet is asked about.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A packet, described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The way it comes.
    pub from: From,
    /// Its source address; `None` = that of whoever sends it.
    #[serde(default)]
    pub source: Option<IpAddr>,
    /// Where it is addressed to: an address, or a workload of this node as in [`From::Workload`].
    pub to: String,
    /// What it carries.
    pub protocol: Protocol,
    /// Source port (ICMP echo: the identifier); `None` = 40000.
    #[serde(default)]
    pub source_port: Option<u16>,
    /// Bytes of the IP packet; `None` = no more than its headers.
    #[serde(default)]
    pub size: Option<u16>,
    /// IPv4: "don't fragment".
    #[serde(default)]
    pub dont_fragment: bool,
    /// TTL or hop limit; `None` = 64.
    #[serde(default)]
    pub ttl: Option<u8>,
    /// The connection it belongs to.
    #[serde(default)]
    pub connection: Connection,
}

impl Question {
    /// About the plainest packet of this kind: from the sender's own address, no larger than it must be, of a new connection.
    pub fn new(from: From, to: &str, protocol: Protocol) -> Self {
        Self {
            from,
            source: None,
            to: to.to_owned(),
            protocol,
            source_port: None,
            size: None,
            dont_fragment: false,
            ttl: None,
            connection: Connection::New,
        }
    }
}

/// Who hands the packet to the dataplane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// A workload of this node: its endpoint's name, `namespace/pod` or `pod`, an address of its, or its interface.
    Workload(String),
    /// This host's own IP stack.
    Host,
    /// Another node, through the tunnel.
    Vxlan {
        /// Its outer address.
        node: IpAddr,
        /// VXLAN network identifier; `None` = ours.
        #[serde(default)]
        vni: Option<u32>,
    },
    /// A peer with direct routing, without tunnel.
    Direct,
    /// A host behind this gateway interface.
    Gateway(String),
}

/// The connection that a packet belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connection {
    /// None yet: it opens one, if it can.
    #[default]
    New,
    /// Its sender has opened it, and the receiver has answered.
    Established,
    /// Its receiver has opened it, and this is part of the answer.
    Answering,
}

/// What a packet carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// A TCP segment.
    Tcp {
        /// Destination port.
        port: u16,
        /// Flags; `None` = SYN for a new connection, ACK otherwise.
        #[serde(default)]
        flags: Option<TcpFlags>,
    },
    /// A UDP datagram.
    Udp {
        /// Destination port.
        port: u16,
    },
    /// An SCTP packet: an INIT chunk for a new association, DATA otherwise.
    Sctp {
        /// Destination port.
        port: u16,
    },
    /// An ICMP or ICMPv6 message, by the family of the addresses.
    Icmp {
        /// Type; `None` = echo request.
        #[serde(default)]
        kind: Option<u8>,
        /// Code; `None` = 0.
        #[serde(default)]
        code: Option<u8>,
    },
    /// Any other IP protocol, with a payload of zeros.
    Other(u8),
}

/// Flags of a TCP segment, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// Names, from the lowest bit.
    const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];
    /// Opens a connection.
    pub const SYN: Self = Self(0x02);
    /// Answers one.
    pub const SYN_ACK: Self = Self(0x12);
    /// Belongs to one.
    pub const ACK: Self = Self(0x10);

    /// Has it this one?
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::str::FromStr for TcpFlags {
    type Err = String;

    /// `syn`, `syn,ack`, `none`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(0));
        }
        let bit = |name: &str| {
            let at = Self::NAMES.iter().position(|known| known.eq_ignore_ascii_case(name.trim()));
            at.map(|at| 1 << at).ok_or_else(|| format!("{name:?} is none of {}", Self::NAMES.join(", ")))
        };
        text.split(',').try_fold(0, |flags, name| Ok(flags | bit(name)?)).map(Self)
    }
}

impl std::fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let set = (0..8).filter(|at| self.0 & 1 << at != 0).map(|at| Self::NAMES[at].to_uppercase());
        let names: Vec<String> = set.collect();
        f.write_str(if names.is_empty() { "no flags" } else { "" })?;
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_and_shown() {
        assert_eq!("syn".parse(), Ok(TcpFlags::SYN));
        assert_eq!("SYN,ack".parse(), Ok(TcpFlags::SYN_ACK));
        assert_eq!("none".parse(), Ok(TcpFlags(0)));
        assert!("sin".parse::<TcpFlags>().unwrap_err().contains("cwr"));
        assert_eq!(TcpFlags::SYN_ACK.to_string(), "SYN ACK");
        assert_eq!(TcpFlags(0).to_string(), "no flags");
    }

    #[test]
    fn a_short_question_is_enough() {
        let text = r#"{"from":{"workload":"a"},"to":"10.1.1.1","protocol":{"udp":{"port":53}}}"#;
        let question: Question = serde_json::from_str(text).unwrap();
        let expected = Question::new(From::Workload("a".into()), "10.1.1.1", Protocol::Udp { port: 53 });
        assert_eq!(question, expected);
    }
}
