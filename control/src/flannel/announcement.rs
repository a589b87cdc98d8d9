//! What a node announces beside its own subnets: networks behind its gateway interfaces, each a further lease in its name.

use std::time::Duration;

use super::own::{LeaseError, Observed, OwnLease, Rewritten};
use super::renewal::{RenewMargin, Renewal};
use crate::datastore::{self, Datastore, Expect, Snapshot};
use crate::model::flannel::{LeaseValue, Prefix, Subnets};

/// A further lease. It says the same of the node as its own lease, so that whoever reads leases sends there what it would
/// send to the node; it lies outside of the network, so that no node ever takes it for a subnet to have.
#[derive(Debug)]
pub struct Announcement {
    lease: OwnLease,
    renewal: Renewal,
}

impl Announcement {
    /// One that has not been written yet, and is due at once.
    pub fn new(
        prefix: &Prefix,
        subnets: Subnets,
        value: LeaseValue,
        margin: RenewMargin,
        now: Duration,
    ) -> Self {
        let mut renewal = Renewal::never(margin);
        renewal.at_once(now);
        Self { lease: OwnLease::unwritten(prefix.lease_key(&subnets), subnets, value, false), renewal }
    }

    /// The datastore's key.
    pub fn key(&self) -> &str {
        self.lease.key()
    }

    /// How long to sleep at most; never more than a minute.
    pub fn wait(&self, now: Duration) -> Duration {
        self.renewal.wait(now)
    }

    /// Takes in a new listing of all leases.
    pub fn observe_snapshot(&mut self, snapshot: &Snapshot, now: Duration) {
        match self.lease.observe_snapshot(snapshot) {
            Observed::Unchanged => {}
            Observed::Touched { same_value: true } if self.lease.is_permanent() => self.renewal.permanent(),
            Observed::Touched { .. } | Observed::Lost | Observed::TakenBy(_) => self.renewal.at_once(now),
        }
    }

    /// Writes it if it is due, or says something else than it shall; `None` when there was nothing to do. Another node's
    /// lease is left alone.
    ///
    /// # Errors
    /// [`LeaseError`]. It will be due again in a minute.
    pub async fn keep(
        &mut self,
        store: &dyn Datastore,
        value: &LeaseValue,
        now: Duration,
    ) -> Result<Option<Rewritten>, LeaseError> {
        let other = value != self.lease.value();
        if !other && !self.renewal.is_due(now) {
            return Ok(None);
        }
        let outcome = match other {
            true => self.lease.publish(store, value.clone()).await,
            false => self.lease.renew(store).await,
        };
        match &outcome {
            Err(_) => self.renewal.failed(now),
            Ok(_) if self.lease.is_permanent() => self.renewal.permanent(),
            Ok(_) => self.renewal.granted(now),
        }
        outcome.map(Some)
    }

    /// Deletes it, unless somebody else has written it, or has made it a reservation.
    ///
    /// # Errors
    /// The datastore's; the key then dies with its lease object.
    pub async fn withdraw(self, store: &dyn Datastore) -> Result<(), datastore::Error> {
        match self.lease.written() {
            Some(revision) => store.delete(self.lease.key(), Expect::Unchanged(revision)).await.map(drop),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;

    const KEY: &str = "/coreos.com/network/subnets/172.16.1.0-24";
    const THEIRS: &str = r#"{"PublicIP":"9.9.9.9","PublicIPv6":null}"#;
    const HOUR: Duration = Duration::from_secs(3600);

    fn value() -> LeaseValue {
        LeaseValue { public_ip: [1, 2, 3, 4].into(), ..LeaseValue::default() }
    }

    fn announcement() -> Announcement {
        let subnets = Subnets::from_key(KEY).unwrap();
        Announcement::new(&Prefix::default(), subnets, value(), RenewMargin::default(), Duration::ZERO)
    }

    #[tokio::test]
    async fn it_is_written_once_a_day_and_taken_back() {
        let (fake, mut one) = (Fake::default(), announcement());
        assert_eq!(one.key(), KEY);
        assert_eq!(one.keep(&fake, &value(), Duration::ZERO).await.unwrap(), Some(Rewritten::Recreated));
        let written = fake.get(KEY).unwrap();
        assert_eq!((written.value, written.lease), (value().encode().into_bytes(), Some(1)));
        assert_eq!(one.keep(&fake, &value(), 22 * HOUR).await.unwrap(), None);
        assert_eq!(one.keep(&fake, &value(), 23 * HOUR).await.unwrap(), Some(Rewritten::Renewed));
        one.withdraw(&fake).await.unwrap();
        assert_eq!(fake.get(KEY), None);
    }

    #[tokio::test]
    async fn another_nodes_lease_is_never_written_over_nor_taken_away() {
        let (fake, mut one) = (Fake::with(&[(KEY, THEIRS, Some(77))]), announcement());
        let refused = one.keep(&fake, &value(), Duration::ZERO).await;
        assert!(matches!(refused, Err(LeaseError::TakenBy { .. })), "{refused:?}");
        assert_eq!(one.keep(&fake, &value(), Duration::ZERO).await.unwrap(), None, "not before a minute");
        one.withdraw(&fake).await.unwrap();
        assert_eq!(fake.get(KEY).unwrap().value, THEIRS.as_bytes());
    }

    #[tokio::test]
    async fn a_lease_that_somebody_took_meanwhile_is_left_to_him() {
        let (fake, mut one) = (Fake::default(), announcement());
        one.keep(&fake, &value(), Duration::ZERO).await.unwrap();
        fake.state.lock().unwrap().set(KEY, THEIRS, Some(9));
        one.withdraw(&fake).await.unwrap();
        assert_eq!(fake.get(KEY).unwrap().value, THEIRS.as_bytes());
    }
}
