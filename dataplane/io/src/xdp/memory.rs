//! The memory of all interfaces together: one region, the frames that nobody needs at the moment, and who may borrow.
//!
//! Made once, for what all interfaces need, and given to each that is opened. A frame that came by one of them goes out of
//! another as it is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use canal_dataplane::frame::{Frame, FramePool};
use canal_dataplane::limits::ETHERNET;
use crossbeam::queue::ArrayQueue;

use super::device::{XdpConfig, XdpError};
use super::region::{BORROWERS, Borrower, Region};
use super::socket::{FILL, TX};
use super::steering::receive_queues;

/// Bytes that the kernel keeps free in front of a received frame (`XDP_PACKET_HEADROOM`).
const KERNEL_HEADROOM: usize = 256;
/// An 802.1Q tag, which the interface's MTU does not count.
const VLAN: usize = 4;
/// Frames that all queues of an interface together can receive into: 128 MiB of chunks of 2048 bytes.
const ALL_QUEUES: usize = 65_536;
/// Frames of a queue, at least.
const FEW: usize = 512;
/// Frames of a worker for each interface beside those in its queues: all that can be on their way out, and some batches in
/// its hands.
pub(super) const HANDS: usize = TX as usize + 512;

/// What interfaces need of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Bytes of a chunk: the smallest that a frame of any of them fits.
    chunk: usize,
    frames: usize,
}

impl Needs {
    /// Of one interface.
    ///
    /// # Errors
    /// [`XdpError::Mtu`], and [`XdpError::Interface`] when it is gone.
    pub fn of(config: &XdpConfig) -> Result<Self, XdpError> {
        let chunk = chunk_for(config)?;
        let queues = receive_queues(&config.name)
            .map_err(|source| XdpError::Interface { name: config.name.clone(), source })?;
        Ok(Self { chunk, frames: queues as usize * fill_of(queues) + config.workers * HANDS })
    }

    /// Of these and those together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { chunk: self.chunk.max(other.chunk), frames: self.frames + other.frames }
    }
}

/// The memory; it lives as long as the process.
#[derive(Debug)]
pub struct Memory {
    region: &'static Region,
    /// Frames of workers that have too many and of interfaces that have gone, for those that have too few.
    free: ArrayQueue<Frame>,
    borrowers: ArrayQueue<Borrower>,
    /// Frames that there are: all but those given up.
    frames: AtomicUsize,
}

impl Memory {
    /// For as much as `needs` says.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new(needs: Needs) -> io::Result<Arc<Self>> {
        let (region, frames) = Region::new(needs.frames, needs.chunk)?;
        let memory = Self {
            region,
            free: ArrayQueue::new(frames.len()),
            borrowers: ArrayQueue::new(BORROWERS.into()),
            frames: AtomicUsize::new(frames.len()),
        };
        frames.into_iter().for_each(|frame| memory.put_aside(frame));
        for borrower in Borrower::all() {
            let _ = memory.borrowers.push(borrower);
        }
        Ok(Arc::new(memory))
    }

    /// Is it enough for what `needs` says?
    pub fn serves(&self, needs: Needs) -> bool {
        self.region.chunk() >= needs.chunk && self.frames.load(Ordering::Relaxed) >= needs.frames
    }

    /// The frames' own memory.
    #[inline]
    pub(super) fn region(&self) -> &'static Region {
        self.region
    }

    /// Bytes of the longest frame that can be received.
    pub(super) fn longest(&self) -> u32 {
        (self.region.chunk() - KERNEL_HEADROOM) as u32
    }

    /// A frame that nobody needs.
    #[inline]
    pub(super) fn spare(&self) -> Option<Frame> {
        self.free.pop()
    }

    /// Leaves a frame of the region to whoever needs one.
    pub(super) fn put_aside(&self, frame: Frame) {
        debug_assert!(self.region.owns(&frame), "there is room for all frames of the region, and no others");
        let _ = self.free.push(frame);
    }

    /// Takes frames of the region out of a worker's pool: whoever uses them up leaves them there.
    #[inline]
    pub(super) fn take_from(&self, pool: &mut FramePool) -> impl Iterator<Item = Frame> {
        // What is of memory that was replaced has no other use; it is lost with it.
        std::iter::from_fn(|| pool.take_guest()).filter(|frame| self.region.owns(frame))
    }

    /// The same for a worker without sockets: what others have handed to it, or closed sockets left behind, is put aside.
    #[inline]
    pub fn take_home(&self, pool: &mut FramePool) {
        self.take_from(pool).for_each(|frame| self.put_aside(frame));
    }

    /// A number for an interface; `None` when there are too many.
    pub(super) fn borrower(&self) -> Option<Borrower> {
        self.borrowers.pop()
    }

    /// All sockets of an interface are closed: what they had is free again, if it was the kernel that copied. A NIC may be
    /// late to write; what it had is left alone for ever.
    pub(super) fn release(&self, borrower: Borrower, copied: bool) {
        if copied {
            self.region.recall(borrower).into_iter().for_each(|frame| self.put_aside(frame));
        } else {
            self.frames.fetch_sub(self.region.forfeit(borrower), Ordering::Relaxed);
        }
        let _ = self.borrowers.push(borrower);
    }
}

