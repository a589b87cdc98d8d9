//! Names that are not stored as they are written: policies', and workload endpoints', which say themselves what they
//! are for.

use super::schema::{Object, text_of};

/// The tier of policies that name none.
pub(super) const DEFAULT_TIER: &str = "default";

/// Beginnings of names that other programs make, and the tier they belong to; stored as they are.
const MADE: [(&str, &str); 4] = [
    ("knp.", DEFAULT_TIER),
    ("ossg.", DEFAULT_TIER),
    ("kcnp.kube-admin.", "kube-admin"),
    ("kcnp.kube-baseline.", "kube-baseline"),
];

/// A policy's name in a key: with its tier in front.
pub(super) fn stored_policy_name(name: &str) -> String {
    let made = MADE.iter().any(|(prefix, _)| name.starts_with(prefix));
    if made || name.contains('.') { name.to_owned() } else { format!("{DEFAULT_TIER}.{name}") }
}

/// A policy's name for people: without the default tier.
pub(super) fn shown_policy_name(stored: &str) -> &str {
    let own = stored.strip_prefix(DEFAULT_TIER).and_then(|rest| rest.strip_prefix('.'));
    own.unwrap_or(stored)
}

/// The tier that a stored name says.
pub(super) fn tier_of(stored: &str) -> &str {
    let made = MADE.iter().find(|(prefix, _)| stored.starts_with(prefix)).map(|(_, tier)| *tier);
    made.or_else(|| stored.split_once('.').map(|(tier, _)| tier)).unwrap_or(DEFAULT_TIER)
}

/// Segments of a workload endpoint's name that are missing or begin or end with a dash.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadSegment {
    /// Field of the specification.
    pub(super) field: &'static str,
    /// What is wrong with it.
    pub(super) sentence: &'static str,
}

/// The name that a workload endpoint's specification gives: node, orchestrator, workload and endpoint, dashes doubled,
/// with dashes between.
pub(super) fn workload_endpoint_name(spec: &Object) -> Result<String, BadSegment> {
    let orchestrator = text_of(spec, "orchestrator");
    let workload = match orchestrator {
        "k8s" => "pod",
        "cni" => "containerID",
        "libnetwork" => "orchestrator",
        _ => "workload",
    };
    let mut name = String::new();
    for field in ["node", "orchestrator", workload, "endpoint"] {
        let segment = text_of(spec, field);
        let bad = |sentence| Err(BadSegment { field, sentence });
        if segment.is_empty() {
            return bad("must be given: it is part of the endpoint's name");
        }
        if segment.starts_with('-') || segment.ends_with('-') {
            return bad("must not begin or end with '-': it is part of the endpoint's name");
        }
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(&segment.replace('-', "--"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn policies_are_stored_with_their_tier() {
        for (shown, stored, tier) in [
            ("foo", "default.foo", "default"),
            ("security.foo", "security.foo", "security"),
            ("knp.default.foo", "knp.default.foo", "default"),
            ("ossg.default.foo", "ossg.default.foo", "default"),
            ("kcnp.kube-admin.x", "kcnp.kube-admin.x", "kube-admin"),
        ] {
            assert_eq!(stored_policy_name(shown), stored);
            assert_eq!(shown_policy_name(stored), shown);
            assert_eq!(tier_of(stored), tier);
        }
        assert_eq!(stored_policy_name("default.foo"), "default.foo");
        assert_eq!((shown_policy_name("foo"), tier_of("foo")), ("foo", "default"));
    }

    fn endpoint_name(spec: serde_json::Value) -> Result<String, BadSegment> {
        workload_endpoint_name(spec.as_object().unwrap())
    }

    #[test]
    fn endpoints_are_named_after_what_they_are() {
        let k8s = json!({"node": "node-1", "orchestrator": "k8s", "pod": "web-0", "endpoint": "eth0", "workload": "x"});
        assert_eq!(endpoint_name(k8s).unwrap(), "node--1-k8s-web--0-eth0");
        let cni = json!({"node": "n", "orchestrator": "cni", "containerID": "abc", "endpoint": "eth0"});
        assert_eq!(endpoint_name(cni).unwrap(), "n-cni-abc-eth0");
        let libnetwork = json!({"node": "n", "orchestrator": "libnetwork", "endpoint": "e"});
        assert_eq!(endpoint_name(libnetwork).unwrap(), "n-libnetwork-libnetwork-e");
        let other = json!({"node": "n", "orchestrator": "openstack", "workload": "vm", "endpoint": "tap1"});
        assert_eq!(endpoint_name(other).unwrap(), "n-openstack-vm-tap1");
        let missing = json!({"node": "n", "orchestrator": "k8s", "endpoint": "eth0"});
        assert_eq!(endpoint_name(missing).unwrap_err().field, "pod");
        let dash = json!({"node": "-n", "orchestrator": "k8s", "pod": "p", "endpoint": "eth0"});
        assert_eq!(endpoint_name(dash).unwrap_err().field, "node");
    }
}
