//! IP pools.

use crate::resource::error::Report;
use crate::resource::net::Net;
use crate::resource::schema::{Object, flag_of, integer_of, text_of, texts_of};

/// Where pools may not be.
const LINK_LOCAL: [&str; 2] = ["169.254.0.0/16", "fe80::/10"];

/// What the default block sizes are: IPv4, IPv6.
pub(in crate::resource) fn default_block_size(cidr: Net) -> i64 {
    if cidr.is_v4() { 26 } else { 122 }
}

/// An IPPool's specification.
pub(in crate::resource) fn pool(pool: &Object, report: &mut Report) {
    let Some(cidr) = Net::cidr_or_address(text_of(pool, "cidr")) else { return };
    let is_on = |name| matches!(text_of(pool, name), "Always" | "CrossSubnet");
    for name in ["ipipMode", "vxlanMode"] {
        if !cidr.is_v4() && text_of(pool, name) != "Never" {
            report.wrong(name, "must be Never in an IPv6 pool");
        }
    }
    if is_on("ipipMode") && is_on("vxlanMode") {
        report.wrong("ipipMode", "must be Never where vxlanMode is not");
    }
    let size = integer_of(pool, "blockSize").unwrap_or_else(|| default_block_size(cidr));
    if !flag_of(pool, "disabled") && i64::from(cidr.length()) > size {
        report.wrong("cidr", format!("must not be smaller than a block of addresses (/{size})"));
    }
    if LINK_LOCAL.iter().filter_map(|text| Net::cidr(text)).any(|local| local.overlaps(cidr)) {
        report
            .wrong("cidr", format!("must not overlap with link-local addresses ({})", LINK_LOCAL.join(", ")));
    }
    if flag_of(pool, "nat-outgoing") {
        report.wrong("nat-outgoing", "must not be set: use natOutgoing");
    }
    if pool.contains_key("ipip") {
        report.wrong("ipip", "must not be set: use ipipMode");
    }
    load_balancer(pool, is_on("ipipMode") || is_on("vxlanMode"), report);
}

fn load_balancer(pool: &Object, encapsulates: bool, report: &mut Report) {
    let uses: Vec<&str> = texts_of(pool, "allowedUses").collect();
    if uses.contains(&"Tunnel") && pool.contains_key("namespaceSelector") {
        report.wrong("namespaceSelector", "must not be given where Tunnel is an allowed use");
    }
    if !uses.contains(&"LoadBalancer") {
        return;
    }
    if uses.iter().any(|allowed| *allowed != "LoadBalancer") {
        report.wrong("allowedUses", "must not have another use beside LoadBalancer");
    }
    if encapsulates {
        report.wrong("allowedUses", "must not have LoadBalancer in a pool with ipipMode or vxlanMode");
    }
    if flag_of(pool, "disableBGPExport") {
        report.wrong("disableBGPExport", "must not be true in a LoadBalancer pool");
    }
    if !matches!(text_of(pool, "nodeSelector"), "" | "all()") {
        report.wrong("nodeSelector", "must be all() in a LoadBalancer pool");
    }
}
