//! Address classes: addresses that are in the same sets are one to every rule.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashSet;

/// Number of a set, for as long as anything refers to it; never used again afterwards.
pub type SetNumber = u32;

/// One membership of an address: of a set, or with a protocol and port of a set of those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Membership(u64);

const WITH_PORT: u64 = 1 << 31;

impl Membership {
    /// The address is in the set.
    pub fn address(set: SetNumber) -> Self {
        Self(u64::from(set) << 32)
    }

    /// The address with this protocol and port is in the set.
    pub fn port(set: SetNumber, protocol: u8, port: u16) -> Self {
        Self(u64::from(set) << 32 | WITH_PORT | u64::from(protocol) << 16 | u64::from(port))
    }

    /// The set.
    pub fn set(self) -> SetNumber {
        (self.0 >> 32) as u32
    }
}

/// What all addresses of a class have in common.
#[derive(Debug)]
pub struct Class {
    /// Its name: of all classes ever made from one [`Classes`], no other has it. 0 is that of addresses in no set.
    pub serial: u64,
    /// Sorted; not empty.
    memberships: Box<[Membership]>,
}

impl Class {
    /// Is the address in this set?
    pub fn contains(&self, set: SetNumber) -> bool {
        self.memberships.binary_search(&Membership::address(set)).is_ok()
    }

    /// Ports that the address has in this set for a protocol, ascending.
    pub fn ports(&self, set: SetNumber, protocol: u8) -> impl Iterator<Item = u16> {
        let (first, last) = (Membership::port(set, protocol, 0), Membership::port(set, protocol, u16::MAX));
        let from = self.memberships.partition_point(|membership| *membership < first);
        let members = self.memberships[from..].iter().take_while(move |membership| **membership <= last);
        members.map(|membership| membership.0 as u16)
    }

    /// Sets it is in, each once.
    pub fn sets(&self) -> impl Iterator<Item = SetNumber> {
        let mut last = None;
        let sets = self.memberships.iter().map(|membership| membership.set());
        sets.filter(move |set| last.replace(*set) != Some(*set))
    }
}

/// A class, found by what it is.
#[derive(Debug)]
struct ByMemberships(Arc<Class>);

impl Borrow<[Membership]> for ByMemberships {
    fn borrow(&self) -> &[Membership] {
        &self.0.memberships
    }
}

impl Hash for ByMemberships {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.memberships.hash(state);
    }
}

impl PartialEq for ByMemberships {
    fn eq(&self, other: &Self) -> bool {
        self.0.memberships == other.0.memberships
    }
}

impl Eq for ByMemberships {}

/// Every class that is in use, each once.
#[derive(Debug, Default)]
pub struct Classes {
    known: HashSet<ByMemberships, FixedState>,
    last_serial: u64,
    /// Forget what nobody uses when there are more than this.
    tidy_at: usize,
}

/// Below this many classes there is nothing worth tidying.
const TIDY_FROM: usize = 1024;

/// A membership that begins (`true`) or ends.
pub type Change = (Membership, bool);

impl Classes {
    /// The class of an address of class `before` after some changes; `None` = the address is in no set.
    pub fn after(&mut self, before: Option<&Arc<Class>>, changes: &[Change]) -> Option<Arc<Class>> {
        let mut memberships = before.map_or_else(Vec::new, |class| class.memberships.to_vec());
        for (membership, begins) in changes {
            match (memberships.binary_search(membership), begins) {
                (Err(at), true) => memberships.insert(at, *membership),
                (Ok(at), false) => drop(memberships.remove(at)),
                (Ok(_), true) | (Err(_), false) => {}
            }
        }
        (!memberships.is_empty()).then(|| self.of(memberships))
    }

    fn of(&mut self, memberships: Vec<Membership>) -> Arc<Class> {
        if let Some(known) = self.known.get(&memberships[..]) {
            return Arc::clone(&known.0);
        }
        if self.known.len() >= self.tidy_at.max(TIDY_FROM) {
            self.known.retain(|class| Arc::strong_count(&class.0) > 1);
            self.tidy_at = self.known.len() * 2;
        }
        self.last_serial += 1;
        let class = Arc::new(Class { serial: self.last_serial, memberships: memberships.into() });
        self.known.insert(ByMemberships(Arc::clone(&class)));
        class
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_one_for_all_addresses_with_the_same_memberships() {
        let mut classes = Classes::default();
        let (a, b) = (Membership::address(1), Membership::port(2, 6, 0));
        let one = classes.after(None, &[(a, true), (b, true)]).unwrap();
        let two = classes.after(None, &[(b, true)]);
        let two = classes.after(two.as_ref(), &[(a, true)]).unwrap();
        assert!(Arc::ptr_eq(&one, &two));
        assert!(one.contains(1) && !one.contains(2));
        assert_eq!(one.ports(2, 6).collect::<Vec<_>>(), [0]);
        assert_eq!(one.ports(2, 17).count(), 0);
        assert_eq!(one.sets().collect::<Vec<_>>(), [1, 2]);
        assert!(classes.after(Some(&one), &[(a, false), (b, false)]).is_none());
    }

    #[test]
    fn classes_that_nobody_uses_are_forgotten_and_their_serials_are_not_used_again() {
        let mut classes = Classes::default();
        let first = classes.after(None, &[(Membership::address(0), true)]).unwrap();
        for set in 1..10_000 {
            classes.after(None, &[(Membership::address(set), true)]);
        }
        assert!(classes.known.len() <= 2 * TIDY_FROM, "{}", classes.known.len());
        let again = classes.after(None, &[(Membership::address(0), true)]).unwrap();
        assert_eq!(again.serial, first.serial);
        let other = classes.after(None, &[(Membership::address(1), true)]).unwrap();
        assert_eq!(other.serial, 10_001);
    }
}
