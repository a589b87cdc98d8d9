//! Addresses and networks as flannel spells and compares them.
//!
//! Written out here because two neighbours are looser: `ipnetwork` also parses a bare address and
//! a dotted mask, and Go prints an IPv4-mapped IPv6 address as a dotted quad.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};

/// The text is not an address or network of the family asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddrError {
    /// Not an IP address in its strict text form.
    #[error("not an IP address")]
    Address,
    /// Not `address/length`.
    #[error("not an address with a prefix length (CIDR)")]
    Cidr,
    /// An IPv6 value in an IPv4 field.
    #[error("an IPv6 value where IPv4 is needed")]
    NotIpv4,
}

/// Strict dotted quad (no leading zeros); an IPv4-mapped IPv6 text counts as IPv4, as in Go.
pub fn parse_ipv4(text: &str) -> Result<Ipv4Addr, AddrError> {
    match text.parse().map_err(|_| AddrError::Address)? {
        IpAddr::V4(v4) => Ok(v4),
        IpAddr::V6(v6) => v6.to_ipv4_mapped().ok_or(AddrError::NotIpv4),
    }
}

/// An IPv6 address; an IPv4 text becomes IPv4-mapped, as in Go.
pub fn parse_ipv6(text: &str) -> Result<Ipv6Addr, AddrError> {
    match text.parse().map_err(|_| AddrError::Address)? {
        IpAddr::V4(v4) => Ok(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => Ok(v6),
    }
}

/// What `net.ParseCIDR` makes of a text: host bits masked in the family it was written in.
fn parse_cidr(text: &str) -> Result<(IpAddr, u8), AddrError> {
    let (address, length) = text.split_once('/').ok_or(AddrError::Cidr)?;
    let address: IpAddr = address.parse().map_err(|_| AddrError::Cidr)?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AddrError::Cidr);
    }
    let length: u8 = length.parse().map_err(|_| AddrError::Cidr)?;
    match address {
        IpAddr::V4(v4) if length <= 32 => Ok((IpAddr::V4(v4 & mask4(length)), length)),
        IpAddr::V6(v6) if length <= 128 => Ok((IpAddr::V6(v6 & mask6(length)), length)),
        _ => Err(AddrError::Cidr),
    }
}

/// An IPv4 network, host bits masked.
///
/// # Errors
/// [`AddrError::NotIpv4`] for IPv6, IPv4-mapped or not: the one has no IPv4 form, the other a
/// length no IPv4 network can have.
pub fn parse_network4(text: &str) -> Result<Ipv4Network, AddrError> {
    match parse_cidr(text)? {
        (IpAddr::V4(base), length) => Ipv4Network::new(base, length).map_err(|_| AddrError::Cidr),
        (IpAddr::V6(_), _) => Err(AddrError::NotIpv4),
    }
}

/// An IPv6 network, host bits masked. An IPv4 network is taken as flannel takes it: the mapped
/// address with the length as written, which the checks on the network then refuse.
pub fn parse_network6(text: &str) -> Result<Ipv6Network, AddrError> {
    let (base, length) = match parse_cidr(text)? {
        (IpAddr::V6(base), length) => (base, length),
        (IpAddr::V4(base), length) => (base.to_ipv6_mapped(), length),
    };
    Ipv6Network::new(base, length).map_err(|_| AddrError::Cidr)
}

/// Prints an IPv6 address as Go does: RFC 5952, IPv4-mapped ones as a dotted quad.
#[derive(Clone, Copy, Debug)]
pub struct GoIpv6(pub Ipv6Addr);

impl fmt::Display for GoIpv6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.to_ipv4_mapped() {
            Some(v4) => v4.fmt(f),
            None => self.0.fmt(f),
        }
    }
}

/// The network mask of a prefix length, at most 32.
pub fn mask4(length: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0))
}

/// The network mask of a prefix length, at most 128.
pub fn mask6(length: u8) -> Ipv6Addr {
    Ipv6Addr::from(u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0))
}

