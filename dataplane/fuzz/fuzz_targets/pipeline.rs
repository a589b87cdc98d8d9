//! Whole scenarios: networks that change, packets of every kind; the pipeline does what its slow twin does.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| canal_dataplane::testing::fuzz::pipeline(bytes));
