//! All leases of a network at one revision.

use crate::datastore::{KeyValue, LeaseId, Revision, Snapshot};
use crate::model::flannel::{LeaseValue, LeaseValueError, Subnets};

/// One node's lease as it stands in the datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The datastore's key.
    pub key: String,
    /// What the key says.
    pub subnets: Subnets,
    /// Who holds it.
    pub value: LeaseValue,
    /// Revision of the last write.
    pub mod_revision: Revision,
    /// The lease object it dies with; `None` = a reservation, which never expires.
    pub lease: Option<LeaseId>,
}

/// A key among the leases that is none.
#[derive(Debug)]
pub struct Unreadable {
    /// The datastore's key.
    pub key: String,
    /// What the key says; `None` when it is no subnet key at all.
    pub subnets: Option<Subnets>,
    /// What is wrong with the value, when the key is right.
    pub reason: Option<LeaseValueError>,
}

/// The leases in key order, and what else was found among them.
#[derive(Debug, Default)]
pub struct Listing {
    /// Leases that can be read.
    pub leases: Vec<Lease>,
    /// Everything else, skipped: foreign keys must not disturb a network.
    pub unreadable: Vec<Unreadable>,
}

impl Lease {
    /// Reads one key and its value.
    pub fn read(entry: &KeyValue) -> Result<Self, Unreadable> {
        let unreadable = |subnets, reason| Unreadable { key: entry.key.clone(), subnets, reason };
        let subnets = Subnets::from_key(&entry.key).ok_or_else(|| unreadable(None, None))?;
        let value =
            LeaseValue::decode(&entry.value).map_err(|reason| unreadable(Some(subnets), Some(reason)))?;
        Ok(Self {
            key: entry.key.clone(),
            subnets,
            value,
            mod_revision: entry.mod_revision,
            lease: entry.lease,
        })
    }
}

impl Listing {
    /// Sorts a snapshot of everything under `<prefix>/subnets/`.
    pub fn read(snapshot: &Snapshot) -> Self {
        let mut listing = Self::default();
        for entry in &snapshot.entries {
            match Lease::read(entry) {
                Ok(lease) => listing.leases.push(lease),
                Err(unreadable) => listing.unreadable.push(unreadable),
            }
        }
        listing
    }

    /// Every subnet somebody holds, those with an unreadable value too: their keys are taken.
    pub fn held(&self) -> impl Iterator<Item = Subnets> {
        let unreadable = self.unreadable.iter().filter_map(|entry| entry.subnets);
        self.leases.iter().map(|lease| lease.subnets).chain(unreadable)
    }
}
