//! What a text may be: names, labels, addresses, words from a list.

use std::net::IpAddr;
use std::sync::LazyLock;

use regex::Regex;

use super::net::{self, Net};

/// One rule about a text.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    /// What would do, as the end of "… ": starts with `must`.
    pub(super) says: &'static str,
    /// Whether it holds.
    pub(super) holds: fn(&str) -> bool,
}

/// Longest DNS subdomain (Kubernetes: `DNS1123SubdomainMaxLength`).
pub(super) const SUBDOMAIN_MAX: usize = 253;

/// Longest DNS label, label value, name part of a qualified name.
pub(super) const LABEL_MAX: usize = 63;

/// Nothing is asked.
pub(super) const ANY: Rule = Rule { says: "must be a text", holds: |_| true };

/// Names of nodes, profiles, pods.
pub(super) const NAME: Rule = Rule {
    says: "must be lower case letters, digits, '-' and '.', each part between dots with a letter or digit at both ends",
    holds: is_subdomain,
};

pub(super) const CONTAINER_ID: Rule = Rule {
    says: "must be letters, digits and '-', with a letter or digit at both ends",
    holds: |text| {
        let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        ends(bytes.first())
            && ends(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    },
};

pub(super) const INTERFACE: Rule = Rule {
    says: "must be an interface name of 1 to 15 letters, digits, '_', '.', '-', or * for all",
    holds: |text| text == "*" || is_made_of(text, 15, b"_.-"),
};

pub(super) const IGNORED_INTERFACE: Rule = Rule {
    says: "must be an interface name or pattern of 1 to 15 letters, digits, '_', '.', '-', '*', and not * alone",
    holds: |text| text != "*" && is_made_of(text, 15, b"_.*-"),
};

pub(super) const INTERFACE_FILTER: Rule = Rule {
    says: "must be 1 to 15 letters, digits, ':', '.', '_', '+', '-'",
    holds: |text| is_made_of(text, 15, b":._+-"),
};

pub(super) const PROMETHEUS_HOST: Rule = Rule {
    says: "must be a host name or address: 1 to 64 letters, digits, ':', '.', '_', '+', '-'",
    holds: |text| is_made_of(text, 64, b":._+-"),
};

pub(super) const PORT_NAME: Rule = Rule {
    says: "must be the name of a port: at most 15 lower case letters, digits and single '-' inside, one letter at least",
    holds: |text| {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=15).contains(&text.len())
            && text.bytes().all(legal)
            && text.bytes().any(|b| b.is_ascii_lowercase())
            && !text.contains("--")
            && !text.starts_with('-')
            && !text.ends_with('-')
    },
};

pub(super) const ADDRESS: Rule =
    Rule { says: "must be an IP address", holds: |text| text.parse::<IpAddr>().is_ok() };

pub(super) const IPV4: Rule = Rule { says: "must be an IPv4 address", holds: net::is_ipv4 };

pub(super) const IPV6: Rule = Rule { says: "must be an IPv6 address", holds: net::is_ipv6 };

pub(super) const CIDR: Rule = Rule {
    says: "must be a prefix such as 10.0.0.0/8, or an IP address",
    holds: |text| Net::cidr_or_address(text).is_some(),
};

pub(super) const CIDR_V4: Rule = Rule {
    says: "must be an IPv4 address, with or without the length of its prefix",
    holds: |text| Net::cidr_or_address(text).is_some_and(Net::is_v4),
};

pub(super) const CIDR_V6: Rule = Rule {
    says: "must be an IPv6 address, with or without the length of its prefix",
    holds: |text| Net::cidr_or_address(text).is_some_and(|net| !net.is_v4()),
};

pub(super) const NET: Rule = Rule {
    says: "must be a prefix without host bits such as 10.0.0.0/8, or an IP address",
    holds: |text| Net::cidr_or_address(text).is_some_and(Net::is_masked),
};

pub(super) const MAC: Rule =
    Rule { says: "must be an Ethernet address such as 66:a1:b2:c3:d4:e5", holds: net::is_hardware_address };

pub(super) const REGEX: Rule =
    Rule { says: "must be a regular expression", holds: |text| Regex::new(text).is_ok() };

pub(super) const KEY_VALUES: Rule = Rule {
    says: "must be a comma separated list of name=value",
    holds: |text| {
        static PAIR: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(?-u)^\s*\w+=").ok());
        let pair = |item: &str| PAIR.as_ref().is_some_and(|pair| pair.is_match(item));
        text.trim().is_empty() || text.split(',').all(|item| item.is_empty() || pair(item))
    },
};

pub(super) const PEER_ADDRESS: Rule = Rule {
    says: "must be an IP address, or one with a port such as 192.0.2.1:179 or [2001:db8::1]:179",
    holds: |text| peer_address(text).is_some(),
};

