//! Merging is checked by segmenting again: the packets must be the ones there were before.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::checksum::finish_partial;
use crate::frame::FramePool;
use crate::offload::{Checksum, Offload};
use crate::port::{Ingress, Received};
use crate::segment::{MAX_HEADERS, Segmenter};
use crate::test_frames::{Headers, filled, headers, payload, pool, verifies};

/// Headers of a segment that carries data and nothing else.
fn data_headers() -> impl Strategy<Value = Headers> {
    headers().prop_map(|mut headers| {
        headers.udp = false;
        headers.flags = 0x10;
        headers
    })
}

/// The packets behind `frame`, finished.
fn on_the_wire(frame: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
    if offload.gso.is_some() {
        let mut segmenter = Segmenter::new(frame, offload).unwrap();
        let mut header = [0; MAX_HEADERS];
        let mut packets = Vec::new();
        while let Some(segment) = segmenter.next(&mut header) {
            packets.push([&header[..segment.header_len], &frame[segment.payload]].concat());
        }
        return packets;
    }
    let mut packet = frame.to_vec();
    if let Checksum::Partial { start, offset } = offload.checksum {
        finish_partial(&mut packet, start, offset).unwrap();
    }
    vec![packet]
}

/// The packets, in frames of their own, as they came over a wire.
fn arrived<'a>(pool: &mut FramePool, packets: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<Received> {
    let received = |packet: &Vec<u8>| Received {
        frame: filled(pool, packet),
        offload: Offload::NONE,
        ingress: Ingress::Direct,
    };
    packets.into_iter().map(received).collect()
}

/// What becomes of a batch of these packets: frames, and the packets behind them.
fn merged(packets: &[Vec<u8>]) -> (Vec<Received>, Vec<Vec<u8>>) {
    let mut pool = pool(packets.len());
    let mut batch = arrived(&mut pool, packets);
    let gone = Coalescer::new().run(&mut batch, &mut pool);
    assert_eq!(batch.len() + gone, packets.len());
    let after = batch.iter().flat_map(|one| on_the_wire(one.frame.data(), &one.offload)).collect();
    (batch, after)
}

#[derive(Clone, Debug)]
enum Damage {
    /// One byte somewhere.
    Byte {
        at: usize,
        mask: u8,
    },
    /// Another connection's segment in the middle.
    Sequence(u32),
    Flags(u8),
    Acknowledgement,
    Window,
    TcpOption,
    Ttl,
    Tos,
    /// Of a packet that may be fragmented.
    Id,
}

fn damages() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<usize>(), 1u8..).prop_map(|(at, mask)| Damage::Byte { at, mask }),
        (1u32..).prop_map(Damage::Sequence),
        prop_oneof![Just(0u8), Just(0x11), Just(0x12), Just(0x14), Just(0x30), Just(0x50), Just(0x90)]
            .prop_map(Damage::Flags),
        Just(Damage::Acknowledgement),
        Just(Damage::Window),
        Just(Damage::TcpOption),
        Just(Damage::Ttl),
        Just(Damage::Tos),
        Just(Damage::Id),
    ]
}

