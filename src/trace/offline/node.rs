//! The host that the documents do not describe: assumed, as plainly as possible, and said.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use canal_control::felix::{self, Values};
use canal_control::flannel::{Identity, Lease};
use canal_control::host::{Address, External, HostView, Link, Scope};
use canal_control::model::flannel::{Backend, NetworkConfig, Subnets};
use canal_control::resolve::{NodeFacts, pod_mtu};
use canal_control::state::{ConfigState, State};
use canal_dataplane::net::Mac;
use canal_dataplane::spec::Settings;
use ipnetwork::{IpNetwork, Ipv4Network};

use super::{OfflineError, Options};

/// The underlay interface, by name and number.
const UNDERLAY: (&str, u32) = ("eth0", 1);

/// Our own device.
const DEVICE: &str = "canal0";

/// Prefix length of the underlay's own network.
const UNDERLAY_PREFIX: u8 = 24;

/// The node's address where no lease says it (RFC 5737: for documents).
const SOME_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Ethernet addresses of tunnel ends where no lease says them.
const SOME_MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 4]), Mac([2, 0, 0, 0, 0, 6])];

/// The node whose view is taken.
///
/// # Errors
/// [`OfflineError::WhichNode`] when none was given and not exactly one has workloads.
pub fn choose(state: &State, given: Option<&str>) -> Result<String, OfflineError> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let nodes: BTreeSet<&str> = state.calico().workloads().values().map(|endpoint| &*endpoint.node).collect();
    match nodes.len() {
        1 => Ok(nodes.into_iter().map(str::to_owned).collect()),
        0 => Err(OfflineError::WhichNode("there are no workload endpoints".to_owned())),
        _ => {
            let nodes: Vec<&str> = nodes.into_iter().collect();
            Err(OfflineError::WhichNode(format!("there are workloads on {}", nodes.join(", "))))
        }
    }
}

/// A node as it may be.
#[derive(Debug)]
pub struct Assumed {
    config: NetworkConfig,
    backend: Backend,
    external: External,
    subnets: Subnets,
    identity: Identity,
    host: Arc<HostView>,
    on_link: BTreeSet<IpAddr>,
    felix: Values,
    /// What was assumed, for people.
    pub lines: Vec<String>,
}

impl Assumed {
    /// Around the node that `state` is seen by.
    ///
    /// # Errors
    /// [`OfflineError::Config`], [`OfflineError::Backend`].
    pub fn new(state: &State, options: &Options) -> Result<Self, OfflineError> {
        let mut lines = vec![format!("the node is {}", state.nodename())];
        let config = config(state, &mut lines)?;
        let backend = config.backend()?;
        let lease = lease(state, options);
        let (subnets, public) = membership(state, &config, lease, options, &mut lines);
        let external = External {
            ifindex: UNDERLAY.1,
            name: UNDERLAY.0.to_owned(),
            mtu: options.underlay_mtu,
            v4: Some(public).filter(|_| config.v4.is_some()),
            v6: lease.and_then(|lease| lease.value.public_ipv6).filter(|_| config.v6.is_some()),
            public_v4: Some(public).filter(|_| config.v4.is_some()),
            public_v6: lease.and_then(|lease| lease.value.public_ipv6).filter(|_| config.v6.is_some()),
        };
        lines.push(format!("its underlay is {} with {public} and an MTU of {}", UNDERLAY.0, external.mtu));
        let mtu = pod_mtu(&config, &backend, external.mtu).unwrap_or(external.mtu);
        let host = host(state, &external, mtu);
        lines.push(format!("the interfaces of its workloads exist, with an MTU of {mtu}"));
        let on_link = on_link(state, &backend, &mut lines);
        let felix = felix::Config::of(&felix::Local::default(), state.nodename(), state.calico()).values;
        Ok(Self {
            felix,
            identity: identity(lease),
            config,
            backend,
            external,
            subnets,
            host: Arc::new(host),
            on_link,
            lines,
        })
    }

    /// For the resolution.
    pub fn facts(&self) -> NodeFacts<'_> {
        NodeFacts {
            config: &self.config,
            backend: &self.backend,
            external: &self.external,
            subnets: self.subnets,
            identity: self.identity,
            host: &self.host,
            on_link: &self.on_link,
            device: DEVICE,
            gateways: &[],
            settings: Settings::default(),
            felix: &self.felix,
        }
    }
}

fn config(state: &State, lines: &mut Vec<String>) -> Result<NetworkConfig, OfflineError> {
    match state.config() {
        ConfigState::Valid(config) => Ok((**config).clone()),
        ConfigState::Invalid => {
            let sentences: Vec<&str> =
                state.complaints().map(|complaint| complaint.sentence.as_str()).collect();
            Err(OfflineError::Config(sentences.join("; ")))
        }
        ConfigState::Absent => {
            lines.push("there is no network config: no way leads to other nodes".to_owned());
            let network =
                Ipv4Network::new(first_address(state), 8).map_or(Ipv4Addr::new(10, 0, 0, 0), |n| n.network());
            let text = format!(r#"{{"Network":"{network}/8","Backend":{{"Type":"alloc"}}}}"#);
            NetworkConfig::read(text.as_bytes()).map_err(|error| OfflineError::Config(error.to_string()))
        }
    }
}

/// An IPv4 address of a workload of the node.
fn first_address(state: &State) -> Ipv4Addr {
    addresses(state).next().unwrap_or(Ipv4Addr::new(10, 0, 0, 1))
}

fn addresses(state: &State) -> impl Iterator<Item = Ipv4Addr> {
    let networks = state.local_workloads().flat_map(|(_, endpoint)| &endpoint.networks);
    networks.filter_map(|network| match network.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    })
}

