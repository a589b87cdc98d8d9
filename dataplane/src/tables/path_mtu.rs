//! The path MTU towards one VTEP, as learnt from ICMP errors.

use crate::wire::vxlan;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How long a lowered path MTU is believed (RFC 1191 §6.3 suggests ten minutes).
const BELIEVED_MS: u64 = 10 * 60 * 1000;

/// A limit with an expiry, shared by all workers and kept from one table generation to the next.
///
/// One word: the limit in the low 16 bits (0 = none), the expiry in milliseconds above.
#[derive(Debug, Default)]
pub struct PathMtu(AtomicU64);

/// Smallest outer packet that a limit is believed for: every IPv6 link carries it (RFC 8200 §5), no IPv4 link under a
/// VXLAN network is smaller, and a forged lower one would be ruinous.
const MIN_OUTER: u16 = 1280;

impl PathMtu {
    /// Smallest limit for inner packets there can be.
    pub const MIN_INNER: u16 = MIN_OUTER - vxlan::MTU_OVERHEAD_V6;

    /// The limit for inner packets when outer ones may have `outer` bytes, `overhead` of them the tunnel's.
    pub fn inner_limit(outer: u32, overhead: u16) -> u16 {
        let outer = outer.clamp(u32::from(MIN_OUTER), u32::from(u16::MAX)) as u16;
        outer - overhead
    }

    /// Lowers the limit for inner packets to `mtu` bytes; never raises one that is still believed.
    pub fn lower(&self, mtu: u16, now_ms: u64) {
        if mtu < self.current(now_ms).unwrap_or(u16::MAX) {
            self.0.store((now_ms + BELIEVED_MS) << 16 | u64::from(mtu), Relaxed);
        }
    }

    /// The limit in force for inner packets, in bytes.
    #[inline]
    pub fn current(&self, now_ms: u64) -> Option<u16> {
        let word = self.0.load(Relaxed);
        (word != 0 && now_ms < word >> 16).then_some(word as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_lowered_never_raised_and_forgotten_after_ten_minutes() {
        let limit = PathMtu::default();
        assert_eq!(limit.current(0), None);
        limit.lower(1400, 5);
        limit.lower(1420, 6);
        assert_eq!(limit.current(7), Some(1400));
        limit.lower(1300, 8);
        assert_eq!(limit.current(8 + BELIEVED_MS - 1), Some(1300));
        assert_eq!(limit.current(8 + BELIEVED_MS), None);
    }
}
