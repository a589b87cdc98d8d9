//! Workload endpoints, as raw bytes or made of members that are more or less right. What can be read is usable as it
//! stands, and written again reads the same.
#![no_main]

use canal_control::model::calico::decode::{Decoded, decode};
use canal_control::model::calico::keys::WORKLOAD_ENDPOINTS;
use canal_control::model::calico::problem::Quirks;
use canal_control::model::calico::{WorkloadEndpoint, WorkloadKey};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};

/// `IFNAMSIZ` less the final NUL.
const INTERFACE_MAX: usize = 15;

/// One member of a document.
#[derive(Arbitrary, Debug)]
struct Member<'a> {
    /// Absent, of another type or any text for a few values, right for all others: a document with one wrong member is
    /// refused as a whole.
    kind: u8,
    /// Which of those that make sense.
    n: u16,
    text: &'a str,
}

impl Member<'_> {
    fn value(&self, right: impl Fn(u16) -> String) -> Option<Value> {
        match self.kind {
            0 => None,
            1 => Some(Value::Null),
            2 => Some(self.n.into()),
            3..=8 => Some(self.text.into()),
            _ => Some(right(self.n).into()),
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Raw { key: &'a str, value: &'a [u8] },
    Made { named: bool, node: Member<'a>, interface: Member<'a>, mac: Member<'a>, networks: Vec<Member<'a>> },
}

impl Input<'_> {
    /// What follows the keys' common prefix, and the value.
    fn write(&self) -> (String, Vec<u8>) {
        match self {
            Self::Raw { key, value } => ((*key).to_owned(), value.to_vec()),
            Self::Made { named, node, interface, mac, networks } => {
                let network = |n: u16| match n % 3 {
                    0 => format!("fd00::{n:x}/128"),
                    1 => format!("10.0.{}.{}", n >> 8, n & 0xff),
                    _ => format!("10.0.{}.{}/32", n >> 8, n & 0xff),
                };
                let members = [
                    ("node", node.value(|n| format!("n{}", n % 2))),
                    ("interfaceName", interface.value(|n| format!("cali{n}"))),
                    ("mac", mac.value(|n| format!("02:00:00:00:{:02x}:{:02x}", n >> 8, n & 0xff))),
                    (
                        "ipNetworks",
                        Some(networks.iter().filter_map(|member| member.value(network)).collect()),
                    ),
                ];
                let spec: Map<String, Value> =
                    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
                let key = if *named { "default/n1-k8s-web-eth0" } else { "default/web" };
                (key.to_owned(), json!({"kind": "WorkloadEndpoint", "spec": spec}).to_string().into_bytes())
            }
        }
    }
}

fn read(key: &str, value: &[u8]) -> Option<(WorkloadKey, WorkloadEndpoint)> {
    match decode(key, value, Quirks::default()) {
        Ok((Decoded::Workload(key, endpoint), _)) => Some((key, endpoint)),
        _ => None,
    }
}

fuzz_target!(|input: Input| {
    let (rest, value) = input.write();
    let text = format!("{WORKLOAD_ENDPOINTS}{rest}");
    let Some((key, endpoint)) = read(&text, &value) else { return };
    assert_eq!(key.key(), text, "a key names one endpoint");
    assert!(!endpoint.node.is_empty());
    assert!((1..=INTERFACE_MAX).contains(&endpoint.interface.len()) && !endpoint.interface.contains('/'));
    assert!(!endpoint.networks.is_empty());
    assert!(endpoint.networks.is_sorted_by(|a, b| a < b), "sorted, once each");
    assert!(endpoint.networks.iter().all(|net| net.prefix() == if net.is_ipv4() { 32 } else { 128 }));
    assert!(endpoint.mac.is_none_or(|mac| mac.is_unicast()));

    let networks: Vec<String> = endpoint.networks.iter().map(ToString::to_string).collect();
    let mac = endpoint.mac.map_or_else(String::new, |mac| mac.to_string());
    let written = json!({"kind": "WorkloadEndpoint", "spec": {
        "node": endpoint.node, "interfaceName": endpoint.interface, "ipNetworks": networks, "mac": mac,
    }});
    let (_, again) = read(&text, written.to_string().as_bytes()).expect("what was read can be written");
    let forwarding = |one: WorkloadEndpoint| (one.node, one.interface, one.networks, one.mac);
    assert_eq!(forwarding(again), forwarding(endpoint));
});
