//! The subnet file: how the network tells other programs of this host what it is.
//!
//! docker's `mk-docker-opts.sh` sources it as shell, the flannel CNI plugin parses it, and the next
//! start of a node reads its former subnet from it. It is written byte for byte as flannel does.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnetwork::{Ipv4Network, Ipv6Network};

use super::file;
use crate::model::flannel::addr::{AddrError, GoIpv6, parse_network4, parse_network6};
use crate::model::flannel::{NetworkConfig, Subnets};

/// Longest subnet file read, in bytes; the real one has six lines.
const MAX_FILE: u64 = 65_536;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubnetEnv {
    /// The overlay's network and this node's subnet.
    pub v4: Option<(Ipv4Network, Ipv4Network)>,
    /// The same for IPv6.
    pub v6: Option<(Ipv6Network, Ipv6Network)>,
    /// MTU for pods, in bytes.
    pub mtu: u32,
    /// True when traffic of pods that leaves the overlay is masqueraded already.
    pub ip_masq: bool,
}

impl SubnetEnv {
    /// For a node that holds `subnets` in the network `config`.
    pub fn new(config: &NetworkConfig, subnets: &Subnets, mtu: u32, ip_masq: bool) -> Self {
        Self {
            v4: config.v4.map(|pool| (pool.network, subnets.v4)),
            v6: config.v6.zip(subnets.v6).map(|(pool, subnet)| (pool.network, subnet)),
            mtu,
            ip_masq,
        }
    }

    /// Writes the file, mode 0644, by renaming a complete one into place; its directory is made
    /// with mode 0755 when missing.
    ///
    /// # Errors
    /// The system's; an older file is then left as it was.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        file::replace(path, self.to_string().as_bytes(), 0o644)
    }
}

impl fmt::Display for SubnetEnv {
    /// The file's text. The subnets carry the address of a bridge in them, the first behind the base.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((network, subnet)) = self.v4 {
            let first = Ipv4Addr::from(u32::from(subnet.ip()).wrapping_add(1));
            writeln!(f, "FLANNEL_NETWORK={network}")?;
            writeln!(f, "FLANNEL_SUBNET={first}/{}", subnet.prefix())?;
        }
        if let Some((network, subnet)) = self.v6 {
            let first = Ipv6Addr::from(u128::from(subnet.ip()).wrapping_add(1));
            writeln!(f, "FLANNEL_IPV6_NETWORK={}/{}", GoIpv6(network.ip()), network.prefix())?;
            writeln!(f, "FLANNEL_IPV6_SUBNET={}/{}", GoIpv6(first), subnet.prefix())?;
        }
        writeln!(f, "FLANNEL_MTU={}", self.mtu)?;
        writeln!(f, "FLANNEL_IPMASQ={}", self.ip_masq)
    }
}

/// The subnets of an earlier run, for taking them again. `None` when the file is missing or names
/// no single IPv4 subnet.
///
/// # Errors
/// The system's, for a file that is there and cannot be read.
pub fn previous(path: &Path) -> io::Result<Option<Subnets>> {
    let text = match std::fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_FILE => return Ok(None),
        Ok(_) => String::from_utf8_lossy(&std::fs::read(path)?).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let v6 = one(networks6(&text, "FLANNEL_IPV6_SUBNET"));
    Ok(one(networks4(&text, "FLANNEL_SUBNET")).map(|v4| Subnets { v4, v6 }))
}

/// The IPv4 networks of a comma list, host bits masked; what is none is left out.
pub fn networks4(text: &str, key: &str) -> Vec<Ipv4Network> {
    networks(text, key, parse_network4)
}

/// The IPv6 networks of a comma list, host bits masked; what is none is left out.
pub fn networks6(text: &str, key: &str) -> Vec<Ipv6Network> {
    networks(text, key, parse_network6)
}

/// The network of a list that has exactly one: a node has one subnet, and of several none is it.
pub fn one<T>(mut networks: Vec<T>) -> Option<T> {
    if networks.len() == 1 { networks.pop() } else { None }
}

fn networks<T>(text: &str, key: &str, parse: fn(&str) -> Result<T, AddrError>) -> Vec<T> {
    let Some(list) = lookup(text, key) else { return Vec::new() };
    list.split(',').filter_map(|part| parse(part.trim()).ok()).collect()
}

/// The value of `key`, by the little of shell that such files use: comments, blank lines, `export`,
/// quotes around the whole value; the last assignment counts.
fn lookup<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().rev().find_map(|line| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| unquote(value.trim()))
    })
}

fn unquote(value: &str) -> &str {
    for quote in ['"', '\''] {
        let inner = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote));
        if let Some((inner, _)) = inner {
            return inner;
        }
    }
    value.split(" #").next().unwrap_or_default().trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn sample() -> SubnetEnv {
        let config = NetworkConfig::read(br#"{"Network":"10.244.0.0/16"}"#).unwrap();
        SubnetEnv::new(&config, &Subnets::from_key("10.244.7.0-24").unwrap(), 1450, true)
    }

    #[test]
    fn the_file_and_its_directory_have_flannels_modes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run/flannel/subnet.env");
        sample().write(&path).unwrap();
        sample().write(&path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o644);
        assert_eq!(mode(path.parent().unwrap()) & 0o700, 0o700);
        let names: Vec<_> =
            std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["subnet.env"], "nothing temporary is left");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), sample().to_string());
    }

    #[test]
    fn what_was_written_is_the_next_runs_previous_subnet() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("subnet.env");
        assert_eq!(previous(&path).unwrap(), None);
        let config = NetworkConfig::read(
            br#"{"Network":"10.42.0.0/16","EnableIPv6":true,"IPv6Network":"2001:cafe:42::/56"}"#,
        )
        .unwrap();
        let subnets = Subnets::from_key("10.42.3.0-24&2001:cafe:42:1::-64").unwrap();
        SubnetEnv::new(&config, &subnets, 1430, false).write(&path).unwrap();
        assert_eq!(previous(&path).unwrap(), Some(subnets));
    }

    #[test]
    fn hand_written_forms_are_read() {
        let read = |text: &str| one(networks4(text, "FLANNEL_SUBNET")).map(|net| net.to_string());
        let expected = Some("10.5.40.0/24".to_owned());
        assert_eq!(read("# FLANNEL_SUBNET=1.2.3.0/24\n\nexport FLANNEL_SUBNET=\"10.5.40.1/24\"\n"), expected);
        assert_eq!(read("FLANNEL_SUBNET=10.5.39.1/24\nFLANNEL_SUBNET = '10.5.40.1/24' # new\n"), expected);
        assert_eq!(read("FLANNEL_SUBNET=10.5.40.1/24 # bridge\r\n"), expected);
        assert_eq!(read("FLANNEL_SUBNETS=10.5.40.1/24\n"), None);
    }
}
