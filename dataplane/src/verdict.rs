//! How a packet can end. Every reason is defined here once: counter, metric label, trace line and explanation.

/// Declares [`DropReason`] with a label (metrics, `canal show drops`) and a sentence (humans) for each variant.
macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $label:literal : $sentence:literal,)+) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $sentence] $variant,)+
        }

        impl DropReason {
            /// Every reason, in declaration order: index = `reason as usize`.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Short name for metrics and tables.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// One sentence for a human.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)+ }
            }
        }
    };
}

drop_reasons! {
    NotReady = "not_ready": "No complete picture of the network has been loaded yet.",
    MalformedEthernet = "malformed_ethernet": "The frame is shorter than an Ethernet header.",
    VlanTag = "vlan_tag": "The frame carries a VLAN tag, and no VLAN is configured.",
    UnknownEtherType = "unknown_ethertype": "The frame is neither IPv4, IPv6 nor ARP.",
    MalformedIpv4 = "malformed_ipv4": "The IPv4 header is truncated, contradictory or its checksum is wrong.",
    SourceRouted = "source_routed": "The packet asks to be source-routed.",
    MalformedIpv6 = "malformed_ipv6": "The IPv6 header or its extension chain is truncated, too long or contradictory.",
    MalformedTransport = "malformed_transport": "The TCP, UDP, SCTP or ICMP header is truncated or contradictory.",
    TinyFragment = "tiny_fragment": "A first fragment hides part of its transport header (RFC 1858).",
    MalformedOuter = "malformed_outer": "The outer headers of a VXLAN packet are truncated or contradictory.",
    OuterZeroChecksumV6 = "outer_zero_checksum_v6": "The outer UDP checksum over IPv6 is zero, which is not allowed by default (RFC 6935).",
    NotOurVtep = "not_our_vtep": "The outer destination is not this node's VTEP address and port.",
    VxlanNoVni = "vxlan_no_vni": "The VXLAN header has no valid VNI flag (RFC 7348 section 5).",
    UnknownVni = "unknown_vni": "The VXLAN network identifier is not ours.",
    UnknownVtep = "unknown_vtep": "The outer source is no known VTEP.",
    InnerMac = "inner_mac": "The inner destination MAC address is not this VTEP's.",
    EcnDecap = "ecn_decap": "Congestion was marked outside of a packet that cannot carry the mark inside (RFC 6040).",
    NestedVxlan = "nested_vxlan": "A VXLAN packet inside of a VXLAN packet is not decapsulated again.",
    PathMtuForged = "pmtu_forged": "An ICMP too-big message quotes nothing that this VTEP sent.",
    PathMtuLearnt = "pmtu_learnt": "An ICMP too-big message lowered a path MTU; the message itself ends here.",
    UnknownInterface = "unknown_interface": "No workload endpoint is known for the interface the packet came from.",
    SpoofedSource = "spoofed_source": "The source address does not belong to the workload or node that sent the packet.",
    GatewaySource = "gateway_source": "The source address is not behind the gateway interface that the packet came from.",
    SpoofedNeighbor = "spoofed_neighbor": "An ARP or ND message claims an address that is not its sender's.",
    MalformedNeighbor = "malformed_neighbor": "An ARP or ND message is cut short, contradictory or from off this link.",
    ForbiddenNeighbor = "forbidden_neighbor": "Router advertisements, redirects and unasked neighbour advertisements are not taken from workloads.",
    NeighborIgnored = "neighbor_ignored": "An ARP or ND message that needs no answer from the gateway.",
    MartianSource = "martian_source": "The source address can never be a sender on this network.",
    MartianDestination = "martian_destination": "The destination address can never be a receiver on this network.",
    EncapFromWorkload = "encap_from_workload": "Workloads, and hosts behind a gateway, may not speak VXLAN or IP-in-IP themselves.",
    Multicast = "multicast": "Multicast and broadcast do not cross the overlay.",
    LinkLocal = "link_local": "Link-local addresses are not routed.",
    FragmentWithoutFirst = "fragment_without_first": "A piece of a datagram came before the piece that says to which connection it belongs, or much later.",
    ConntrackInvalid = "conntrack_invalid": "The packet makes no sense in the state of its connection, or in any.",
    NoConnection = "no_connection": "The packet belongs into the middle of a connection that is not known.",
    EndpointQuota = "endpoint_quota": "The sender has as many connections as one workload or node may have.",
    FlowTableFull = "flow_table_full": "The flow table is full of answered connections.",
    PolicyDeniedEgress = "policy_denied_egress": "Egress policy of the workload that opens the connection does not allow it.",
    PolicyDeniedIngress = "policy_denied_ingress": "Ingress policy of the workload that the connection is opened to does not allow it.",
    GatewayDeniedIngress = "gateway_denied_ingress": "Policy of the gateway interface's host endpoint does not let the connection in.",
    GatewayDeniedEgress = "gateway_denied_egress": "Policy of the gateway interface's host endpoint does not let the connection out.",
    EndpointToHostDenied = "endpoint_to_host_denied": "Workloads may not open connections to their own host.",
    NoRoute = "no_route": "No route leads to the destination.",
    UnassignedAddress = "unassigned_address": "The address is in this node's subnet, and no workload has it.",
    EndpointDown = "endpoint_down": "The destination workload's interface does not exist.",
    GatewayDown = "gateway_down": "The gateway interface towards the destination does not exist.",
    UnresolvedVtep = "unresolved_vtep": "The destination's node has published no usable VTEP.",
    NoUnderlay = "no_underlay": "This node has no underlay address of the family the destination's VTEP needs.",
    HostLoop = "host_loop": "The host's own packet is addressed to the host itself.",
    TtlExpired = "ttl_expired": "The TTL or hop limit reached zero.",
    TooBig = "too_big": "The packet is larger than the MTU of its way and may not be fragmented.",
    FragmentFailed = "fragment_failed": "The packet could not be fragmented: malformed, or no free frame.",
    OffloadUnsupported = "offload_unsupported": "The packet's offload state makes no sense for its headers.",
    NoFrame = "no_frame": "All frames are in use.",
    HandoverFull = "handover_full": "The queue to the worker that owns this flow is full.",
}

impl DropReason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
}

/// What has been decided about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Pending,
    /// It may go out by this adjacency of the current tables; the connection does not know yet.
    Decided(u32),
    /// It goes out by this adjacency of the current tables.
    Forward(u32),
    /// It is too big for this adjacency and may be cut.
    Fragment {
        /// The way out.
        adjacency: u32,
        /// Largest IP packet it takes.
        mtu: u16,
    },
    /// It is too big for its way and may not be cut: its sender is told this MTU.
    TooBig(u16),
    /// Its TTL is used up: its sender is told.
    Expired,
    /// It has become an answer to its sender, addresses included, and goes out as it is.
    Reply,
    /// It belongs to this worker.
    Handover(u32),
    /// It ends here.
    Drop(DropReason),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_fit_for_metrics() {
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
            assert!(
                reason.label().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
            assert!(reason.sentence().ends_with('.'));
            assert!(DropReason::ALL[..i].iter().all(|other| other.label() != reason.label()));
        }
    }
}
