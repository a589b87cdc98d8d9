//! Everything about a host's network that canal must not change, as text that can be compared.

use crate::attached;
use crate::netns::Netns;
use anyhow::Result;
use std::collections::BTreeMap;

/// The state of one namespace: a name for each section, and its lines in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    sections: BTreeMap<&'static str, Vec<String>>,
}

/// What canal owns on a host, and nothing else: lines of these kinds may come and go with the daemon.
#[derive(Clone, Debug)]
pub struct Owned {
    device: String,
    veths: Vec<String>,
}

/// Sysctls that count or age by themselves.
const MOVING: [&str; 3] = ["nf_conntrack_count", "tcp_fastopen_key", "ipv6.route.mtu_expires"];

/// Tools whose whole output must stay as it is; no line of theirs is ever canal's.
const RULES: [(&str, &[&str]); 6] = [
    ("iptables-nft", &["iptables-save"]),
    ("iptables-legacy", &["iptables-legacy-save"]),
    ("ip6tables-nft", &["ip6tables-save"]),
    ("ip6tables-legacy", &["ip6tables-legacy-save"]),
    ("nftables", &["nft", "--stateless", "list", "ruleset"]),
    ("ipset", &["ipset", "list"]),
];

const NETWORK: [(&str, &[&str]); 7] = [
    ("links", &["ip", "-o", "link", "show"]),
    ("addresses", &["ip", "-o", "addr", "show"]),
    ("routes4", &["ip", "-4", "route", "show", "table", "all"]),
    ("routes6", &["ip", "-6", "route", "show", "table", "all"]),
    ("rules4", &["ip", "-4", "rule", "show"]),
    ("rules6", &["ip", "-6", "rule", "show"]),
    ("qdiscs", &["tc", "qdisc", "show"]),
];

impl Fingerprint {
    /// Reads the state of `ns`.
    pub fn of(ns: &Netns) -> Result<Self> {
        let mut sections = BTreeMap::new();
        for (name, argv) in RULES.iter().chain(&NETWORK) {
            let lines = ns.run(argv)?.lines().map(normal).collect::<Vec<_>>();
            // Comments of the save tools hold the time.
            sections.insert(*name, lines.into_iter().filter(|l| !l.starts_with('#')).collect());
        }
        let links: &mut Vec<String> = sections.entry("links").or_default();
        let xdp: Vec<String> = links.iter().filter_map(|line| xdp_of(line)).collect();
        for line in links.iter_mut() {
            let plain = line.split("prog/xdp").next().unwrap_or_default().trim_end_matches(['\\', ' ']);
            *line = plain.split(' ').filter(|word| !word.starts_with("xdp")).collect::<Vec<_>>().join(" ");
        }
        sections.insert("xdp", xdp);
        let sysctls = ns.output(&["sysctl", "-a", "--pattern", r"^net\."])?;
        let sysctls = String::from_utf8_lossy(&sysctls.stdout);
        let still = |line: &&str| !MOVING.iter().any(|m| line.contains(m));
        sections.insert("sysctls", sysctls.lines().filter(still).map(normal).collect());
        let programs = attached::programs(ns)?;
        sections.insert("programs", programs.iter().map(|(place, n)| format!("{place} {n}")).collect());
        sections.insert("filters", filters(ns)?);
        Ok(Self { sections })
    }

    /// Lines that appeared (`+`) or disappeared (`-`) between `self` and `after` and that `owned` does not explain.
    pub fn difference(&self, after: &Self, owned: &Owned) -> Vec<String> {
        let mut lines = Vec::new();
        for (section, before) in &self.sections {
            let after = &after.sections[section];
            for (sign, here, there) in [('-', before, after), ('+', after, before)] {
                let foreign = here.iter().filter(|l| !there.contains(l) && !owned.explains(section, l));
                lines.extend(foreign.map(|l| format!("{section}: {sign} {l}")));
            }
        }
        lines
    }
}

impl Owned {
    /// `canal0` and what hangs on it, plus steering programs on the underlay `eth0` and the given interfaces.
    pub fn by_canal(veths: &[&str]) -> Self {
        Self { device: "canal0".to_owned(), veths: veths.iter().map(|v| (*v).to_owned()).collect() }
    }

    /// Nothing at all: what must be true after canal has gone.
    pub fn nothing() -> Self {
        Self { device: String::new(), veths: Vec::new() }
    }

