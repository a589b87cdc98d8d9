//! The subnet file, which other programs and people write too.
#![no_main]

use canal_control::flannel::subnet_env::{networks4, networks6, one};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for net in networks4(text, "FLANNEL_SUBNET") {
        assert_eq!(net.ip(), net.network());
    }
    let _ = one(networks6(text, "FLANNEL_IPV6_SUBNET"));
});
