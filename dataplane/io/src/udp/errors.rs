//! ICMP errors about what our sockets sent: "too big" becomes the frame that the wire carried, so that the core has one
//! way to judge it; everything else is forgotten.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use canal_dataplane::checksum;
use canal_dataplane::limits::ETHERNET;
use canal_dataplane::net::HashSeed;
use canal_dataplane::path_mtu::quoted_source_port;

use super::message::{SocketError, take_error};
use super::run::NETWORK;

/// Bytes of a quote worth reading: RFC 1812 §4.3.2.3 lets routers quote 576, RFC 4443 §2.4 1,280.
const QUOTE: usize = 1280;
/// ICMP type and code of "fragmentation needed" and of "packet too big".
const TOO_BIG_V4: (u8, u8) = (3, 4);
const TOO_BIG_V6: (u8, u8) = (2, 0);

/// Empties the error queue of `socket`, which sends from `local`; appends what the core should see to `into`, unless
/// `max` are there already.
#[cold]
pub fn drain(
    socket: BorrowedFd<'_>,
    local: IpAddr,
    seed: Option<HashSeed>,
    max: usize,
    into: &mut Vec<Vec<u8>>,
) {
    let mut quote = [0; QUOTE];
    while let Some(error) = take_error(socket, &mut quote) {
        if into.len() < max
            && let Some(seed) = seed
            && let Some(frame) = frame(&error, local, &quote[..error.len.min(QUOTE)], seed)
        {
            into.push(frame);
        }
    }
}

/// The message as a router would have sent it. The kernel has found the socket by the source port on the wire; the core
/// knows the flow by another, which the quoted inner packet tells.
fn frame(error: &SocketError, local: IpAddr, payload: &[u8], seed: HashSeed) -> Option<Vec<u8>> {
    let source_port = quoted_source_port(payload.get(NETWORK..)?, seed)?;
    let mut udp = source_port.to_be_bytes().to_vec();
    udp.extend(error.to.port().to_be_bytes());
    udp.extend(((8 + payload.len()) as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    match (error.icmp?, error.offender, local, error.to) {
        (TOO_BIG_V4, IpAddr::V4(offender), IpAddr::V4(local), SocketAddr::V4(to)) => {
            let quoted = v4(17, local.octets(), to.ip().octets(), &udp);
            let mut icmp = vec![3, 4, 0, 0, 0, 0];
            icmp.extend(u16::try_from(error.info).unwrap_or(u16::MAX).to_be_bytes());
            icmp.extend(quoted);
            let sum = checksum::finish(checksum::sum(&icmp, 0));
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            Some(ethernet([0x08, 0x00], v4(1, offender.octets(), local.octets(), &icmp)))
        }
        (TOO_BIG_V6, IpAddr::V6(offender), IpAddr::V6(local), SocketAddr::V6(to)) => {
            let quoted = v6(17, local.octets(), to.ip().octets(), &udp);
            let mut icmp = vec![2, 0, 0, 0];
            icmp.extend(error.info.to_be_bytes());
            icmp.extend(quoted);
            let pseudo = checksum::pseudo_v6(offender.octets(), local.octets(), 58, icmp.len() as u32);
            let sum = checksum::finish(checksum::sum(&icmp, pseudo));
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            Some(ethernet([0x86, 0xdd], v6(58, offender.octets(), local.octets(), &icmp)))
        }
        _ => None,
    }
}

fn ethernet(ether_type: [u8; 2], packet: Vec<u8>) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET - 2];
    frame.extend(ether_type);
    frame.extend(packet);
    frame
}

fn v4(protocol: u8, source: [u8; 4], target: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(((20 + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(source);
    packet.extend(target);
    let sum = checksum::finish(checksum::sum(&packet, 0));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn v6(protocol: u8, source: [u8; 16], target: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([protocol, 64]);
    packet.extend(source);
    packet.extend(target);
    packet.extend(payload);
    packet
}
