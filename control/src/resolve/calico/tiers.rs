//! Tiers, and the order of policies.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use canal_dataplane::spec::policy::TierEnd;

use crate::model::calico::resources::{Policy, PolicyKey, Tier};

/// The tier that is there even if nobody wrote it: datastores before Calico 3.29 have no tiers at all.
pub const DEFAULT_TIER: &str = "default";

/// Order of [`DEFAULT_TIER`] while it is not stored.
const DEFAULT_ORDER: f64 = 1_000_000.0;

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Tiers(BTreeMap<Arc<str>, Tier>);

impl Default for Tiers {
    fn default() -> Self {
        Self([(DEFAULT_TIER.into(), built_in())].into())
    }
}

const fn built_in() -> Tier {
    Tier { order: DEFAULT_ORDER, ends_with_pass: false }
}

impl Tiers {
    /// Replaces a tier; `None` removes it, of [`DEFAULT_TIER`] what was written about it.
    pub fn set(&mut self, name: &str, tier: Option<Tier>) {
        match tier.or((name == DEFAULT_TIER).then(built_in)) {
            Some(tier) => self.0.insert(name.into(), tier),
            None => self.0.remove(name),
        };
    }

    /// Names of all there are.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| &**name)
    }

    /// The tier's name, for sharing, and what happens at its end.
    pub fn get(&self, name: &str) -> Option<(&Arc<str>, TierEnd)> {
        let (name, tier) = self.0.get_key_value(name)?;
        Some((name, if tier.ends_with_pass { TierEnd::Pass } else { TierEnd::Deny }))
    }

    /// Which of two policies is asked first: by their tiers' order and name, then by their own order, then by name.
    /// Those of tiers that do not exist come last.
    pub fn compare(&self, a: (&PolicyKey, &Policy), b: (&PolicyKey, &Policy)) -> Ordering {
        let tier = |policy: &Policy| self.0.get(&*policy.tier).map_or(f64::INFINITY, |tier| tier.order);
        ascending(tier(a.1), tier(b.1))
            .then_with(|| a.1.tier.cmp(&b.1.tier))
            .then_with(|| {
                let order = |policy: &Policy| policy.order.unwrap_or(f64::INFINITY);
                ascending(order(a.1), order(b.1))
            })
            .then_with(|| a.0.cmp(b.0))
    }
}

/// Both zeros are equal, as in Go.
fn ascending(a: f64, b: f64) -> Ordering {
    (a + 0.0).total_cmp(&(b + 0.0))
}
