//! The names that Felix gives to sets of addresses.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha224};

use super::Selector;

/// `<kind>:` and the base64url form of SHA-224 over `<kind>:<content>`.
pub fn unique(kind: &str, content: &str) -> String {
    let hash = Sha224::new().chain_update(kind).chain_update(":").chain_update(content).finalize();
    let mut id = format!("{kind}:");
    URL_SAFE_NO_PAD.encode_string(hash, &mut id);
    id
}

/// Name of the set of addresses, protocol and port that selected endpoints have under the name `port_name`; `protocol`
/// is `tcp`, `udp` or `sctp`.
pub fn named_port_id(selector: &Selector, protocol: &str, port_name: &str) -> String {
    unique("n", &format!("{},{protocol},{port_name}", selector.id()))
}

/// Name of the set of a service's addresses, with protocol and port or without; `service` is `namespace/name`.
pub fn service_id(service: &str, with_ports: bool) -> String {
    unique(if with_ports { "svc" } else { "svcnoport" }, service)
}
