//! BGP peers, and the communities of a BGP configuration.

use std::net::IpAddr;

use serde_json::Value;

use crate::resource::error::Report;
use crate::resource::schema::{Object, flag_of, integer_of, list_of, text_of};
use crate::resource::text::peer_address;

/// A BGPConfiguration's specification.
pub(in crate::resource) fn bgp_configuration(spec: &Object, report: &mut Report) {
    let communities = list_of(spec, "communities");
    let name_of = |community: &Value| community["name"].as_str().unwrap_or_default().to_owned();
    let defined: Vec<String> = communities.iter().map(name_of).collect();
    if !communities.is_empty() && list_of(spec, "prefixAdvertisements").is_empty() {
        report.wrong("communities", "must not be given unless prefixAdvertisements use them");
    }
    report.at("prefixAdvertisements", |report| {
        for (n, advertisement) in list_of(spec, "prefixAdvertisements").iter().enumerate() {
            let used = advertisement["communities"].as_array().map(Vec::as_slice).unwrap_or_default();
            for (m, community) in used.iter().enumerate() {
                let community = community.as_str().unwrap_or_default();
                if !is_community(community) && !defined.iter().any(|name| name == community) {
                    let sentence =
                        "must be aa:nn (16 bit each), aa:nn:mm (32 bit each) or a name in spec.communities";
                    report.item(n, |report| {
                        report.at("communities", |report| report.item(m, |report| report.here(sentence)));
                    });
                }
            }
        }
    });
    if spec.get("nodeToNodeMeshEnabled") == Some(&Value::Bool(false)) {
        for name in ["nodeMeshPassword", "nodeMeshMaxRestartTime"] {
            if spec.contains_key(name) {
                report.wrong(name, "must not be given where nodeToNodeMeshEnabled is false");
            }
        }
    }
}

/// `aa:nn` of 16 bits each or `aa:nn:mm` of 32 bits each.
pub(in crate::resource) fn is_community(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let below = |limit: u64| {
        let fits = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_digit())
                && part.parse().is_ok_and(|n: u64| n <= limit)
        };
        parts.iter().all(fits)
    };
    match parts.len() {
        2 => below(u16::MAX.into()),
        3 => below(u32::MAX.into()),
        _ => false,
    }
}

/// A BGPPeer's specification.
pub(in crate::resource) fn peer(peer: &Object, report: &mut Report) {
    let given = |name| !text_of(peer, name).is_empty();
    let numbered = integer_of(peer, "asNumber").is_some();
    for (name, beside) in [
        ("node", "nodeSelector"),
        ("peerIP", "peerSelector"),
        ("peerIP", "localWorkloadSelector"),
        ("peerSelector", "localWorkloadSelector"),
    ] {
        if given(name) && given(beside) {
            report.wrong(name, format!("must not be given beside {beside}"));
        }
    }
    if numbered && given("peerSelector") {
        report.wrong("asNumber", "must not be given beside peerSelector");
    }
    if !numbered && given("localWorkloadSelector") {
        report.wrong("asNumber", "must be given beside localWorkloadSelector");
    }
    if flag_of(peer, "keepOriginalNextHop") && peer.contains_key("nextHopMode") {
        report.wrong("keepOriginalNextHop", "must not be true beside nextHopMode");
    }
    if given("reachableBy") {
        let family = |address: IpAddr| address.to_canonical().is_ipv4();
        let gateway = text_of(peer, "reachableBy").parse().ok().map(family);
        if peer_address(text_of(peer, "peerIP")).map(family) != gateway {
            report.wrong("reachableBy", "must be of the same IP version as peerIP, which must be given");
        }
    }
}
