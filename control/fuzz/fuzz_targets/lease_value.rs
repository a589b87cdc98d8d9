//! Lease values: what can be read is written so that it reads the same.
#![no_main]

use canal_control::model::flannel::LeaseValue;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(lease) = LeaseValue::decode(data) else { return };
    let _ = (lease.vxlan(), lease.vxlan_v6());
    let written = lease.encode();
    let again = LeaseValue::decode(written.as_bytes()).expect("an encoded lease decodes");
    assert_eq!(again, lease);
    assert_eq!(again.encode(), written);
});