/// The node's lease: by the address given, by one of its workloads', by its Node resource's, or the only one there is.
fn lease<'a>(state: &'a State, options: &Options) -> Option<&'a Lease> {
    let leases = || state.leases().values();
    if let Some(public) = options.public_ip {
        return leases().find(|lease| lease.value.public_ip == public);
    }
    let by_workload = || addresses(state).find_map(|ip| leases().find(|lease| lease.subnets.v4.contains(ip)));
    let by_node = || {
        let node = state.calico().nodes().get(state.nodename())?;
        let own = node.ipv4.into_iter().chain(node.addresses.iter().copied()).collect::<Vec<_>>();
        leases().find(|lease| own.contains(&IpAddr::V4(lease.value.public_ip)))
    };
    let only = || leases().next().filter(|_| state.leases().len() == 1);
    by_workload().or_else(by_node).or_else(only)
}

fn membership(
    state: &State,
    config: &NetworkConfig,
    lease: Option<&Lease>,
    options: &Options,
    lines: &mut Vec<String>,
) -> (Subnets, Ipv4Addr) {
    if let Some(lease) = lease {
        let public = options.public_ip.unwrap_or(lease.value.public_ip);
        lines.push(format!("its lease is {} at {public}", lease.subnets.v4));
        return (lease.subnets, public);
    }
    let length = config.v4.map_or(24, |pool| pool.subnet_len);
    let base =
        Ipv4Network::new(first_address(state), length).map_or(Ipv4Addr::UNSPECIFIED, |net| net.network());
    let v4 = Ipv4Network::new(base, length).unwrap_or_else(|_| Ipv4Network::from(base));
    let public = options.public_ip.unwrap_or(SOME_ADDRESS);
    lines.push(format!("it has no lease: its subnet is {v4}"));
    (Subnets { v4, v6: None }, public)
}

fn identity(lease: Option<&Lease>) -> Identity {
    let value = lease.map(|lease| &lease.value);
    let v4 = value.and_then(|value| value.vxlan().ok().flatten()).map(|data| data.vtep_mac);
    let v6 = value.and_then(|value| value.vxlan_v6().ok().flatten()).map(|data| data.vtep_mac);
    Identity { vtep_mac: v4.unwrap_or(SOME_MACS[0]), vtep_v6_mac: v6.unwrap_or(SOME_MACS[1]) }
}

/// The underlay and an interface for every workload.
fn host(state: &State, external: &External, mtu: u32) -> HostView {
    let underlay = link(external.ifindex, &external.name, external.mtu, None);
    let interfaces: BTreeSet<&str> =
        state.local_workloads().map(|(_, endpoint)| &*endpoint.interface).collect();
    let veths =
        (external.ifindex + 1..).zip(interfaces).map(|(index, name)| link(index, name, mtu, Some("veth")));
    let own = external.v4.map(IpAddr::from).into_iter().chain(external.v6.map(IpAddr::from));
    let addresses = own.filter_map(|ip| {
        let prefix = if ip.is_ipv4() { UNDERLAY_PREFIX } else { 64 };
        let net = IpNetwork::new(ip, prefix).ok()?;
        Some(Address { ifindex: external.ifindex, net, scope: Scope::Global, flags: Address::PERMANENT })
    });
    HostView {
        links: std::iter::once(underlay).chain(veths).collect(),
        addresses: addresses.collect(),
        routes: Vec::new(),
    }
}

fn link(index: u32, name: &str, mtu: u32, kind: Option<&str>) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mtu,
        mac: None,
        kind: kind.map(str::to_owned),
        peer_netns: kind.map(|_| 0),
        up: true,
        running: true,
        loopback: false,
        noarp: false,
        tx_queue_len: 0,
        addr_gen_mode: None,
    }
}

/// Nodes without a gateway in between; asked for with direct routing only.
fn on_link(state: &State, backend: &Backend, lines: &mut Vec<String>) -> BTreeSet<IpAddr> {
    let direct = match backend {
        Backend::Vxlan(options) => options.direct_routing,
        Backend::HostGw => true,
        Backend::Alloc => false,
    };
    if !direct {
        return BTreeSet::new();
    }
    lines.push("all nodes are on one link, without a router in between".to_owned());
    let leases = state.leases().values();
    leases
        .flat_map(|lease| {
            let v6 = lease.value.public_ipv6.map(IpAddr::from);
            std::iter::once(IpAddr::from(lease.value.public_ip)).chain(v6)
        })
        .collect()
}
