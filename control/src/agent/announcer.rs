//! Announces what is behind gateway interfaces: a task of its own, because a datastore that is slow to answer must not keep
//! anything else waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use canal_dataplane::spec::{NodeSpec, Via};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use tokio::sync::watch;

use super::keeper::Clock;
use crate::datastore::{Datastore, Expect, Snapshot};
use crate::flannel::{Announcement, Lease, LeaseError, Listing, RenewMargin};
use crate::model::flannel::addr::overlaps4;
use crate::model::flannel::{LeaseValue, NetworkConfig, Prefix, Subnets};
use crate::status::AnnouncementStatus;

/// How long the datastore may take to have everything taken back at the end.
const FAREWELL: Duration = Duration::from_secs(3);

/// Shortest pause between two rounds.
const PAUSE: Duration = Duration::from_secs(1);

/// What the agent wants announced.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wish {
    /// What the node's own lease says.
    pub(super) value: LeaseValue,
    /// Networks behind gateways, as keys name them.
    pub(super) subnets: BTreeSet<Subnets>,
    /// Counts the occasions on which somebody has written or deleted one of the keys.
    pub(super) nudges: u64,
}

/// How each announcement is; those that were not tried yet are missing.
pub(super) type Report = BTreeMap<Subnets, Result<(), String>>;

/// The agent's end.
pub(super) struct Announcing {
    wishes: watch::Sender<Wish>,
    pub(super) reports: watch::Receiver<Report>,
}

/// The task.
pub(super) struct Announcer {
    store: Arc<dyn Datastore>,
    prefix: Prefix,
    network: NetworkConfig,
    margin: RenewMargin,
    clock: Clock,
    wishes: watch::Receiver<Wish>,
    report: watch::Sender<Report>,
    kept: BTreeMap<Subnets, Announcement>,
    /// The last listing was taken after so many nudges.
    listed: Option<u64>,
}

/// The networks of a family behind gateways, IPv4 and IPv6 paired in their order, since a key names one of IPv4 and at most
/// one of IPv6; and those of IPv6 for which none of IPv4 is left.
pub(super) fn pairs(spec: &NodeSpec, dual: bool) -> (BTreeSet<Subnets>, Vec<Ipv6Network>) {
    let (mut v4, mut v6): (Vec<Ipv4Network>, Vec<Ipv6Network>) = (Vec::new(), Vec::new());
    for route in spec.routes.iter().filter(|route| matches!(route.via, Via::Gateway(_))) {
        match route.prefix {
            IpNetwork::V4(net) => v4.push(net),
            IpNetwork::V6(net) => v6.push(net),
        }
    }
    if !dual {
        v6.clear();
    }
    let left = v6.split_off(v4.len().min(v6.len()));
    let pairs = v4.iter().enumerate().map(|(index, v4)| Subnets { v4: *v4, v6: v6.get(index).copied() });
    (pairs.collect(), left)
}

impl Announcing {
    /// Both ends.
    pub(super) fn new(
        store: Arc<dyn Datastore>,
        prefix: Prefix,
        network: NetworkConfig,
        margin: RenewMargin,
        clock: Clock,
        value: LeaseValue,
    ) -> (Self, Announcer) {
        let (wishes, wished) = watch::channel(Wish { value, subnets: BTreeSet::new(), nudges: 0 });
        let (report, reports) = watch::channel(Report::new());
        let announcer = Announcer {
            store,
            prefix,
            network,
            margin,
            clock,
            wishes: wished,
            report,
            kept: BTreeMap::new(),
            listed: None,
        };
        (Self { wishes, reports }, announcer)
    }

    /// Says what is wanted; `touched`: somebody has written or deleted one of the keys.
    pub(super) fn wish(&self, value: &LeaseValue, subnets: BTreeSet<Subnets>, touched: bool) {
        self.wishes.send_if_modified(|wish| {
            let news = touched || *value != wish.value || subnets != wish.subnets;
            if news {
                *wish = Wish { value: value.clone(), subnets, nudges: wish.nudges + u64::from(touched) };
            }
            news
        });
    }

