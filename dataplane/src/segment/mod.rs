//! Turns a super-frame into the packets a wire carries: complete headers of each segment, checksums included.
//!
//! [`Segmenter`] only writes headers and names payload ranges, so that a port with vectored sends need not copy the
//! payload; [`lower`] and [`split_oversized`] make frames of them.

mod layout;
mod lower;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use layout::SegmentError;
pub use lower::{LowerError, lower, split_oversized};

use crate::checksum;
use crate::limits::ETHERNET;
use crate::offload::{Checksum, Gso, Offload};
use layout::{Layout, TCP_CHECKSUM, UDP_CHECKSUM};

/// Room for all headers of one segment: an outer Ethernet, IP, UDP and VXLAN header of up to 90 bytes and an inner
/// Ethernet, IP and TCP header of up to 134, or extension headers instead of some of them.
pub const MAX_HEADERS: usize = 256;

/// Segments one super-frame may have. 65,535 bytes at the smallest MSS that Linux speaks (`tcp_min_snd_mss`, 48) are
/// 1,366; without a bound one frame of a workload with raw sockets could ask for 65,535 packets.
pub const MAX_SEGMENTS: usize = 1400;

/// TCP flags that only the last segment keeps.
const FIN_PSH: u8 = 0x01 | 0x08;
/// The TCP flag that only the first segment keeps (RFC 3168 §6.1.2).
const CWR: u8 = 0x80;

/// One piece of a super-frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Bytes written into the header buffer.
    pub header_len: usize,
    /// Where the payload stands in the super-frame.
    pub payload: Range<usize>,
}

/// Who finishes the innermost checksum of the segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// We do: the whole segment is ready for the wire.
    Complete,
    /// The port: the field holds the pseudo-header sum (`Checksum::Partial`). An outer checksum is complete all the
    /// same, and the payload is not read.
    Partial,
}

/// Cuts one super-frame into segments.
///
/// The segments are those that the sender would have sent one by one: IP identification and TCP sequence number count
/// on, CWR is on the first only, FIN and PSH on the last only.
#[derive(Debug)]
pub struct Segmenter<'a> {
    frame: &'a [u8],
    layout: Layout,
    /// The headers of every segment, with zeroes where they differ.
    template: [u8; MAX_HEADERS],
    /// Payload bytes of a segment.
    size: usize,
    /// Payload bytes of a piece: `size`, or a multiple of it when pieces are super-frames themselves.
    step: usize,
    /// Payload bytes handed out so far.
    done: usize,
    finish: Finish,
    sums: Sums,
    first: First,
}

/// Sums over the template, each without what differs between segments.
#[derive(Debug, Default)]
struct Sums {
    inner_ip: u64,
    pseudo: u64,
    transport: u64,
    outer_ip: u64,
    outer_pseudo: u64,
    /// The outer UDP header and everything up to the inner transport header, an inner IPv4 header excepted: with its
    /// checksum it sums up to zero.
    outer_transport: u64,
}

/// The fields that count on, as the first segment has them.
#[derive(Debug, Default)]
struct First {
    outer_id: u16,
    inner_id: u16,
    sequence: u32,
    flags: u8,
}

impl<'a> Segmenter<'a> {
    /// Checks that `frame` is the super-frame that `offload` describes.
    ///
    /// # Errors
    /// When it is not; see [`SegmentError`].
    #[inline]
    pub fn new(frame: &'a [u8], offload: &Offload) -> Result<Self, SegmentError> {
        let layout = Layout::parse(frame, offload)?;
        let size = layout.size;
        let mut template = [0u8; MAX_HEADERS];
        template[..layout.payload].copy_from_slice(&frame[..layout.payload]);
        let (sums, first) = prepare(&mut template, &layout);
        Ok(Self { frame, layout, template, size, step: size, done: 0, finish: Finish::Complete, sums, first })
    }

    /// Chooses who finishes the innermost checksum; [`Finish::Complete`] unless called.
    #[must_use]
    pub fn finish(mut self, finish: Finish) -> Self {
        self.finish = finish;
        self
    }

