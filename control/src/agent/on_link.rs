//! Which peers are on the external interface's link: asked of the kernel, remembered for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::host::Host;
use crate::host::{Error, External};
use crate::model::flannel::{Backend, VxlanOptions};
use crate::state::State;

/// How long an answer is believed. Routes of other devices change without a word to us; flannel asks every ten
/// seconds.
const BELIEVED: Duration = Duration::from_secs(10);

/// Answers by address.
#[derive(Debug, Default)]
pub(super) struct OnLink {
    known: BTreeMap<IpAddr, bool>,
    asked: Option<Instant>,
}

impl OnLink {
    /// Makes the next update ask anew, because the host has changed.
    pub(super) fn doubt(&mut self) {
        self.asked = None;
    }

    /// When to update without anything having happened.
    pub(super) fn due(&self) -> Option<Instant> {
        self.asked.filter(|_| !self.known.is_empty()).map(|asked| asked + BELIEVED)
    }

    /// The peers' addresses that are on the link, for backends that care.
    pub(super) async fn update(
        &mut self,
        host: &dyn Host,
        external: &External,
        backend: &Backend,
        state: &State,
    ) -> BTreeSet<IpAddr> {
        let cares =
            matches!(backend, Backend::HostGw | Backend::Vxlan(VxlanOptions { direct_routing: true, .. }));
        if !cares {
            return BTreeSet::new();
        }
        let values = state.leases().values().map(|lease| &lease.value);
        let addresses: BTreeSet<IpAddr> = values
            .flat_map(|value| [Some(value.public_ip.into()), value.public_ipv6.map(IpAddr::from)])
            .flatten()
            .filter(|address| !address.is_unspecified())
            .collect();
        if self.asked.is_none_or(|asked| asked.elapsed() >= BELIEVED) {
            self.known.clear();
            self.asked = Some(Instant::now());
        }
        self.known.retain(|address, _| addresses.contains(address));
        for address in &addresses {
            if !self.known.contains_key(address) {
                self.known.insert(*address, is_on_link(host, external, *address).await);
            }
        }
        self.known.iter().filter(|(_, on_link)| **on_link).map(|(address, _)| *address).collect()
    }
}

/// flannel's rule: no gateway in between. An address that cannot be asked about counts as far away.
async fn is_on_link(host: &dyn Host, external: &External, address: IpAddr) -> bool {
    match host.route_to(address).await {
        Ok(route) => route.gateway.is_none() && !route.local && route.ifindex == external.ifindex,
        Err(Error::NoRoute(_)) => false,
        Err(error) => {
            tracing::warn!(%address, %error, "cannot find out how a peer is reached");
            false
        }
    }
}
