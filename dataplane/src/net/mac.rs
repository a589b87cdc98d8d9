//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

/// A 48-bit Ethernet address, in wire order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac(pub [u8; 6]);

/// Why a text is not an Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseMacError;

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an Ethernet address (six hexadecimal octets separated by ':')")
    }
}

impl std::error::Error for ParseMacError {}

impl Mac {
    /// All ones: every station on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// All zero: no address.
    pub const ZERO: Self = Self([0; 6]);

    /// A random address made fit for a device of ours: locally administered and unicast
    /// (IEEE 802 bits 0x02 set, 0x01 clear), as flannel makes the address of its VXLAN device.
    pub const fn local_from(random: [u8; 6]) -> Self {
        let mut octets = random;
        octets[0] = (octets[0] & 0xfe) | 0x02;
        Self(octets)
    }

    /// True for one station's address (group bit clear).
    pub const fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = ParseMacError;

    /// Accepts `:` and `-` as separators and either case, as Go's `net.ParseMAC` does for
    /// six-octet addresses.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        if bytes.len() != 17 {
            return Err(ParseMacError);
        }
        let separator = bytes[2];
        if separator != b':' && separator != b'-' {
            return Err(ParseMacError);
        }
        let mut octets = [0u8; 6];
        for (i, octet) in octets.iter_mut().enumerate() {
            let at = i * 3;
            if i < 5 && bytes[at + 2] != separator {
                return Err(ParseMacError);
            }
            let hex = |b: u8| (b as char).to_digit(16).ok_or(ParseMacError);
            *octet = (hex(bytes[at])? * 16 + hex(bytes[at + 1])?) as u8;
        }
        Ok(Self(octets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let mac: Mac = "7e:b7:5d:c7:7c:76".parse().unwrap();
        assert_eq!(mac, Mac([0x7e, 0xb7, 0x5d, 0xc7, 0x7c, 0x76]));
        assert_eq!(mac.to_string(), "7e:b7:5d:c7:7c:76");
        assert_eq!("7E-B7-5D-C7-7C-76".parse::<Mac>().unwrap(), mac);
    }

    #[test]
    fn garbage_is_refused() {
        for text in ["", "7e:b7:5d:c7:7c", "7e:b7:5d:c7:7c:7g", "7e:b7-5d:c7:7c:76", "7e:b7:5d:c7:7c:76:"] {
            assert_eq!(text.parse::<Mac>(), Err(ParseMacError), "{text}");
        }
    }

    #[test]
    fn a_made_address_is_local_and_unicast() {
        assert_eq!(Mac::local_from([0xff; 6]).0[0], 0xfe);
        assert_eq!(Mac::local_from([0x01; 6]).0[0], 0x02);
    }
}
