//! ICMP errors and fragments, written from nothing.

use std::net::IpAddr;

use super::parse::{Ip, Piece, with_checksum, word};
use crate::testing::verify::{checksum, pseudo_header};

/// What the sender is told.
#[derive(Clone, Copy, Debug)]
pub enum Error {
    TimeExceeded,
    TooBig(u16),
}

/// The IP packet that tells the sender of `frame`, no longer than `mtu` allows; `None` where the RFCs forbid it (RFC 1122
/// §3.2.2, RFC 4443 §2.4).
pub fn error(frame: &[u8], ip: &Ip, error: Error, ours: IpAddr, mtu: u16) -> Option<Vec<u8>> {
    let to_group = frame[0] & 1 == 1;
    let packet = &frame[14..];
    // A fragment that is not the first has no header to look at.
    if ip.piece == Piece::Later {
        return None;
    }
    let message = packet.get(ip.header_len);
    match (ip.source, ip.destination) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let first = source.octets()[0];
            let one_host = first != 0 && first < 224 && !source.is_loopback();
            let query = matches!(message, Some(0 | 8 | 9 | 10 | 13..=18 | 42 | 43));
            if to_group || target.is_multicast() || target.is_broadcast() || !one_host {
                return None;
            }
            if ip.protocol == 1 && !query {
                return None;
            }
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let many = to_group || target.is_multicast();
            let nobody = source.is_unspecified() || source.is_loopback() || source.is_multicast();
            let query = matches!(message, Some(128..=136 | 138..));
            if many && !matches!(error, Error::TooBig(_)) || nobody || ip.protocol == 58 && !query {
                return None;
            }
        }
        _ => return None,
    }
    let mut icmp = match (error, ip.v6) {
        (Error::TimeExceeded, false) => vec![11, 0, 0, 0, 0, 0, 0, 0],
        (Error::TimeExceeded, true) => vec![3, 0, 0, 0, 0, 0, 0, 0],
        (Error::TooBig(mtu), v6) => {
            let [high, low] = mtu.to_be_bytes();
            let kind = if v6 { [2, 0] } else { [3, 4] };
            vec![kind[0], kind[1], 0, 0, 0, 0, high, low]
        }
    };
    let (most, headers) = if ip.v6 { (1280, 48) } else { (576, 28) };
    let most = most.min(usize::from(mtu)).saturating_sub(headers);
    icmp.extend(&packet[..ip.len.min(most)]);
    let pseudo = if ip.v6 { pseudo_header(ours, ip.source, 58, icmp.len()) } else { Vec::new() };
    let sum = checksum(&[&pseudo[..], &icmp].concat());
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    match (ours, ip.source) {
        (IpAddr::V4(ours), IpAddr::V4(to)) => {
            let total = (20 + icmp.len() as u16).to_be_bytes();
            let fixed = [0x45, 0xc0, total[0], total[1], 0, 0, 0x40, 0, 64, 1, 0, 0];
            Some(with_checksum([&fixed[..], &ours.octets(), &to.octets(), &icmp].concat()))
        }
        (IpAddr::V6(ours), IpAddr::V6(to)) => {
            let len = (icmp.len() as u16).to_be_bytes();
            let fixed = [0x60, 0, 0, 0, len[0], len[1], 58, 64];
            Some([&fixed[..], &ours.octets(), &to.octets(), &icmp].concat())
        }
        _ => None,
    }
}

/// An IPv4 packet cut to pieces of at most `mtu` bytes (RFC 791 §3.2); `None` when it cannot be.
pub fn fragments(packet: &[u8], ip: &Ip, mtu: usize) -> Option<Vec<Vec<u8>>> {
    let (header, payload) = packet.split_at(ip.header_len);
    let offset = usize::from(word(header, 6) & 0x1fff);
    let more = word(header, 6) & 0x2000 != 0;
    if mtu < 68 || offset * 8 + payload.len() > 65_535 || more && !payload.len().is_multiple_of(8) {
        return None;
    }
    let later_header = [&header[..20], &copied(&header[20..])].concat();
    let mut pieces = Vec::new();
    let mut done = 0;
    while done < payload.len() {
        let mut piece = if done == 0 { header.to_vec() } else { later_header.clone() };
        let room = (mtu - piece.len()) / 8 * 8;
        let rest = payload.len() - done;
        // Whole units of eight bytes each, whatever would fit: only the last is as long as it comes.
        let len = rest.min(room);
        let last = len == rest;
        let word = (offset + done / 8) as u16 | if more || !last { 0x2000 } else { 0 };
        let total = (piece.len() + len) as u16;
        piece[0] = 0x40 | (piece.len() / 4) as u8;
        piece[2..4].copy_from_slice(&total.to_be_bytes());
        piece[6..8].copy_from_slice(&word.to_be_bytes());
        piece.extend(&payload[done..done + len]);
        pieces.push(with_checksum(piece));
        done += len;
    }
    Some(pieces)
}

/// The options whose copy flag is set, padded to whole words.
fn copied(options: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < options.len() && options[at] != 0 {
        let len = if options[at] == 1 { 1 } else { usize::from(options[at + 1]) };
        if options[at] & 0x80 != 0 {
            kept.extend(&options[at..at + len]);
        }
        at += len;
    }
    kept.resize(kept.len().next_multiple_of(4), 0);
    kept
}
