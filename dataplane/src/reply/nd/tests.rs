//! Neighbour discovery against smoltcp's view of the messages.

use proptest::prelude::*;
use smoltcp::wire::{
    EthernetAddress, Icmpv6Packet, Icmpv6Repr, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress,
};

use super::*;
use crate::test_frames::{filled, pool, verifies};

const POD: [u8; 6] = [2, 3, 4, 5, 6, 7];
const ETHERNET_SOURCE: [u8; 6] = [2, 0xca, 0, 0, 0, 9];
const OWN: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 2);
const OWN_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
const OTHER: Ipv6Addr = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0xbeef, 0x1234);
const ZERO: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

/// A frame with an ICMPv6 message, its checksum right.
fn frame(source: Ipv6Addr, destination: Ipv6Addr, hop_limit: u8, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    if message.len() >= 4 {
        Icmpv6Packet::new_unchecked(&mut message[..]).fill_checksum(&source, &destination);
    }
    let mut frame = [&[0x33; 6], &ETHERNET_SOURCE[..], &[0x86, 0xdd, 0x60, 0, 0, 0]].concat();
    frame.extend((message.len() as u16).to_be_bytes());
    frame.extend([58, hop_limit]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(message);
    frame
}

fn option(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    [&[kind, 1], &mac[..]].concat()
}

/// Type and target of a message with `options`.
fn message(kind: u8, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0], &target.octets()[..], options].concat()
}

fn solicitation(source: Ipv6Addr, destination: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let options = if source == ZERO { Vec::new() } else { option(1, POD) };
    frame(source, destination, 255, &message(135, target, &options))
}

/// A gateway that answers for itself and for everything in fd00:2::/32.
fn answered_as(packet: &[u8], checksum: Checksum) -> (Result<Nd, NdError>, Vec<u8>) {
    let mut pool = pool(1);
    let mut frame = filled(&mut pool, packet);
    let result = answer(
        &mut frame,
        checksum,
        |target| target == GATEWAY_V6 || target.segments()[..2] == [0xfd00, 2],
        |source| source == OWN || source == OWN_LINK_LOCAL,
    );
    if result != Ok(Nd::Replied) {
        assert_eq!(frame.data(), packet);
    }
    (result, frame.data().to_vec())
}

fn answered(packet: &[u8]) -> (Result<Nd, NdError>, Vec<u8>) {
    answered_as(packet, Checksum::Complete)
}

