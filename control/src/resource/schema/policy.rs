//! Policies, tiers, profiles, and the rules in them.

use super::meta::{API_VERSION, KIND, METADATA, annotations, labels};
use super::{Presence, Shape, TEXT, Type, always, field, keep, omit, omit_not_empty, plain, required};
use crate::resource::check::{policy, rule};
use crate::resource::text;

const RULES: Shape = Shape::List(&Shape::Object(&RULE));
const PORTS: Shape = Shape::List(&Shape::Port);
const NETS: Shape = Shape::List(&Shape::Text(text::NET));

const TIER_NAME: super::Field = omit("tier", Shape::Text(text::NAME));
const ORDER: super::Field = keep("order", Shape::Number);
const INGRESS: super::Field = omit("ingress", RULES);
const EGRESS: super::Field = omit("egress", RULES);
const TYPES: super::Field = omit("types", Shape::List(&Shape::Text(text::POLICY_TYPE)));
const HINTS: super::Field = omit("performanceHints", Shape::List(&Shape::Text(text::PERFORMANCE_HINT)));
const STAGED: super::Field = omit("stagedAction", Shape::Text(text::STAGED_ACTION));

pub(super) static NETWORK_POLICY_SPEC: Type = Type {
    name: "NetworkPolicySpec",
    fields: &[
        TIER_NAME,
        ORDER,
        INGRESS,
        EGRESS,
        omit("selector", Shape::Selector),
        TYPES,
        omit("serviceAccountSelector", Shape::Selector),
        HINTS,
    ],
    check: policy::namespaced_spec,
};

pub(super) static NETWORK_POLICY: Type = Type {
    name: "NetworkPolicy",
    fields: &[KIND, API_VERSION, METADATA, always("spec", Shape::Object(&NETWORK_POLICY_SPEC))],
    check: policy::namespaced_name,
};

pub(super) static STAGED_NETWORK_POLICY: Type = Type {
    name: "StagedNetworkPolicy",
    fields: &[KIND, API_VERSION, METADATA, always("spec", Shape::Object(&STAGED_NETWORK_POLICY_SPEC))],
    check: policy::namespaced_name,
};

static STAGED_NETWORK_POLICY_SPEC: Type = Type {
    name: "StagedNetworkPolicySpec",
    fields: &[
        STAGED,
        TIER_NAME,
        ORDER,
        INGRESS,
        EGRESS,
        omit("selector", Shape::Selector),
        TYPES,
        omit("serviceAccountSelector", Shape::Selector),
        HINTS,
    ],
    check: |spec, report| {
        policy::staged(spec, report);
        policy::namespaced_spec(spec, report);
    },
};

pub(super) static GLOBAL_NETWORK_POLICY_SPEC: Type = Type {
    name: "GlobalNetworkPolicySpec",
    fields: &[
        TIER_NAME,
        ORDER,
        INGRESS,
        EGRESS,
        omit("selector", Shape::Selector),
        TYPES,
        omit("doNotTrack", Shape::Bool),
        omit("preDNAT", Shape::Bool),
        omit("applyOnForward", Shape::Bool),
        omit("serviceAccountSelector", Shape::Selector),
        omit("namespaceSelector", Shape::Selector),
        HINTS,
    ],
    check: policy::global_spec,
};

pub(super) static GLOBAL_NETWORK_POLICY: Type = Type {
    name: "GlobalNetworkPolicy",
    fields: &[KIND, API_VERSION, METADATA, always("spec", Shape::Object(&GLOBAL_NETWORK_POLICY_SPEC))],
    check: policy::global_name,
};

pub(super) static STAGED_GLOBAL_NETWORK_POLICY: Type = Type {
    name: "StagedGlobalNetworkPolicy",
    fields: &[KIND, API_VERSION, METADATA, always("spec", Shape::Object(&STAGED_GLOBAL_NETWORK_POLICY_SPEC))],
    check: policy::global_name,
};

static STAGED_GLOBAL_NETWORK_POLICY_SPEC: Type = Type {
    name: "StagedGlobalNetworkPolicySpec",
    fields: &[
        STAGED,
        TIER_NAME,
        ORDER,
        INGRESS,
        EGRESS,
        omit("selector", Shape::Selector),
        TYPES,
        omit("doNotTrack", Shape::Bool),
        omit("preDNAT", Shape::Bool),
        omit("applyOnForward", Shape::Bool),
        omit("serviceAccountSelector", Shape::Selector),
        omit("namespaceSelector", Shape::Selector),
        HINTS,
    ],
    check: |spec, report| {
        policy::staged(spec, report);
        policy::global_spec(spec, report);
    },
};

