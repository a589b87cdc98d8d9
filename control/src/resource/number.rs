//! Values that may be a number or a text: protocols, ports, AS numbers.

use serde_json::Value;

/// Protocols with a name, as Calico writes them.
const PROTOCOLS: [&str; 6] = ["TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite"];

/// Longest name of a port in a rule.
const PORT_NAME_MAX: usize = 128;

/// What is allowed as a protocol.
pub(super) const PROTOCOL_SAYS: &str =
    "must be TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255";

/// What is allowed as a port.
pub(super) const PORT_SAYS: &str =
    "must be a port from 1 to 65535, a range such as 8000:8090, or the name of a port";

/// What is allowed as an AS number.
pub(super) const AS_SAYS: &str = "must be an AS number from 0 to 4294967295, or two halves such as 1.10";

/// A protocol as Calico stores it: a known name, or a number.
pub(super) fn protocol(value: &Value) -> Option<Value> {
    let number = match value {
        Value::Number(number) => number.as_u64()?,
        Value::String(text) if PROTOCOLS.contains(&text.as_str()) => return Some(value.clone()),
        Value::String(text) => decimal(text)?,
        _ => return None,
    };
    (1..=255).contains(&number).then(|| number.into())
}

/// Whether packets of the protocol have ports that Calico looks at.
pub(super) fn has_ports(protocol: &Value) -> bool {
    matches!(protocol.as_u64(), Some(6 | 17 | 132))
        || matches!(protocol.as_str(), Some("TCP" | "UDP" | "SCTP"))
}

/// A port as Calico stores it: a number, a range, a name.
pub(super) fn port(value: &Value) -> Option<Value> {
    match value {
        Value::Number(number) => number.as_u64().filter(|port| (1..=65535).contains(port)).map(Value::from),
        Value::String(text) => match text.split_once(':') {
            Some((low, high)) => {
                let (low, high) = (port_number(low)?, port_number(high)?);
                let range = || if low == high { low.into() } else { format!("{low}:{high}").into() };
                (low <= high).then(range)
            }
            None if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                port_number(text).map(Value::from)
            }
            None => is_port_name(text).then(|| value.clone()),
        },
        _ => None,
    }
}

/// Whether it is a port's name.
pub(super) fn is_named(port: &Value) -> bool {
    port.as_str().is_some_and(|text| !text.contains(':'))
}

fn is_port_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=PORT_NAME_MAX).contains(&text.len()) && text.bytes().all(legal)
}

fn port_number(text: &str) -> Option<u64> {
    decimal(text).filter(|port| (1..=65535).contains(port))
}

/// An AS number as Calico stores it.
pub(super) fn as_number(value: &Value) -> Option<Value> {
    let number = match value {
        Value::Number(number) => number.as_u64()?,
        Value::String(text) => match text.split_once('.') {
            None => decimal(text)?,
            Some((high, low)) => {
                let half = |text| decimal(text).filter(|half| *half <= 0xffff);
                half(high)? << 16 | half(low)?
            }
        },
        _ => return None,
    };
    u32::try_from(number).ok().map(Value::from)
}

fn decimal(text: &str) -> Option<u64> {
    let digits = (1..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn protocols_are_names_or_numbers() {
        for (given, stored) in
            [(json!("TCP"), json!("TCP")), (json!(132), json!(132)), (json!("6"), json!(6))]
        {
            assert_eq!(protocol(&given), Some(stored));
        }
        for bad in
            [json!("tcp"), json!(0), json!(256), json!("256"), json!(""), json!(1.5), json!(-1), json!([])]
        {
            assert_eq!(protocol(&bad), None, "{bad}");
        }
        assert!(has_ports(&json!(17)) && has_ports(&json!("SCTP")) && !has_ports(&json!("UDPLite")));
    }

    #[test]
    fn ports_are_numbers_ranges_or_names() {
        for (given, stored) in [
            (json!(80), json!(80)),
            (json!("80"), json!(80)),
            (json!("80:90"), json!("80:90")),
            (json!("80:80"), json!(80)),
            (json!("http.1_x-y"), json!("http.1_x-y")),
        ] {
            assert_eq!(port(&given), Some(stored));
        }
        for bad in [
            json!(0),
            json!(65536),
            json!("0:100"),
            json!("200:100"),
            json!("1:"),
            json!("a:b"),
            json!("a b"),
            json!(""),
        ] {
            assert_eq!(port(&bad), None, "{bad}");
        }
        assert!(is_named(&json!("http")) && !is_named(&json!("1:2")) && !is_named(&json!(1)));
    }

    #[test]
    fn as_numbers_have_two_notations() {
        for (given, stored) in [(json!(64512), 64512), (json!("64512"), 64512), (json!("1.10"), 65546)] {
            assert_eq!(as_number(&given), Some(json!(stored)));
        }
        for bad in [json!(4_294_967_296_u64), json!("1.65536"), json!("1.2.3"), json!("-1"), json!(true)] {
            assert_eq!(as_number(&bad), None, "{bad}");
        }
    }
}
