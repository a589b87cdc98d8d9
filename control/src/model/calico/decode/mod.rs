//! One entry: a key and its bytes, to a typed resource.

use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::felix_key::FelixKey;
use super::keys::{ResourceKey, WorkloadKey};
use super::kind::Kind;
use super::problem::{Problem, Quirks};
use super::resources::{Block, HostEndpoint, IpPool, NetworkSet, Node, Policy, PolicyKey, Profile, Tier};
use super::v1::config::{self, Scope, Settings};
use super::v3::Object;
use super::workload::WorkloadEndpoint;
use super::{check, go_json, net, v1, v3};

/// A key of something that is read here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A v3 resource.
    Resource(ResourceKey),
    /// An IPAM block.
    Block(IpNetwork),
}

impl Key {
    /// From a full key.
    ///
    /// # Errors
    /// [`Problem::Key`] for every other key, [`Problem::Name`] for names that nobody gives.
    pub fn parse(key: &str) -> Result<Self, Problem> {
        match FelixKey::parse(key) {
            Some(FelixKey::Resource(resource)) if resource.is_sound() => Ok(Self::Resource(resource)),
            Some(FelixKey::Resource(_)) => Err(Problem::Name),
            Some(FelixKey::Block(cidr)) => Ok(Self::Block(cidr)),
            _ => Err(Problem::Key),
        }
    }
}

/// What a value comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    /// NetworkPolicy or GlobalNetworkPolicy.
    Policy(PolicyKey, Policy),
    /// Profile.
    Profile(String, Profile),
    /// Tier.
    Tier(String, Tier),
    /// WorkloadEndpoint.
    Workload(WorkloadKey, WorkloadEndpoint),
    /// A WorkloadEndpoint without addresses: as if it were not there.
    NoWorkload(WorkloadKey),
    /// HostEndpoint.
    HostEndpoint(String, HostEndpoint),
    /// NetworkSet (`namespace/name`) or GlobalNetworkSet (`name`).
    NetworkSet(String, NetworkSet),
    /// IPPool.
    Pool(String, IpPool),
    /// Node.
    Node(String, Node),
    /// FelixConfiguration.
    Felix(Scope, Settings),
    /// ClusterInformation; whether the datastore may be used, if that is said.
    Cluster(Scope, Option<bool>),
    /// IPAM block.
    Block(IpNetwork, Block),
    /// Networks of services, of the BGPConfiguration that counts.
    ServiceNets(Vec<IpNetwork>),
    /// Known, and of no use here: staged policies, reservations, BGP peers and the like.
    Unused(Option<Kind>),
}

/// Decodes one value. Besides the resource there are things in it that make no sense, and were left out or made to
/// match nothing.
///
/// # Errors
/// Why there is no usable object; it counts as missing then.
pub fn decode(key: &str, value: &[u8], quirks: Quirks) -> Result<(Decoded, Vec<Problem>), Problem> {
    convert(&Key::parse(key)?, value)?.check(quirks)
}

/// A value in Felix's terms, before anything is typed.
#[derive(Debug)]
pub enum Converted {
    /// NetworkPolicy or GlobalNetworkPolicy.
    Policy(PolicyKey, v1::Policy),
    /// Profile.
    Profile(String, v1::Profile),
    /// Tier.
    Tier(String, v3::TierSpec),
    /// WorkloadEndpoint, if it has addresses.
    Workload(WorkloadKey, Option<v1::WorkloadEndpoint>),
    /// HostEndpoint.
    HostEndpoint(String, v1::HostEndpoint),
    /// NetworkSet or GlobalNetworkSet.
    NetworkSet(String, v1::NetworkSet),
    /// IPPool.
    Pool(String, v1::Pool),
    /// Node.
    Node(String, v1::Node),
    /// FelixConfiguration, and what in it makes no sense.
    Felix(Scope, Settings, Vec<Problem>),
    /// ClusterInformation: Ready flag, the rest.
    Cluster(Scope, Option<bool>, Settings),
    /// IPAM block.
    Block(IpNetwork, v3::Block),
    /// BGPConfiguration.
    Bgp(v3::BgpConfigurationSpec),
    /// Of no use here.
    Unused(Option<Kind>),
}

