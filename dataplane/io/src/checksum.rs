//! The core's Internet checksum over long payloads with the machine's widest instructions.
//!
//! The core has no `unsafe` and its callers may run on any processor of the architecture, so its sums use what every
//! one has. Sockets need whole payloads summed; there the width is felt.
#![allow(unsafe_code)]

/// As [`canal_dataplane::checksum::sum`]: adds the big-endian 16-bit words of `bytes` to `initial`.
#[inline]
pub fn sum(bytes: &[u8], initial: u64) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= WIDE && is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as was just asked; the function has no other precondition.
        return unsafe { sum_avx2(bytes, initial) };
    }
    canal_dataplane::checksum::sum(bytes, initial)
}

/// Below this length wide instructions do not pay for the question whether they exist.
#[cfg(target_arch = "x86_64")]
const WIDE: usize = 256;

/// Straight code as in the core, for the compiler to vectorise with what this function allows it.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(bytes: &[u8], initial: u64) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<128>();
    let mut lanes = [0u64; 32];
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let native: u64 = lanes.iter().sum();
    let words = u16::from_be(canal_dataplane::checksum::fold(native));
    canal_dataplane::checksum::sum(rest, initial + u64::from(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use canal_dataplane::checksum;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_wide_sum_is_the_core_s(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..3000),
                proptest::collection::vec(Just(0xffu8), 0..66_000),
            ],
            initial in 0u64..1 << 40
        ) {
            let (ours, cores) = (sum(&bytes, initial), checksum::sum(&bytes, initial));
            // Congruent sums fold to the same number, but for the two forms of zero.
            prop_assert_eq!(checksum::fold(ours) % 0xffff, checksum::fold(cores) % 0xffff);
            prop_assert_eq!(checksum::fold(ours) == 0, checksum::fold(cores) == 0);
        }
    }
}
