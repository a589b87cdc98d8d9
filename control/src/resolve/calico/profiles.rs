//! The profiles that local endpoints have.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use canal_dataplane::spec::policy::{Origin, OriginKind, PolicyDirection, RuleSet};

use super::ip_sets::IpSets;
use super::label_index::ObjectId;
use super::rule_sets::{Held, Released};
use super::rules;
use crate::model::calico::resources::{Action, Profile, Rule};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Profiles {
    stored: HashMap<String, Arc<Profile>>,
    active: BTreeMap<String, Active>,
    dirty: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Active {
    endpoints: BTreeSet<ObjectId>,
    ingress: Option<Held>,
    egress: Option<Held>,
}

impl Profiles {
    /// Replaces a profile.
    pub fn set(&mut self, name: &str, profile: Option<Arc<Profile>>) {
        match profile {
            Some(profile) => self.stored.insert(name.to_owned(), profile),
            None => self.stored.remove(name),
        };
        if self.active.contains_key(name) {
            self.dirty.insert(name.to_owned());
        }
    }

    /// What is stored under a name.
    pub fn get(&self, name: &str) -> Option<&Arc<Profile>> {
        self.stored.get(name)
    }

    /// Names of those stored.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.stored.keys()
    }

    /// A local endpoint has these profiles now.
    pub fn set_endpoint(&mut self, endpoint: ObjectId, before: &[Arc<str>], now: &[Arc<str>]) {
        for name in before {
            if let Some(active) = self.active.get_mut(&**name)
                && active.endpoints.remove(&endpoint)
                && active.endpoints.is_empty()
            {
                self.dirty.insert(name.to_string());
            }
        }
        for name in now {
            let active = self.active.entry(name.to_string()).or_insert_with(|| {
                self.dirty.insert(name.to_string());
                Active::default()
            });
            active.endpoints.insert(endpoint);
        }
    }

    /// Compiles what has changed; the endpoints concerned are added to `endpoints`, active names kept in `active` and
    /// what is missing in `missing`.
    pub fn flush(
        &mut self,
        sets: &mut IpSets,
        released: &mut Released,
        endpoints: &mut BTreeSet<ObjectId>,
        mut report: impl FnMut(&str, Presence),
    ) {
        for name in std::mem::take(&mut self.dirty) {
            let Some(active) = self.active.get_mut(&name) else { continue };
            if active.endpoints.is_empty() {
                let gone = self.active.remove(&name).into_iter();
                let held = gone.flat_map(|active| [active.ingress, active.egress]).flatten();
                held.for_each(|held| held.release(released));
                report(&name, Presence::Unused);
                continue;
            }
            let stored = self.stored.get(&name).map(|profile| &**profile);
            let [ingress, egress] = halves(&name, stored);
            Held::renew(&mut active.ingress, Some(ingress), sets, released);
            Held::renew(&mut active.egress, Some(egress), sets, released);
            endpoints.extend(&active.endpoints);
            let exists = stored.is_some() || name == Profile::DEFAULT_ALLOW;
            report(&name, if exists { Presence::Active } else { Presence::Missing });
        }
    }

    /// Rules of an active profile.
    pub fn rules(&self, name: &str, direction: PolicyDirection) -> Option<&Arc<RuleSet>> {
        let active = self.active.get(name)?;
        let held = match direction {
            PolicyDirection::Ingress => &active.ingress,
            PolicyDirection::Egress => &active.egress,
        };
        held.as_ref().map(|held| &held.rules)
    }
}

/// How a profile is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// No local endpoint has it any more.
    Unused,
    /// It is asked.
    Active,
    /// Endpoints have it, the datastore does not: it denies everything.
    Missing,
}

/// Both directions of a profile, ingress first. One that does not exist denies everything, so that profiles after it
/// are never asked (Felix does the same).
pub fn halves(name: &str, stored: Option<&Profile>) -> [rules::Compiled; 2] {
    let name: Arc<str> = name.into();
    let origin = |direction| Origin { kind: OriginKind::Profile, name: Arc::clone(&name), direction };
    let both = |action| {
        let rule = [Rule::any(action)];
        [PolicyDirection::Ingress, PolicyDirection::Egress]
            .map(|direction| rules::compile(origin(direction), &rule))
    };
    match stored {
        _ if *name == *Profile::DEFAULT_ALLOW => both(Action::Allow),
        None => both(Action::Deny),
        Some(profile) => [
            rules::compile(origin(PolicyDirection::Ingress), &profile.ingress),
            rules::compile(origin(PolicyDirection::Egress), &profile.egress),
        ],
    }
}
