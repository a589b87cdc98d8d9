//! The outer headers that the kernel keeps to itself: written in front of what a socket received, read from what the
//! core wants sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use canal_dataplane::checksum;
use canal_dataplane::limits::ETHERNET;

/// Bytes up to the UDP payload over IPv4.
pub const LEN_V4: usize = ETHERNET + 20 + 8;
/// Bytes up to the UDP payload over IPv6.
pub const LEN_V6: usize = ETHERNET + 40 + 8;
const TTL: u8 = 64;
const UDP: u8 = 17;
const DONT_FRAGMENT: u16 = 0x4000;

/// What the outer headers of one datagram say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Sender.
    pub source: IpAddr,
    /// Receiver, of the same family.
    pub target: IpAddr,
    /// Ports of both.
    pub ports: (u16, u16),
    /// TOS or traffic class.
    pub tos: u8,
}

impl Outer {
    /// Reads the headers of a frame of ours; `None` when they are not plain UDP.
    #[inline]
    pub fn read(frame: &[u8]) -> Option<Self> {
        match frame.get(12..14)? {
            [0x08, 0x00] => {
                let header: &[u8; LEN_V4] = frame.first_chunk()?;
                if header[14] != 0x45 || header[23] != UDP {
                    return None;
                }
                let [.., a, b, c, d, e, f, g, h, s0, s1, t0, t1, _, _, _, _] = *header;
                Some(Self {
                    source: Ipv4Addr::new(a, b, c, d).into(),
                    target: Ipv4Addr::new(e, f, g, h).into(),
                    ports: (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([t0, t1])),
                    tos: header[15],
                })
            }
            [0x86, 0xdd] => {
                let header: &[u8; LEN_V6] = frame.first_chunk()?;
                if header[14] >> 4 != 6 || header[20] != UDP {
                    return None;
                }
                let source: &[u8; 16] = header[22..].first_chunk()?;
                let target: &[u8; 16] = header[38..].first_chunk()?;
                Some(Self {
                    source: Ipv6Addr::from(*source).into(),
                    target: Ipv6Addr::from(*target).into(),
                    ports: (
                        u16::from_be_bytes([header[54], header[55]]),
                        u16::from_be_bytes([header[56], header[57]]),
                    ),
                    tos: header[14] << 4 | header[15] >> 4,
                })
            }
            _ => None,
        }
    }

    /// Bytes of the headers.
    #[inline]
    pub fn len(&self) -> usize {
        if self.source.is_ipv4() { LEN_V4 } else { LEN_V6 }
    }

    /// Writes the headers to the front of `frame`, whose end is that of the datagram.
    ///
    /// The Ethernet addresses are zero: nobody knows them. The UDP checksum was the kernel's to verify; over IPv6, where
    /// its absence would be an error, the field holds the sum of the pseudo-header as that of an unfinished packet does.
    ///
    /// # Panics
    /// When `frame` is shorter than [`Self::len`]: a programmer's error.
    pub fn write(&self, frame: &mut [u8]) {
        frame[..12].fill(0);
        match (self.source, self.target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                frame[12..14].copy_from_slice(&[0x08, 0x00]);
                frame[14..26].copy_from_slice(&[0x45, self.tos, 0, 0, 0, 0, 0, 0, TTL, UDP, 0, 0]);
                frame[20..22].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
                frame[26..30].copy_from_slice(&source.octets());
                frame[30..34].copy_from_slice(&target.octets());
            }
            (source, target) => {
                let octets = |address| match address {
                    IpAddr::V4(v4) => Ipv4Addr::to_ipv6_mapped(&v4).octets(),
                    IpAddr::V6(v6) => v6.octets(),
                };
                frame[12..14].copy_from_slice(&[0x86, 0xdd]);
                frame[14..22].copy_from_slice(&[0x60 | self.tos >> 4, self.tos << 4, 0, 0, 0, 0, UDP, TTL]);
                frame[22..38].copy_from_slice(&octets(source));
                frame[38..54].copy_from_slice(&octets(target));
            }
        }
        let udp = self.len() - 8;
        frame[udp..udp + 2].copy_from_slice(&self.ports.0.to_be_bytes());
        frame[udp + 2..udp + 4].copy_from_slice(&self.ports.1.to_be_bytes());
        frame[udp + 6..udp + 8].fill(0);
        set_lengths(frame);
    }
}

/// Makes the lengths in the outer headers at the front of `frame`, and what depends on them, fit its end. Frames whose
/// headers are not as [`Outer::read`] wants them stay as they are.
pub fn set_lengths(frame: &mut [u8]) {
    let total = frame.len();
    match frame.get(12..14) {
        Some([0x08, 0x00]) if total >= LEN_V4 => {
            frame[16..18].copy_from_slice(&((total - ETHERNET) as u16).to_be_bytes());
            frame[24..26].fill(0);
            let value = checksum::finish(checksum::sum(&frame[14..34], 0));
            frame[24..26].copy_from_slice(&value.to_be_bytes());
            frame[38..40].copy_from_slice(&((total - 34) as u16).to_be_bytes());
            frame[40..42].fill(0);
        }
        Some([0x86, 0xdd]) if total >= LEN_V6 => {
            let len = ((total - 54) as u16).to_be_bytes();
            frame[18..20].copy_from_slice(&len);
            frame[58..60].copy_from_slice(&len);
            let sum = checksum::sum(&frame[22..54], u64::from(UDP) + u64::from(u16::from_be_bytes(len)));
            frame[60..62].copy_from_slice(&checksum::fold(sum).to_be_bytes());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(v6: bool, a: u128, b: u128, ports: (u16, u16), tos: u8, payload in 0usize..100) {
            let address = |x: u128| if v6 { IpAddr::from(x.to_be_bytes()) } else { IpAddr::from((x as u32).to_be_bytes()) };
            let outer = Outer { source: address(a), target: address(b), ports, tos };
            let mut frame = vec![0xa5; outer.len() + payload];
            outer.write(&mut frame);
            prop_assert_eq!(Outer::read(&frame), Some(outer));
            prop_assert_eq!(&frame[outer.len()..], &vec![0xa5; payload]);
            if v6 {
                prop_assert_eq!(usize::from(u16::from_be_bytes([frame[18], frame[19]])), 8 + payload);
                prop_assert!(frame[60..62] != [0, 0]);
            } else {
                prop_assert_eq!(checksum::fold(checksum::sum(&frame[14..34], 0)), 0xffff);
                prop_assert_eq!(usize::from(u16::from_be_bytes([frame[16], frame[17]])), 28 + payload);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(mut frame in proptest::collection::vec(any::<u8>(), 0..80), kind in 0usize..3) {
            if let (Some(field), Some(value)) = (frame.get_mut(12..14), [[8, 0], [0x86, 0xdd]].get(kind)) {
                field.copy_from_slice(value);
            }
            let len = frame.len();
            set_lengths(&mut frame);
            prop_assert_eq!(frame.len(), len);
            if let Some(outer) = Outer::read(&frame) {
                prop_assert!(outer.len() <= len);
            }
        }
    }
}
