//! Keys of v3 resources: `/calico/resources/v3/projectcalico.org/<kind>/[<namespace>/]<name>`.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::kind::Kind;
use super::names;

/// What the keys of all v3 resources start with.
pub const RESOURCES_PREFIX: &str = "/calico/resources/v3/projectcalico.org/";

/// What the keys of all workload endpoints, of all nodes, start with.
pub const WORKLOAD_ENDPOINTS: &str = "/calico/resources/v3/projectcalico.org/workloadendpoints/";

/// What the keys of all IPAM blocks start with.
pub const BLOCKS: &str = "/calico/ipam/v2/assignment/";

/// Longest name taken, bytes. Four segments of at most 253 characters (RFC 1123 host names), dashes doubled.
const MAX_NAME: usize = 2048;

/// A name that an orchestrator or a person makes. Names end up in selectors, logs, metrics and file names; quotes,
/// slashes and the like could mean something there.
pub(super) fn sound(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && !name.contains("..")
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

/// Which resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    /// `None` = a kind that nobody here knows; it has no namespace.
    pub kind: Option<Kind>,
    /// Empty for kinds without.
    pub namespace: String,
    /// As stored.
    pub name: String,
}

impl ResourceKey {
    /// From a full key. `None` for other keys and for those with too many or too few segments.
    pub fn parse(key: &str) -> Option<Self> {
        let (plural, rest) = key.strip_prefix(RESOURCES_PREFIX)?.split_once('/')?;
        let kind = Kind::by_plural(plural);
        let (namespace, name) =
            if kind.is_some_and(Kind::namespaced) { rest.split_once('/')? } else { ("", rest) };
        let whole = !plural.is_empty() && !name.is_empty() && !name.contains('/');
        (whole && (namespace.is_empty() != kind.is_some_and(Kind::namespaced))).then(|| Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The full key. One of an unknown kind has none that leads back here.
    pub fn path(&self) -> String {
        format!("{RESOURCES_PREFIX}{}/{}", self.kind.map_or("", Kind::plural), self.full_name())
    }

    /// `name`, or `namespace/name`.
    pub fn full_name(&self) -> String {
        if self.namespace.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }

    /// Whether an orchestrator or a person would call something so.
    pub(super) fn is_sound(&self) -> bool {
        sound(&self.name) && (self.namespace.is_empty() || sound(&self.namespace))
    }
}

/// Which workload endpoint; sorts by namespace and name, prints as `namespace/name`. Clones share the text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WorkloadKey(Arc<str>);

impl WorkloadKey {
    /// Of a namespace, which has no slash in it, and a name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// Kubernetes namespace, or the network's name with other orchestrators.
    pub fn namespace(&self) -> &str {
        self.parts().0
    }

    /// `<node>-<orchestrator>-<workload>-<endpoint>`, dashes inside the segments doubled.
    pub fn name(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or((&self.0, ""))
    }

    /// From a full key; `None` for every other key, and for names that no orchestrator makes.
    pub fn from_key(key: &str) -> Option<Self> {
        let (namespace, name) = key.strip_prefix(WORKLOAD_ENDPOINTS)?.split_once('/')?;
        (sound(namespace) && sound(name)).then(|| Self::new(namespace, name))
    }

    /// The full key.
    pub fn key(&self) -> String {
        format!("{WORKLOAD_ENDPOINTS}{self}")
    }

    /// The four segments of the name: node, orchestrator, workload, endpoint.
    pub fn segments(&self) -> Option<[String; 4]> {
        names::segments(self.name())
    }
}

impl fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkloadKey({self})")
    }
}

impl Ord for WorkloadKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl PartialOrd for WorkloadKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_one_endpoint() {
        let text = format!("{WORKLOAD_ENDPOINTS}default/node--1-k8s-web--0-eth0");
        let key = WorkloadKey::from_key(&text).unwrap();
        assert_eq!(key.to_string(), "default/node--1-k8s-web--0-eth0");
        assert_eq!(key.key(), text);
        assert_eq!(key.segments().unwrap(), ["node-1", "k8s", "web-0", "eth0"]);
    }

    #[test]
    fn keys_sort_by_namespace_first() {
        let keys = [("a", "z"), ("a-b", "a"), ("ab", "")].map(|(ns, name)| WorkloadKey::new(ns, name));
        assert!(keys.is_sorted(), "as text a-b/a comes before a/z: {keys:?}");
        assert_eq!(keys.map(|key| (key.namespace().len(), key.name().len())), [(1, 1), (3, 1), (2, 0)]);
    }

    #[test]
    fn other_keys_and_odd_names_are_none() {
        for rest in ["", "default", "default/", "/name", "a/b/c", "a/b;c", "a/b\0", "a/..", "a/b c", "a/b'c"]
        {
            assert_eq!(WorkloadKey::from_key(&format!("{WORKLOAD_ENDPOINTS}{rest}")), None, "{rest:?}");
        }
        assert_eq!(WorkloadKey::from_key("/calico/resources/v3/projectcalico.org/profiles/kns.a"), None);
    }

    #[test]
    fn a_kind_has_a_namespace_or_has_none() {
        let parse =
            |rest: &str| ResourceKey::parse(&format!("{RESOURCES_PREFIX}{rest}")).map(|key| key.full_name());
        assert_eq!(parse("networkpolicies/ns/a").as_deref(), Some("ns/a"));
        assert_eq!(parse("tiers/a").as_deref(), Some("a"));
        assert_eq!(parse("whatever/a").as_deref(), Some("a"));
        for bad in [
            "tiers",
            "tiers/",
            "tiers/a/b",
            "networkpolicies/a",
            "networkpolicies//a",
            "networkpolicies/a/",
            "/a",
            "whatever/a/b",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(ResourceKey::parse("calico/resources/v3/projectcalico.org/tiers/a"), None);
    }
}