/// The network of the same length right behind `net`, wrapping at the end of the address space.
pub fn next4(net: Ipv4Network) -> Ipv4Network {
    let size = 1u32.checked_shl(32 - u32::from(net.prefix())).unwrap_or(0);
    let base = Ipv4Addr::from(u32::from(net.ip()).wrapping_add(size));
    Ipv4Network::new(base, net.prefix()).unwrap_or_else(|_| unreachable!("the length was legal before"))
}

/// The network of the same length right behind `net`, wrapping at the end of the address space.
pub fn next6(net: Ipv6Network) -> Ipv6Network {
    let size = 1u128.checked_shl(128 - u32::from(net.prefix())).unwrap_or(0);
    let base = Ipv6Addr::from(u128::from(net.ip()).wrapping_add(size));
    Ipv6Network::new(base, net.prefix()).unwrap_or_else(|_| unreachable!("the length was legal before"))
}

/// True when the two networks share an address; host bits do not matter.
pub fn overlaps4(a: Ipv4Network, b: Ipv4Network) -> bool {
    let mask = mask4(a.prefix().min(b.prefix()));
    a.ip() & mask == b.ip() & mask
}

/// True when the two networks share an address; host bits do not matter.
pub fn overlaps6(a: Ipv6Network, b: Ipv6Network) -> bool {
    let mask = mask6(a.prefix().min(b.prefix()));
    a.ip() & mask == b.ip() & mask
}

/// True when every address of `inner` is in `outer`.
pub fn contains4(outer: Ipv4Network, inner: Ipv4Network) -> bool {
    outer.prefix() <= inner.prefix() && overlaps4(outer, inner)
}

/// True when every address of `inner` is in `outer`.
pub fn contains6(outer: Ipv6Network, inner: Ipv6Network) -> bool {
    outer.prefix() <= inner.prefix() && overlaps6(outer, inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_strict_form_is_a_network() {
        assert_eq!(parse_network4("10.7.3.9/16").unwrap().to_string(), "10.7.0.0/16");
        assert_eq!(parse_network4("10.7.3.9/016").unwrap().to_string(), "10.7.0.0/16");
        for bad in
            ["10.7.0.0", "10.7.0.0/255.255.0.0", "10.7.0.0/", "10.7.0.0/+8", "010.7.0.0/16", "10.7.0.0/33"]
        {
            assert_eq!(parse_network4(bad), Err(AddrError::Cidr), "{bad}");
        }
        assert_eq!(parse_network4("fc00::/48"), Err(AddrError::NotIpv4));
        assert_eq!(parse_network6("fd00::1/0").unwrap().to_string(), "::/0");
        assert_eq!(parse_network6("10.9.0.0/16").unwrap().to_string(), "::ffff:10.9.0.0/16");
    }

    #[test]
    fn mapped_addresses_cross_families_as_in_go() {
        assert_eq!(parse_ipv4("::ffff:1.2.3.4").unwrap(), Ipv4Addr::new(1, 2, 3, 4));
        assert_eq!(parse_ipv4("fd00::1"), Err(AddrError::NotIpv4));
        assert_eq!(parse_ipv4("01.2.3.4"), Err(AddrError::Address));
        assert_eq!(GoIpv6(parse_ipv6("1.2.3.4").unwrap()).to_string(), "1.2.3.4");
        assert_eq!(parse_ipv6("fe80::1%eth0"), Err(AddrError::Address));
    }

    fn any_net4() -> impl Strategy<Value = Ipv4Network> {
        (any::<u32>(), 0u8..=32).prop_map(|(a, l)| Ipv4Network::new(Ipv4Addr::from(a), l).unwrap())
    }

    proptest! {
        /// The mask forms against comparing first and last address.
        #[test]
        fn overlap_and_containment_match_intervals(a in any_net4(), b in any_net4()) {
            let range = |n: Ipv4Network| (u32::from(n.network()), u32::from(n.broadcast()));
            let ((a0, a1), (b0, b1)) = (range(a), range(b));
            prop_assert_eq!(overlaps4(a, b), a0 <= b1 && b0 <= a1);
            prop_assert_eq!(contains4(a, b), a0 <= b0 && b1 <= a1);
        }
    }
}
