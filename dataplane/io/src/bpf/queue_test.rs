//! The programs that pick queues and sockets, run by the kernel on generated packets, against the core's own idea of the
//! owner.

use aya::programs::{TestRun, TestRunOptions};
use canal_dataplane::frame::FramePool;
use canal_dataplane::limits::SMALL_FRAME_BUFFER;
use canal_dataplane::net::HashSeed;
use canal_dataplane::offload::Offload;
use canal_dataplane::packet::{Batch, Kind};
use canal_dataplane::port::{Ingress, Received};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::programs::{Picker, Programs};
use super::settings::{self, Fixed};

const QUEUES: u32 = 61;
const SEED: HashSeed = HashSeed(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);

/// Whom the core would give the frame to; `None` for what it does not understand.
fn owner(pool: &mut FramePool, frame: &[u8]) -> Option<u32> {
    let mut packet = pool.take().unwrap();
    assert!(packet.fill(frame));
    let mut received = vec![Received { frame: packet, offload: Offload::NONE, ingress: Ingress::Host }];
    let mut batch = Batch::default();
    batch.admit(&mut received, false);
    let packet = &mut batch[0];
    let owner = (packet.parse() == Ok(Kind::Ip)).then(|| packet.headers.owner(SEED, QUEUES));
    pool.give(packet.frame.take());
    owner
}

fn picked(programs: &mut Programs, picker: Picker, bytes: &[u8]) -> u32 {
    // The kernel takes the first 14 bytes off before it runs a program of this type; its real callers do not.
    let input = [&[0; 14], bytes].concat();
    let options = TestRunOptions { data_in: Some(&input), ..TestRunOptions::new() };
    programs.filter(picker).unwrap().test_run(options).unwrap().return_value
}

fn checksummed(mut ip: Vec<u8>) -> Vec<u8> {
    let sum = canal_dataplane::checksum::finish(canal_dataplane::checksum::sum(&ip, 0));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip
}

/// A frame (addresses and all) that holds some IP packet.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let protocol =
        prop_oneof![Just(6u8), Just(17), Just(1), Just(58), Just(132), Just(136), Just(47), Just(50)];
    let chain = proptest::collection::vec(
        (
            prop_oneof![Just(0u8), Just(43), Just(60), Just(51), Just(44)],
            0u8..3,
            any::<[u8; 2]>(),
            any::<bool>(),
        ),
        0..4,
    );
    let v4 = (any::<[u8; 8]>(), prop_oneof![4 => Just(0u16), 1 => any::<u16>()], 0usize..4);
    let echo = prop_oneof![Just(None), Just(Some(8u8)), Just(Some(0)), Just(Some(128)), Just(Some(129))];
    (any::<bool>(), any::<[u8; 32]>(), protocol, any::<[u8; 24]>(), v4, chain, echo).prop_map(
        |(v6, addresses, protocol, mut transport, (v4, fragment, options), chain, echo)| {
            transport[12] = 0x50;
            if protocol == 17 {
                transport[4..6].copy_from_slice(&24u16.to_be_bytes());
            }
            if let (Some(kind), 1 | 58) = (echo, protocol) {
                transport[0] = kind;
            }
            let mut frame = vec![6; 12];
            if !v6 {
                let mut ip = vec![0x45 + options as u8, 0, 0, (44 + options * 4) as u8, 0, 0];
                ip.extend(fragment.to_be_bytes());
                ip.extend([64, protocol, 0, 0]);
                ip.extend(v4);
                ip.extend([1u8, 1, 1, 0].repeat(options));
                frame.extend([8, 0]);
                frame.extend(checksummed(ip));
                frame.extend(transport);
                return frame;
            }
            let mut extensions = Vec::new();
            let mut next = chain.first().map_or(protocol, |first| first.0);
            let first = next;
            for (i, (kind, words, bits, whole)) in chain.iter().enumerate() {
                next = chain.get(i + 1).map_or(protocol, |after| after.0);
                let word = if *whole { [0, 0] } else { *bits };
                match kind {
                    44 => extensions.extend([next, 0, word[0], word[1], 1, 2, 3, 4]),
                    51 => {
                        extensions.extend([next, words + 2]);
                        extensions.extend(vec![0; 4 * usize::from(words + 4) - 2]);
                    }
                    _ => {
                        extensions.extend([next, *words]);
                        extensions.extend(vec![0; 8 * usize::from(words + 1) - 2]);
                    }
                }
            }
            let _ = next;
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(((extensions.len() + 24) as u16).to_be_bytes());
            frame.extend([first, 64]);
            frame.extend(addresses);
            frame.extend(extensions);
            frame.extend(transport);
            frame
        },
    )
}

#[test]
fn the_kernel_picks_the_worker_that_owns_the_flow() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must run this test as root");
        eprintln!("skipped the_kernel_picks_the_worker_that_owns_the_flow: needs root");
        return;
    }
    let mut programs = Programs::load().unwrap();
    programs.set_settings(settings::encode(&Fixed { device: 1, queues: QUEUES, seed: SEED }, None)).unwrap();
    let programs = std::cell::RefCell::new(programs);
    let pool = std::cell::RefCell::new(FramePool::new(1, SMALL_FRAME_BUFFER));
    let understood = std::cell::Cell::new(0);
    let cases = (frames(), any::<bool>(), any::<bool>());
    let config = Config { cases: 2000, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&cases, |(frame, underlay, outer_v6)| {
            let Some(owner) = owner(&mut pool.borrow_mut(), &frame) else { return Ok(()) };
            understood.set(understood.get() + 1);
            let mut wire = frame.clone();
            if underlay {
                let mut outer = vec![0x02, 0xc2, 0, 0, 0, 0, 0x02, 0xc2, 0, 0, 0, 5];
                let ip = if outer_v6 { 40 } else { 20 };
                outer.extend(if outer_v6 { [0x86, 0xdd] } else { [8, 0] });
                outer.resize(14 + ip + 16, 0);
                outer[14 + if outer_v6 { 6 } else { 9 }] = 17;
                outer.extend(&frame);
                wire = outer;
            } else {
                wire[6..12].copy_from_slice(&[0x02, 0xc1, 0, 0, 0, 5]);
            }
            let programs = &mut programs.borrow_mut();
            prop_assert_eq!(picked(programs, Picker::Queue, &wire), owner);
            let datagram = [&[0; 8], &frame[..]].concat();
            prop_assert_eq!(picked(programs, Picker::Socket, &datagram), owner);
            Ok(())
        })
        .unwrap();
    assert!(understood.get() > 1000, "the generator makes packets that the core takes: {}", understood.get());
    for stranger in [&[0u8; 14][..], &[2, 0xc2, 0, 0, 0, 0, 2, 0xc2, 0, 0, 0, 0, 8, 6, 1, 2, 3, 4]] {
        assert_eq!(picked(&mut programs.borrow_mut(), Picker::Queue, stranger), 0);
        assert_eq!(picked(&mut programs.borrow_mut(), Picker::Socket, stranger), u32::MAX);
    }
}
