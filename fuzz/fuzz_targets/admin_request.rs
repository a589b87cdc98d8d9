//! Lines on the admin socket: what is understood is written so that it is understood the same.
#![no_main]

use canal::observe::protocol::Request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    let Ok(request) = serde_json::from_slice::<Request>(line) else { return };
    let written = serde_json::to_string(&request).expect("a request is plain data");
    let again: Request = serde_json::from_str(&written).expect("what was written is a request");
    assert_eq!(again, request);
});
