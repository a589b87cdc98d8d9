//! The `Backend` object of the network config: what canal does with each type.

use std::fmt;

use canal_dataplane::net::Vni;

use super::json::{self, JsonError};

/// A backend canal takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// VXLAN tunnels between nodes.
    Vxlan(VxlanOptions),
    /// Plain routes through the nodes' addresses; all nodes are on one link.
    HostGw,
    /// A lease and nothing else: whoever runs this network forwards by other means.
    Alloc,
}

/// Options of the vxlan backend. `MacPrefix` and `Name` are for Windows nodes and not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VxlanOptions {
    /// `VNI`, 1 by default.
    pub vni: Vni,
    /// `Port`: UDP destination port, 8472 (the Linux kernel's default) when absent or 0.
    pub port: u16,
    /// `GBP`: peers' devices carry a group id in the header; theirs is tolerated always, so that
    /// this is only worth showing.
    pub gbp: bool,
    /// `Learning`: peers' devices learn from traffic. canal never does.
    pub learning: bool,
    /// `DirectRouting`: nodes on one link exchange pod packets without encapsulation.
    pub direct_routing: bool,
    /// `MTU` of the *underlay*, in bytes; the interface's own when absent or 0.
    pub mtu: Option<u32>,
}

impl VxlanOptions {
    /// The Linux kernel's default VXLAN port, which flannel keeps.
    pub const DEFAULT_PORT: u16 = 8472;
}

impl Default for VxlanOptions {
    fn default() -> Self {
        Self {
            vni: Vni::FLANNEL,
            port: Self::DEFAULT_PORT,
            gbp: false,
            learning: false,
            direct_routing: false,
            mtu: None,
        }
    }
}

/// Why a backend cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// A type canal does not speak.
    #[error("backend type {0:?} is refused: {0}")]
    Refused(RefusedBackend),
    /// The object does not decode.
    #[error("Backend: {0}")]
    Json(#[from] JsonError),
    /// A number outside its range.
    #[error("Backend: {option} is {value}, must be {expected}")]
    Range {
        /// The option.
        option: &'static str,
        /// Its value.
        value: i64,
        /// What is allowed.
        expected: &'static str,
    },
}

/// A backend type that canal refuses; prints what to do instead.
#[derive(Clone, PartialEq, Eq)]
pub enum RefusedBackend {
    /// `udp`, also what flannel's code takes when there is no `Backend` at all.
    Udp,
    /// `ipip`.
    Ipip,
    /// `wireguard`.
    WireGuard,
    /// `ipsec`.
    Ipsec,
    /// `extension`: commands of the user's, run by a shell in older versions.
    Extension,
    /// A cloud's own route table: `tencent-vpc`, `ali-vpc`, `aws-vpc`, `gce`.
    Cloud(String),
    /// A `Backend` without a `Type`.
    Missing,
    /// Not a type of flannel's.
    Unknown(String),
}

impl RefusedBackend {
    /// The type's name in the network config.
    pub fn name(&self) -> &str {
        match self {
            Self::Udp => "udp",
            Self::Ipip => "ipip",
            Self::WireGuard => "wireguard",
            Self::Ipsec => "ipsec",
            Self::Extension => "extension",
            Self::Missing => "",
            Self::Cloud(name) | Self::Unknown(name) => name,
        }
    }
}

impl fmt::Debug for RefusedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.name(), f)
    }
}

impl fmt::Display for RefusedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => {
                "flannel takes udp when the config names no Backend; write \
                 \"Backend\":{\"Type\":\"vxlan\"} into it and restart the other nodes"
            }
            Self::Ipip => "use vxlan, or host-gw where all nodes are on one link",
            Self::WireGuard => "tunnels are not encrypted yet; use vxlan inside a network you trust",
            Self::Ipsec => "tunnels are not encrypted; use vxlan inside a network you trust",
            Self::Extension => "no command is ever run for a lease; use vxlan or host-gw",
            Self::Cloud(_) => {
                "cloud route tables are not written; use vxlan, or alloc if something else writes them"
            }
            Self::Missing => "Backend has no Type; flannel refuses it too; write \"Type\":\"vxlan\"",
            Self::Unknown(_) => "flannel has no such backend; use vxlan, host-gw or alloc",
        })
    }
}

impl Backend {
    /// What a `Backend` object means. The type's case does not matter, as in flannel's look-up.
    pub(super) fn decode(kind: &str, raw: Option<&str>) -> Result<Self, BackendError> {
        let refused = match kind.to_lowercase().as_str() {
            "vxlan" => return decode_vxlan(raw).map(Self::Vxlan),
            "host-gw" => return Ok(Self::HostGw),
            "alloc" => return Ok(Self::Alloc),
            "udp" => RefusedBackend::Udp,
            "ipip" => RefusedBackend::Ipip,
            "wireguard" => RefusedBackend::WireGuard,
            "ipsec" => RefusedBackend::Ipsec,
            "extension" => RefusedBackend::Extension,
            name @ ("tencent-vpc" | "ali-vpc" | "aws-vpc" | "gce") => RefusedBackend::Cloud(name.to_owned()),
            "" => RefusedBackend::Missing,
            _ => RefusedBackend::Unknown(kind.to_owned()),
        };
        Err(BackendError::Refused(refused))
    }