/// The advertisement in `reply` as smoltcp reads it: source, destination, flags, target, link-layer address.
fn advertisement(reply: &[u8]) -> (Ipv6Addr, Ipv6Addr, NdiscNeighborFlags, Ipv6Addr, RawHardwareAddress) {
    assert!(verifies(reply));
    assert_eq!((&reply[6..12], reply[21]), (&[0xee; 6][..], 255));
    let ip = smoltcp::wire::Ipv6Packet::new_checked(&reply[14..]).unwrap();
    let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
    let capabilities = smoltcp::phy::ChecksumCapabilities::default();
    match Icmpv6Repr::parse(&ip.src_addr(), &ip.dst_addr(), &icmp, &capabilities).unwrap() {
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr }) => {
            (ip.src_addr(), ip.dst_addr(), flags, target_addr, lladdr.unwrap())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn solicitations_for_what_is_behind_the_gateway_are_answered() {
    let gateway: RawHardwareAddress = EthernetAddress([0xee; 6]).into();
    let all = NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
    for source in [OWN, OWN_LINK_LOCAL] {
        for target in [GATEWAY_V6, OTHER] {
            for destination in [target, solicited_node(target)] {
                let (result, reply) = answered(&solicitation(source, destination, target));
                assert_eq!(result, Ok(Nd::Replied));
                assert_eq!(advertisement(&reply), (target, source, all, target, gateway));
                assert_eq!(reply[..6], POD);
            }
        }
    }
    // Without its option, a unicast solicitation is answered to where it came from.
    let (result, reply) = answered(&frame(OWN, OTHER, 255, &message(135, OTHER, &[])));
    assert_eq!((result, &reply[..6]), (Ok(Nd::Replied), &ETHERNET_SOURCE[..]));
    assert_eq!(advertisement(&reply), (OTHER, OWN, all, OTHER, gateway));
}

#[test]
fn a_duplicate_of_the_gateway_is_told_to_everybody() {
    let (result, reply) = answered(&solicitation(ZERO, solicited_node(GATEWAY_V6), GATEWAY_V6));
    assert_eq!(result, Ok(Nd::Replied));
    let (source, destination, flags, target, _) = advertisement(&reply);
    assert_eq!((source, destination, target), (GATEWAY_V6, ALL_NODES, GATEWAY_V6));
    assert_eq!(flags, NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::OVERRIDE);
    assert_eq!(reply[..6], [0x33, 0x33, 0, 0, 0, 1]);
}

#[test]
fn the_solicited_node_address_of_rfc_4291() {
    let target: Ipv6Addr = "4037::01:800:200e:8c6c".parse().unwrap();
    assert_eq!(solicited_node(target), "ff02::1:ff0e:8c6c".parse::<Ipv6Addr>().unwrap());
}

#[test]
fn everything_else() {
    let spoofed = |address| Err(NdError::Spoofed { address });
    let to_all = "ff02::2".parse().unwrap();
    let from_own = |hop_limit, message: &[u8]| frame(OWN, ALL_NODES, hop_limit, message);
    let ask = |options: &[u8]| frame(OWN, OTHER, 255, &message(135, OTHER, options));
    let mut wrong_checksum = solicitation(OWN, OTHER, OTHER);
    wrong_checksum[56] ^= 1;
    let mut cut_short = solicitation(OWN, OTHER, OTHER);
    cut_short.pop();
    let mut code = message(135, OTHER, &[]);
    code[1] = 1;
    let router_solicitation = |source| frame(source, to_all, 255, &[133, 0, 0, 0, 0, 0, 0, 0]);
    for (i, (packet, expected)) in [
        (solicitation(OWN, solicited_node(OWN), OWN), Ok(Nd::OwnAddress)),
        (solicitation(OWN, solicited_node(OWN_LINK_LOCAL), OWN_LINK_LOCAL), Ok(Nd::OwnAddress)),
        (solicitation(ZERO, solicited_node(OWN), OWN), Ok(Nd::OwnAddress)),
        (solicitation(ZERO, solicited_node(OTHER), OTHER), Ok(Nd::OwnAddress)),
        (solicitation(ZERO, OTHER, OTHER), Err(NdError::Malformed)),
        (
            frame(ZERO, solicited_node(OTHER), 255, &message(135, OTHER, &option(1, POD))),
            Err(NdError::Malformed),
        ),
        (solicitation(OWN, solicited_node(GATEWAY_V6), OTHER), Ok(Nd::NotAnswered)),
        (solicitation(OWN, ALL_NODES, OTHER), Ok(Nd::NotAnswered)),
        (solicitation(OWN, "fd00:3::1".parse().unwrap(), "fd00:3::1".parse().unwrap()), Ok(Nd::NotAnswered)),
        (solicitation(OTHER, GATEWAY_V6, GATEWAY_V6), spoofed(OTHER)),
        (solicitation(OWN, ALL_NODES, ALL_NODES), Err(NdError::Malformed)),
        (from_own(255, &message(136, OWN, &option(2, POD))), Ok(Nd::Advertisement)),
        (from_own(255, &message(136, OTHER, &option(2, POD))), spoofed(OTHER)),
        (frame(OTHER, ALL_NODES, 255, &message(136, OWN, &[])), spoofed(OTHER)),
        (frame(ZERO, ALL_NODES, 255, &message(136, OWN, &[])), spoofed(ZERO)),
        (router_solicitation(OWN), Ok(Nd::RouterSolicitation)),
        (router_solicitation(ZERO), Ok(Nd::RouterSolicitation)),
        (router_solicitation(OTHER), spoofed(OTHER)),
        (from_own(255, &[134; 16]), Err(NdError::RouterAdvertisement)),
        (from_own(64, &[134]), Err(NdError::RouterAdvertisement)),
        (from_own(255, &message(137, OTHER, &OWN.octets())), Err(NdError::Redirect)),
        (frame(OWN, OTHER, 254, &message(135, OTHER, &[])), Err(NdError::HopLimit)),
        (wrong_checksum.clone(), Err(NdError::Checksum)),
        (cut_short, Err(NdError::Malformed)),
        (frame(OWN, OTHER, 255, &code), Err(NdError::Malformed)),
        (frame(OWN, OTHER, 255, &message(135, OTHER, &[])[..20]), Err(NdError::Malformed)),
        (ask(&[1, 0, 0, 0, 0, 0, 0, 0]), Err(NdError::Malformed)),
        (ask(&[1, 2, 2, 3, 4, 5, 6, 7]), Err(NdError::Malformed)),
        (ask(&[&[1, 2], &[2; 14][..]].concat()), Err(NdError::Malformed)),
        (ask(&option(1, [0xff; 6])), Err(NdError::Malformed)),
        (ask(&option(1, [0; 6])), Err(NdError::Malformed)),
        (ask(&[14]), Err(NdError::Malformed)),
        (ask(&option(14, [9; 6]).repeat(16)), Ok(Nd::Replied)),
        (ask(&option(14, [9; 6]).repeat(17)), Err(NdError::Malformed)),
        (from_own(255, &[128, 0, 0, 0, 0, 1, 0, 1]), Ok(Nd::Other)),
        (from_own(255, &[138; 8]), Ok(Nd::Other)),
        (from_own(255, &[]), Err(NdError::Malformed)),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(answered(&packet).0, expected, "case {i}");
    }
    assert_eq!(answered_as(&wrong_checksum, Checksum::Verified).0, Ok(Nd::Replied));
}

#[test]
fn nothing_hides_behind_extension_headers() {
    let hidden = |headers: &[u8], first: u8, kind: u8| {
        let mut packet = frame(OWN, ALL_NODES, 255, &[]);
        packet[19] = (headers.len() + 24) as u8;
        packet[20] = first;
        packet.extend([headers, &[kind; 24]].concat());
        answered(&packet).0
    };
    let advertisement = Err(NdError::RouterAdvertisement);
    assert_eq!(hidden(&[58, 0, 1, 4, 0, 0, 0, 0], 60, 134), advertisement);
    assert_eq!(hidden(&[58, 1, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, 134), advertisement);
    assert_eq!(hidden(&[44, 0, 1, 4, 0, 0, 0, 0, 58, 0, 0, 1, 0, 0, 0, 9], 60, 134), advertisement);
    assert_eq!(hidden(&[58, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 51, 134), advertisement);
    assert_eq!(hidden(&[58, 0, 0, 1, 0, 0, 0, 9], 44, 137), Err(NdError::Redirect));
    assert_eq!(hidden(&[58, 0, 1, 4, 0, 0, 0, 0], 60, 135), Err(NdError::Malformed));
    assert_eq!(hidden(&[58, 0, 1, 4, 0, 0, 0, 0], 60, 128), Ok(Nd::Other));
    // Not the first fragment: no ICMPv6 header is in it.
    assert_eq!(hidden(&[58, 0, 0, 8, 0, 0, 0, 9], 44, 134), Ok(Nd::Other));
    // A chain without end.
    assert_eq!(hidden(&[60, 0, 1, 4, 0, 0, 0, 0].repeat(20), 60, 134), Err(NdError::Malformed));
    assert_eq!(hidden(&[58, 255, 1, 4, 0, 0, 0, 0], 60, 134), Err(NdError::Malformed));
}

proptest! {
    #[test]
    fn damage_is_refused_or_harmless(
        damage in proptest::collection::vec((0usize..86, any::<u8>()), 0..5), cut in 60usize..90, trusted: bool
    ) {
        let mut bytes = solicitation(OWN, solicited_node(OTHER), OTHER);
        damage.iter().for_each(|(at, byte)| bytes[*at] = *byte);
        bytes.truncate(cut);
        let checksum = if trusted { Checksum::Verified } else { Checksum::Complete };
        let (result, reply) = answered_as(&bytes, checksum);
        if result == Ok(Nd::Replied) {
            // Whatever came in, only the gateway's address goes out.
            let (.., target, address) = advertisement(&reply);
            prop_assert_eq!(address, EthernetAddress([0xee; 6]).into());
            prop_assert!(target != OWN && target != OWN_LINK_LOCAL);
        }
    }
}
