//! Addresses and networks as Go reads them: no netmasks, no zones, no leading zeros in IPv4.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// An address. IPv4 written as IPv6 (`::ffff:10.0.0.1`) is IPv4.
pub fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|address: IpAddr| address.to_canonical())
}

/// A network with a prefix length, host bits cleared; and the address before the slash.
pub fn cidr(text: &str) -> Option<(IpNetwork, IpAddr)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let digits = (1..=3).contains(&length.len()) && length.bytes().all(|b| b.is_ascii_digit());
    let length = length.parse().ok().filter(|_| digits)?;
    Some((masked(IpNetwork::new(address, length).ok()?), address))
}

/// An address, with the length of its network's prefix or without.
pub fn address_of(text: &str) -> Option<IpAddr> {
    cidr(text).map(|(_, address)| address).or_else(|| address(text))
}

/// A network with a prefix length, or an address alone; host bits cleared.
pub fn network(text: &str) -> Option<IpNetwork> {
    match cidr(text) {
        Some((network, _)) => Some(network),
        None => address(text).map(IpNetwork::from),
    }
}

/// Without host bits.
pub fn masked(network: IpNetwork) -> IpNetwork {
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_go_and_addresses_are_networks() {
        let shown = |text| network(text).map(|net| net.to_string());
        assert_eq!(shown("10.1.2.3/8").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(shown("10.1.2.3/032").as_deref(), Some("10.1.2.3/32"));
        assert_eq!(shown("10.1.2.3").as_deref(), Some("10.1.2.3/32"));
        assert_eq!(shown("FD00::1/64").as_deref(), Some("fd00::/64"));
        assert_eq!(shown("::ffff:10.0.0.1").as_deref(), Some("10.0.0.1/32"));
        for bad in [
            "",
            "10.0.0.0/255.0.0.0",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0/8",
            "01.2.3.4",
            "fe80::1%eth0",
            "10.0.0.0/+8",
            " 10.0.0.1",
        ] {
            assert_eq!(shown(bad), None, "{bad:?}");
        }
        assert_eq!(cidr("192.168.0.1/24").unwrap().1.to_string(), "192.168.0.1");
        assert_eq!(cidr("192.168.0.1"), None);
    }
}
