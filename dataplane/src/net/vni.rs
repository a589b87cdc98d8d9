//! VXLAN network identifiers.

use std::fmt;

/// A 24-bit VXLAN network identifier (RFC 7348 §5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

impl Vni {
    /// flannel's default.
    pub const FLANNEL: Self = Self(1);

    /// Calico's default.
    pub const CALICO: Self = Self(4096);

    /// `None` when `value` needs more than 24 bits.
    pub const fn new(value: u32) -> Option<Self> {
        if value < 1 << 24 { Some(Self(value)) } else { None }
    }

    /// From the three octets of a VXLAN header.
    pub const fn from_octets([a, b, c]: [u8; 3]) -> Self {
        Self((a as u32) << 16 | (b as u32) << 8 | c as u32)
    }

    /// The three octets of a VXLAN header.
    pub const fn octets(self) -> [u8; 3] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_four_bits_and_no_more() {
        assert_eq!(Vni::new(0xff_ffff).unwrap().octets(), [0xff; 3]);
        assert_eq!(Vni::new(0x100_0000), None);
        assert_eq!(Vni::from_octets([1, 2, 3]).get(), 0x010203);
    }
}
