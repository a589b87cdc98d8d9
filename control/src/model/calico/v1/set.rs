//! Network sets.

use super::super::net;
use super::super::problem::Problem;
use super::super::v3;
use super::{NAMESPACE_LABEL, NAMESPACE_PROFILE};
use ipnetwork::IpNetwork;

/// A NetworkSet or GlobalNetworkSet.
#[derive(Debug, Default)]
pub struct NetworkSet {
    /// Without host bits, as listed.
    pub nets: Vec<IpNetwork>,
    /// Its own, and the namespace's name.
    pub labels: v3::Labels,
    /// The namespace's, for its labels.
    pub profiles: Vec<String>,
    /// Entries that are no networks; they are left out.
    pub unreadable: Vec<Problem>,
}

impl NetworkSet {
    /// In this namespace; empty = a GlobalNetworkSet.
    pub fn convert(namespace: &str, mut labels: v3::Labels, spec: v3::NetworkSetSpec) -> Self {
        let mut set = Self::default();
        for text in spec.nets {
            match net::network(&text) {
                Some(network) => set.nets.push(network),
                None => set.unreadable.push(Problem::unreadable("spec.nets", text, "network or address")),
            }
        }
        if !namespace.is_empty() {
            labels.insert(NAMESPACE_LABEL.to_owned(), namespace.to_owned());
            set.profiles = vec![format!("{NAMESPACE_PROFILE}{namespace}")];
        }
        Self { labels, ..set }
    }
}
