//! IPv4 fragmentation (RFC 791 §3.2) of packets that allow it, so that they fit the overlay's MTU.

use crate::checksum;
use crate::frame::{Frame, FramePool};
use crate::limits::{ETHERNET, MAX_IP};
use crate::offload::Checksum;

/// Why a packet was not fragmented. It is untouched then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// It must not be: the sender is owed an ICMP error.
    #[error("the packet must not be fragmented")]
    DontFragment,
    /// Not IPv4, cut short, of impossible lengths or with broken options.
    #[error("not a well-formed IPv4 packet")]
    Malformed,
    /// Below the 68 bytes that every link must carry (RFC 791 §3.2).
    #[error("the MTU is too small to carry a fragment")]
    MtuTooSmall,
    /// The pool has fewer frames than the packet would have fragments.
    #[error("no free frames")]
    NoFrames,
    /// A fragment does not fit a frame of the pool.
    #[error("frames of the pool are too small")]
    FrameTooSmall,
}

/// The largest IPv4 header.
const MAX_HEADER: usize = 60;
/// The smallest MTU of any link (RFC 791 §3.2).
const MIN_MTU: usize = 68;
/// Flag and offset bits of the fragment word.
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Cuts the IPv4 packet in `frame` (one packet behind its Ethernet header, no super-frame) into fragments whose IP
/// packets have at most `mtu` bytes. The first stays in `frame`, the others are appended to `rest` in order; returns
/// how many there are in all. One that fits is left as it is, `checksum` included.
///
/// A fragment is fragmented further. An unfinished checksum is finished first: it covers all fragments, so every one
/// that leaves here is `Checksum::Complete`. Options are repeated if their copy flag says so.
///
/// # Errors
/// Any of [`FragmentError`]; frame, pool and `rest` are then as they were.
pub fn fragment_v4(
    frame: &mut Frame,
    checksum: Checksum,
    mtu: usize,
    pool: &mut FramePool,
    rest: &mut Vec<Frame>,
) -> Result<usize, FragmentError> {
    let Some(plan) = Plan::new(frame.data(), mtu)? else { return Ok(1) };
    let before = rest.len();
    let result = plan.reserve(pool, rest).and_then(|()| plan.finish(frame, checksum));
    if let Err(error) = result {
        rest.drain(before..).for_each(|fragment| pool.give(fragment));
        return Err(error);
    }
    plan.fill_rest(frame.data(), &mut rest[before..]);
    plan.shorten_first(frame);
    Ok(plan.count)
}

/// How to cut one packet.
struct Plan {
    /// Bytes of its own header, which the first fragment keeps.
    header_len: usize,
    /// The header of the others, without what differs between them.
    later: [u8; MAX_HEADER],
    later_len: usize,
    /// First byte of the Ethernet frame behind the IP packet.
    end: usize,
    /// Payload bytes of the first fragment.
    first_payload: usize,
    /// Payload bytes of the others but the last.
    later_payload: usize,
    /// Fragments in all.
    count: usize,
    /// The packet's own offset in units of eight bytes, and whether more fragments follow it.
    offset: u16,
    more: bool,
}

