//! Any offload state for any port: nothing is lost, nothing unfinished leaves for a port that cannot finish it.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| canal_dataplane::testing::fuzz::offloads(bytes));
