//! Outer IP, UDP and VXLAN headers, and ICMP errors, of raw bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| canal_dataplane::testing::fuzz::outer_headers(bytes));
