//! Fragments fit the MTU and none is lost; what is not fragmented is untouched.

#![no_main]

use canal_dataplane::fragment::fragment_v4;
use canal_dataplane_fuzz::{AnyChecksum, with_frame};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    checksum: AnyChecksum,
    mtu: u16,
    packet: &'a [u8],
}

fuzz_target!(|input: Input| {
    let mtu = usize::from(input.mtu);
    with_frame(input.packet, |frame, pool| {
        let mut rest = Vec::new();
        match fragment_v4(frame, input.checksum.into(), mtu, pool, &mut rest) {
            Ok(1) | Err(_) => assert!(rest.is_empty() && frame.data() == input.packet),
            Ok(count) => {
                assert_eq!(count, rest.len() + 1);
                assert!(frame.len() <= 14 + mtu && rest.iter().all(|fragment| fragment.len() <= 14 + mtu));
            }
        }
        rest.into_iter().for_each(|fragment| pool.give(fragment));
    });
});
