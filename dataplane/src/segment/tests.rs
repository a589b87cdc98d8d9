//! The segmenter against a slow twin that builds every segment from scratch.

use proptest::prelude::*;

use super::*;
use crate::frame::FramePool;
use crate::offload::{Caps, GsoKind};
use crate::port::{Egress, Outgoing};
use crate::test_frames::{Headers, filled, headers, payload, pool, shifted, tunnel, tunnelled, verifies};

/// A super-frame and the packets it stands for.
#[derive(Clone, Debug)]
struct Case {
    super_frame: Vec<u8>,
    offload: Offload,
    segments: Vec<Vec<u8>>,
}

fn plain(inner: &Headers, payload: &[u8], size: u16) -> Case {
    let (super_frame, checksum) = inner.unfinished(payload);
    let offload = Offload { checksum, gso: Some(inner.gso(size)), tunnel: None };
    Case { super_frame, offload, segments: inner.segments(payload, size.into()) }
}

fn in_tunnel(case: Case, outer: &Headers, outer_checksum: bool) -> Case {
    let tunnel = tunnel(outer, outer_checksum);
    let own = |i: usize| Headers { id: outer.id.wrapping_add(i as u16), ..outer.clone() };
    let segments = case.segments.iter().enumerate();
    Case {
        super_frame: tunnelled(outer, outer_checksum, &case.super_frame),
        offload: Offload { tunnel: Some(tunnel), ..shifted(case.offload, tunnel.inner_network - 14) },
        segments: segments.map(|(i, frame)| tunnelled(&own(i), outer_checksum, frame)).collect(),
    }
}

fn cases(max_payload: usize) -> impl Strategy<Value = Case> {
    (headers(), payload(max_payload), 30u16..1500, proptest::option::of((headers(), any::<bool>()))).prop_map(
        |(inner, payload, size, outer)| {
            let case = plain(&inner, &payload, size);
            match outer {
                Some((outer, with_checksum)) => in_tunnel(case, &outer, with_checksum),
                None => case,
            }
        },
    )
}

fn segment_all(case: &Case) -> Vec<Vec<u8>> {
    let mut segmenter = Segmenter::new(&case.super_frame, &case.offload).unwrap();
    let mut header = [0xaa; MAX_HEADERS];
    let mut frames = Vec::new();
    while let Some(segment) = segmenter.next(&mut header) {
        frames.push([&header[..segment.header_len], &case.super_frame[segment.payload]].concat());
    }
    frames
}

/// Lowers to `caps` with as many spare frames as `spare`; the frames (finished) and how many there were.
fn lowered(case: &Case, caps: Caps, max: Option<usize>) -> Result<Vec<Outgoing>, LowerError> {
    let mut pool = pool(case.segments.len() + 2);
    let frame = filled(&mut pool, &case.super_frame);
    let mut out = Vec::new();
    let count = match max {
        Some(max) => split_oversized(frame, case.offload, max, Egress::Underlay, &mut pool, &mut out)?,
        None => lower(frame, case.offload, caps, Egress::Underlay, &mut pool, &mut out)?,
    };
    assert_eq!((count, pool.available()), (out.len(), case.segments.len() + 2 - count));
    Ok(out)
}

/// What a port would finally put on the wire.
fn on_the_wire(out: &[Outgoing]) -> Vec<Vec<u8>> {
    let mut wire = Vec::new();
    for piece in out {
        let mut packet = piece.frame.data().to_vec();
        if piece.offload.gso.is_some() {
            wire.extend(segment_all(&Case {
                super_frame: packet,
                offload: piece.offload,
                segments: Vec::new(),
            }));
        } else {
            assert_eq!(piece.offload.tunnel, None);
            if let Checksum::Partial { start, offset } = piece.offload.checksum {
                checksum::finish_partial(&mut packet, start, offset).unwrap();
            }
            wire.push(packet);
        }
    }
    wire
}

