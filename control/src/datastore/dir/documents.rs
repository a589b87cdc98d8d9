//! The text of one file, taken apart into keys and JSON values. Pure: bytes in, documents or a reason out.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::layout::{Format, Place};
use crate::model::calico::keys::RESOURCES_PREFIX;
use crate::model::calico::kind::Kind;

/// The only group and version of Calico resources there is.
const API_VERSION: &str = "projectcalico.org/v3";

/// Namespace of a namespaced resource that names none, as `calicoctl` fills in.
const DEFAULT_NAMESPACE: &str = "default";

/// Longest name or namespace; Kubernetes and Calico stop at 253.
const NAME_MAX: usize = 253;

/// One key with its value, from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The key etcd would have it under.
    pub key: String,
    /// JSON text.
    pub value: Vec<u8>,
}

/// Why a file, or a document in it, is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Nothing (yet) in it: somebody may be writing it.
    #[error("empty file")]
    Empty,
    /// Longer than any document of ours.
    #[error("{bytes} bytes long, at most {limit} are read")]
    TooLarge {
        /// Its length.
        bytes: u64,
        /// What would have been read.
        limit: u64,
    },
    /// The system did not let us read it.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Not YAML.
    #[error("not valid YAML: {0}")]
    Yaml(String),
    /// Not JSON.
    #[error("not valid JSON: {0}")]
    Json(String),
    /// The file's name does not say which subnet.
    #[error("name is not a subnet's: write e.g. 10.244.1.0-24.json")]
    NotASubnet,
    /// More than one document where the file's name already is the key.
    #[error("holds {0} documents where one is expected")]
    Documents(usize),
    /// A resource without kind, or another group.
    #[error("document {document}: apiVersion must be {API_VERSION} and kind one of Calico's, not {found}")]
    NotAResource {
        /// Counted from 1.
        document: usize,
        /// `apiVersion/kind` as found.
        found: String,
    },
    /// `metadata.name` or `metadata.namespace` missing or unusable in a key.
    #[error("document {document}: metadata.{field} is missing or not a name")]
    Name {
        /// Counted from 1.
        document: usize,
        /// `name` or `namespace`.
        field: &'static str,
    },
    /// The same key in two places; the first in lexical order counts.
    #[error("{key} is already in {}", first.display())]
    Duplicate {
        /// The key.
        key: String,
        /// The file that counts.
        first: PathBuf,
    },
    /// Files deeper or more than we follow.
    #[error("beyond the limit of {0}")]
    Limit(&'static str),
    /// No change notifications for it: changes are found by the slow scan only.
    #[error("cannot be watched: {0}")]
    Unwatched(String),
}

/// Takes the text of a file apart.
///
/// # Errors
/// The first [`Reason`] not to use the file; a file counts as a whole or not at all.
pub fn documents(place: &Place, format: Format, text: &[u8]) -> Result<Vec<Document>, Reason> {
    if text.trim_ascii().is_empty() {
        return Err(Reason::Empty);
    }
    match place {
        Place::Value { key } => Ok(vec![Document { key: key.clone(), value: value(format, text)? }]),
        Place::Resources => {
            let mut found = Vec::new();
            for (n, value) in values(format, text)?.into_iter().enumerate() {
                for resource in flatten(value) {
                    found.push(document(resource, n + 1)?);
                }
            }
            Ok(found)
        }
    }
}

/// One value: JSON as it is written (flannel's field order and repetitions keep their meaning), YAML as compact
/// JSON in the order written.
fn value(format: Format, text: &[u8]) -> Result<Vec<u8>, Reason> {
    match format {
        Format::Json => {
            let text = text.trim_ascii();
            serde_json::from_slice::<serde::de::IgnoredAny>(text).map_err(|e| Reason::Json(e.to_string()))?;
            Ok(text.to_vec())
        }
        Format::Yaml => {
            let mut documents = yaml(text)?;
            match (documents.pop(), documents.len()) {
                (Some(only), 0) => serde_json::to_vec(&only).map_err(|e| Reason::Json(e.to_string())),
                (_, others) => Err(Reason::Documents(if others == 0 { 0 } else { others + 1 })),
            }
        }
    }
}

fn values(format: Format, text: &[u8]) -> Result<Vec<Value>, Reason> {
    let json = |e: serde_json::Error| Reason::Json(e.to_string());
    match format {
        Format::Json => Ok(vec![serde_json::from_slice(text).map_err(json)?]),
        Format::Yaml => yaml(text)?.iter().map(|value| serde_json::to_value(value).map_err(json)).collect(),
    }
}

/// The documents of a YAML text; empty ones (nothing between two `---`) are left out.
fn yaml(text: &[u8]) -> Result<Vec<serde_yaml_ng::Value>, Reason> {
    let wrong = |e: serde_yaml_ng::Error| Reason::Yaml(e.to_string());
    let mut documents = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_slice(text) {
        let mut value = serde_yaml_ng::Value::deserialize(document).map_err(wrong)?;
        if value.is_null() {
            continue;
        }
        value.apply_merge().map_err(wrong)?;
        documents.push(value);
    }
    Ok(documents)
}

/// A `…List` document (what `calicoctl get -o yaml` prints) is its items.
fn flatten(mut value: Value) -> Vec<Value> {
    let is_list = value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => items,
        Some(items) => {
            value["items"] = items;
            vec![value]
        }
        None => vec![value],
    }
}

