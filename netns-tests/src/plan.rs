//! The addresses of the laboratory: which host, segment and subnet has which number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The overlay's IPv4 network, flannel's `Network`.
pub const NETWORK_V4: &str = "10.244.0.0/16";
/// The overlay's IPv6 network, flannel's `IPv6Network`.
pub const NETWORK_V6: &str = "fd00:244::/48";
/// MTU of an ordinary underlay segment.
pub const UNDERLAY_MTU: u16 = 1500;
/// The gateway every pod sees, Calico's choice.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The MAC of the host side of every pod's veth, Calico's choice.
pub const GATEWAY_MAC: &str = "ee:ee:ee:ee:ee:ee";
/// The link-local address that belongs to [`GATEWAY_MAC`]: what a pod uses as its IPv6 gateway.
pub const GATEWAY_V6: &str = "fe80::ecee:eeff:feee:eeee";
/// UDP port of flannel's VXLAN on Linux.
pub const VXLAN_PORT: u16 = 8472;

/// Underlay IPv4 address of host `index` in `segment`.
pub fn host_v4(segment: u8, index: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77 + segment, 10 + index)
}

/// Underlay IPv6 address of host `index` in `segment`.
pub fn host_v6(segment: u8, index: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, segment.into(), 0, 0, 0, 10 + u16::from(index))
}

/// The switch's own address in `segment`: etcd listens on the one of segment 0, and it routes between segments.
pub fn switch_v4(segment: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77 + segment, 1)
}

/// IPv6 twin of [`switch_v4`].
pub fn switch_v6(segment: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, segment.into(), 0, 0, 0, 1)
}

/// The pair of subnets one node leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnets {
    /// Base address of the /24.
    pub v4: Ipv4Addr,
    /// Base address of the /64, on dual-stack networks.
    pub v6: Option<Ipv6Addr>,
}

impl Subnets {
    /// The subnets a kernel peer on host `index` takes; canal's are whatever it leased.
    pub fn planned(index: u8, dual: bool) -> Self {
        let third = 100 + index;
        Self {
            v4: Ipv4Addr::new(10, 244, third, 0),
            v6: dual.then(|| Ipv6Addr::new(0xfd00, 0x244, 0, third.into(), 0, 0, 0, 0)),
        }
    }

    /// The `n`th IPv4 address of the subnet.
    pub fn pod_v4(&self, n: u8) -> Ipv4Addr {
        let [a, b, c, _] = self.v4.octets();
        Ipv4Addr::new(a, b, c, n)
    }

    /// The `n`th IPv6 address of the subnet.
    pub fn pod_v6(&self, n: u8) -> Option<Ipv6Addr> {
        self.v6.map(|base| Ipv6Addr::from(u128::from(base) + u128::from(n)))
    }

    /// Last part of the etcd key, flannel's grammar: `10.244.1.0-24` or `10.244.1.0-24&fd00:244:0:1::-64`.
    pub fn key(&self) -> String {
        match self.v6 {
            Some(v6) => format!("{}-24&{v6}-64", self.v4),
            None => format!("{}-24", self.v4),
        }
    }

    /// Both base addresses: what flannel gives to the VXLAN device as /32 and /128.
    pub fn bases(&self) -> Vec<IpAddr> {
        let mut all = vec![IpAddr::V4(self.v4)];
        all.extend(self.v6.map(IpAddr::V6));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_flannels_grammar() {
        assert_eq!(Subnets::planned(0, false).key(), "10.244.100.0-24");
        assert_eq!(Subnets::planned(2, true).key(), "10.244.102.0-24&fd00:244:0:66::-64");
    }

    #[test]
    fn pods_lie_inside_their_subnet() {
        let subnets = Subnets::planned(1, true);
        assert_eq!(subnets.pod_v4(5).to_string(), "10.244.101.5");
        assert_eq!(subnets.pod_v6(5).map(|a| a.to_string()).as_deref(), Some("fd00:244:0:65::5"));
    }
}