/// The first half of decoding: what libcalico-go's update processors do.
///
/// # Errors
/// JSON, or a part without which there is no object.
pub fn convert(key: &Key, value: &[u8]) -> Result<Converted, Problem> {
    let key = match key {
        Key::Resource(key) => key,
        Key::Block(cidr) => return Ok(Converted::Block(*cidr, go_json::from_slice(value)?)),
    };
    let name = key.name.clone();
    let Some(kind) = key.kind else { return Ok(Converted::Unused(None)) };
    Ok(match kind {
        Kind::NetworkPolicy => {
            let policy = v1::Policy::namespaced(&key.namespace, &name, object(kind, value)?.spec);
            Converted::Policy(PolicyKey::of(key), policy)
        }
        Kind::GlobalNetworkPolicy => {
            Converted::Policy(PolicyKey::of(key), v1::Policy::global(&name, object(kind, value)?.spec))
        }
        // Clients put their own in its place.
        Kind::Profile if name == Profile::DEFAULT_ALLOW => {
            Converted::Profile(name, v1::Profile::default_allow())
        }
        Kind::Profile => Converted::Profile(name, v1::Profile::convert(object(kind, value)?.spec)),
        Kind::Tier => Converted::Tier(name, object(kind, value)?.spec),
        Kind::WorkloadEndpoint => {
            let Object { metadata, spec, .. } = object(kind, value)?;
            let key = WorkloadKey::new(&key.namespace, &name);
            Converted::Workload(key, v1::WorkloadEndpoint::convert(metadata, spec)?)
        }
        Kind::HostEndpoint => {
            let Object { metadata, spec, .. } = object(kind, value)?;
            Converted::HostEndpoint(name, v1::HostEndpoint::convert(metadata, spec)?)
        }
        Kind::NetworkSet | Kind::GlobalNetworkSet => {
            let Object { metadata, spec, .. } = object(kind, value)?;
            let set = v1::NetworkSet::convert(&key.namespace, metadata.labels, spec);
            Converted::NetworkSet(key.full_name(), set)
        }
        Kind::IpPool => Converted::Pool(name, v1::Pool::convert(object(kind, value)?.spec)?),
        Kind::Node => {
            let Object { spec, status, .. } = object(kind, value)?;
            Converted::Node(name, v1::Node::convert(spec, status))
        }
        Kind::FelixConfiguration => {
            let scope = Scope::parse(&name)?;
            let Object { metadata, spec, .. } = object::<Map<String, Value>>(kind, value)?;
            let (settings, problems) = config::felix(&spec, &metadata.annotations);
            Converted::Felix(scope, settings, problems)
        }
        Kind::ClusterInformation => {
            let scope = Scope::parse(&name)?;
            let spec = object::<Map<String, Value>>(kind, value)?.spec;
            Converted::Cluster(scope, ready(&spec)?, config::cluster(&spec))
        }
        Kind::BgpConfiguration if name == "default" => Converted::Bgp(object(kind, value)?.spec),
        Kind::BgpConfiguration
        | Kind::BgpFilter
        | Kind::BgpPeer
        | Kind::CalicoNodeStatus
        | Kind::IpamConfig
        | Kind::IpReservation
        | Kind::KubeControllersConfiguration
        | Kind::StagedGlobalNetworkPolicy
        | Kind::StagedKubernetesNetworkPolicy
        | Kind::StagedNetworkPolicy => Converted::Unused(Some(kind)),
    })
}

impl Converted {
    /// The second half of decoding: everything typed, and refused what Felix's own validation refuses.
    ///
    /// # Errors
    /// Why there is no usable object.
    pub fn check(self, quirks: Quirks) -> Result<(Decoded, Vec<Problem>), Problem> {
        let fine = |decoded| (decoded, Vec::new());
        Ok(match self {
            Self::Policy(key, policy) => {
                let (policy, problems) = check::policy(policy, quirks)?;
                (Decoded::Policy(key, policy), problems)
            }
            Self::Profile(name, profile) => {
                let (profile, problems) = check::profile_or_denial(profile, quirks);
                (Decoded::Profile(name, profile), problems)
            }
            Self::Tier(name, spec) => fine(Decoded::Tier(name, check::tier(&spec))),
            Self::Workload(key, None) => fine(Decoded::NoWorkload(key)),
            Self::Workload(key, Some(endpoint)) => {
                let endpoint = check::workload(&key, endpoint)?;
                fine(Decoded::Workload(key, endpoint))
            }
            Self::HostEndpoint(name, endpoint) => {
                let (endpoint, problems) = check::host_endpoint(endpoint)?;
                (Decoded::HostEndpoint(name, endpoint), problems)
            }
            Self::NetworkSet(name, set) => {
                let (set, problems) = check::network_set(set)?;
                (Decoded::NetworkSet(name, set), problems)
            }
            Self::Pool(name, pool) => fine(Decoded::Pool(name, pool.pool)),
            Self::Node(name, node) => {
                let (node, problems) = check::node(node);
                (Decoded::Node(name, node), problems)
            }
            Self::Felix(scope, settings, problems) => (Decoded::Felix(scope, settings), problems),
            Self::Cluster(scope, ready, _) => fine(Decoded::Cluster(scope, ready)),
            Self::Block(key, block) => {
                let (block, problems) = check::block(key, block)?;
                (Decoded::Block(key, block), problems)
            }
            Self::Bgp(spec) => service_nets(spec),
            Self::Unused(kind) => fine(Decoded::Unused(kind)),
        })
    }
}

fn object<S>(kind: Kind, value: &[u8]) -> Result<Object<S>, Problem>
where
    S: Default + for<'de> Deserialize<'de>,
{
    let object: Object<S> = go_json::from_slice(value)?;
    if object.kind.is_empty() || Kind::by_name(&object.kind) == Some(kind) {
        Ok(object)
    } else {
        Err(Problem::OtherKind { key: kind, said: object.kind })
    }
}

fn ready(spec: &Map<String, Value>) -> Result<Option<bool>, Problem> {
    let Some(value) = go_json::member(spec, "datastoreReady") else { return Ok(None) };
    let ready = value.as_bool();
    ready
        .map(Some)
        .ok_or_else(|| Problem::unreadable("spec.datastoreReady", value.to_string(), "true or false"))
}

fn service_nets(spec: v3::BgpConfigurationSpec) -> (Decoded, Vec<Problem>) {
    let mut problems = Vec::new();
    let listed = [spec.service_cluster_ips, spec.service_external_ips, spec.service_load_balancer_ips]
        .into_iter()
        .flatten();
    let nets = listed.filter_map(|entry| match net::network(&entry.cidr) {
        Some(network) => Some(network),
        None => {
            problems.push(Problem::unreadable("spec.service…IPs", entry.cidr, "network"));
            None
        }
    });
    let nets = nets.collect();
    (Decoded::ServiceNets(nets), problems)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