proptest! {
    #[test]
    fn a_stream_is_merged_and_segments_back(
        mut inner in data_headers(), payload in payload(20_000), size in 50usize..1500, push: bool
    ) {
        inner.flags |= if push { 0x08 } else { 0 };
        let segments = inner.segments(&payload, size);
        let (mut batch, after) = merged(&segments);
        prop_assert_eq!(&after, &segments);
        prop_assert_eq!(batch.len(), 1);
        // The super-frame itself is a right packet, too.
        let Received { frame, offload, .. } = &mut batch[0];
        if let Checksum::Partial { start, offset } = offload.checksum {
            finish_partial(frame.data_mut(), start, offset).unwrap();
        }
        prop_assert!(verifies(frame.data()));
    }

    #[test]
    fn a_damaged_segment_stands_alone_between_what_was_before_it_and_after(
        inner in data_headers(), count in 2usize..8, size in 50usize..300, victim: prop::sample::Index,
        damage in damages()
    ) {
        let mut inner = inner;
        inner.dont_fragment &= !matches!(damage, Damage::Id);
        inner.v6 &= !matches!(damage, Damage::Id);
        if let Damage::TcpOption = damage {
            inner.tcp_options = vec![8, 10, 1, 1, 1, 1, 2, 2, 2, 2, 0, 0];
        }
        let mut segments = inner.segments(&vec![0x17; count * size], size);
        let victim = victim.index(count);
        let own = Headers {
            id: inner.id.wrapping_add(victim as u16),
            sequence: inner.sequence.wrapping_add((victim * size) as u32),
            ..inner.clone()
        };
        let mut changed = own.clone();
        match damage {
            Damage::Byte { .. } => {}
            Damage::Sequence(by) => changed.sequence = own.sequence.wrapping_add(by),
            Damage::Flags(flags) => changed.flags = flags,
            Damage::Acknowledgement => changed.acknowledgement ^= 0x100,
            Damage::Window => changed.window ^= 0x100,
            Damage::TcpOption => changed.tcp_options[9] ^= 1,
            Damage::Ttl => changed.ttl ^= 1,
            Damage::Tos => changed.tos ^= 1,
            Damage::Id => changed.id ^= 0x100,
        }
        segments[victim] = changed.frame(&vec![0x17; size]);
        if let Damage::Byte { at, mask } = damage {
            let len = segments[victim].len();
            segments[victim][at % len] ^= mask;
        }
        let (batch, after) = merged(&segments);
        prop_assert_eq!(after, segments);
        prop_assert_eq!(batch.len(), usize::from(victim > 0) + 1 + usize::from(victim + 1 < count));
    }

    #[test]
    fn segments_that_say_more_than_here_is_data_are_not_merged(
        inner in data_headers(), flags in prop_oneof![
            Just(0u8), Just(0x08), Just(0x11), Just(0x12), Just(0x14), Just(0x30), Just(0x50), Just(0x90)
        ]
    ) {
        // Each segment has the flag, so that none differs from the first.
        let segment = |i: u16| {
            let sequence = inner.sequence.wrapping_add(u32::from(i) * 100);
            Headers { flags, sequence, id: inner.id.wrapping_add(i), ..inner.clone() }.frame(&[1; 100])
        };
        let segments: Vec<_> = (0..4).map(segment).collect();
        let (batch, after) = merged(&segments);
        prop_assert_eq!(batch.len(), segments.len());
        prop_assert_eq!(after, segments);
    }

    #[test]
    fn whatever_bytes_come_stay_what_they_are(
        inner in data_headers(), size in 1usize..40,
        damage in vec((any::<usize>(), any::<usize>(), any::<u8>()), 0..6)
    ) {
        let mut segments = inner.segments(&[1; 200], size);
        let count = segments.len();
        for (victim, at, value) in damage {
            let segment = &mut segments[victim % count];
            let len = segment.len();
            segment[at % len] = value;
        }
        let (_, mut after) = merged(&segments);
        // Only packets of one connection keep their order.
        after.sort_unstable();
        segments.sort_unstable();
        prop_assert_eq!(after, segments);
    }
}

/// One packet of a batch: of which connection, what kind.
#[derive(Clone, Debug)]
enum Kind {
    Data {
        len: usize,
        push: bool,
    },
    /// A gap in the sequence numbers before the data.
    Gap {
        len: usize,
    },
    PureAck,
    Syn,
    Udp,
    Corrupt {
        len: usize,
    },
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        12 => (Just(500), any::<bool>(), 0u8..8).prop_map(|(len, _, n)| Kind::Data { len, push: n == 0 }),
        2 => (1usize..700).prop_map(|len| Kind::Data { len, push: false }),
        1 => (1usize..700).prop_map(|len| Kind::Gap { len }),
        1 => Just(Kind::PureAck),
        1 => Just(Kind::Syn),
        1 => Just(Kind::Udp),
        1 => (1usize..700).prop_map(|len| Kind::Corrupt { len }),
    ]
}

