//! Subnet keys: a key that names subnets, written canonically, names the same ones.
#![no_main]

use canal_control::model::flannel::{Prefix, Subnets};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|key: &str| {
    let _ = Prefix::new(key).config_key();
    let Some(subnets) = Subnets::from_key(key) else { return };
    // An IPv4-mapped address prints as a dotted quad, as in flannel, and then is no IPv6 part.
    let mapped = subnets.v6.is_some_and(|net| net.ip().to_ipv4_mapped().is_some());
    let again = Subnets::from_key(&Prefix::default().lease_key(&subnets));
    assert!(mapped || again == Some(subnets));
});
