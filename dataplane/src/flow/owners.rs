//! Whose connections fill the table: a count, and a list of the unanswered ones, for everyone who opens any.

use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::entry::{Entry, FlowId, NONE};
use crate::port::IfIndex;

/// Who opened a connection, as far as room in the table is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner(u32);

/// The two highest bits tell the kinds of owner apart.
const KIND: u32 = 3 << 30;
const NODE: u32 = 1 << 30;

impl Owner {
    /// This host, which nobody limits.
    pub const HOST: Self = Self(2 << 30);
    /// All peers with direct routing together.
    pub const DIRECT: Self = Self(NODE);

    /// A local workload, by its endpoint's serial.
    #[inline]
    pub fn workload(serial: u32) -> Self {
        Self(serial & !KIND)
    }

    /// All hosts behind a gateway interface, which counts as a node.
    pub fn gateway(ifindex: IfIndex) -> Self {
        Self::number(ifindex ^ 0x8000_0000)
    }

    /// A remote node with all its workloads, by its VTEP's outer address. Two nodes whose addresses fold to one number
    /// share a quota, which nobody can bring about from outside: outer addresses come from the datastore.
    pub fn vtep(outer: IpAddr) -> Self {
        let folded = match outer {
            IpAddr::V4(a) => a.to_bits(),
            IpAddr::V6(a) => {
                let half = (a.to_bits() >> 64) as u64 ^ a.to_bits() as u64;
                (half >> 32) as u32 ^ half as u32
            }
        };
        Self::number(folded)
    }

    /// Two bits must go: those of an odd multiple say nearly as much with 30 as the number with 32.
    fn number(number: u32) -> Self {
        Self(number.wrapping_mul(0x9e37_79b1) >> 2 | NODE)
    }
}

/// How many entries one owner may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// A local workload.
    pub workload: usize,
    /// A remote node, all direct peers together, or all hosts behind a gateway interface.
    pub node: usize,
}

impl Quota {
    /// Fewer than this hinder a workload that is busy and not hostile.
    const FLOOR: usize = 1024;

    /// What is fair in a table of `capacity` entries: an eighth for a workload, at least 1,024; half for a node, which
    /// speaks for many.
    pub fn of(capacity: usize) -> Self {
        Self { workload: (capacity / 8).max(Self::FLOOR), node: (capacity / 2).max(Self::FLOOR) }
    }

    fn limit(self, owner: Owner) -> usize {
        match owner.0 & KIND {
            0 => self.workload,
            NODE => self.node,
            _ => usize::MAX,
        }
    }
}

/// Everyone who has entries.
#[derive(Debug)]
pub(super) struct Owners {
    quota: Quota,
    places: Vec<Place>,
    /// Places without entries.
    free: Vec<u16>,
    by_owner: HashMap<Owner, u16, FixedState>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    owner: Owner,
    entries: u32,
    /// Ends of the list of unanswered entries.
    oldest: FlowId,
    newest: FlowId,
}

impl Owners {
    pub fn new(quota: Quota) -> Self {
        Self { quota, places: Vec::new(), free: Vec::new(), by_owner: HashMap::default() }
    }

    /// The owner's place; a new one if it has no entries. `None` when there are 65,536 owners already.
    pub fn place(&mut self, owner: Owner) -> Option<u16> {
        if let Some(place) = self.by_owner.get(&owner) {
            return Some(*place);
        }
        let fresh = Place { owner, entries: 0, oldest: NONE, newest: NONE };
        let place = match self.free.pop() {
            Some(place) => {
                self.places[usize::from(place)] = fresh;
                place
            }
            None => {
                let place = u16::try_from(self.places.len()).ok()?;
                self.places.push(fresh);
                place
            }
        };
        self.by_owner.insert(owner, place);
        Some(place)
    }

    /// Gives a place back that has no entries.
    pub fn release_if_empty(&mut self, place: u16) {
        let Place { owner, entries, .. } = self.places[usize::from(place)];
        if entries == 0 {
            self.by_owner.remove(&owner);
            self.free.push(place);
        }
    }

    /// May it have no more?
    pub fn is_full(&self, place: u16) -> bool {
        let Place { owner, entries, .. } = self.places[usize::from(place)];
        entries as usize >= self.quota.limit(owner)
    }

    /// Its unanswered entry that has waited longest.
    pub fn oldest_unanswered(&self, place: u16) -> Option<FlowId> {
        Some(self.places[usize::from(place)].oldest).filter(|id| *id != NONE)
    }

    /// Local workloads that have entries: serial, how many. In no order.
    pub fn workloads(&self) -> impl Iterator<Item = (u32, u32)> {
        let places = self.places.iter().filter(|place| place.owner.0 & KIND == 0 && place.entries > 0);
        places.map(|place| (place.owner.0, place.entries))
    }

    /// Counts a new entry; it must say in `owner` where.
    pub fn add(&mut self, entries: &mut [Entry], id: FlowId) {
        let place = &mut self.places[usize::from(entries[id as usize].owner)];
        place.entries += 1;
        if entries[id as usize].is_answered() {
            return;
        }
        let older = place.newest;
        place.newest = id;
        entries[id as usize].set_siblings(older, NONE);
        if older == NONE {
            place.oldest = id;
        } else {
            let (before, _) = entries[older as usize].siblings();
            entries[older as usize].set_siblings(before, id);
        }
    }

    /// The entry is about to be answered: it is unanswered no more.
    pub fn answered(&mut self, entries: &mut [Entry], id: FlowId) {
        let (older, newer) = entries[id as usize].siblings();
        let place = &mut self.places[usize::from(entries[id as usize].owner)];
        if older == NONE {
            place.oldest = newer;
        } else {
            let (before, _) = entries[older as usize].siblings();
            entries[older as usize].set_siblings(before, newer);
        }
        if newer == NONE {
            place.newest = older;
        } else {
            let (_, after) = entries[newer as usize].siblings();
            entries[newer as usize].set_siblings(older, after);
        }
        entries[id as usize].forget_siblings();
    }

    /// The entry is about to go.
    pub fn remove(&mut self, entries: &mut [Entry], id: FlowId) {
        let place = entries[id as usize].owner;
        if !entries[id as usize].is_answered() {
            self.answered(entries, id);
        }
        self.places[usize::from(place)].entries -= 1;
        self.release_if_empty(place);
    }
}
