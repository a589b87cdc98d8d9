//! The value of a lease key: which node owns the subnets, and how it is reached.

use std::net::{Ipv4Addr, Ipv6Addr};

use canal_dataplane::net::{Mac, Vni};

use super::addr::{self, AddrError, GoIpv6};
use super::json::{self, JsonError};

/// A lease's value, flannel's `LeaseAttrs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseValue {
    /// IPv4 address other nodes reach this one by; `0.0.0.0` for a node that has none.
    pub public_ip: Ipv4Addr,
    /// The same over IPv6.
    pub public_ipv6: Option<Ipv6Addr>,
    /// Backend of the node; empty for backends that never say (udp, alloc, tencent-vpc).
    pub backend_type: String,
    /// What the backend wants peers to know, over IPv4.
    pub backend_data: Option<RawJson>,
    /// The same over IPv6.
    pub backend_v6_data: Option<RawJson>,
}

impl Default for LeaseValue {
    fn default() -> Self {
        Self {
            public_ip: Ipv4Addr::UNSPECIFIED,
            public_ipv6: None,
            backend_type: String::new(),
            backend_data: None,
            backend_v6_data: None,
        }
    }
}

/// Any JSON value, spelt as Go writes it inside a document: compact, numbers and escapes kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawJson(String);

impl RawJson {
    /// Takes any JSON text.
    ///
    /// # Errors
    /// [`JsonError::Syntax`] when it is none.
    pub fn new(text: &str) -> Result<Self, JsonError> {
        serde_json::from_str::<serde::de::IgnoredAny>(text)?;
        Ok(Self(json::compact(text)))
    }

    /// The compact text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a value is not a lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseValueError {
    /// The JSON stage.
    #[error("lease value: {0}")]
    Json(#[from] JsonError),
    /// `PublicIP` or `PublicIPv6` is no address of its family.
    #[error("lease value: {field} {text:?}: {reason}")]
    Address {
        /// The member.
        field: &'static str,
        /// What it holds.
        text: String,
        /// What is wrong with it.
        reason: AddrError,
    },
    /// The backend data is not what a vxlan node publishes.
    #[error("vxlan backend data: {0}")]
    Vxlan(&'static str),
}

impl LeaseValue {
    /// Reads a value as flannel does: names in any case, unknown ones ignored, no `PublicIP` means
    /// `0.0.0.0`.
    ///
    /// # Errors
    /// A reader of many leases skips the key: one broken value must not cost the other peers.
    pub fn decode(value: &[u8]) -> Result<Self, LeaseValueError> {
        let text = json::document_text(value)?;
        let mut lease = Self::default();
        for (name, raw) in json::members(&text, "the lease")? {
            let is = |field| json::names(&name, field);
            if is("PublicIP") {
                lease.public_ip = address(raw, "PublicIP", addr::parse_ipv4)?;
            } else if is("PublicIPv6") {
                lease.public_ipv6 = match raw {
                    "null" => None,
                    _ => Some(address(raw, "PublicIPv6", addr::parse_ipv6)?),
                };
            } else if is("BackendType") {
                if let Some(kind) = json::string(raw, "BackendType")? {
                    lease.backend_type = kind;
                }
            } else if is("BackendData") {
                lease.backend_data = Some(RawJson(json::compact(raw)));
            } else if is("BackendV6Data") {
                lease.backend_v6_data = Some(RawJson(json::compact(raw)));
            }
        }
        Ok(lease)
    }

    /// The value byte for byte as flannel writes it.
    pub fn encode(&self) -> String {
        let mut out = format!("{{\"PublicIP\":\"{}\",\"PublicIPv6\":", self.public_ip);
        match self.public_ipv6 {
            Some(v6) => out.push_str(&format!("\"{}\"", GoIpv6(v6))),
            None => out.push_str("null"),
        }
        if !self.backend_type.is_empty() {
            out.push_str(",\"BackendType\":");
            json::push_string(&mut out, &self.backend_type);
        }
        for (name, data) in [("BackendData", &self.backend_data), ("BackendV6Data", &self.backend_v6_data)] {
            if let Some(data) = data {
                out.push_str(&format!(",\"{name}\":{}", data.as_str()));
            }
        }
        out.push('}');
        out
    }

    /// What a vxlan node says about its IPv4 tunnel endpoint; `None` when it has none.
    ///
    /// # Errors
    /// [`LeaseValueError::Vxlan`] when the data is there but unusable.
    pub fn vxlan(&self) -> Result<Option<VxlanData>, LeaseValueError> {
        VxlanData::decode(self.backend_data.as_ref())
    }

    /// The same for IPv6.
    ///
    /// # Errors
    /// [`LeaseValueError::Vxlan`] when the data is there but unusable.
    pub fn vxlan_v6(&self) -> Result<Option<VxlanData>, LeaseValueError> {
        VxlanData::decode(self.backend_v6_data.as_ref())
    }
}

/// Backend data of a vxlan node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VxlanData {
    /// For information only: flannel programs peers without comparing it. `None` when absent or
    /// more than 24 bits.
    pub vni: Option<Vni>,
    /// Ethernet address of the node's VXLAN device: inner destination of what is sent to it.
    pub vtep_mac: Mac,
}

impl VxlanData {
    fn decode(data: Option<&RawJson>) -> Result<Option<Self>, LeaseValueError> {
        let Some(data) = data.filter(|data| data.as_str() != "null") else {
            return Ok(None);
        };
        let mut vni = None;
        let mut vtep_mac = None;
        for (name, raw) in json::members(data.as_str(), "the vxlan data")? {
            if json::names(&name, "VNI") {
                vni = json::unsigned(raw, "VNI")?.and_then(|n| u32::try_from(n).ok()).and_then(Vni::new);
            } else if json::names(&name, "VtepMAC") {
                let mac: Mac = json::unquoted(raw)
                    .parse()
                    .map_err(|_| LeaseValueError::Vxlan("VtepMAC is not an Ethernet address"))?;
                vtep_mac = Some(mac);
            }
        }
        let vtep_mac = vtep_mac.ok_or(LeaseValueError::Vxlan("no VtepMAC"))?;
        if !vtep_mac.is_unicast() || vtep_mac == Mac::ZERO {
            return Err(LeaseValueError::Vxlan("VtepMAC is not one station's address"));
        }
        Ok(Some(Self { vni, vtep_mac }))
    }

