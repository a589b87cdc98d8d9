//! Whom to ask about an endpoint's packets, in which order.

use std::sync::Arc;

use canal_dataplane::spec::policy::PolicyDirection::{Egress, Ingress};
use canal_dataplane::spec::policy::{EndpointPolicy, HostPolicy, PolicyDirection, PolicyList, RuleSet, Tier};

use super::lists::Lists;
use super::policies::Applied;

/// A host endpoint's lists.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct HostLists {
    /// Towards the host or through it.
    pub ingress: HostPolicy,
    /// From the host or through it.
    pub egress: HostPolicy,
}

/// Rules of an endpoint's profiles by direction.
pub type ProfileRules<'a> = &'a dyn Fn(PolicyDirection) -> Vec<Arc<RuleSet>>;

/// A workload's: policies that are neither untracked nor pre-DNAT, then profiles.
pub fn workload(policies: &[Applied<'_>], profiles: ProfileRules<'_>, lists: &mut Lists) -> EndpointPolicy {
    let mut list = |direction| {
        let tiers = tiers(policies, direction, |bucket| bucket.normal);
        lists.intern(PolicyList { tiers, profiles: profiles(direction) })
    };
    EndpointPolicy { ingress: list(Ingress), egress: list(Egress) }
}

/// A host endpoint's. Profiles are asked about the host's own packets only.
pub fn host(policies: &[Applied<'_>], profiles: ProfileRules<'_>, lists: &mut Lists) -> HostLists {
    let mut all = |direction| {
        let mut list = |within: fn(&Buckets) -> bool, profiles| {
            lists.intern(PolicyList { tiers: tiers(policies, direction, within), profiles })
        };
        HostPolicy {
            untracked: list(|bucket| bucket.untracked, Vec::new()),
            // There is no destination NAT left to come before for what leaves.
            pre_dnat: match direction {
                Ingress => list(|bucket| bucket.pre_dnat, Vec::new()),
                Egress => list(|_| false, Vec::new()),
            },
            forward: list(|bucket| bucket.forward, Vec::new()),
            normal: list(|bucket| bucket.normal, profiles(direction)),
        }
    };
    HostLists { ingress: all(Ingress), egress: all(Egress) }
}

/// In which lists a policy is.
struct Buckets {
    untracked: bool,
    pre_dnat: bool,
    normal: bool,
    forward: bool,
}

impl Applied<'_> {
    const fn buckets(&self) -> Buckets {
        let untracked = self.policy.do_not_track;
        let pre_dnat = !untracked && self.policy.pre_dnat;
        let normal = !untracked && !pre_dnat;
        Buckets { untracked, pre_dnat, normal, forward: normal && self.policy.apply_on_forward }
    }
}

/// Tiers with at least one policy of the direction and bucket.
fn tiers(policies: &[Applied<'_>], direction: PolicyDirection, within: fn(&Buckets) -> bool) -> Vec<Tier> {
    let mut tiers: Vec<Tier> = Vec::new();
    for applied in policies.iter().filter(|applied| within(&applied.buckets())) {
        let rules = match direction {
            Ingress => applied.ingress,
            Egress => applied.egress,
        };
        let Some(rules) = rules.map(Arc::clone) else { continue };
        match tiers.last_mut().filter(|tier| tier.name == *applied.tier) {
            Some(tier) => tier.policies.push(rules),
            None => {
                let name = Arc::clone(applied.tier);
                tiers.push(Tier { name, end: applied.end, policies: vec![rules] });
            }
        }
    }
    tiers
}