/// The packets of a batch in order, each with the connection it belongs to.
fn batch(mut connections: Vec<Headers>, script: &[(usize, Kind)]) -> Vec<(usize, Vec<u8>)> {
    let mut packets = Vec::new();
    for (connection, kind) in script {
        let connection = connection % connections.len();
        let own = &mut connections[connection];
        let mut headers = own.clone();
        let len = match kind {
            Kind::Data { len, push } => {
                headers.flags |= if *push { 8 } else { 0 };
                *len
            }
            Kind::Gap { len } => {
                headers.sequence = headers.sequence.wrapping_add(1);
                own.sequence = headers.sequence;
                *len
            }
            Kind::Corrupt { len } => *len,
            Kind::PureAck => 0,
            Kind::Syn => {
                headers.flags = 2;
                0
            }
            Kind::Udp => {
                headers.udp = true;
                20
            }
        };
        let mut packet = headers.frame(&vec![packets.len() as u8; len]);
        if let Kind::Corrupt { .. } = kind {
            *packet.last_mut().unwrap() ^= 0x10;
        }
        if !headers.udp {
            own.sequence = own.sequence.wrapping_add(len as u32);
            own.id = own.id.wrapping_add(1);
        }
        // UDP between the same ports is another connection.
        packets.push((if headers.udp { UDP } else { connection }, packet));
    }
    packets
}

/// Stands for all that is not TCP.
const UDP: usize = 15;

/// Packets of each connection in order.
fn by_connection(packets: &[(usize, Vec<u8>)]) -> Vec<Vec<Vec<u8>>> {
    let of = |c| packets.iter().filter(|(own, _)| *own == c).map(|(_, packet)| packet.clone()).collect();
    (0..=UDP).map(of).collect()
}

fn connections() -> impl Strategy<Value = Vec<Headers>> {
    vec(data_headers(), 1..12).prop_map(|mut connections| {
        for (i, headers) in connections.iter_mut().enumerate() {
            // Told apart by their source port, so that the test can tell them apart, too.
            headers.ports.0 = i as u16;
        }
        connections
    })
}

proptest! {
    #[test]
    fn a_batch_keeps_every_packet_and_the_order_of_each_connection(
        connections in connections(), script in vec((any::<usize>(), kinds()), 0..64), states in vec(0u8..3, 64),
        small: bool
    ) {
        let packets = batch(connections, &script);
        let mut small_pool = FramePool::new(64, crate::limits::SMALL_FRAME_BUFFER);
        let mut large_pool = pool(64);
        let source = if small { &mut small_pool } else { &mut large_pool };
        let mut received = Vec::new();
        for ((connection, packet), state) in packets.iter().zip(states) {
            let corrupt = matches!(script[received.len()].1, Kind::Corrupt { .. });
            // Nobody we trust calls a corrupt packet right.
            let checksum = if state == 0 && !corrupt { Checksum::Verified } else { Checksum::Complete };
            received.push(Received {
                frame: filled(source, packet),
                offload: Offload { checksum, ..Offload::NONE },
                ingress: Ingress::Workload(*connection as u32 % 2),
            });
        }
        let frames = |small: &FramePool, large: &FramePool| {
            small.available() + large.available() + large.guests()
        };
        let total = frames(&small_pool, &large_pool) + received.len();
        let gone = Coalescer::new().run(&mut received, &mut large_pool);
        prop_assert_eq!(received.len() + gone, packets.len());
        prop_assert_eq!(frames(&small_pool, &large_pool) + received.len(), total);

        let mut after = Vec::new();
        for Received { frame, offload, .. } in &received {
            let data = frame.data();
            let (transport, protocol) =
                if data[12] == 8 { (14 + usize::from(data[14] & 15) * 4, data[23]) } else { (54, data[20]) };
            let port = usize::from(u16::from_be_bytes([data[transport], data[transport + 1]]));
            let connection = if protocol == 17 { UDP } else { port };
            after.extend(on_the_wire(data, offload).into_iter().map(|packet| (connection, packet)));
        }
        prop_assert!(by_connection(&after) == by_connection(&packets));
    }
}

fn sample(v6: bool) -> Headers {
    Headers { v6, flow_label: 5, ports: (0, 4000), sequence: u32::MAX - 600, flags: 0x10, ..Headers::plain() }
}

fn receive(pool: &mut FramePool, packets: &[(usize, Vec<u8>)]) -> Vec<Received> {
    arrived(pool, packets.iter().map(|(_, packet)| packet))
}

