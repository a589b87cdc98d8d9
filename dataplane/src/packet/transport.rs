//! The transport header: ports, and the few fields that connections need.

use super::{Fragment, Role};
use crate::net::{Direction, FlowKey};
use crate::verdict::DropReason;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SCTP: u8 = 132;
pub(crate) const UDPLITE: u8 = 136;

/// TCP flags that have to do with opening and ending.
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const EVENTS: u8 = FIN | SYN | RST | ACK;

/// SCTP chunk types that mean nothing for the state of an association (RFC 9260 §3.2).
const SCTP_DATA: u8 = 0;
const SCTP_SACK: u8 = 3;
/// Chunks looked at: control chunks come first in a packet, and no real packet bundles many.
const MAX_CHUNKS: usize = 4;

/// Found in a transport header.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    pub source_port: u16,
    pub destination_port: u16,
    /// TCP flags, ICMP type, SCTP chunk.
    pub detail: u8,
    /// ICMP code.
    pub code: u8,
    pub role: Role,
    /// ICMP: type of the question, and whether this is its answer.
    question: Option<(u8, bool)>,
}

impl Found {
    /// The key of the connection, with what only ICMP adds to it.
    #[inline(always)]
    pub fn complete(&self, key: FlowKey, direction: Direction) -> FlowKey {
        match self.question {
            None => key,
            Some((kind, answer)) => {
                key.with_icmp(kind, self.code, if answer { direction.flip() } else { direction })
            }
        }
    }
}

/// Has a packet of this protocol anything in its first piece that its other pieces lack and a decision needs?
pub(super) fn is_read(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP | UDPLITE | ICMP | ICMPV6)
}

/// Reads the transport header at the start of `bytes` (which end with the IP packet). A header that is there in part
/// only is a reason to drop: matching on ports must never be skipped for want of them.
#[inline(always)]
pub(super) fn parse(
    bytes: &[u8],
    protocol: u8,
    fragment: Fragment,
    super_frame: bool,
) -> Result<Found, DropReason> {
    if fragment == Fragment::Later {
        return Ok(Found::default());
    }
    let bad =
        if fragment == Fragment::First { DropReason::TinyFragment } else { DropReason::MalformedTransport };
    match protocol {
        TCP => {
            let header: &[u8; 20] = bytes.first_chunk().ok_or(bad)?;
            let header_len = usize::from(header[12] >> 4) * 4;
            if header_len < 20 || header_len > bytes.len() {
                return Err(bad);
            }
            let flags = header[13];
            Ok(Found { detail: flags, role: tcp_role(flags), ..ports(header) })
        }
        UDP => {
            let header: &[u8; 8] = bytes.first_chunk().ok_or(bad)?;
            let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
            // A first fragment holds less than its length says; in a super-frame the field is the segmenter's.
            let fits = len >= 8 && (len <= bytes.len() || fragment == Fragment::First);
            if !fits && !super_frame {
                return Err(bad);
            }
            Ok(ports(header))
        }
        SCTP => {
            let header: &[u8; 16] = bytes.first_chunk().ok_or(bad)?;
            let detail = weightiest_chunk(&bytes[12..]);
            let role = if matches!(detail, SCTP_DATA | SCTP_SACK) { Role::Plain } else { Role::Event };
            Ok(Found { detail, role, ..ports(header) })
        }
        UDPLITE => {
            let header: &[u8; 8] = bytes.first_chunk().ok_or(bad)?;
            Ok(ports(header))
        }
        ICMP | ICMPV6 => {
            let header: &[u8; 8] = bytes.first_chunk().ok_or(bad)?;
            Ok(icmp(header, protocol == ICMPV6))
        }
        _ => Ok(Found::default()),
    }
}

/// As [`parse`], of a header of which only the first eight bytes are there: what an ICMP error quotes (RFC 792).
pub(super) fn parse_quoted(bytes: &[u8], protocol: u8, fragment: Fragment) -> Option<Found> {
    if fragment == Fragment::Later || !is_read(protocol) {
        return Some(Found::default());
    }
    let header: &[u8; 8] = bytes.first_chunk()?;
    Some(match protocol {
        ICMP | ICMPV6 => icmp(header, protocol == ICMPV6),
        _ => ports(header),
    })
}

/// What a TCP segment with these flags can mean for its connection.
#[inline(always)]
pub(super) fn tcp_role(flags: u8) -> Role {
    if flags & EVENTS == ACK { Role::Plain } else { Role::Event }
}

#[inline(always)]
fn ports<const N: usize>(header: &[u8; N]) -> Found {
    Found {
        source_port: u16::from_be_bytes([header[0], header[1]]),
        destination_port: u16::from_be_bytes([header[2], header[3]]),
        ..Found::default()
    }
}

/// ICMP's questions (echo, timestamp, information, address mask; echo and node information in version 6) can open a
/// connection, their answers belong to it, errors belong to another one, and nothing else crosses a router.
fn icmp(header: &[u8; 8], v6: bool) -> Found {
    let (kind, code) = (header[0], header[1]);
    let (question, answer, role) = match (v6, kind) {
        (false, 8 | 13 | 15 | 17) | (true, 128 | 139) => (kind, false, Role::Plain),
        (false, 0) => (8, true, Role::Plain),
        (false, 14 | 16 | 18) | (true, 129 | 140) => (kind - 1, true, Role::Plain),
        (false, 3 | 4 | 11 | 12) | (true, 1..=4) => (kind, false, Role::Error),
        _ => (kind, false, Role::Stray),
    };
    let echo = question == if v6 { 128 } else { 8 };
    let id = if echo { u16::from_be_bytes([header[4], header[5]]) } else { 0 };
    Found {
        source_port: id,
        destination_port: id,
        detail: kind,
        code,
        role,
        question: Some((question, answer)),
    }
}

/// The type of the first chunk that is not mere data or its acknowledgement, or of the first chunk.
fn weightiest_chunk(mut chunks: &[u8]) -> u8 {
    let first = chunks.first().copied().unwrap_or(0);
    for _ in 0..MAX_CHUNKS {
        let Some([kind, _, high, low]) = chunks.first_chunk() else { break };
        if !matches!(*kind, SCTP_DATA | SCTP_SACK) {
            return *kind;
        }
        // Chunks are padded to words; a length that does not hold its own header ends the walk.
        let len = usize::from(u16::from_be_bytes([*high, *low])).next_multiple_of(4);
        match chunks.get(len..) {
            Some(rest) if len >= 4 => chunks = rest,
            _ => break,
        }
    }
    first
}
