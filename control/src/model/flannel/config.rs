//! The network config document at `<prefix>/config`.
//!
//! Reading is in flannel's two stages. [`ConfigDocument::parse`] takes the JSON apart;
//! [`ConfigDocument::check`] applies flannel's rules and defaults in flannel's order, so that a
//! document is refused here exactly when a flannel node refuses it, with the same words.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};

use super::addr::{self, AddrError, GoIpv6, mask4, mask6};
use super::backend::{Backend, BackendError};
use super::json::{self, JsonError};

/// The document as written, types right but nothing checked against anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigDocument {
    /// `EnableIPv4`, true unless said otherwise.
    pub enable_ipv4: bool,
    /// `EnableIPv6`.
    pub enable_ipv6: bool,
    /// `EnableNFTables`: which kernel tables a flannel node uses; means nothing to canal.
    pub enable_nftables: bool,
    /// `Backend.Type` as spelt; `udp` when there is no `Backend`, empty when it has no `Type`.
    pub backend_type: String,
    network: Option<Ipv4Network>,
    ipv6_network: Option<Ipv6Network>,
    subnet_len: u64,
    ipv6_subnet_len: u64,
    subnet_min: Option<Ipv4Addr>,
    subnet_max: Option<Ipv4Addr>,
    ipv6_subnet_min: Option<Ipv6Addr>,
    ipv6_subnet_max: Option<Ipv6Addr>,
    backend: Option<String>,
}

/// A config that passed every check, with the defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// IPv4 part, when enabled.
    pub v4: Option<Pool4>,
    /// IPv6 part, when enabled.
    pub v6: Option<Pool6>,
    /// `Backend.Type` as spelt; see [`NetworkConfig::backend`] for what it means.
    pub backend_type: String,
    backend: Option<String>,
}

/// What subnets may be leased from: flannel's `Network`, `SubnetLen`, `SubnetMin`, `SubnetMax`.
///
/// `subnet_min` may lie behind `subnet_max`: flannel accepts that, and nothing can be leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool4 {
    /// The overlay's network.
    pub network: Ipv4Network,
    /// Prefix length of each node's subnet, at most 30.
    pub subnet_len: u8,
    /// First subnet that may be leased.
    pub subnet_min: Ipv4Addr,
    /// Last subnet that may be leased.
    pub subnet_max: Ipv4Addr,
}

/// As [`Pool4`], for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool6 {
    /// The overlay's network.
    pub network: Ipv6Network,
    /// Prefix length of each node's subnet, at most 126.
    pub subnet_len: u8,
    /// First subnet that may be leased.
    pub subnet_min: Ipv6Addr,
    /// Last subnet that may be leased.
    pub subnet_max: Ipv6Addr,
}

/// Why a document is not a network config.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The JSON stage.
    #[error("network config: {0}")]
    Json(#[from] JsonError),
    /// An address or network that is not one.
    #[error("network config: {field} {text:?}: {reason}")]
    Address {
        /// The member.
        field: &'static str,
        /// What it holds.
        text: String,
        /// What is wrong with it.
        reason: AddrError,
    },
    /// A rule between the values.
    #[error("network config: {0}")]
    Check(#[from] CheckError),
}

/// A rule of flannel's that the values break; the words are flannel's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// IPv4 is on and `Network` missing or `0.0.0.0/0`.
    #[error("please define a correct Network parameter in the flannel config")]
    NoNetwork,
    /// `SubnetLen` over 30.
    #[error("SubnetLen must be less than /31")]
    SubnetLenTooLong,
    /// `SubnetLen` or `IPv6SubnetLen` leaves fewer than four subnets.
    #[error("network must be able to accommodate at least four subnets")]
    FewerThanFourSubnets,
    /// No `SubnetLen`, and `Network` longer than /28.
    #[error("network is too small. Minimum useful network prefix is /28")]
    NetworkTooSmall,
    /// `SubnetMin` not in `Network`.
    #[error("SubnetMin is not in the range of the Network")]
    SubnetMinOutside,
    /// `SubnetMax` not in `Network`.
    #[error("SubnetMax is not in the range of the Network")]
    SubnetMaxOutside,
    /// `SubnetMin` has bits behind `SubnetLen`.
    #[error("SubnetMin is not on a SubnetLen boundary: {0}")]
    SubnetMinUnaligned(Ipv4Addr),
    /// `SubnetMax` has bits behind `SubnetLen`.
    #[error("SubnetMax is not on a SubnetLen boundary: {0}")]
    SubnetMaxUnaligned(Ipv4Addr),
    /// IPv6 is on and `IPv6Network` missing or `::/0`.
    #[error("please define a correct IPv6Network parameter in the flannel config")]
    NoIpv6Network,
    /// `IPv6SubnetLen` over 126.
    #[error("SubnetLen must be less than /127")]
    Ipv6SubnetLenTooLong,
    /// No `IPv6SubnetLen`, and `IPv6Network` longer than /124.
    #[error("IPv6Network is too small. Minimum useful network prefix is /124")]
    Ipv6NetworkTooSmall,
    /// `IPv6SubnetMin` not in `IPv6Network`.
    #[error("IPv6SubnetMin is not in the range of the IPv6Network")]
    Ipv6SubnetMinOutside,
    /// `IPv6SubnetMax` not in `IPv6Network`.
    #[error("IPv6SubnetMax is not in the range of the IPv6Network")]
    Ipv6SubnetMaxOutside,
    /// `IPv6SubnetMin` has bits behind `IPv6SubnetLen`.
    #[error("IPv6SubnetMin is not on a SubnetLen boundary: {}", GoIpv6(*.0))]
    Ipv6SubnetMinUnaligned(Ipv6Addr),
    /// `IPv6SubnetMax` has bits behind `IPv6SubnetLen`.
    #[error("IPv6SubnetMax is not on a SubnetLen boundary: {}", GoIpv6(*.0))]
    Ipv6SubnetMaxUnaligned(Ipv6Addr),
}

