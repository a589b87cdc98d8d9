//! What a gateway interface brings: plain frames. Segments of one TCP stream that stays on this host become one super-frame,
//! as [`super::gather`] makes them of VXLAN datagrams.

use std::net::IpAddr;

use canal_dataplane::coalesce::Coalescer;
use canal_dataplane::frame::{Frame, FramePool};
use canal_dataplane::port::{Ingress, Received};

use crate::udp::{plain_offload, plain_tcp_target};

/// Delivers `frames` to `into`, each stream in its order, merged where it goes to where `stays` says; buffers come from
/// `pool`, and frames that were copied go back to it. A packet of more than `mtu` bytes was never on a wire.
pub fn deliver(
    frames: &mut Vec<Frame>,
    mtu: usize,
    ingress: Ingress,
    stays: impl Fn(IpAddr) -> bool,
    coalescer: &mut Coalescer,
    pool: &mut FramePool,
    into: &mut Vec<Received>,
) {
    let received = frames.drain(..).map(|mut frame| {
        let offload = plain_offload(frame.data_mut(), mtu);
        Received { frame, offload, ingress }
    });
    let wanted = |frame: &[u8]| plain_tcp_target(frame).is_some_and(&stays);
    coalescer.append(received, wanted, pool, into);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::udp::unpack_cases::{datagrams, stream};
    use canal_dataplane::limits::{BATCH, SUPER_FRAME_BUFFER};
    use proptest::prelude::*;

    const CHUNK: usize = 2048;
    /// Larger than any segment of the generator, each of which came over a wire.
    const MTU: usize = CHUNK;
    /// Bytes of a frame that say whose it is, and whether it is TCP at all: up to the length of its header, over IPv6.
    const ADDRESSED: usize = 14 + 40 + 13;
    const GATEWAY: Ingress = Ingress::Gateway(7);

    /// The frames of a stream, as they came over a wire.
    fn frames_of(v6: bool) -> impl Strategy<Value = Vec<Vec<u8>>> {
        stream(Just(v6)).prop_map(|(frame, offload, outer_len)| {
            const VXLAN: usize = 8;
            datagrams(&frame, &offload, outer_len).into_iter().map(|part| part[VXLAN..].to_vec()).collect()
        })
    }

    /// Frames of one stream.
    #[derive(Clone, Debug, Default)]
    struct Stream {
        frames: Vec<Vec<u8>>,
        /// Those whose headers were damaged: they may be another stream's now, and overtaken.
        strange: Vec<Vec<u8>>,
    }

    /// Two streams, IPv4 and IPv6, of which segments were damaged and exchanged, and something else.
    fn streams() -> impl Strategy<Value = [Stream; 3]> {
        let damage = proptest::collection::vec((any::<usize>(), 0usize..120, any::<u8>()), 0..3);
        let swap = proptest::option::weighted(0.3, any::<(usize, usize)>());
        let spoiled = |v6| {
            (frames_of(v6), damage.clone(), swap.clone()).prop_map(|(mut frames, damage, swap)| {
                let count = frames.len();
                let mut strange = BTreeSet::new();
                for (victim, at, byte) in damage {
                    let victim = victim % count;
                    let at = at % frames[victim].len();
                    frames[victim][at] = byte;
                    if at < ADDRESSED {
                        strange.insert(victim);
                    }
                }
                let strange = strange.into_iter().map(|victim| frames[victim].clone()).collect();
                if let Some((a, b)) = swap {
                    frames.swap(a % count, b % count);
                }
                Stream { frames, strange }
            })
        };
        let others = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 14..80), 0..3)
            .prop_map(|frames| Stream { frames, strange: Vec::new() });
        (spoiled(false), spoiled(true), others).prop_map(|(v4, v6, others)| [v4, v6, others])
    }

    /// The streams in one queue, taken by turns.
    fn queue(streams: &[Stream; 3], turns: &[usize]) -> Vec<Vec<u8>> {
        let mut left = streams.each_ref().map(|stream| stream.frames.iter());
        let first = turns.iter().filter_map(|turn| left[turn % 3].next().cloned()).collect::<Vec<_>>();
        first.into_iter().chain(left.into_iter().flatten().cloned()).collect()
    }

    fn taken(queue: &[Vec<u8>], chunks: &mut FramePool) -> Vec<Frame> {
        let filled = |bytes: &Vec<u8>| {
            let mut frame = chunks.take().unwrap();
            assert!(frame.fill(bytes));
            frame
        };
        queue.iter().map(filled).collect()
    }

    fn size(frame: &Frame) -> usize {
        frame.headroom() + frame.len() + frame.tailroom()
    }

    proptest! {
        #[test]
        fn what_is_delivered_is_what_came(
            streams in streams(), turns in proptest::collection::vec(0usize..3, 0..2 * BATCH),
            stays in any::<(bool, bool)>(), buffers in 0usize..4, others in 0usize..2,
        ) {
            let queue = queue(&streams, &turns);
            let mut chunks = FramePool::new(queue.len(), CHUNK);
            let mut pool = FramePool::new(buffers + others, SUPER_FRAME_BUFFER);
            let mut frames = taken(&queue, &mut chunks);
            // Another interface was first.
            let before = |_| Received { frame: pool.take().unwrap(), offload: Default::default(), ingress: Ingress::Underlay };
            let mut into: Vec<_> = (0..others).map(before).collect();
            let stays = |target: IpAddr| if target.is_ipv4() { stays.0 } else { stays.1 };
            deliver(&mut frames, MTU, GATEWAY, stays, &mut Coalescer::new(), &mut pool, &mut into);

            let before: Vec<_> = into.drain(..others).collect();
            prop_assert!(before.iter().all(|other| other.ingress == Ingress::Underlay && other.frame.is_empty()));
            let mut out = Vec::new();
            for Received { frame, offload, ingress } in &into {
                prop_assert_eq!(*ingress, GATEWAY);
                let target = plain_tcp_target(frame.data());
                prop_assert!(offload.gso.is_none() || target.is_some_and(stays), "what does not stay is as it came");
                prop_assert!(offload.gso.is_some() || size(frame) == CHUNK, "and where it lay");
                out.extend(datagrams(frame.data(), offload, 0));
            }
            prop_assert_eq!(out.len(), queue.len());
            for Stream { frames, strange } in &streams {
                let is_of = |frame: &&Vec<u8>| frames.contains(frame) && !strange.contains(frame);
                let of = |all: &[Vec<u8>]| all.iter().filter(is_of).cloned().collect::<Vec<_>>();
                prop_assert!(of(&out) == of(&queue), "each stream is in its order");
            }
            let sorted = |mut all: Vec<Vec<u8>>| { all.sort_unstable(); all };
            prop_assert!(sorted(out) == sorted(queue.clone()), "and all is there");
            let held = |of| into.iter().filter(|received| size(&received.frame) == of).count();
            prop_assert_eq!(held(CHUNK) + pool.guests(), queue.len(), "every chunk is there");
            prop_assert_eq!(held(SUPER_FRAME_BUFFER) + pool.available(), buffers, "every buffer is there");
        }

        #[test]
        fn a_stream_that_stays_is_one_super_frame_whose_chunks_are_free_again(v6: bool, streams in (frames_of(false), frames_of(true))) {
            let queue = if v6 { streams.1 } else { streams.0 };
            let mut chunks = FramePool::new(queue.len(), CHUNK);
            let mut pool = FramePool::new(1, SUPER_FRAME_BUFFER);
            let (mut frames, mut into) = (taken(&queue, &mut chunks), Vec::new());
            deliver(&mut frames, MTU, GATEWAY, |_| true, &mut Coalescer::new(), &mut pool, &mut into);
            prop_assert_eq!(into.len(), 1);
            // What has room in the first one's chunk stays there.
            let stayed = usize::from(size(&into[0].frame) == CHUNK);
            prop_assert_eq!(pool.guests(), queue.len() - stayed);
        }
    }
}
