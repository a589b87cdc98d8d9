//! A workload endpoint: one interface of one pod, on whichever node.

use canal_dataplane::net::Mac;
use ipnetwork::IpNetwork;
use serde_json::Value;

use super::json;
use super::keys::WorkloadKey;

/// Longest interface name, bytes (`IFNAMSIZ` less the final NUL).
const MAX_INTERFACE: usize = 15;

/// Most addresses taken of one endpoint. Orchestrators give one or two; the source check walks the list.
pub const MAX_NETWORKS: usize = 64;

/// What forwarding needs of a workload endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadEndpoint {
    /// The node it runs on.
    pub node: String,
    /// Host-side interface.
    pub interface: String,
    /// Its addresses, /32 and /128 only, sorted, once each.
    pub networks: Vec<IpNetwork>,
    /// Its Ethernet address, if known.
    pub mac: Option<Mac>,
}

/// Why a value is no usable workload endpoint.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// Not a JSON object.
    #[error("not a JSON object: {0}")]
    Syntax(#[from] serde_json::Error),
    /// A member of the wrong type.
    #[error("{0} has the wrong type")]
    WrongType(&'static str),
    /// Neither `spec.node` nor the name says where it runs.
    #[error("neither spec.node nor the name says which node it runs on")]
    NoNode,
    /// `spec.node` and the name disagree.
    #[error("spec.node is {spec:?}, but the name says {name:?}")]
    NodesDiffer {
        /// As in `spec.node`.
        spec: String,
        /// As in the name's first segment.
        name: String,
    },
    /// Not a name the kernel would take.
    #[error("interfaceName {0:?} is no interface name")]
    Interface(String),
    /// Not an address.
    #[error("ipNetworks entry {0:?} is not one address with a full prefix length")]
    Network(String),
    /// More than [`MAX_NETWORKS`].
    #[error("{0} ipNetworks, at most {MAX_NETWORKS} are taken")]
    TooManyNetworks(usize),
    /// Not an Ethernet address of one station.
    #[error("mac {0:?} is no Ethernet address of a station")]
    Mac(String),
}

impl WorkloadEndpoint {
    /// Reads the value of the key. As with Felix one bad member costs the whole endpoint: half of one could reach
    /// further than its writer meant.
    pub fn decode(key: &WorkloadKey, value: &[u8]) -> Result<Self, WorkloadError> {
        let Value::Object(object) = serde_json::from_slice(value)? else {
            return Err(WorkloadError::WrongType("the endpoint"));
        };
        let spec = match json::member(&object, "spec") {
            Some(Value::Object(spec)) => spec,
            _ => return Err(WorkloadError::WrongType("spec")),
        };
        let text = |name| json::text(spec, name).ok_or(WorkloadError::WrongType(name));
        let listed = json::texts(spec, "ipNetworks").ok_or(WorkloadError::WrongType("ipNetworks"))?;
        if listed.len() > MAX_NETWORKS {
            return Err(WorkloadError::TooManyNetworks(listed.len()));
        }
        let mut networks = listed.into_iter().map(network).collect::<Result<Vec<_>, _>>()?;
        networks.sort_unstable();
        networks.dedup();
        Ok(Self {
            node: node(key, text("node")?)?,
            interface: interface(text("interfaceName")?)?,
            networks,
            mac: mac(text("mac")?)?,
        })
    }
}

/// Where it runs. Felix believes the name, other readers the spec; a liar would have it on two nodes.
fn node(key: &WorkloadKey, spec: &str) -> Result<String, WorkloadError> {
    match (key.segments(), spec) {
        (None, "") => Err(WorkloadError::NoNode),
        (None, spec) => Ok(spec.to_owned()),
        (Some([name, ..]), spec) if spec.is_empty() || spec == name => Ok(name),
        (Some([name, ..]), spec) => Err(WorkloadError::NodesDiffer { spec: spec.to_owned(), name }),
    }
}

fn interface(name: &str) -> Result<String, WorkloadError> {
    let fits = (1..=MAX_INTERFACE).contains(&name.len());
    let sound = name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
    if fits && sound && name != "." && name != ".." {
        Ok(name.to_owned())
    } else {
        Err(WorkloadError::Interface(name.to_owned()))
    }
}

/// `ipNetworks` holds single addresses; Calico's own validation refuses anything wider.
fn network(text: &str) -> Result<IpNetwork, WorkloadError> {
    let parsed: Option<IpNetwork> = text.parse().ok();
    let full = |net: &IpNetwork| net.prefix() == if net.is_ipv4() { 32 } else { 128 };
    parsed.filter(full).ok_or_else(|| WorkloadError::Network(text.to_owned()))
}

fn mac(text: &str) -> Result<Option<Mac>, WorkloadError> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed: Option<Mac> = text.parse().ok();
    match parsed.filter(|mac| mac.is_unicast() && *mac != Mac::ZERO) {
        Some(mac) => Ok(Some(mac)),
        None => Err(WorkloadError::Mac(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spec: &str) -> Result<WorkloadEndpoint, String> {
        let key = WorkloadKey { namespace: "default".into(), name: "node--1-k8s-web-eth0".into() };
        let value = format!(r#"{{"kind":"WorkloadEndpoint","metadata":null,"spec":{spec}}}"#);
        WorkloadEndpoint::decode(&key, value.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_usual_value_decodes() {
        let read = read(
            r#"{"node":"node-1","InterfaceName":"cali0","ipNetworks":["fd00::5/128","10.244.1.5/32","10.244.1.5/32"],
                "mac":"EE-00-00-00-00-01","profiles":null,"ports":[{"name":"x"}]}"#,
        );
        let expected = WorkloadEndpoint {
            node: "node-1".into(),
            interface: "cali0".into(),
            networks: vec!["10.244.1.5/32".parse().unwrap(), "fd00::5/128".parse().unwrap()],
            mac: Some("ee:00:00:00:00:01".parse().unwrap()),
        };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn absent_members_are_empty_and_the_name_says_the_node() {
        let read = read(r#"{"interfaceName":"cali0","ipNetworks":null,"mac":""}"#).unwrap();
        assert_eq!((read.node.as_str(), read.networks.len(), read.mac), ("node-1", 0, None));
    }

    #[test]
    fn one_bad_member_costs_the_endpoint() {
        for (spec, complaint) in [
            (r#"null"#, "spec has the wrong type"),
            (r#"{"node":"other","interfaceName":"cali0"}"#, "spec.node is \"other\""),
            (r#"{"interfaceName":""}"#, "interfaceName \"\""),
            (r#"{"interfaceName":"a/b"}"#, "interfaceName \"a/b\""),
            (r#"{"interfaceName":"0123456789abcdef"}"#, "is no interface name"),
            (r#"{"interfaceName":"cali0","ipNetworks":["0.0.0.0/0"]}"#, "\"0.0.0.0/0\" is not one address"),
            (r#"{"interfaceName":"cali0","ipNetworks":["10.0.0.1/32","x"]}"#, "\"x\" is not one address"),
            (r#"{"interfaceName":"cali0","ipNetworks":"10.0.0.1/32"}"#, "ipNetworks has the wrong type"),
            (r#"{"interfaceName":"cali0","mac":"01:00:5e:00:00:01"}"#, "is no Ethernet address of a station"),
        ] {
            let error = read(spec).unwrap_err();
            assert!(error.contains(complaint), "{spec}: {error}");
        }
    }
}