#[test]
fn interleaved_connections_become_one_super_frame_each() {
    let script: Vec<_> = (0..20).map(|i| (i, Kind::Data { len: 500, push: i >= 18 })).collect();
    let second = Headers { ports: (1, 4000), ..sample(false) };
    let packets = batch(vec![sample(true), second], &script);
    let mut pool = pool(20);
    let mut received = receive(&mut pool, &packets);
    assert_eq!(Coalescer::new().run(&mut received, &mut pool), 18);
    assert_eq!(pool.available(), 18);
    for (i, Received { frame, offload, .. }) in received.iter().enumerate() {
        assert_eq!(frame.len(), 14 + [40, 20][i] + 20 + 5000);
        assert_eq!(offload.gso.unwrap().size, 500);
    }
}

#[test]
fn a_super_frame_stops_at_the_largest_ip_packet() {
    let script: Vec<_> = (0..50).map(|_| (0, Kind::Data { len: 1460, push: false })).collect();
    let packets = batch(vec![sample(false)], &script);
    let mut pool = pool(50);
    let mut received = receive(&mut pool, &packets);
    assert_eq!(Coalescer::new().run(&mut received, &mut pool), 48);
    // 44 segments and 40 bytes of headers are 64,280 bytes; a forty-fifth would make 65,740.
    assert_eq!(received[0].frame.len(), 14 + 40 + 44 * 1460);
}

#[test]
fn a_super_frame_that_outgrows_its_frame_moves_and_the_small_one_goes_to_the_pool() {
    let script: Vec<_> = (0..10).map(|_| (0, Kind::Data { len: 1000, push: false })).collect();
    let packets = batch(vec![sample(false)], &script);
    let mut small = FramePool::new(10, crate::limits::SMALL_FRAME_BUFFER);
    let mut received = receive(&mut small, &packets);
    let mut large = pool(1);
    assert_eq!(Coalescer::new().run(&mut received, &mut large), 9);
    assert_eq!((received[0].frame.len(), large.available(), large.guests()), (14 + 40 + 10_000, 0, 10));

    // Without larger frames nothing is merged, and nothing lost.
    let mut small = FramePool::new(11, crate::limits::SMALL_FRAME_BUFFER);
    let mut received = receive(&mut small, &packets);
    assert_eq!(Coalescer::new().run(&mut received, &mut small), 0);
    assert_eq!((received.len(), small.available()), (10, 1));
}

#[test]
fn connections_of_different_ports_are_not_one_even_with_the_same_addresses() {
    let script: Vec<_> = (0..2).map(|_| (0, Kind::Data { len: 500, push: false })).collect();
    let packets = batch(vec![sample(false)], &script);
    let mut pool = pool(2);
    let mut received = receive(&mut pool, &packets);
    received[1].ingress = Ingress::Host;
    assert_eq!(Coalescer::new().run(&mut received, &mut pool), 0);
    assert_eq!(received.len(), 2);
}

#[test]
fn what_is_there_already_and_what_is_not_wanted_is_left_alone() {
    let script: Vec<_> = (0..20).map(|i| (i, Kind::Data { len: 500, push: false })).collect();
    let packets = batch(vec![sample(false), sample(true)], &script);
    let mut pool = pool(20);
    let mut batch = receive(&mut pool, &packets[..2]);
    let incoming = receive(&mut pool, &packets[2..]);
    let is_v4 = |frame: &[u8]| frame[12] == 8;
    Coalescer::new().append(incoming.into_iter(), is_v4, &mut pool, &mut batch);
    let merged = batch.remove(2);
    assert_eq!((merged.frame.len(), merged.offload.gso.unwrap().size), (14 + 40 + 9 * 500, 500));
    let rest: Vec<_> = batch.iter().map(|received| received.frame.data().to_vec()).collect();
    let v6 = packets[2..].iter().filter(|(_, packet)| !is_v4(packet));
    let expected: Vec<_> = packets[..2].iter().chain(v6).map(|(_, packet)| packet.clone()).collect();
    assert_eq!(rest, expected);
    assert!(batch.iter().all(|received| received.offload == Offload::NONE));
}
