//! Puts VXLAN datagrams of one sender and flow that follow one another into one buffer, as a socket with UDP_GRO delivers
//! them, for [`unpack`] to make inner TCP super-frames of. What a port brings in MTU-sized pieces is to cross the TAP device
//! and the workload's stack as one.

use std::net::IpAddr;

use canal_dataplane::frame::{Frame, FramePool};
use canal_dataplane::limits::{ETHERNET, MAX_IP};
use canal_dataplane::offload::Offload;
use canal_dataplane::port::{Ingress, Received};

use crate::udp::{Outer, inner_offload, inner_tcp_target, unpack};

/// Payload bytes from which two segments are worth a copy each.
const WORTH: usize = 512;

/// Datagrams collected so far; at least two, and all but the last of one length.
struct Group {
    buffer: Frame,
    outer: Outer,
    stride: usize,
    /// The last was shorter: nothing may follow it.
    closed: bool,
}

/// A frame that the next may be joined to.
struct Single {
    frame: Frame,
    outer: Outer,
}

/// Delivers `frames` in their order to `into`, joined where that pays; buffers come from `pool`, and frames that were copied
/// go back to it. An inner packet of more than `mtu` bytes was never on a wire (see [`unpack`]). Only what goes to where `stays`
/// says is joined. Returns how many datagrams were lost.
pub fn gather(
    frames: &mut Vec<Frame>,
    mtu: usize,
    stays: impl Fn(IpAddr) -> bool,
    pool: &mut FramePool,
    into: &mut Vec<Received>,
) -> u64 {
    let mut lost = 0;
    let (mut group, mut single): (Option<Group>, Option<Single>) = (None, None);
    for frame in frames.drain(..) {
        let Some(outer) = Outer::read(frame.data()) else {
            lost += end(&mut group, &mut single, mtu, pool, into);
            into.push(received(frame, Offload::NONE));
            continue;
        };
        if !inner_tcp_target(&frame.data()[outer.len()..], WORTH).is_some_and(&stays) {
            lost += end(&mut group, &mut single, mtu, pool, into);
            deliver(frame, &outer, mtu, into);
            continue;
        }
        if let Some(open) = &mut group {
            if open.append(&frame, &outer) {
                pool.give(frame);
                continue;
            }
        } else if let Some(first) = &single
            && let Some(begun) = Group::begin(first, &frame, &outer, pool)
        {
            group = Some(begun);
            single.take().into_iter().for_each(|first| pool.give(first.frame));
            pool.give(frame);
            continue;
        }
        lost += end(&mut group, &mut single, mtu, pool, into);
        single = Some(Single { frame, outer });
    }
    lost + end(&mut group, &mut single, mtu, pool, into)
}

/// Delivers what was collected.
fn end(
    group: &mut Option<Group>,
    single: &mut Option<Single>,
    mtu: usize,
    pool: &mut FramePool,
    into: &mut Vec<Received>,
) -> u64 {
    if let Some(Single { frame, outer }) = single.take() {
        deliver(frame, &outer, mtu, into);
    }
    group.take().map_or(0, |group| unpack(group.buffer, group.outer.len(), group.stride, mtu, pool, into))
}

fn deliver(mut frame: Frame, outer: &Outer, mtu: usize, into: &mut Vec<Received>) {
    let offload = inner_offload(&mut frame.data_mut()[outer.len()..], outer.len(), mtu, None);
    into.push(received(frame, offload));
}

fn received(frame: Frame, offload: Offload) -> Received {
    Received { frame, offload, ingress: Ingress::Underlay }
}

impl Group {
    /// Joins two frames if they go together; both are copied.
    fn begin(first: &Single, second: &Frame, outer: &Outer, pool: &mut FramePool) -> Option<Self> {
        let stride = first.frame.len() - first.outer.len();
        if first.outer != *outer || second.len() > first.frame.len() {
            return None;
        }
        let mut buffer = pool.take()?;
        if !buffer.fill(first.frame.data()) {
            pool.give(buffer);
            return None;
        }
        let mut group = Self { buffer, outer: *outer, stride, closed: false };
        if group.append(second, outer) {
            return Some(group);
        }
        pool.give(group.buffer);
        None
    }

