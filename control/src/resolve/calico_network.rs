//! Calico's own routes and tunnel ends, as the dataplane takes them.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use canal_dataplane::spec::calico::CalicoNetwork;
use canal_dataplane::spec::{LocalVtep, Vxlan};

use super::calico::Resolution;
use super::{NodeFacts, saturate};
use crate::model::flannel::mtu::{VXLAN_OVERHEAD_V4, VXLAN_OVERHEAD_V6};

/// Shares what did not change with the resolution. Our own end is what our Node resource says; its MTU, unless Felix's
/// settings have one, what the overlay's interface leaves.
pub(super) fn calico_network(resolution: &Resolution, nodename: &str, node: &NodeFacts<'_>) -> CalicoNetwork {
    let felix = node.felix.vxlan;
    let own = |v6: bool| resolution.vteps.get(&(nodename.into(), v6));
    let mtu = |set: Option<NonZeroU16>, overhead: u32| {
        set.map_or_else(|| saturate(node.external.mtu.saturating_sub(overhead)), NonZeroU16::get)
    };
    let v4 = own(false).and_then(|end| match end.node_ip {
        IpAddr::V4(address) => {
            Some(LocalVtep { address, mac: end.mac, mtu: mtu(felix.mtu, VXLAN_OVERHEAD_V4) })
        }
        IpAddr::V6(_) => None,
    });
    let v6 = own(true).and_then(|end| match end.node_ip {
        IpAddr::V6(address) => {
            Some(LocalVtep { address, mac: end.mac, mtu: mtu(felix.mtu_v6, VXLAN_OVERHEAD_V6) })
        }
        IpAddr::V4(_) => None,
    });
    let some = v4.is_some() || v6.is_some();
    CalicoNetwork {
        routes: Arc::clone(&resolution.routes),
        vteps: Arc::clone(&resolution.vteps),
        vxlan: some.then_some(Vxlan { vni: felix.vni, port: felix.port, v4, v6 }),
    }
}
