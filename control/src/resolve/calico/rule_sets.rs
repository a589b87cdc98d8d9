//! Compiled rules that stay the same value while they say the same, and hold on to the sets they name.

use std::sync::Arc;

use canal_dataplane::spec::policy::{RuleSet, SetId};

use super::ip_sets::IpSets;
use super::rules::Compiled;

/// The rules of one object for one direction.
#[derive(Debug)]
pub struct Held {
    /// For the dataplane.
    pub rules: Arc<RuleSet>,
    /// As often as the rules name them.
    sets: Vec<SetId>,
}

/// What has to be let go once everything new has been taken: a set in use by both stays the same set.
pub type Released = Vec<SetId>;

impl Held {
    /// Takes the place of what was held before; the same `Arc` if the rules are the same.
    pub fn renew(
        before: &mut Option<Self>,
        now: Option<Compiled>,
        sets: &mut IpSets,
        released: &mut Released,
    ) {
        let renewed = now.map(|Compiled { rules, sets: definitions, .. }| {
            definitions.iter().for_each(|set| sets.acquire(set));
            let same = before.as_ref().filter(|held| *held.rules == rules);
            let rules = same.map_or_else(|| Arc::new(rules), |held| Arc::clone(&held.rules));
            Self { rules, sets: definitions.into_iter().map(|set| set.id).collect() }
        });
        if let Some(old) = std::mem::replace(before, renewed) {
            old.release(released);
        }
    }

    /// It is not needed any more.
    pub fn release(self, released: &mut Released) {
        released.extend(self.sets);
    }
}

/// Lets sets go.
pub fn release(released: Released, sets: &mut IpSets) {
    released.iter().for_each(|id| sets.release(id));
}
