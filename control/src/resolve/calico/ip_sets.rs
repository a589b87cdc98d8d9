//! The sets that active rules name, with their members.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use canal_dataplane::spec::policy::{IpSet, Members, SetId};
use ipnetwork::IpNetwork;

use super::label_index::{LabelIndex, Match, ObjectId, SelectorId};
use super::members::{Member, Object};
use super::services::{ServiceSlice, Services};
use super::set_definition::{SetContent, SetDefinition};
use super::slots::Slots;
use super::tally::Tally;
use crate::model::calico::resources::Labels;

type SlotId = u32;

/// Sets that nobody names any more and that are kept up to date all the same, the largest: the policies that named them may
/// be about the only endpoint here, which comes back, and to find all endpoints of a cluster again takes long.
const IDLE: usize = 8;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct IpSets {
    index: LabelIndex,
    objects: HashMap<ObjectId, Object>,
    sets: Slots<Set>,
    by_id: HashMap<SetId, SlotId>,
    by_selector: HashMap<SelectorId, Vec<SlotId>>,
    by_service: HashMap<Arc<str>, Vec<SlotId>>,
    services: Services,
    /// Sets without users, as many as [`IDLE`].
    idle: Vec<SlotId>,
    /// Sets with changes that their member lists do not show yet.
    dirty: BTreeSet<SlotId>,
    /// Sets that lost their last user since the last flush.
    gone: Vec<SetId>,
    /// Kept from call to call for its memory.
    matches: Vec<Match>,
}

#[derive(Debug)]
struct Set {
    content: SetContent,
    selector: Option<SelectorId>,
    users: usize,
    members: Counted,
    /// As of the last flush.
    published: Arc<IpSet>,
}

#[derive(Debug)]
enum Counted {
    Nets(Tally<IpNetwork>),
    Ports(Tally<Member>),
}

impl Set {
    /// Whether so many changes are left to bring to the member list that it is time.
    fn is_behind(&self) -> bool {
        let pending = match &self.members {
            Counted::Nets(tally) => tally.pending(),
            Counted::Ports(tally) => tally.pending(),
        };
        pending > self.published.members.count() / 4
    }
}

impl IpSets {
    /// Learns of an object, or of its new state.
    pub fn set_object(&mut self, id: ObjectId, object: Object) {
        let mut matches = std::mem::take(&mut self.matches);
        let before = self.objects.get(&id).filter(|old| !old.gives_as(&object)).cloned();
        if let Some(before) = before {
            let selections = self.index.selections(id).to_vec();
            selections.iter().for_each(|selector| self.give(*selector, &before, -1));
            self.index.set_object(id, object.labels(), object.profiles(), &mut matches);
            let selections = self.index.selections(id).to_vec();
            selections.iter().for_each(|selector| self.give(*selector, &object, 1));
            self.objects.insert(id, object);
            matches.clear();
        } else {
            self.index.set_object(id, object.labels(), object.profiles(), &mut matches);
            self.objects.insert(id, object);
        }
        self.follow(matches);
    }

    /// An object as it is known.
    pub fn object(&self, id: ObjectId) -> Option<&Object> {
        self.objects.get(&id)
    }

    /// Forgets an object.
    pub fn remove_object(&mut self, id: ObjectId) {
        let mut matches = std::mem::take(&mut self.matches);
        self.index.remove_object(id, &mut matches);
        self.follow(matches);
        self.objects.remove(&id);
    }

    /// Labels that a profile gives; `None` = there is no such profile.
    pub fn set_profile(&mut self, name: &str, labels: Option<&Arc<Labels>>) {
        let mut matches = std::mem::take(&mut self.matches);
        self.index.set_parent(name, labels, &mut matches);
        self.follow(matches);
    }

    /// Some endpoints of a service.
    pub fn set_service_slice(&mut self, slice: &str, value: Option<Arc<ServiceSlice>>) {
        let old = self.services.set(slice, value.clone());
        for (slice, change) in [(old, -1), (value, 1)] {
            let Some(slice) = slice else { continue };
            for slot in self.by_service.get(&*slice.service).into_iter().flatten() {
                give_service(&mut self.sets[*slot].members, &slice, change);
                self.dirty.insert(*slot);
            }
        }
    }

    /// One more rule names this set.
    pub fn acquire(&mut self, definition: &SetDefinition) {
        if let Some(slot) = self.by_id.get(&definition.id).copied() {
            self.sets[slot].users += 1;
            if self.sets[slot].users == 1 {
                self.idle.retain(|idle| *idle != slot);
                self.dirty.insert(slot);
            }
            return;
        }
        let with_ports = matches!(
            definition.content,
            SetContent::NamedPort { .. } | SetContent::Service { with_ports: true, .. }
        );
        let (members, empty) = if with_ports {
            (Counted::Ports(Tally::default()), Members::Ports(Vec::new()))
        } else {
            (Counted::Nets(Tally::default()), Members::Nets(Vec::new()))
        };
        let selector = match &definition.content {
            SetContent::Selected(selector) | SetContent::NamedPort { selector, .. } => {
                Some(self.index.acquire(selector))
            }
            SetContent::Service { .. } => None,
        };
        let published = Arc::new(IpSet { id: Arc::clone(&definition.id), members: empty });
        let content = definition.content.clone();
        let slot = self.sets.insert(Set { content, selector, users: 1, members, published });
        self.by_id.insert(Arc::clone(&definition.id), slot);
        self.fill(slot);
    }

