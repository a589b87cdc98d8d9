//! A workload endpoint: one interface of one pod, on whichever node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use canal_dataplane::net::Mac;
use ipnetwork::IpNetwork;
use serde::Serialize;

use super::resources::{Labels, NamedPort, Names};
use super::v1::{NAMESPACE_LABEL, SERVICE_ACCOUNT_LABEL};

/// Most addresses taken of one endpoint. Orchestrators give one or two; the source check walks the list.
pub const MAX_NETWORKS: usize = 64;

/// What forwarding and policy need of a workload endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadEndpoint {
    /// The node it runs on.
    pub node: Arc<str>,
    /// Host-side interface.
    pub interface: Box<str>,
    /// Its addresses, /32 and /128 only, sorted, once each; at least one.
    pub networks: Box<[IpNetwork]>,
    /// Its Ethernet address, if known.
    pub mac: Option<Mac>,
    /// Its own, without inherited ones; its namespace is the key's.
    pub labels: Arc<Labels>,
    /// In order.
    pub profiles: Names,
    /// Named ports.
    pub ports: Arc<[NamedPort]>,
    /// Addresses that others know it by.
    pub floating: Box<[FloatingAddress]>,
}

impl WorkloadEndpoint {
    /// A value for its key that is read as this endpoint, without what nothing here needs of the one it was read from.
    ///
    /// Allocates next to nothing: it is asked of a hundred thousand at a time, beside others who need the heap.
    pub fn to_document(&self) -> Vec<u8> {
        // Both are the reader's to add, and would be taken for a pod's own claim.
        let own = |(name, _): &(&str, &str)| ![NAMESPACE_LABEL, SERVICE_ACCOUNT_LABEL].contains(name);
        let labels = self.labels.iter().filter(own);
        let document = Document {
            metadata: Metadata { labels: labels.collect() },
            spec: Spec {
                node: &self.node,
                interface_name: &self.interface,
                ip_networks: &self.networks,
                profiles: &self.profiles,
                ports: self.ports.iter().map(Port::of).collect(),
                ip_nats: self.floating.iter().map(Nat::of).collect(),
                mac: self.mac.map(|mac| mac.to_string()),
                service_account_name: self.labels.get(SERVICE_ACCOUNT_LABEL),
            },
        };
        let mut text = Vec::with_capacity(TEXT);
        let written = serde_json::to_writer(&mut text, &document);
        written.unwrap_or_else(|error| unreachable!("memory takes what has texts for keys: {error}"));
        text
    }
}

/// Bytes that a document has room for from the beginning; most need less.
const TEXT: usize = 1024;

#[derive(Serialize)]
struct Document<'a> {
    metadata: Metadata<'a>,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    labels: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    node: &'a str,
    interface_name: &'a str,
    ip_networks: &'a [IpNetwork],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    profiles: &'a [Arc<str>],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<Port<'a>>,
    #[serde(rename = "ipNATs", skip_serializing_if = "Vec::is_empty")]
    ip_nats: Vec<Nat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_account_name: Option<&'a str>,
}

#[derive(Serialize)]
struct Port<'a> {
    name: &'a str,
    protocol: u8,
    port: u16,
}

impl<'a> Port<'a> {
    fn of(port: &'a NamedPort) -> Self {
        Self { name: &port.name, protocol: port.protocol, port: port.port }
    }
}

#[derive(Serialize)]
struct Nat {
    #[serde(rename = "internalIP")]
    internal: IpAddr,
    #[serde(rename = "externalIP")]
    external: IpAddr,
}

impl Nat {
    fn of(nat: &FloatingAddress) -> Self {
        Self { internal: nat.internal, external: nat.external }
    }
}

/// An address that others know an endpoint by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FloatingAddress {
    /// The endpoint's own.
    pub internal: IpAddr,
    /// As others see it.
    pub external: IpAddr,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::calico::WorkloadKey;
    use crate::model::calico::decode::{Decoded, Key, decode};
    use crate::model::calico::problem::Quirks;

    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
    }

    fn endpoint() -> impl Strategy<Value = WorkloadEndpoint> {
        let labels = proptest::collection::btree_map("[a-z]{1,4}/[a-z]{1,4}", "[a-z0-9]{0,8}", 0..4);
        let port = ("[a-z]{1,5}", prop_oneof![Just(6u8), Just(17), Just(132)], 1u16..)
            .prop_map(|(name, protocol, port)| NamedPort { name: name.into(), protocol, port });
        let mac = any::<[u8; 5]>().prop_map(|rest| Mac([2, rest[0], rest[1], rest[2], rest[3], rest[4]]));
        let floating =
            (address(), address()).prop_map(|(internal, external)| FloatingAddress { internal, external });
        (
            (proptest::collection::btree_set(address(), 1..4), labels, proptest::option::of("[a-z]{1,5}")),
            proptest::collection::vec("[a-z.]{1,8}", 0..3),
            proptest::collection::vec(port, 0..3),
            proptest::collection::vec(floating, 0..2),
            proptest::option::of(mac),
        )
            .prop_map(|((addresses, mut labels, account), profiles, ports, floating, mac)| {
                labels.insert(NAMESPACE_LABEL.into(), "ns".into());
                labels.extend(account.map(|account| (SERVICE_ACCOUNT_LABEL.to_owned(), account)));
                let mut networks: Vec<IpNetwork> = addresses.into_iter().map(IpNetwork::from).collect();
                networks.sort_unstable();
                let profiles: Vec<Arc<str>> = profiles.into_iter().map(Arc::from).collect();
                WorkloadEndpoint {
                    node: "n2".into(),
                    interface: "cali1".into(),
                    networks: networks.into(),
                    mac,
                    labels: Arc::new(labels.into_iter().collect()),
                    profiles: profiles.into(),
                    ports: ports.into(),
                    floating: floating.into(),
                }
            })
    }

    proptest! {
        #[test]
        fn a_document_is_read_as_the_endpoint_it_was_made_of(endpoint in endpoint()) {
            let key = WorkloadKey::new("ns", "n2-k8s-a-eth0").key();
            let (decoded, problems) = decode(&key, &endpoint.to_document(), Quirks::default()).unwrap();
            prop_assert!(problems.is_empty());
            prop_assert!(Key::parse(&key).is_ok());
            let Decoded::Workload(_, read) = decoded else { panic!("{decoded:?}") };
            prop_assert_eq!(read, endpoint);
        }
    }
}
