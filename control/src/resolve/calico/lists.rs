//! One value for equal lists: endpoints with the same policies share what the dataplane compiles of them.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use canal_dataplane::spec::policy::{PolicyList, RuleSet, Tier};

/// Lists in use. Lists are equal here when they hold the very same rule sets, which are shared already.
#[derive(Debug, Default)]
pub struct Lists {
    by_hash: HashMap<u64, Vec<Arc<PolicyList>>>,
}

impl Lists {
    /// The shared value of a list.
    pub fn intern(&mut self, list: PolicyList) -> Arc<PolicyList> {
        let shared = self.by_hash.entry(fingerprint(&list)).or_default();
        if let Some(have) = shared.iter().find(|have| same(have, &list)) {
            return Arc::clone(have);
        }
        let list = Arc::new(list);
        shared.push(Arc::clone(&list));
        list
    }

    /// Forgets lists that nobody else has.
    pub fn sweep(&mut self) {
        self.by_hash.retain(|_, shared| {
            shared.retain(|list| Arc::strong_count(list) > 1);
            !shared.is_empty()
        });
    }
}

fn fingerprint(list: &PolicyList) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut add = |rules: &Arc<RuleSet>| Arc::as_ptr(rules).hash(&mut hasher);
    list.tiers.iter().flat_map(|tier| &tier.policies).chain(&list.profiles).for_each(&mut add);
    hasher.finish()
}

fn same(a: &PolicyList, b: &PolicyList) -> bool {
    let rules = |a: &[Arc<RuleSet>], b: &[Arc<RuleSet>]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
    };
    let tier = |(a, b): (&Tier, &Tier)| a.name == b.name && a.end == b.end && rules(&a.policies, &b.policies);
    a.tiers.len() == b.tiers.len()
        && a.tiers.iter().zip(&b.tiers).all(tier)
        && rules(&a.profiles, &b.profiles)
}

#[cfg(test)]
mod tests {
    use canal_dataplane::spec::policy::{PolicyDirection, TierEnd};

    use super::*;

    #[test]
    fn equal_lists_are_one_value_while_somebody_has_it() {
        let rules = PolicyList::allow_all(PolicyDirection::Ingress).profiles;
        let list = |end| PolicyList {
            tiers: vec![Tier { name: "default".into(), end, policies: rules.clone() }],
            profiles: rules.clone(),
        };
        let mut lists = Lists::default();
        let [a, b] = [TierEnd::Deny, TierEnd::Deny].map(|end| lists.intern(list(end)));
        assert!(Arc::ptr_eq(&a, &b));
        assert!(!Arc::ptr_eq(&a, &lists.intern(list(TierEnd::Pass))));
        lists.sweep();
        assert_eq!(lists.by_hash.values().map(Vec::len).sum::<usize>(), 1);
    }
}
