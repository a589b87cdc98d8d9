//! Several VXLAN datagrams that the kernel delivered as one buffer (UDP_GRO): merged into inner TCP super-frames where
//! they form a [`Run`], split into frames of their own where they do not.

use canal_dataplane::checksum;
use canal_dataplane::frame::{Frame, FramePool};
use canal_dataplane::offload::{Checksum, Gso, GsoKind, Offload};
use canal_dataplane::port::{Ingress, Received};

use super::inner;
use super::outer;
use super::run::{NETWORK, PSH, Run, Shape, TCP_CHECKSUM};

/// Takes `frame` apart: outer headers of `outer_len` bytes, then the payloads of datagrams, `stride` bytes each, the
/// last may be shorter. Appends what it holds to `into`, in order. Returns how many datagrams were lost for want of
/// frames. An inner packet of more than `mtu` bytes was never on a wire: its sender left cutting to a device.
pub fn unpack(
    mut frame: Frame,
    outer_len: usize,
    stride: usize,
    mtu: usize,
    pool: &mut FramePool,
    into: &mut Vec<Received>,
) -> u64 {
    let total = frame.len();
    if stride == 0 || total <= outer_len + stride {
        let offload = single(&mut frame, outer_len, mtu);
        into.push(received(frame, offload));
        return 0;
    }
    // The kernel has one number for both kinds: datagrams in a buffer, and segments of a UDP packet in the tunnel.
    let datagram = &mut frame.data_mut()[outer_len..];
    if inner::is_one_udp_packet(datagram) {
        let offload = inner::offload(datagram, outer_len, mtu, u16::try_from(stride).ok());
        into.push(received(frame, offload));
        return 0;
    }
    // The first run stays in the frame, which is cut only when all others are copied out of it.
    let own = Run::find(frame.data(), outer_len, stride);
    let (place, mut lost, mut at) = (into.len(), 0, own.end);
    while at < total {
        let run = Run::find(frame.data(), at, stride);
        at = run.end;
        let Some(mut other) = pool.take() else {
            lost += run.count as u64;
            continue;
        };
        if copy_out(frame.data(), &mut other, outer_len, &run, stride) {
            let offload = finish(&mut other, outer_len, &run, stride, mtu);
            into.push(received(other, offload));
        } else {
            lost += run.count as u64;
            pool.give(other);
        }
    }
    let mut end = own.end;
    if let Some(shape) = own.shape {
        end = outer_len + stride.min(own.end - outer_len);
        for payload in own.payloads(shape, stride) {
            let len = payload.len();
            frame.data_mut().copy_within(payload, end);
            end += len;
        }
    }
    let cut = frame.set_len(end);
    debug_assert!(cut, "a run does not grow when it is merged");
    let offload = finish(&mut frame, outer_len, &own, stride, mtu);
    into.insert(place, received(frame, offload));
    lost
}

fn received(frame: Frame, offload: Offload) -> Received {
    Received { frame, offload, ingress: Ingress::Underlay }
}

/// Copies outer headers, the run's first datagram and the payloads of the others; false when `other` is too small.
fn copy_out(buffer: &[u8], other: &mut Frame, outer_len: usize, run: &Run, stride: usize) -> bool {
    let first = run.at..run.end.min(run.at + stride);
    let room = other.receive_buffer().len();
    let needed = outer_len + (run.end - run.at);
    if needed > room || !other.set_len(needed) {
        return false;
    }
    let data = other.data_mut();
    let mut end = 0;
    let mut append = |bytes: &[u8]| {
        data[end..end + bytes.len()].copy_from_slice(bytes);
        end += bytes.len();
    };
    append(&buffer[..outer_len]);
    append(&buffer[first]);
    if let Some(shape) = run.shape {
        for payload in run.payloads(shape, stride) {
            append(&buffer[payload]);
        }
    }
    other.set_len(end)
}

/// What is unfinished in a frame of one datagram.
fn single(frame: &mut Frame, outer_len: usize, mtu: usize) -> Offload {
    let datagram = frame.data_mut().get_mut(outer_len..).unwrap_or(&mut []);
    inner::offload(datagram, outer_len, mtu, None)
}

