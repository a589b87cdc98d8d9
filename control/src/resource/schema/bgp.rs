//! BGP: not spoken here, but stored for those who do.

use super::meta::{API_VERSION, KIND, METADATA};
use super::pool::SECRET_KEY;
use super::{INTEGER, INTEGER32, PORT_OR_ZERO, Shape, TEXT, Type, always, keep, omit, plain, required};
use crate::resource::check::bgp;
use crate::resource::text;

pub(super) static BGP_CONFIGURATION: Type = Type {
    name: "BGPConfiguration",
    fields: &[KIND, API_VERSION, METADATA, always("spec", Shape::Object(&BGP_CONFIGURATION_SPEC))],
    check: super::nothing,
};

const IP_BLOCKS: Shape = Shape::List(&Shape::Object(&SERVICE_IP_BLOCK));

pub(super) static BGP_CONFIGURATION_SPEC: Type = Type {
    name: "BGPConfigurationSpec",
    fields: &[
        omit("logSeverityScreen", Shape::Text(text::LOG_LEVEL)),
        keep("nodeToNodeMeshEnabled", Shape::Bool),
        keep("asNumber", Shape::AsNumber),
        omit("serviceLoadBalancerIPs", IP_BLOCKS),
        omit("serviceExternalIPs", IP_BLOCKS),
        omit("serviceClusterIPs", IP_BLOCKS),
        omit("communities", Shape::List(&Shape::Object(&COMMUNITY))),
        omit("prefixAdvertisements", Shape::List(&Shape::Object(&PREFIX_ADVERTISEMENT))),
        omit("listenPort", PORT_OR_ZERO),
        keep("nodeMeshPassword", Shape::Object(&BGP_PASSWORD)),
        keep("nodeMeshMaxRestartTime", Shape::Duration),
        keep("bindMode", TEXT),
        omit("ignoredInterfaces", Shape::List(&Shape::Text(text::IGNORED_INTERFACE))),
        omit("localWorkloadPeeringIPV4", Shape::Text(text::IPV4)),
        omit("localWorkloadPeeringIPV6", Shape::Text(text::IPV6)),
    ],
    check: bgp::bgp_configuration,
};

pub(super) static SERVICE_IP_BLOCK: Type = plain("ServiceIPBlock", &[omit("cidr", Shape::Text(text::NET))]);

pub(super) static COMMUNITY: Type = plain(
    "Community",
    &[required("name", Shape::Text(text::NAME)), required("value", Shape::Text(text::COMMUNITY))],
);

pub(super) static PREFIX_ADVERTISEMENT: Type = plain(
    "PrefixAdvertisement",
    &[required("cidr", Shape::Text(text::NET)), required("communities", Shape::List(&TEXT))],
);

pub(super) static BGP_PASSWORD: Type =
    plain("BGPPassword", &[keep("secretKeyRef", Shape::Object(&SECRET_KEY))]);

pub(super) static BGP_PEER: Type =
    plain("BGPPeer", &[KIND, API_VERSION, METADATA, always("spec", Shape::Object(&BGP_PEER_SPEC))]);

pub(super) static BGP_PEER_SPEC: Type = Type {
    name: "BGPPeerSpec",
    fields: &[
        omit("node", Shape::Text(text::NAME)),
        omit("nodeSelector", Shape::Selector),
        omit("peerIP", Shape::Text(text::PEER_ADDRESS)),
        omit("asNumber", Shape::AsNumber),
        omit("localWorkloadSelector", Shape::Selector),
        omit("peerSelector", Shape::Selector),
        omit("keepOriginalNextHop", Shape::Bool),
        keep("nextHopMode", TEXT),
        keep("password", Shape::Object(&BGP_PASSWORD)),
        omit("sourceAddress", Shape::Text(text::SOURCE_ADDRESS)),
        keep("maxRestartTime", Shape::Duration),
        keep("numAllowedLocalASNumbers", INTEGER32),
        omit("ttlSecurity", INTEGER),
        omit("filters", Shape::List(&TEXT)),
        omit("reachableBy", Shape::Text(text::ADDRESS)),
    ],
    check: bgp::peer,
};
