//! Runs: neighbouring VXLAN datagrams of one buffer that carry one stretch of one TCP stream.
//!
//! The rules are those of the kernel's GRO: equal headers but for lengths and sequence, contiguous sequence, full
//! segments but for the last, only ACK and PSH. Every checksum is verified before it is given up.

use canal_dataplane::checksum;
use canal_dataplane::limits::{ETHERNET, MAX_IP};

const VXLAN: usize = 8;
/// Of the inner IP header in a datagram.
pub const NETWORK: usize = VXLAN + ETHERNET;
const TCP: u8 = 6;
const ACK: u8 = 0x10;
/// The TCP flag that only the last segment of a run may have.
pub const PSH: u8 = 0x08;
/// Offset of the checksum in a TCP header.
pub const TCP_CHECKSUM: usize = 16;
/// The flag of an IPv4 header, in its sixth byte.
const DONT_FRAGMENT: u8 = 0x40;

/// Headers of a TCP segment in a VXLAN datagram. Offsets count from the VXLAN header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The inner packet is IPv6.
    pub v6: bool,
    /// First byte of the TCP header.
    pub transport: usize,
    /// First byte of the payload.
    pub payload: usize,
}

/// One or more datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where the first begins in the buffer.
    pub at: usize,
    /// How many there are.
    pub count: usize,
    /// Where the last ends.
    pub end: usize,
    /// Their headers; known and needed when there is more than one.
    pub shape: Option<Shape>,
    /// The last has PSH.
    pub push: bool,
}

impl Run {
    /// The longest run of datagrams of `stride` bytes that begins at `at` in `buffer`.
    pub fn find(buffer: &[u8], at: usize, stride: usize) -> Self {
        let datagram = |at: usize| &buffer[at..buffer.len().min(at + stride)];
        let first = datagram(at);
        let mut run = Self { at, count: 1, end: at + first.len(), shape: None, push: false };
        let Some(shape) = Shape::read(first) else { return run };
        let segment = first.len() - shape.payload;
        let (mut sequence, mut total) = (shape.sequence(first), segment);
        let mut last = first;
        while run.end < buffer.len() {
            let next = datagram(run.end);
            sequence = sequence.wrapping_add((last.len() - shape.payload) as u32);
            // Only the last may be pushed or short.
            let open = last[shape.transport + 13] & PSH == 0 && last.len() == first.len();
            if !open || !shape.continues(first, next, sequence, run.count as u16) {
                break;
            }
            // Asked only now: most buffers without a second segment never pay for it.
            if run.count == 1 && !shape.verifies(first) {
                break;
            }
            total += next.len() - shape.payload;
            if shape.payload - NETWORK + total > MAX_IP || !shape.verifies(next) {
                break;
            }
            run.count += 1;
            run.end += next.len();
            last = next;
        }
        if run.count > 1 {
            run.shape = Some(shape);
            run.push = last[shape.transport + 13] & PSH != 0;
        }
        run
    }

    /// Where the payload of each datagram but the first stands in the buffer.
    pub fn payloads(&self, shape: Shape, stride: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        let (at, end) = (self.at, self.end);
        (1..self.count).map(move |i| {
            let from = at + i * stride;
            from + shape.payload..end.min(from + stride)
        })
    }
}

impl Shape {
    /// The shape of a datagram that may begin a run.
    fn read(datagram: &[u8]) -> Option<Self> {
        let packet = datagram.get(NETWORK..)?;
        let (v6, ip_len, packet_len) = match datagram[VXLAN + 12..NETWORK] {
            [0x08, 0x00] => {
                let ip: &[u8; 20] = packet.first_chunk()?;
                // No options, no fragment (offset or more to come), TCP.
                if ip[0] != 0x45 || ip[9] != TCP || ip[6] & 0x3f != 0 || ip[7] != 0 {
                    return None;
                }
                (false, 20, usize::from(u16::from_be_bytes([ip[2], ip[3]])))
            }
            [0x86, 0xdd] => {
                let ip: &[u8; 40] = packet.first_chunk()?;
                if ip[0] >> 4 != 6 || ip[6] != TCP {
                    return None;
                }
                (true, 40, 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]])))
            }
            _ => return None,
        };
        let tcp = packet.get(ip_len..)?.first_chunk::<20>()?;
        let tcp_len = usize::from(tcp[12] >> 4) * 4;
        let shape = Self { v6, transport: NETWORK + ip_len, payload: NETWORK + ip_len + tcp_len };
        // Padding behind the packet would end up amid the payload.
        let whole = packet_len == packet.len() && tcp_len >= 20 && datagram.len() > shape.payload;
        (whole && tcp[13] & !PSH == ACK).then_some(shape)
    }

    fn sequence(self, datagram: &[u8]) -> u32 {
        let at = self.transport + 4;
        u32::from_be_bytes([datagram[at], datagram[at + 1], datagram[at + 2], datagram[at + 3]])
    }

    /// Is `next` the segment with `sequence` in the run that `first` began, after `index` others?
    fn continues(self, first: &[u8], next: &[u8], sequence: u32, index: u16) -> bool {
        if next.len() > first.len() || Self::read(next) != Some(self) {
            return false;
        }
        let same = |from: usize, to: usize| first[from..to] == next[from..to];
        let ip_same = if self.v6 {
            same(NETWORK, NETWORK + 4) && same(NETWORK + 6, NETWORK + 40)
        } else {
            let id = |datagram: &[u8]| u16::from_be_bytes([datagram[NETWORK + 4], datagram[NETWORK + 5]]);
            same(NETWORK, NETWORK + 2)
                && same(NETWORK + 6, NETWORK + 10)
                && same(NETWORK + 12, NETWORK + 20)
                // With DF the identification means nothing (RFC 6864 §4.1).
                && (first[NETWORK + 6] & DONT_FRAGMENT != 0 || id(next) == id(first).wrapping_add(index))
        };
        let tcp = self.transport;
        ip_same
            && same(0, NETWORK)
            && same(tcp, tcp + 4)
            && self.sequence(next) == sequence
            && same(tcp + 8, tcp + 13)
            && same(tcp + 14, tcp + 16)
            && same(tcp + 18, self.payload)
    }

    /// Are the inner checksums of `datagram` right?
    fn verifies(self, datagram: &[u8]) -> bool {
        let ip = &datagram[NETWORK..self.transport];
        if !self.v6 && checksum::fold(checksum::sum(ip, 0)) != 0xffff {
            return false;
        }
        let pseudo = self.pseudo(ip, datagram.len());
        let field = self.transport + TCP_CHECKSUM;
        // Right, or left unfinished by a sender on this machine (see `inner`).
        checksum::fold(crate::checksum::sum(&datagram[self.transport..], pseudo)) == 0xffff
            || datagram[field..field + 2] == checksum::fold(pseudo).to_be_bytes()
    }

    /// Sum of the pseudo-header of a TCP segment that ends `end` bytes behind the VXLAN header's begin.
    pub fn pseudo(self, ip: &[u8], end: usize) -> u64 {
        let addresses = if self.v6 { &ip[8..40] } else { &ip[12..20] };
        checksum::sum(addresses, u64::from(TCP) + (end - self.transport) as u64)
    }
}