impl ConfigDocument {
    /// Takes the document apart: names in any case, unknown ones ignored, the last of a name wins,
    /// `null` leaves numbers, booleans and IPv6 bounds at their default.
    ///
    /// # Errors
    /// [`ConfigError::Json`] and [`ConfigError::Address`]; any member of a wrong type refuses the
    /// whole document, as in flannel, even one that a later duplicate would replace.
    pub fn parse(document: &[u8]) -> Result<Self, ConfigError> {
        let mut config = Self {
            enable_ipv4: true,
            enable_ipv6: false,
            enable_nftables: false,
            backend_type: String::new(),
            network: None,
            ipv6_network: None,
            subnet_len: 0,
            ipv6_subnet_len: 0,
            subnet_min: None,
            subnet_max: None,
            ipv6_subnet_min: None,
            ipv6_subnet_max: None,
            backend: None,
        };
        let text = json::document_text(document)?;
        for (name, raw) in json::members(&text, "the network config")? {
            config.set(&name, raw)?;
        }
        config.backend_type = match &config.backend {
            None => "udp".to_owned(),
            Some(backend) => backend_type(backend)?,
        };
        Ok(config)
    }

    fn set(&mut self, name: &str, raw: &str) -> Result<(), ConfigError> {
        let is = |field| json::names(name, field);
        if is("EnableIPv4") {
            replace(&mut self.enable_ipv4, json::boolean(raw, "EnableIPv4")?);
        } else if is("EnableIPv6") {
            replace(&mut self.enable_ipv6, json::boolean(raw, "EnableIPv6")?);
        } else if is("EnableNFTables") {
            replace(&mut self.enable_nftables, json::boolean(raw, "EnableNFTables")?);
        } else if is("SubnetLen") {
            replace(&mut self.subnet_len, json::unsigned(raw, "SubnetLen")?);
        } else if is("IPv6SubnetLen") {
            replace(&mut self.ipv6_subnet_len, json::unsigned(raw, "IPv6SubnetLen")?);
        } else if is("Network") {
            self.network = Some(address(raw, "Network", addr::parse_network4)?);
        } else if is("IPv6Network") {
            self.ipv6_network = Some(address(raw, "IPv6Network", addr::parse_network6)?);
        } else if is("SubnetMin") {
            self.subnet_min = Some(address(raw, "SubnetMin", addr::parse_ipv4)?);
        } else if is("SubnetMax") {
            self.subnet_max = Some(address(raw, "SubnetMax", addr::parse_ipv4)?);
        } else if is("IPv6SubnetMin") {
            self.ipv6_subnet_min = nullable_address(raw, "IPv6SubnetMin")?;
        } else if is("IPv6SubnetMax") {
            self.ipv6_subnet_max = nullable_address(raw, "IPv6SubnetMax")?;
        } else if is("Backend") {
            self.backend = Some(json::compact(raw));
        }
        Ok(())
    }

