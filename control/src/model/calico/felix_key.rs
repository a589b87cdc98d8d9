//! What Felix calls things: the keys of the model that libcalico-go makes of v3 resources ("v1").
//!
//! Nothing is stored under most of them any more. They are the identity of what resources are converted to: two
//! resources with one such key are in conflict. Status reports are still written under theirs.

use ipnetwork::IpNetwork;

use super::keys::ResourceKey;
use super::net;

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FelixKey {
    /// The datastore may be used.
    Ready,
    /// A setting of all nodes.
    GlobalConfig(String),
    /// A setting of one node: node, name.
    HostConfig(String, String),
    /// A node's address.
    HostIp(String),
    /// A node's WireGuard settings.
    Wireguard(String),
    /// Node, name.
    HostEndpoint(String, String),
    /// An interface of a workload.
    Workload(WorkloadPath),
    /// `name`, or `namespace/name`.
    Policy(String),
    /// A profile's rules.
    ProfileRules(String),
    /// A profile's labels.
    ProfileLabels(String),
    /// A profile's tags, of former times.
    ProfileTags(String),
    /// `name`, or `namespace/name`.
    NetworkSet(String),
    /// An IP pool.
    Pool(IpNetwork),
    /// An IPAM block.
    Block(IpNetwork),
    /// Which node a block belongs to: node, block.
    BlockAffinity(String, IpNetwork),
    /// A v3 resource as it is.
    Resource(ResourceKey),
    /// That a node lives; expires. Region, node.
    Status(String, String),
    /// The same, kept. Region, node.
    LastStatus(String, String),
    /// Condition of a workload endpoint in a region.
    WorkloadStatus(String, WorkloadPath),
    /// Condition of a host endpoint: node, name.
    HostEndpointStatus(String, String),
    /// A setting of all BGP speakers.
    GlobalBgpConfig(String),
    /// A setting of one: node, name.
    NodeBgpConfig(String, String),
}

/// How Felix names a workload's interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadPath {
    /// Where it runs.
    pub node: String,
    /// `k8s` or another one.
    pub orchestrator: String,
    /// `namespace/third segment of the name`.
    pub workload: String,
    /// Its interface inside the container.
    pub endpoint: String,
}

impl FelixKey {
    /// From a path. `None` for paths that Felix knows nothing of.
    pub fn parse(path: &str) -> Option<Self> {
        if let Some(key) = ResourceKey::parse(path) {
            return Some(Self::Resource(key));
        }
        let parts: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
        let ["calico", rest @ ..] = parts.as_slice() else { return None };
        if rest.iter().any(|part| part.is_empty()) {
            return None;
        }
        match rest {
            ["v1", "Ready"] => path.starts_with('/').then_some(Self::Ready),
            ["v1", "config", name @ ..] => some_joined(name).map(Self::GlobalConfig),
            ["v1", "netset", name] => Some(Self::NetworkSet(unescape(name))),
            ["v1", "policy", "tier", _, "policy", name] => Some(Self::Policy(unescape(name))),
            ["v1", "policy", "profile", name, part] => profile(unescape(name), part),
            ["v1", "ipam", _, "pool", cidr] => dashed(cidr).map(Self::Pool),
            ["v1", "host", node, rest @ ..] => of_host((*node).to_owned(), rest),
            ["bgp", "v1", "global", name @ ..] => some_joined(name).map(Self::GlobalBgpConfig),
            ["bgp", "v1", "host", node, name @ ..] => {
                Some(Self::NodeBgpConfig((*node).to_owned(), some_joined(name)?))
            }
            ["ipam", "v2", "assignment", _, "block", cidr] => dashed(cidr).map(Self::Block),
            ["ipam", "v2", "host", node, _, "block", cidr] => {
                Some(Self::BlockAffinity((*node).to_owned(), dashed(cidr)?))
            }
            ["felix", "v1", "host", node, "endpoint", name] => {
                Some(Self::HostEndpointStatus((*node).to_owned(), unescape(name)))
            }
            ["felix", "v2", region, "host", node, rest @ ..] => {
                status((*region).to_owned(), (*node).to_owned(), rest)
            }
            _ => None,
        }
    }

