//! Names and addresses that are made from other names, so that whoever needs one can work it out.

use canal_dataplane::net::Mac;
use sha1::{Digest, Sha1};

/// What the host-side interfaces of pods begin with.
const INTERFACE_PREFIX: &str = "cali";

/// Hexadecimal digits behind it: together 15 characters, the most that the kernel takes.
const INTERFACE_DIGITS: usize = 11;

/// The host-side interface of a Kubernetes pod.
pub fn pod_interface(namespace: &str, pod: &str) -> String {
    let hash = Sha1::new().chain_update(namespace).chain_update(".").chain_update(pod).finalize();
    let digits: String = hash.iter().map(|octet| format!("{octet:02x}")).collect();
    format!("{INTERFACE_PREFIX}{}", &digits[..INTERFACE_DIGITS])
}

/// The Ethernet address of a node's VXLAN device that nobody wrote down: `f` and the beginning of a hash of the name.
pub fn vtep_mac(node: &str, v6: bool) -> Mac {
    let hash = Sha1::new().chain_update(node).chain_update(if v6 { "-v6" } else { "" }).finalize();
    let mut octets = [b'f'; 6];
    octets[1..].copy_from_slice(&hash[..5]);
    Mac(octets)
}
