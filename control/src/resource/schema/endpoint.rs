//! Workload and host endpoints.

use super::meta::{API_VERSION, KIND, METADATA};
use super::{
    INTEGER, Object, PORT_OR_ZERO, Shape, Type, always, integer_of, keep, list_of, omit, plain, required,
    text_of, texts_of,
};
use crate::resource::error::Report;
use crate::resource::net::Net;
use crate::resource::{number, text};

pub(super) static WORKLOAD_ENDPOINT: Type = plain(
    "WorkloadEndpoint",
    &[KIND, API_VERSION, METADATA, always("spec", Shape::Object(&WORKLOAD_ENDPOINT_SPEC))],
);

pub(super) static WORKLOAD_ENDPOINT_SPEC: Type = Type {
    name: "WorkloadEndpointSpec",
    fields: &[
        omit("orchestrator", Shape::Text(text::NAME)),
        omit("workload", Shape::Text(text::NAME)),
        omit("node", Shape::Text(text::NAME)),
        omit("containerID", Shape::Text(text::CONTAINER_ID)),
        omit("pod", Shape::Text(text::NAME)),
        omit("endpoint", Shape::Text(text::NAME)),
        omit("serviceAccountName", Shape::Text(text::NAME)),
        omit("ipNetworks", Shape::List(&Shape::Text(text::NET))),
        omit("ipNATs", Shape::List(&Shape::Object(&IP_NAT))),
        omit("ipv4Gateway", Shape::Text(text::IPV4)),
        omit("ipv6Gateway", Shape::Text(text::IPV6)),
        omit("profiles", Shape::List(&Shape::Text(text::NAME))),
        required("interfaceName", Shape::Text(text::INTERFACE)),
        omit("mac", Shape::Text(text::MAC)),
        omit("ports", Shape::List(&Shape::Object(&WORKLOAD_ENDPOINT_PORT))),
        omit("allowSpoofedSourcePrefixes", Shape::List(&Shape::Text(text::CIDR))),
        keep("qosControls", Shape::Object(&QOS_CONTROLS)),
    ],
    check: workload_endpoint,
};

pub(super) static WORKLOAD_ENDPOINT_PORT: Type = Type {
    name: "WorkloadEndpointPort",
    fields: &[
        always("name", Shape::Text(text::PORT_NAME)),
        required("protocol", Shape::Protocol),
        required("port", Shape::Integer(1, 65535)),
        always("hostPort", PORT_OR_ZERO),
        always("hostIP", Shape::Text(text::NET)),
    ],
    check: |port, report| {
        endpoint_port(port, report);
        if text_of(port, "name").is_empty() && integer_of(port, "hostPort") == Some(0) {
            report.wrong("name", "must be given where no hostPort is");
        }
    },
};

pub(super) static IP_NAT: Type = Type {
    name: "IPNAT",
    fields: &[
        required("internalIP", Shape::Text(text::ADDRESS)),
        required("externalIP", Shape::Text(text::ADDRESS)),
    ],
    check: |nat, report| {
        let version = |name| Net::cidr_or_address(text_of(nat, name)).map(Net::is_v4);
        if version("internalIP") != version("externalIP") {
            report.wrong("externalIP", "must be of the same IP version as internalIP");
        }
    },
};

static QOS_CONTROLS: Type = plain(
    "QoSControls",
    &[
        omit("ingressBandwidth", INTEGER),
        omit("ingressBurst", INTEGER),
        omit("ingressPeakrate", INTEGER),
        omit("ingressMinburst", INTEGER),
        omit("egressBandwidth", INTEGER),
        omit("egressBurst", INTEGER),
        omit("egressPeakrate", INTEGER),
        omit("egressMinburst", INTEGER),
        omit("ingressPacketRate", INTEGER),
        omit("ingressPacketBurst", INTEGER),
        omit("egressPacketRate", INTEGER),
        omit("egressPacketBurst", INTEGER),
        omit("ingressMaxConnections", INTEGER),
        omit("egressMaxConnections", INTEGER),
        keep("dscp", Shape::Any),
    ],
);

pub(super) static HOST_ENDPOINT: Type =
    plain("HostEndpoint", &[KIND, API_VERSION, METADATA, always("spec", Shape::Object(&HOST_ENDPOINT_SPEC))]);

pub(super) static HOST_ENDPOINT_SPEC: Type = Type {
    name: "HostEndpointSpec",
    fields: &[
        required("node", Shape::Text(text::NAME)),
        omit("interfaceName", Shape::Text(text::INTERFACE)),
        omit("expectedIPs", Shape::List(&Shape::Text(text::ADDRESS))),
        omit("profiles", Shape::List(&Shape::Text(text::NAME))),
        omit("ports", Shape::List(&Shape::Object(&ENDPOINT_PORT))),
    ],
    check: |endpoint, report| {
        if text_of(endpoint, "interfaceName").is_empty() && list_of(endpoint, "expectedIPs").is_empty() {
            report.wrong("interfaceName", "must be given where no expectedIPs are");
        }
    },
};

pub(super) static ENDPOINT_PORT: Type = Type {
    name: "EndpointPort",
    fields: &[
        required("name", Shape::Text(text::PORT_NAME)),
        required("protocol", Shape::Protocol),
        required("port", Shape::Integer(1, 65535)),
    ],
    check: endpoint_port,
};

fn endpoint_port(port: &Object, report: &mut Report) {
    if !port.get("protocol").is_some_and(number::has_ports) {
        report.wrong("protocol", text::TRANSPORT.says);
    }
}

fn workload_endpoint(spec: &Object, report: &mut Report) {
    let networks: Vec<Net> = texts_of(spec, "ipNetworks").filter_map(Net::cidr_or_address).collect();
    report.at("ipNetworks", |report| {
        for (n, network) in networks.iter().enumerate().filter(|(_, network)| !network.is_single()) {
            report.item(n, |report| report.here(format!("must be one address, not all of {network}")));
        }
    });
    report.at("ipNATs", |report| {
        for (n, nat) in list_of(spec, "ipNATs").iter().enumerate() {
            let internal = nat["internalIP"].as_str().and_then(Net::cidr_or_address);
            if !internal.is_some_and(|nat| networks.iter().any(|network| network.contains(nat.address()))) {
                report
                    .item(n, |report| report.wrong("internalIP", "must be one of the endpoint's ipNetworks"));
            }
        }
    });
}
