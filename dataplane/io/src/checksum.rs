//! The Internet checksum (RFC 1071) over long payloads, with the machine's widest instructions.
#![allow(unsafe_code)]

/// Adds `bytes` to the ones' complement sum `start`. Sums are those of 16-bit big-endian words, folded to 16 bits; a
/// piece of odd length counts as if a zero followed, so only the last piece may have one.
#[inline]
pub fn add(start: u16, bytes: &[u8]) -> u16 {
    let words = if bytes.len() >= WIDE { wide(bytes) } else { native(bytes) };
    // Sums do not care about byte order until the end (RFC 1071 §2 B).
    fold(u64::from(start) + u64::from(fold(words).to_be()))
}

/// The checksum field for a sum.
#[inline]
pub const fn finish(sum: u16) -> u16 {
    !sum
}

/// Adds two folded sums.
#[inline]
pub const fn join(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

/// Below this length wide instructions do not pay for the test whether they exist.
const WIDE: usize = 128;

#[cfg(target_arch = "x86_64")]
fn wide(bytes: &[u8]) -> u64 {
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as was just asked; the function has no other precondition.
        unsafe { native_avx2(bytes) }
    } else {
        native(bytes)
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn wide(bytes: &[u8]) -> u64 {
    native(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn native_avx2(bytes: &[u8]) -> u64 {
    native(bytes)
}

/// The sum of 32-bit words in the machine's order. Straight code that the compiler vectorises for whatever
/// instructions its caller allows. No overflow: 2^32 words would be 16 GiB.
#[inline(always)]
fn native(bytes: &[u8]) -> u64 {
    const LANES: usize = 16;
    let mut lanes = [0u64; LANES];
    let mut blocks = bytes.chunks_exact(4 * LANES);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    let mut words = blocks.remainder().chunks_exact(4);
    let mut total: u64 = lanes.iter().sum();
    for word in &mut words {
        total += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut last = [0; 4];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    total + u64::from(u32::from_ne_bytes(last))
}

/// Folds carries back in until 16 bits are left.
const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §4.1, word for word.
    fn plain(start: u16, bytes: &[u8]) -> u16 {
        let mut sum = u32::from(start);
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!(finish(0xddf2), 0x220d);
    }

    proptest! {
        #[test]
        fn every_way_gives_the_plain_sum(
            start: u16, bytes in proptest::collection::vec(any::<u8>(), 0..3000), cut in 0usize..1500
        ) {
            // 0 and 0xffff are the same number; a sum that started or contains anything but zeros is never 0.
            let same = |a: u16, b: u16| a == b || (a % 0xffff == 0 && b % 0xffff == 0);
            let expected = plain(start, &bytes);
            prop_assert!(same(add(start, &bytes), expected));
            prop_assert!(same(fold(u64::from(start) + u64::from(fold(native(&bytes)).to_be())), expected));
            let cut = (cut * 2).min(bytes.len() & !1);
            prop_assert!(same(join(add(start, &bytes[..cut]), add(0, &bytes[cut..])), expected));
        }

        #[test]
        fn the_longest_frame_of_ones_does_not_overflow(len in 65_000usize..65_536) {
            prop_assert_eq!(add(0, &vec![0xff; len & !1]), 0xffff);
        }
    }
}
