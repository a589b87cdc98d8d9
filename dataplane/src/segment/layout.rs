//! Where the headers of a super-frame are, checked once.

use super::{MAX_HEADERS, MAX_SEGMENTS, get16};
use crate::limits::{ETHERNET, MAX_EXTENSION_HEADERS, MAX_IP};
use crate::offload::{Checksum, GsoKind, Offload, Tunnel};

/// Why a frame is not the super-frame its offload describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// There is no segmentation to be done.
    #[error("not a super-frame")]
    NotSuper,
    /// The size of a segment is zero.
    #[error("segments of size zero")]
    ZeroSize,
    /// More than [`MAX_SEGMENTS`].
    #[error("too many segments")]
    TooMany,
    /// A header reaches beyond the frame.
    #[error("headers are cut short")]
    Truncated,
    /// The headers fill more than [`MAX_HEADERS`].
    #[error("headers are too long")]
    HeadersTooLong,
    /// Ethernet type, IP version, protocol or fragment field are not those of the kind.
    #[error("headers do not fit the kind of super-frame")]
    WrongHeaders,
    /// Tunnel or checksum offsets do not point where the headers are.
    #[error("offsets do not fit the headers")]
    WrongOffsets,
    /// The innermost IP length is not the frame's, or a segment would exceed what an IP packet can be.
    #[error("lengths do not fit the frame")]
    WrongLength,
}

/// Offset of the checksum in a TCP header.
pub(super) const TCP_CHECKSUM: usize = 16;
/// Offset of the checksum in a UDP header.
pub(super) const UDP_CHECKSUM: usize = 6;

/// A super-frame's header positions, from its first byte. `payload <= MAX_HEADERS`, and everything before it is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub tunnel: Option<Tunnel>,
    /// The innermost IP header is IPv6.
    pub v6: bool,
    /// The innermost transport is UDP.
    pub udp: bool,
    /// First byte of the innermost IP header.
    pub network: usize,
    /// First byte of the innermost transport header.
    pub transport: usize,
    /// First byte behind all headers.
    pub payload: usize,
    /// Payload bytes of a segment, at least 1.
    pub size: usize,
}

impl Layout {
    pub fn parse(frame: &[u8], offload: &Offload) -> Result<Self, SegmentError> {
        let gso = offload.gso.ok_or(SegmentError::NotSuper)?;
        if gso.size == 0 {
            return Err(SegmentError::ZeroSize);
        }
        if frame.len() < ETHERNET {
            return Err(SegmentError::Truncated);
        }
        let network = match offload.tunnel {
            None => ETHERNET,
            Some(tunnel) => {
                check_outer(frame, &tunnel)?;
                usize::from(tunnel.inner_network)
            }
        };
        let udp = gso.kind == GsoKind::Udp;
        let (v6, transport) = innermost(frame, network, if udp { 17 } else { 6 })?;
        match gso.kind {
            GsoKind::Tcp4 if v6 => return Err(SegmentError::WrongHeaders),
            GsoKind::Tcp6 if !v6 => return Err(SegmentError::WrongHeaders),
            _ => {}
        }
        let header = frame.get(transport..).ok_or(SegmentError::Truncated)?;
        let payload = transport + transport_len(header, udp)?;
        if payload > MAX_HEADERS {
            return Err(SegmentError::HeadersTooLong);
        }
        let field = if udp { UDP_CHECKSUM } else { TCP_CHECKSUM };
        if let Checksum::Partial { start, offset } = offload.checksum
            && (usize::from(start), usize::from(offset)) != (transport, field)
        {
            return Err(SegmentError::WrongOffsets);
        }
        let size = usize::from(gso.size);
        let layout = Self { tunnel: offload.tunnel, v6, udp, network, transport, payload, size };
        let payload_len = layout.payload_len(frame);
        if payload - ETHERNET + size.min(payload_len) > MAX_IP {
            return Err(SegmentError::WrongLength);
        }
        if payload_len.div_ceil(size) > MAX_SEGMENTS {
            return Err(SegmentError::TooMany);
        }
        Ok(layout)
    }

