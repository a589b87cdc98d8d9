//! The packet memory that sockets share with the kernel: one mapping, cut into chunks, each a [`Frame`] or lent.
//!
//! The memory is ours and lives as long as the process; every socket registers it anew as a UMEM of its own. A frame that
//! one socket received may therefore be sent by any other, of another queue or interface, and handed from worker to worker,
//! without being copied, whatever mode each socket is in. Who has a chunk is written down for each interface, so that what
//! one of them had can be taken back when it goes, while the others go on.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

use canal_dataplane::frame::Frame;
use canal_dataplane::limits::HEADROOM;

/// A huge page of the common size; the mapping is a multiple of it.
const HUGE_PAGE: usize = 2 << 20;

/// Interfaces that may have chunks at the same time.
pub const BORROWERS: u8 = 64;

/// Whom chunks are lent to: the sockets of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Borrower(u8);

impl Borrower {
    /// All there can be.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=BORROWERS).map(Self)
    }

    /// Of chunks that may still be written to by a NIC: never taken back.
    const LOST: Self = Self(u8::MAX);
    /// Of chunks that have not been a frame yet.
    const NEW: Self = Self(u8::MAX - 1);
    /// Of chunks that are frames.
    const NOBODY: u8 = 0;
}

/// The mapping. Chunk *i* begins at `i * chunk` and is, at any time, either a frame of some holder or lent to the kernel.
#[derive(Debug)]
pub struct Region {
    base: *mut u8,
    chunk: usize,
    /// One word a chunk: which interface has it. What makes it impossible to make two frames of one chunk.
    lent: Box<[AtomicU8]>,
    huge: bool,
}

