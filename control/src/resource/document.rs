//! One resource that somebody has written, checked.

use serde_json::{Value, json};

use super::error::FieldError;
use super::kind::Kind;
use super::name::workload_endpoint_name;
use super::schema::{self, Object, integer_of, object_of, text_of};

/// The only group and version there is.
pub(super) const API_VERSION: &str = "projectcalico.org/v3";

/// Namespace of a namespaced resource when nobody names one.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Name of kinds of which there is one.
const ONLY_NAME: &str = "default";

/// Kinds of which there is one.
const SINGLE: [&str; 2] = ["ClusterInformation", "KubeControllersConfiguration"];

/// What may be set in the cluster's own BGPConfiguration only.
const CLUSTER_BGP: [&str; 5] = [
    "nodeToNodeMeshEnabled",
    "asNumber",
    "serviceLoadBalancerIPs",
    "serviceExternalIPs",
    "serviceClusterIPs",
];

/// A resource by whose fields nothing is wrong, in the one form that values have.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    kind: Kind,
    object: Object,
}

impl Resource {
    /// Checks a value as calicoctl does before it stores one. `namespace` is what a namespaced resource without one gets.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(value: &Value, namespace: &str) -> Result<Self, Vec<FieldError>> {
        let kind = kind_of(value).map_err(|error| vec![error])?;
        let (normal, mut errors) = schema::normalise(kind.shape(), value);
        let Value::Object(mut object) = normal else { return Err(errors) };
        if errors.is_empty() {
            errors = as_a_whole(kind, &object);
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        if kind.is_namespaced()
            && let Some(Value::Object(meta)) = object.get_mut("metadata")
        {
            meta.entry("namespace").or_insert_with(|| namespace.into());
        }
        Ok(Self { kind, object })
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// `metadata.name`, as written.
    pub fn name(&self) -> &str {
        self.meta("name")
    }

    /// `metadata.namespace`; empty for kinds that have none.
    pub fn namespace(&self) -> &str {
        self.meta("namespace")
    }

    /// The revision that it shall replace, if it says one.
    pub fn resource_version(&self) -> Option<&str> {
        Some(self.meta("resourceVersion")).filter(|version| !version.is_empty())
    }

    /// All of it.
    pub fn object(&self) -> &Object {
        &self.object
    }

    fn meta(&self, name: &str) -> &str {
        object_of(&self.object, "metadata").map_or("", |meta| text_of(meta, name))
    }
}

/// What is wrong with a value, as [`Resource::check`] has it.
pub fn validate(value: &Value) -> Vec<FieldError> {
    Resource::check(value, DEFAULT_NAMESPACE).err().unwrap_or_default()
}

fn kind_of(value: &Value) -> Result<Kind, FieldError> {
    let error = |path: &str, sentence: String| FieldError { path: path.to_owned(), sentence };
    let text = |name: &str| value[name].as_str().unwrap_or_default();
    if !value.is_object() {
        return Err(error("", "must be a resource: apiVersion, kind, metadata and spec".to_owned()));
    }
    if text("apiVersion") != API_VERSION {
        return Err(error("apiVersion", format!("must be {API_VERSION}")));
    }
    let found = Kind::by_name(text("kind"));
    found.ok_or_else(|| {
        let names: Vec<&str> = Kind::all().map(|kind| kind.name()).collect();
        error("kind", format!("must be one of {}", names.join(", ")))
    })
}

/// What calicoctl's client asks beyond the types.
fn as_a_whole(kind: Kind, object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut wrong =
        |path: &str, sentence: String| errors.push(FieldError { path: path.to_owned(), sentence });
    let none = Object::new();
    let meta = object_of(object, "metadata").unwrap_or(&none);
    let spec = object_of(object, "spec").unwrap_or(&none);
    let name = text_of(meta, "name");
    let namespace = text_of(meta, "namespace");
    if !kind.is_namespaced() && !namespace.is_empty() {
        wrong("metadata.namespace", format!("must not be given: a {kind} has none"));
    }
    if !namespace.is_empty() && !super::text::is_subdomain(namespace) {
        wrong("metadata.namespace", super::text::NAME.says.to_owned());
    }
    if SINGLE.contains(&kind.name()) && name != ONLY_NAME {
        wrong("metadata.name", format!("must be {ONLY_NAME}: there is one {kind}"));
    }
    match kind.name() {
        "BGPConfiguration" if name != ONLY_NAME => {
            for field in CLUSTER_BGP.iter().filter(|field| spec.contains_key(**field)) {
                wrong(
                    &format!("spec.{field}"),
                    format!("must be set in the BGPConfiguration {ONLY_NAME} only"),
                );
            }
        }
        "WorkloadEndpoint" => match workload_endpoint_name(spec) {
            Err(segment) => wrong(&format!("spec.{}", segment.field), segment.sentence.to_owned()),
            Ok(expected) if expected != name => {
                wrong("metadata.name", format!("must be {expected}: the specification says so"));
            }
            Ok(_) => {}
        },
        "IPPool" => {
            let range = if text_of(spec, "cidr").contains(':') { 116..=128 } else { 20..=32 };
            if integer_of(spec, "blockSize").is_some_and(|size| !range.contains(&size)) {
                wrong("spec.blockSize", format!("must be from {} to {}", range.start(), range.end()));
            }
        }
        "Profile" if name == ALLOW_PROFILE => {
            wrong("metadata.name", format!("must not be {ALLOW_PROFILE}: that profile is built in"));
        }
        _ => {}
    }
    errors
}

/// The profile that every client knows and nobody stores.
pub(super) const ALLOW_PROFILE: &str = "projectcalico-default-allow";

/// What it says.
pub(super) fn allow_profile() -> Object {
    let allow = json!([{ "action": "Allow", "source": {}, "destination": {} }]);
    let profile = json!({
        "apiVersion": API_VERSION,
        "kind": "Profile",
        "metadata": { "name": ALLOW_PROFILE },
        "spec": { "ingress": allow, "egress": allow },
    });
    profile.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(value: Value) -> Vec<String> {
        validate(&value).iter().map(ToString::to_string).collect()
    }

    fn resource(kind: &str, name: &str, spec: Value) -> Value {
        json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})
    }

    #[test]
    fn a_resource_is_checked_as_a_whole() {
        let cases = [
            (json!([]), "must be a resource"),
            (json!({"kind": "Tier"}), "apiVersion: must be projectcalico.org/v3"),
            (resource("Pod", "a", json!({})), "kind: must be one of"),
            (
                resource("Tier", "a", json!({"ordr": 1})),
                "spec.ordr: is no field of TierSpec; these are: order, defaultAction",
            ),
            (resource("ClusterInformation", "a", json!({})), "metadata.name: must be default"),
            (resource("BGPConfiguration", "node.a", json!({"asNumber": 1})), "spec.asNumber: must be set in"),
            (
                resource("IPPool", "a", json!({"cidr": "10.0.0.0/8", "blockSize": 19})),
                "spec.blockSize: must be from 20 to 32",
            ),
            (resource("Profile", ALLOW_PROFILE, json!({})), "metadata.name: must not be"),
            (
                resource(
                    "WorkloadEndpoint",
                    "a",
                    json!({"node": "n", "orchestrator": "k8s", "pod": "p", "endpoint": "e", "interfaceName": "c"}),
                ),
                "metadata.name: must be n-k8s-p-e",
            ),
            (
                resource(
                    "NetworkPolicy",
                    "a",
                    json!({"ingress": [{"action": "Allow", "source": {"nets": []}}]}),
                ),
                "spec.ingress[0].source.nets: must not be an empty list",
            ),
            (resource("GlobalNetworkPolicy", "a", json!({"tier": "t"})), "metadata.name: must be t.<name>"),
            (
                json!({"apiVersion": API_VERSION, "kind": "Tier", "metadata": {"name": "a", "namespace": "b"}}),
                "metadata.namespace: must not",
            ),
        ];
        for (value, expected) in cases {
            let said = said(value.clone());
            assert!(said.len() == 1 && said[0].starts_with(expected), "{value}: {said:?}");
        }
    }

    #[test]
    fn a_namespace_is_filled_in_where_kinds_have_one() {
        let policy = Resource::check(&resource("NetworkPolicy", "a", json!({})), "x").unwrap();
        assert_eq!((policy.namespace(), policy.name(), policy.resource_version()), ("x", "a", None));
        let tier = Resource::check(&resource("Tier", "a", json!({})), "x").unwrap();
        assert_eq!(tier.namespace(), "");
    }

    #[test]
    fn the_built_in_profile_is_a_valid_one() {
        let mut value = Value::Object(allow_profile());
        value["metadata"]["name"] = "a".into();
        assert_eq!(validate(&value), []);
    }
}