    /// Payload bytes of the super-frame.
    #[inline]
    pub fn payload_len(&self, frame: &[u8]) -> usize {
        frame.len() - self.payload
    }
}

/// The outer lengths are not looked at: with 50 bytes around an inner packet of 65,535 they could not be right.
fn check_outer(frame: &[u8], tunnel: &Tunnel) -> Result<(), SegmentError> {
    let udp = usize::from(tunnel.outer_transport);
    // At least a UDP header and an inner Ethernet header in between, as with every UDP tunnel of Ethernet.
    if usize::from(tunnel.inner_network) < udp + 8 + ETHERNET {
        return Err(SegmentError::WrongOffsets);
    }
    if usize::from(tunnel.inner_network) > frame.len() {
        return Err(SegmentError::Truncated);
    }
    if udp < ETHERNET + 20 {
        return Err(SegmentError::WrongOffsets);
    }
    let ip = &frame[ETHERNET..udp];
    let (version, header_len, protocol) = match ip[0] >> 4 {
        4 => (0x0800, usize::from(ip[0] & 0xf) * 4, ip[9]),
        6 => (0x86dd, 40, ip[6]),
        _ => return Err(SegmentError::WrongHeaders),
    };
    if protocol != 17 || get16(frame, 12) != version || tunnel.outer_v6 != (version == 0x86dd) {
        return Err(SegmentError::WrongHeaders);
    }
    if header_len != ip.len() {
        return Err(SegmentError::WrongOffsets);
    }
    Ok(())
}

/// The IP header at `network`: is it version 6, and where does the header of `protocol` behind it begin?
fn innermost(frame: &[u8], network: usize, protocol: u8) -> Result<(bool, usize), SegmentError> {
    let ether_type = get16(frame, network - 2);
    let packet = &frame[network..];
    match (ether_type, packet.first().ok_or(SegmentError::Truncated)? >> 4) {
        (0x0800, 4) => {
            let header = packet.first_chunk::<20>().ok_or(SegmentError::Truncated)?;
            let header_len = usize::from(header[0] & 0xf) * 4;
            // Neither "more fragments" nor an offset.
            if header_len < 20 || header[9] != protocol || get16(header, 6) & 0x3fff != 0 {
                return Err(SegmentError::WrongHeaders);
            }
            if usize::from(get16(header, 2)) != packet.len() {
                return Err(SegmentError::WrongLength);
            }
            Ok((false, network + header_len))
        }
        (0x86dd, 6) => {
            let header = packet.first_chunk::<40>().ok_or(SegmentError::Truncated)?;
            if usize::from(get16(header, 4)) + 40 != packet.len() {
                return Err(SegmentError::WrongLength);
            }
            Ok((true, network + skip_extensions(packet, header[6], protocol)?))
        }
        _ => Err(SegmentError::WrongHeaders),
    }
}

/// Length of an IPv6 header and the extension headers (hop-by-hop, routing, destination) before that of `protocol`.
fn skip_extensions(packet: &[u8], first: u8, protocol: u8) -> Result<usize, SegmentError> {
    let (mut next, mut at) = (first, 40);
    for _ in 0..=MAX_EXTENSION_HEADERS {
        if next == protocol {
            return Ok(at);
        }
        if !matches!(next, 0 | 43 | 60) {
            return Err(SegmentError::WrongHeaders);
        }
        let extension = packet.get(at..at + 2).ok_or(SegmentError::Truncated)?;
        next = extension[0];
        at += (usize::from(extension[1]) + 1) * 8;
    }
    Err(SegmentError::HeadersTooLong)
}

/// Length of the transport header at the front of `header`.
fn transport_len(header: &[u8], udp: bool) -> Result<usize, SegmentError> {
    let len = if udp {
        8
    } else {
        let offset = header.get(12).ok_or(SegmentError::Truncated)? >> 4;
        usize::from(offset) * 4
    };
    if !udp && len < 20 {
        return Err(SegmentError::WrongHeaders);
    }
    if len > header.len() {
        return Err(SegmentError::Truncated);
    }
    Ok(len)
}
