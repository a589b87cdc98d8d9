//! The IPv4 header (RFC 791).

use super::transport;
use super::{Fragment, Headers, Role};
use crate::limits::ETHERNET;
use crate::net::FlowKey;
use crate::verdict::DropReason;

/// Options that name the way a packet shall take (RFC 791 §3.1, RFC 7126: drop).
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// Ethernet, IPv4 without options, and the first eight bytes of the transport.
const PLAIN: usize = ETHERNET + 20 + 8;

/// EtherType, version and header length of such a packet.
const PLAIN_TYPE: u64 = 0x08_0045;

/// Reads a packet of the shape that nearly every one has: well-formed, TCP or UDP, whole, no options. `None`: it has
/// another, and [`parse`] reads it or says what is wrong with it. What both read they read alike.
#[inline(always)]
pub(super) fn parse_plain(frame: &[u8], headers: &mut Headers) -> Option<usize> {
    let head: &[u8; PLAIN] = frame.first_chunk()?;
    // All there is to know is in four words: EtherType, version, TOS, length, identification | flags and offset, TTL,
    // protocol, checksum, source | source, destination, source port | destination port, UDP length.
    let word = |at: usize| -> u64 { u64::from_be_bytes(std::array::from_fn(|i| head[at + i])) };
    let (a, b, c) = (word(12), word(20), word(28));
    let (total_len, pieces) = ((a >> 16) as u16, (b >> 48) as u16);
    let end = ETHERNET + usize::from(total_len);
    if a >> 40 != PLAIN_TYPE
        || end > frame.len()
        || pieces & 0x3fff != 0
        || !sums_up(a << 16 >> 16, b, c >> 16)
    {
        return None;
    }
    let protocol = (b >> 32) as u8;
    (headers.detail, headers.role) = (0, Role::Plain);
    if protocol == transport::UDP {
        let len = usize::from(u16::from_be_bytes([head[38], head[39]]));
        if len < 8 || ETHERNET + 20 + len > end {
            return None;
        }
    } else if protocol == transport::TCP {
        let tcp: &[u8; 20] = frame[..end].get(ETHERNET + 20..)?.first_chunk()?;
        let header_len = usize::from(tcp[12] >> 4) * 4;
        if header_len < 20 || ETHERNET + 20 + header_len > end {
            return None;
        }
        (headers.detail, headers.role) = (tcp[13], transport::tcp_role(tcp[13]));
    } else {
        return None;
    }
    let ports = (c as u16, u16::from_be_bytes([head[36], head[37]]));
    let (source, destination) = ((b << 16 | c >> 48) as u32, (c >> 16) as u32);
    (headers.key, headers.direction) = FlowKey::v4(source, destination, ports, protocol, false);
    headers.transport = (ETHERNET + 20) as u16;
    headers.ip_len = u32::from(total_len);
    headers.tos = (a >> 32) as u8;
    headers.ttl = (b >> 40) as u8;
    headers.fragment = Fragment::Whole;
    headers.datagram = 0;
    headers.dont_fragment = pieces & 0x4000 != 0;
    headers.code = 0;
    headers.destination_port = ports.1;
    Some(end)
}

/// Do the 16-bit words of these numbers sum to all ones, as those of a correct header do (RFC 1071)?
#[inline(always)]
fn sums_up(a: u64, b: u64, c: u64) -> bool {
    let (sum, carry) = b.overflowing_add(a + c);
    // Below 2⁶⁴ with its carry added, since `a` and `c` have 48 bits.
    let sum = sum + u64::from(carry);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) as u32 + sum as u32;
    // Turned round and added, the high half is the sum of both halves and their carry.
    sum.wrapping_add(sum.rotate_left(16)) >> 16 == 0xffff
}

