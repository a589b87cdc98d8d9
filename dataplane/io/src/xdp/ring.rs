//! The four rings of a socket: memory shared with the kernel, one side writes, the other reads.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// A packet in a ring: `struct xdp_desc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Descriptor {
    /// Where it begins in the region.
    pub address: u64,
    /// Its bytes.
    pub len: u32,
    /// Of several pieces, or with metadata: never ours.
    pub options: u32,
}

/// Where things are in a ring's mapping: `struct xdp_ring_offset`.
#[derive(Clone, Copy, Debug)]
pub struct Offsets {
    /// Of the producer's index.
    pub producer: usize,
    /// Of the consumer's index.
    pub consumer: usize,
    /// Of the flags.
    pub flags: usize,
    /// Of the first entry.
    pub entries: usize,
}

/// The kernel wants a system call before it goes on (`XDP_RING_NEED_WAKEUP`).
const NEED_WAKEUP: u32 = 1;

/// A ring of `T`: `u64` (addresses) or [`Descriptor`]. The indices count on and wrap at 2³²; their low bits are places.
#[derive(Debug)]
pub struct Ring<T> {
    base: *mut u8,
    len: usize,
    offsets: Offsets,
    size: u32,
    entries: *mut T,
    /// Our index, as it will be when published.
    own: u32,
    /// The kernel's index, as last seen.
    other: u32,
}

// SAFETY: the mapping belongs to the ring alone (on our side), and no method works without `&mut self` but those that read
// an atomic.
unsafe impl<T: Send> Send for Ring<T> {}

/// Types of entries: plain numbers, so that whatever the kernel writes is a value.
pub trait Entry: Copy {}
impl Entry for u64 {}
impl Entry for Descriptor {}

impl<T: Entry> Ring<T> {
    /// Maps the ring of `size` entries (a power of two, as the kernel was told) that `socket` has at `page_offset`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn map(
        socket: BorrowedFd<'_>,
        size: u32,
        offsets: Offsets,
        page_offset: libc::off_t,
    ) -> io::Result<Self> {
        assert!(size.is_power_of_two());
        let len = offsets.entries + size as usize * size_of::<T>();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory that exists.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, flags, socket.as_raw_fd(), page_offset)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base: *mut u8 = base.cast();
        // SAFETY: the entries begin inside the mapping, whose length was computed from their offset.
        let entries = unsafe { base.add(offsets.entries) }.cast();
        Ok(Self { base, len, offsets, size, entries, own: 0, other: 0 })
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset + 4 <= self.len);
        // SAFETY: the kernel has said that a 32-bit word stands there, before the entries, hence within the mapping, aligned;
        // both sides access it atomically; the mapping lives as long as `self`.
        unsafe { &*self.base.add(offset).cast::<AtomicU32>() }
    }

    fn place(&self, index: u32) -> *mut T {
        // SAFETY: the masked index is below the number of entries that were mapped.
        unsafe { self.entries.add((index & (self.size - 1)) as usize) }
    }

    /// The kernel waits for a system call.
    #[inline]
    pub fn needs_wakeup(&self) -> bool {
        self.word(self.offsets.flags).load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }

    /// For a ring that we write: entries that can be pushed, `wanted` of them or all that there is room for.
    #[inline]
    pub fn room(&mut self, wanted: u32) -> u32 {
        if self.size - self.own.wrapping_sub(self.other) < wanted {
            self.other = self.word(self.offsets.consumer).load(Ordering::Acquire);
        }
        self.size - self.own.wrapping_sub(self.other)
    }

    /// Writes an entry; the kernel sees it after [`Self::publish`]. False (and nothing done) when the ring is full.
    #[inline]
    #[must_use]
    pub fn push(&mut self, entry: T) -> bool {
        if self.room(1) == 0 {
            return false;
        }
        // SAFETY: the place is in the mapping; the kernel does not read it before the index says so, and has read what stood
        // there, as its own index says.
        unsafe { self.place(self.own).write(entry) };
        self.own = self.own.wrapping_add(1);
        true
    }

    /// Shows the kernel what was pushed.
    #[inline]
    pub fn publish(&mut self) {
        self.word(self.offsets.producer).store(self.own, Ordering::Release);
    }

    /// For a ring that we write: entries that the kernel has not taken yet.
    #[inline]
    pub fn pending(&mut self) -> u32 {
        self.other = self.word(self.offsets.consumer).load(Ordering::Acquire);
        self.own.wrapping_sub(self.other)
    }

    /// For a ring that we read: the next entry. Its place is the kernel's again after [`Self::release`].
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.own == self.other {
            self.other = self.word(self.offsets.producer).load(Ordering::Acquire);
            if self.own == self.other {
                return None;
            }
        }
        // SAFETY: the place is in the mapping; the kernel has written it, as its index says, and does not touch it again before
        // ours says so. Any bits are a value of the type.
        let entry = unsafe { self.place(self.own).read() };
        self.own = self.own.wrapping_add(1);
        Some(entry)
    }

    /// Gives the places of what was popped back to the kernel.
    #[inline]
    pub fn release(&mut self) {
        self.word(self.offsets.consumer).store(self.own, Ordering::Release);
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}
