//! Addresses and prefixes as Go's `net` package reads them.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// A prefix as it is written: host bits may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Net(IpNetwork);

impl Net {
    /// `address/length`.
    pub(super) fn cidr(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let digits = (1..=3).contains(&length.len()) && length.bytes().all(|b| b.is_ascii_digit());
        let length = length.parse().ok().filter(|_| digits)?;
        IpNetwork::new(address.parse().ok()?, length).ok().map(Self)
    }

    /// The same, or one address, which is the prefix that holds nothing else.
    pub(super) fn cidr_or_address(text: &str) -> Option<Self> {
        Self::cidr(text).or_else(|| text.parse::<IpAddr>().ok().map(|address| Self(address.into())))
    }

    /// IPv4; what is mapped into IPv6 counts, as it does in Go.
    pub(super) fn is_v4(self) -> bool {
        self.0.ip().to_canonical().is_ipv4()
    }

    /// No bit is set beyond the length.
    pub(super) fn is_masked(self) -> bool {
        self.0.ip() == self.0.network()
    }

    /// The length.
    pub(super) fn length(self) -> u8 {
        self.0.prefix()
    }

    /// It holds one address.
    pub(super) fn is_single(self) -> bool {
        self.0.prefix() == if self.0.is_ipv4() { 32 } else { 128 }
    }

    /// It holds the address.
    pub(super) fn contains(self, address: IpAddr) -> bool {
        self.0.contains(address)
    }

    /// The address as written.
    pub(super) fn address(self) -> IpAddr {
        self.0.ip()
    }

    /// They have an address in common.
    pub(super) fn overlaps(self, other: Self) -> bool {
        self.0.contains(other.0.network()) || other.0.contains(self.0.network())
    }
}

impl std::fmt::Display for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// An address of which Go's `To4` says something.
pub(super) fn is_ipv4(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_ipv4())
}

/// An address of which it does not.
pub(super) fn is_ipv6(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_ipv6())
}

/// What `net.ParseMAC` takes: 6, 8 or 20 bytes with colons or dashes between each, or dots between each two.
pub(super) fn is_hardware_address(text: &str) -> bool {
    let hex = |part: &str, digits| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
    let of = |separator, digits, counts: [usize; 3]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len()) && parts.iter().all(|part| hex(part, digits))
    };
    of(':', 2, [6, 8, 20]) || of('-', 2, [6, 8, 20]) || of('.', 4, [3, 4, 10])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_as_go_reads_them() {
        for good in ["10.0.0.0/8", "10.1.2.3/8", "::/0", "fd00::1/64", "1.2.3.4/32"] {
            assert!(Net::cidr(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "10.0.0.1",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "010.0.0.0/8",
            "a/8",
        ] {
            assert!(Net::cidr(bad).is_none(), "{bad}");
        }
        assert!(Net::cidr_or_address("10.0.0.1").unwrap().is_single());
        assert!(Net::cidr_or_address("fe80::1%eth0").is_none());
        let net = Net::cidr("10.1.2.3/8").unwrap();
        assert!(!net.is_masked() && net.is_v4() && !net.is_single());
        assert_eq!(net.to_string(), "10.1.2.3/8");
        assert!(net.overlaps(Net::cidr("10.200.0.0/16").unwrap()));
        assert!(!net.overlaps(Net::cidr("11.0.0.0/16").unwrap()));
    }

    #[test]
    fn hardware_addresses_come_in_three_forms() {
        for good in ["00:00:5e:00:53:01", "02-00-5e-10-00-00-00-01", "0000.5e00.5301"] {
            assert!(is_hardware_address(good), "{good}");
        }
        for bad in ["", "00:00:5e:00:53", "00:00:5e:00:53:0g", "00005e005301", "00:00-5e:00:53:01"] {
            assert!(!is_hardware_address(bad), "{bad}");
        }
    }
}
