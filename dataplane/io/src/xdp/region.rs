//! The packet memory that sockets share with the kernel: one mapping, cut into chunks, each a [`Frame`] or lent.
//!
//! The memory is ours and lives as long as the process; every socket registers it anew as a UMEM of its own. A frame that
//! one socket received may therefore be sent by any other, of another queue or interface, and handed from worker to worker,
//! without being copied, whatever mode each socket is in.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use canal_dataplane::frame::Frame;
use canal_dataplane::limits::HEADROOM;

/// A huge page of the common size; the mapping is a multiple of it.
const HUGE_PAGE: usize = 2 << 20;

/// The mapping. Chunk *i* begins at `i * chunk` and is, at any time, either a frame of some holder or lent to the kernel.
#[derive(Debug)]
pub struct Region {
    base: *mut u8,
    chunk: usize,
    /// One flag a chunk: the kernel has it. What makes it impossible to make two frames of one chunk.
    lent: Box<[AtomicBool]>,
    huge: bool,
}

// SAFETY: the pointer is only the number from which chunks are counted; who may touch which chunk is decided by the tokens
// (`Frame`) and by `lent`, whose flags change atomically.
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
        let lent = (0..count).map(|_| AtomicBool::new(true)).collect();
        let region: &'static Self = Box::leak(Box::new(Self { base, chunk, lent, huge }));
        Ok((region, region.reclaim()))
    }

    /// Where it begins, for the kernel.
    pub fn address(&self) -> u64 {
        self.base as u64
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
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

    /// Gives `frame` to the kernel; where its packet begins, from the begin of the region. A frame of other memory comes
    /// back.
    #[inline]
    pub fn lend(&self, frame: Frame) -> Result<u64, Frame> {
        match self.offset(&frame) {
            Some(offset) => {
                // The holder of the token is the only one who can set the flag.
                self.lent[offset / self.chunk].store(true, Ordering::Release);
                Ok(offset as u64)
            }
            None => Err(frame),
        }
    }

    /// The chunk around `address` has come back from the kernel: an empty frame. `None` when it was not lent, or there is no
    /// such chunk, which only a kernel with an error could claim.
    #[inline]
    pub fn take_back(&'static self, address: u64) -> Option<Frame> {
        let index = usize::try_from(address).ok()? / self.chunk;
        if !self.lent.get(index)?.swap(false, Ordering::Acquire) {
            return None;
        }
        // SAFETY: `index` is below the number of chunks, so that the range is inside the mapping, which is never unmapped.
        // Nobody else has a token for it: each is made here only, after the flag was set, and the flag is set only where a
        // token is consumed. The kernel has given the chunk back, as the ring that it came from says.
        let memory = unsafe { std::slice::from_raw_parts_mut(self.base.add(index * self.chunk), self.chunk) };
        Some(Frame::new(memory))
    }

    /// All chunks that are lent, as frames: for when every socket that had them is closed.
    pub fn reclaim(&'static self) -> Vec<Frame> {
        (0..self.lent.len()).filter_map(|i| self.take_back((i * self.chunk) as u64)).collect()
    }

    /// As [`Self::take_back`], with the packet of `len` bytes that the kernel has put at `address`. `None` also when the
    /// packet is not within its chunk.
    #[inline]
    pub fn receive(&'static self, address: u64, len: usize) -> Option<Frame> {
        let mut frame = self.take_back(address)?;
        let start = address as usize % self.chunk;
        let ahead = start.checked_sub(HEADROOM);
        if ahead.is_some_and(|ahead| frame.set_len(ahead + len) && frame.trim_front(ahead)) {
            return Some(frame);
        }
        frame.reset();
        // It stays where it was: lent, and lost.
        let _ = self.lend(frame);
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
        assert_eq!(region.len(), HUGE_PAGE as u64);
        let mut frames = frames.into_iter();
        let (mut first, last) = (frames.next().unwrap(), frames.next_back().unwrap());
        assert!(region.take_back(0).is_none(), "somebody holds it");
        assert!(first.fill(&[7; 100]) && first.grow_front(20));
        let address = region.lend(first).unwrap();
        assert_eq!(address, (HEADROOM - 20) as u64);
        let first = region.receive(address + 120, 1500).unwrap();
        assert_eq!((first.headroom(), first.len(), first.data()[0]), (HEADROOM + 100, 1500, 0));
        assert!(region.take_back(address).is_none(), "it is back already");
        let address = region.lend(last).unwrap();
        assert_eq!(address, (HUGE_PAGE - 2048 + HEADROOM) as u64);
        assert!(region.take_back(HUGE_PAGE as u64).is_none(), "there is no such chunk");
        assert!(region.receive(address, 2048).is_none(), "it would end outside of its chunk");
        assert!(region.receive(address, 2048 - HEADROOM).is_some());
    }

    #[test]
    fn other_memory_is_not_lent() {
        let (region, _frames) = Region::new(1, 4096).unwrap();
        let other = canal_dataplane::frame::FramePool::new(1, 4096).take().unwrap();
        assert!(!region.owns(&other) && !region.owns(&Frame::none()));
        assert!(region.lend(other).is_err());
    }
}