impl Plan {
    /// `None` when the packet fits as it is.
    fn new(frame: &[u8], mtu: usize) -> Result<Option<Self>, FragmentError> {
        let malformed = FragmentError::Malformed;
        let packet = frame.get(ETHERNET..).ok_or(malformed)?;
        let fixed = packet.first_chunk::<20>().ok_or(malformed)?;
        let header_len = usize::from(fixed[0] & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if frame[12..ETHERNET] != [8, 0] || fixed[0] >> 4 != 4 || header_len < 20 {
            return Err(malformed);
        }
        if total < header_len || total > packet.len() {
            return Err(malformed);
        }
        if total <= mtu {
            return Ok(None);
        }
        let word = u16::from_be_bytes([fixed[6], fixed[7]]);
        if word & DONT_FRAGMENT != 0 {
            return Err(FragmentError::DontFragment);
        }
        if mtu < MIN_MTU {
            return Err(FragmentError::MtuTooSmall);
        }
        let (offset, more) = (word & OFFSET, word & MORE_FRAGMENTS != 0);
        let payload = total - header_len;
        // The offsets of the pieces must be expressible, and pieces of a piece must be whole units.
        if usize::from(offset) * 8 + payload > MAX_IP || (more && !payload.is_multiple_of(8)) {
            return Err(malformed);
        }
        let mut later = [0; MAX_HEADER];
        let (fixed_part, options) = later.split_at_mut(20);
        fixed_part.copy_from_slice(fixed);
        let later_len = 20 + copied_options(&packet[20..header_len], options).ok_or(malformed)?;
        later[0] = 0x40 | (later_len / 4) as u8;
        let first_payload = (mtu - header_len) / 8 * 8;
        let later_payload = (mtu - later_len) / 8 * 8;
        let count = 1 + (payload - first_payload).div_ceil(later_payload);
        let end = ETHERNET + total;
        Ok(Some(Self {
            header_len,
            later,
            later_len,
            end,
            first_payload,
            later_payload,
            count,
            offset,
            more,
        }))
    }

    /// Takes frames for all fragments but the first.
    fn reserve(&self, pool: &mut FramePool, rest: &mut Vec<Frame>) -> Result<(), FragmentError> {
        for _ in 1..self.count {
            let mut fragment = pool.take().ok_or(FragmentError::NoFrames)?;
            let fits = fragment.set_len(ETHERNET + self.later_len + self.later_payload);
            rest.push(fragment);
            if !fits {
                return Err(FragmentError::FrameTooSmall);
            }
        }
        Ok(())
    }

    /// Finishes the packet's checksum, which no fragment could do for itself.
    fn finish(&self, frame: &mut Frame, checksum: Checksum) -> Result<(), FragmentError> {
        let Checksum::Partial { start, offset } = checksum else { return Ok(()) };
        let whole = self.offset == 0 && !self.more;
        let packet = &mut frame.data_mut()[..self.end];
        if !whole || usize::from(start) < ETHERNET + self.header_len {
            return Err(FragmentError::Malformed);
        }
        checksum::finish_partial(packet, start, offset).map_err(|_| FragmentError::Malformed)
    }

    fn fill_rest(&self, packet: &[u8], fragments: &mut [Frame]) {
        let payload = &packet[ETHERNET + self.header_len + self.first_payload..self.end];
        let mut offset = self.offset + (self.first_payload / 8) as u16;
        let mut pieces = payload.chunks(self.later_payload).peekable();
        for fragment in fragments {
            let Some(piece) = pieces.next() else { unreachable!("one fragment for each piece") };
            let more = self.more || pieces.peek().is_some();
            let cut = fragment.set_len(ETHERNET + self.later_len + piece.len());
            debug_assert!(cut, "was reserved with at least this length");
            let (ethernet, rest) = fragment.data_mut().split_at_mut(ETHERNET);
            let (header, body) = rest.split_at_mut(self.later_len);
            ethernet.copy_from_slice(&packet[..ETHERNET]);
            header.copy_from_slice(&self.later[..self.later_len]);
            body.copy_from_slice(piece);
            complete(header, piece.len(), offset, more);
            offset += (piece.len() / 8) as u16;
        }
    }

    fn shorten_first(&self, frame: &mut Frame) {
        let header_end = ETHERNET + self.header_len;
        let header = &mut frame.data_mut()[ETHERNET..header_end];
        complete(header, self.first_payload, self.offset, true);
        let cut = frame.set_len(header_end + self.first_payload);
        debug_assert!(cut, "only gets shorter");
    }
}

/// Writes the options with the copy flag to the front of `into`, padded to whole words with "end of list"; the number
/// of bytes, or `None` when the options are broken.
fn copied_options(mut options: &[u8], into: &mut [u8]) -> Option<usize> {
    let mut at = 0;
    while let [kind, tail @ ..] = options {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(*tail.first()?),
        };
        let (option, others) = options.split_at_checked(len)?;
        if *kind != 1 && len < 2 {
            return None;
        }
        if kind & 0x80 != 0 {
            into[at..at + len].copy_from_slice(option);
            at += len;
        }
        options = others;
    }
    Some(at.next_multiple_of(4))
}

