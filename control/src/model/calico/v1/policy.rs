//! Policies and profiles.

use super::super::problem::Problem;
use super::super::selector::{ParseError, Selector};
use super::super::v3;
use super::{Rule, selector_text};

/// The tier of policies that name none.
const DEFAULT_TIER: &str = "default";

/// A NetworkPolicy or GlobalNetworkPolicy.
#[derive(Debug, Default)]
pub struct Policy {
    /// Empty = a GlobalNetworkPolicy.
    pub namespace: String,
    /// Which it belongs to.
    pub tier: String,
    /// Absent = last.
    pub order: Option<f64>,
    /// Towards the endpoint.
    pub inbound: Vec<Rule>,
    /// From the endpoint.
    pub outbound: Vec<Rule>,
    /// Complete.
    pub selector: String,
    /// Lower case; empty = both directions.
    pub types: Vec<String>,
    /// Host endpoints' untracked list.
    pub do_not_track: bool,
    /// Host endpoints' pre-DNAT list.
    pub pre_dnat: bool,
    /// Host endpoints' forward list, too.
    pub apply_on_forward: bool,
    /// Parts of the selector that make no sense by themselves: Felix leaves them out, or joins them to something that
    /// makes another one.
    pub unsound: Vec<Problem>,
}

impl Policy {
    /// Of a NetworkPolicy.
    pub fn namespaced(namespace: &str, name: &str, spec: v3::PolicySpec) -> Self {
        let mut unsound = own_selector(&spec.selector);
        let mut selector = selector_text::and(&spec.selector, &selector_text::in_namespace(namespace));
        if let Some(accounts) = sound(service_accounts(&spec), &mut unsound) {
            selector = selector_text::and(&selector, &accounts);
        }
        Self {
            apply_on_forward: true,
            do_not_track: false,
            pre_dnat: false,
            ..common(namespace, name, spec, selector, unsound)
        }
    }

    /// Of a GlobalNetworkPolicy.
    pub fn global(name: &str, spec: v3::PolicySpec) -> Self {
        let mut unsound = own_selector(&spec.selector);
        let mut selector = spec.selector.clone();
        if !spec.namespace_selector.is_empty() {
            let namespaces = selector_text::of_namespace(&spec.namespace_selector);
            let part = "spec.namespaceSelector";
            let namespaces = sound(Some((part, namespaces)), &mut unsound).unwrap_or_default();
            selector = selector_text::and(&selector, &namespaces);
            selector = selector.replace("all()", "has(projectcalico.org/namespace)");
        }
        if !spec.service_account_selector.is_empty() {
            let accounts = sound(service_accounts(&spec), &mut unsound).unwrap_or_default();
            selector = selector_text::and(&selector, &accounts);
            selector = selector.replace("all()", "has(projectcalico.org/serviceaccount)");
        }
        common("", name, spec, selector, unsound)
    }
}

fn common(
    namespace: &str,
    name: &str,
    spec: v3::PolicySpec,
    selector: String,
    unsound: Vec<Problem>,
) -> Policy {
    Policy {
        namespace: namespace.to_owned(),
        tier: if spec.tier.is_empty() { tier_by_name(name).to_owned() } else { spec.tier },
        order: spec.order,
        inbound: Rule::convert_all(spec.ingress, namespace),
        outbound: Rule::convert_all(spec.egress, namespace),
        selector,
        types: spec.types.into_iter().map(|direction| direction.to_lowercase()).collect(),
        do_not_track: spec.do_not_track,
        pre_dnat: spec.pre_dnat,
        apply_on_forward: spec.apply_on_forward,
        unsound,
    }
}

type Part = (&'static str, Result<String, ParseError>);

fn service_accounts(spec: &v3::PolicySpec) -> Option<Part> {
    let text = &spec.service_account_selector;
    (!text.is_empty()).then(|| ("spec.serviceAccountSelector", selector_text::of_service_account(text)))
}

/// A part that makes sense; the others are noted.
fn sound(part: Option<Part>, unsound: &mut Vec<Problem>) -> Option<String> {
    let (part, text) = part?;
    text.map_err(|error| unsound.push(Problem::Selector { part, error })).ok()
}

/// Something like `a) || (b` makes no sense alone, but does in the parentheses that it will be put into.
fn own_selector(text: &str) -> Vec<Problem> {
    let error = Selector::parse(text).err();
    error.map(|error| Problem::Selector { part: "spec.selector", error }).into_iter().collect()
}

/// What a name says of the tier: older versions put it before the first dot; names of policies that other programs
/// make have a form of their own.
fn tier_by_name(name: &str) -> &str {
    if name.starts_with("knp.default.") || name.starts_with("ossg.") {
        DEFAULT_TIER
    } else if name.starts_with("kcnp.kube-admin.") {
        "kube-admin"
    } else if name.starts_with("kcnp.kube-baseline.") {
        "kube-baseline"
    } else {
        name.split_once('.').map_or(DEFAULT_TIER, |(tier, _)| tier)
    }
}

/// A Profile.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// Towards the endpoint.
    pub inbound: Vec<Rule>,
    /// From the endpoint.
    pub outbound: Vec<Rule>,
    /// Labels that endpoints inherit.
    pub labels: v3::Labels,
}

impl Profile {
    /// What is in the profile that only clients know.
    pub fn default_allow() -> Self {
        let rule = Rule { action: "allow".to_owned(), ..Rule::default() };
        Self { inbound: vec![rule.clone()], outbound: vec![rule], labels: v3::Labels::new() }
    }

    /// Of a stored one.
    pub fn convert(spec: v3::ProfileSpec) -> Self {
        Self {
            inbound: Rule::convert_all(spec.ingress, ""),
            outbound: Rule::convert_all(spec.egress, ""),
            labels: spec.labels_to_apply,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_the_tier() {
        for (name, tier) in [
            ("default.foo", "default"),
            ("foo", "default"),
            ("knp.default.web.tier", "default"),
            ("ossg.default.x", "default"),
            ("security.deny-all", "security"),
            ("kcnp.kube-admin.a", "kube-admin"),
            ("kcnp.kube-baseline.a", "kube-baseline"),
        ] {
            assert_eq!(tier_by_name(name), tier, "{name}");
            assert_eq!(Policy::global(name, v3::PolicySpec::default()).tier, tier);
        }
        let spec = v3::PolicySpec { tier: "mine".into(), ..Default::default() };
        assert_eq!(Policy::global("default.foo", spec).tier, "mine");
    }

    #[test]
    fn a_selector_cannot_break_out_of_its_parentheses_unnoticed() {
        let spec = v3::PolicySpec { selector: "has(a)) || (has(b)".into(), ..Default::default() };
        let policy = Policy::namespaced("ns", "x", spec);
        assert!(Selector::parse(&policy.selector).is_ok(), "{}", policy.selector);
        assert_eq!(policy.unsound.len(), 1);
    }
}