    /// The path.
    pub fn path(&self) -> String {
        match self {
            Self::Ready => "/calico/v1/Ready".to_owned(),
            Self::GlobalConfig(name) => format!("/calico/v1/config/{name}"),
            Self::HostConfig(node, name) => format!("/calico/v1/host/{node}/config/{name}"),
            Self::HostIp(node) => format!("/calico/v1/host/{node}/bird_ip"),
            Self::Wireguard(node) => format!("/calico/v1/host/{node}/wireguard"),
            Self::HostEndpoint(node, name) => format!("/calico/v1/host/{node}/endpoint/{}", escape(name)),
            Self::Workload(path) => format!("/calico/v1/host/{}", path.tail()),
            Self::Policy(name) => format!("/calico/v1/policy/tier/default/policy/{}", escape(name)),
            Self::ProfileRules(name) => format!("/calico/v1/policy/profile/{}/rules", escape(name)),
            Self::ProfileLabels(name) => format!("/calico/v1/policy/profile/{}/labels", escape(name)),
            Self::ProfileTags(name) => format!("/calico/v1/policy/profile/{}/tags", escape(name)),
            Self::NetworkSet(name) => format!("/calico/v1/netset/{}", escape(name)),
            Self::Pool(cidr) => format!("/calico/v1/ipam/v{}/pool/{}", family(*cidr), undashed(*cidr)),
            Self::Block(cidr) => {
                format!("/calico/ipam/v2/assignment/ipv{}/block/{}", family(*cidr), undashed(*cidr))
            }
            Self::BlockAffinity(node, cidr) => {
                format!("/calico/ipam/v2/host/{node}/ipv{}/block/{}", family(*cidr), undashed(*cidr))
            }
            Self::Resource(key) => key.path(),
            Self::Status(region, node) => format!("/calico/felix/v2/{region}/host/{node}/status"),
            Self::LastStatus(region, node) => {
                format!("/calico/felix/v2/{region}/host/{node}/last_reported_status")
            }
            Self::WorkloadStatus(region, path) => format!("/calico/felix/v2/{region}/host/{}", path.tail()),
            Self::HostEndpointStatus(node, name) => {
                format!("/calico/felix/v1/host/{node}/endpoint/{}", escape(name))
            }
            Self::GlobalBgpConfig(name) => format!("/calico/bgp/v1/global/{name}"),
            Self::NodeBgpConfig(node, name) => format!("/calico/bgp/v1/host/{node}/{name}"),
        }
    }
}

impl WorkloadPath {
    fn tail(&self) -> String {
        let [orchestrator, workload, endpoint] =
            [&self.orchestrator, &self.workload, &self.endpoint].map(|part| escape(part));
        format!("{}/workload/{orchestrator}/{workload}/endpoint/{endpoint}", self.node)
    }

    fn parse(node: String, rest: &[&str]) -> Option<Self> {
        let [orchestrator, workload, "endpoint", endpoint] = rest else { return None };
        let [orchestrator, workload, endpoint] =
            [orchestrator, workload, endpoint].map(|part| unescape(part));
        Some(Self { node, orchestrator, workload, endpoint })
    }
}

fn profile(name: String, part: &str) -> Option<FelixKey> {
    match part {
        "rules" => Some(FelixKey::ProfileRules(name)),
        "labels" => Some(FelixKey::ProfileLabels(name)),
        "tags" => Some(FelixKey::ProfileTags(name)),
        _ => None,
    }
}

fn of_host(node: String, rest: &[&str]) -> Option<FelixKey> {
    match rest {
        ["config", name @ ..] => Some(FelixKey::HostConfig(node, some_joined(name)?)),
        ["bird_ip"] => Some(FelixKey::HostIp(node)),
        ["wireguard"] => Some(FelixKey::Wireguard(node)),
        ["endpoint", name] => Some(FelixKey::HostEndpoint(node, unescape(name))),
        ["workload", rest @ ..] => WorkloadPath::parse(node, rest).map(FelixKey::Workload),
        _ => None,
    }
}

fn status(region: String, node: String, rest: &[&str]) -> Option<FelixKey> {
    match rest {
        ["status"] => Some(FelixKey::Status(region, node)),
        ["last_reported_status"] => Some(FelixKey::LastStatus(region, node)),
        ["workload", rest @ ..] => {
            WorkloadPath::parse(node, rest).map(|path| FelixKey::WorkloadStatus(region, path))
        }
        _ => None,
    }
}

fn some_joined(parts: &[&str]) -> Option<String> {
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// `10.0.0.0-8`.
fn dashed(text: &str) -> Option<IpNetwork> {
    net::cidr(&text.replacen('-', "/", 1)).map(|(cidr, _)| cidr)
}

fn undashed(cidr: IpNetwork) -> String {
    cidr.to_string().replacen('/', "-", 1)
}

fn family(cidr: IpNetwork) -> u8 {
    if cidr.is_ipv4() { 4 } else { 6 }
}

/// A slash would be a separator, a percent sign one of ours.
fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2f")
}

fn unescape(name: &str) -> String {
    name.replace("%2f", "/").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn odd_paths_are_none() {
        for path in [
            "",
            "/",
            "/calico",
            "/calico/v1",
            "calico/v1/Ready",
            "/calico/v1/config/",
            "/calico/v1/host//bird_ip",
            "/calico/v1/ipam/v4/pool/577559",
            "/calico/v1/policy/profile/a/other",
            "/calico/ipam/v2/handle/a",
            "/calico/v1/host/a/workload/k8s/w/endpoint",
            "//calico/v1/config/a",
        ] {
            assert_eq!(FelixKey::parse(path), None, "{path:?}");
        }
        assert_eq!(FelixKey::parse("calico/v1/config/a/b"), Some(FelixKey::GlobalConfig("a/b".into())));
    }

    proptest! {
        #[test]
        fn names_survive_their_escape(name in "[a%25f/]{1,12}", node in "[a-z.-]{1,8}") {
            for key in [
                FelixKey::Policy(name.clone()),
                FelixKey::NetworkSet(name.clone()),
                FelixKey::ProfileRules(name.clone()),
                FelixKey::HostEndpoint(node.clone(), name.clone()),
                FelixKey::Workload(WorkloadPath {
                    node, orchestrator: name.clone(), workload: name.clone(), endpoint: name,
                }),
            ] {
                prop_assert_eq!(FelixKey::parse(&key.path()), Some(key));
            }
        }
    }
}