    /// Applies the rules, first everything about IPv4, then everything about IPv6.
    pub fn check(self) -> Result<NetworkConfig, CheckError> {
        let v4 = if self.enable_ipv4 { Some(self.pool4()?) } else { None };
        let v6 = if self.enable_ipv6 { Some(self.pool6()?) } else { None };
        Ok(NetworkConfig { v4, v6, backend_type: self.backend_type, backend: self.backend })
    }

    fn pool4(&self) -> Result<Pool4, CheckError> {
        let network = self
            .network
            .filter(|n| n.prefix() > 0 || n.ip() != Ipv4Addr::UNSPECIFIED)
            .ok_or(CheckError::NoNetwork)?;
        let subnet_len = match self.subnet_len {
            0 if network.prefix() > 28 => return Err(CheckError::NetworkTooSmall),
            0 if network.prefix() <= 22 => 24,
            0 => network.prefix() + 2,
            31.. => return Err(CheckError::SubnetLenTooLong),
            len if len < u64::from(network.prefix()) + 2 => return Err(CheckError::FewerThanFourSubnets),
            len => len as u8,
        };
        let size = 1u32 << (32 - u32::from(subnet_len));
        let inside = |at: &Ipv4Addr| *at & mask4(network.prefix()) == network.network();
        let given = |bound: Option<Ipv4Addr>| bound.filter(|at| *at != Ipv4Addr::UNSPECIFIED);

        // The first subnet is left out by default: its base is the network's own address.
        let subnet_min = match given(self.subnet_min) {
            None => Ipv4Addr::from(u32::from(network.ip()).wrapping_add(size)),
            Some(at) if inside(&at) => at,
            Some(_) => return Err(CheckError::SubnetMinOutside),
        };
        let subnet_max = match given(self.subnet_max) {
            None => Ipv4Addr::from(u32::from(addr::next4(network).ip()).wrapping_sub(size)),
            Some(at) if inside(&at) => at,
            Some(_) => return Err(CheckError::SubnetMaxOutside),
        };
        if subnet_min & mask4(subnet_len) != subnet_min {
            return Err(CheckError::SubnetMinUnaligned(subnet_min));
        }
        if subnet_max & mask4(subnet_len) != subnet_max {
            return Err(CheckError::SubnetMaxUnaligned(subnet_max));
        }
        Ok(Pool4 { network, subnet_len, subnet_min, subnet_max })
    }

    fn pool6(&self) -> Result<Pool6, CheckError> {
        let network = self
            .ipv6_network
            .filter(|n| n.prefix() > 0 || n.ip() != Ipv6Addr::UNSPECIFIED)
            .ok_or(CheckError::NoIpv6Network)?;
        let subnet_len = match self.ipv6_subnet_len {
            0 if network.prefix() > 124 => return Err(CheckError::Ipv6NetworkTooSmall),
            0 if network.prefix() <= 62 => 64,
            0 => network.prefix() + 2,
            127.. => return Err(CheckError::Ipv6SubnetLenTooLong),
            len if len < u64::from(network.prefix()) + 2 => return Err(CheckError::FewerThanFourSubnets),
            len => len as u8,
        };
        let size = 1u128 << (128 - u32::from(subnet_len));
        let inside = |at: &Ipv6Addr| *at & mask6(network.prefix()) == network.network();
        let given = |bound: Option<Ipv6Addr>| bound.filter(|at| *at != Ipv6Addr::UNSPECIFIED);

        let subnet_min = match given(self.ipv6_subnet_min) {
            None => Ipv6Addr::from(u128::from(network.ip()).wrapping_add(size)),
            Some(at) if inside(&at) => at,
            Some(_) => return Err(CheckError::Ipv6SubnetMinOutside),
        };
        let subnet_max = match given(self.ipv6_subnet_max) {
            None => Ipv6Addr::from(u128::from(addr::next6(network).ip()).wrapping_sub(size)),
            Some(at) if inside(&at) => at,
            Some(_) => return Err(CheckError::Ipv6SubnetMaxOutside),
        };
        if subnet_min & mask6(subnet_len) != subnet_min {
            return Err(CheckError::Ipv6SubnetMinUnaligned(subnet_min));
        }
        if subnet_max & mask6(subnet_len) != subnet_max {
            return Err(CheckError::Ipv6SubnetMaxUnaligned(subnet_max));
        }
        Ok(Pool6 { network, subnet_len, subnet_min, subnet_max })
    }
}

