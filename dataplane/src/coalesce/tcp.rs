//! What merging has to know about one TCP segment.

use crate::checksum;
use crate::limits::ETHERNET;
use crate::offload::{Checksum, Gso, GsoKind, Offload};

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
/// Offset of the checksum in a TCP header.
const CHECKSUM: usize = 16;

/// An unfragmented TCP packet directly behind an IPv4 or IPv6 header, in a frame that starts with its Ethernet header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tcp {
    pub v6: bool,
    /// First byte of the TCP header.
    pub transport: usize,
    /// First byte of the payload.
    pub payload: usize,
    /// First byte behind the IP packet.
    pub end: usize,
    pub sequence: u32,
    flags: u8,
    id: u16,
    dont_fragment: bool,
}

impl Tcp {
    /// `None` for everything else and for what is cut short.
    #[inline]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(ETHERNET..)?;
        let (v6, transport, end, id, dont_fragment) = match frame[12..ETHERNET] {
            [0x08, 0x00] => {
                let header = ip.first_chunk::<20>()?;
                let header_len = usize::from(header[0] & 0xf) * 4;
                let fragment = word(header, 6);
                if header[0] >> 4 != 4 || header_len < 20 || header[9] != 6 || fragment & 0x3fff != 0 {
                    return None;
                }
                let end = ETHERNET + usize::from(word(header, 2));
                (false, ETHERNET + header_len, end, word(header, 4), fragment & 0x4000 != 0)
            }
            [0x86, 0xdd] => {
                let header = ip.first_chunk::<40>()?;
                if header[0] >> 4 != 6 || header[6] != 6 {
                    return None;
                }
                (true, ETHERNET + 40, ETHERNET + 40 + usize::from(word(header, 4)), 0, true)
            }
            _ => return None,
        };
        let tcp = frame.get(transport..end)?;
        let header = tcp.first_chunk::<20>()?;
        let header_len = usize::from(header[12] >> 4) * 4;
        if header_len < 20 || header_len > tcp.len() {
            return None;
        }
        let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let payload = transport + header_len;
        Some(Self { v6, transport, payload, end, sequence, flags: header[13], id, dont_fragment })
    }

    pub fn payload_len(&self) -> usize {
        self.end - self.payload
    }

    /// Sequence number of the byte behind the payload.
    pub fn next_sequence(&self) -> u32 {
        self.sequence.wrapping_add(self.payload_len() as u32)
    }

    pub fn pushes(&self) -> bool {
        self.flags & PSH != 0
    }

    /// True when the packet carries payload, says nothing but "here is data", fills its frame, and its IPv4 header is
    /// undamaged: only such ones merge.
    #[inline]
    pub fn is_plain_data(&self, frame: &[u8]) -> bool {
        self.flags & !PSH == ACK
            && self.payload_len() > 0
            && self.end == frame.len()
            && (self.v6 || checksum::fold(checksum::sum(&frame[ETHERNET..self.transport], 0)) == 0xffff)
    }

    /// Sum of the pseudo-header for `len` bytes of TCP.
    fn pseudo(&self, frame: &[u8], len: usize) -> u64 {
        let addresses = if self.v6 { ETHERNET + 8..ETHERNET + 40 } else { ETHERNET + 12..ETHERNET + 20 };
        checksum::sum(&frame[addresses], 6 + len as u64)
    }

    #[inline]
    pub fn checksum_is_right(&self, frame: &[u8]) -> bool {
        let pseudo = self.pseudo(frame, self.end - self.transport);
        checksum::fold(checksum::sum(&frame[self.transport..self.end], pseudo)) == 0xffff
    }

    /// The state of the checksum of a packet whose checksum is unfinished.
    pub fn partial(&self) -> Checksum {
        Checksum::Partial { start: self.transport as u16, offset: CHECKSUM as u16 }
    }

    /// True when `next` (parsed from `next_frame`) is the `index`-th segment of a super-frame whose first segment is
    /// this one, as far as its headers say; sequence numbers are the caller's business.
    #[inline]
    pub fn continues_as(&self, frame: &[u8], next: &Self, next_frame: &[u8], index: usize) -> bool {
        let same = |from: usize, to: usize| frame[from..to] == next_frame[from..to];
        let ip = ETHERNET;
        let tcp = self.transport;
        let same_shape = self.v6 == next.v6 && tcp == next.transport && self.payload == next.payload;
        let same_ip = same_shape
            && if self.v6 {
                // Everything but the payload length.
                same(0, ip + 4) && same(ip + 6, tcp)
            } else {
                // Everything but length, identification and checksum.
                same(0, ip + 2) && same(ip + 6, ip + 10) && same(ip + 12, tcp)
            };
        // Everything but sequence number, PSH and checksum.
        same_ip
            && same(tcp, tcp + 4)
            && same(tcp + 8, tcp + 13)
            && (self.flags ^ next.flags) & !PSH == 0
            && same(tcp + 14, tcp + CHECKSUM)
            && same(tcp + CHECKSUM + 2, self.payload)
            && (self.dont_fragment || next.id == self.id.wrapping_add(index as u16))
    }

    /// Makes the headers in `frame`, whose packet now ends at `end`, those of a super-frame.
    #[inline]
    pub fn make_super(&self, frame: &mut [u8], end: usize, push: bool) {
        if self.v6 {
            put(frame, ETHERNET + 4, (end - ETHERNET - 40) as u16);
        } else {
            let len = (end - ETHERNET) as u16;
            let (old, checksum) = (word(frame, ETHERNET + 2), word(frame, ETHERNET + 10));
            put(frame, ETHERNET + 2, len);
            put(frame, ETHERNET + 10, checksum::update_u16(checksum, old, len));
        }
        if push {
            frame[self.transport + 13] |= PSH;
        }
        let pseudo = checksum::fold(self.pseudo(frame, end - self.transport));
        put(frame, self.transport + CHECKSUM, pseudo);
    }

    /// The offload of a super-frame of segments as long as this one.
    pub fn super_offload(&self) -> Offload {
        let kind = if self.v6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 };
        let gso = Gso { kind, size: self.payload_len() as u16, ecn: false };
        Offload { checksum: self.partial(), gso: Some(gso), tunnel: None }
    }
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
