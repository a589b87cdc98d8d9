//! Keys: `<prefix>/config` and `<prefix>/subnets/<v4>-<len>[&<v6>-<len>]`.
//!
//! flannel finds the subnet with a regular expression anchored only at the end of the key,
//! `(\d+\.\d+.\d+.\d+)-(\d+)(?:&([a-f\d:]+)-(\d+))?$`, then parses each part strictly. The same
//! keys are accepted here, without a regular expression engine.

use std::fmt;

use ipnetwork::{Ipv4Network, Ipv6Network};

use super::addr::{GoIpv6, parse_ipv6};

/// Longest key looked at, in bytes. A prefix of thousands of characters is no flannel network.
const MAX_KEY: usize = 4096;

/// Where a flannel network lives in the datastore, e.g. `/coreos.com/network`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// flannel's default.
    pub const DEFAULT: &str = "/coreos.com/network";

    /// Cleans the path as POSIX tools do: repeated and trailing slashes, `.` and `..` go; a
    /// leading slash is neither added nor removed.
    pub fn new(text: &str) -> Self {
        let rooted = text.starts_with('/');
        let mut parts: Vec<&str> = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." if parts.last().is_some_and(|last| *last != "..") => {
                    parts.pop();
                }
                ".." if rooted => {}
                other => parts.push(other),
            }
        }
        Self(format!("{}{}", if rooted { "/" } else { "" }, parts.join("/")))
    }

    fn join(&self, rest: &str) -> String {
        match self.0.as_str() {
            "" => rest.to_owned(),
            "/" => format!("/{rest}"),
            prefix => format!("{prefix}/{rest}"),
        }
    }

    /// Key of the network config.
    pub fn config_key(&self) -> String {
        self.join("config")
    }

    /// What the keys of all leases start with. Ends in a slash, unlike flannel's, so that a
    /// neighbouring `<prefix>/subnets-old/…` is not listed.
    pub fn subnets(&self) -> String {
        self.join("subnets/")
    }

    /// Key of the lease of these subnets.
    pub fn lease_key(&self, subnets: &Subnets) -> String {
        self.join(&format!("subnets/{subnets}"))
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self::new(Self::DEFAULT)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The subnets one node owns; also the last element of its lease's key, which is how this prints.
///
/// Host bits are kept as the key has them: flannel compares keys' subnets without masking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnets {
    /// IPv4 subnet.
    pub v4: Ipv4Network,
    /// IPv6 subnet of a dual-stack node. Never `::/0`, which flannel writes as no subnet at all.
    pub v6: Option<Ipv6Network>,
}

impl fmt::Display for Subnets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.v4.ip(), self.v4.prefix())?;
        match self.v6 {
            Some(v6) => write!(f, "&{}-{}", GoIpv6(v6.ip()), v6.prefix()),
            None => Ok(()),
        }
    }
}

impl Subnets {
    /// The subnets named at the end of a key; `None` when it names none, which a reader of leases
    /// must skip over.
    pub fn from_key(key: &str) -> Option<Self> {
        if key.len() > MAX_KEY {
            return None;
        }
        let (head, last_length) = split_length(key)?;
        let plain = quad_start(head)
            .map(|start| (start, Parts { v4: &head[start..], length: last_length, v6: None }));
        let dual = dual_parts(head, last_length);
        let parts = match (plain, dual) {
            // The match that starts first is the one a regular expression finds. Where both start
            // at one place the "quad" has swallowed digits and cannot be an address.
            (Some((at_plain, plain)), Some((at_dual, dual))) => {
                if at_dual < at_plain {
                    dual
                } else {
                    plain
                }
            }
            (Some((_, parts)), None) | (None, Some((_, parts))) => parts,
            (None, None) => return None,
        };
        parts.parse()
    }
}

/// The pieces of a key before they are checked.
struct Parts<'a> {
    v4: &'a str,
    length: &'a str,
    v6: Option<(&'a str, &'a str)>,
}

impl Parts<'_> {
    fn parse(&self) -> Option<Subnets> {
        let v4 = Ipv4Network::new(self.v4.parse().ok()?, length_below(self.length, 32)?).ok()?;
        let v6 = match self.v6 {
            None => None,
            Some((address, length)) => {
                let net = Ipv6Network::new(parse_ipv6(address).ok()?, length_below(length, 128)?).ok()?;
                Some(net).filter(|net| !(net.ip().is_unspecified() && net.prefix() == 0))
            }
        };
        Some(Subnets { v4, v6 })
    }
}

/// flannel reads the lengths as 5- and 7-bit numbers, so that /32 and /128 are no lengths there.
fn length_below(digits: &str, limit: u8) -> Option<u8> {
    digits.parse().ok().filter(|length| *length < limit)
}

/// Splits `…-<digits>` at its last dash.
fn split_length(text: &str) -> Option<(&str, &str)> {
    let (head, digits) = text.rsplit_once('-')?;
    let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    all_digits.then_some((head, digits))
}

