//! Which eBPF programs are attached to a namespace's interfaces: iproute2 does not show TCX links.

use crate::netns::Netns;
use crate::sys;
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of linux/bpf.h.
const TCX: [(u32, &str); 2] = [(46, "tcx-ingress"), (47, "tcx-egress")];

/// For each interface that has any: `eth0 tcx-ingress` and the number of programs there.
pub fn programs(ns: &Netns) -> Result<BTreeMap<String, usize>> {
    ns.enter(|| {
        let mut found = BTreeMap::new();
        for interface in nix::net::if_::if_nameindex()?.iter() {
            for (attach_type, name) in TCX {
                let ids =
                    sys::attached_programs(interface.index(), attach_type).context("asking for programs")?;
                if !ids.is_empty() {
                    found.insert(format!("{} {name}", interface.name().to_string_lossy()), ids.len());
                }
            }
        }
        Ok(found)
    })
}
