//! From what somebody wrote to what is stored: names, defaults, identity. Pure: time and identity are arguments.

use serde_json::{Value, json};

use super::check::pool::default_block_size;
use super::document::{API_VERSION, Resource};
use super::encode::encode;
use super::error::FieldError;
use super::kind::Kind;
use super::name::{DEFAULT_TIER, stored_policy_name};
use super::net::Net;
use super::schema::{self, Object, object_of, text_of};
use super::stamp::Stamp;
use super::text::LABEL_MAX;

/// Names that a workload endpoint's labels have for what its specification says.
const LABEL_NAMESPACE: &str = "projectcalico.org/namespace";
const LABEL_ORCHESTRATOR: &str = "projectcalico.org/orchestrator";
const LABEL_SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";

/// What policies of other tiers than the default one are found by.
const LABEL_TIER: &str = "projectcalico.org/tier";

/// What is put into the datastore.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// Name in the key and in the value.
    pub name: String,
    /// The value.
    pub object: Object,
}

impl Prepared {
    /// As the bytes that libcalico-go would store.
    pub fn encode(&self, kind: Kind) -> Vec<u8> {
        encode(kind.shape(), &self.object).into_bytes()
    }
}

/// Makes what is stored. `existing` is what the datastore has now: its metadata stays, but for labels and annotations.
///
/// # Errors
/// What may not be changed, and what defaults do not go with.
pub fn prepare(
    resource: &Resource,
    existing: Option<&Object>,
    stamp: &Stamp,
) -> Result<Prepared, Vec<FieldError>> {
    let kind = resource.kind();
    let mut object = resource.object().clone();
    if let Some(Value::Object(spec)) = object.get_mut("spec") {
        defaults(kind, resource.name(), spec);
    }
    let name =
        match existing.and_then(|stored| object_of(stored, "metadata")).map(|meta| text_of(meta, "name")) {
            Some(stored) if !stored.is_empty() => stored.to_owned(),
            _ if kind.is_policy() => stored_policy_name(resource.name()),
            _ => resource.name().to_owned(),
        };
    let meta = metadata(resource, existing, &name, stamp);
    object.insert("metadata".to_owned(), Value::Object(meta));
    object.insert("kind".to_owned(), kind.name().into());
    object.insert("apiVersion".to_owned(), API_VERSION.into());
    if let Some(existing) = existing {
        unchanged(kind, existing, &object)?;
    }
    // Defaults may go together with what was written, or not. The name is the stored one now: no rule for it.
    let spec = object.get("spec").cloned().unwrap_or_default();
    if let Some(errors) = schema::validate_type(&format!("{kind}Spec"), &spec)
        && !errors.is_empty()
    {
        let below = |error: FieldError| FieldError { path: format!("spec.{}", error.path), ..error };
        return Err(errors.into_iter().map(below).collect());
    }
    Ok(Prepared { name, object })
}

/// What libcalico-go's client fills in.
fn defaults(kind: Kind, name: &str, spec: &mut Object) {
    match kind.name() {
        _ if kind.is_policy() => {
            let types = match (spec.contains_key("ingress"), spec.contains_key("egress")) {
                (_, false) => json!(["Ingress"]),
                (false, true) => json!(["Egress"]),
                (true, true) => json!(["Ingress", "Egress"]),
            };
            spec.entry("types").or_insert(types);
        }
        "Tier" => {
            let action = if matches!(name, "kube-admin" | "kube-baseline") { "Pass" } else { "Deny" };
            spec.entry("defaultAction").or_insert_with(|| action.into());
            let order = match name {
                DEFAULT_TIER => 1_000_000,
                "kube-admin" => 1_000,
                "kube-baseline" => 10_000_000,
                _ => return,
            };
            spec.entry("order").or_insert_with(|| order.into());
        }
        "IPPool" => pool_defaults(spec),
        _ => {}
    }
}