    fn explains(&self, section: &str, line: &str) -> bool {
        if self.device.is_empty() {
            return false;
        }
        let words = || line.split([' ', ':', '@']);
        let on_device = words().any(|w| w == self.device);
        match section {
            "links" | "addresses" | "routes4" | "routes6" | "qdiscs" => on_device,
            "sysctls" => line.split(['.', ' ']).any(|w| w == self.device),
            "programs" | "filters" | "xdp" => {
                on_device || line.starts_with("eth0 ") || self.veths.iter().any(|v| words().any(|w| w == v))
            }
            // Rules of any firewall and policy routing: never.
            _ => false,
        }
    }
}

/// Interface and XDP program of a line of `ip -o link`, if there is one: `eth0 xdp/id:7`.
fn xdp_of(line: &str) -> Option<String> {
    let name = line.split([' ', ':', '@']).filter(|word| !word.is_empty()).nth(1)?;
    let program = line.split(' ').find(|word| word.starts_with("xdp"))?;
    Some(format!("{name} {program}"))
}

/// A line without what changes by itself: lifetimes, and the packet counters of firewalls (`[12:3456]`).
fn normal(line: &str) -> String {
    let mut words = Vec::new();
    let mut skip = false;
    for word in line.split_whitespace() {
        match word {
            _ if skip => skip = false,
            _ if is_counter(word) => {}
            "valid_lft" | "preferred_lft" | "expires" | "refcnt" => skip = true,
            _ => words.push(word),
        }
    }
    words.join(" ")
}

fn is_counter(word: &str) -> bool {
    let inside = word.strip_prefix('[').and_then(|w| w.strip_suffix(']')).and_then(|w| w.split_once(':'));
    inside.is_some_and(|(packets, bytes)| packets.parse::<u64>().is_ok() && bytes.parse::<u64>().is_ok())
}

/// clsact filters of every interface, the way of attaching before TCX.
fn filters(ns: &Netns) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let links = ns.run(&["ip", "-o", "link", "show"])?;
    for link in links.lines().filter_map(|l| l.split(": ").nth(1)) {
        let name = link.split('@').next().unwrap_or(link);
        for hook in ["ingress", "egress"] {
            // An interface without the hook says so and fails; an empty answer means the same.
            let shown = ns.output(&["tc", "filter", "show", "dev", name, hook])?;
            let text = String::from_utf8_lossy(&shown.stdout).into_owned();
            found.extend(text.lines().map(|l| format!("{name} {hook} {}", normal(l))));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(section: &'static str, lines: &[&str]) -> Fingerprint {
        let lines = lines.iter().map(|l| (*l).to_owned()).collect();
        Fingerprint { sections: BTreeMap::from([(section, lines)]) }
    }

    #[test]
    fn only_what_hangs_on_the_device_is_canals() {
        let before = with("routes4", &["default via 10.0.0.1 dev eth0"]);
        let after =
            with("routes4", &["10.244.0.0/16 dev canal0 scope link", "10.9.0.0/16 via 10.0.0.1 dev eth0"]);
        let difference = before.difference(&after, &Owned::by_canal(&[]));
        assert_eq!(
            difference,
            ["routes4: - default via 10.0.0.1 dev eth0", "routes4: + 10.9.0.0/16 via 10.0.0.1 dev eth0"]
        );
        assert_eq!(before.difference(&after, &Owned::nothing()).len(), 3);
    }

    #[test]
    fn a_firewall_rule_is_never_canals() {
        let after = with("nftables", &["table ip canal0 {"]);
        assert_eq!(with("nftables", &[]).difference(&after, &Owned::by_canal(&[])).len(), 1);
    }

    #[test]
    fn programs_are_allowed_where_canal_steers_only() {
        let after = with("programs", &["eth0 tcx-ingress 1", "cali0a tcx-ingress 1", "eth1 tcx-ingress 1"]);
        let difference = with("programs", &[]).difference(&after, &Owned::by_canal(&["cali0a"]));
        assert_eq!(difference, ["programs: + eth1 tcx-ingress 1"]);
    }

    #[test]
    fn lifetimes_and_packet_counters_do_not_count() {
        assert_eq!(normal(":INPUT ACCEPT [12:3456]"), ":INPUT ACCEPT");
        assert_eq!(
            normal("2: eth0  inet6 fd00::1/64 valid_lft 86sec dynamic"),
            "2: eth0 inet6 fd00::1/64 dynamic"
        );
    }
}
