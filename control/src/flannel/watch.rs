//! The other nodes' leases: from snapshots and changes to events.
//!
//! The table is what flannel's lease watcher should be. It filters this node's own subnets, emits
//! a kept subnet again when its attributes changed, and steps over keys that are no leases.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::listing::{Lease, Unreadable};
use crate::datastore::{Change, Snapshot};
use crate::model::flannel::{LeaseValue, Subnets};

/// Most peers kept: an overlay of more nodes than a /8 has /24s does not exist, and a datastore
/// gone mad must not eat this node's memory.
pub const MAX_PEERS: usize = 65_536;

/// What happened to another node's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// New, or written again with the same attributes, as every renewal does.
    Added {
        /// The subnets.
        subnets: Subnets,
        /// Who holds them.
        value: LeaseValue,
    },
    /// The same subnets with other attributes: what was programmed for `old` must go.
    Changed {
        /// The subnets.
        subnets: Subnets,
        /// What was known.
        old: LeaseValue,
        /// What holds now.
        new: LeaseValue,
    },
    /// Deleted or expired.
    Removed {
        /// The subnets.
        subnets: Subnets,
        /// What was known; nothing but defaults when the subnets were not.
        value: LeaseValue,
    },
}

/// The events of one update, and what was skipped in it.
#[derive(Debug, Default)]
pub struct Applied {
    /// In the order of the update; a snapshot's removals come last.
    pub events: Vec<LeaseEvent>,
    /// Keys that are no leases. A peer whose value becomes unreadable keeps its last good one.
    pub skipped: Vec<Unreadable>,
    /// Leases not taken in because of [`MAX_PEERS`].
    pub over_limit: usize,
}

/// The leases of all nodes but this one.
#[derive(Clone, Debug)]
pub struct LeaseTable {
    own: Subnets,
    peers: BTreeMap<Subnets, Peer>,
}

#[derive(Clone, Debug)]
struct Peer {
    /// Two spellings can name the same subnets; only the one last written can remove them.
    key: String,
    value: LeaseValue,
}

impl LeaseTable {
    /// Empty, for the node that holds `own`.
    pub const fn new(own: Subnets) -> Self {
        Self { own, peers: BTreeMap::new() }
    }

    /// The leases known, by subnets.
    pub fn peers(&self) -> impl ExactSizeIterator<Item = (&Subnets, &LeaseValue)> {
        self.peers.iter().map(|(subnets, peer)| (subnets, &peer.value))
    }

    /// Replaces everything known by a listing: added = new or different, removed = gone.
    pub fn apply_snapshot(&mut self, snapshot: &Snapshot) -> Applied {
        let mut applied = Applied::default();
        let mut gone = std::mem::take(&mut self.peers);
        for entry in &snapshot.entries {
            match Lease::read(entry) {
                Ok(lease) if lease.subnets == self.own => {}
                Ok(lease) => {
                    let event = match gone.remove(&lease.subnets) {
                        None if self.peers.contains_key(&lease.subnets) => continue,
                        None if self.peers.len() + gone.len() >= MAX_PEERS => {
                            applied.over_limit += 1;
                            continue;
                        }
                        None => {
                            Some(LeaseEvent::Added { subnets: lease.subnets, value: lease.value.clone() })
                        }
                        Some(known) if known.value == lease.value => None,
                        Some(known) => Some(LeaseEvent::Changed {
                            subnets: lease.subnets,
                            old: known.value,
                            new: lease.value.clone(),
                        }),
                    };
                    applied.events.extend(event);
                    self.peers.insert(lease.subnets, Peer { key: lease.key, value: lease.value });
                }
                Err(unreadable) => {
                    if let Some((subnets, known)) =
                        unreadable.subnets.and_then(|subnets| gone.remove_entry(&subnets))
                    {
                        self.peers.insert(subnets, known);
                    }
                    applied.skipped.push(unreadable);
                }
            }
        }
        let removed =
            gone.into_iter().map(|(subnets, peer)| LeaseEvent::Removed { subnets, value: peer.value });
        applied.events.extend(removed);
        applied
    }

    /// Takes in changes that follow the last snapshot or changes.
    pub fn apply_changes(&mut self, changes: &[Change]) -> Applied {
        let mut applied = Applied::default();
        for change in changes {
            self.apply(change, &mut applied);
        }
        applied
    }

