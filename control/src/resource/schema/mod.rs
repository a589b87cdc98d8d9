//! What each kind looks like: tables of fields, in the order in which libcalico-go's types have them, and the walk that
//! holds a value against them.
//!
//! The walk does what decoding into those types, validating them and encoding them again does: unknown fields are
//! refused, names match without regard to case, `null` is absent, values are brought to their one form, what is empty
//! is left out where Go's `omitempty` leaves it out and kept where it is kept.

mod bgp;
mod controllers;
mod endpoint;
mod felix;
mod meta;
mod node;
mod policy;
mod pool;
mod set;
mod walk;

use serde_json::{Map, Value};

use super::error::{FieldError, Report};
use super::text::{self, Rule};

/// A decoded object.
pub(super) type Object = Map<String, Value>;

/// An object's fields, and what they must have to do with each other.
pub(super) struct Type {
    /// As libcalico-go names it.
    pub(super) name: &'static str,
    pub(super) fields: &'static [Field],
    /// Looks at an object none of whose fields is wrong by itself.
    pub(super) check: fn(&Object, &mut Report),
}

/// One field.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) presence: Presence,
}

/// What a value may be.
pub(super) enum Shape {
    /// Anything: parts of Kubernetes' own types.
    Any,
    Bool,
    /// From, to.
    Integer(i64, i64),
    /// A float.
    Number,
    Text(Rule),
    /// A text that says which objects are meant by their labels.
    Selector,
    /// A map of texts.
    Texts(fn(&Object, &mut Report)),
    Duration,
    Protocol,
    Port,
    AsNumber,
    List(&'static Shape),
    Object(&'static Type),
}

/// What becomes of a field that is absent or empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Empty is absent.
    Omit,
    /// Empty is absent, but an empty list is refused: it would become "whatever" where somebody wrote "nothing".
    OmitNotEmpty,
    /// Present is present (Go: a pointer).
    Keep,
    /// Absent becomes empty, which nobody checks.
    Always,
    /// Must not be empty.
    Required,
}

const fn field(name: &'static str, shape: Shape, presence: Presence) -> Field {
    Field { name, shape, presence }
}

const fn omit(name: &'static str, shape: Shape) -> Field {
    field(name, shape, Presence::Omit)
}

const fn omit_not_empty(name: &'static str, shape: Shape) -> Field {
    field(name, shape, Presence::OmitNotEmpty)
}

const fn keep(name: &'static str, shape: Shape) -> Field {
    field(name, shape, Presence::Keep)
}

const fn always(name: &'static str, shape: Shape) -> Field {
    field(name, shape, Presence::Always)
}

const fn required(name: &'static str, shape: Shape) -> Field {
    field(name, shape, Presence::Required)
}

/// Any text.
const TEXT: Shape = Shape::Text(text::ANY);

/// Go's `int`.
const INTEGER: Shape = Shape::Integer(i64::MIN, i64::MAX);

/// Go's `int32`.
const INTEGER32: Shape = Shape::Integer(i32::MIN as i64, i32::MAX as i64);

/// Go's `uint32`.
const UNSIGNED32: Shape = Shape::Integer(0, u32::MAX as i64);

/// A port, or 0.
const PORT_OR_ZERO: Shape = Shape::Integer(0, 65535);

const fn nothing(_: &Object, _: &mut Report) {}

/// A type whose fields have nothing to do with each other.
const fn plain(name: &'static str, fields: &'static [Field]) -> Type {
    Type { name, fields, check: nothing }
}

/// Every type, whole resources first.
const TYPES: &[&Type] = &[
    &policy::NETWORK_POLICY,
    &policy::GLOBAL_NETWORK_POLICY,
    &policy::STAGED_NETWORK_POLICY,
    &policy::STAGED_GLOBAL_NETWORK_POLICY,
    &policy::STAGED_KUBERNETES_NETWORK_POLICY,
    &policy::TIER,
    &policy::PROFILE,
    &endpoint::WORKLOAD_ENDPOINT,
    &endpoint::HOST_ENDPOINT,
    &set::NETWORK_SET,
    &set::GLOBAL_NETWORK_SET,
    &pool::IP_POOL,
    &pool::IP_RESERVATION,
    &node::NODE,
    &felix::FELIX_CONFIGURATION,
    &bgp::BGP_CONFIGURATION,
    &bgp::BGP_PEER,
    &set::CLUSTER_INFORMATION,
    &controllers::KUBE_CONTROLLERS_CONFIGURATION,
    &policy::RULE,
    &policy::ENTITY_RULE,
    &policy::HTTP_MATCH,
    &policy::ICMP_FIELDS,
    &policy::RULE_METADATA,
    &policy::SERVICE_MATCH,
    &policy::SERVICE_ACCOUNT_MATCH,
    &policy::NETWORK_POLICY_SPEC,
    &policy::GLOBAL_NETWORK_POLICY_SPEC,
    &policy::TIER_SPEC,
    &policy::PROFILE_SPEC,
    &endpoint::WORKLOAD_ENDPOINT_SPEC,
    &endpoint::WORKLOAD_ENDPOINT_PORT,
    &endpoint::HOST_ENDPOINT_SPEC,
    &endpoint::ENDPOINT_PORT,
    &endpoint::IP_NAT,
    &set::NETWORK_SET_SPEC,
    &set::GLOBAL_NETWORK_SET_SPEC,
    &set::CLUSTER_INFORMATION_SPEC,
    &pool::IP_POOL_SPEC,
    &pool::IP_RESERVATION_SPEC,
    &node::NODE_SPEC,
    &node::NODE_BGP_SPEC,
    &node::NODE_WIREGUARD_SPEC,
    &node::NODE_ADDRESS,
    &node::ORCH_REF,
    &node::NODE_STATUS,
    &felix::FELIX_CONFIGURATION_SPEC,
    &felix::PROTO_PORT,
    &felix::ROUTE_TABLE_RANGE,
    &felix::ROUTE_TABLE_ID_RANGE,
    &felix::HEALTH_TIMEOUT_OVERRIDE,
    &bgp::BGP_CONFIGURATION_SPEC,
    &bgp::BGP_PEER_SPEC,
    &bgp::BGP_PASSWORD,
    &bgp::COMMUNITY,
    &bgp::PREFIX_ADVERTISEMENT,
    &bgp::SERVICE_IP_BLOCK,
    &controllers::KUBE_CONTROLLERS_CONFIGURATION_SPEC,
    &controllers::CONTROLLERS_CONFIG,
    &controllers::NODE_CONTROLLER_CONFIG,
    &controllers::POLICY_CONTROLLER_CONFIG,
    &controllers::WORKLOAD_ENDPOINT_CONTROLLER_CONFIG,
    &controllers::SERVICE_ACCOUNT_CONTROLLER_CONFIG,
    &controllers::NAMESPACE_CONTROLLER_CONFIG,
    &controllers::AUTO_HOST_ENDPOINT_CONFIG,
    &meta::OBJECT_META,
];

/// All of them.
#[cfg(test)]
pub(super) fn types() -> impl Iterator<Item = &'static Type> {
    TYPES.iter().copied()
}

