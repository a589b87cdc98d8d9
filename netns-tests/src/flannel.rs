//! flannel's documents as the laboratory writes and reads them: network config and lease values.

use crate::plan::{self, Subnets};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};

/// flannel's default etcd prefix.
pub const PREFIX: &str = "/coreos.com/network";

/// Network config for the VXLAN backend; `backend` holds further keys of `Backend`, such as `{"VNI": 7}`.
///
/// What is leased at random ends below the subnets that kernel nodes are given, see [`Subnets::planned`].
pub fn net_conf(dual: bool, backend: &Value) -> Value {
    let mut conf =
        json!({"Network": plan::NETWORK_V4, "SubnetMax": "10.244.99.0", "Backend": {"Type": "vxlan"}});
    if dual {
        conf["EnableIPv6"] = json!(true);
        conf["IPv6Network"] = json!(plan::NETWORK_V6);
        conf["IPv6SubnetMax"] = json!("fd00:244:0:63::");
    }
    for (key, value) in backend.as_object().into_iter().flatten() {
        conf["Backend"][key] = value.clone();
    }
    conf
}

/// One lease, as far as a VXLAN node uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The subnets named by the key.
    pub subnets: Subnets,
    /// `PublicIP`.
    pub public_v4: Ipv4Addr,
    /// `PublicIPv6`.
    pub public_v6: Option<Ipv6Addr>,
    /// `BackendType`.
    pub backend: Option<String>,
    /// `BackendData.VtepMAC`.
    pub mac_v4: Option<String>,
    /// `BackendV6Data.VtepMAC`.
    pub mac_v6: Option<String>,
}

impl Lease {
    /// Reads a lease from the last part of its key and its value.
    pub fn parse(key: &str, value: &str) -> Result<Self> {
        let (v4, v6) = match key.split_once('&') {
            Some((v4, v6)) => (v4, Some(v6)),
            None => (key, None),
        };
        let base = |text: &str| text.rsplit_once('-').map(|(base, _)| base.to_owned());
        let v4 = base(v4).context("no length in the key")?.parse()?;
        let v6 = v6.and_then(base).map(|text| text.parse()).transpose()?;
        let value: Value = serde_json::from_str(value).with_context(|| format!("lease {key}"))?;
        let mac = |data: &str| value[data]["VtepMAC"].as_str().map(str::to_owned);
        Ok(Self {
            subnets: Subnets { v4, v6 },
            public_v4: value["PublicIP"].as_str().context("no PublicIP")?.parse()?,
            public_v6: value["PublicIPv6"].as_str().map(str::parse).transpose()?,
            backend: value["BackendType"].as_str().map(str::to_owned),
            mac_v4: mac("BackendData"),
            mac_v6: mac("BackendV6Data"),
        })
    }

    /// The value as flanneld writes it: compact, in this field order.
    pub fn value(&self, vni: u32) -> String {
        let v6 = self.public_v6.map_or("null".to_owned(), |a| format!("\"{a}\""));
        let mut text = format!("{{\"PublicIP\":\"{}\",\"PublicIPv6\":{v6}", self.public_v4);
        if let Some(backend) = &self.backend {
            text += &format!(",\"BackendType\":\"{backend}\"");
        }
        for (name, mac) in [("BackendData", &self.mac_v4), ("BackendV6Data", &self.mac_v6)] {
            if let Some(mac) = mac {
                text += &format!(",\"{name}\":{{\"VNI\":{vni},\"VtepMAC\":\"{mac}\"}}");
            }
        }
        text + "}"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_survives_its_text() {
        let lease = Lease {
            subnets: Subnets::planned(3, true),
            public_v4: Ipv4Addr::new(192, 168, 77, 13),
            public_v6: Some(Ipv6Addr::LOCALHOST),
            backend: Some("vxlan".to_owned()),
            mac_v4: Some("02:00:00:00:00:01".to_owned()),
            mac_v6: Some("02:00:00:00:00:02".to_owned()),
        };
        assert_eq!(Lease::parse(&lease.subnets.key(), &lease.value(1)).unwrap(), lease);
    }

    #[test]
    fn flannels_own_example_is_written_byte_for_byte() {
        let lease = Lease {
            subnets: Subnets::planned(0, false),
            public_v4: Ipv4Addr::new(192, 168, 50, 11),
            public_v6: None,
            backend: Some("vxlan".to_owned()),
            mac_v4: Some("7e:b7:5d:c7:7c:76".to_owned()),
            mac_v6: None,
        };
        assert_eq!(
            lease.value(1),
            r#"{"PublicIP":"192.168.50.11","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"7e:b7:5d:c7:7c:76"}}"#
        );
    }
}
