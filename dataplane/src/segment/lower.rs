//! Makes a packet fit what its port can take.

use super::{Finish, MAX_HEADERS, SegmentError, Segmenter};
use crate::checksum::{self, OutOfPacket};
use crate::frame::{Frame, FramePool};
use crate::limits::{ETHERNET, MAX_IP};
use crate::offload::{Caps, Checksum, GsoKind, Offload};
use crate::port::{Egress, Outgoing};

/// Why a packet could not be made to fit its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    /// It is not what its offload says.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// Its unfinished checksum is not in it.
    #[error(transparent)]
    Checksum(#[from] OutOfPacket),
    /// The pool has fewer frames than the packet has pieces.
    #[error("no free frames")]
    NoFrames,
    /// A piece does not fit a frame of the pool.
    #[error("frames of the pool are too small")]
    FrameTooSmall,
    /// Not even one segment fits the limit.
    #[error("a single segment exceeds the limit")]
    SegmentTooLarge,
}

/// Appends `frame` to `out` in a shape that a port with `caps` takes, cutting it into several frames when need be:
/// finishes checksums, segments super-frames, and splits tunnelled ones whose outer IP packet would exceed 65,535
/// bytes. Returns the number of frames appended.
///
/// A super-frame that stays one leaves with a `Checksum::Partial`, because that is how every kernel interface expects
/// it. A tunnelled packet that is no super-frame leaves with its outer checksum complete.
///
/// # Errors
/// Any of [`LowerError`]; the frame is then back in `pool` and `out` is as it was.
pub fn lower(
    mut frame: Frame,
    offload: Offload,
    caps: Caps,
    egress: Egress,
    pool: &mut FramePool,
    out: &mut Vec<Outgoing>,
) -> Result<usize, LowerError> {
    let Some(gso) = offload.gso else {
        return match finish_single(frame.data_mut(), &offload, caps) {
            Ok(offload) => {
                out.push(Outgoing { frame, offload, egress });
                Ok(1)
            }
            Err(error) => {
                pool.give(frame);
                Err(error.into())
            }
        };
    };
    let kind_taken = if gso.kind == GsoKind::Udp { caps.uso } else { caps.tso };
    let taken = kind_taken && caps.checksum && (offload.tunnel.is_none() || caps.tunnel);
    let fits = frame.len() <= ETHERNET + MAX_IP;
    if taken && fits && matches!(offload.checksum, Checksum::Partial { .. }) {
        out.push(Outgoing { frame, offload, egress });
        Ok(1)
    } else if taken {
        split_oversized(frame, offload, MAX_IP, egress, pool, out)
    } else {
        let finish = if caps.checksum { Finish::Partial } else { Finish::Complete };
        cut(frame, offload, Cut::Segments(finish), egress, pool, out)
    }
}

/// Cuts a super-frame into as few smaller ones as keep each (outer) IP packet within `max_ip_len` bytes, at segment
/// boundaries; appends them to `out` and returns their number. One that fits is passed on with its checksum fields
/// made `Partial`. A piece of one segment only is a plain packet, with its outer checksum complete.
///
/// A UDP socket takes 65,507 bytes of payload over IPv4, which is `max_ip_len` 65,535 (the IP and UDP headers count).
///
/// # Errors
/// Any of [`LowerError`]; the frame is then back in `pool` and `out` is as it was.
pub fn split_oversized(
    frame: Frame,
    offload: Offload,
    max_ip_len: usize,
    egress: Egress,
    pool: &mut FramePool,
    out: &mut Vec<Outgoing>,
) -> Result<usize, LowerError> {
    cut(frame, offload, Cut::Supers { max_ip_len: max_ip_len.min(MAX_IP) }, egress, pool, out)
}

/// What to cut a super-frame into.
#[derive(Clone, Copy)]
enum Cut {
    Segments(Finish),
    Supers { max_ip_len: usize },
}

fn finish_single(packet: &mut [u8], offload: &Offload, caps: Caps) -> Result<Offload, OutOfPacket> {
    if let Some(tunnel) = offload.tunnel.filter(|tunnel| tunnel.outer_checksum) {
        let outer_transport = usize::from(tunnel.outer_transport);
        checksum::finish_outer_udp(packet, tunnel.outer_v6, outer_transport, offload.checksum)?;
    }
    match offload.checksum {
        Checksum::Partial { start, offset } if !caps.checksum => {
            checksum::finish_partial(packet, start, offset)?;
            Ok(Offload::NONE)
        }
        checksum => Ok(Offload { checksum, gso: None, tunnel: None }),
    }
}

fn cut(
    mut frame: Frame,
    offload: Offload,
    into: Cut,
    egress: Egress,
    pool: &mut FramePool,
    out: &mut Vec<Outgoing>,
) -> Result<usize, LowerError> {
    let before = out.len();
    match cut_into(&mut frame, offload, into, egress, pool, out) {
        Ok((count, offload)) => {
            // The first piece stayed in the super-frame's own memory and the others went ahead of it.
            out.push(Outgoing { frame, offload, egress });
            out[before..].rotate_right(1);
            Ok(count)
        }
        Err(error) => {
            out.drain(before..).for_each(|piece| pool.give(piece.frame));
            pool.give(frame);
            Err(error)
        }
    }
}

/// Appends all pieces but the first to `out` and leaves the first in `frame`; returns their number and the offload of
/// the first.
fn cut_into(
    frame: &mut Frame,
    offload: Offload,
    into: Cut,
    egress: Egress,
    pool: &mut FramePool,
    out: &mut Vec<Outgoing>,
) -> Result<(usize, Offload), LowerError> {
    let pieces = Segmenter::new(frame.data(), &offload)?;
    let mut pieces = match into {
        Cut::Segments(finish) => pieces.finish(finish),
        Cut::Supers { max_ip_len } => {
            let room = (max_ip_len + ETHERNET).saturating_sub(pieces.header_len());
            let segments = room / pieces.size;
            if segments == 0 {
                return Err(LowerError::SegmentTooLarge);
            }
            pieces.stepping(segments)
        }
    };
    let count = pieces.count();
    if pool.available() < count - 1 {
        return Err(LowerError::NoFrames);
    }
    let mut first_header = [0; MAX_HEADERS];
    let Some(first) = pieces.next(&mut first_header) else {
        unreachable!("a super-frame has at least one piece");
    };
    let mut header = [0; MAX_HEADERS];
    while let Some(segment) = pieces.next(&mut header) {
        let mut copy = pool.take().ok_or(LowerError::NoFrames)?;
        let payload = &frame.data()[segment.payload.clone()];
        if !fill(&mut copy, &header[..segment.header_len], payload) {
            pool.give(copy);
            return Err(LowerError::FrameTooSmall);
        }
        let offload = pieces.offload_of(&segment, &offload);
        out.push(Outgoing { frame: copy, offload, egress });
    }
    let offload = pieces.offload_of(&first, &offload);
    frame.data_mut()[..first.header_len].copy_from_slice(&first_header[..first.header_len]);
    // It starts right behind the headers and only gets shorter.
    let shortened = frame.set_len(first.payload.end);
    debug_assert!(shortened);
    Ok((count, offload))
}

fn fill(frame: &mut Frame, header: &[u8], payload: &[u8]) -> bool {
    let fits = frame.set_len(header.len() + payload.len());
    if fits {
        let (front, back) = frame.data_mut().split_at_mut(header.len());
        front.copy_from_slice(header);
        back.copy_from_slice(payload);
    }
    fits
}
