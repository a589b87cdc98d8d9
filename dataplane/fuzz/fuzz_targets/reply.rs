//! Replies are made or refused, never half made.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use canal_dataplane::reply::arp::{self, Arp};
use canal_dataplane::reply::icmp_error::{self, IcmpError, Unreachable};
use canal_dataplane::reply::nd::{self, Nd};
use canal_dataplane::reply::{GATEWAY_MAC, GATEWAY_V6};
use canal_dataplane_fuzz::{AnyChecksum, with_frame};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Kind {
    TimeExceeded,
    PacketTooBig(u32),
    Unreachable,
    Arp,
    Nd(AnyChecksum),
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    kind: Kind,
    v6: bool,
    mtu: u16,
    packet: &'a [u8],
}

fuzz_target!(|input: Input| {
    let ours: IpAddr = if input.v6 { GATEWAY_V6.into() } else { Ipv4Addr::new(169, 254, 1, 1).into() };
    let error = match input.kind {
        Kind::PacketTooBig(mtu) => IcmpError::PacketTooBig { mtu },
        Kind::Unreachable => IcmpError::Unreachable(Unreachable::AdminProhibited),
        _ => IcmpError::TimeExceeded,
    };
    // Half of all addresses are the sender's own, and all others are answered for.
    let own = |last: u8| last & 1 == 1;
    with_frame(input.packet, |frame, _| {
        let made = match input.kind {
            Kind::Arp => {
                let result = arp::answer(frame, |_| true, |address| own(address.octets()[3]));
                result == Ok(Arp::Replied)
            }
            Kind::Nd(checksum) => {
                let result =
                    nd::answer(frame, checksum.into(), |_| true, |address| own(address.octets()[15]));
                result == Ok(Nd::Replied)
            }
            _ => icmp_error::rewrite(frame, error, ours, input.mtu).is_ok(),
        };
        match input.kind {
            _ if !made => assert_eq!(frame.data(), input.packet),
            Kind::Arp | Kind::Nd(_) => assert_eq!(frame.data()[6..12], GATEWAY_MAC.0),
            _ => {
                assert_eq!(frame.data()[..6], input.packet[6..12]);
                let (headers, usual) = if input.v6 { (48, 1280) } else { (28, 576) };
                assert!(frame.len() <= 14 + usual.min(usize::from(input.mtu)).max(headers));
            }
        }
    });
});