/// The type of that name.
pub(super) fn by_name(name: &str) -> Option<&'static Type> {
    TYPES.iter().copied().find(|known| known.name == name)
}

/// Holds a value against a type. The value in its one form, and everything that is wrong.
pub(super) fn normalise(kind: &Type, value: &Value) -> (Value, Vec<FieldError>) {
    let mut report = Report::default();
    let normal = walk::object(kind, value, &mut report).map_or(Value::Null, Value::Object);
    (normal, report.into_errors())
}

/// What is wrong with a value of a type of libcalico-go's, e.g. `Rule`; `None` if no such type is known here.
pub fn validate_type(name: &str, value: &Value) -> Option<Vec<FieldError>> {
    let mut report = Report::default();
    match by_name(name) {
        Some(kind) => {
            walk::object(kind, value, &mut report);
        }
        None => {
            let shape = match name {
                "Protocol" => Shape::Protocol,
                "Port" => Shape::Port,
                "ASNumber" => Shape::AsNumber,
                _ => return None,
            };
            walk::checked(&shape, value, &mut report);
        }
    }
    Some(report.into_errors())
}

/// A member that is a text; absent is empty.
pub(super) fn text_of<'a>(object: &'a Object, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A member that is a list; absent is empty.
pub(super) fn list_of<'a>(object: &'a Object, name: &str) -> &'a [Value] {
    object.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The texts of a list.
pub(super) fn texts_of<'a>(object: &'a Object, name: &str) -> impl Iterator<Item = &'a str> {
    list_of(object, name).iter().filter_map(Value::as_str)
}

/// A member that is an object.
pub(super) fn object_of<'a>(object: &'a Object, name: &str) -> Option<&'a Object> {
    object.get(name).and_then(Value::as_object)
}

/// A member that is `true`.
pub(super) fn flag_of(object: &Object, name: &str) -> bool {
    object.get(name).and_then(Value::as_bool).unwrap_or_default()
}

/// A member that is an integer.
pub(super) fn integer_of(object: &Object, name: &str) -> Option<i64> {
    object.get(name).and_then(Value::as_i64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn types_have_one_name_and_fields_too() {
        let names: BTreeSet<&str> = TYPES.iter().map(|kind| kind.name).collect();
        assert_eq!(names.len(), TYPES.len());
        for kind in TYPES {
            let fields: BTreeSet<String> =
                kind.fields.iter().map(|field| field.name.to_lowercase()).collect();
            assert_eq!(fields.len(), kind.fields.len(), "{}", kind.name);
        }
    }
}
