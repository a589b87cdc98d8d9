//! This node's lease, once it is taken: renewing it, and what its key may do meanwhile.

use std::net::Ipv4Addr;

use super::acquire::LEASE_TTL;
use crate::datastore::{self, Change, Datastore, Expect, KeyValue, LeaseId, Revision, Snapshot, Written};
use crate::model::flannel::{LeaseValue, Subnets};

/// Writes to the own key before giving up until the next try: only another writer of that very
/// key can make one fail.
const WRITE_ATTEMPTS: usize = 4;

/// The lease this node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnLease {
    key: String,
    subnets: Subnets,
    value: LeaseValue,
    /// Of the own last write; `None` when it says nothing about the store that answers now.
    mod_revision: Option<Revision>,
    /// The history that the listings belong to; unknown before the first.
    history: Option<u64>,
    lease: Option<LeaseId>,
    reserved: bool,
    /// The address published before, until the new one is: a key that still has it is this node's.
    former_ip: Option<Ipv4Addr>,
}

/// Why the lease cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another node holds the subnets. Running pods have addresses in them, so that nothing here
    /// can repair it: forward on, take no new pods, and say so.
    #[error("the lease of {subnets} was taken by the node {public_ip}")]
    TakenBy {
        /// The subnets.
        subnets: Subnets,
        /// Who holds them now.
        public_ip: Ipv4Addr,
    },
    /// Somebody writes the key as fast as this node does.
    #[error("the lease of {subnets} is being written by somebody else all the time")]
    Contended {
        /// The subnets.
        subnets: Subnets,
    },
    /// The datastore failed; try again.
    #[error(transparent)]
    Datastore(#[from] datastore::Error),
}

/// How [`OwnLease::renew`] succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// The key was as this node left it.
    Renewed,
    /// The key was gone and has been made again.
    Recreated,
    /// Somebody had written the key in this node's name; this node's value is back.
    Restored,
}

/// What a change of the own key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// Nothing new: the key is as this node left it.
    Unchanged,
    /// Gone: deleted by hand, expired while this node was asleep, or the store is not the one
    /// written to. Call [`OwnLease::renew`] now.
    Lost,
    /// Somebody wrote it in this node's name. Call [`OwnLease::renew`] if the value is not ours.
    Touched {
        /// The value still is this node's.
        same_value: bool,
    },
    /// Another node wrote it.
    TakenBy(Ipv4Addr),
}

impl OwnLease {
    /// A lease about to be written.
    pub(super) fn unwritten(key: String, subnets: Subnets, value: LeaseValue, reserved: bool) -> Self {
        Self {
            key,
            subnets,
            value,
            mod_revision: None,
            history: None,
            lease: None,
            reserved,
            former_ip: None,
        }
    }

    /// The datastore's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The subnets.
    pub const fn subnets(&self) -> &Subnets {
        &self.subnets
    }

    /// What is published.
    pub const fn value(&self) -> &LeaseValue {
        &self.value
    }

    /// True when the key lives until it is deleted: a reservation, or a datastore without expiry.
    pub const fn is_permanent(&self) -> bool {
        self.lease.is_none()
    }

    /// Revision of the own last write, unless the key is a reservation now.
    pub(super) fn written(&self) -> Option<Revision> {
        self.mod_revision.filter(|_| !self.reserved)
    }

    /// One conditional write with a fresh lease object, or none for a reservation. False when the
    /// condition did not hold; then the lease object is given up again.
    pub(super) async fn write(
        &mut self,
        store: &dyn Datastore,
        expect: Expect,
    ) -> Result<bool, datastore::Error> {
        let lease = if self.reserved { None } else { store.grant(LEASE_TTL).await? };
        // When the answer to the put is lost the object is left to die by itself: it may hold the
        // key already, and revoking it would delete the lease.
        match store.put(&self.key, self.value.encode().as_bytes(), expect, lease).await? {
            Written::At(revision) => {
                self.mod_revision = Some(revision);
                self.lease = lease;
                self.former_ip = None;
                Ok(true)
            }
            Written::Conflict => {
                if let Some(unused) = lease
                    && let Err(error) = store.revoke(unused).await
                {
                    tracing::debug!(%error, "an unused lease object is left to expire");
                }
                Ok(false)
            }
        }
    }