/// What a pool means that says nothing about it; also for pools that are read.
pub(super) fn pool_defaults(spec: &mut Object) {
    if let Some(cidr) = Net::cidr_or_address(text_of(spec, "cidr")) {
        spec.insert("cidr".to_owned(), cidr.to_string().into());
        spec.entry("blockSize").or_insert_with(|| default_block_size(cidr).into());
    }
    for mode in ["ipipMode", "vxlanMode"] {
        spec.entry(mode).or_insert_with(|| "Never".into());
    }
    spec.entry("nodeSelector").or_insert_with(|| "all()".into());
    spec.entry("allowedUses").or_insert_with(|| json!(["Workload", "Tunnel"]));
}

fn metadata(resource: &Resource, existing: Option<&Object>, name: &str, stamp: &Stamp) -> Object {
    let none = Object::new();
    let written = object_of(resource.object(), "metadata").unwrap_or(&none);
    let mut meta = existing.and_then(|stored| object_of(stored, "metadata")).cloned().unwrap_or_default();
    for left in ["resourceVersion", "selfLink", "labels", "annotations"] {
        meta.remove(left);
    }
    for kept in ["labels", "annotations"] {
        if let Some(value) = written.get(kept) {
            meta.insert(kept.to_owned(), value.clone());
        }
    }
    meta.insert("name".to_owned(), name.into());
    if resource.kind().is_namespaced() {
        meta.insert("namespace".to_owned(), resource.namespace().into());
    }
    for (field, value) in [("uid", &stamp.uid), ("creationTimestamp", &stamp.created)] {
        if text_of(&meta, field).is_empty() {
            meta.insert(field.to_owned(), value.as_str().into());
        }
    }
    let labels = own_labels(resource);
    if !labels.is_empty()
        && let Value::Object(given) = meta.entry("labels").or_insert_with(|| Value::Object(Object::new()))
    {
        given.extend(labels);
    }
    meta
}

/// Labels that nobody chooses.
fn own_labels(resource: &Resource) -> Object {
    let mut labels = Object::new();
    let Some(spec) = object_of(resource.object(), "spec") else { return labels };
    let mut add = |name: &str, value: &str| labels.insert(name.to_owned(), value.into());
    if resource.kind().name() == "WorkloadEndpoint" {
        add(LABEL_NAMESPACE, resource.namespace());
        add(LABEL_ORCHESTRATOR, text_of(spec, "orchestrator"));
        let account = text_of(spec, "serviceAccountName");
        if !account.is_empty() && account.len() <= LABEL_MAX {
            add(LABEL_SERVICE_ACCOUNT, account);
        }
    }
    let tier = text_of(spec, "tier");
    if resource.kind().is_policy() && !matches!(tier, "" | DEFAULT_TIER) {
        add(LABEL_TIER, tier);
    }
    labels
}

