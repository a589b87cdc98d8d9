//! Is a packet fit for a wire? Lengths and checksums recomputed the slow way, without any code of the dataplane's.

use std::net::IpAddr;

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Headers are cut short, or of no version of IP.
    #[error("headers are cut short")]
    Truncated,
    /// An IP or UDP length is not that of the frame.
    #[error("a length is not that of the frame")]
    Length,
    /// IPv4 header checksum.
    #[error("the IPv4 header checksum is wrong")]
    HeaderChecksum,
    /// TCP, UDP or ICMP checksum, or a missing one where it is not optional.
    #[error("the transport checksum is wrong")]
    TransportChecksum,
}

/// The checksum of RFC 1071 §1, word by word.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    !(sum as u16)
}

/// The pseudo-header of a transport of `len` bytes.
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(a) => bytes.extend(a.octets()),
            IpAddr::V6(a) => bytes.extend(a.octets()),
        }
    }
    bytes.extend((len as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// Checks the IP packet behind an Ethernet header: its length is the frame's, and all checksums are right. A fragment's
/// transport is not looked at; a UDP checksum of zero is right over IPv4. No IPv6 extension headers.
///
/// # Errors
/// The first thing that is [`Wrong`].
pub fn finished(frame: &[u8]) -> Result<(), Wrong> {
    let ip = frame.get(14..).ok_or(Wrong::Truncated)?;
    let word = |at: usize| usize::from(ip[at]) << 8 | usize::from(ip[at + 1]);
    let (source, destination, protocol, header_len): (IpAddr, IpAddr, u8, usize) = match ip.first() {
        Some(first) if first >> 4 == 4 && ip.len() >= 20 => {
            let header_len = usize::from(first & 15) * 4;
            if word(2) != ip.len() {
                return Err(Wrong::Length);
            }
            if checksum(ip.get(..header_len).ok_or(Wrong::Truncated)?) != 0 {
                return Err(Wrong::HeaderChecksum);
            }
            if word(6) & 0x3fff != 0 {
                return Ok(());
            }
            let address = |at: usize| IpAddr::from([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
            (address(12), address(16), ip[9], header_len)
        }
        Some(first) if first >> 4 == 6 && ip.len() >= 40 => {
            if word(4) + 40 != ip.len() {
                return Err(Wrong::Length);
            }
            let address = |at: usize| IpAddr::from(std::array::from_fn::<u8, 16, _>(|i| ip[at + i]));
            (address(8), address(24), ip[6], 40)
        }
        _ => return Err(Wrong::Truncated),
    };
    let transport = &ip[header_len..];
    if protocol == 17 {
        let udp = transport.first_chunk::<8>().ok_or(Wrong::Truncated)?;
        if usize::from(udp[4]) << 8 | usize::from(udp[5]) != transport.len() {
            return Err(Wrong::Length);
        }
        if udp[6..] == [0, 0] {
            return if source.is_ipv4() { Ok(()) } else { Err(Wrong::TransportChecksum) };
        }
    }
    let pseudo = match protocol {
        6 | 17 | 58 => pseudo_header(source, destination, protocol, transport.len()),
        1 => Vec::new(),
        _ => return Ok(()),
    };
    match checksum(&[&pseudo[..], transport].concat()) {
        0 => Ok(()),
        _ => Err(Wrong::TransportChecksum),
    }
}
