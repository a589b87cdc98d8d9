//! The bodies of the fuzz targets over pseudo-random inputs: real packets of every kind, whole and spoiled, and noise.

use canal_dataplane::testing::entropy::{Entropy, noise};
use canal_dataplane::testing::{fuzz, talk, traffic, world};

const INPUTS: u64 = 4000;

/// Packets as a node gets them, with a byte in front that varies.
fn corpus(target: fn(&[u8])) {
    let spec = world::spec(4);
    for seed in 0..INPUTS {
        let bytes = noise(seed, 200);
        let (_, packet) = traffic::packet(&spec, &[], &mut Entropy::new(&bytes));
        target(&packet);
        target(&[&[seed as u8], &packet[..]].concat());
        target(&bytes);
    }
}

#[test]
fn packet_parse() {
    corpus(fuzz::packet_parse);
}

#[test]
fn outer_headers() {
    corpus(fuzz::outer_headers);
}

#[test]
fn quote() {
    let spec = world::spec(4);
    for seed in 0..INPUTS {
        let bytes = noise(seed, 200);
        let (_, packet) = talk::packet(&spec, &mut Entropy::new(&bytes));
        let packet = packet.get(14..).unwrap_or(&[]);
        fuzz::quote(packet);
        fuzz::quote(&packet[..packet.len().min(20 + seed as usize % 40)]);
        let mut spoiled = packet.to_vec();
        for pair in bytes.chunks(2).take(seed as usize % 4) {
            if let Some(byte) = spoiled.get_mut(usize::from(pair[0]) % 64) {
                *byte = pair[1];
            }
        }
        fuzz::quote(&spoiled);
        fuzz::quote(&bytes);
    }
}

#[test]
fn path_mtu() {
    (0..INPUTS).for_each(|seed| fuzz::path_mtu(&noise(seed, 32)));
}

#[test]
fn pipeline() {
    (0..INPUTS / 20).for_each(|seed| fuzz::pipeline(&noise(seed, 2000)));
}

#[test]
fn offloads() {
    (0..INPUTS).for_each(|seed| fuzz::offloads(&noise(seed, 120)));
}

#[test]
fn short_inputs() {
    let targets: [fn(&[u8]); 6] = [
        fuzz::packet_parse,
        fuzz::outer_headers,
        fuzz::quote,
        fuzz::path_mtu,
        fuzz::pipeline,
        fuzz::offloads,
    ];
    for target in targets {
        (0..70).for_each(|len| target(&noise(1, len)));
    }
}
