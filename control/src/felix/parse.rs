//! Values as Felix reads them. `none` stands for nothing: an empty list, zero, no.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::time::Duration;

use canal_dataplane::net::Vni;
use canal_dataplane::spec::policy::{EndpointToHost, Failsafe};
use ipnetwork::IpNetwork;

use super::Severity;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// Longest time that is taken for one: what is beyond it is a typing error, and timers have their limits.
pub(super) const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Longest name of an interface.
const MAX_INTERFACE: usize = 15;

/// What was said, or what would have done.
pub(super) type Parsed<T> = Result<T, &'static str>;

fn is_none(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case("none")
}

/// Felix has many words for yes.
pub(super) fn switch(text: &str) -> Parsed<bool> {
    match text.trim().to_lowercase().as_str() {
        "true" | "1" | "yes" | "y" | "t" => Ok(true),
        "false" | "0" | "no" | "n" | "f" | "none" => Ok(false),
        _ => Err("true or false"),
    }
}

pub(super) fn to_host(text: &str) -> Parsed<EndpointToHost> {
    match text.trim().to_lowercase().as_str() {
        "accept" | "return" => Ok(EndpointToHost::Accept),
        "drop" => Ok(EndpointToHost::Drop),
        _ => Err("Drop, Accept or Return"),
    }
}

pub(super) fn severity(text: &str) -> Parsed<Severity> {
    match text.trim().to_lowercase().as_str() {
        "none" => Ok(Severity::Off),
        "fatal" | "critical" | "error" => Ok(Severity::Error),
        "warning" => Ok(Severity::Warning),
        "info" => Ok(Severity::Info),
        "debug" => Ok(Severity::Debug),
        "trace" => Ok(Severity::Trace),
        _ => Err("Debug, Info, Warning, Error or Fatal"),
    }
}

pub(super) fn seconds(text: &str) -> Parsed<Duration> {
    if is_none(text) {
        return Ok(Duration::ZERO);
    }
    let time = text.trim().parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.map(|time| time.min(LONGEST)).ok_or("a number of seconds")
}

pub(super) fn port(text: &str) -> Parsed<u16> {
    text.trim().parse().ok().filter(|port| *port != 0).ok_or("a port between 1 and 65535")
}

pub(super) fn vni(text: &str) -> Parsed<Vni> {
    text.trim().parse().ok().and_then(Vni::new).ok_or("a number of 24 bits")
}

/// Nothing = what the interface below leaves.
pub(super) fn mtu(text: &str) -> Parsed<Option<NonZeroU16>> {
    if is_none(text) {
        return Ok(None);
    }
    text.trim().parse().map(NonZeroU16::new).map_err(|_| "a number of bytes up to 65535")
}

/// Where to listen. Nothing = at every IPv4 address.
pub(super) fn host(text: &str) -> Parsed<IpAddr> {
    match text.trim() {
        "" => Ok(Ipv4Addr::UNSPECIFIED.into()),
        "localhost" => Ok(Ipv4Addr::LOCALHOST.into()),
        none if is_none(none) => Ok(Ipv4Addr::UNSPECIFIED.into()),
        text => text.parse().map_err(|_| "an IP address, or localhost"),
    }
}

/// A slash would separate segments of a key.
pub(super) fn region(text: &str) -> Parsed<String> {
    match text {
        "" => Ok("no-region".to_owned()),
        none if is_none(none) => Ok("no-region".to_owned()),
        text if text.contains('/') => Err("a name without a slash"),
        text => Ok(format!("region-{text}")),
    }
}

/// Beginnings of names; nothing = any name.
pub(super) fn prefixes(text: &str) -> Parsed<Vec<String>> {
    let legal = |prefix: &str| {
        let letters = prefix.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-'));
        letters && (1..=MAX_INTERFACE).contains(&prefix.len())
    };
    match text.trim() {
        "" => Ok(Vec::new()),
        text if text.split(',').all(legal) => Ok(text.split(',').map(str::to_owned).collect()),
        _ => Err("beginnings of interface names, with commas between"),
    }
}

/// `tcp:22,udp:10.0.0.0/8:53,tcp:[fd00::/8]:22`; a port alone is one of TCP.
pub(super) fn failsafes(text: &str) -> Parsed<Vec<Failsafe>> {
    if is_none(text) {
        return Ok(Vec::new());
    }
    let mut failsafes = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        failsafes.push(
            failsafe(entry).ok_or("protocol:port, or protocol:network:port, with commas between; or none")?,
        );
    }
    failsafes.sort_unstable();
    failsafes.dedup();
    Ok(failsafes)
}

fn failsafe(entry: &str) -> Option<Failsafe> {
    let Some((protocol, rest)) = entry.split_once(':') else {
        return Some(Failsafe { protocol: TCP, port: entry.parse().ok()?, net: None });
    };
    let protocol = match protocol.to_lowercase().as_str() {
        "tcp" => TCP,
        "udp" => UDP,
        "sctp" => SCTP,
        _ => return None,
    };
    let (net, port) = match rest.rsplit_once(':') {
        None => (None, rest),
        Some((net, port)) => {
            let bare = net.strip_prefix('[').and_then(|net| net.strip_suffix(']')).unwrap_or(net);
            let net: IpNetwork = bare.parse().ok()?;
            (Some(IpNetwork::new(net.network(), net.prefix()).ok()?), port)
        }
    };
    Some(Failsafe { protocol, port: port.parse().ok()?, net })
}