/// Its rules are Kubernetes' own and are stored as they come.
pub(super) static STAGED_KUBERNETES_NETWORK_POLICY: Type = plain(
    "StagedKubernetesNetworkPolicy",
    &[
        KIND,
        API_VERSION,
        METADATA,
        always("spec", Shape::Object(&STAGED_KUBERNETES_NETWORK_POLICY_SPEC)),
        keep("status", Shape::Any),
    ],
);

static STAGED_KUBERNETES_NETWORK_POLICY_SPEC: Type = plain(
    "StagedKubernetesNetworkPolicySpec",
    &[
        STAGED,
        always("podSelector", Shape::Object(&POD_SELECTOR)),
        omit("ingress", Shape::List(&Shape::Any)),
        omit("egress", Shape::List(&Shape::Any)),
        omit("policyTypes", Shape::List(&Shape::Text(text::POLICY_TYPE))),
    ],
);

static POD_SELECTOR: Type = plain(
    "LabelSelector",
    &[omit("matchLabels", Shape::Texts(labels)), omit("matchExpressions", Shape::List(&Shape::Any))],
);

pub(super) static TIER_SPEC: Type = plain(
    "TierSpec",
    &[keep("order", Shape::Number), field("defaultAction", Shape::Text(text::TIER_ACTION), Presence::Omit)],
);

pub(super) static TIER: Type = Type {
    name: "Tier",
    fields: &[KIND, API_VERSION, METADATA, always("spec", Shape::Object(&TIER_SPEC))],
    check: policy::tier,
};

pub(super) static PROFILE_SPEC: Type =
    plain("ProfileSpec", &[INGRESS, EGRESS, omit("labelsToApply", Shape::Texts(labels))]);

pub(super) static PROFILE: Type =
    plain("Profile", &[KIND, API_VERSION, METADATA, always("spec", Shape::Object(&PROFILE_SPEC))]);

pub(super) static RULE: Type = Type {
    name: "Rule",
    fields: &[
        required("action", Shape::Text(text::ACTION)),
        keep("ipVersion", Shape::Integer(i64::MIN, i64::MAX)),
        keep("protocol", Shape::Protocol),
        keep("icmp", Shape::Object(&ICMP_FIELDS)),
        keep("notProtocol", Shape::Protocol),
        keep("notICMP", Shape::Object(&ICMP_FIELDS)),
        always("source", Shape::Object(&ENTITY_RULE)),
        always("destination", Shape::Object(&ENTITY_RULE)),
        keep("http", Shape::Object(&HTTP_MATCH)),
        keep("metadata", Shape::Object(&RULE_METADATA)),
    ],
    check: rule::rule,
};

pub(super) static ICMP_FIELDS: Type = Type {
    name: "ICMPFields",
    fields: &[keep("type", Shape::Integer(0, 254)), keep("code", Shape::Integer(0, 255))],
    check: |icmp, report| {
        if icmp.contains_key("code") && !icmp.contains_key("type") {
            report.wrong("code", "must not be given without a type");
        }
    },
};

pub(super) static ENTITY_RULE: Type = Type {
    name: "EntityRule",
    fields: &[
        omit_not_empty("nets", NETS),
        omit("selector", Shape::Selector),
        omit("namespaceSelector", Shape::Selector),
        keep("services", Shape::Object(&SERVICE_MATCH)),
        omit_not_empty("ports", PORTS),
        omit("notNets", NETS),
        omit("notSelector", Shape::Selector),
        omit("notPorts", PORTS),
        keep("serviceAccounts", Shape::Object(&SERVICE_ACCOUNT_MATCH)),
    ],
    check: rule::entity,
};

pub(super) static SERVICE_MATCH: Type =
    plain("ServiceMatch", &[required("name", Shape::Text(text::SERVICE)), omit("namespace", TEXT)]);

pub(super) static SERVICE_ACCOUNT_MATCH: Type = plain(
    "ServiceAccountMatch",
    &[omit_not_empty("names", Shape::List(&TEXT)), omit("selector", Shape::Selector)],
);

pub(super) static HTTP_MATCH: Type = Type {
    name: "HTTPMatch",
    fields: &[
        omit_not_empty("methods", Shape::List(&TEXT)),
        omit_not_empty("paths", Shape::List(&Shape::Object(&HTTP_PATH))),
    ],
    check: rule::http,
};

static HTTP_PATH: Type = plain("HTTPPath", &[omit("exact", TEXT), omit("prefix", TEXT)]);

pub(super) static RULE_METADATA: Type =
    plain("RuleMetadata", &[omit("annotations", Shape::Texts(annotations))]);
