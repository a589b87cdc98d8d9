//! The IPv6 header and its extension chain (RFC 8200).

use super::transport;
use super::{Fragment, Headers};
use crate::limits::{ETHERNET, MAX_EXTENSION_HEADERS};
use crate::net::FlowKey;
use crate::verdict::DropReason;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

const BAD: DropReason = DropReason::MalformedIpv6;

/// Reads the packet behind the Ethernet header into `headers`; returns where it ends in the frame.
#[inline(always)]
pub(super) fn parse(frame: &[u8], super_frame: bool, headers: &mut Headers) -> Result<usize, DropReason> {
    let Some(ip) = frame.get(ETHERNET..).and_then(|rest| rest.first_chunk::<40>()) else { return Err(BAD) };
    let payload = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    let end = ETHERNET + 40 + payload;
    if ip[0] >> 4 != 6 || end > frame.len() {
        return Err(BAD);
    }
    let chain = match ip[6] {
        transport::TCP | transport::UDP | transport::ICMPV6 => {
            Chain { protocol: ip[6], transport: ETHERNET + 40, fragment: Fragment::Whole, datagram: 0 }
        }
        next => walk(&frame[..end], ETHERNET, next)?,
    };
    let found = transport::parse(&frame[chain.transport..end], chain.protocol, chain.fragment, super_frame)?;
    let source = u128::from_be_bytes(*ip[8..24].first_chunk().ok_or(BAD)?);
    let destination = u128::from_be_bytes(*ip[24..40].first_chunk().ok_or(BAD)?);
    let ports = (found.source_port, found.destination_port);
    let nameless = chain.fragment == Fragment::Later && is_nameless(chain.protocol);
    let (key, direction) = FlowKey::v6(source, destination, ports, chain.protocol, nameless);
    *headers = Headers {
        key: found.complete(key, direction),
        direction,
        transport: chain.transport as u16,
        ip_len: (40 + payload) as u32,
        tos: ip[0] << 4 | ip[1] >> 4,
        ttl: ip[7],
        fragment: chain.fragment,
        datagram: chain.datagram,
        dont_fragment: true,
        detail: found.detail,
        code: found.code,
        role: found.role,
        destination_port: found.destination_port,
    };
    Ok(end)
}

pub(super) struct Chain {
    pub protocol: u8,
    pub transport: usize,
    pub fragment: Fragment,
    pub datagram: u32,
}

/// Does a piece after the first lack what its connection is known by? Behind an extension header in the pieced part
/// nothing says what the transport is.
pub(super) fn is_nameless(next: u8) -> bool {
    let extension = matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS);
    extension || transport::is_read(next)
}

/// Walks the extension headers from the IPv6 header at `start` to the transport.
pub(super) fn walk(packet: &[u8], start: usize, mut next: u8) -> Result<Chain, DropReason> {
    let mut at = start + 40;
    let (mut fragment, mut datagram) = (Fragment::Whole, 0);
    for count in 0..=MAX_EXTENSION_HEADERS {
        let header_len = match next {
            // RFC 8200 §4.3: hop-by-hop options come first or not at all.
            HOP_BY_HOP if count > 0 => return Err(BAD),
            HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING => {
                let [_, len, kind, left] = *head(packet, at)?;
                // RFC 5095: type 0 routing headers are to be treated as unrecognised; with segments left, dropped.
                if next == ROUTING && kind == 0 && left > 0 {
                    return Err(DropReason::SourceRouted);
                }
                (usize::from(len) + 1) * 8
            }
            AUTHENTICATION => (usize::from(head(packet, at)?[1]) + 2) * 4,
            FRAGMENT => {
                let [_, _, high, low] = *head(packet, at)?;
                if fragment != Fragment::Whole {
                    return Err(BAD);
                }
                let word = u16::from_be_bytes([high, low]);
                fragment = match (word & 0xfff8, word & 1) {
                    // RFC 6946: an atomic fragment is a whole datagram.
                    (0, 0) => Fragment::Whole,
                    (0, _) => Fragment::First,
                    _ => Fragment::Later,
                };
                if fragment != Fragment::Whole {
                    let id = packet.get(at + 4..).and_then(|rest| rest.first_chunk()).ok_or(BAD)?;
                    datagram = u32::from_be_bytes(*id);
                }
                8
            }
            protocol => return Ok(Chain { protocol, transport: at, fragment, datagram }),
        };
        next = head(packet, at)?[0];
        at += header_len;
        if at > packet.len() {
            return Err(BAD);
        }
        if fragment == Fragment::Later {
            // What follows is the middle of something; the next-header value names the first header of the original.
            return Ok(Chain { protocol: next, transport: at, fragment, datagram });
        }
    }
    Err(BAD)
}

fn head(packet: &[u8], at: usize) -> Result<&[u8; 4], DropReason> {
    packet.get(at..).and_then(|rest| rest.first_chunk()).ok_or(BAD)
}