/// The smallest chunk that a frame of the interface fits.
fn chunk_for(config: &XdpConfig) -> Result<usize, XdpError> {
    let longest = config.mtu as usize + ETHERNET + VLAN;
    let fitting = [2048, 4096].into_iter().find(|chunk| longest <= chunk - KERNEL_HEADROOM);
    fitting.ok_or_else(|| XdpError::Mtu { name: config.name.clone(), mtu: config.mtu })
}

/// The greatest MTU that AF_XDP can have.
pub(super) const fn longest_mtu() -> usize {
    4096 - KERNEL_HEADROOM - ETHERNET - VLAN
}

/// Frames that each of `queues` queues can receive into.
pub(super) fn fill_of(queues: u32) -> usize {
    (ALL_QUEUES / queues as usize).clamp(FEW, FILL as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_fit_the_mtu_or_it_is_said_which_would() {
        let chunk = |mtu| chunk_for(&XdpConfig::example(mtu));
        assert_eq!(chunk(1500).unwrap(), 2048);
        assert_eq!(chunk(1774).unwrap(), 2048);
        assert_eq!(chunk(1775).unwrap(), 4096);
        assert_eq!(chunk(longest_mtu() as u32).unwrap(), 4096);
        let refusal = chunk(9000).unwrap_err().to_string();
        assert!(refusal.contains("9000") && refusal.contains("3822"), "{refusal}");
    }

    #[test]
    fn many_queues_share_a_bounded_memory() {
        assert_eq!((fill_of(1), fill_of(8), fill_of(64), fill_of(256)), (2048, 2048, 1024, 512));
    }

    #[test]
    fn frames_come_home_out_of_any_pool_and_others_do_not() {
        let memory = Memory::new(Needs { chunk: 2048, frames: 700 }).unwrap();
        let all = memory.free.len();
        let mut pool = FramePool::new(1, 4096);
        (0..100).for_each(|_| pool.give(memory.spare().unwrap()));
        pool.give(Memory::new(Needs { chunk: 2048, frames: 1 }).unwrap().spare().unwrap());
        memory.take_home(&mut pool);
        assert_eq!((memory.free.len(), pool.available(), pool.guests()), (all, 1, 0));
    }

    #[test]
    fn it_is_made_for_all_interfaces_and_serves_them_again_and_again() {
        let (small, large) = (Needs { chunk: 2048, frames: 700 }, Needs { chunk: 4096, frames: 600 });
        let both = small.and(large);
        assert_eq!(both, Needs { chunk: 4096, frames: 1300 });
        let memory = Memory::new(both).unwrap();
        assert!(memory.serves(both) && memory.serves(small) && memory.serves(large));
        assert!(!Memory::new(small).unwrap().serves(large));
        let all = memory.free.len();
        assert!(!memory.serves(Needs { chunk: 2048, frames: all + 1 }));
        let lend = |to, count| {
            for _ in 0..count {
                memory.region().lend(memory.spare().unwrap(), to).unwrap();
            }
        };
        let (one, other) = (memory.borrower().unwrap(), memory.borrower().unwrap());
        lend(one, 700);
        lend(other, 600);
        memory.release(one, true);
        assert_eq!(memory.free.len(), all - 600, "the other's are its own still");
        memory.release(other, false);
        assert_eq!(memory.free.len(), all - 600, "a NIC may write to them");
        assert!(!memory.serves(Needs { chunk: 4096, frames: all - 599 }));
        assert!(memory.serves(Needs { chunk: 4096, frames: all - 600 }));
        let numbers = std::iter::from_fn(|| memory.borrower()).count();
        assert_eq!(numbers, usize::from(BORROWERS), "numbers come back");
    }
}
