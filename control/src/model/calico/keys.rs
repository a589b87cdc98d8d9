//! Keys of v3 resources: `/calico/resources/v3/projectcalico.org/<kind>/[<namespace>/]<name>`.

/// What the keys of all workload endpoints, of all nodes, start with.
pub const WORKLOAD_ENDPOINTS: &str = "/calico/resources/v3/projectcalico.org/workloadendpoints/";

/// Longest name taken, bytes. Four segments of at most 253 characters (RFC 1123 host names), dashes doubled.
const MAX_NAME: usize = 2048;

/// Which workload endpoint; sorts and prints as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadKey {
    /// Kubernetes namespace, or the network's name with other orchestrators.
    pub namespace: String,
    /// `<node>-<orchestrator>-<workload>-<endpoint>`, dashes inside the segments doubled.
    pub name: String,
}

impl WorkloadKey {
    /// From a full key; `None` for every other key, and for names that no orchestrator makes: they end up in logs,
    /// metrics and file names.
    pub fn from_key(key: &str) -> Option<Self> {
        let (namespace, name) = key.strip_prefix(WORKLOAD_ENDPOINTS)?.split_once('/')?;
        let sound = |text: &str| {
            (1..=MAX_NAME).contains(&text.len())
                && !text.contains("..")
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        };
        (sound(namespace) && sound(name))
            .then(|| Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The full key.
    pub fn key(&self) -> String {
        format!("{WORKLOAD_ENDPOINTS}{self}")
    }

    /// The four segments of the name: node, orchestrator, workload, endpoint.
    pub fn segments(&self) -> Option<[String; 4]> {
        segments(&self.name)
    }
}

impl std::fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Splits at single dashes and turns double ones into one; `None` unless that gives four parts. The first character
/// separates nothing, as in libcalico-go.
fn segments(name: &str) -> Option<[String; 4]> {
    // Four segments of one character and three dashes.
    const SHORTEST: usize = 7;
    let bytes = name.as_bytes();
    if bytes.len() < SHORTEST {
        return None;
    }
    let mut parts = Vec::with_capacity(4);
    let (mut start, mut at) = (0, 1);
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'-', Some(b'-')) => at += 2,
            (b'-', _) => {
                parts.push(name[start..at].replace("--", "-"));
                at += 1;
                start = at;
            }
            _ => at += 1,
        }
    }
    parts.push(name[start..].replace("--", "-"));
    parts.try_into().ok()
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
    fn other_keys_and_odd_names_are_none() {
        for rest in ["", "default", "default/", "/name", "a/b/c", "a/b;c", "a/b\0", "a/..", "a/b c"] {
            assert_eq!(WorkloadKey::from_key(&format!("{WORKLOAD_ENDPOINTS}{rest}")), None, "{rest:?}");
        }
        assert_eq!(WorkloadKey::from_key("/calico/resources/v3/projectcalico.org/profiles/kns.a"), None);
    }

    #[test]
    fn names_split_at_single_dashes() {
        let split = |name| segments(name).map(|parts| parts.join("|"));
        assert_eq!(split("a--b--c-k8s-x----y-eth0").as_deref(), Some("a-b-c|k8s|x--y|eth0"));
        assert_eq!(split("-a-k8s-p-e").as_deref(), Some("-a|k8s|p|e"));
        for bad in ["", "n--", "n-o-w", "a-b", "----a-b-c-d", "a-b-c-d-e"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
