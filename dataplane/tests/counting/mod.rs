//! An allocator that counts: for tests and benches that say how often memory is asked for, or how much is held.
// A global allocator is an unsafe trait; this file holds one and nothing else that is unsafe.
#![allow(unsafe_code)]
// Whoever includes this file asks for one of the two.
#![allow(dead_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, how often this thread asked it for memory, and how much of that it has not given back.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static HELD: Cell<i64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no counter any more; nobody reads it then.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

/// `sign` is 1 for a block that is taken, -1 for one that is given back.
fn weigh(size: usize, sign: i64) {
    let _ = HELD.try_with(|held| held.set(held.get() + sign * taken(size)));
}

/// What glibc takes for a block of this size: 8 bytes in front, a multiple of 16, at least 32 (64-bit machines).
const fn taken(size: usize) -> i64 {
    let chunk = (size + 8).next_multiple_of(16);
    if chunk < 32 { 32 } else { chunk as i64 }
}

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract; counting touches
// thread-local numbers that need no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        weigh(layout.size(), 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        weigh(layout.size(), 1);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        weigh(layout.size(), -1);
        weigh(size, 1);
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        weigh(layout.size(), -1);
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread has asked for memory.
pub fn calls() -> u64 {
    CALLS.get()
}

/// Bytes that this thread has taken and not given back; what another thread gives back for it does not count.
pub fn held() -> i64 {
    HELD.get()
}
