//! One raw packet by any way, judged by the pipeline and by its slow twin.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| canal_dataplane::testing::fuzz::packet_parse(bytes));
