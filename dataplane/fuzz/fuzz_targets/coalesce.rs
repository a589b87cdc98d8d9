//! What is merged can be segmented again, to as many packets with the same payload; all else is untouched.
//!
//! Random bytes are never contiguous segments, so one datagram is repeated, with the fields put right that count on.

#![no_main]

use canal_dataplane::checksum::{finish, sum};
use canal_dataplane::coalesce::{TcpChecksums, merge_in_place, run_length};
use canal_dataplane::offload::{Checksum, Offload};
use canal_dataplane::segment::{MAX_HEADERS, Segmenter};
use canal_dataplane_fuzz::with_frame;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    prefix: u8,
    /// When not the length of the datagram.
    stride: Option<u16>,
    trusted: bool,
    repeat: u8,
    /// Bytes missing from the last.
    cut: u8,
    datagram: &'a [u8],
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// `datagram` as the `index`-th of its connection, cut to `len` bytes.
fn repeated(datagram: &[u8], prefix: usize, index: usize, len: usize) -> Vec<u8> {
    let mut bytes = datagram[..len].to_vec();
    let Some(packet) = bytes.get_mut(prefix + 14..) else { return bytes };
    let ip_len = packet.len();
    let transport = match packet.first() {
        Some(first) if first >> 4 == 4 => {
            let header_len = usize::from(first & 15) * 4;
            put(packet, 2, ip_len as u16);
            put(packet, 4, index as u16);
            put(packet, 10, 0);
            if let Some(header) = packet.get(..header_len) {
                let checksum = finish(sum(header, 0));
                put(packet, 10, checksum);
            }
            header_len
        }
        _ => {
            put(packet, 4, ip_len.saturating_sub(40) as u16);
            40
        }
    };
    let Some(header_words) = packet.get(transport + 12).map(|byte| byte >> 4) else { return bytes };
    let whole = datagram.len().saturating_sub(prefix + 14 + transport + usize::from(header_words) * 4);
    put(packet, transport + 4, 0);
    put(packet, transport + 6, (index * whole) as u16);
    bytes
}

fuzz_target!(|input: Input| {
    let prefix = usize::from(input.prefix);
    let stride = input.stride.map_or(input.datagram.len(), usize::from);
    let checksums = if input.trusted { TcpChecksums::Trusted } else { TcpChecksums::Verify };
    let last = usize::from(input.repeat % 8);
    let mut buffer = Vec::new();
    for index in 0..=last {
        let missing = if index == last { usize::from(input.cut) } else { 0 };
        let len = input.datagram.len().saturating_sub(missing);
        buffer.extend(repeated(input.datagram, prefix, index, len));
    }
    with_frame(&buffer, |frame, _| {
        let run = run_length(&buffer, prefix, stride, checksums);
        let Some(offload) = merge_in_place(frame, prefix, stride, checksums) else {
            assert_eq!(frame.data(), buffer);
            return;
        };
        assert_eq!(run, buffer.len().div_ceil(stride));
        let Checksum::Partial { start, offset } = offload.checksum else { panic!("must be partial") };
        let inner =
            Offload { checksum: Checksum::Partial { start: start - prefix as u16, offset }, ..offload };
        assert!(frame.trim_front(prefix));
        let mut segments = Segmenter::new(frame.data(), &inner).expect("well-formed");
        let mut header = [0; MAX_HEADERS];
        let mut at = 0;
        while let Some(segment) = segments.next(&mut header) {
            let len = segment.header_len + segment.payload.len();
            let end = (at + stride).min(buffer.len());
            assert_eq!(len, end - at - prefix);
            assert_eq!(frame.data()[segment.payload.clone()], buffer[end - segment.payload.len()..end]);
            at += stride;
        }
        assert!(at >= buffer.len());
    });
});
