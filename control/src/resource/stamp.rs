//! When a new object was made, and which one it is.

use std::time::SystemTime;

use crate::model::calico::timestamp::rfc3339;

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
        Self { created: rfc3339(now), uid: uuid(random) }
    }

    /// For a second object that is made at the same time: another UUID, of the same random bytes.
    pub(super) fn sibling(&self) -> Self {
        let (first, rest) = self.uid.split_at_checked(8).unwrap_or_default();
        let inverted = u32::from_str_radix(first, 16).map_or(0, |bits| !bits);
        Self { created: self.created.clone(), uid: format!("{inverted:08x}{rest}") }
    }
}

fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn identities_say_that_they_are_random() {
        assert_eq!(Stamp::new(UNIX_EPOCH, [0xff; 16]).uid, "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(Stamp::new(UNIX_EPOCH, [0; 16]).uid, "00000000-0000-4000-8000-000000000000");
    }

    #[test]
    fn a_sibling_is_another_one() {
        let stamp = Stamp::new(UNIX_EPOCH, [0x0f; 16]);
        let sibling = stamp.sibling();
        assert_eq!(sibling.uid, "f0f0f0f0-0f0f-4f0f-8f0f-0f0f0f0f0f0f");
        assert_eq!((sibling.created.clone(), sibling.sibling()), (stamp.created.clone(), stamp));
    }
}