    /// Takes everything back, if the datastore answers soon.
    pub(super) async fn finish(mut self) {
        if self.wishes.borrow().subnets.is_empty() && self.reports.borrow().is_empty() {
            return;
        }
        self.wishes.send_modify(|wish| wish.subnets.clear());
        let gone = self.reports.wait_for(Report::is_empty);
        if tokio::time::timeout(FAREWELL, gone).await.is_err() {
            tracing::warn!("networks behind gateways stay announced until their leases expire");
        }
    }

    /// How each is, for people.
    pub(super) fn status(&self) -> Vec<AnnouncementStatus> {
        let report = self.reports.borrow();
        let one = |(subnets, result): (&Subnets, &Result<(), String>)| AnnouncementStatus {
            networks: std::iter::once(IpNetwork::from(subnets.v4))
                .chain(subnets.v6.map(Into::into))
                .collect(),
            problem: result.clone().err(),
        };
        report.iter().map(one).collect()
    }
}

impl Announcer {
    /// Runs until the agent is gone.
    pub(super) async fn run(mut self) {
        loop {
            let wish = self.wishes.borrow_and_update().clone();
            self.round(&wish).await;
            let now = (self.clock)();
            let wait = self.kept.values().map(|kept| kept.wait(now)).min();
            let wait = wait.unwrap_or(Duration::MAX).max(PAUSE);
            tokio::select! {
                changed = self.wishes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn round(&mut self, wish: &Wish) {
        let now = (self.clock)();
        self.look(wish, now).await;
        let unwanted: Vec<Subnets> =
            self.kept.keys().filter(|subnets| !wish.subnets.contains(subnets)).copied().collect();
        for subnets in unwanted {
            if let Some(kept) = self.kept.remove(&subnets)
                && let Err(error) = kept.withdraw(&*self.store).await
            {
                tracing::warn!(%subnets, %error, "an announcement is left to expire");
            }
        }
        let mut report = Report::new();
        for subnets in &wish.subnets {
            let kept = self.kept.entry(*subnets).or_insert_with(|| {
                Announcement::new(&self.prefix, *subnets, wish.value.clone(), self.margin, now)
            });
            let before = self.report.borrow().get(subnets).cloned();
            let result = match kept.keep(&*self.store, &wish.value, now).await {
                Ok(None) => before.unwrap_or(Ok(())),
                Ok(Some(how)) => {
                    tracing::info!(%subnets, ?how, "announced");
                    Ok(())
                }
                Err(LeaseError::TakenBy { public_ip, .. }) => {
                    Err(format!("the node {public_ip} has a lease of it"))
                }
                Err(error) => Err(error.to_string()),
            };
            report.insert(*subnets, result);
        }
        self.report.send_if_modified(|current| {
            let news = *current != report;
            *current = report;
            news
        });
    }

    /// Looks at the keys at the start and when somebody has touched them.
    async fn look(&mut self, wish: &Wish, now: Duration) {
        let first = self.listed.is_none();
        if wish.subnets.is_empty() || self.listed == Some(wish.nudges) {
            return;
        }
        match self.store.list(&self.prefix.subnets()).await {
            Ok(snapshot) => {
                self.listed = Some(wish.nudges);
                self.kept.values_mut().for_each(|kept| kept.observe_snapshot(&snapshot, now));
                if first {
                    self.clear(&snapshot, wish).await;
                }
            }
            Err(error) => tracing::debug!(%error, "cannot look at announcements"),
        }
    }

    /// Deletes what an earlier run has announced and this one does not want: leases that say of this node what its own says,
    /// lie outside of the network, and are to expire.
    async fn clear(&self, snapshot: &Snapshot, wish: &Wish) {
        let outside =
            |lease: &Lease| self.network.v4.is_some_and(|pool| !overlaps4(pool.network, lease.subnets.v4));
        let leftover = |lease: &&Lease| {
            let expires = lease.lease.is_some();
            expires && lease.value == wish.value && outside(lease) && !wish.subnets.contains(&lease.subnets)
        };
        for lease in Listing::read(snapshot).leases.iter().filter(leftover) {
            match self.store.delete(&lease.key, Expect::Unchanged(lease.mod_revision)).await {
                Ok(_) => tracing::info!(subnets = %lease.subnets, "no longer announced"),
                Err(error) => tracing::warn!(subnets = %lease.subnets, %error, "left to expire"),
            }
        }
    }
}