    /// The `BackendType` a lease of this backend carries; alloc leases carry none.
    pub const fn lease_type(&self) -> &'static str {
        match self {
            Self::Vxlan(_) => "vxlan",
            Self::HostGw => "host-gw",
            Self::Alloc => "",
        }
    }
}

fn decode_vxlan(raw: Option<&str>) -> Result<VxlanOptions, BackendError> {
    let mut options = VxlanOptions::default();
    for (name, value) in json::members(raw.unwrap_or("null"), "Backend")? {
        let is = |field| json::names(&name, field);
        if is("VNI") {
            if let Some(number) = json::integer(value, "VNI")? {
                options.vni = u32::try_from(number).ok().and_then(Vni::new).ok_or(BackendError::Range {
                    option: "VNI",
                    value: number,
                    expected: "0 to 16777215",
                })?;
            }
        } else if is("Port") {
            if let Some(number) = json::integer(value, "Port")? {
                let port = u16::try_from(number).map_err(|_| BackendError::Range {
                    option: "Port",
                    value: number,
                    expected: "0 (8472) to 65535",
                })?;
                options.port = if port == 0 { VxlanOptions::DEFAULT_PORT } else { port };
            }
        } else if is("MTU") {
            if let Some(number) = json::integer(value, "MTU")? {
                let mtu =
                    u32::try_from(number).ok().filter(|mtu| *mtu <= MAX_MTU).ok_or(BackendError::Range {
                        option: "MTU",
                        value: number,
                        expected: "0 (the interface's) to 65535",
                    })?;
                options.mtu = Some(mtu).filter(|mtu| *mtu > 0);
            }
        } else if is("GBP") {
            options.gbp = json::boolean(value, "GBP")?.unwrap_or(options.gbp);
        } else if is("Learning") {
            options.learning = json::boolean(value, "Learning")?.unwrap_or(options.learning);
        } else if is("DirectRouting") {
            options.direct_routing = json::boolean(value, "DirectRouting")?.unwrap_or(options.direct_routing);
        }
    }
    Ok(options)
}

/// An IPv4 packet has a 16-bit length, so that no link's MTU is worth more here.
const MAX_MTU: u32 = 65_535;

#[cfg(test)]
mod tests {
    use super::*;

    fn vxlan(raw: &str) -> Result<Backend, BackendError> {
        Backend::decode("VXLAN", Some(raw))
    }

    #[test]
    fn defaults_are_flannels() {
        let expected = VxlanOptions {
            vni: Vni::FLANNEL,
            port: 8472,
            gbp: false,
            learning: false,
            direct_routing: false,
            mtu: None,
        };
        for raw in [r#"{"Type":"vxlan"}"#, r#"{"Port":0,"MTU":0,"VNI":null,"GBP":null}"#] {
            assert_eq!(vxlan(raw).unwrap(), Backend::Vxlan(expected), "{raw}");
        }
    }

    #[test]
    fn every_option_is_read_in_any_case() {
        let raw = r#"{"vni":42,"port":4789,"gbp":true,"LEARNING":true,"directrouting":true,"Mtu":1400,
            "MacPrefix":"0E-2A","Name":"x"}"#;
        let expected = VxlanOptions {
            vni: Vni::new(42).unwrap(),
            port: 4789,
            gbp: true,
            learning: true,
            direct_routing: true,
            mtu: Some(1400),
        };
        assert_eq!(vxlan(raw).unwrap(), Backend::Vxlan(expected));
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        for (raw, option) in [
            (r#"{"VNI":16777216}"#, "VNI"),
            (r#"{"VNI":-1}"#, "VNI"),
            (r#"{"Port":65536}"#, "Port"),
            (r#"{"MTU":65536}"#, "MTU"),
        ] {
            let text = vxlan(raw).unwrap_err().to_string();
            assert!(text.contains(option), "{text}");
        }
        assert!(vxlan(r#"{"VNI":"1"}"#).is_err());
    }

    #[test]
    fn every_other_type_is_refused_by_name() {
        for name in ["udp", "ipip", "wireguard", "ipsec", "extension", "tencent-vpc", "gce", "", "nonsense"] {
            match Backend::decode(name, None) {
                Err(BackendError::Refused(refused)) => assert_eq!(refused.name(), name),
                other => panic!("{name}: {other:?}"),
            }
        }
        let text = Backend::decode("WireGuard", None).unwrap_err().to_string();
        assert!(text.starts_with("backend type \"wireguard\" is refused: tunnels"), "{text}");
    }
}