// SAFETY: the pointer is only the number from which chunks are counted; who may touch which chunk is decided by the tokens
// (`Frame`) and by `lent`, whose words change atomically.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Maps at least `count` chunks of `chunk` bytes (a power of two, 2048 or 4096: what the kernel takes) and makes a frame
    /// of each. On huge pages if the system has some to give.
    ///
    /// # Errors
    /// When there is no memory.
    ///
    /// # Panics
    /// When `chunk` is no such number: a programmer's error.
    pub fn new(count: usize, chunk: usize) -> io::Result<(&'static Self, Vec<Frame>)> {
        assert!(matches!(chunk, 2048 | 4096), "AF_XDP knows chunks of 2048 and 4096 bytes");
        let len = (count * chunk).next_multiple_of(HUGE_PAGE);
        let (base, huge) = match map(len, libc::MAP_HUGETLB) {
            Ok(base) => (base, true),
            Err(_) => (map(len, 0)?, false),
        };
        let count = len / chunk;
        let lent = (0..count).map(|_| AtomicU8::new(Borrower::NEW.0)).collect();
        let region: &'static Self = Box::leak(Box::new(Self { base, chunk, lent, huge }));
        Ok((region, region.recall(Borrower::NEW)))
    }

    /// Where it begins, for the kernel.
    pub fn address(&self) -> u64 {
        self.base as u64
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        (self.lent.len() * self.chunk) as u64
    }

    /// Bytes of a chunk.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// Whether it is on huge pages that were set aside for such use.
    pub fn is_huge(&self) -> bool {
        self.huge
    }

    /// Is the memory of `frame` from here?
    #[inline]
    pub fn owns(&self, frame: &Frame) -> bool {
        self.offset(frame).is_some()
    }

    /// Offset of the packet in `frame` from the begin of the region.
    #[inline]
    fn offset(&self, frame: &Frame) -> Option<usize> {
        let offset = (frame.data().as_ptr() as usize).checked_sub(self.base as usize)?;
        // An empty packet at the very end of a chunk would look like one at the begin of the next.
        (offset < self.lent.len() * self.chunk && frame.headroom() == offset % self.chunk).then_some(offset)
    }

    /// Gives `frame` to the kernel for a socket of interface `to`; where its packet begins, from the begin of the region. A
    /// frame of other memory comes back.
    #[inline]
    pub fn lend(&self, frame: Frame, to: Borrower) -> Result<u64, Frame> {
        match self.offset(&frame) {
            Some(offset) => {
                // The holder of the token is the only one who can write this.
                self.lent[offset / self.chunk].store(to.0, Ordering::Release);
                Ok(offset as u64)
            }
            None => Err(frame),
        }
    }

    /// The chunk around `address` has come back from the kernel, by a ring of interface `from`: an empty frame. `None` when it
    /// was not lent there, or there is no such chunk, which only a kernel with an error could claim.
    #[inline]
    pub fn take_back(&'static self, address: u64, from: Borrower) -> Option<Frame> {
        let index = usize::try_from(address).ok()? / self.chunk;
        let word = self.lent.get(index)?;
        word.compare_exchange(from.0, Borrower::NOBODY, Ordering::Acquire, Ordering::Relaxed).ok()?;
        // SAFETY: `index` is below the number of chunks, so that the range is inside the mapping, which is never unmapped.
        // Nobody else has a token for it: each is made here only, after its word said that it was lent, and the word says so
        // only where a token was consumed. The kernel has given the chunk back, as the ring that it came from says.
        let memory = unsafe { std::slice::from_raw_parts_mut(self.base.add(index * self.chunk), self.chunk) };
        Some(Frame::new(memory))
    }

    /// All chunks that are lent to an interface, as frames: for when every socket of it is closed, and the kernel was the
    /// one who copied into them.
    pub fn recall(&'static self, from: Borrower) -> Vec<Frame> {
        (0..self.lent.len()).filter_map(|i| self.take_back((i * self.chunk) as u64, from)).collect()
    }

    /// Gives up all chunks that are lent to an interface whose NIC may still write to them; how many.
    pub fn forfeit(&self, from: Borrower) -> usize {
        let lost = |word: &&AtomicU8| {
            let (from, lost) = (from.0, Borrower::LOST.0);
            word.compare_exchange(from, lost, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        self.lent.iter().filter(lost).count()
    }

    /// As [`Self::take_back`], with the packet of `len` bytes that the kernel has put at `address`. `None` also when the
    /// packet is not within its chunk.
    #[inline]
    pub fn receive(&'static self, address: u64, len: usize, from: Borrower) -> Option<Frame> {
        let mut frame = self.take_back(address, from)?;
        let start = address as usize % self.chunk;
        let ahead = start.checked_sub(HEADROOM);
        if ahead.is_some_and(|ahead| frame.set_len(ahead + len) && frame.trim_front(ahead)) {
            return Some(frame);
        }
        frame.reset();
        // It stays where it was: lent, until the interface goes.
        let _ = self.lend(frame, from);
        None
    }
}

fn map(len: usize, flags: i32) -> io::Result<*mut u8> {
    let (protection, common) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at a place of the kernel's choice touches no memory that exists.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, common | flags, -1, 0) };
    if base == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(base.cast()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_one_frame_or_lent() {
        let (region, frames) = Region::new(3, 2048).unwrap();
        assert_eq!(frames.len(), HUGE_PAGE / 2048);
        assert_eq!(region.size(), HUGE_PAGE as u64);
        let socket = Borrower(1);
        let mut frames = frames.into_iter();
        let (mut first, last) = (frames.next().unwrap(), frames.next_back().unwrap());
        assert!(region.take_back(0, socket).is_none(), "somebody holds it");
        assert!(first.fill(&[7; 100]) && first.grow_front(20));
        let address = region.lend(first, socket).unwrap();
        assert_eq!(address, (HEADROOM - 20) as u64);
        let first = region.receive(address + 120, 1500, socket).unwrap();
        assert_eq!((first.headroom(), first.len(), first.data()[0]), (HEADROOM + 100, 1500, 0));
        assert!(region.take_back(address, socket).is_none(), "it is back already");
        let address = region.lend(last, socket).unwrap();
        assert_eq!(address, (HUGE_PAGE - 2048 + HEADROOM) as u64);
        assert!(region.take_back(HUGE_PAGE as u64, socket).is_none(), "there is no such chunk");
        assert!(region.receive(address, 2048, socket).is_none(), "it would end outside of its chunk");
        assert!(region.receive(address, 2048 - HEADROOM, socket).is_some());
    }

    #[test]
    fn what_one_interface_has_is_not_another_s() {
        let (region, frames) = Region::new(4, 2048).unwrap();
        let (one, other) = (Borrower(1), Borrower(2));
        let mut frames = frames.into_iter();
        let mut lend = |to| region.lend(frames.next().unwrap(), to).unwrap();
        let (first, _, third) = (lend(one), lend(one), lend(other));
        assert!(region.take_back(first, other).is_none() && region.take_back(third, one).is_none());
        assert_eq!(region.recall(one).len(), 2);
        assert!(region.take_back(first, one).is_none(), "it has been recalled");
        assert_eq!((region.forfeit(other), region.recall(other).len()), (1, 0));
        assert!(region.take_back(third, other).is_none(), "given up");
        assert_eq!(frames.len() + 3, HUGE_PAGE / 2048);
    }

    #[test]
    fn other_memory_is_not_lent() {
        let (region, _frames) = Region::new(1, 4096).unwrap();
        let other = canal_dataplane::frame::FramePool::new(1, 4096).take().unwrap();
        assert!(!region.owns(&other) && !region.owns(&Frame::none()));
        assert!(region.lend(other, Borrower(1)).is_err());
    }
}