proptest! {
    #[test]
    fn segments_equal_the_slow_twin(case in cases(6000)) {
        let got = segment_all(&case);
        prop_assert_eq!(Segmenter::new(&case.super_frame, &case.offload).unwrap().count(), got.len());
        prop_assert_eq!(&got, &case.segments);
    }

    #[test]
    fn plain_segments_verify_independently(inner in headers(), payload in payload(6000), size in 30u16..1500) {
        let case = plain(&inner, &payload, size);
        for frame in segment_all(&case) {
            prop_assert!(verifies(&frame));
        }
    }

    #[test]
    fn lowering_to_any_port_puts_the_same_packets_on_the_wire(
        case in cases(6000), caps: (bool, bool, bool, bool)
    ) {
        let caps = Caps { checksum: caps.0, tso: caps.1, uso: caps.2, tunnel: caps.3 };
        let out = lowered(&case, caps, None).unwrap();
        for piece in &out {
            let Offload { checksum, gso, tunnel } = piece.offload;
            prop_assert!(caps.checksum || checksum == Checksum::Complete);
            prop_assert!(tunnel.is_none() || caps.tunnel);
            match gso.map(|gso| gso.kind) {
                Some(GsoKind::Udp) => prop_assert!(caps.uso),
                Some(_) => prop_assert!(caps.tso),
                None => {}
            }
        }
        prop_assert_eq!(on_the_wire(&out), case.segments);
    }

    #[test]
    fn split_super_frames_stand_for_the_same_packets(case in cases(30_000), max in 1800usize..20_000) {
        let out = lowered(&case, Caps::ALL, Some(max)).unwrap();
        for (i, piece) in out.iter().enumerate() {
            prop_assert!(piece.frame.len() <= 14 + max);
            let ecn = piece.offload.gso.map(|gso| gso.ecn);
            prop_assert!(ecn.is_none_or(|ecn| ecn == (i == 0 && case.offload.gso.unwrap().ecn)));
        }
        let total: usize = out.iter().map(|piece| piece.frame.len()).sum();
        prop_assert!(out.len() <= total / (max - 1500) + 1);
        prop_assert_eq!(on_the_wire(&out), case.segments);
    }

    #[test]
    fn a_single_packet_gets_its_checksums(
        inner in headers(), payload in payload(3000), outer in headers(), with_checksum: bool, can: bool
    ) {
        let (frame, checksum) = inner.unfinished(&payload);
        let tunnel = tunnel(&outer, with_checksum);
        let mut case = Case {
            super_frame: tunnelled(&outer, with_checksum, &frame),
            offload: Offload {
                tunnel: Some(tunnel),
                ..shifted(Offload { checksum, ..Offload::NONE }, tunnel.inner_network - 14)
            },
            segments: vec![tunnelled(&outer, with_checksum, &inner.frame(&payload))],
        };
        // The outer field holds the pseudo-header sum, which must not be taken into the result.
        case.super_frame[usize::from(tunnel.outer_transport) + 6] ^= if with_checksum { 0x55 } else { 0 };
        let out = lowered(&case, Caps { checksum: can, ..Caps::NONE }, None).unwrap();
        prop_assert_eq!(out[0].offload.checksum != Checksum::Complete, can);
        prop_assert_eq!(on_the_wire(&out), case.segments);
    }

    #[test]
    fn nothing_leaks_when_the_pool_runs_dry(case in cases(6000), spare in 0usize..6) {
        let mut pool = pool(1 + spare);
        let mut out = Vec::new();
        let frame = filled(&mut pool, &case.super_frame);
        let result = lower(frame, case.offload, Caps::NONE, Egress::Host, &mut pool, &mut out);
        if case.segments.len() > 1 + spare {
            prop_assert_eq!(result, Err(LowerError::NoFrames));
            prop_assert_eq!((pool.available(), out.len()), (1 + spare, 0));
        } else {
            prop_assert_eq!(result, Ok(case.segments.len()));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        mut case in cases(400), damage in proptest::collection::vec((0usize..160, any::<u8>()), 0..4),
        cut in 0usize..700, start: u16, offset: u16, network: u16, size in 0u16..3
    ) {
        for (at, byte) in damage {
            if let Some(target) = case.super_frame.get_mut(at) {
                *target = byte;
            }
        }
        case.super_frame.truncate(cut);
        if start % 5 == 0 {
            case.offload.checksum = Checksum::Partial { start, offset };
        }
        if let (Some(tunnel), true) = (&mut case.offload.tunnel, network % 3 == 0) {
            tunnel.inner_network = network % 200;
            tunnel.outer_transport = start % 200;
        }
        if let (Some(gso), true) = (&mut case.offload.gso, offset % 5 == 0) {
            gso.size = size;
        }
        if let Ok(out) = lowered(&Case { segments: vec![Vec::new(); 700], ..case.clone() }, Caps::NONE, None) {
            prop_assert!(!out.is_empty());
        }
    }
}

fn sample() -> Headers {
    Headers {
        dont_fragment: true,
        sequence: u32::MAX - 5000,
        flags: 0x18,
        tcp_options: vec![1; 12],
        ..Headers::plain()
    }
}

#[test]
fn the_largest_tunnelled_super_frame_leaves_as_two() {
    let payload = vec![0x5a; 65_535 - 20 - 32];
    let case = in_tunnel(plain(&sample(), &payload, 1398), &sample(), true);
    assert_eq!(case.super_frame.len() - 14, 65_585);
    let out = lowered(&case, Caps::ALL, None).unwrap();
    assert_eq!(out.len(), 2);
    assert!(out[0].frame.len() <= 14 + 65_535 && out[0].offload.gso.is_some());
    assert_eq!(on_the_wire(&out), case.segments);
}

#[test]
fn wrong_super_frames_are_refused() {
    let case = plain(&sample(), &[1; 3000], 1000);
    let refused = |offload: Offload| Segmenter::new(&case.super_frame, &offload).unwrap_err();
    let gso = |kind, size| Offload { gso: Some(Gso { kind, size, ecn: false }), ..case.offload };
    assert_eq!(refused(Offload::NONE), SegmentError::NotSuper);
    assert_eq!(refused(gso(GsoKind::Tcp4, 0)), SegmentError::ZeroSize);
    assert_eq!(refused(gso(GsoKind::Tcp4, 2)), SegmentError::TooMany);
    assert_eq!(refused(gso(GsoKind::Tcp6, 1000)), SegmentError::WrongHeaders);
    assert_eq!(refused(gso(GsoKind::Udp, 1000)), SegmentError::WrongHeaders);
    let elsewhere = Offload { checksum: Checksum::Partial { start: 35, offset: 16 }, ..case.offload };
    assert_eq!(refused(elsewhere), SegmentError::WrongOffsets);
    let padded = [&case.super_frame[..], &[0]].concat();
    assert_eq!(Segmenter::new(&padded, &case.offload).unwrap_err(), SegmentError::WrongLength);
    let mut fragment = case.super_frame.clone();
    fragment[20] = 0x20;
    assert_eq!(Segmenter::new(&fragment, &case.offload).unwrap_err(), SegmentError::WrongHeaders);
}

#[test]
fn frames_too_small_for_a_segment_are_an_error_and_none_is_lost() {
    let case = plain(&sample(), &[1; 3000], 1000);
    let mut large = pool(1);
    let frame = filled(&mut large, &case.super_frame);
    let mut small = FramePool::new(4, 256);
    let mut out = Vec::new();
    let result = lower(frame, case.offload, Caps::NONE, Egress::Host, &mut small, &mut out);
    assert_eq!(result, Err(LowerError::FrameTooSmall));
    assert_eq!((small.available(), small.guests(), out.len()), (4, 1, 0));

    // The first copy fits its frame, the second does not.
    let frames = [FramePool::new(1, 256).take().unwrap(), pool(1).take().unwrap()];
    let mut mixed = FramePool::from_frames(frames, 256);
    let frame = filled(&mut pool(1), &case.super_frame);
    let result = lower(frame, case.offload, Caps::NONE, Egress::Host, &mut mixed, &mut out);
    assert_eq!(result, Err(LowerError::FrameTooSmall));
    assert_eq!((mixed.available(), mixed.guests(), out.len()), (1, 2, 0));
}