impl NetworkConfig {
    /// Parses and checks in one go.
    pub fn read(document: &[u8]) -> Result<Self, ConfigError> {
        Ok(ConfigDocument::parse(document)?.check()?)
    }

    /// What the backend asks for.
    ///
    /// # Errors
    /// [`BackendError::Refused`] for every type that canal does not speak; a bad option otherwise.
    pub fn backend(&self) -> Result<Backend, BackendError> {
        Backend::decode(&self.backend_type, self.backend.as_deref())
    }

    /// The members in which a newer config differs. Any of them needs a restart: nodes read the
    /// config when they start, and half of a change must not be applied.
    pub fn changed_members(&self, newer: &Self) -> Vec<&'static str> {
        let mut changed = Vec::new();
        if self.v4 != newer.v4 {
            changed.push("Network");
        }
        if self.v6 != newer.v6 {
            changed.push("IPv6Network");
        }
        if self.backend_type != newer.backend_type || self.backend != newer.backend {
            changed.push("Backend");
        }
        changed
    }
}

fn replace<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// A member that decodes itself from its raw text, even when that is `null`.
fn address<T>(
    raw: &str,
    field: &'static str,
    parse: impl Fn(&str) -> Result<T, AddrError>,
) -> Result<T, ConfigError> {
    let text = json::unquoted(raw);
    parse(text).map_err(|reason| ConfigError::Address { field, text: text.to_owned(), reason })
}

/// The IPv6 bounds are pointers in flannel: there `null` means "not given".
fn nullable_address(raw: &str, field: &'static str) -> Result<Option<Ipv6Addr>, ConfigError> {
    if raw == "null" { Ok(None) } else { address(raw, field, addr::parse_ipv6).map(Some) }
}

fn backend_type(raw: &str) -> Result<String, JsonError> {
    let mut kind = String::new();
    for (name, value) in json::members(raw, "Backend")? {
        if json::names(&name, "Type") {
            replace(&mut kind, json::string(value, "Backend.Type")?);
        }
    }
    Ok(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_no_address_but_leaves_the_rest_alone() {
        assert!(ConfigDocument::parse(br#"{"Network":null}"#).is_err());
        assert!(ConfigDocument::parse(br#"{"SubnetMin":null}"#).is_err());
        let config = NetworkConfig::read(
            br#"{"Network":"10.1.0.0/16","EnableIPv4":null,"SubnetLen":null,"IPv6SubnetMin":null}"#,
        )
        .unwrap();
        assert_eq!(config.v4.unwrap().subnet_len, 24);
    }

    #[test]
    fn the_last_of_a_name_wins_but_a_wrong_one_is_still_wrong() {
        let config = NetworkConfig::read(br#"{"Network":"10.1.0.0/16","NETWORK":"10.2.0.0/16"}"#).unwrap();
        assert_eq!(config.v4.unwrap().network.to_string(), "10.2.0.0/16");
        assert!(ConfigDocument::parse(br#"{"Network":"x","Network":"10.2.0.0/16"}"#).is_err());
        assert!(ConfigDocument::parse(br#"{"EnableIPv6":"yes","EnableIPv6":true}"#).is_err());
    }

    #[test]
    fn ipv4_is_checked_before_ipv6() {
        let both_wrong = ConfigDocument::parse(br#"{"EnableIPv6":true}"#).unwrap();
        assert_eq!(both_wrong.check(), Err(CheckError::NoNetwork));
    }

    #[test]
    fn a_change_is_named() {
        let read = |text: &str| NetworkConfig::read(text.as_bytes()).unwrap();
        let old = read(r#"{"Network":"10.1.0.0/16","Backend":{"Type":"vxlan"}}"#);
        let new =
            read(r#"{"Network":"10.1.0.0/16","SubnetMin":"10.1.4.0","Backend":{"Type":"vxlan","VNI":2}}"#);
        assert_eq!(old.changed_members(&new), ["Network", "Backend"]);
        let respelt = read("{ \"network\": \"10.1.0.0/16\",\n \"Backend\": {\"Type\": \"vxlan\"} }");
        assert!(old.changed_members(&respelt).is_empty());
    }
}