fn document(mut resource: Value, document: usize) -> Result<Document, Reason> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (api_version, kind_name) = (text(&resource["apiVersion"]), text(&resource["kind"]));
    let kind = Kind::by_name(&kind_name).filter(|_| api_version == API_VERSION).ok_or_else(|| {
        let found: String = format!("{api_version}/{kind_name}").chars().take(NAME_MAX).collect();
        Reason::NotAResource { document, found }
    })?;
    let name = text(&resource["metadata"]["name"]);
    if !is_segment(&name) {
        return Err(Reason::Name { document, field: "name" });
    }
    let mut key = format!("{RESOURCES_PREFIX}{}/", kind.plural());
    if kind.namespaced() {
        if resource["metadata"]["namespace"].is_null() {
            resource["metadata"]["namespace"] = DEFAULT_NAMESPACE.into();
        }
        let namespace = text(&resource["metadata"]["namespace"]);
        if !is_segment(&namespace) {
            return Err(Reason::Name { document, field: "namespace" });
        }
        key.push_str(&namespace);
        key.push('/');
    }
    key.push_str(&name);
    let value = serde_json::to_vec(&resource).map_err(|e| Reason::Json(e.to_string()))?;
    Ok(Document { key, value })
}

/// Usable as one segment of a key.
fn is_segment(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_MAX && !text.contains(|c: char| c == '/' || c.is_control())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config() -> Place {
        Place::Value { key: "/coreos.com/network/config".to_owned() }
    }

    fn resources(text: &str) -> Result<Vec<Document>, Reason> {
        documents(&Place::Resources, Format::Yaml, text.as_bytes())
    }

    #[test]
    fn a_yaml_value_becomes_compact_json_in_its_own_order() {
        let text = "# net\nNetwork: 10.244.0.0/16\nBackend:\n  Type: vxlan\n  VNI: 1\nEnableIPv6: false\n";
        let found = documents(&config(), Format::Yaml, text.as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&found[0].value),
            r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":1},"EnableIPv6":false}"#
        );
    }

    #[test]
    fn a_json_value_is_kept_as_written() {
        let text = "{\"b\": 1, \"B\":2 }";
        let found = documents(&config(), Format::Json, format!("\n{text}\n").as_bytes()).unwrap();
        assert_eq!(found[0].value, text.as_bytes());
        for bad in ["{", "{} {}", "{'a':1}", "{\"a\":1"] {
            assert!(matches!(documents(&config(), Format::Json, bad.as_bytes()), Err(Reason::Json(_))));
        }
        assert_eq!(documents(&config(), Format::Json, b" \n"), Err(Reason::Empty));
        let two = documents(&config(), Format::Yaml, b"a: 1\n---\nb: 1\n");
        assert_eq!(two, Err(Reason::Documents(2)));
        assert_eq!(documents(&config(), Format::Yaml, b"# nothing\n"), Err(Reason::Documents(0)));
    }

    #[test]
    fn many_resources_in_one_text() {
        let text = "
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: default.deny}
spec: {order: 10.5}
---
# only a remark
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: p, namespace: ns}
---
apiVersion: projectcalico.org/v3
kind: NetworkSetList
items:
- {apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: s}}
- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: t}}
";
        let found = resources(text).unwrap();
        let keys: Vec<_> =
            found.iter().map(|d| d.key.strip_prefix(RESOURCES_PREFIX).unwrap().to_owned()).collect();
        assert_eq!(
            keys,
            [
                "globalnetworkpolicies/default.deny",
                "networkpolicies/ns/p",
                "networksets/default/s",
                "tiers/t"
            ]
        );
        let policy: Value = serde_json::from_slice(&found[0].value).unwrap();
        assert_eq!(policy["spec"]["order"], 10.5);
        let set: Value = serde_json::from_slice(&found[2].value).unwrap();
        assert_eq!(set["metadata"]["namespace"], "default");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let resource = |api: &str, kind: &str, name: &str| {
            resources(&format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: \"{name}\"}}\n"))
        };
        assert!(matches!(resource("v1", "Node", "n"), Err(Reason::NotAResource { document: 1, .. })));
        assert!(matches!(resource(API_VERSION, "Pod", "n"), Err(Reason::NotAResource { .. })));
        for name in ["", "a/b", "a\\nb"] {
            assert_eq!(resource(API_VERSION, "Tier", name), Err(Reason::Name { document: 1, field: "name" }));
        }
        assert!(matches!(resources("a: [1"), Err(Reason::Yaml(_))));
        assert!(matches!(resources("just text"), Err(Reason::NotAResource { .. })));
        assert!(matches!(resources("[1, 2]"), Err(Reason::NotAResource { .. })));
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for n in 1..12 {
            let before = format!("*a{}", n - 1);
            text.push_str(&format!("a{n}: &a{n} [{}]\n", [before.as_str(); 9].join(",")));
        }
        assert!(matches!(resources(&text), Err(Reason::Yaml(_))));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..300), json in any::<bool>()) {
            let format = if json { Format::Json } else { Format::Yaml };
            for place in [config(), Place::Resources] {
                if let Ok(found) = documents(&place, format, &text) {
                    for document in found {
                        prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&document.value).is_ok());
                    }
                }
            }
        }

        #[test]
        fn yaml_like_text_does_not_either(text in "[-a:{}\\[\\], \\n&*!|>'\"#?]{0,80}") {
            let tail = format!("apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {{name: t}}\nspec:\n {text}");
            let _ = resources(&text);
            if let Ok(found) = resources(&tail) {
                prop_assert!(found.iter().all(|d| d.key.starts_with(RESOURCES_PREFIX)));
            }
        }
    }
}
