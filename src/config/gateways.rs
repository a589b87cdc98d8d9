//! `--gateway-iface`: the names, and whether `--iface` and `--port` go with them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::flags::{Flags, PortChoice};
use super::{ConfigError, interface};

/// The gateway interfaces.
///
/// # Errors
/// [`ConfigError`], also when the names given by several flags cannot all be meant.
pub(super) fn named(flags: &Flags) -> Result<Vec<String>, ConfigError> {
    let names = flags.gateway_iface.iter().map(|name| interface("gateway-iface", name.clone()));
    let names = names.collect::<Result<BTreeSet<_>, _>>()?;
    if let Some([only]) = named_underlay(flags)
        && names.contains(only)
    {
        return Err(ConfigError::Both(only.clone()));
    }
    for (name, choice) in flags.port.named() {
        if !names.contains(name) {
            if named_underlay(flags).is_some_and(|of| of.iter().all(|iface| iface != name)) {
                return Err(ConfigError::Unused(name.to_owned()));
            }
        } else if choice == PortChoice::Udp {
            return Err(ConfigError::UdpGateway(name.to_owned()));
        }
    }
    Ok(names.into_iter().collect())
}

/// The names among which the way to the other nodes is, where names alone decide.
fn named_underlay(flags: &Flags) -> Option<&[String]> {
    let by_name = flags.iface_can_reach.is_none()
        && flags.iface_regex.is_empty()
        && !flags.iface.is_empty()
        && flags.iface.iter().all(|iface| iface.parse::<IpAddr>().is_err());
    by_name.then_some(&flags.iface)
}
