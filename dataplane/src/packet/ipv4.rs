//! The IPv4 header (RFC 791).

use super::transport;
use super::{Fragment, Headers};
use crate::limits::ETHERNET;
use crate::net::FlowKey;
use crate::verdict::DropReason;

/// Options that name the way a packet shall take (RFC 791 §3.1, RFC 7126: drop).
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

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
    let offset = pieces & 0x1fff;
    let fragment = match (offset, pieces & 0x2000 != 0) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    };
    let protocol = ip[9];
    // RFC 1858 §3.3: a second fragment that would overwrite TCP flags.
    if offset == 1 && protocol == transport::TCP {
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
