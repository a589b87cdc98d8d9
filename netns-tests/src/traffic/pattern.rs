//! Bytes that both ends can compute: position and seed decide every byte, so any loss, shift or swap is seen.

/// Bytes made at a time.
pub const BLOCK: usize = 64 * 1024;

/// The stream of one seed.
#[derive(Clone, Debug)]
pub struct Pattern {
    seed: u64,
    position: u64,
}

impl Pattern {
    /// The stream of `seed`, from its beginning.
    pub fn new(seed: u64) -> Self {
        Self { seed, position: 0 }
    }

    /// Fills `block` with the next bytes; its length must be a multiple of 8 except at the very end of a stream.
    pub fn fill(&mut self, block: &mut [u8]) {
        for word in block.chunks_mut(8) {
            let bytes = mix(self.seed ^ self.position).to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
            self.position += 1;
        }
    }
}

/// Finaliser of splitmix64: every bit of the input changes about half of the output.
fn mix(input: u64) -> u64 {
    let mut z = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Compares a received stream with its pattern, whatever sizes it arrives in.
#[derive(Debug)]
pub struct Checker {
    pattern: Pattern,
    block: Vec<u8>,
    used: usize,
    count: u64,
}

impl Checker {
    /// Expects the stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { pattern: Pattern::new(seed), block: vec![0; BLOCK], used: BLOCK, count: 0 }
    }

    /// Bytes accepted so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Takes the next bytes; the offset of the first wrong one is the error.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<(), u64> {
        while !bytes.is_empty() {
            if self.used == BLOCK {
                self.pattern.fill(&mut self.block);
                self.used = 0;
            }
            let n = bytes.len().min(BLOCK - self.used);
            let expected = &self.block[self.used..self.used + n];
            if bytes[..n] != *expected {
                let wrong = bytes.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(0);
                return Err(self.count + wrong as u64);
            }
            self.used += n;
            self.count += n as u64;
            bytes = &bytes[n..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_cut_anywhere_is_accepted() {
        let mut sent = vec![0; 3 * BLOCK];
        let mut pattern = Pattern::new(7);
        for block in sent.chunks_mut(BLOCK) {
            pattern.fill(block);
        }
        let mut checker = Checker::new(7);
        for piece in sent.chunks(1448) {
            checker.take(piece).unwrap();
        }
        assert_eq!(checker.count(), sent.len() as u64);
    }

    #[test]
    fn one_wrong_byte_is_named_by_its_offset() {
        let mut sent = vec![0; BLOCK];
        Pattern::new(7).fill(&mut sent);
        sent[5000] ^= 1;
        assert_eq!(Checker::new(7).take(&sent), Err(5000));
        assert_eq!(Checker::new(8).take(&sent), Err(0));
    }
}