/// Reads the packet behind the Ethernet header into `headers`; returns where it ends in the frame.
#[inline(always)]
pub(super) fn parse(frame: &[u8], super_frame: bool, headers: &mut Headers) -> Result<usize, DropReason> {
    const BAD: DropReason = DropReason::MalformedIpv4;
    let Some(ip) = frame.get(ETHERNET..).and_then(|rest| rest.first_chunk::<20>()) else { return Err(BAD) };
    let header_len = usize::from(ip[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let end = ETHERNET + total_len;
    if ip[0] >> 4 != 4 || header_len < 20 || total_len < header_len || end > frame.len() {
        return Err(BAD);
    }
    let mut sum = sum_words(ip);
    if header_len > 20 {
        let options = &frame[ETHERNET + 20..ETHERNET + header_len];
        sum += sum_words(options);
        check_options(options)?;
    }
    // Folded twice, a correct header sums to all ones (RFC 1071).
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    if (sum >> 16) + (sum & 0xffff) != 0xffff {
        return Err(BAD);
    }
    let pieces = u16::from_be_bytes([ip[6], ip[7]]);
    let fragment = piece(pieces);
    let protocol = ip[9];
    // RFC 1858 §3.3: a second fragment that would overwrite TCP flags.
    if pieces & 0x1fff == 1 && protocol == transport::TCP {
        return Err(DropReason::TinyFragment);
    }
    let transport = ETHERNET + header_len;
    let found = transport::parse(&frame[transport..end], protocol, fragment, super_frame)?;
    let source = u32::from_be_bytes([ip[12], ip[13], ip[14], ip[15]]);
    let destination = u32::from_be_bytes([ip[16], ip[17], ip[18], ip[19]]);
    let ports = (found.source_port, found.destination_port);
    let nameless = fragment == Fragment::Later && transport::is_read(protocol);
    let (key, direction) = FlowKey::v4(source, destination, ports, protocol, nameless);
    *headers = Headers {
        key: found.complete(key, direction),
        direction,
        transport: transport as u16,
        ip_len: total_len as u32,
        tos: ip[1],
        ttl: ip[8],
        fragment,
        datagram: if fragment == Fragment::Whole { 0 } else { u32::from(u16::from_be_bytes([ip[4], ip[5]])) },
        dont_fragment: pieces & 0x4000 != 0,
        detail: found.detail,
        code: found.code,
        role: found.role,
        destination_port: found.destination_port,
    };
    Ok(end)
}

/// What the word of flags and fragment offset makes of a packet.
#[inline(always)]
pub(super) fn piece(word: u16) -> Fragment {
    match (word & 0x1fff, word & 0x2000 != 0) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// Sum of 32-bit words in the order of this machine: whether it folds to all ones does not depend on the order (RFC 1071 §2B).
#[inline(always)]
fn sum_words(bytes: &[u8]) -> u64 {
    bytes
        .chunks_exact(4)
        .map(|word| u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]])))
        .sum()
}

/// Walks the options; a source route or a list that overruns its room is refused.
fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    while let Some((&kind, rest)) = options.split_first() {
        match kind {
            0 => return Ok(()),
            1 => options = rest,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(DropReason::SourceRouted),
            _ => {
                let len = usize::from(*rest.first().ok_or(DropReason::MalformedIpv4)?);
                options = options.get(len..).filter(|_| len >= 2).ok_or(DropReason::MalformedIpv4)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::packets;
    use crate::testing::verify::checksum;
    use proptest::prelude::*;
    use std::net::IpAddr;

    /// A packet that is nearly always of the plain shape, with a few bytes changed and perhaps a right checksum again.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let ends = (any::<[u8; 4]>(), any::<u16>(), any::<[u8; 4]>(), any::<u16>());
        let change = prop::collection::vec((12usize..56, any::<u8>()), 0..3);
        let shape = (any::<bool>(), any::<u8>(), 0usize..40, 0usize..8);
        (ends, change, shape, any::<bool>()).prop_map(|((a, p, b, q), changes, shape, mend)| {
            let (tcp, flags, len, padding) = shape;
            let ends = ((IpAddr::from(a), p), (IpAddr::from(b), q));
            let packet = match tcp {
                true => packets::tcp(ends.0, ends.1, flags, len),
                false => packets::udp(ends.0, ends.1, len),
            };
            let mut bytes = packet.frame(crate::net::Mac::ZERO, crate::net::Mac::ZERO);
            bytes.resize(bytes.len() + padding, 0);
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            if mend {
                bytes[24..26].fill(0);
                let sum = checksum(&bytes[14..34]);
                bytes[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]
        #[test]
        fn the_short_way_and_the_long_way_read_alike(frame in frame(), super_frame: bool) {
            let (mut short, mut long) = (Headers::NONE, Headers::NONE);
            if let Some(end) = parse_plain(&frame, &mut short) {
                prop_assert_eq!(&frame[12..14], &[8, 0]);
                prop_assert_eq!(parse(&frame, super_frame, &mut long), Ok(end));
                prop_assert_eq!(short, long);
            } else if frame[12..15] == [8, 0, 0x45] && matches!(frame[23], transport::TCP | transport::UDP) {
                // Only pieces and what is wrong go the long way.
                let read = parse(&frame, false, &mut long);
                prop_assert!(read.is_err() || long.fragment != Fragment::Whole, "{:?}", long);
            }
        }

        #[test]
        fn sums_are_those_of_rfc_1071(header: [u8; 20], finish: bool) {
            let mut header = header;
            if finish {
                header[10..12].fill(0);
                let sum = checksum(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            let word = |at: usize, len: usize| header[at..at + len].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            prop_assert_eq!(sums_up(word(0, 6), word(6, 8), word(14, 6)), checksum(&header) == 0);
        }
    }
}