/// What addresses have been given from cannot move.
fn unchanged(kind: Kind, before: &Object, after: &Object) -> Result<(), Vec<FieldError>> {
    let (Some(before), Some(after)) = (object_of(before, "spec"), object_of(after, "spec")) else {
        return Ok(());
    };
    match kind.name() {
        "IPPool" => {
            let mut before = before.clone();
            pool_defaults(&mut before);
            let changed =
                ["cidr", "blockSize"].into_iter().filter(|field| before.get(*field) != after.get(*field));
            let error = |field: &str| FieldError {
                path: format!("spec.{field}"),
                sentence: format!(
                    "must stay {}: it cannot be changed",
                    before.get(field).unwrap_or(&Value::Null)
                ),
            };
            let errors: Vec<FieldError> = changed.map(error).collect();
            if errors.is_empty() { Ok(()) } else { Err(errors) }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp {
            created: "2024-01-02T03:04:05Z".to_owned(),
            uid: "30316465-6365-4463-ad63-3564622d3638".to_owned(),
        }
    }

    fn prepared(value: &Value, existing: Option<&Value>) -> Result<Value, String> {
        let resource = Resource::check(value, "default").map_err(|e| format!("{e:?}"))?;
        let existing = existing.map(|value| value.as_object().unwrap());
        let prepared = prepare(&resource, existing, &stamp()).map_err(|e| e[0].to_string())?;
        Ok(serde_json::from_slice(&prepared.encode(resource.kind())).unwrap())
    }

    fn written(kind: &str, name: &str, spec: Value) -> Value {
        json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})
    }

    fn stored(kind: &str, name: &str, spec: Value) -> Value {
        let meta = json!({"name": name, "uid": stamp().uid, "creationTimestamp": stamp().created});
        json!({"apiVersion": API_VERSION, "kind": kind, "metadata": meta, "spec": spec})
    }

    #[test]
    fn policies_get_their_tiers_name_and_types() {
        let rule = json!({"action": "Allow"});
        let full = json!({"action": "Allow", "source": {}, "destination": {}});
        for (given, types) in [
            (json!({}), json!(["Ingress"])),
            (json!({"ingress": []}), json!(["Ingress"])),
            (json!({"egress": [rule]}), json!(["Egress"])),
            (json!({"ingress": [rule], "egress": [rule]}), json!(["Ingress", "Egress"])),
            (json!({"egress": [rule], "types": ["Ingress"]}), json!(["Ingress"])),
        ] {
            let mut spec = given.clone();
            for direction in ["ingress", "egress"] {
                match given[direction].as_array().map(Vec::len) {
                    Some(0) => drop(spec.as_object_mut().unwrap().remove(direction)),
                    Some(_) => spec[direction] = json!([full]),
                    None => {}
                }
            }
            spec["types"] = types;
            let expected = stored("GlobalNetworkPolicy", "default.deny", spec);
            assert_eq!(prepared(&written("GlobalNetworkPolicy", "deny", given), None), Ok(expected));
        }
        let tiered =
            prepared(&written("GlobalNetworkPolicy", "sec.a", json!({"tier": "sec"})), None).unwrap();
        assert_eq!(tiered["metadata"]["name"], "sec.a");
        assert_eq!(tiered["metadata"]["labels"], json!({"projectcalico.org/tier": "sec"}));
        assert_eq!(tiered["spec"], json!({"tier": "sec", "types": ["Ingress"]}));
        let made = prepared(&written("NetworkPolicy", "knp.default.a", json!({})), None).unwrap();
        assert_eq!(
            (&made["metadata"]["name"], &made["metadata"]["namespace"]),
            (&json!("knp.default.a"), &json!("default"))
        );
    }

    #[test]
    fn pools_and_tiers_get_what_they_do_not_say() {
        let pool =
            prepared(&written("IPPool", "p", json!({"cidr": "10.244.0.0/16", "natOutgoing": true})), None);
        let spec = json!({
            "cidr": "10.244.0.0/16", "natOutgoing": true, "blockSize": 26, "ipipMode": "Never", "vxlanMode": "Never",
            "nodeSelector": "all()", "allowedUses": ["Workload", "Tunnel"],
        });
        assert_eq!(pool, Ok(stored("IPPool", "p", spec)));
        for (name, spec) in [
            ("default", json!({"order": 1_000_000, "defaultAction": "Deny"})),
            ("kube-admin", json!({"order": 1_000, "defaultAction": "Pass"})),
            ("security", json!({"defaultAction": "Deny"})),
        ] {
            assert_eq!(prepared(&written("Tier", name, json!({})), None), Ok(stored("Tier", name, spec)));
        }
    }

    #[test]
    fn what_is_there_keeps_its_identity_and_loses_what_is_left_out() {
        let mut old =
            stored("HostEndpoint", "h", json!({"node": "n", "interfaceName": "eth0", "profiles": ["p"]}));
        old["metadata"]["labels"] = json!({"a": "1"});
        old["metadata"]["annotations"] = json!({"b": "2"});
        old["metadata"]["ownerReferences"] = json!([{"x": 1}]);
        old["metadata"]["uid"] = "other".into();
        let mut new = written("HostEndpoint", "h", json!({"node": "n", "interfaceName": "eth1"}));
        new["metadata"] = json!({"name": "h", "labels": {"c": "3"}, "uid": "mine", "resourceVersion": "7", "generateName": "x"});
        let merged = prepared(&new, Some(&old)).unwrap();
        let expected = json!({
            "name": "h", "uid": "other", "creationTimestamp": stamp().created, "labels": {"c": "3"}, "ownerReferences": [{"x": 1}],
        });
        assert_eq!(merged["metadata"], expected);
        assert_eq!(merged["spec"], json!({"node": "n", "interfaceName": "eth1"}));
        // A new one takes only what an author decides.
        let fresh = prepared(&new, None).unwrap();
        let expected = json!({"name": "h", "uid": stamp().uid, "creationTimestamp": stamp().created, "labels": {"c": "3"}});
        assert_eq!(fresh["metadata"], expected);
    }

    #[test]
    fn a_policy_stays_where_it_is_stored() {
        let old = stored("GlobalNetworkPolicy", "deny", json!({"types": ["Ingress"]}));
        let new = prepared(&written("GlobalNetworkPolicy", "deny", json!({"order": 1})), Some(&old)).unwrap();
        assert_eq!(new["metadata"]["name"], "deny");
    }

    #[test]
    fn pools_do_not_move() {
        let old = stored("IPPool", "p", json!({"cidr": "10.0.0.0/16"}));
        let same = written("IPPool", "p", json!({"cidr": "10.0.0.0/16", "blockSize": 26, "disabled": true}));
        assert!(prepared(&same, Some(&old)).is_ok());
        let moved =
            prepared(&written("IPPool", "p", json!({"cidr": "10.1.0.0/16"})), Some(&old)).unwrap_err();
        assert_eq!(moved, "spec.cidr: must stay \"10.0.0.0/16\": it cannot be changed");
        let cut =
            prepared(&written("IPPool", "p", json!({"cidr": "10.0.0.0/16", "blockSize": 27})), Some(&old))
                .unwrap_err();
        assert!(cut.starts_with("spec.blockSize"), "{cut}");
    }

    #[test]
    fn endpoints_are_labelled_by_what_they_say() {
        let spec = json!({
            "node": "node-1", "orchestrator": "k8s", "pod": "web-1", "endpoint": "eth0", "interfaceName": "cali0",
            "serviceAccountName": "web", "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
        });
        let mut given = written("WorkloadEndpoint", "node--1-k8s-web--1-eth0", spec);
        given["metadata"]["labels"] = json!({"projectcalico.org/namespace": "lie", "app": "web"});
        let endpoint = prepared(&given, None).unwrap();
        let labels = json!({
            "app": "web", "projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "k8s",
            "projectcalico.org/serviceaccount": "web",
        });
        assert_eq!(endpoint["metadata"]["labels"], labels);
        let port = json!([{"name": "http", "protocol": "TCP", "port": 80, "hostPort": 0, "hostIP": ""}]);
        assert_eq!(endpoint["spec"]["ports"], port);
    }

    #[test]
    fn empty_lists_stay_where_they_mean_something() {
        let spec = json!({"failsafeInboundHostPorts": [], "ipv6Support": false, "logPrefix": ""});
        let felix = prepared(&written("FelixConfiguration", "default", spec), None).unwrap();
        let expected = json!({"failsafeInboundHostPorts": [], "ipv6Support": false, "bpfLogLevel": ""});
        assert_eq!(felix["spec"], expected);
        let node = prepared(&written("Node", "n", json!({})), None).unwrap();
        assert_eq!(node["status"], json!({}));
    }
}