/// Makes all headers fit what is in the frame now.
fn finish(frame: &mut Frame, outer_len: usize, run: &Run, stride: usize, mtu: usize) -> Offload {
    outer::set_lengths(frame.data_mut());
    let Some(shape) = run.shape else { return single(frame, outer_len, mtu) };
    let data = &mut frame.data_mut()[outer_len..];
    let (end, Shape { v6, transport, payload }) = (data.len(), shape);
    if v6 {
        let len = (end - NETWORK - 40) as u16;
        data[NETWORK + 4..NETWORK + 6].copy_from_slice(&len.to_be_bytes());
    } else {
        let len = (end - NETWORK) as u16;
        data[NETWORK + 2..NETWORK + 4].copy_from_slice(&len.to_be_bytes());
        data[NETWORK + 10..NETWORK + 12].fill(0);
        let value = checksum::finish(checksum::sum(&data[NETWORK..transport], 0));
        data[NETWORK + 10..NETWORK + 12].copy_from_slice(&value.to_be_bytes());
    }
    if run.push {
        data[transport + 13] |= PSH;
    }
    let pseudo = checksum::fold(shape.pseudo(&data[NETWORK..transport], end));
    data[transport + TCP_CHECKSUM..transport + TCP_CHECKSUM + 2].copy_from_slice(&pseudo.to_be_bytes());
    let kind = if v6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 };
    Offload {
        checksum: Checksum::Partial { start: (outer_len + transport) as u16, offset: TCP_CHECKSUM as u16 },
        gso: Some(Gso { kind, size: (stride - payload) as u16, ecn: false }),
        tunnel: Some(inner::tunnel(outer_len)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use canal_dataplane::limits::{MAX_IP, SUPER_FRAME_BUFFER};
    use canal_dataplane::offload::Tunnel;
    use canal_dataplane::segment::{MAX_HEADERS, Segmenter};
    use proptest::prelude::*;

    /// An encapsulated TCP super-frame and its description.
    fn super_frame(
        outer_v6: bool,
        v6: bool,
        payload: usize,
        size: u16,
        flags: u8,
        df: bool,
    ) -> (Vec<u8>, Offload) {
        let outer_len = if outer_v6 { outer::LEN_V6 } else { outer::LEN_V4 };
        let mut frame = vec![0u8; outer_len];
        let address = |last: u8| -> std::net::IpAddr {
            if outer_v6 { [0xfd00, 0, 0, 0, 0, 0, 0, last.into()].into() } else { [192, 0, 2, last].into() }
        };
        frame.extend([8, 0, 0, 0, 0, 0, 7, 0]);
        frame.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        let ip_len = if v6 { 40 } else { 20 };
        let len = (32 + payload) as u16;
        if v6 {
            frame.extend([0x86, 0xdd, 0x60, 0x12, 0x34, 0x56]);
            frame.extend(len.to_be_bytes());
            frame.extend([6, 63]);
            frame.extend((0..32).map(|i| i ^ 0x5a));
        } else {
            frame.extend([8, 0, 0x45, 2]);
            frame.extend((len + 20).to_be_bytes());
            frame.extend([0x12, 0xfe, if df { 0x40 } else { 0 }, 0, 63, 6, 0, 0, 10, 1, 0, 1, 10, 2, 0, 2]);
        }
        frame.extend([
            0x1f, 0x90, 0xc0, 0x01, 0xff, 0xff, 0xf0, 0x00, 0, 0, 0, 9, 0x80, flags, 1, 2, 0, 0, 0, 0,
        ]);
        frame.extend([1, 1, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7]);
        frame.extend((0..payload).map(|i| (i * 7 + i / 256) as u8));
        let ports = (50_000, 8472);
        outer::Outer { source: address(1), target: address(2), ports, tos: 2 }.write(&mut frame);
        let network = outer_len + NETWORK;
        let offload = Offload {
            checksum: Checksum::Partial { start: (network + ip_len) as u16, offset: 16 },
            gso: Some(Gso { kind: if v6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 }, size, ecn: false }),
            tunnel: Some(Tunnel {
                outer_v6,
                outer_transport: (outer_len - 8) as u16,
                inner_network: network as u16,
                outer_checksum: false,
            }),
        };
        (frame, offload)
    }

    /// The UDP payloads that a frame stands for.
    pub(crate) fn datagrams(frame: &[u8], offload: &Offload, outer_len: usize) -> Vec<Vec<u8>> {
        if offload.gso.is_none() {
            return vec![frame[outer_len..].to_vec()];
        }
        let mut segmenter = Segmenter::new(frame, offload).unwrap();
        let mut header = [0; MAX_HEADERS];
        let mut all = Vec::new();
        while let Some(segment) = segmenter.next(&mut header) {
            all.push([&header[outer_len..segment.header_len], &frame[segment.payload]].concat());
        }
        all
    }

    fn unpacked(buffer: &[u8], outer_len: usize, stride: usize, frames: usize) -> (Vec<Received>, u64) {
        let mut pool = FramePool::new(frames, SUPER_FRAME_BUFFER);
        let mut frame = pool.take().unwrap();
        assert!(frame.fill(buffer));
        let mut into = Vec::new();
        let lost = unpack(frame, outer_len, stride, MAX_IP, &mut pool, &mut into);
        (into, lost)
    }

    /// A super-frame in a tunnel, what is unfinished in it, and the length of its outer headers.
    pub(crate) fn case() -> impl Strategy<Value = (Vec<u8>, Offload, usize)> {
        stream(any::<bool>())
    }

    /// The same with a packet of IPv6 in it, or of IPv4.
    pub(crate) fn stream(
        v6: impl Strategy<Value = bool>,
    ) -> impl Strategy<Value = (Vec<u8>, Offload, usize)> {
        let flags = prop_oneof![Just(0x10u8), Just(0x18)];
        (any::<(bool, bool)>(), v6, 1usize..12_000, 100u16..1400, flags).prop_map(
            |((outer_v6, df), v6, payload, size, flags)| {
                let (frame, offload) = super_frame(outer_v6, v6, payload, size, flags, df);
                (frame, offload, if outer_v6 { outer::LEN_V6 } else { outer::LEN_V4 })
            },
        )
    }

    proptest! {
        #[test]
        fn one_stream_becomes_one_super_frame_again((frame, offload, outer_len) in case()) {
            let parts = datagrams(&frame, &offload, outer_len);
            let buffer = [&frame[..outer_len], &parts.concat()].concat();
            let (into, lost) = unpacked(&buffer, outer_len, parts[0].len(), 1);
            prop_assert_eq!((into.len(), lost), (1, 0));
            prop_assert_eq!(into[0].ingress, Ingress::Underlay);
            if parts.len() > 1 {
                prop_assert_eq!(into[0].offload, offload);
                let checksum = usize::from(offload.tunnel.unwrap().inner_network) + if parts[0][20] == 8 { 10 } else { 0 };
                // All but the inner checksums, which the original leaves to whoever segments it.
                prop_assert_eq!(&into[0].frame.data()[..checksum], &frame[..checksum]);
                prop_assert_eq!(into[0].frame.len(), frame.len());
            }
            prop_assert_eq!(datagrams(into[0].frame.data(), &into[0].offload, outer_len), parts);
        }

        #[test]
        fn whatever_happens_to_a_stream_the_same_datagrams_come_out(
            (frame, offload, outer_len) in case(),
            damage in proptest::collection::vec((0usize..12, 0usize..120, any::<u8>()), 0..4),
            swap in proptest::option::of((0usize..12, 0usize..12)),
        ) {
            let mut parts = datagrams(&frame, &offload, outer_len);
            let stride = parts[0].len();
            let count = parts.len();
            for (part, at, byte) in damage {
                let part = &mut parts[part % count];
                let at = at % part.len();
                part[at] = byte;
            }
            if let Some((a, b)) = swap
                && (a % count).max(b % count) < count - 1
            {
                parts.swap(a % count, b % count);
            }
            let buffer = [&frame[..outer_len], &parts.concat()].concat();
            let (into, lost) = unpacked(&buffer, outer_len, stride, count);
            prop_assert_eq!(lost, 0);
            let out: Vec<_> =
                into.iter().flat_map(|r| datagrams(r.frame.data(), &r.offload, outer_len)).collect();
            prop_assert_eq!(out, parts);
            for piece in &into {
                let mut again = piece.frame.data().to_vec();
                outer::set_lengths(&mut again);
                prop_assert!(again == piece.frame.data(), "the outer lengths fit");
            }
        }

        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(8), Just(0x45), any::<u8>()], 42..800),
            stride in 0usize..300
        ) {
            let (into, lost) = unpacked(&bytes, outer::LEN_V4, stride, 3);
            prop_assert!(!into.is_empty() && into.len() <= 3);
            prop_assert!(lost == 0 || into.len() == 3);
        }
    }

    #[test]
    fn a_tcp_packet_that_nobody_cut_is_a_super_frame() {
        let (frame, offload) = super_frame(false, false, 9000, 1398, 0x10, true);
        let mut pool = FramePool::new(1, SUPER_FRAME_BUFFER);
        let mut whole = pool.take().unwrap();
        let mut bytes = frame;
        let (start, outer_len) = (outer::LEN_V4 + NETWORK + 20, outer::LEN_V4);
        let pseudo = checksum::fold(checksum::sum(&bytes[start - 8..start], 6 + 9032));
        bytes[start + 16..start + 18].copy_from_slice(&pseudo.to_be_bytes());
        checksum::finish_partial(&mut bytes, start as u16, 16).unwrap();
        assert!(whole.fill(&bytes));
        let mut into = Vec::new();
        assert_eq!(unpack(whole, outer_len, 0, 1450, &mut pool, &mut into), 0);
        assert_eq!((into.len(), into[0].offload), (1, offload));
    }

    #[test]
    fn a_udp_packet_that_nobody_cut_is_no_run_of_datagrams() {
        let mut frame = vec![0u8; outer::LEN_V4];
        frame.extend([8, 0, 0, 0, 0, 0, 7, 0, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
        frame.extend([0x45, 0, 0x0b, 0xd4, 0, 1, 0x40, 0, 63, 17, 0, 0, 10, 1, 0, 1, 10, 2, 0, 2]);
        frame.extend([0x1f, 0x90, 0x1f, 0x91, 0x0b, 0xc0, 0, 0]);
        let start = frame.len() - 8;
        let pseudo = checksum::sum(&frame[start - 8..start], 17 + 3008);
        frame[start + 6..].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
        frame.resize(frame.len() + 3000, 7);
        let ports = (50_000, 8472);
        outer::Outer { source: [192, 0, 2, 1].into(), target: [192, 0, 2, 2].into(), ports, tos: 0 }
            .write(&mut frame);
        let (into, lost) = unpacked(&frame, outer::LEN_V4, 1000, 1);
        assert_eq!((into.len(), lost), (1, 0));
        let offload = &into[0].offload;
        assert_eq!(offload.gso, Some(Gso { kind: GsoKind::Udp, size: 1000, ecn: false }));
        assert_eq!(datagrams(into[0].frame.data(), offload, outer::LEN_V4).len(), 3);
    }

    #[test]
    fn a_pool_run_dry_loses_what_does_not_fit_and_says_so() {
        let (frame, offload) = super_frame(false, false, 3000, 1000, 0x10, true);
        let mut parts = datagrams(&frame, &offload, outer::LEN_V4);
        parts[1][NETWORK + 15] ^= 1;
        let buffer = [&frame[..outer::LEN_V4], &parts.concat()].concat();
        let (into, lost) = unpacked(&buffer, outer::LEN_V4, parts[0].len(), 2);
        assert_eq!((into.len(), lost), (2, 1));
        assert_eq!(into[0].frame.data()[outer::LEN_V4..], parts[0]);
        assert_eq!(into[1].frame.data()[outer::LEN_V4..], parts[1]);
    }
}