    /// As a vxlan node publishes it.
    pub fn encode(&self) -> RawJson {
        let vni = self.vni.map_or(0, Vni::get);
        RawJson(format!("{{\"VNI\":{vni},\"VtepMAC\":\"{}\"}}", self.vtep_mac))
    }
}

fn address<T>(
    raw: &str,
    field: &'static str,
    parse: impl Fn(&str) -> Result<T, AddrError>,
) -> Result<T, LeaseValueError> {
    let text = json::unquoted(raw);
    parse(text).map_err(|reason| LeaseValueError::Address { field, text: text.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn backend_data_keeps_its_spelling() {
        let value = br#"{"PublicIP":"1.2.3.4","BackendData": { "n" : 1.50, "s":"\u00e9 <" }}"#;
        let lease = LeaseValue::decode(value).unwrap();
        assert_eq!(
            lease.encode(),
            r#"{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendData":{"n":1.50,"s":"\u00e9 \u003c"}}"#
        );
    }

    #[test]
    fn vxlan_data_is_read_in_any_case_and_its_vni_is_not_trusted() {
        let lease =
            |data: &str| LeaseValue { backend_data: Some(RawJson::new(data).unwrap()), ..Default::default() };
        let mac: Mac = "7e:b7:5d:c7:7c:76".parse().unwrap();
        let read = |data| lease(data).vxlan();
        assert_eq!(
            read(r#"{"vni":7,"vtepmac":"7E:B7:5D:C7:7C:76"}"#).unwrap(),
            Some(VxlanData { vni: Vni::new(7), vtep_mac: mac })
        );
        assert_eq!(
            read(r#"{"VNI":99999999,"VtepMAC":"7e:b7:5d:c7:7c:76"}"#).unwrap(),
            Some(VxlanData { vni: None, vtep_mac: mac })
        );
        assert_eq!(read("null").unwrap(), None);
        for bad in [
            "{}",
            "[]",
            "\"hello\"",
            r#"{"VtepMAC":null}"#,
            r#"{"VtepMAC":"01:00:5e:00:00:01"}"#,
            r#"{"VtepMAC":"00:00:00:00:00:00"}"#,
            r#"{"VNI":"1","VtepMAC":"7e:b7:5d:c7:7c:76"}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    fn any_json() -> impl Strategy<Value = RawJson> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
        .prop_map(|value| RawJson::new(&value.to_string()).unwrap())
    }

    prop_compose! {
        fn any_lease()(
            ip in any::<u32>(), v6 in any::<Option<u128>>(), kind in ".{0,12}",
            data in prop::option::of(any_json()), v6_data in prop::option::of(any_json()),
        ) -> LeaseValue {
            LeaseValue {
                public_ip: ip.into(),
                public_ipv6: v6.map(Into::into),
                backend_type: kind,
                backend_data: data,
                backend_v6_data: v6_data,
            }
        }
    }

    proptest! {
        #[test]
        fn a_written_lease_reads_back(lease in any_lease()) {
            let text = lease.encode();
            let back = LeaseValue::decode(text.as_bytes()).map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
            prop_assert_eq!(&back, &lease);
            prop_assert_eq!(back.encode(), text);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(lease) = LeaseValue::decode(&bytes) {
                prop_assert_eq!(LeaseValue::decode(lease.encode().as_bytes()).unwrap(), lease);
            }
        }
    }
}
