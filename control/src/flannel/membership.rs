//! A node that is in a network, and what it does to stay in.
//!
//! Whoever holds a [`Membership`] has one loop: tell it what the datastore said
//! ([`Membership::observe`], [`Membership::observe_snapshot`]), sleep no longer than
//! [`Membership::wait`], and call [`Membership::renew_if_due`] after either.

use std::time::Duration;

use super::acquire::{DuplicatePublicIp, Origin};
use super::identity::Identity;
use super::options::MembershipOptions;
use super::own::{LeaseError, Observed, OwnLease, Rewritten};
use super::renewal::Renewal;
use super::subnet_env::SubnetEnv;
use crate::datastore::{Change, Datastore, Snapshot};
use crate::model::flannel::{Backend, LeaseValue, NetworkConfig, Subnets};

/// A node that is in a network; made by [`super::join()`]. Every `now` is
/// [`super::renewal::boot_time`].
#[derive(Debug)]
pub struct Membership {
    /// The network config as read when joining. Compare a newer one with
    /// [`NetworkConfig::changed_members`]: any difference needs a restart.
    pub config: NetworkConfig,
    /// What its backend asks for.
    pub backend: Backend,
    /// This node's tunnel endpoints.
    pub identity: Identity,
    /// Where the lease's subnets came from.
    pub origin: Origin,
    /// A former lease that was deleted, because it did not fit the config any more.
    pub deleted: Option<Subnets>,
    /// A warning worth showing: the lease taken over was another machine's, it seems.
    pub duplicate: Option<DuplicatePublicIp>,
    pub(super) lease: OwnLease,
    pub(super) renewal: Renewal,
}

impl Membership {
    /// A node that held these subnets in an earlier run and cannot ask the datastore now. It may forward by them; the
    /// lease is due at once, and the datastore then says whether it still is this node's.
    pub fn remembered(
        config: NetworkConfig,
        backend: Backend,
        identity: Identity,
        options: &MembershipOptions,
        subnets: Subnets,
        value: LeaseValue,
        now: Duration,
    ) -> Self {
        let mut renewal = Renewal::never(options.renew_margin);
        renewal.at_once(now);
        let lease = OwnLease::unwritten(options.prefix.lease_key(&subnets), subnets, value, false);
        let origin = Origin::OwnLease;
        Self { config, backend, identity, origin, deleted: None, duplicate: None, lease, renewal }
    }

    /// The lease.
    pub const fn lease(&self) -> &OwnLease {
        &self.lease
    }

    /// The subnet file's content for pods with this MTU.
    pub fn subnet_env(&self, mtu: u32, ip_masq: bool) -> SubnetEnv {
        SubnetEnv::new(&self.config, self.lease.subnets(), mtu, ip_masq)
    }

    /// How long to sleep at most; never more than a minute.
    pub fn wait(&self, now: Duration) -> Duration {
        self.renewal.wait(now)
    }

    /// True when the datastore must have dropped the lease: the node could not renew it in time.
    pub fn is_expired(&self, now: Duration) -> bool {
        self.renewal.is_expired(now)
    }

    /// Takes in a change of any key of the network.
    pub fn observe(&mut self, change: &Change, now: Duration) -> Observed {
        let observed = self.lease.observe(change);
        self.judge(observed, now)
    }

    /// Takes in a new listing of all leases.
    pub fn observe_snapshot(&mut self, snapshot: &Snapshot, now: Duration) -> Observed {
        let observed = self.lease.observe_snapshot(snapshot);
        self.judge(observed, now)
    }

    /// The store lost its history, as a reader of all changes is told: the lease has to be made sure of at once.
    pub fn doubt(&mut self, now: Duration) {
        self.lease.doubt();
        self.renewal.at_once(now);
    }