    /// Writes the value again with a fresh lease object, and makes the key again if it is gone.
    ///
    /// This is renewal, recovery after [`Observed::Lost`], and the second half of
    /// [`OwnLease::publish`]. A reservation is written without lease object, so that it stays one.
    ///
    /// # Errors
    /// [`LeaseError::TakenBy`] when another node's address is in the key: it is left alone.
    pub async fn renew(&mut self, store: &dyn Datastore) -> Result<Rewritten, LeaseError> {
        let (mut expect, mut outcome) = match self.mod_revision {
            Some(revision) => (Expect::Unchanged(revision), Rewritten::Renewed),
            None => self.look(store).await?,
        };
        for _ in 0..WRITE_ATTEMPTS {
            if self.write(store, expect).await? {
                return Ok(outcome);
            }
            (expect, outcome) = self.look(store).await?;
        }
        Err(LeaseError::Contended { subnets: self.subnets })
    }

    /// What has become of the key, and so on what condition to write it.
    async fn look(&mut self, store: &dyn Datastore) -> Result<(Expect, Rewritten), LeaseError> {
        let Some(found) = self.read_back(store).await? else {
            self.reserved = false;
            return Ok((Expect::Absent, Rewritten::Recreated));
        };
        if let Some(public_ip) = self.other_owner(&found) {
            return Err(LeaseError::TakenBy { subnets: self.subnets, public_ip });
        }
        self.reserved = found.lease.is_none();
        Ok((Expect::Unchanged(found.mod_revision), Rewritten::Restored))
    }

    /// Publishes another value under the same subnets, e.g. after a change of address.
    ///
    /// # Errors
    /// As [`OwnLease::renew`]. The new value is kept and goes out with the next success.
    pub async fn publish(
        &mut self,
        store: &dyn Datastore,
        value: LeaseValue,
    ) -> Result<Rewritten, LeaseError> {
        if value.public_ip != self.value.public_ip {
            self.former_ip.get_or_insert(self.value.public_ip);
        }
        self.value = value;
        self.renew(store).await
    }

    /// The store lost its history: what is known of the key says nothing any more, and [`OwnLease::renew`] looks first.
    pub(super) const fn doubt(&mut self) {
        self.mod_revision = None;
    }

    async fn read_back(&self, store: &dyn Datastore) -> Result<Option<KeyValue>, datastore::Error> {
        // Longer keys start with this one too: `…-24` and `…-24&fd00::-64`.
        let listed = store.list(&self.key).await?;
        Ok(listed.entries.into_iter().find(|entry| entry.key == self.key))
    }

    /// The address in the key when it is another node's. A value that cannot be read has no owner:
    /// it is this node's to repair.
    fn other_owner(&self, found: &KeyValue) -> Option<Ipv4Addr> {
        let holder = LeaseValue::decode(&found.value).ok()?.public_ip;
        (holder != self.value.public_ip && Some(holder) != self.former_ip).then_some(holder)
    }

    /// Judges one change; changes of other keys and those this node has seen already mean nothing.
    pub fn observe(&mut self, change: &Change) -> Observed {
        if change.key != self.key || self.mod_revision.is_some_and(|own| change.revision <= own) {
            return Observed::Unchanged;
        }
        match &change.value {
            None => Observed::Lost,
            Some(entry) => self.observe_entry(entry),
        }
    }

    /// Judges a new listing, e.g. after a compaction or a loss of the connection.
    ///
    /// A listing may come from another store than the one written to: restored from a backup, or
    /// empty with its revisions begun anew. It may also be older than the own last write. In every
    /// doubt the answer is [`Observed::Lost`], because [`OwnLease::renew`] looks before it writes.
    pub fn observe_snapshot(&mut self, snapshot: &Snapshot) -> Observed {
        let same_history = self.history.replace(snapshot.history).is_none_or(|was| was == snapshot.history);
        let known = self.mod_revision.filter(|own| same_history && *own <= snapshot.revision);
        self.mod_revision = known;
        match snapshot.entries.iter().find(|entry| entry.key == self.key) {
            Some(entry) if known == Some(entry.mod_revision) => Observed::Unchanged,
            Some(entry) if known.is_some_and(|own| own < entry.mod_revision) => self.observe_entry(entry),
            Some(_) | None => {
                self.mod_revision = None;
                Observed::Lost
            }
        }
    }