/// Reads `<quad>-<len>&<v6>` where `head` is the key without its last `-<len6>`.
fn dual_parts<'a>(head: &'a str, length6: &'a str) -> Option<(usize, Parts<'a>)> {
    let (before, v6) = head.rsplit_once('&')?;
    if v6.is_empty() || !v6.bytes().all(|b| matches!(b, b'a'..=b'f' | b'0'..=b'9' | b':')) {
        return None;
    }
    let (quad, length) = split_length(before)?;
    let start = quad_start(quad)?;
    Some((start, Parts { v4: &quad[start..], length, v6: Some((v6, length6)) }))
}

/// Where the longest ending of `text` that matches `\d+\.\d+.\d+.\d+` starts.
///
/// Walks backwards with the set of positions the expression can be in, as bits: 1 last number,
/// 2 behind it, 3 third number, 4 behind it, 5 second number, 6 the real dot, 7 first number.
fn quad_start(text: &str) -> Option<usize> {
    let mut states: u8 = 1;
    let mut found = None;
    for (at, c) in text.char_indices().rev() {
        let any = if c == '\n' { 0 } else { (states & (1 << 1 | 1 << 3)) << 1 };
        states = if c.is_ascii_digit() {
            let begun = (states & (1 | 1 << 2 | 1 << 4 | 1 << 6)) << 1;
            let going_on = states & (1 << 1 | 1 << 3 | 1 << 5 | 1 << 7);
            begun | going_on | any
        } else if c == '.' {
            any | (states & (1 << 5)) << 1
        } else {
            any
        };
        if states == 0 {
            break;
        }
        if states & (1 << 7) != 0 {
            found = Some(at);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn prefixes_are_cleaned_as_paths() {
        for (given, clean) in [
            ("/coreos.com/network", "/coreos.com/network/config"),
            ("/coreos.com/network//", "/coreos.com/network/config"),
            ("//a///b/./c/../d/", "/a/b/d/config"),
            ("no/slash", "no/slash/config"),
            ("", "config"),
            ("/", "/config"),
            ("/../x", "/x/config"),
            ("../x", "../x/config"),
        ] {
            assert_eq!(Prefix::new(given).config_key(), clean, "{given}");
        }
        assert_eq!(Prefix::default().subnets(), "/coreos.com/network/subnets/");
    }

    #[test]
    fn a_separator_that_is_no_dot_spoils_the_key() {
        for key in ["10.5-52.0-24", "1.2/3.4-24", "1.22334455-24", "10.5.52.0-24&10-24", "010.5.52.0-24"] {
            assert_eq!(Subnets::from_key(key), None, "{key}");
        }
        let found = Subnets::from_key("/net/1.10.5.52.0-24").unwrap();
        assert_eq!(found.to_string(), "10.5.52.0-24");
    }

    #[test]
    fn an_endless_key_is_not_read() {
        assert_eq!(Subnets::from_key(&format!("{}10.5.52.0-24", "9.".repeat(MAX_KEY))), None);
    }

    /// The expression by trying everything: every start, every split.
    fn slow_quad_start(text: &str) -> Option<usize> {
        fn matches(rest: &[char], pattern: &[char]) -> bool {
            let Some((&head, tail)) = pattern.split_first() else { return rest.is_empty() };
            match (head, rest.split_first()) {
                (_, None) => false,
                ('d', Some((c, after))) => {
                    c.is_ascii_digit() && (matches(after, tail) || matches(after, pattern))
                }
                ('.', Some((c, after))) => *c == '.' && matches(after, tail),
                (_, Some((c, after))) => *c != '\n' && matches(after, tail),
            }
        }
        let pattern: Vec<char> = "d.d?d?d".chars().collect();
        text.char_indices()
            .map(|(at, _)| at)
            .find(|at| matches(&text[*at..].chars().collect::<Vec<_>>(), &pattern))
    }

    proptest! {
        #[test]
        fn the_backward_walk_finds_what_backtracking_finds(text in "[0-9./\\-é\n]{0,14}") {
            prop_assert_eq!(quad_start(&text), slow_quad_start(&text), "{:?}", text);
        }

        #[test]
        fn a_written_key_reads_back(
            v4 in any::<u32>(), l4 in 0u8..32, v6 in any::<Option<(u128, u8)>>(), prefix in "/?[a-z0-9./-]{0,12}"
        ) {
            let v6 = v6
                .map(|(a, l)| Ipv6Network::new(Ipv6Addr::from(a), l % 128).unwrap())
                // A mapped address prints as a dotted quad, which is no IPv6 part of a key.
                .filter(|net| net.ip().to_ipv4_mapped().is_none() && (net.prefix() > 0 || !net.ip().is_unspecified()));
            let subnets = Subnets { v4: Ipv4Network::new(Ipv4Addr::from(v4), l4).unwrap(), v6 };
            let key = Prefix::new(&prefix).lease_key(&subnets);
            prop_assert_eq!(Subnets::from_key(&key), Some(subnets), "{}", key);
        }

        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,40}") {
            if let Some(subnets) = Subnets::from_key(&text) {
                prop_assert!(subnets.v4.prefix() < 32);
            }
        }
    }
}
