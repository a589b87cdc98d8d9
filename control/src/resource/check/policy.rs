//! Policies and tiers as a whole.

use serde_json::Value;

use super::rule::no_global;
use crate::resource::error::Report;
use crate::resource::name::{self, DEFAULT_TIER};
use crate::resource::schema::{Object, flag_of, list_of, object_of, text_of, texts_of};
use crate::resource::text::{LABEL_MAX, is_dns_label, is_subdomain};

/// Orders that Calico gives to its own tiers.
const FIXED_ORDERS: [(&str, f64); 3] =
    [(DEFAULT_TIER, 1_000_000.0), ("kube-admin", 1_000.0), ("kube-baseline", 10_000_000.0)];

/// A NetworkPolicy's specification.
pub(in crate::resource) fn namespaced_spec(spec: &Object, report: &mut Report) {
    types_once(spec, report);
    directions(spec, report);
    no_global(spec, "selector", report);
    no_global(spec, "serviceAccountSelector", report);
}

/// A GlobalNetworkPolicy's specification.
pub(in crate::resource) fn global_spec(spec: &Object, report: &mut Report) {
    let (untracked, pre_dnat) = (flag_of(spec, "doNotTrack"), flag_of(spec, "preDNAT"));
    if untracked && pre_dnat {
        report.wrong("preDNAT", "must not be true beside doNotTrack");
    }
    if pre_dnat && spec.contains_key("egress") {
        report.wrong("egress", "must have no rules in a preDNAT policy");
    }
    if pre_dnat && texts_of(spec, "types").any(|direction| direction == "Egress") {
        report.wrong("types", "must not have Egress in a preDNAT policy");
    }
    if (untracked || pre_dnat) && !flag_of(spec, "applyOnForward") {
        report.wrong("applyOnForward", "must be true in a doNotTrack or preDNAT policy");
    }
    namespaced_spec(spec, report);
    no_global(spec, "namespaceSelector", report);
    for (direction, side) in [("egress", "destination"), ("ingress", "source")] {
        each_rule(spec, direction, report, |rule, report| {
            let service = rule[side].get("services");
            if service.is_some_and(|service| service["namespace"].as_str().unwrap_or_default().is_empty()) {
                let sentence = "must be given: a global policy has no namespace of its own";
                report.at(side, |report| report.at("services", |report| report.wrong("namespace", sentence)));
            }
        });
    }
}

fn types_once(spec: &Object, report: &mut Report) {
    let types: Vec<&str> = texts_of(spec, "types").collect();
    for (n, direction) in types.iter().enumerate() {
        if types[..n].contains(direction) {
            report.at("types", |report| {
                report.item(n, |report| report.here(format!("{direction} is listed twice")))
            });
        }
    }
}

/// Services are the other side's, HTTP is for what arrives.
fn directions(spec: &Object, report: &mut Report) {
    each_rule(spec, "egress", report, |rule, report| {
        no_services(rule, "source", "egress", report);
        if rule.get("http").is_some() {
            report.wrong("http", "must not be given in an egress rule");
        }
    });
    each_rule(spec, "ingress", report, |rule, report| no_services(rule, "destination", "ingress", report));
}

fn no_services(rule: &Value, side: &str, direction: &str, report: &mut Report) {
    if rule[side].get("services").is_some() {
        let sentence = format!("must not be given as the {side} of an {direction} rule");
        report.at(side, |report| report.wrong("services", sentence));
    }
}

fn each_rule(spec: &Object, direction: &str, report: &mut Report, mut look: impl FnMut(&Value, &mut Report)) {
    report.at(direction, |report| {
        for (n, rule) in list_of(spec, direction).iter().enumerate() {
            report.item(n, |report| look(rule, report));
        }
    });
}

/// A staged policy that stands for a deletion says nothing else.
pub(in crate::resource) fn staged(spec: &Object, report: &mut Report) {
    if text_of(spec, "stagedAction") == "Delete" {
        for name in spec.keys().filter(|name| !["stagedAction", "tier"].contains(&name.as_str())) {
            report.wrong(name, "must not be given where stagedAction is Delete");
        }
    }
}

/// A NetworkPolicy's name.
pub(in crate::resource) fn namespaced_name(policy: &Object, report: &mut Report) {
    let generated = |name: &str| {
        let rest = name.strip_prefix("knp.default.").or_else(|| name.strip_prefix("ossg.default."));
        rest.is_some_and(is_subdomain)
    };
    policy_name(policy, generated, report);
}

/// A GlobalNetworkPolicy's name.
pub(in crate::resource) fn global_name(policy: &Object, report: &mut Report) {
    policy_name(policy, |_| false, report);
}

fn policy_name(policy: &Object, generated: impl Fn(&str) -> bool, report: &mut Report) {
    let name = object_of(policy, "metadata").map_or("", |meta| text_of(meta, "name"));
    let tier = object_of(policy, "spec").map_or("", |spec| text_of(spec, "tier"));
    let tier = if tier.is_empty() { DEFAULT_TIER } else { tier };
    let own = name.strip_prefix(tier).and_then(|rest| rest.strip_prefix('.'));
    let sound = match own {
        Some(own) => is_dns_label(own),
        None => generated(name) || (tier == DEFAULT_TIER && is_dns_label(name)),
    };
    if sound {
        return;
    }
    let sentence = if tier == DEFAULT_TIER {
        "must be lower case letters, digits and '-', with a letter or digit at both ends; \
         a policy of another tier also needs spec.tier"
            .to_owned()
    } else {
        format!("must be {tier}.<name>, because spec.tier is {tier}")
    };
    report.at("metadata", |report| report.wrong("name", sentence));
}

/// A tier.
pub(in crate::resource) fn tier(tier: &Object, report: &mut Report) {
    let name = object_of(tier, "metadata").map_or("", |meta| text_of(meta, "name"));
    if name.len() > LABEL_MAX || !is_dns_label(name) {
        let sentence = format!("must be at most {LABEL_MAX} lower case letters, digits and '-'");
        report.at("metadata", |report| report.wrong("name", sentence));
    }
    let order = object_of(tier, "spec").and_then(|spec| spec.get("order")).and_then(Value::as_f64);
    if let Some((_, fixed)) = FIXED_ORDERS.iter().find(|(known, _)| *known == name)
        && order.is_some_and(|order| order != *fixed)
    {
        report.at("spec", |report| report.wrong("order", format!("must be {fixed} in tier {name}")));
    }
}

/// The tier that a policy's stored name says it is in.
pub(in crate::resource) fn tier_of(stored: &Object) -> String {
    let spec = object_of(stored, "spec").map_or("", |spec| text_of(spec, "tier"));
    let name = object_of(stored, "metadata").map_or("", |meta| text_of(meta, "name"));
    if spec.is_empty() { name::tier_of(name).to_owned() } else { spec.to_owned() }
}
