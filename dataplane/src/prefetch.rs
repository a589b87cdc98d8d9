//! The one place where the core talks to the processor: a hint to fetch a cache line.
#![allow(unsafe_code)]

/// Asks for the cache line of `slice[at]`, if there is such a place; has no effect that a program can observe.
#[inline(always)]
pub fn prefetch<T>(slice: &[T], at: usize) {
    prefetch_line(slice.as_ptr().wrapping_add(at));
}

/// Asks for the cache line that a value begins in and for the next one.
#[inline(always)]
pub fn prefetch_pair<T>(slice: &[T], at: usize) {
    let value = slice.as_ptr().wrapping_add(at).cast::<u8>();
    prefetch_line(value);
    prefetch_line(value.wrapping_add(64));
}

#[inline(always)]
fn prefetch_line<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch may name any address: one that is not mapped is ignored by the processor. Nothing is read.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
