//! How many answers a worker gives (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f).

use std::net::IpAddr;

use crate::net::{FlowKey, HashSeed};

/// Buckets shared by all sources; a source finds its own by a keyed hash, so nobody can choose whom to share it with.
const SOURCES: usize = 256;

/// Two token buckets in a row: one per source, one for all. Owned by one worker; time is an argument.
#[derive(Debug)]
pub struct RateLimit {
    all: Limit,
    each: Limit,
    seed: HashSeed,
    total: Bucket,
    sources: Box<[Bucket; SOURCES]>,
}

/// How fast a bucket fills and how much it holds.
#[derive(Clone, Copy, Debug)]
struct Limit {
    per_second: u32,
    burst: u32,
}

/// What is in a bucket, in thousandths of an answer, and when that was.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    millis: u64,
    then_ms: u64,
}

impl Limit {
    /// What the bucket holds at `now_ms`.
    fn filled(self, bucket: Bucket, now_ms: u64) -> Bucket {
        let elapsed = now_ms.saturating_sub(bucket.then_ms);
        let gained = elapsed.saturating_mul(self.per_second.into());
        let millis = bucket.millis.saturating_add(gained).min(u64::from(self.burst) * 1000);
        // A clock that steps back must not make the time in between count twice.
        Bucket { millis, then_ms: now_ms.max(bucket.then_ms) }
    }

    fn full(self, now_ms: u64) -> Bucket {
        Bucket { millis: u64::from(self.burst) * 1000, then_ms: now_ms }
    }
}

impl RateLimit {
    /// Full buckets. `all` and `each` are (answers per second, burst) for all sources together and for one source.
    pub fn new(all: (u32, u32), each: (u32, u32), seed: HashSeed, now_ms: u64) -> Self {
        let limit = |(per_second, burst)| Limit { per_second, burst };
        let (all, each) = (limit(all), limit(each));
        let sources = Box::new([each.full(now_ms); SOURCES]);
        Self { all, each, seed, total: all.full(now_ms), sources }
    }

    /// Takes one answer to `source` out of both buckets; false, and nothing taken, when either is empty.
    pub fn allow(&mut self, source: IpAddr, now_ms: u64) -> bool {
        let key = match source {
            IpAddr::V4(source) => FlowKey::v4(source.to_bits(), 0, (0, 0), 0, false).0,
            IpAddr::V6(source) => FlowKey::v6(source.to_bits(), 0, (0, 0), 0, false).0,
        };
        let own = &mut self.sources[key.hash(self.seed) as usize % SOURCES];
        *own = self.each.filled(*own, now_ms);
        self.total = self.all.filled(self.total, now_ms);
        let allowed = own.millis >= 1000 && self.total.millis >= 1000;
        if allowed {
            own.millis -= 1000;
            self.total.millis -= 1000;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const SEED: HashSeed = HashSeed(1, 2);

    fn source(i: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + i).into()
    }

    fn allowed(limit: &mut RateLimit, from: IpAddr, now_ms: u64, tries: u32) -> u32 {
        (0..tries).filter(|_| limit.allow(from, now_ms)).count() as u32
    }

    #[test]
    fn a_source_gets_its_burst_and_then_its_rate() {
        let mut limit = RateLimit::new((1000, 1000), (10, 5), SEED, 50);
        assert_eq!(allowed(&mut limit, source(1), 50, 100), 5);
        assert_eq!(allowed(&mut limit, source(1), 149, 100), 0);
        assert_eq!(allowed(&mut limit, source(1), 150, 100), 1);
        assert_eq!(allowed(&mut limit, source(1), 100_000_000, 100), 5);
    }

    #[test]
    fn one_greedy_source_does_not_starve_the_others() {
        let mut limit = RateLimit::new((100, 100), (10, 10), SEED, 0);
        assert_eq!(allowed(&mut limit, source(1), 0, 10_000), 10);
        assert_eq!(allowed(&mut limit, source(2), 0, 10_000), 10);
    }

    #[test]
    fn all_sources_together_stay_within_the_limit() {
        let mut limit = RateLimit::new((100, 50), (10, 10), SEED, 0);
        let at =
            |limit: &mut RateLimit, now| (0..1000).map(|i| allowed(limit, source(i), now, 5)).sum::<u32>();
        assert_eq!(at(&mut limit, 0), 50);
        assert_eq!(at(&mut limit, 100), 10);
        assert_eq!(at(&mut limit, u64::MAX), 50);
    }

    #[test]
    fn a_clock_that_steps_back_gains_nobody_anything() {
        let mut limit = RateLimit::new((100, 50), (10, 1), SEED, 10_000);
        assert_eq!(allowed(&mut limit, source(1), 10_000, 5), 1);
        assert_eq!(allowed(&mut limit, source(1), 0, 5), 0);
        assert_eq!(allowed(&mut limit, source(1), 10_000, 5), 0);
        assert_eq!(allowed(&mut limit, source(1), 10_100, 5), 1);
    }
}
