//! How much of the underlay's MTU is left for pods.

use super::backend::Backend;

/// Address family that the encapsulated packets travel in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underlay {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What VXLAN over IPv4 adds, in bytes: 20 IPv4, 8 UDP, 8 VXLAN, 14 inner Ethernet.
pub const VXLAN_OVERHEAD_V4: u32 = 50;
/// The same over IPv6, whose header has 40 octets.
pub const VXLAN_OVERHEAD_V6: u32 = 70;

/// The least MTU an IPv4 host must take (RFC 791); anything less is a mistake in the settings.
pub const MIN_MTU: u32 = 68;

/// The underlay is too small for the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an underlay MTU of {underlay} leaves less than {MIN_MTU} bytes for pods")]
pub struct MtuTooSmall {
    /// The underlay's MTU, in bytes.
    pub underlay: u32,
}

/// What flannel subtracts from the external interface's MTU (or from the `MTU` option) for the
/// `FLANNEL_MTU` it writes, in bytes, by backend type; `None` for a type it does not have.
///
/// For vxlan this is 50 whatever the underlay: over IPv6 flannel writes 20 bytes too many.
pub fn flannel_overhead(backend_type: &str, udp_encap: bool) -> Option<u32> {
    Some(match backend_type {
        "vxlan" => VXLAN_OVERHEAD_V4,
        "udp" => 28,
        "ipip" => 20,
        "wireguard" => 80,
        "ipsec" if udp_encap => 85,
        "ipsec" => 77,
        "host-gw" | "alloc" | "extension" | "tencent-vpc" => 0,
        _ => return None,
    })
}

/// The MTU for pods and for `FLANNEL_MTU`, in bytes.
///
/// flannel's value over an IPv4 underlay. Over IPv6 the right one, 20 bytes less. Never more than
/// the interface carries: a `MTU` option above the interface's would only lose packets.
///
/// # Errors
/// [`MtuTooSmall`] when less than [`MIN_MTU`] would be left.
pub fn overlay_mtu(backend: &Backend, interface_mtu: u32, underlay: Underlay) -> Result<u32, MtuTooSmall> {
    let (underlay_mtu, overhead) = match backend {
        Backend::HostGw | Backend::Alloc => (interface_mtu, 0),
        Backend::Vxlan(options) => {
            let mtu = options.mtu.map_or(interface_mtu, |mtu| mtu.min(interface_mtu));
            let overhead = match underlay {
                Underlay::V4 => VXLAN_OVERHEAD_V4,
                Underlay::V6 => VXLAN_OVERHEAD_V6,
            };
            (mtu, overhead)
        }
    };
    underlay_mtu
        .checked_sub(overhead)
        .filter(|mtu| *mtu >= MIN_MTU)
        .ok_or(MtuTooSmall { underlay: underlay_mtu })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::flannel::VxlanOptions;

    #[test]
    fn vxlan_over_ipv6_leaves_less() {
        let backend = Backend::Vxlan(VxlanOptions::default());
        assert_eq!(overlay_mtu(&backend, 1500, Underlay::V4), Ok(1450));
        assert_eq!(overlay_mtu(&backend, 1500, Underlay::V6), Ok(1430));
        assert_eq!(overlay_mtu(&Backend::HostGw, 1500, Underlay::V6), Ok(1500));
    }

    #[test]
    fn the_option_lowers_and_never_raises() {
        let with = |mtu| Backend::Vxlan(VxlanOptions { mtu: Some(mtu), ..Default::default() });
        assert_eq!(overlay_mtu(&with(1400), 1500, Underlay::V4), Ok(1350));
        assert_eq!(overlay_mtu(&with(9000), 1500, Underlay::V4), Ok(1450));
        assert_eq!(overlay_mtu(&with(100), 1500, Underlay::V4), Err(MtuTooSmall { underlay: 100 }));
    }
}