    /// One rule less names it.
    pub fn release(&mut self, id: &SetId) {
        let Some(slot) = self.by_id.get(id).copied() else { return };
        let set = &mut self.sets[slot];
        set.users -= 1;
        if set.users > 0 {
            return;
        }
        self.gone.push(Arc::clone(id));
        self.idle.push(slot);
        let members = |slot: &SlotId| self.sets[*slot].published.members.count();
        if self.idle.len() > IDLE
            && let Some(smallest) = self.idle.iter().copied().min_by_key(members)
        {
            self.discard(smallest);
        }
    }

    /// Lets go of a set without users.
    fn discard(&mut self, slot: SlotId) {
        let Some(set) = self.sets.remove(slot) else { return };
        self.by_id.remove(&set.published.id);
        self.idle.retain(|idle| *idle != slot);
        self.dirty.remove(&slot);
        if let Some(selector) = set.selector {
            forget(&mut self.by_selector, &selector, slot);
            self.index.release(selector);
        }
        if let SetContent::Service { name, .. } = &set.content {
            forget(&mut self.by_service, name, slot);
        }
    }

    /// Brings `sets` up to date. Sets without a change keep their `Arc`.
    pub fn flush(&mut self, sets: &mut BTreeMap<SetId, Arc<IpSet>>) {
        for id in self.gone.drain(..) {
            sets.remove(&id);
        }
        for slot in std::mem::take(&mut self.dirty) {
            let set = &mut self.sets[slot];
            if set.users == 0 && !set.is_behind() {
                continue;
            }
            let members = match (&mut set.members, &set.published.members) {
                (Counted::Nets(tally), Members::Nets(nets)) => tally.settle(nets).map(Members::Nets),
                (Counted::Ports(tally), Members::Ports(ports)) => tally.settle(ports).map(Members::Ports),
                _ => unreachable!("a set's kind is that of its content"),
            };
            if let Some(members) = members {
                set.published = Arc::new(IpSet { id: Arc::clone(&set.published.id), members });
            }
            if set.users > 0 {
                sets.insert(Arc::clone(&set.published.id), Arc::clone(&set.published));
            }
        }
    }

    /// Services that rules name and nobody has told anything about.
    pub fn unknown_services(&self) -> impl Iterator<Item = &Arc<str>> {
        let named =
            self.by_service.iter().filter(|(_, slots)| slots.iter().any(|slot| self.sets[*slot].users > 0));
        named.map(|(service, _)| service).filter(|service| self.services.slices(service).next().is_none())
    }

    fn fill(&mut self, slot: SlotId) {
        self.dirty.insert(slot);
        let set = &mut self.sets[slot];
        if let Some(selector) = set.selector {
            for object in self.index.objects(selector) {
                give(set, &self.objects[&object], 1);
            }
            self.by_selector.entry(selector).or_default().push(slot);
        }
        if let SetContent::Service { name, .. } = &set.content {
            for slice in self.services.slices(name) {
                give_service(&mut set.members, slice, 1);
            }
            self.by_service.entry(Arc::clone(name)).or_default().push(slot);
        }
    }

    fn follow(&mut self, mut matches: Vec<Match>) {
        for Match { selector, object, begins } in matches.drain(..) {
            let change = if begins { 1 } else { -1 };
            for slot in self.by_selector.get(&selector).into_iter().flatten() {
                give(&mut self.sets[*slot], &self.objects[&object], change);
                self.dirty.insert(*slot);
            }
        }
        self.matches = matches;
    }

    /// Adds what an object has to the sets of a selector, or takes it away.
    fn give(&mut self, selector: SelectorId, object: &Object, change: i32) {
        for slot in self.by_selector.get(&selector).into_iter().flatten() {
            give(&mut self.sets[*slot], object, change);
            self.dirty.insert(*slot);
        }
    }
}

fn give(set: &mut Set, object: &Object, change: i32) {
    match (&mut set.members, &set.content) {
        (Counted::Ports(tally), SetContent::NamedPort { protocol, name, .. }) => {
            object.ports(*protocol, name).for_each(|member| tally.count(member, change));
        }
        (Counted::Nets(tally), _) => object.nets().for_each(|net| tally.count(net, change)),
        _ => unreachable!("objects give nothing to services"),
    }
}

fn give_service(members: &mut Counted, slice: &ServiceSlice, change: i32) {
    match members {
        Counted::Nets(tally) => {
            slice.addresses.iter().for_each(|address| tally.count((*address).into(), change));
        }
        Counted::Ports(tally) => slice.ports.iter().for_each(|member| tally.count(*member, change)),
    }
}

fn forget<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Vec<SlotId>>, key: &K, slot: SlotId) {
    let Some(slots) = map.get_mut(key) else { return };
    slots.retain(|have| *have != slot);
    if slots.is_empty() {
        map.remove(key);
    }
}
