//! When a new object was made, and which one it is.

use std::time::{SystemTime, UNIX_EPOCH};

/// What a new object gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// RFC 3339, UTC, whole seconds.
    pub created: String,
    /// A UUID.
    pub uid: String,
}

impl Stamp {
    /// The time now, and a UUID of version 4 (RFC 9562, section 5.4) made of random bytes.
    pub fn new(now: SystemTime, random: [u8; 16]) -> Self {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { created: rfc3339(seconds), uid: uuid(random) }
    }
}

fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Seconds since 1970 as date and time. Years are counted from March, so that the leap day is a year's last.
fn rfc3339(seconds: u64) -> String {
    const DAYS_TO_1970: u64 = 719_468;
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let (days, second) = (seconds / 86_400 + DAYS_TO_1970, seconds % 86_400);
    let (era, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_704_164_645, "2024-01-02T03:04:05Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Stamp::new(UNIX_EPOCH + Duration::from_secs(seconds), [0; 16]).created, text);
        }
    }

    #[test]
    fn identities_say_that_they_are_random() {
        assert_eq!(Stamp::new(UNIX_EPOCH, [0xff; 16]).uid, "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(Stamp::new(UNIX_EPOCH, [0; 16]).uid, "00000000-0000-4000-8000-000000000000");
    }
}
