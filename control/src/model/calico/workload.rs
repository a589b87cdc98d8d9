//! A workload endpoint: one interface of one pod, on whichever node.

use std::net::IpAddr;
use std::sync::Arc;

use canal_dataplane::net::Mac;
use ipnetwork::IpNetwork;

use super::resources::{Labels, NamedPort};

/// Most addresses taken of one endpoint. Orchestrators give one or two; the source check walks the list.
pub const MAX_NETWORKS: usize = 64;

/// What forwarding and policy need of a workload endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadEndpoint {
    /// The node it runs on.
    pub node: String,
    /// Host-side interface.
    pub interface: String,
    /// Its addresses, /32 and /128 only, sorted, once each; at least one.
    pub networks: Vec<IpNetwork>,
    /// Its Ethernet address, if known.
    pub mac: Option<Mac>,
    /// Its own, without inherited ones; its namespace is the key's.
    pub labels: Arc<Labels>,
    /// In order.
    pub profiles: Vec<String>,
    /// Named ports.
    pub ports: Vec<NamedPort>,
    /// Addresses that others know it by.
    pub floating: Vec<FloatingAddress>,
}

/// An address that others know an endpoint by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatingAddress {
    /// The endpoint's own.
    pub internal: IpAddr,
    /// As others see it.
    pub external: IpAddr,
}
