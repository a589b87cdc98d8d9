//! The packet that an ICMP error is about, as far as it is quoted (RFC 792, RFC 4443 §3).

use std::net::IpAddr;

use super::transport;
use super::{Fragment, Headers, Role, ipv4, ipv6};
use crate::net::{Direction, FlowKey};

/// A quoted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Its connection.
    pub key: FlowKey,
    /// Which way it went.
    pub direction: Direction,
    /// Was it a piece of a datagram? The key of a later piece has no ports.
    pub fragment: Fragment,
}

impl Quote {
    /// Reads the IP packet at the start of `bytes`, which may end anywhere behind its ports. Options are skipped, the header checksum is not looked at: routers change what they quote.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::v4(bytes),
            6 => Self::v6(bytes),
            _ => None,
        }
    }

    /// Who sent it.
    pub fn source(&self) -> IpAddr {
        self.key.ends(self.direction).0.0
    }

    /// The flow whose hash gives the outer source port of such a packet, see [`vxlan::source_port`].
    ///
    /// [`vxlan::source_port`]: crate::wire::vxlan::source_port
    pub fn outer_key(&self) -> FlowKey {
        self.fragment.shared_key(self.key)
    }

    fn v4(bytes: &[u8]) -> Option<Self> {
        let ip: &[u8; 20] = bytes.first_chunk()?;
        let header_len = usize::from(ip[0] & 0x0f) * 4;
        if header_len < 20 {
            return None;
        }
        let fragment = ipv4::piece(u16::from_be_bytes([ip[6], ip[7]]));
        let found = transport::parse_quoted(bytes.get(header_len..)?, ip[9], fragment)?;
        let source = u32::from_be_bytes(*ip[12..16].first_chunk()?);
        let destination = u32::from_be_bytes(*ip[16..20].first_chunk()?);
        let ports = (found.source_port, found.destination_port);
        let nameless = fragment == Fragment::Later && transport::is_read(ip[9]);
        let (key, direction) = FlowKey::v4(source, destination, ports, ip[9], nameless);
        Some(Self { key: found.complete(key, direction), direction, fragment })
    }

    fn v6(bytes: &[u8]) -> Option<Self> {
        let ip: &[u8; 40] = bytes.first_chunk()?;
        let chain = ipv6::walk(bytes, 0, ip[6]).ok()?;
        let fragment = chain.fragment;
        let found = transport::parse_quoted(bytes.get(chain.transport..)?, chain.protocol, fragment)?;
        let source = u128::from_be_bytes(*ip[8..24].first_chunk()?);
        let destination = u128::from_be_bytes(*ip[24..40].first_chunk()?);
        let ports = (found.source_port, found.destination_port);
        let nameless = fragment == Fragment::Later && ipv6::is_nameless(chain.protocol);
        let (key, direction) = FlowKey::v6(source, destination, ports, chain.protocol, nameless);
        Some(Self { key: found.complete(key, direction), direction, fragment })
    }
}

/// The packet that the ICMP error in `frame` is about. An error in pieces says nothing, nor does one about a later piece:
/// only the first says whose a datagram is.
pub(super) fn of_error(frame: &[u8], headers: &Headers) -> Option<Quote> {
    if headers.role != Role::Error || headers.fragment != Fragment::Whole {
        return None;
    }
    // Type, code, checksum, and four bytes that depend on the type.
    let quote = Quote::read(frame.get(usize::from(headers.transport) + 8..)?)?;
    (quote.key.is_v6() == headers.is_v6() && !quote.key.is_fragment()).then_some(quote)
}
