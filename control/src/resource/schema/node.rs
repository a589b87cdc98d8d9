//! Nodes.

use super::meta::{API_VERSION, KIND, METADATA};
use super::{Shape, TEXT, Type, always, keep, object_of, omit, plain};
use crate::resource::text;

pub(super) static NODE: Type = plain(
    "Node",
    &[
        KIND,
        API_VERSION,
        METADATA,
        always("spec", Shape::Object(&NODE_SPEC)),
        always("status", Shape::Object(&NODE_STATUS)),
    ],
);

pub(super) static NODE_SPEC: Type = Type {
    name: "NodeSpec",
    fields: &[
        keep("bgp", Shape::Object(&NODE_BGP_SPEC)),
        omit("ipv4VXLANTunnelAddr", Shape::Text(text::IPV4)),
        omit("vxlanTunnelMACAddr", Shape::Text(text::MAC)),
        omit("ipv6VXLANTunnelAddr", Shape::Text(text::IPV6)),
        omit("vxlanTunnelMACAddrV6", Shape::Text(text::MAC)),
        omit("orchRefs", Shape::List(&Shape::Object(&ORCH_REF))),
        keep("wireguard", Shape::Object(&NODE_WIREGUARD_SPEC)),
        omit("addresses", Shape::List(&Shape::Object(&NODE_ADDRESS))),
        omit("interfaces", Shape::List(&Shape::Object(&NODE_INTERFACE))),
    ],
    check: |spec, report| {
        if object_of(spec, "bgp").is_some_and(|bgp| bgp.is_empty()) {
            report.wrong("bgp", "must not be empty: leave it out");
        }
    },
};

pub(super) static NODE_BGP_SPEC: Type = plain(
    "NodeBGPSpec",
    &[
        keep("asNumber", Shape::AsNumber),
        omit("ipv4Address", Shape::Text(text::CIDR_V4)),
        omit("ipv6Address", Shape::Text(text::CIDR_V6)),
        omit("ipv4IPIPTunnelAddr", Shape::Text(text::IPV4)),
        omit("routeReflectorClusterID", Shape::Text(text::IPV4)),
    ],
);

pub(super) static NODE_WIREGUARD_SPEC: Type = plain(
    "NodeWireguardSpec",
    &[
        omit("interfaceIPv4Address", Shape::Text(text::IPV4)),
        omit("interfaceIPv6Address", Shape::Text(text::IPV6)),
    ],
);

/// libcalico-go does not look at what the list holds.
pub(super) static NODE_ADDRESS: Type = plain("NodeAddress", &[always("address", TEXT), omit("type", TEXT)]);

static NODE_INTERFACE: Type =
    plain("NodeInterface", &[omit("name", TEXT), omit("addresses", Shape::List(&TEXT))]);

pub(super) static ORCH_REF: Type = plain("OrchRef", &[omit("nodeName", TEXT), always("orchestrator", TEXT)]);

pub(super) static NODE_STATUS: Type = plain(
    "NodeStatus",
    &[
        omit("wireguardPublicKey", Shape::Text(text::WIREGUARD_KEY)),
        omit("wireguardPublicKeyV6", Shape::Text(text::WIREGUARD_KEY)),
        omit("podCIDRs", Shape::List(&TEXT)),
    ],
);
