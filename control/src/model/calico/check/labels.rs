//! Labels as Felix wants them where it looks.

use super::super::v3::Labels;
use super::Problem;

const MAX_NAME: usize = 512;
const MAX_VALUE: usize = 63;

/// Felix refuses host endpoints and network sets for a label that Kubernetes would not take.
pub(super) fn check(labels: &Labels) -> Result<(), Problem> {
    for (name, value) in labels {
        if !is_name(name) {
            return Err(Problem::unreadable("metadata.labels", name, "name of a label"));
        }
        if !is_value(value) {
            return Err(Problem::unreadable("metadata.labels", value, "value of a label"));
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-');
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(allowed)
}

fn is_value(value: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let ends = [value.bytes().next(), value.bytes().next_back()];
    value.len() <= MAX_VALUE
        && value.bytes().all(allowed)
        && ends.into_iter().flatten().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_kubernetes() {
        for good in ["", "a", "a-b.c_d", "9", &"x".repeat(63)] {
            assert!(is_value(good), "{good}");
        }
        for bad in ["-a", "a-", "a b", "é", &"x".repeat(64)] {
            assert!(!is_value(bad), "{bad}");
        }
    }
}