    /// Makes the pieces super-frames of `segments` segments each.
    fn stepping(mut self, segments: usize) -> Self {
        self.step = self.size * segments;
        self.finish = Finish::Partial;
        self
    }

    /// Pieces in all; at least one, since a super-frame without payload is one segment.
    #[inline]
    pub fn count(&self) -> usize {
        self.layout.payload_len(self.frame).div_ceil(self.step).max(1)
    }

    /// Bytes of headers of each segment.
    #[inline]
    pub fn header_len(&self) -> usize {
        self.layout.payload
    }

    /// Writes the headers of the next segment to the front of `header`; `None` when there are no more.
    #[inline]
    pub fn next(&mut self, header: &mut [u8; MAX_HEADERS]) -> Option<Segment> {
        let total = self.layout.payload_len(self.frame);
        if self.done >= total && self.done > 0 {
            return None;
        }
        let from = self.done;
        let len = self.step.min(total - from);
        // At least one, so that a super-frame without payload ends as well.
        self.done = (from + len).max(1);
        let header_len = self.layout.payload;
        let payload = header_len + from..header_len + from + len;
        *header = self.template;
        self.write(header, from, &self.frame[payload.clone()]);
        Some(Segment { header_len, payload })
    }

    /// What is unfinished in a piece of the super-frame described by `whole`.
    fn offload_of(&self, piece: &Segment, whole: &Offload) -> Offload {
        let field = if self.layout.udp { UDP_CHECKSUM } else { TCP_CHECKSUM };
        let checksum = match self.finish {
            Finish::Complete => Checksum::Complete,
            Finish::Partial => {
                Checksum::Partial { start: self.layout.transport as u16, offset: field as u16 }
            }
        };
        if piece.payload.len() <= self.size {
            return Offload { checksum, gso: None, tunnel: None };
        }
        // CWR went with the first piece.
        let first = piece.payload.start == piece.header_len;
        let gso = whole.gso.map(|gso| Gso { ecn: gso.ecn && first, ..gso });
        Offload { checksum, gso, tunnel: whole.tunnel }
    }

    /// Fills in what is this segment's own.
    #[inline]
    fn write(&self, header: &mut [u8; MAX_HEADERS], from: usize, payload: &[u8]) {
        let (layout, first, sums) = (&self.layout, &self.first, &self.sums);
        let index = (from / self.size) as u16;
        let last = from + payload.len() == layout.payload_len(self.frame);
        let end = layout.payload + payload.len();
        let length = end - layout.transport;

        let mut transport = sums.transport;
        if layout.udp {
            put16(header, layout.transport + 4, length as u16);
            transport += length as u64;
        } else {
            let sequence = first.sequence.wrapping_add(from as u32);
            put32(header, layout.transport + 4, sequence);
            let mut flags = first.flags;
            if !last {
                flags &= !FIN_PSH;
            }
            if from > 0 {
                flags &= !CWR;
            }
            header[layout.transport + 13] = flags;
            transport += u64::from(sequence) + u64::from(flags);
        }
        let pseudo = sums.pseudo + length as u64;
        let field = layout.transport + if layout.udp { UDP_CHECKSUM } else { TCP_CHECKSUM };
        let whole = || checksum::sum(payload, transport + pseudo);
        let value = match self.finish {
            Finish::Partial => checksum::fold(pseudo),
            Finish::Complete if layout.udp => checksum::finish_udp(whole()),
            Finish::Complete => checksum::finish(whole()),
        };
        put16(header, field, value);

        let ip_len = end - layout.network;
        if layout.v6 {
            put16(header, layout.network + 4, (ip_len - 40) as u16);
        } else {
            put_v4(header, layout.network, sums.inner_ip, first.inner_id.wrapping_add(index), ip_len);
        }
        self.write_outer(header, index, pseudo, payload.len());
    }

