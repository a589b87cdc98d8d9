//! The Ethernet addresses of this node's tunnel endpoints, kept across restarts.
//!
//! Peers send to the address in the lease. flannel loses it with its device; canal keeps it in a
//! file, and behind that in the lease it published itself, so that a restart or a reboot does not
//! make every peer relearn it.

use std::io;
use std::path::Path;

use canal_dataplane::net::Mac;
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::file;
use crate::model::flannel::LeaseValue;

/// Longest identity file read, in bytes.
const MAX_FILE: u64 = 4096;

/// The addresses of the tunnel endpoints of both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Of the IPv4 tunnels, `flannel.<VNI>` on a flannel node.
    pub vtep_mac: Mac,
    /// Of the IPv6 tunnels, `flannel-v6.<VNI>`.
    pub vtep_v6_mac: Mac,
}

/// What an earlier run left, each address on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredIdentity {
    /// See [`Identity::vtep_mac`].
    pub vtep_mac: Option<Mac>,
    /// See [`Identity::vtep_v6_mac`].
    pub vtep_v6_mac: Option<Mac>,
}

/// The file's form.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    #[serde(default)]
    vtep_mac: Option<String>,
    #[serde(default)]
    vtep_v6_mac: Option<String>,
}

impl StoredIdentity {
    /// Reads the file. Whatever in it cannot be used counts as absent: another address is better
    /// than a node that does not start.
    ///
    /// # Errors
    /// The system's, except for a missing file.
    pub fn load(path: &Path) -> io::Result<Self> {
        match std::fs::metadata(path) {
            Ok(meta) if meta.len() > MAX_FILE => Ok(Self::default()),
            Ok(_) => Ok(Self::decode(&std::fs::read(path)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn decode(bytes: &[u8]) -> Self {
        let Ok(stored) = serde_json::from_slice::<Stored>(bytes) else { return Self::default() };
        let usable = |text: Option<String>| text?.parse().ok().filter(is_station);
        Self { vtep_mac: usable(stored.vtep_mac), vtep_v6_mac: usable(stored.vtep_v6_mac) }
    }
}

impl Identity {
    /// Each address from the file, else from this node's own former lease, else random.
    pub fn settle(stored: StoredIdentity, own_lease: Option<&LeaseValue>, rng: &mut impl Rng) -> Self {
        let published = own_lease.and_then(|lease| lease.vxlan().ok().flatten()).map(|data| data.vtep_mac);
        let published_v6 =
            own_lease.and_then(|lease| lease.vxlan_v6().ok().flatten()).map(|data| data.vtep_mac);
        let mut random = || {
            let mut octets = [0; 6];
            rng.fill_bytes(&mut octets);
            Mac::local_from(octets)
        };
        Self {
            vtep_mac: stored.vtep_mac.or(published).unwrap_or_else(&mut random),
            vtep_v6_mac: stored.vtep_v6_mac.or(published_v6).unwrap_or_else(&mut random),
        }
    }

    /// Writes the file, by renaming a complete one into place.
    ///
    /// # Errors
    /// The system's.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let stored = Stored {
            vtep_mac: Some(self.vtep_mac.to_string()),
            vtep_v6_mac: Some(self.vtep_v6_mac.to_string()),
        };
        let mut text = serde_json::to_string(&stored)?;
        text.push('\n');
        file::replace(path, text.as_bytes(), 0o644)
    }
}

fn is_station(mac: &Mac) -> bool {
    mac.is_unicast() && *mac != Mac::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::flannel::VxlanData;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn mac(text: &str) -> Mac {
        text.parse().unwrap()
    }

    #[test]
    fn file_before_lease_before_chance() {
        let mut rng = StdRng::seed_from_u64(7);
        let in_file = mac("02:00:00:00:00:01");
        let in_lease = mac("02:00:00:00:00:02");
        let lease = LeaseValue {
            backend_data: Some(VxlanData { vni: None, vtep_mac: in_lease }.encode()),
            ..Default::default()
        };
        let stored = StoredIdentity { vtep_mac: Some(in_file), vtep_v6_mac: None };
        assert_eq!(Identity::settle(stored, Some(&lease), &mut rng).vtep_mac, in_file);
        let from_lease = Identity::settle(StoredIdentity::default(), Some(&lease), &mut rng);
        assert_eq!(from_lease.vtep_mac, in_lease);
        let random = Identity::settle(StoredIdentity::default(), None, &mut rng);
        assert_ne!(random.vtep_mac, random.vtep_v6_mac);
        assert!(is_station(&random.vtep_mac) && random.vtep_mac.0[0] & 2 == 2);
    }

    #[test]
    fn saved_is_loaded() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/canal-vtep.json");
        assert_eq!(StoredIdentity::load(&path).unwrap(), StoredIdentity::default());
        let identity = Identity { vtep_mac: mac("02:00:00:00:00:01"), vtep_v6_mac: mac("02:00:00:00:00:06") };
        identity.save(&path).unwrap();
        let expected =
            StoredIdentity { vtep_mac: Some(identity.vtep_mac), vtep_v6_mac: Some(identity.vtep_v6_mac) };
        assert_eq!(StoredIdentity::load(&path).unwrap(), expected);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"vtepMac\":\"02:00:00:00:00:01\",\"vtepV6Mac\":\"02:00:00:00:00:06\"}\n");
    }

    #[test]
    fn a_spoilt_file_counts_as_absent() {
        for text in
            ["", "{", "[]", r#"{"vtepMac":"x"}"#, r#"{"vtepMac":"01:00:00:00:00:01"}"#, r#"{"vtepMac":1}"#]
        {
            assert_eq!(StoredIdentity::decode(text.as_bytes()), StoredIdentity::default(), "{text}");
        }
    }
}
