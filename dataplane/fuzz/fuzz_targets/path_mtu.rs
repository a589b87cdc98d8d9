//! Errors about packets that were sent, more or less as they were.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| canal_dataplane::testing::fuzz::path_mtu(bytes));
