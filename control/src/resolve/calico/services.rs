//! What stands behind services.
//!
//! The etcd datastore says nothing about that (Felix has no source for it there either), so that sets of services stay
//! empty unless somebody who knows Kubernetes' EndpointSlices tells.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::members::Member;

/// Some of the endpoints of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSlice {
    /// `namespace/name` of the service.
    pub service: String,
    /// Addresses, whatever the port.
    pub addresses: Vec<IpAddr>,
    /// The same with protocol and port.
    pub ports: Vec<Member>,
}

/// Slices by service.
#[derive(Debug, Default)]
pub(super) struct Services {
    by_service: HashMap<String, BTreeMap<String, Arc<ServiceSlice>>>,
    by_slice: HashMap<String, Arc<ServiceSlice>>,
}

impl Services {
    /// Replaces a slice; the one that was.
    pub(super) fn set(&mut self, slice: &str, value: Option<Arc<ServiceSlice>>) -> Option<Arc<ServiceSlice>> {
        let old = self.by_slice.remove(slice);
        if let Some(old) = &old
            && let Some(slices) = self.by_service.get_mut(&old.service)
        {
            slices.remove(slice);
            if slices.is_empty() {
                self.by_service.remove(&old.service);
            }
        }
        if let Some(value) = value {
            let slices = self.by_service.entry(value.service.clone()).or_default();
            slices.insert(slice.to_owned(), Arc::clone(&value));
            self.by_slice.insert(slice.to_owned(), value);
        }
        old
    }

    /// What is known of a service.
    pub(super) fn slices(&self, service: &str) -> impl Iterator<Item = &Arc<ServiceSlice>> {
        self.by_service.get(service).into_iter().flat_map(BTreeMap::values)
    }
}
