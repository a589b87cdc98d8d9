//! Which connections somebody wants to see.

use std::net::IpAddr;

use canal_dataplane::net::{Direction, FlowKey};
use canal_dataplane::spec::NodeSpec;
use ipnetwork::IpNetwork;

use crate::trace::places;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// All that is asked for must be true of a connection; the default is any connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// Its protocol is one of these; empty = any.
    protocols: Vec<u8>,
    /// One of its ends is in one of these; `None` = any.
    networks: Option<Vec<IpNetwork>>,
}

impl FlowFilter {
    /// By the names that people give, see [`super::protocol::Request::Flows`].
    ///
    /// # Errors
    /// Says what is not known.
    pub fn new(spec: &NodeSpec, endpoint: Option<&str>, protocol: Option<&str>) -> Result<Self, String> {
        let protocols = protocol.map_or_else(|| Ok(Vec::new()), protocols)?;
        let networks = endpoint.map(|name| networks(spec, name)).transpose()?;
        Ok(Self { protocols, networks })
    }

    /// Is this connection one of them?
    pub fn wants(&self, key: &FlowKey) -> bool {
        if !self.protocols.is_empty() && !self.protocols.contains(&key.protocol()) {
            return false;
        }
        let Some(networks) = &self.networks else { return true };
        let ((one, _), (other, _)) = key.ends(Direction::Forward);
        networks.iter().any(|network| network.contains(one) || network.contains(other))
    }
}

fn protocols(name: &str) -> Result<Vec<u8>, String> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "tcp" => vec![6],
        "udp" => vec![17],
        "icmp" => vec![ICMP, ICMPV6],
        "icmp6" | "icmpv6" => vec![ICMPV6],
        "sctp" => vec![132],
        number => vec![number.parse().map_err(|_| format!("{name:?} is no protocol that is known by name"))?],
    })
}

/// The addresses of a workload; or an address or network, whoever has it.
fn networks(spec: &NodeSpec, name: &str) -> Result<Vec<IpNetwork>, String> {
    match places::workload(spec, name) {
        Ok((_, endpoint)) => Ok(endpoint.networks.clone()),
        Err(unknown) => match (name.parse::<IpAddr>(), name.parse()) {
            (Ok(address), _) => Ok(vec![address.into()]),
            (_, Ok(network)) => Ok(vec![network]),
            _ => Err(unknown.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use canal_dataplane::spec::Endpoint;
    use canal_dataplane::spec::policy::EndpointPolicy;

    use super::*;

    fn spec() -> NodeSpec {
        let endpoint = Endpoint {
            name: "default/node-k8s-web-eth0".into(),
            interface: "cali1".into(),
            ifindex: Some(7),
            mac: None,
            networks: vec!["10.0.0.2/32".parse().unwrap(), "fd00::2/128".parse().unwrap()],
            mtu: 1450,
            policy: EndpointPolicy::allow_all(),
        };
        NodeSpec { endpoints: vec![endpoint].into(), ..NodeSpec::default() }
    }

    fn key(source: [u8; 4], protocol: u8) -> FlowKey {
        let (source, target) = (u32::from_be_bytes(source), u32::from_be_bytes([10, 0, 0, 9]));
        FlowKey::v4(source, target, (1, 2), protocol, false).0
    }

    #[test]
    fn a_connection_is_wanted_by_either_end_and_by_protocol() {
        let filter = |endpoint, protocol| FlowFilter::new(&spec(), endpoint, protocol).unwrap();
        let (web, other) = ([10, 0, 0, 2], [10, 0, 0, 3]);
        assert!(filter(None, None).wants(&key(other, 47)));
        for name in ["default/node-k8s-web-eth0", "default/web", "web", "cali1", "10.0.0.2", "fd00::2"] {
            let filter = filter(Some(name), None);
            assert!(filter.wants(&key(web, 6)) && !filter.wants(&key(other, 6)), "{name}");
        }
        // Not workloads of this node, and yet ends of connections.
        for name in ["10.0.0.9", "10.0.0.8/29"] {
            assert!(filter(Some(name), None).wants(&key(other, 6)), "{name}");
        }
        let tcp = filter(Some("web"), Some("TCP"));
        assert!(tcp.wants(&key(web, 6)) && !tcp.wants(&key(web, 17)) && !tcp.wants(&key(other, 6)));
        assert!(filter(None, Some("47")).wants(&key(web, 47)));
        let icmp = filter(None, Some("icmp"));
        assert!(icmp.wants(&key(web, 1)) && icmp.wants(&key(web, 58)) && !icmp.wants(&key(web, 6)));
    }

    #[test]
    fn names_that_nobody_knows_are_refused() {
        let refused = |endpoint, protocol| FlowFilter::new(&spec(), endpoint, protocol).unwrap_err();
        assert!(refused(Some("db"), None).contains("default/node-k8s-web-eth0"));
        assert!(refused(None, Some("tcpx")).contains("tcpx"));
    }
}
