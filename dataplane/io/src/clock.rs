//! Monotonic time, from the kernel's clocks that need no system call.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds of the coarse clock: a few nanoseconds to ask, behind by one timer tick (1–10 ms) at most.
#[inline]
pub fn coarse_ms() -> u64 {
    let now = read(ClockId::CLOCK_MONOTONIC_COARSE);
    now.0 * 1000 + now.1 / 1_000_000
}

/// Nanoseconds of the precise clock.
#[inline]
pub fn precise_ns() -> u64 {
    let now = read(ClockId::CLOCK_MONOTONIC);
    now.0 * 1_000_000_000 + now.1
}

fn read(clock: ClockId) -> (u64, u64) {
    let Ok(now) = clock_gettime(clock) else { unreachable!("every Linux has these clocks") };
    (now.tv_sec() as u64, now.tv_nsec() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_tell_one_time_and_never_go_back() {
        let (coarse, precise) = (coarse_ms(), precise_ns());
        assert!(coarse <= precise / 1_000_000);
        assert!(coarse_ms() >= coarse && precise_ns() >= precise);
    }
}