    fn observe_entry(&mut self, entry: &KeyValue) -> Observed {
        if let Some(public_ip) = self.other_owner(entry) {
            return Observed::TakenBy(public_ip);
        }
        self.mod_revision = Some(entry.mod_revision);
        self.lease = entry.lease;
        self.reserved = entry.lease.is_none();
        let same_value = LeaseValue::decode(&entry.value).is_ok_and(|value| value == self.value);
        Observed::Touched { same_value }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;

    const KEY: &str = "/net/subnets/10.3.1.0-24";
    const THEIRS: &str = r#"{"PublicIP":"9.9.9.9","PublicIPv6":null}"#;

    fn value(public_ip: &str) -> LeaseValue {
        LeaseValue { public_ip: public_ip.parse().unwrap(), ..Default::default() }
    }

    async fn held(reserved: bool) -> (Fake, OwnLease) {
        let fake = Fake::default();
        let subnets = Subnets::from_key(KEY).unwrap();
        let mut own = OwnLease::unwritten(KEY.into(), subnets, value("1.2.3.4"), reserved);
        assert!(own.write(&fake, Expect::Absent).await.unwrap());
        fake.log();
        (fake, own)
    }

    fn deletion(revision: Revision) -> Change {
        Change { key: KEY.into(), value: None, revision }
    }

    #[tokio::test]
    async fn renewal_changes_nothing_but_the_lease_object() {
        let (fake, mut own) = held(false).await;
        let before = fake.get(KEY).unwrap();
        assert_eq!(own.renew(&fake).await.unwrap(), Rewritten::Renewed);
        let after = fake.get(KEY).unwrap();
        assert_eq!((after.key, after.value), (before.key, before.value));
        assert_eq!((before.lease, after.lease), (Some(1), Some(2)));
        assert_eq!(fake.state.lock().unwrap().revoked, [] as [i64; 0], "the old object is left to die");
    }

    #[tokio::test]
    async fn a_reservation_is_not_converted() {
        let (fake, mut own) = held(true).await;
        own.renew(&fake).await.unwrap();
        assert_eq!(fake.get(KEY).unwrap().lease, None);
        assert!(own.is_permanent());
    }

    #[tokio::test]
    async fn a_lease_made_a_reservation_meanwhile_stays_one() {
        let (fake, mut own) = held(false).await;
        fake.state.lock().unwrap().set(KEY, &value("1.2.3.4").encode(), None);
        assert_eq!(own.renew(&fake).await.unwrap(), Rewritten::Restored);
        assert_eq!(fake.get(KEY).unwrap().lease, None);
        assert!(own.is_permanent());
    }

    #[tokio::test]
    async fn a_deleted_lease_is_made_again() {
        let (fake, mut own) = held(false).await;
        fake.state.lock().unwrap().unset(KEY);
        assert_eq!(own.observe(&deletion(2)), Observed::Lost);
        assert_eq!(own.renew(&fake).await.unwrap(), Rewritten::Recreated);
        assert_eq!(own.observe(&deletion(2)), Observed::Unchanged, "the deletion is older than the new key");
        assert!(fake.get(KEY).unwrap().lease.is_some());
    }

    #[tokio::test]
    async fn a_lease_taken_by_another_node_is_left_alone() {
        let (fake, mut own) = held(false).await;
        fake.state.lock().unwrap().set(KEY, THEIRS, Some(9));
        let entry = fake.get(KEY).unwrap();
        let change = Change { key: KEY.into(), value: Some(entry.clone()), revision: 2 };
        let thief: Ipv4Addr = "9.9.9.9".parse().unwrap();
        assert_eq!(own.observe(&change), Observed::TakenBy(thief));
        match own.renew(&fake).await {
            Err(LeaseError::TakenBy { public_ip, .. }) => assert_eq!(public_ip, thief),
            other => panic!("{other:?}"),
        }
        assert_eq!(fake.get(KEY), Some(entry));
    }

    #[tokio::test]
    async fn taken_between_the_deletion_and_the_new_key() {
        let (fake, mut own) = held(false).await;
        fake.state.lock().unwrap().unset(KEY);
        let mut puts = 0;
        fake.before_put(move |state, _| {
            puts += 1;
            if puts == 2 {
                state.set(KEY, THEIRS, Some(9));
            }
        });
        assert!(matches!(own.renew(&fake).await, Err(LeaseError::TakenBy { .. })));
    }

    #[tokio::test]
    async fn an_unreadable_value_in_the_own_key_is_repaired() {
        let (fake, mut own) = held(false).await;
        fake.state.lock().unwrap().set(KEY, "{", Some(9));
        assert_eq!(own.renew(&fake).await.unwrap(), Rewritten::Restored);
        assert_eq!(fake.get(KEY).unwrap().value, value("1.2.3.4").encode().as_bytes());
    }

    #[tokio::test]
    async fn a_lost_answer_is_found_out_at_the_next_renewal() {
        let (fake, mut own) = held(false).await;
        fake.state.lock().unwrap().set(KEY, &value("1.2.3.4").encode(), Some(5));
        assert_eq!(own.renew(&fake).await.unwrap(), Rewritten::Restored);
        fake.state.lock().unwrap().down = true;
        assert!(matches!(own.renew(&fake).await, Err(LeaseError::Datastore(_))));
    }

    #[tokio::test]
    async fn somebody_who_always_writes_first_does_not_hold_this_node_up_for_ever() {
        let (fake, mut own) = held(false).await;
        fake.before_put(|state, _| state.set(KEY, &value("1.2.3.4").encode(), Some(9)));
        assert!(matches!(own.renew(&fake).await, Err(LeaseError::Contended { .. })));
        assert_eq!(fake.log().len(), WRITE_ATTEMPTS);
    }

    #[tokio::test]
    async fn a_new_public_address_keeps_the_subnet() {
        let (fake, mut own) = held(false).await;
        assert_eq!(own.publish(&fake, value("1.2.3.5")).await.unwrap(), Rewritten::Renewed);
        // The same after a write that this node has not seen the answer of.
        fake.state.lock().unwrap().set(KEY, &value("1.2.3.5").encode(), Some(5));
        assert_eq!(own.publish(&fake, value("1.2.3.6")).await.unwrap(), Rewritten::Restored);
        assert_eq!(fake.get(KEY).unwrap().value, value("1.2.3.6").encode().as_bytes());

        // And while the datastore is away.
        fake.state.lock().unwrap().down = true;
        assert!(own.publish(&fake, value("1.2.3.7")).await.is_err());
        fake.state.lock().unwrap().down = false;
        own.observe_snapshot(&Snapshot::default());
        assert_eq!(own.renew(&fake).await.unwrap(), Rewritten::Restored);
        assert_eq!(fake.get(KEY).unwrap().value, value("1.2.3.7").encode().as_bytes());
    }

    #[tokio::test]
    async fn the_own_writes_come_back_as_nothing_new() {
        let (fake, mut own) = held(false).await;
        let entry = fake.get(KEY).unwrap();
        let change = Change { key: KEY.into(), revision: entry.mod_revision, value: Some(entry.clone()) };
        assert_eq!(own.observe(&change), Observed::Unchanged);
        assert_eq!(
            own.observe(&Change { key: "/net/subnets/10.3.9.0-24".into(), ..deletion(9) }),
            Observed::Unchanged
        );

        let listing =
            |revision, entries: &[KeyValue]| Snapshot { revision, history: 1, entries: entries.to_vec() };
        assert_eq!(own.observe_snapshot(&listing(1, std::slice::from_ref(&entry))), Observed::Unchanged);
        let touched = KeyValue { mod_revision: 2, lease: None, ..entry };
        assert_eq!(own.observe_snapshot(&listing(2, &[touched])), Observed::Touched { same_value: true });
        assert!(own.is_permanent());
    }

    #[tokio::test]
    async fn a_listing_that_does_not_fit_makes_the_node_look_before_it_writes() {
        let listing = |revision, history, entries: &[KeyValue]| Snapshot {
            revision,
            history,
            entries: entries.to_vec(),
        };
        let (fake, own) = held(false).await;
        let entry = fake.get(KEY).unwrap();
        let restored = KeyValue { mod_revision: 0, ..entry.clone() };
        for (what, snapshot) in [
            ("deleted", listing(2, 1, &[])),
            ("older than the own write", listing(0, 1, &[])),
            ("restored from a backup", listing(5, 1, &[restored])),
            ("another cluster", listing(1, 2, &[entry])),
        ] {
            let mut own = own.clone();
            own.observe_snapshot(&listing(1, 1, &[fake.get(KEY).unwrap()]));
            assert_eq!(own.observe_snapshot(&snapshot), Observed::Lost, "{what}");
            // The store that answers has the key after all, at whatever revision.
            assert_eq!(own.renew(&fake).await.unwrap(), Rewritten::Restored, "{what}");
            fake.state.lock().unwrap().entries.get_mut(KEY).unwrap().mod_revision = 1;
        }
    }

    #[tokio::test]
    async fn a_wiped_store_in_which_another_node_was_faster() {
        let (fake, mut own) = held(false).await;
        {
            let mut state = fake.state.lock().unwrap();
            state.revision = 0;
            state.entries.clear();
            state.set(KEY, THEIRS, Some(9));
        }
        // Its write has the very revision that ours had.
        assert_eq!(
            own.observe_snapshot(&Snapshot { revision: 0, history: 1, entries: vec![] }),
            Observed::Lost
        );
        assert!(matches!(own.renew(&fake).await, Err(LeaseError::TakenBy { .. })));
        assert_eq!(fake.get(KEY).unwrap().value, THEIRS.as_bytes());
    }
}
