//! Policies and profiles.

use std::sync::Arc;

use super::super::resources::{Action, Policy, Profile, Rule};
use super::super::selector::Selector;
use super::super::v1;
use super::rule::rules;
use super::{Problem, Quirks};

/// A policy, and what of its rules cannot be read.
///
/// # Errors
/// What it is refused for.
pub fn policy(policy: v1::Policy, quirks: Quirks) -> Result<(Policy, Vec<Problem>), Problem> {
    let mut warnings = policy.unsound;
    if !quirks.widen_on_bad_selector && !warnings.is_empty() {
        return Err(warnings.swap_remove(0));
    }
    let selector = Selector::parse(&policy.selector)
        .map_err(|error| Problem::Selector { part: "spec.selector, completed", error })?;
    let has = |direction: &str| policy.types.is_empty() || policy.types.iter().any(|have| have == direction);
    let ingress = rules(policy.inbound, "ingress", quirks, &mut warnings)?;
    let egress = rules(policy.outbound, "egress", quirks, &mut warnings)?;
    let typed = Policy {
        tier: policy.tier.into(),
        order: policy.order,
        selector,
        ingress: has("ingress").then_some(ingress),
        egress: has("egress").then_some(egress),
        do_not_track: policy.do_not_track,
        pre_dnat: policy.pre_dnat,
        apply_on_forward: policy.apply_on_forward,
    };
    Ok((typed, warnings))
}

/// The profile that only clients know, by name: everything is allowed. It is never stored.
pub fn default_allow() -> (String, Profile) {
    match profile(v1::Profile::default_allow(), Quirks::default()) {
        Ok((profile, _)) => (Profile::DEFAULT_ALLOW.to_owned(), profile),
        Err(problem) => unreachable!("the built-in profile makes sense: {problem}"),
    }
}

/// A profile, and what of its rules cannot be read.
///
/// # Errors
/// What its rules are refused for.
pub fn profile(profile: v1::Profile, quirks: Quirks) -> Result<(Profile, Vec<Problem>), Problem> {
    let mut warnings = Vec::new();
    let ingress = rules(profile.inbound, "ingress", quirks, &mut warnings)?;
    let egress = rules(profile.outbound, "egress", quirks, &mut warnings)?;
    Ok((Profile { ingress, egress, labels: Arc::new(profile.labels.into_iter().collect()) }, warnings))
}

/// The same; one whose rules are refused keeps its labels and denies everything. Felix holds rules and labels apart:
/// there the rules are missing, which denies, and endpoints still inherit the labels.
pub fn profile_or_denial(profile: v1::Profile, quirks: Quirks) -> (Profile, Vec<Problem>) {
    let labels = Arc::new(profile.labels.clone().into_iter().collect());
    self::profile(profile, quirks).unwrap_or_else(|problem| {
        let deny = vec![Rule::any(Action::Deny)];
        (Profile { ingress: deny.clone(), egress: deny, labels }, vec![problem])
    })
}