    fn apply(&mut self, change: &Change, applied: &mut Applied) {
        let Some(entry) = &change.value else {
            match Subnets::from_key(&change.key) {
                Some(subnets) => applied.events.extend(self.remove(&change.key, subnets)),
                None => {
                    applied.skipped.push(Unreadable { key: change.key.clone(), subnets: None, reason: None });
                }
            }
            return;
        };
        let lease = match Lease::read(entry) {
            Ok(lease) if lease.subnets == self.own => return,
            Ok(lease) => lease,
            Err(unreadable) => return applied.skipped.push(unreadable),
        };
        let (subnets, value) = (lease.subnets, lease.value);
        let full = self.peers.len() >= MAX_PEERS;
        match self.peers.entry(subnets) {
            Entry::Vacant(_) if full => applied.over_limit += 1,
            Entry::Vacant(vacant) => {
                vacant.insert(Peer { key: lease.key, value: value.clone() });
                applied.events.push(LeaseEvent::Added { subnets, value });
            }
            Entry::Occupied(mut known) => {
                let old = known.insert(Peer { key: lease.key, value: value.clone() }).value;
                applied.events.push(if old == value {
                    LeaseEvent::Added { subnets, value }
                } else {
                    LeaseEvent::Changed { subnets, old, new: value }
                });
            }
        }
    }

