//! Merging a buffer of datagrams that a socket received in one piece (UDP GRO).

use super::TcpChecksums;
use super::tcp::Tcp;
use crate::frame::Frame;
use crate::limits::{ETHERNET, MAX_IP};
use crate::offload::Offload;
use crate::segment::{MAX_HEADERS, MAX_SEGMENTS};

/// Bytes at the end of the prefix that must be the same in every datagram: the VXLAN header. UDP GRO compares outer
/// addresses and ports only, so one buffer may hold frames of several networks.
const VXLAN: usize = 8;

/// Merges the datagrams in `frame` into one TCP super-frame, in the same memory.
///
/// The frame holds two or more datagrams of `stride` bytes each (the last may be shorter). Each begins with `prefix`
/// bytes of tunnel header, of which only the last eight are compared, followed by an inner Ethernet frame. Afterwards
/// the frame holds the first datagram's prefix and one Ethernet frame with the payload of all; the offload returned
/// counts its offsets from the first byte of the prefix. Lengths in the prefix are the caller's business.
///
/// Merged are segments of one connection with equal TOS, TTL, options, acknowledgement and window, contiguous sequence
/// numbers, no flags but ACK and PSH, right IPv4 header checksums and, if to be verified, right TCP checksums. PSH of
/// any segment becomes PSH of the whole. In all other cases the answer is `None` and the frame is untouched.
#[inline]
#[must_use]
pub fn merge_in_place(
    frame: &mut Frame,
    prefix: usize,
    stride: usize,
    checksums: TcpChecksums,
) -> Option<Offload> {
    let bytes = frame.data_mut();
    let count = run_length(bytes, prefix, stride, checksums);
    if count < 2 || count < bytes.len().div_ceil(stride) {
        return None;
    }
    let first = Tcp::parse(&bytes[prefix..stride])?;
    let header_len = prefix + first.payload;
    let mut push = first.pushes();
    let mut end = stride;
    for start in (stride..bytes.len()).step_by(stride) {
        let datagram_end = (start + stride).min(bytes.len());
        push |= bytes[start + prefix + first.transport + 13] & 0x08 != 0;
        bytes.copy_within(start + header_len..datagram_end, end);
        end += datagram_end - start - header_len;
    }
    first.make_super(&mut bytes[prefix..], end - prefix, push);
    let shortened = frame.set_len(end);
    debug_assert!(shortened);
    Some(first.super_offload(prefix))
}

/// How many datagrams at the front of `bytes` [`merge_in_place`] could merge if there were no others: 0 when there is
/// no whole one, 1 when the first two do not go together. A port whose buffer holds two super-frames back to back cuts
/// it there.
#[inline]
#[must_use]
pub fn run_length(bytes: &[u8], prefix: usize, stride: usize, checksums: TcpChecksums) -> usize {
    if prefix > MAX_HEADERS || stride <= prefix || bytes.len() < stride {
        return 0;
    }
    let right = |tcp: &Tcp, frame: &[u8]| checksums == TcpChecksums::Trusted || tcp.checksum_is_right(frame);
    let (head, head_frame) = (&bytes[..prefix], &bytes[prefix..stride]);
    let Some(first) = Tcp::parse(head_frame) else { return 1 };
    if !first.is_plain_data(head_frame) || !right(&first, head_frame) {
        return 1;
    }
    let mut sequence = first.next_sequence();
    let mut ip_len = head_frame.len() - ETHERNET;
    let mut count = 1;
    for datagram in bytes.chunks(stride).skip(1).take(MAX_SEGMENTS - 1) {
        let Some((own_head, frame)) = datagram.split_at_checked(prefix) else { break };
        let compared = prefix.saturating_sub(VXLAN);
        let Some(next) = Tcp::parse(frame) else { break };
        ip_len += next.payload_len();
        let fits = own_head[compared..] == head[compared..]
            && first.continues_as(head_frame, &next, frame, count)
            && next.sequence == sequence
            && next.is_plain_data(frame)
            && ip_len <= MAX_IP;
        if !fits || !right(&next, frame) {
            break;
        }
        sequence = next.next_sequence();
        count += 1;
    }
    count
}