/// Writes length, fragment word and checksum of a fragment's header.
fn complete(header: &mut [u8], payload: usize, offset: u16, more: bool) {
    let total = (header.len() + payload) as u16;
    let word = offset | if more { MORE_FRAGMENTS } else { 0 };
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[6..8].copy_from_slice(&word.to_be_bytes());
    header[10..12].fill(0);
    let checksum = checksum::finish(checksum::sum(header, 0));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_frames::{Headers, filled, headers, payload, pool, verifies};
    use proptest::prelude::*;

    fn fragmentable() -> impl Strategy<Value = Headers> {
        headers().prop_map(|headers| Headers { v6: false, dont_fragment: false, ..headers })
    }

    /// The fragments, or the error and nothing lost.
    fn fragments(
        packet: &[u8],
        checksum: Checksum,
        mtu: usize,
        frames: usize,
    ) -> Result<Vec<Vec<u8>>, FragmentError> {
        let mut pool = pool(frames);
        let mut first = filled(&mut pool, packet);
        let mut rest = Vec::new();
        let result = fragment_v4(&mut first, checksum, mtu, &mut pool, &mut rest);
        assert_eq!(pool.available() + rest.len() + 1, frames);
        match result {
            Ok(count) => {
                assert_eq!(count, rest.len() + 1);
                Ok([first].iter().chain(&rest).map(|frame| frame.data().to_vec()).collect())
            }
            Err(error) => {
                assert_eq!((first.data(), rest.len()), (packet, 0));
                Err(error)
            }
        }
    }

    /// RFC 791's reassembly, with a map of units; asserts what every fragment must be.
    fn reassembled(fragments: &[Vec<u8>], mtu: usize) -> Vec<u8> {
        let mut data = vec![None; MAX_IP];
        let mut end = None;
        for fragment in fragments {
            let parsed = etherparse::Ipv4HeaderSlice::from_slice(&fragment[14..]).unwrap();
            let header = parsed.to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            assert_eq!(usize::from(header.total_len), fragment.len() - 14);
            assert!(usize::from(header.total_len) <= mtu);
            let body = &fragment[14 + parsed.slice().len()..];
            let start = usize::from(header.fragment_offset.value()) * 8;
            if header.more_fragments {
                assert_eq!(body.len() % 8, 0);
            } else {
                assert_eq!(end.replace(start + body.len()), None);
            }
            for (unit, byte) in data[start..].iter_mut().zip(body) {
                assert_eq!(unit.replace(*byte), None, "overlap");
            }
        }
        data[..end.unwrap()].iter().map(|byte| byte.unwrap()).collect()
    }

    proptest! {
        #[test]
        fn fragments_put_together_are_the_packet(
            headers in fragmentable(), payload in payload(9000), mtu in 68usize..2000, again in 68usize..2000,
            padding in 0usize..20
        ) {
            let (mut packet, checksum) = headers.unfinished(&payload);
            let whole = headers.frame(&payload);
            packet.resize(packet.len() + padding, 0xee);
            let first = fragments(&packet, checksum, mtu, 300).unwrap();
            if whole.len() - 14 <= mtu {
                prop_assert_eq!(first, vec![packet]);
            } else {
                let body = &whole[14 + 20 + headers.ip_options.len()..];
                prop_assert_eq!(&reassembled(&first, mtu), body);
                // Fragments of fragments are fragments of the same packet.
                let mut second = Vec::new();
                for fragment in &first {
                    second.extend(fragments(fragment, Checksum::Complete, again, 300).unwrap());
                }
                prop_assert_eq!(&reassembled(&second, mtu.min(again)), body);
            }
            prop_assert!(verifies(&whole));
        }

        #[test]
        fn a_dry_pool_or_a_df_bit_changes_nothing(
            headers in fragmentable(), payload in payload(3000), frames in 1usize..8, dont_fragment: bool
        ) {
            let headers = Headers { dont_fragment, ..headers };
            let (packet, checksum) = headers.unfinished(&payload);
            let len = packet.len() - 14;
            match fragments(&packet, checksum, 576, frames) {
                Ok(all) => prop_assert!(len <= 576 || all.len() <= frames),
                Err(error) if dont_fragment => prop_assert_eq!(error, FragmentError::DontFragment),
                Err(error) => prop_assert_eq!((error, len > 576 + 500 * (frames - 1)), (FragmentError::NoFrames, true)),
            }
        }

        #[test]
        fn no_bytes_make_it_panic(
            headers in fragmentable(), damage in proptest::collection::vec((0usize..80, any::<u8>()), 0..6),
            cut in 0usize..400, mtu in 0usize..300, start: u16, offset: u16
        ) {
            let mut packet = headers.frame(&[3; 350]);
            damage.iter().filter(|(at, _)| *at < 54).for_each(|(at, byte)| packet[*at] = *byte);
            packet.truncate(cut);
            let checksum = Checksum::Partial { start: start % 500, offset: offset % 500 };
            if let Ok(all) = fragments(&packet, checksum, mtu, 60) {
                prop_assert!(all.len() == 1 || all.iter().all(|fragment| fragment.len() <= 14 + mtu));
            }
        }
    }

    fn sample(ip_options: &[u8]) -> Vec<u8> {
        let headers = Headers { udp: true, ip_options: ip_options.to_vec(), ..Headers::plain() };
        headers.frame(&[5; 1000])
    }

    #[test]
    fn options_with_the_copy_flag_are_in_every_fragment_the_others_in_the_first_only() {
        // A timestamp (68, not copied), then a router alert (148, copied), then the end of the list.
        let packet = sample(&[68, 5, 5, 0, 0, 1, 148, 4, 0, 0, 0, 0]);
        let all = fragments(&packet, Checksum::Complete, 500, 10).unwrap();
        assert_eq!(all[0][34..46], packet[34..46]);
        for later in &all[1..] {
            assert_eq!((later[14], &later[34..38]), (0x46, &[148, 4, 0, 0][..]));
        }
        assert_eq!(reassembled(&all, 500).len(), 1008);
        // An option of three bytes is padded.
        let all = fragments(&sample(&[1, 130, 3, 9]), Checksum::Complete, 500, 10).unwrap();
        assert_eq!((all[1][14], &all[1][34..38]), (0x46, &[130, 3, 9, 0][..]));
    }

    #[test]
    fn broken_options_are_refused() {
        for options in [[148, 40, 0, 0], [148, 1, 0, 0], [148, 0, 0, 0], [1, 1, 1, 148]] {
            let result = fragments(&sample(&options), Checksum::Complete, 500, 10);
            assert_eq!(result, Err(FragmentError::Malformed), "{options:?}");
        }
    }

    #[test]
    fn a_fragment_whose_offset_would_overflow_is_refused() {
        let mut packet = sample(&[]);
        packet[20..22].copy_from_slice(&(MORE_FRAGMENTS | 0x1fff).to_be_bytes());
        assert_eq!(fragments(&packet, Checksum::Complete, 500, 10), Err(FragmentError::Malformed));
    }

    #[test]
    fn an_mtu_below_the_least_is_refused() {
        assert_eq!(fragments(&sample(&[]), Checksum::Complete, 67, 99), Err(FragmentError::MtuTooSmall));
        assert!(fragments(&sample(&[]), Checksum::Complete, 68, 99).is_ok());
    }

    #[test]
    fn frames_too_small_for_a_fragment_are_an_error_and_none_is_lost() {
        let mut large = pool(1);
        let mut frame = filled(&mut large, &sample(&[]));
        let mut small = FramePool::new(4, 256);
        let mut rest = Vec::new();
        let result = fragment_v4(&mut frame, Checksum::Complete, 500, &mut small, &mut rest);
        assert_eq!(result, Err(FragmentError::FrameTooSmall));
        assert_eq!((small.available(), rest.len(), frame.data()), (4, 0, &sample(&[])[..]));
    }
}