pub(super) const WIREGUARD_KEY: Rule =
    Rule { says: "must be a WireGuard public key: 32 bytes in base64", holds: is_wireguard_key };

pub(super) const HEALTH_NAME: Rule = Rule {
    says: "must be letters, digits, '_', ' ' and '-'",
    holds: |text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_ -".contains(&b)),
};

pub(super) const SERVICE: Rule =
    Rule { says: "must be the name of a service", holds: |text| !text.is_empty() };

pub(super) const COMMUNITY: Rule = Rule {
    says: "must be aa:nn of 16 bits each, or aa:nn:mm of 32 bits each",
    holds: super::check::bgp::is_community,
};

/// A rule that names every allowed word.
macro_rules! words {
    ($name:ident, $says:literal, $($word:literal)|+) => {
        pub(super) const $name: Rule = Rule { says: $says, holds: |text| matches!(text, $($word)|+) };
    };
}

words!(ACTION, "must be Allow, Deny, Log or Pass", "Allow" | "Deny" | "Log" | "Pass");
words!(POLICY_TYPE, "must be Ingress or Egress", "Ingress" | "Egress");
words!(ENCAP_MODE, "must be Always, CrossSubnet or Never", "Always" | "CrossSubnet" | "Never");
words!(POOL_USE, "must be Workload, Tunnel or LoadBalancer", "Workload" | "Tunnel" | "LoadBalancer");
words!(ASSIGNMENT, "must be Automatic or Manual", "Automatic" | "Manual");
words!(
    LOG_LEVEL,
    "must be Trace, Debug, Info, Warning, Error or Fatal",
    "Trace" | "Debug" | "Info" | "Warning" | "Error" | "Fatal"
);
words!(
    CONTROLLER_LOG_LEVEL,
    "must be None, Debug, Info, Warning, Error, Fatal or Panic",
    "None" | "Debug" | "Info" | "Warning" | "Error" | "Fatal" | "Panic"
);
words!(BPF_LOG_LEVEL, "must be Off, Info or Debug", "Off" | "Info" | "Debug");
words!(BPF_SERVICE_MODE, "must be Tunnel or DSR", "Tunnel" | "DSR");
words!(BPF_CONNECT_TIME, "must be TCP, Enabled or Disabled", "TCP" | "Enabled" | "Disabled");
words!(DROP_ACCEPT_RETURN, "must be Drop, Accept or Return", "Drop" | "Accept" | "Return");
words!(ACCEPT_RETURN, "must be Accept or Return", "Accept" | "Return");
words!(DROP_REJECT, "must be Drop or Reject", "Drop" | "Reject");
words!(DROP_REJECT_DISABLED, "must be Drop, Reject or Disabled", "Drop" | "Reject" | "Disabled");
words!(DISABLED_ANY, "must be Disabled or Any", "Disabled" | "Any");
words!(ON_OFF, "must be Enabled or Disabled", "Enabled" | "Disabled");
words!(IPTABLES_BACKEND, "must be Legacy, NFT or Auto", "" | "Legacy" | "NFT" | "Auto");
words!(SRC_DST_CHECK, "must be DoNothing, Enable or Disable", "DoNothing" | "Enable" | "Disable");
words!(SOURCE_ADDRESS, "must be UseNodeIP or None", "UseNodeIP" | "None");
words!(ASSIGN_IPS, "must be AllServices or RequestedServicesOnly", "AllServices" | "RequestedServicesOnly");
words!(TIER_ACTION, "must be Deny or Pass", "Deny" | "Pass");
words!(STAGED_ACTION, "must be Set, Delete, Learn or Ignore", "Set" | "Delete" | "Learn" | "Ignore");
words!(PERFORMANCE_HINT, "must be AssumeNeededOnEveryNode", "AssumeNeededOnEveryNode");
words!(TRANSPORT, "must be TCP, UDP or SCTP", "TCP" | "UDP" | "SCTP");

/// Parts of lower case letters, digits and inner dashes, between dots. How long is another rule.
pub(super) fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_dns_label)
}

/// One such part.
pub(super) fn is_dns_label(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(|b| legal(*b));
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|b| legal(*b) || *b == b'-')
}

/// A label's name as Kubernetes has it: `[subdomain/]name`.
pub(super) fn is_qualified_name(text: &str) -> bool {
    let name = match text.split_once('/') {
        None => text,
        Some((prefix, name)) if prefix.len() <= SUBDOMAIN_MAX && is_subdomain(prefix) => name,
        Some(_) => return false,
    };
    !name.is_empty() && is_label_value(name)
}

/// A label's value as Kubernetes has it.
pub(super) fn is_label_value(text: &str) -> bool {
    let ends = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let legal = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
    text.len() <= LABEL_MAX && ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(legal)
}

