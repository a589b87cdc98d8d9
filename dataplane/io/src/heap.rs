//! The C library's heap, told what this process is like.
#![allow(unsafe_code)]

/// Blocks from this size on come from the system and go back to it.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 * 1024;

/// So does what is free at the end of the heap, from this size on. Reading one document takes and frees a hundred kilobytes:
/// that much stays, or each would have to be paged in anew, with an interrupt of the workers' cores for each that goes.
#[cfg(target_env = "gnu")]
const FREE: libc::c_int = 512 * 1024;

/// Keeps what is free in one place and gives it back. By itself glibc makes a heap for each thread, and holds on to ever
/// larger free blocks the larger those are that it sees come and go, such as a generation of tables: with thousands of
/// nodes that was a third of the control side's memory. Workers do not allocate while they forward, so they do not meet
/// at the one heap's lock.
///
/// To be called before there are other threads. False when the C library knows no such thing.
pub fn keep_compact() -> bool {
    #[cfg(target_env = "gnu")]
    {
        let settings =
            [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, FREE)];
        // SAFETY: mallopt takes two numbers, has no other precondition, and may be called at any time.
        settings.iter().all(|(name, value)| unsafe { libc::mallopt(*name, *value) } == 1)
    }
    #[cfg(not(target_env = "gnu"))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glibc_takes_the_settings() {
        assert_eq!(keep_compact(), cfg!(target_env = "gnu"));
    }
}