    fn judge(&mut self, observed: Observed, now: Duration) -> Observed {
        match observed {
            Observed::Unchanged => {}
            Observed::Touched { same_value: true } if self.lease.is_permanent() => self.renewal.permanent(),
            // Whatever lease object somebody else has bound the key to, nobody here renews it.
            Observed::Touched { .. } | Observed::Lost | Observed::TakenBy(_) => self.renewal.at_once(now),
        }
        observed
    }

    /// Renews the lease, or makes it again, when it is time; `None` when it is not.
    ///
    /// # Errors
    /// [`LeaseError`]. It will be due again in a minute, also after [`LeaseError::TakenBy`]: then
    /// the node is not ready, but what it forwards it forwards on.
    pub async fn renew_if_due(
        &mut self,
        store: &dyn Datastore,
        now: Duration,
    ) -> Result<Option<Rewritten>, LeaseError> {
        if !self.renewal.is_due(now) {
            return Ok(None);
        }
        let outcome = self.lease.renew(store).await;
        self.settle(outcome, now).map(Some)
    }

    /// Publishes other attributes under the same subnets, e.g. a new public address.
    ///
    /// # Errors
    /// [`LeaseError`]. The attributes are kept and will be tried again in a minute.
    pub async fn publish(
        &mut self,
        store: &dyn Datastore,
        value: LeaseValue,
        now: Duration,
    ) -> Result<Rewritten, LeaseError> {
        let outcome = self.lease.publish(store, value).await;
        self.settle(outcome, now)
    }

