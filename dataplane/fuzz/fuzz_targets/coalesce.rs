//! What is merged can be segmented again, to as many packets with the same payload; all else is untouched.
//!
//! Random bytes are never contiguous segments, so one frame is repeated, with the fields put right that count on.

#![no_main]

use canal_dataplane::checksum::{finish, sum};
use canal_dataplane::coalesce::Coalescer;
use canal_dataplane::offload::{Checksum, Offload};
use canal_dataplane::port::{Ingress, Received};
use canal_dataplane::segment::{MAX_HEADERS, Segmenter};
use canal_dataplane_fuzz::with_frame;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    verified: bool,
    repeat: u8,
    /// Bytes missing from the last.
    cut: u8,
    frame: &'a [u8],
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// `frame` as the `index`-th of its connection, cut to `len` bytes.
fn repeated(frame: &[u8], index: usize, len: usize) -> Vec<u8> {
    let mut bytes = frame[..len].to_vec();
    let Some(packet) = bytes.get_mut(14..) else { return bytes };
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
    let whole = frame.len().saturating_sub(14 + transport + usize::from(header_words) * 4);
    put(packet, transport + 4, 0);
    put(packet, transport + 6, (index * whole) as u16);
    bytes
}

fuzz_target!(|input: Input| {
    let last = usize::from(input.repeat % 8);
    let packet = |index| {
        let missing = if index == last { usize::from(input.cut) } else { 0 };
        repeated(input.frame, index, input.frame.len().saturating_sub(missing))
    };
    let packets: Vec<_> = (0..=last).map(packet).collect();
    let checksum = if input.verified { Checksum::Verified } else { Checksum::Complete };
    let offload = Offload { checksum, ..Offload::NONE };
    with_frame(&[], |_, pool| {
        let mut batch = Vec::new();
        for packet in &packets {
            let mut frame = pool.take().expect("more frames than packets");
            if !frame.fill(packet) {
                pool.give(frame);
                break;
            }
            batch.push(Received { frame, offload, ingress: Ingress::Direct });
        }
        let count = batch.len();
        assert_eq!(Coalescer::new().run(&mut batch, pool) + batch.len(), count);
        let mut came = packets[..count].iter();
        for Received { frame, offload, .. } in batch {
            if offload.gso.is_none() {
                assert_eq!(came.next().map(Vec::as_slice), Some(frame.data()));
            } else {
                let mut segments = Segmenter::new(frame.data(), &offload).expect("well-formed");
                let mut header = [0; MAX_HEADERS];
                while let Some(segment) = segments.next(&mut header) {
                    let packet = came.next().expect("no more segments than packets");
                    assert_eq!(packet.len(), segment.header_len + segment.payload.len());
                    assert_eq!(packet[segment.header_len..], frame.data()[segment.payload]);
                }
            }
            pool.give(frame);
        }
        assert_eq!(came.next(), None);
    });
});