    /// Copies the datagram of `frame` behind the others; false when it does not belong there.
    fn append(&mut self, frame: &Frame, outer: &Outer) -> bool {
        let Some(datagram) = frame.data().get(outer.len()..) else { return false };
        let from = self.buffer.len();
        let fits = !self.closed
            && *outer == self.outer
            && datagram.len() <= self.stride
            && from + datagram.len() <= ETHERNET + MAX_IP
            && self.buffer.set_len(from + datagram.len());
        if fits {
            self.buffer.data_mut()[from..].copy_from_slice(datagram);
            self.closed = datagram.len() < self.stride;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp::set_lengths;
    use crate::udp::unpack_cases::{case, datagrams};
    use canal_dataplane::limits::SUPER_FRAME_BUFFER;
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;

    const CHUNK: usize = 2048;

    /// Larger than any segment of the generator, each of which came over a wire.
    const MTU: usize = CHUNK;

    /// Frames of a wire, each with its own outer headers.
    fn wire(outer: &[u8], parts: &[Vec<u8>], chunks: &mut FramePool) -> Vec<Frame> {
        let mut frames = Vec::new();
        for part in parts {
            let mut frame = chunks.take().unwrap();
            assert!(frame.fill(&[outer, part].concat()));
            set_lengths(frame.data_mut());
            frames.push(frame);
        }
        frames
    }

    proptest! {
        #[test]
        fn what_is_gathered_is_what_came(
            (frame, offload, outer_len) in case(),
            damage in proptest::collection::vec((0usize..12, 0usize..120, any::<u8>()), 0..3),
            others in proptest::collection::vec((0usize..12, any::<u8>()), 0..3),
            buffers in 0usize..4,
        ) {
            let mut parts = datagrams(&frame, &offload, outer_len);
            let count = parts.len();
            for (part, at, byte) in damage {
                let part = &mut parts[part % count];
                let at = at % part.len();
                part[at] = byte;
            }
            for (at, byte) in others {
                parts.insert(at % (parts.len() + 1), vec![byte; 60]);
            }
            let mut chunks = FramePool::new(parts.len(), CHUNK);
            let mut pool = FramePool::new(buffers, SUPER_FRAME_BUFFER);
            let mut frames = wire(&frame[..outer_len], &parts, &mut chunks);
            let mut into = Vec::new();
            let lost = gather(&mut frames, MTU, |_| true, &mut pool, &mut into);
            let out: Vec<_> =
                into.iter().flat_map(|r| datagrams(r.frame.data(), &r.offload, outer_len)).collect();
            // A buffer that breaks up into more pieces than there are frames for loses some; only then.
            prop_assert_eq!(out.len() + lost as usize, parts.len());
            if lost == 0 {
                prop_assert_eq!(&out, &parts);
            } else {
                prop_assert_eq!(pool.available(), 0);
            }
            let held = |size| into.iter().filter(|r| r.frame.headroom() + r.frame.len() + r.frame.tailroom() == size).count();
            prop_assert_eq!(held(CHUNK) + pool.guests(), parts.len(), "every chunk is there");
            prop_assert_eq!(held(SUPER_FRAME_BUFFER) + pool.available(), buffers, "every buffer is there");
        }
    }

    #[test]
    fn a_stream_is_one_super_frame_whose_chunks_are_free_again() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let whole =
            |(_, offload, _): &(Vec<u8>, Offload, usize)| offload.gso.is_some_and(|gso| gso.size > 600);
        let (frame, offload, outer_len) =
            case().prop_filter("worth it", whole).new_tree(&mut runner).unwrap().current();
        let parts = datagrams(&frame, &offload, outer_len);
        assert!(parts.len() > 1, "the generator's first case has several segments");
        let mut chunks = FramePool::new(parts.len(), CHUNK);
        let mut pool = FramePool::new(1, SUPER_FRAME_BUFFER);
        let mut frames = wire(&frame[..outer_len], &parts, &mut chunks);
        let mut into = Vec::new();
        let mut others = wire(&frame[..outer_len], &parts, &mut FramePool::new(parts.len(), CHUNK));
        assert_eq!(gather(&mut others, MTU, |_| false, &mut pool, &mut into), 0);
        assert_eq!(into.drain(..).count(), parts.len(), "what does not stay goes on as it came");
        assert_eq!(gather(&mut frames, MTU, |_| true, &mut pool, &mut into), 0);
        let last_is_small = parts.last().unwrap().len() < WORTH + 100;
        assert!(into.len() == 1 || (into.len() == 2 && last_is_small), "{} frames", into.len());
        assert_eq!(pool.guests(), parts.len() + 1 - into.len());
    }
}