    fn remove(&mut self, key: &str, subnets: Subnets) -> Option<LeaseEvent> {
        if subnets == self.own {
            return None;
        }
        let value = match self.peers.entry(subnets) {
            Entry::Vacant(_) => LeaseValue::default(),
            Entry::Occupied(known) if known.get().key == key => known.remove().value,
            Entry::Occupied(_) => return None,
        };
        Some(LeaseEvent::Removed { subnets, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::KeyValue;
    use proptest::prelude::*;

    fn subnets(last: &str) -> Subnets {
        Subnets::from_key(last).unwrap()
    }

    fn lease(public_ip: &str) -> LeaseValue {
        LeaseValue { public_ip: public_ip.parse().unwrap(), ..Default::default() }
    }

    fn entry(last: &str, value: &str) -> KeyValue {
        KeyValue {
            key: format!("/net/subnets/{last}"),
            value: value.as_bytes().to_vec(),
            mod_revision: 1,
            lease: Some(1),
        }
    }

    fn held(last: &str, public_ip: &str) -> KeyValue {
        entry(last, &lease(public_ip).encode())
    }

    fn snapshot(entries: &[KeyValue]) -> Snapshot {
        Snapshot { revision: 1, history: 1, entries: entries.to_vec() }
    }

    fn put(entry: KeyValue) -> Change {
        Change { key: entry.key.clone(), value: Some(entry), revision: 2 }
    }

    fn delete(last: &str) -> Change {
        Change { key: format!("/net/subnets/{last}"), value: None, revision: 2 }
    }

    const OWN: &str = "10.5.1.0-24";

    fn table(entries: &[KeyValue]) -> LeaseTable {
        let mut table = LeaseTable::new(subnets(OWN));
        table.apply_snapshot(&snapshot(entries));
        table
    }

    #[test]
    fn a_second_snapshot_emits_what_changed_and_never_the_own_subnet() {
        let mut table = table(&[
            held(OWN, "192.0.2.1"),
            held("10.5.2.0-24", "192.0.2.2"),
            held("10.5.3.0-24", "192.0.2.3"),
            held("10.5.4.0-24", "192.0.2.4"),
        ]);
        let applied = table.apply_snapshot(&snapshot(&[
            held("10.5.2.0-24", "192.0.2.2"),
            held("10.5.3.0-24", "192.0.2.33"),
            held("10.5.5.0-24", "192.0.2.5"),
        ]));
        assert_eq!(
            applied.events,
            [
                LeaseEvent::Changed {
                    subnets: subnets("10.5.3.0-24"),
                    old: lease("192.0.2.3"),
                    new: lease("192.0.2.33")
                },
                LeaseEvent::Added { subnets: subnets("10.5.5.0-24"), value: lease("192.0.2.5") },
                LeaseEvent::Removed { subnets: subnets("10.5.4.0-24"), value: lease("192.0.2.4") },
            ]
        );
    }

    #[test]
    fn a_changed_peer_is_told_with_what_it_was() {
        let mut table = table(&[held("10.5.2.0-24", "192.0.2.2")]);
        let applied = table.apply_changes(&[put(held("10.5.2.0-24", "192.0.2.22"))]);
        let expected = LeaseEvent::Changed {
            subnets: subnets("10.5.2.0-24"),
            old: lease("192.0.2.2"),
            new: lease("192.0.2.22"),
        };
        assert_eq!(applied.events, [expected]);
    }

    #[test]
    fn junk_keys_change_nothing() {
        let mut table = table(&[held("10.5.2.0-24", "192.0.2.2")]);
        let applied = table.apply_changes(&[put(entry("junk", "{}")), delete("junk")]);
        assert!(applied.events.is_empty());
        assert_eq!(applied.skipped.len(), 2);
        assert_eq!(table.peers().len(), 1);
    }

    #[test]
    fn a_peer_whose_value_breaks_keeps_the_last_good_one() {
        let mut table = table(&[held("10.5.2.0-24", "192.0.2.2")]);
        let broken = entry("10.5.2.0-24", "{\"PublicIP\":");
        let applied = table.apply_changes(&[put(broken.clone())]);
        assert!(applied.events.is_empty() && applied.skipped.len() == 1);
        let applied = table.apply_snapshot(&snapshot(&[broken]));
        assert!(applied.events.is_empty() && applied.skipped.len() == 1);
        assert_eq!(table.peers().next(), Some((&subnets("10.5.2.0-24"), &lease("192.0.2.2"))));
    }

    #[test]
    fn another_spelling_of_a_key_does_not_remove_the_lease() {
        let mut table = table(&[held("10.5.2.0-24", "192.0.2.2")]);
        let applied = table.apply_changes(&[delete("old-10.5.2.0-24")]);
        assert!(applied.events.is_empty());
        assert_eq!(table.peers().len(), 1);
    }

    #[test]
    fn the_own_key_is_not_a_peer() {
        let mut table = table(&[]);
        let applied = table.apply_changes(&[put(held(OWN, "192.0.2.9")), delete(OWN)]);
        assert!(applied.events.is_empty());
        assert_eq!(table.peers().len(), 0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Snapshot(BTreeMap<u8, u8>),
        Put(u8, u8),
        Delete(u8),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            prop::collection::btree_map(0u8..6, 0u8..3, 0..6).prop_map(Step::Snapshot),
            (0u8..6, 0u8..3).prop_map(|(subnet, node)| Step::Put(subnet, node)),
            (0u8..6).prop_map(Step::Delete),
        ]
    }

    fn key(subnet: u8) -> String {
        format!("10.5.{subnet}.0-24")
    }

    fn node(node: u8) -> String {
        format!("192.0.2.{node}")
    }

    proptest! {
        /// Whoever follows only the events knows the same leases as the datastore has.
        #[test]
        fn events_replay_to_the_truth(steps in prop::collection::vec(any_step(), 0..20)) {
            let own = 1u8;
            let mut table = LeaseTable::new(subnets(&key(own)));
            let mut truth = BTreeMap::<u8, u8>::new();
            let mut replayed = BTreeMap::<Subnets, LeaseValue>::new();
            for step in &steps {
                let applied = match step {
                    Step::Snapshot(all) => {
                        truth = all.clone();
                        let entries: Vec<_> = all.iter().map(|(s, n)| held(&key(*s), &node(*n))).collect();
                        table.apply_snapshot(&snapshot(&entries))
                    }
                    Step::Put(s, n) => {
                        truth.insert(*s, *n);
                        table.apply_changes(&[put(held(&key(*s), &node(*n)))])
                    }
                    Step::Delete(s) => {
                        truth.remove(s);
                        table.apply_changes(&[delete(&key(*s))])
                    }
                };
                for event in applied.events {
                    match event {
                        LeaseEvent::Added { subnets, value } => {
                            replayed.insert(subnets, value);
                        }
                        LeaseEvent::Changed { subnets, old, new } => {
                            prop_assert_eq!(replayed.insert(subnets, new), Some(old));
                        }
                        LeaseEvent::Removed { subnets, value } => {
                            prop_assert_eq!(replayed.remove(&subnets).unwrap_or_default(), value);
                        }
                    }
                }
                let expected: BTreeMap<_, _> = truth
                    .iter()
                    .filter(|(s, _)| **s != own)
                    .map(|(s, n)| (subnets(&key(*s)), lease(&node(*n))))
                    .collect();
                prop_assert_eq!(&replayed, &expected, "after {:?}", step);
                let kept: BTreeMap<_, _> = table.peers().map(|(s, v)| (*s, v.clone())).collect();
                prop_assert_eq!(&kept, &expected, "after {:?}", step);
            }
        }
    }
}
