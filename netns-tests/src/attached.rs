//! Which eBPF programs are attached to a namespace's interfaces, and in what order: iproute2 does not show TCX links.

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

/// The kinds of the links that process `pid` holds (`tcx`, `xdp`), in the order in which it has made them.
pub fn links(pid: u32) -> Result<Vec<String>> {
    let mut links = BTreeMap::new();
    for descriptor in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // Closed meanwhile.
        let Ok(text) = std::fs::read_to_string(descriptor?.path()) else { continue };
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if let (Some(kind), Some(id)) = (value("link_type:"), value("link_id:")) {
            links.insert(id.parse::<u32>().context("link_id")?, kind.to_owned());
        }
    }
    Ok(links.into_values().collect())
}