    fn settle(
        &mut self,
        outcome: Result<Rewritten, LeaseError>,
        now: Duration,
    ) -> Result<Rewritten, LeaseError> {
        match &outcome {
            Err(_) => self.renewal.failed(now),
            Ok(_) if self.lease.is_permanent() => self.renewal.permanent(),
            Ok(_) => self.renewal.granted(now),
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::super::join::join;
    use super::super::options::MembershipOptions;
    use super::*;
    use crate::datastore::memory::Memory;
    use crate::datastore::{Expect, KeyValue};
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);
    const THEIRS: &str = r#"{"PublicIP":"9.9.9.9","PublicIPv6":null}"#;

    const CONFIG_KEY: &str = "/coreos.com/network/config";
    const CONFIG: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;

    /// A node that joined at 0.
    async fn joined() -> (Fake, Membership) {
        let fake = Fake::with(&[(CONFIG_KEY, CONFIG, None)]);
        let member = join_at_zero(&fake).await;
        (fake, member)
    }

    async fn join_at_zero(store: &dyn Datastore) -> Membership {
        let root = tempfile::tempdir().unwrap();
        let subnet_file = root.path().join("subnet.env");
        let options = MembershipOptions {
            identity_file: MembershipOptions::identity_beside(&subnet_file),
            subnet_file,
            ..MembershipOptions::new("192.0.2.1".parse().unwrap())
        };
        join(store, &options, &mut StdRng::seed_from_u64(1), Duration::ZERO).await.unwrap()
    }

    fn key(member: &Membership) -> String {
        member.lease().key().to_owned()
    }

    fn change(member: &Membership, value: Option<KeyValue>) -> Change {
        Change { key: key(member), value, revision: 100 }
    }

    #[tokio::test]
    async fn a_day_passes_with_one_renewal() {
        let (fake, mut member) = joined().await;
        let mut now = Duration::ZERO;
        let mut renewals = 0;
        while now < 24 * HOUR {
            renewals += usize::from(member.renew_if_due(&fake, now).await.unwrap().is_some());
            assert!(!member.is_expired(now));
            now += member.wait(now).max(Duration::from_secs(1));
        }
        assert_eq!(renewals, 1);
    }

    #[tokio::test]
    async fn a_datastore_that_is_away_is_asked_every_minute() {
        let (fake, mut member) = joined().await;
        fake.state.lock().unwrap().down = true;
        let due = 23 * HOUR;
        assert!(member.renew_if_due(&fake, due).await.is_err());
        assert_eq!(member.renew_if_due(&fake, due + MINUTE / 2).await.unwrap(), None);
        fake.state.lock().unwrap().down = false;
        assert_eq!(member.renew_if_due(&fake, due + MINUTE).await.unwrap(), Some(Rewritten::Renewed));
        assert!(!member.is_expired(due + 23 * HOUR));
    }

    #[tokio::test]
    async fn a_machine_that_slept_too_long_makes_its_lease_again() {
        let (fake, mut member) = joined().await;
        fake.state.lock().unwrap().unset(&key(&member));
        let woken = 50 * HOUR;
        assert!(member.is_expired(woken));
        assert_eq!(member.renew_if_due(&fake, woken).await.unwrap(), Some(Rewritten::Recreated));
        assert!(!member.is_expired(woken));
    }

    #[tokio::test]
    async fn a_deleted_lease_is_made_again_at_once() {
        let (fake, mut member) = joined().await;
        fake.state.lock().unwrap().unset(&key(&member));
        assert_eq!(member.observe(&change(&member, None), HOUR), Observed::Lost);
        assert_eq!(member.wait(HOUR), Duration::ZERO);
        assert_eq!(member.renew_if_due(&fake, HOUR).await.unwrap(), Some(Rewritten::Recreated));
    }

    #[tokio::test]
    async fn a_stolen_lease_is_told_each_minute_and_taken_back_when_it_is_free() {
        let (fake, mut member) = joined().await;
        fake.state.lock().unwrap().set(&key(&member), THEIRS, Some(9));
        let stolen = fake.get(&key(&member));
        assert!(matches!(member.observe(&change(&member, stolen), HOUR), Observed::TakenBy(_)));
        for now in [HOUR, HOUR + MINUTE] {
            assert!(matches!(member.renew_if_due(&fake, now).await, Err(LeaseError::TakenBy { .. })));
            assert_eq!(member.renew_if_due(&fake, now).await.unwrap(), None);
        }
        fake.state.lock().unwrap().unset(&key(&member));
        assert_eq!(member.renew_if_due(&fake, 2 * HOUR).await.unwrap(), Some(Rewritten::Recreated));
    }

    #[tokio::test]
    async fn a_lease_made_a_reservation_is_not_renewed_any_more() {
        let (fake, mut member) = joined().await;
        let value = member.lease().value().encode();
        fake.state.lock().unwrap().set(&key(&member), &value, None);
        let reserved = fake.get(&key(&member));
        assert_eq!(member.observe(&change(&member, reserved), HOUR), Observed::Touched { same_value: true });
        assert_eq!(member.renew_if_due(&fake, 100 * HOUR).await.unwrap(), None);
        assert!(!member.is_expired(100 * HOUR));
    }

    #[tokio::test]
    async fn expiry_and_loss_of_all_data_against_a_whole_datastore() {
        let store = Memory::new();
        store.put(CONFIG_KEY, CONFIG.as_bytes(), Expect::Absent, None).await.unwrap();
        let mut member = join_at_zero(&store).await;
        let listing = async || store.list("/coreos.com/network/subnets/").await.unwrap();
        assert_eq!(member.observe_snapshot(&listing().await, HOUR), Observed::Unchanged);

        store.advance(25 * HOUR);
        assert_eq!(listing().await.entries, []);
        assert_eq!(member.observe_snapshot(&listing().await, 25 * HOUR), Observed::Lost);
        let outcome = member.renew_if_due(&store, 25 * HOUR).await.unwrap();
        assert_eq!(outcome, Some(Rewritten::Recreated));

        store.wipe();
        assert_eq!(member.observe_snapshot(&listing().await, 26 * HOUR), Observed::Lost);
        let outcome = member.renew_if_due(&store, 26 * HOUR).await.unwrap();
        assert_eq!(outcome, Some(Rewritten::Recreated));
        let entries = listing().await.entries;
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].key.as_str(), entries[0].lease.is_some()), (member.lease().key(), true));
        assert_eq!(member.observe_snapshot(&listing().await, 26 * HOUR), Observed::Unchanged);
    }
}
