//! Protocols and ports: numbers, or names in any case.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// Longest name of a port in a rule, bytes.
const MAX_PORT_NAME: usize = 128;

/// An IP protocol as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// 0 means nothing, but is read.
    Number(u8),
    /// Lower case.
    Name(String),
}

impl Protocol {
    /// The number; `None` for names that Felix does not know, and for 0.
    pub fn number(&self) -> Option<u8> {
        match self {
            Self::Number(number) => Some(*number).filter(|number| *number != 0),
            Self::Name(name) => Some(match name.as_str() {
                "icmp" => 1,
                "tcp" => 6,
                "udp" => 17,
                "icmpv6" => 58,
                "sctp" => 132,
                "udplite" => 136,
                _ => return None,
            }),
        }
    }

    /// Whether Felix matches ports of it.
    pub fn has_ports(&self) -> bool {
        matches!(self.number(), Some(6 | 17 | 132))
    }

    /// The IP version that a name implies.
    pub fn ip_version(&self) -> Option<u8> {
        match self {
            Self::Name(name) if name == "icmp" => Some(4),
            Self::Name(name) if name == "icmpv6" => Some(6),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ProtocolVisitor)
    }
}

struct ProtocolVisitor;

impl Visitor<'_> for ProtocolVisitor {
    type Value = Protocol;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name or number of an IP protocol")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Protocol, E> {
        let number = u8::try_from(number);
        number.map(Protocol::Number).map_err(|_| E::invalid_value(Unexpected::Other("a large number"), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Protocol, E> {
        Ok(text.parse().map_or_else(|_| Protocol::Name(text.to_ascii_lowercase()), Protocol::Number))
    }

    fn visit_unit<E: Error>(self) -> Result<Protocol, E> {
        Ok(Protocol::Number(0))
    }
}

/// A port as it is written in a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// First and last; 0 is read, though there is no such port.
    Range(u16, u16),
    /// Name of an endpoint's port.
    Name(String),
    /// None of these. In Felix's eyes the object that holds it is no object.
    Unreadable(String),
}

impl Port {
    fn parse(text: &str) -> Self {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let number = |text: &str| text.parse::<u16>().ok();
        let read = match text.split_once(':') {
            Some((low, high)) if digits(low) && digits(high) => number(low)
                .zip(number(high))
                .filter(|(low, high)| low <= high)
                .map(|(l, h)| Self::Range(l, h)),
            None if digits(text) => number(text).map(|port| Self::Range(port, port)),
            None if (1..=MAX_PORT_NAME).contains(&text.len()) && text.bytes().all(named) => {
                Some(Self::Name(text.to_owned()))
            }
            _ => None,
        };
        read.unwrap_or_else(|| Self::Unreadable(text.to_owned()))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(low, high) if low == high => low.fmt(f),
            Self::Range(low, high) => write!(f, "{low}:{high}"),
            Self::Name(text) | Self::Unreadable(text) => f.write_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortVisitor)
    }
}

struct PortVisitor;

impl Visitor<'_> for PortVisitor {
    type Value = Port;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port, a range of ports or the name of a port")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Port, E> {
        Ok(u16::try_from(number)
            .map_or_else(|_| Port::Unreadable(number.to_string()), |port| Port::Range(port, port)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Port, E> {
        Ok(Port::Unreadable(number.to_string()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Port, E> {
        Ok(Port::Unreadable(number.to_string()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Port, E> {
        Ok(Port::parse(text))
    }

    fn visit_unit<E: Error>(self) -> Result<Port, E> {
        Ok(Port::Range(0, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::go_json;
    use super::*;

    #[test]
    fn ports_are_numbers_ranges_or_names() {
        let text = r#"[80, "8080:8090", "80", "http", "8a", "0.5", "90:80", 70000, -1, "a:b", "", "1:2:3", null, 1.5]"#;
        let ports: Vec<Port> = go_json::from_slice(text.as_bytes()).unwrap();
        let bad = |text: &str| Port::Unreadable(text.into());
        let expected = [
            Port::Range(80, 80),
            Port::Range(8080, 8090),
            Port::Range(80, 80),
            Port::Name("http".into()),
            Port::Name("8a".into()),
            Port::Name("0.5".into()),
            bad("90:80"),
            bad("70000"),
            bad("-1"),
            bad("a:b"),
            bad(""),
            bad("1:2:3"),
            Port::Range(0, 0),
            bad("1.5"),
        ];
        assert_eq!(ports, expected);
    }

    #[test]
    fn protocols_are_numbers_or_names() {
        let read = |text: &str| go_json::from_slice::<Vec<Protocol>>(text.as_bytes());
        let numbers: Vec<_> = read(r#"["TCP", "UDPLite", "6", 132, 0, "esp", null]"#)
            .unwrap()
            .iter()
            .map(Protocol::number)
            .collect();
        assert_eq!(numbers, [Some(6), Some(136), Some(6), Some(132), None, None, None]);
        assert!(read("[256]").is_err() && read("[-1]").is_err() && read("[true]").is_err());
        assert_eq!(read(r#"["ICMPv6"]"#).unwrap()[0].ip_version(), Some(6));
    }
}