/// The address of a BGP peer, whose port is optional.
pub(super) fn peer_address(text: &str) -> Option<IpAddr> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits && text.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address.parse().ok().filter(|_| rest.strip_prefix(':').is_some_and(port));
    }
    match text.split_once(':') {
        Some((address, rest)) if address.contains('.') && !rest.contains(':') => {
            address.parse().ok().filter(|_| port(rest))
        }
        _ => text.parse().ok(),
    }
}

fn is_made_of(text: &str, longest: usize, others: &[u8]) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || others.contains(&b))
}

/// 43 digits of base64 and one `=` are 32 bytes.
fn is_wireguard_key(text: &str) -> bool {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let Some(digits) = text.strip_suffix('=').map(str::as_bytes).filter(|digits| digits.len() == 43) else {
        return false;
    };
    let value = |digit: &u8| DIGITS.iter().position(|known| known == digit);
    digits.iter().all(|digit| value(digit).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: Rule, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!((rule.holds)(text), "{text:?} {}", rule.says);
        }
        for text in bad {
            assert!(!(rule.holds)(text), "{text:?} {}", rule.says);
        }
    }

    #[test]
    fn names() {
        check(
            NAME,
            &["a", "node-1.example", "0"],
            &["", "A", "a.", ".a", "a..b", "-a", "a-", "a_b", "a-.b", "a\n"],
        );
        check(CONTAINER_ID, &["abc", "A-1"], &["", "-a", "a-", "a.b"]);
        check(INTERFACE, &["*", "eth0", "wg.cali_1-2"], &["", "eth0:1", "0123456789abcdef", "a b", "e*"]);
        check(IGNORED_INTERFACE, &["cali*", "e"], &["*", ""]);
        check(
            PORT_NAME,
            &["http", "a-valid-port"],
            &["", "80", "-a", "a-", "a--b", "HTTP", "sixteencharacter"],
        );
        check(PROMETHEUS_HOST, &["localhost", "::1"], &["", "a#", "0: 1"]);
    }

    #[test]
    fn labels() {
        for good in ["a", "A.b_c-1", "example.com/Label", "0"] {
            assert!(is_qualified_name(good), "{good}");
        }
        for bad in ["", "/a", "a/", "Example.com/a", "a/b/c", ".a", "a.", "a$", "-"] {
            assert!(!is_qualified_name(bad), "{bad}");
        }
        assert!(is_qualified_name(&"x".repeat(63)) && !is_qualified_name(&"x".repeat(64)));
        assert!(
            is_label_value("") && is_label_value("V1.0") && !is_label_value("a b") && !is_label_value("_")
        );
    }

    #[test]
    fn addresses() {
        check(IPV4, &["1.2.3.4", "::ffff:1.2.3.4"], &["", "1.2.3.4/32", "::1", "999.1.1.1"]);
        check(IPV6, &["::1"], &["1.2.3.4", ""]);
        check(NET, &["10.0.0.0/8", "10.0.0.1", "fd00::/64"], &["10.0.0.1/8", "", "x"]);
        check(CIDR, &["10.0.0.1/8"], &["10.0.0.1/33"]);
        check(CIDR_V4, &["1.2.3.4/24"], &["fd00::1/64"]);
        check(CIDR_V6, &["fd00::1/64"], &["1.2.3.4/24"]);
        let bad = [
            "",
            "1.2.3.4:",
            "1.2.3.4:0",
            "1.2.3.4:65536",
            "[::1]",
            "[::1]:",
            "[::1]:0",
            "[::fffff]:1",
            "1.2.3:1",
        ];
        check(PEER_ADDRESS, &["1.2.3.4", "1.2.3.4:179", "::1", "[9000::]:500", "::ffff:1.2.3.4"], &bad);
    }

    #[test]
    fn others() {
        check(REGEX, &["^eth.*", ""], &["*", "("]);
        check(KEY_VALUES, &["", " ", "a=1,b=", "a=x=y,", " A_1=b"], &["a", "a=1,b", "=1", "a-b=1"]);
        check(
            WIREGUARD_KEY,
            &["jlkVyQYooZYzI2wFfNhSZez5eWh44yfq1wKVjLvSXgY="],
            &[
                "",
                "foobar",
                "jlkVyQYooZYzI2wFfNhSZez5eWh44yfq1wKVjLvSXgY",
                "====",
                "jlkVyQYooZYzI2wFfNhSZez5eWh44yfq1wKVjLvSXg!=",
            ],
        );
        check(LOG_LEVEL, &["Info"], &["info", ""]);
        check(HEALTH_NAME, &["int dataplane_1"], &["", "a.b"]);
    }
}
