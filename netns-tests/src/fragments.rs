//! IPv4 fragments cut by hand, also in ways in which no host would cut them (RFC 791 section 3.2).

use crate::frames;
use std::ops::Range;

/// Where the payload begins in an untagged frame without IP options.
const PAYLOAD: usize = 14 + 20;

/// Bytes of IP payload in `frame`.
pub fn payload_len(frame: &[u8]) -> usize {
    frame.len() - PAYLOAD
}

/// The fragment of `frame`'s packet that carries the bytes `range` of its payload; `id` is the packet's identification.
///
/// # Panics
/// When a piece does not begin, or one that is not the last does not end, at a multiple of eight bytes.
pub fn piece(frame: &[u8], id: u16, range: Range<usize>) -> Vec<u8> {
    let more = range.end < payload_len(frame);
    assert!(range.start.is_multiple_of(8) && (!more || range.end.is_multiple_of(8)), "{range:?}");
    let mut piece = frame[..PAYLOAD].to_vec();
    piece.extend_from_slice(&frame[PAYLOAD..][range.clone()]);
    let length = (20 + range.len()) as u16;
    let word = (range.start / 8) as u16 | if more { 0x2000 } else { 0 };
    piece[16..18].copy_from_slice(&length.to_be_bytes());
    piece[18..20].copy_from_slice(&id.to_be_bytes());
    piece[20..22].copy_from_slice(&word.to_be_bytes());
    frames::with_header_checksum(piece)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Link;
    use etherparse::Ipv4Header;
    use std::net::IpAddr;

    #[test]
    fn the_pieces_make_up_the_packet() {
        let link = Link { from: [2, 0, 0, 0, 0, 1], to: [2, 0, 0, 0, 0, 2] };
        let ends = ((IpAddr::from([10, 0, 0, 1]), 1), (IpAddr::from([10, 0, 0, 2]), 2));
        let frame = frames::udp(link, ends.0, ends.1, 64, &[7; 93]);
        let (first, last) = (piece(&frame, 9, 0..48), piece(&frame, 9, 48..payload_len(&frame)));
        let (a, payload_a) = Ipv4Header::from_slice(&first[14..]).unwrap();
        let (b, payload_b) = Ipv4Header::from_slice(&last[14..]).unwrap();
        assert_eq!((a.more_fragments, a.fragment_offset.value(), a.identification), (true, 0, 9));
        assert_eq!((b.more_fragments, b.fragment_offset.value(), b.identification), (false, 6, 9));
        assert_eq!(a.header_checksum, a.calc_header_checksum());
        assert_eq!([payload_a, payload_b].concat(), frame[34..]);
    }
}
