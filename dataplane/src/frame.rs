//! A piece of packet memory owned by exactly one holder, and the pool it comes from.

use crate::limits::HEADROOM;

/// Packet bytes with room in front and behind. A linear token: it cannot be copied, and whoever holds it must give it
/// on (to a port, another worker) or back to a [`FramePool`]; a frame that is merely dropped is memory lost for the
/// life of the process. Conservation (received = transmitted + dropped + handed over + held) is asserted by the tests.
#[must_use = "a frame must be transmitted, handed over or given back to its pool"]
#[derive(Debug)]
pub struct Frame {
    memory: &'static mut [u8],
    start: u32,
    end: u32,
}

impl Frame {
    /// An empty frame over `memory`, with [`HEADROOM`] bytes free in front.
    ///
    /// # Panics
    /// When `memory` is smaller than the headroom or larger than 4 GiB: a programmer's error.
    pub fn new(memory: &'static mut [u8]) -> Self {
        assert!(memory.len() >= HEADROOM && u32::try_from(memory.len()).is_ok());
        Self { memory, start: HEADROOM as u32, end: HEADROOM as u32 }
    }

    /// A frame without memory: what is left where one has been taken out.
    #[inline(always)]
    pub fn none() -> Self {
        Self { memory: &mut [], start: 0, end: 0 }
    }

    /// Takes the frame out of its place and leaves [`Self::none`] there.
    #[inline(always)]
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Self::none())
    }

    /// The packet, first byte of its Ethernet header first.
    #[inline]
    pub fn data(&self) -> &[u8] {
        &self.memory[self.start as usize..self.end as usize]
    }

    /// The packet, writable.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start as usize..self.end as usize]
    }

    /// Length of the packet in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// True when no packet is in the frame.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes free in front of the packet.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.start as usize
    }

    /// Bytes free behind the packet.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.memory.len() - self.end as usize
    }

    /// Removes `count` bytes from the front of the packet; false (and nothing done) when it is shorter.
    #[inline]
    #[must_use]
    pub fn trim_front(&mut self, count: usize) -> bool {
        if count > self.len() {
            return false;
        }
        self.start += count as u32;
        true
    }

    /// Adds `count` bytes (of whatever content) in front of the packet; false when the headroom is smaller.
    #[inline]
    #[must_use]
    pub fn grow_front(&mut self, count: usize) -> bool {
        if count > self.headroom() {
            return false;
        }
        self.start -= count as u32;
        true
    }

    /// Sets the length of the packet, cutting or growing at its end; false when the memory is too small.
    #[inline]
    #[must_use]
    pub fn set_len(&mut self, len: usize) -> bool {
        if len > self.memory.len() - self.start as usize {
            return false;
        }
        self.end = self.start + len as u32;
        true
    }

    /// Empties the frame and restores its headroom.
    #[inline]
    pub fn reset(&mut self) {
        self.start = HEADROOM as u32;
        self.end = HEADROOM as u32;
    }

    /// Fills an empty frame with a copy of `packet`; false when it does not fit.
    #[must_use]
    pub fn fill(&mut self, packet: &[u8]) -> bool {
        self.reset();
        let fits = self.set_len(packet.len());
        if fits {
            self.data_mut().copy_from_slice(packet);
        }
        fits
    }

    /// All memory behind the headroom, for a port to receive into; call [`Frame::set_len`] afterwards.
    #[inline]
    pub fn receive_buffer(&mut self) -> &mut [u8] {
        self.reset();
        &mut self.memory[HEADROOM..]
    }

    /// The `count` bytes in front of the packet and the packet itself, as one slice: for ports whose own header
    /// travels in front of the frame. `None` when the headroom is smaller.
    #[inline]
    pub fn data_with_headroom(&mut self, count: usize) -> Option<&mut [u8]> {
        let from = (self.start as usize).checked_sub(count)?;
        Some(&mut self.memory[from..self.end as usize])
    }
}

/// Free frames of one worker.
///
/// A pool has frames of one size. Those of another size (a port's own memory, with room for a wire-sized packet only) are
/// guests: they go round like all others, but nobody who asks for a frame gets one. Their port takes them home.
#[derive(Debug)]
pub struct FramePool {
    free: Vec<Frame>,
    guests: Vec<Frame>,
    frame_size: usize,
}

impl FramePool {
    /// `count` frames of `frame_size` bytes each (headroom included), carved from one allocation that lives as long
    /// as the process: frames travel between workers, so no pool ever knows that all of its own came home. Pages
    /// are touched only when a frame is used.
    pub fn new(count: usize, frame_size: usize) -> Self {
        let slab: &'static mut [u8] = Box::leak(vec![0u8; count * frame_size].into_boxed_slice());
        let mut free: Vec<Frame> = slab.chunks_exact_mut(frame_size).map(Frame::new).collect();
        // The most recently used frame is taken first; start at the low addresses.
        free.reverse();
        Self { free, guests: Vec::new(), frame_size }
    }

    /// A pool of frames that somebody else laid out. `frame_size` says which of those that come later are guests.
    pub fn from_frames(frames: impl IntoIterator<Item = Frame>, frame_size: usize) -> Self {
        Self { free: frames.into_iter().collect(), guests: Vec::new(), frame_size }
    }

    /// An empty frame, or `None` when all are in use.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    /// Gives a frame back.
    #[inline]
    pub fn give(&mut self, mut frame: Frame) {
        frame.reset();
        if frame.memory.len() == self.frame_size {
            self.free.push(frame);
        } else {
            self.guests.push(frame);
        }
    }

    /// A frame of another size than this pool's, or `None` when no such frame is here.
    #[inline]
    pub fn take_guest(&mut self) -> Option<Frame> {
        self.guests.pop()
    }

    /// Frames of another size at hand.
    #[inline]
    pub fn guests(&self) -> usize {
        self.guests.len()
    }

    /// Frames at hand.
    #[inline]
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Bytes of one frame, headroom included.
    pub fn frame_size(&self) -> usize {
        self.frame_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_grows_and_shrinks_within_its_memory_only() {
        let mut pool = FramePool::new(1, 256);
        let mut frame = pool.take().unwrap();
        assert!(pool.take().is_none());
        assert!(frame.fill(&[7; 100]));
        assert!(frame.grow_front(50) && !frame.grow_front(79) && frame.grow_front(78));
        assert!(frame.trim_front(128));
        assert_eq!(frame.data(), [7; 100]);
        assert!(frame.set_len(128) && !frame.set_len(129));
        assert!(!frame.trim_front(129));
        assert!(!frame.fill(&[0; 129]));
        pool.give(frame);
        assert_eq!(pool.available(), 1);
    }

    #[test]
    fn a_frame_of_another_size_is_a_guest_that_only_its_port_asks_for() {
        let (mut pool, mut port) = (FramePool::new(1, 256), FramePool::new(1, 192));
        pool.give(port.take().unwrap());
        assert_eq!((pool.available(), pool.guests()), (1, 1));
        let own = pool.take().unwrap();
        assert_eq!(own.headroom() + own.tailroom(), 256);
        assert!(pool.take().is_none());
        let guest = pool.take_guest().unwrap();
        assert_eq!(guest.headroom() + guest.tailroom(), 192);
        assert!(pool.take_guest().is_none());
        pool.give(own);
        port.give(guest);
        assert_eq!((pool.available(), pool.guests(), port.available()), (1, 0, 1));
    }
}
