//! Why a setting has no meaning here.

/// Beginnings of names in lower case, and why nothing here is about such settings. The first that fits counts.
const REASONS: [(&str, &str); 48] = [
    ("iptables", "no iptables rule is written"),
    ("chaininsertmode", "no iptables rule is written"),
    ("featuredetectoverride", "no iptables rule is written"),
    ("featuregates", "no iptables rule is written"),
    ("nftables", "no nftables rule is written"),
    ("ipset", "no ipset is written"),
    ("maxipsetsize", "no ipset is written"),
    ("bpf", "Felix's eBPF dataplane is not used"),
    ("xdp", "Felix's XDP programs are not used"),
    ("genericxdp", "Felix's XDP programs are not used"),
    ("sidecaracceleration", "Felix's XDP programs are not used"),
    ("wireguard", "the tunnel is not encrypted"),
    ("prometheuswireguard", "the tunnel is not encrypted"),
    ("vxlan", "the overlay is flannel's network"),
    ("ipinip", "the overlay is flannel's network"),
    ("ipip", "the overlay is flannel's network"),
    ("ipv4vxlan", "the overlay is flannel's network"),
    ("ipv6vxlan", "the overlay is flannel's network"),
    ("externalnodes", "who may send through the tunnel is in flannel's leases"),
    ("mtuifacepattern", "the MTU is that of flannel's network"),
    ("ipv6support", "the families are those of flannel's network"),
    ("deviceroute", "routes are flannel's"),
    ("routesource", "routes are flannel's"),
    ("routerefresh", "routes are flannel's, and watched"),
    ("routesync", "routes are flannel's, and watched"),
    ("routetable", "routes are flannel's"),
    ("removeexternalroutes", "routes are flannel's"),
    ("programclusterroutes", "routes are flannel's"),
    ("interfacerefresh", "interfaces are watched"),
    ("interfaceexclude", "only interfaces that an endpoint names are touched"),
    ("natoutgoing", "nothing is translated"),
    ("natportrange", "nothing is translated"),
    ("floatingips", "nothing is translated"),
    ("kubenodeport", "nothing is translated"),
    ("serviceloopprevention", "addresses of services have no route, so nothing loops"),
    ("metadata", "OpenStack's metadata is not served"),
    ("usage", "no usage is reported to anybody"),
    ("log", "log lines go to standard error, see LogSeverityScreen"),
    ("debug", "it is about Felix's own inside"),
    ("prometheus", "those metrics are Felix's own"),
    ("disableconntrackinvalid", "what makes no sense in its connection is always dropped"),
    ("workloadsourcespoofing", "workloads send from addresses of their own only"),
    ("netlinktimeout", "it is about Felix's own inside"),
    ("dataplanewatchdog", "it is about Felix's own inside"),
    ("dataplanedriver", "the dataplane is canal's"),
    ("useinternaldataplane", "the dataplane is canal's"),
    ("policysync", "nobody else is told about policy"),
    ("awssrcdst", "the cloud is not asked for anything"),
];

/// A sentence for every name.
pub(super) fn why(name: &str) -> &'static str {
    let name = name.to_lowercase();
    let found = REASONS.iter().find(|(prefix, _)| name.starts_with(prefix));
    found.map_or("nothing here is about it", |(_, why)| why)
}