    /// `inner_pseudo` is the sum of the inner pseudo-header of this segment.
    #[inline]
    fn write_outer(&self, header: &mut [u8; MAX_HEADERS], index: u16, inner_pseudo: u64, payload_len: usize) {
        let (layout, sums) = (&self.layout, &self.sums);
        let Some(tunnel) = layout.tunnel else { return };
        let end = layout.payload + payload_len;
        let udp = usize::from(tunnel.outer_transport);
        let length = (end - udp) as u16;
        put16(header, udp + 4, length);
        if tunnel.outer_v6 {
            put16(header, ETHERNET + 4, length);
        } else {
            let id = self.first.outer_id.wrapping_add(index);
            put_v4(header, ETHERNET, sums.outer_ip, id, end - ETHERNET);
        }
        if !tunnel.outer_checksum {
            return;
        }
        let pseudo = sums.outer_pseudo + u64::from(length);
        let value = if payload_len > self.size {
            checksum::fold(pseudo)
        } else {
            // Whatever transport checksum is right makes its bytes sum up to the complement of its pseudo-header.
            let inner = u64::from(!checksum::fold(inner_pseudo));
            let inner_ip = if layout.v6 { (end - layout.network - 40) as u64 } else { 0 };
            checksum::finish_udp(pseudo + sums.outer_transport + u64::from(length) + inner_ip + inner)
        };
        put16(header, udp + UDP_CHECKSUM, value);
    }
}

/// Zeroes the fields that differ between segments and sums up the rest.
fn prepare(template: &mut [u8; MAX_HEADERS], layout: &Layout) -> (Sums, First) {
    let mut sums = Sums::default();
    let mut first = First::default();
    let (network, transport) = (layout.network, layout.transport);

    if layout.udp {
        put16(template, transport + 4, 0);
        put16(template, transport + UDP_CHECKSUM, 0);
    } else {
        first.sequence = get32(template, transport + 4);
        first.flags = template[transport + 13];
        put32(template, transport + 4, 0);
        template[transport + 13] = 0;
        put16(template, transport + TCP_CHECKSUM, 0);
    }
    sums.transport = checksum::sum(&template[transport..layout.payload], 0);

    let protocol = if layout.udp { 17 } else { 6 };
    let addresses = if layout.v6 { network + 8..network + 40 } else { network + 12..network + 20 };
    sums.pseudo = checksum::sum(&template[addresses], protocol);
    if layout.v6 {
        put16(template, network + 4, 0);
    } else {
        first.inner_id = get16(template, network + 4);
        sums.inner_ip = clear_v4(template, network, transport);
    }

    if let Some(tunnel) = layout.tunnel {
        let udp = usize::from(tunnel.outer_transport);
        put16(template, udp + 4, 0);
        put16(template, udp + UDP_CHECKSUM, 0);
        let addresses =
            if tunnel.outer_v6 { ETHERNET + 8..ETHERNET + 40 } else { ETHERNET + 12..ETHERNET + 20 };
        sums.outer_pseudo = checksum::sum(&template[addresses], 17);
        if tunnel.outer_v6 {
            put16(template, ETHERNET + 4, 0);
        } else {
            first.outer_id = get16(template, ETHERNET + 4);
            sums.outer_ip = clear_v4(template, ETHERNET, udp);
        }
        let covered = if layout.v6 { udp..transport } else { udp..network };
        sums.outer_transport = checksum::sum(&template[covered], 0);
    }
    (sums, first)
}

/// Zeroes length, identification and checksum of an IPv4 header; returns the sum of the rest.
fn clear_v4(template: &mut [u8; MAX_HEADERS], at: usize, end: usize) -> u64 {
    put32(template, at + 2, 0);
    put16(template, at + 10, 0);
    checksum::sum(&template[at..end], 0)
}

/// Completes an IPv4 header whose other fields add up to `sum`.
#[inline]
fn put_v4(header: &mut [u8; MAX_HEADERS], at: usize, sum: u64, id: u16, len: usize) {
    put16(header, at + 2, len as u16);
    put16(header, at + 4, id);
    put16(header, at + 10, checksum::finish(sum + len as u64 + u64::from(id)));
}

#[inline]
fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[inline]
fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

#[inline]
fn get16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
fn get32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
