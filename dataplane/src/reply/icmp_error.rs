//! ICMP and ICMPv6 errors, written into the frame of the packet that caused them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum;
use crate::frame::Frame;
use crate::limits::{ETHERNET, MAX_EXTENSION_HEADERS};

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// TTL or hop limit ran out here.
    TimeExceeded,
    /// Larger than the next hop's MTU and not to be fragmented: "fragmentation needed" (RFC 1191 §4) or "packet too
    /// big" (RFC 4443 §3.2).
    PacketTooBig {
        /// What would fit, in bytes of IP packet.
        mtu: u32,
    },
    /// It does not get there.
    Unreachable(Unreachable),
}

/// Why a destination is unreachable; in ICMPv6 the nearest code of RFC 4443 §3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// No route to it.
    Net,
    /// A route, but the host does not answer.
    Host,
    /// Policy forbids it.
    AdminProhibited,
    /// Nobody listens.
    Port,
}

/// Why no error is sent (RFC 1122 §3.2.2, RFC 4443 §2.4 e). The frame is untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not IPv4 or IPv6, or cut short.
    #[error("not a well-formed IP packet")]
    Malformed,
    /// An ICMP error, a redirect, or an ICMP message that cannot be told from one.
    #[error("no error in answer to an ICMP error")]
    IcmpError,
    /// Sent to more than one station, by Ethernet or IP address.
    #[error("no error in answer to a multicast or broadcast")]
    Multicast,
    /// A fragment other than the first: the first is answered.
    #[error("no error in answer to a non-first fragment")]
    Fragment,
    /// The source does not name one host that could be told.
    #[error("no error to a source that is not one host")]
    Source,
    /// Our address is of the other family.
    #[error("no address of this family to send from")]
    Family,
    /// The frame has no room for the new headers.
    #[error("no room in the frame")]
    NoRoom,
}

/// Length of the IPv4 packet an error makes at most (RFC 1812 §4.3.2.3).
const MAX_V4: usize = 576;
/// Length of the IPv6 packet an error makes at most: the least MTU (RFC 4443 §2.4 c).
const MAX_V6: usize = 1280;
/// Length of an ICMP error's header.
const ICMP: usize = 8;
/// Length of an IPv6 header.
const IPV6: usize = 40;
/// Length of the IPv4 header of an error.
const IPV4: usize = 20;
/// IP protocol numbers.
const ICMPV4: u8 = 1;
const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;
/// Initial TTL and hop limit.
const TTL: u8 = 64;
/// TOS of an IPv4 error: precedence "internetwork control" (RFC 1812 §4.3.2.5).
pub const TOS_CONTROL: u8 = 0xc0;

/// Turns the frame of the packet that caused `error` into the error, sent from `ours` back to where the packet came
/// from: as much of the packet as may be quoted behind new headers, Ethernet addresses exchanged. The packet should
/// still be as it was received (TTL not lowered); the result is finished, whatever was unfinished in the packet.
///
/// `mtu`: largest IP packet, in bytes, that the way back takes. Less is quoted where the RFCs' own limits would exceed it:
/// the sender of a packet that was too big would never hear of it otherwise. Headers are never cut.
///
/// # Errors
/// [`Refused`] when the RFCs forbid an answer; the frame is then untouched. Rate limits are the caller's business, see
/// [`super::RateLimit`].
pub fn rewrite(frame: &mut Frame, error: IcmpError, ours: IpAddr, mtu: u16) -> Result<(), Refused> {
    let mtu = usize::from(mtu);
    let ethernet = *frame.data().first_chunk::<ETHERNET>().ok_or(Refused::Malformed)?;
    match ([ethernet[12], ethernet[13]], ours) {
        ([0x08, 0x00], IpAddr::V4(ours)) => rewrite_v4(frame, error, ours, MAX_V4.min(mtu)),
        ([0x86, 0xdd], IpAddr::V6(ours)) => rewrite_v6(frame, error, ours, MAX_V6.min(mtu)),
        ([0x08, 0x00] | [0x86, 0xdd], _) => Err(Refused::Family),
        _ => Err(Refused::Malformed),
    }
}

fn rewrite_v4(frame: &mut Frame, error: IcmpError, ours: Ipv4Addr, most: usize) -> Result<(), Refused> {
    let (source, len) = answerable_v4(frame.data())?;
    let (kind, code, rest) = match error {
        IcmpError::TimeExceeded => (11, 0, 0),
        IcmpError::PacketTooBig { mtu } => (3, 4, mtu.min(0xffff)),
        IcmpError::Unreachable(Unreachable::Net) => (3, 0, 0),
        IcmpError::Unreachable(Unreachable::Host) => (3, 1, 0),
        IcmpError::Unreachable(Unreachable::AdminProhibited) => (3, 13, 0),
        IcmpError::Unreachable(Unreachable::Port) => (3, 3, 0),
    };
    let packet = exchange(frame, IPV4 + ICMP, len.min(most.saturating_sub(IPV4 + ICMP)))?;
    let (ip, icmp) = packet[ETHERNET..].split_at_mut(IPV4);
    let total = ((IPV4 + icmp.len()) as u16).to_be_bytes();
    // Identification 0 and DF: no router on the way may have to fragment what nobody could tell apart (RFC 6864 §4.1).
    ip[..12].copy_from_slice(&[0x45, TOS_CONTROL, total[0], total[1], 0, 0, 0x40, 0, TTL, 1, 0, 0]);
    ip[12..16].copy_from_slice(&ours.octets());
    ip[16..20].copy_from_slice(&source.octets());
    put_checksum(ip, 10, 0);
    put_icmp(icmp, kind, code, rest);
    put_checksum(icmp, 2, 0);
    Ok(())
}

fn rewrite_v6(frame: &mut Frame, error: IcmpError, ours: Ipv6Addr, most: usize) -> Result<(), Refused> {
    let too_big = matches!(error, IcmpError::PacketTooBig { .. });
    let (source, len) = answerable_v6(frame.data(), too_big)?;
    let (kind, code, rest) = match error {
        IcmpError::TimeExceeded => (3, 0, 0),
        IcmpError::PacketTooBig { mtu } => (2, 0, mtu),
        IcmpError::Unreachable(Unreachable::Net) => (1, 0, 0),
        IcmpError::Unreachable(Unreachable::Host) => (1, 3, 0),
        IcmpError::Unreachable(Unreachable::AdminProhibited) => (1, 1, 0),
        IcmpError::Unreachable(Unreachable::Port) => (1, 4, 0),
    };
    let packet = exchange(frame, IPV6 + ICMP, len.min(most.saturating_sub(IPV6 + ICMP)))?;
    let (ip, icmp) = packet[ETHERNET..].split_at_mut(IPV6);
    let len = (icmp.len() as u16).to_be_bytes();
    ip[..8].copy_from_slice(&[0x60, 0, 0, 0, len[0], len[1], ICMPV6, TTL]);
    ip[8..24].copy_from_slice(&ours.octets());
    ip[24..40].copy_from_slice(&source.octets());
    put_icmp(icmp, kind, code, rest);
    let pseudo = checksum::pseudo_v6(ours.octets(), source.octets(), ICMPV6, icmp.len() as u32);
    put_checksum(icmp, 2, pseudo);
    Ok(())
}

/// Keeps `quoted` bytes of the IP packet, makes room for `headers` bytes in front of it, and puts an Ethernet header
/// before those that goes back where the packet came from.
fn exchange(frame: &mut Frame, headers: usize, quoted: usize) -> Result<&mut [u8], Refused> {
    let ethernet = *frame.data().first_chunk::<ETHERNET>().ok_or(Refused::Malformed)?;
    if !frame.grow_front(headers) {
        return Err(Refused::NoRoom);
    }
    let shortened = frame.set_len(headers + ETHERNET + quoted);
    debug_assert!(shortened, "only gets shorter");
    let packet = frame.data_mut();
    packet[..6].copy_from_slice(&ethernet[6..12]);
    packet[6..12].copy_from_slice(&ethernet[..6]);
    packet[12..ETHERNET].copy_from_slice(&ethernet[12..]);
    Ok(packet)
}

fn put_icmp(icmp: &mut [u8], kind: u8, code: u8, rest: u32) {
    icmp[..4].copy_from_slice(&[kind, code, 0, 0]);
    icmp[4..8].copy_from_slice(&rest.to_be_bytes());
}

/// Stores the checksum of `bytes`, whose field at `at` is zero, on top of `initial`.
fn put_checksum(bytes: &mut [u8], at: usize, initial: u64) {
    let checksum = checksum::finish(checksum::sum(bytes, initial));
    bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Whom to answer, and how long the packet is.
fn answerable_v4(frame: &[u8]) -> Result<(Ipv4Addr, usize), Refused> {
    let packet = frame.get(ETHERNET..).ok_or(Refused::Malformed)?;
    let header = packet.first_chunk::<IPV4>().ok_or(Refused::Malformed)?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_len < IPV4 || len < header_len || len > packet.len() {
        return Err(Refused::Malformed);
    }
    let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    let target = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    if frame[0] & 1 != 0 || target.is_multicast() || target.is_broadcast() {
        return Err(Refused::Multicast);
    }
    // 0/8 and 240/4 (with the limited broadcast) name no host; 127/8 names none elsewhere (RFC 1122 §3.2.1.3).
    let first = source.octets()[0];
    if first == 0 || first >= 240 || source.is_loopback() || source.is_multicast() {
        return Err(Refused::Source);
    }
    if u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0 {
        return Err(Refused::Fragment);
    }
    // Only what is known to be a query: echo, router discovery, time stamp and the like, extended echo (RFC 8335).
    let kind = packet[..len].get(header_len);
    if header[9] == ICMPV4 && !matches!(kind, Some(0 | 8 | 9 | 10 | 13..=18 | 42 | 43)) {
        return Err(Refused::IcmpError);
    }
    Ok((source, len))
}

/// Whom to answer, and how long the packet is. A packet to many is answered if it is too big, so that path MTU
/// discovery works for multicast.
fn answerable_v6(frame: &[u8], too_big: bool) -> Result<(Ipv6Addr, usize), Refused> {
    let packet = frame.get(ETHERNET..).ok_or(Refused::Malformed)?;
    let header = packet.first_chunk::<IPV6>().ok_or(Refused::Malformed)?;
    let len = IPV6 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let packet = packet.get(..len).filter(|_| header[0] >> 4 == 6).ok_or(Refused::Malformed)?;
    let address = |at: usize| Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| header[at + i]));
    let (source, target) = (address(8), address(24));
    if (frame[0] & 1 != 0 || target.is_multicast()) && !too_big {
        return Err(Refused::Multicast);
    }
    if source.is_unspecified() || source.is_loopback() || source.is_multicast() {
        return Err(Refused::Source);
    }
    let (mut next, mut at) = (header[6], IPV6);
    for _ in 0..=MAX_EXTENSION_HEADERS {
        let units = match next {
            // Hop-by-hop, routing and destination options; authentication.
            0 | 43 | 60 | 51 => *packet.get(at + 1).ok_or(Refused::Malformed)?,
            FRAGMENT => {
                let word = packet.get(at + 2..at + 4).ok_or(Refused::Malformed)?;
                if u16::from_be_bytes([word[0], word[1]]) & 0xfff8 != 0 {
                    return Err(Refused::Fragment);
                }
                0
            }
            ICMPV6 => {
                // Errors are below 128, a redirect is 137.
                let query = packet.get(at).is_some_and(|kind| *kind >= 128 && *kind != 137);
                return if query { Ok((source, len)) } else { Err(Refused::IcmpError) };
            }
            _ => return Ok((source, len)),
        };
        let extension_len =
            if next == 51 { (usize::from(units) + 2) * 4 } else { (usize::from(units) + 1) * 8 };
        next = packet[at];
        at += extension_len;
    }
    Err(Refused::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_frames::{Headers, filled, headers, payload, pool, verifies};
    use proptest::prelude::*;

    const ERRORS: [IcmpError; 7] = [
        IcmpError::TimeExceeded,
        IcmpError::PacketTooBig { mtu: 1450 },
        IcmpError::PacketTooBig { mtu: 70_000 },
        IcmpError::Unreachable(Unreachable::Net),
        IcmpError::Unreachable(Unreachable::Host),
        IcmpError::Unreachable(Unreachable::AdminProhibited),
        IcmpError::Unreachable(Unreachable::Port),
    ];

    fn ours(v6: bool) -> IpAddr {
        if v6 { super::super::GATEWAY_V6.into() } else { Ipv4Addr::new(169, 254, 1, 1).into() }
    }

    /// What becomes of `packet`; when refused, it must be untouched.
    fn answered(packet: &[u8], error: IcmpError, ours: IpAddr) -> Result<Vec<u8>, Refused> {
        let mut pool = pool(1);
        let mut frame = filled(&mut pool, packet);
        let result = rewrite(&mut frame, error, ours, u16::MAX);
        if result.is_err() {
            assert_eq!(frame.data(), packet);
        }
        result.map(|()| frame.data().to_vec())
    }

    proptest! {
        #[test]
        fn an_error_quotes_the_packet_and_goes_back(
            mut headers in headers(), payload in payload(3000), error in prop::sample::select(&ERRORS[..]),
            padding in 0usize..10
        ) {
            headers.macs[0] &= 0xfe;
            let packet = headers.frame(&payload);
            let mut padded = packet.clone();
            padded.resize(packet.len() + padding, 0xee);
            let reply = answered(&padded, error, ours(headers.v6)).unwrap();
            prop_assert!(verifies(&reply));
            prop_assert_eq!(&reply[..6], &packet[6..12]);
            prop_assert_eq!(&reply[6..12], &packet[..6]);
            prop_assert_eq!(&reply[12..14], &packet[12..14]);
            let sliced = etherparse::SlicedPacket::from_ethernet(&reply).unwrap();
            let (new, most) = if headers.v6 { (48, 1280) } else { (28, 576) };
            prop_assert_eq!(&reply[14 + new..], &packet[14..packet.len().min(14 + most - new)]);
            match sliced.transport.unwrap() {
                etherparse::TransportSlice::Icmpv4(icmp) => {
                    use etherparse::Icmpv4Type::{DestinationUnreachable, TimeExceeded};
                    use etherparse::icmpv4::{DestUnreachableHeader as D, TimeExceededCode};
                    prop_assert_eq!(icmp.icmp_type(), match error {
                        IcmpError::TimeExceeded => TimeExceeded(TimeExceededCode::TtlExceededInTransit),
                        IcmpError::PacketTooBig { mtu } => DestinationUnreachable(D::FragmentationNeeded {
                            next_hop_mtu: mtu.min(65535) as u16
                        }),
                        IcmpError::Unreachable(Unreachable::Net) => DestinationUnreachable(D::Network),
                        IcmpError::Unreachable(Unreachable::Host) => DestinationUnreachable(D::Host),
                        IcmpError::Unreachable(Unreachable::Port) => DestinationUnreachable(D::Port),
                        IcmpError::Unreachable(Unreachable::AdminProhibited) =>
                            DestinationUnreachable(D::FilterProhibited),
                    });
                    prop_assert_eq!(&reply[26..30], &[169, 254, 1, 1]);
                    prop_assert_eq!(&reply[30..34], &headers.source[..4]);
                }
                etherparse::TransportSlice::Icmpv6(icmp) => {
                    use etherparse::Icmpv6Type::{DestinationUnreachable, PacketTooBig, TimeExceeded};
                    use etherparse::icmpv6::{DestUnreachableCode as D, TimeExceededCode};
                    prop_assert_eq!(icmp.icmp_type(), match error {
                        IcmpError::TimeExceeded => TimeExceeded(TimeExceededCode::HopLimitExceeded),
                        IcmpError::PacketTooBig { mtu } => PacketTooBig { mtu },
                        IcmpError::Unreachable(Unreachable::Net) => DestinationUnreachable(D::NoRoute),
                        IcmpError::Unreachable(Unreachable::Host) => DestinationUnreachable(D::Address),
                        IcmpError::Unreachable(Unreachable::Port) => DestinationUnreachable(D::Port),
                        IcmpError::Unreachable(Unreachable::AdminProhibited) => DestinationUnreachable(D::Prohibited),
                    });
                    prop_assert_eq!(&reply[38..54], &headers.source);
                }
                other => prop_assert!(false, "{other:?}"),
            }
            // The errors themselves are never answered.
            let mut back = reply.clone();
            back[0] &= 0xfe;
            prop_assert_eq!(answered(&back, IcmpError::TimeExceeded, ours(headers.v6)), Err(Refused::IcmpError));
        }

        #[test]
        fn no_bytes_make_it_panic(
            headers in headers(), damage in proptest::collection::vec((0usize..90, any::<u8>()), 0..8), cut in 0usize..140
        ) {
            let mut packet = headers.frame(&[7; 60]);
            let len = packet.len();
            damage.iter().for_each(|(at, byte)| packet[at % len] = *byte);
            packet.truncate(cut);
            for error in ERRORS {
                for ours in [ours(false), ours(true)] {
                    if let Ok(reply) = answered(&packet, error, ours) {
                        prop_assert!(verifies(&reply));
                    }
                }
            }
        }
    }

    fn sample(v6: bool) -> Vec<u8> {
        let headers = Headers { v6, udp: true, ttl: 1, dont_fragment: true, ..Headers::plain() };
        headers.frame(&[5; 100])
    }

    /// Bytes to write over the sample, each at its position.
    type Changes<'a> = &'a [(usize, &'a [u8])];

    fn changed(v6: bool, changes: Changes) -> Vec<u8> {
        let mut packet = sample(v6);
        for (at, bytes) in changes {
            packet[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        packet
    }

    #[test]
    fn the_negative_list_of_rfc_1122() {
        let cases: &[(Changes, Refused)] = &[
            (&[(0, &[0xff; 6])], Refused::Multicast),
            (&[(0, &[0x01, 0, 0x5e])], Refused::Multicast),
            (&[(30, &[224, 0, 0, 5])], Refused::Multicast),
            (&[(30, &[255, 255, 255, 255])], Refused::Multicast),
            (&[(20, &[0x00, 0x01])], Refused::Fragment),
            (&[(20, &[0x20, 0xb9])], Refused::Fragment),
            (&[(26, &[0, 0, 0, 0])], Refused::Source),
            (&[(26, &[0, 1, 2, 3])], Refused::Source),
            (&[(26, &[127, 0, 0, 1])], Refused::Source),
            (&[(26, &[224, 0, 0, 1])], Refused::Source),
            (&[(26, &[240, 0, 0, 1])], Refused::Source),
            (&[(26, &[255, 255, 255, 255])], Refused::Source),
            (&[(23, &[1]), (34, &[3])], Refused::IcmpError),
            (&[(23, &[1]), (34, &[4])], Refused::IcmpError),
            (&[(23, &[1]), (34, &[5])], Refused::IcmpError),
            (&[(23, &[1]), (34, &[11])], Refused::IcmpError),
            (&[(23, &[1]), (34, &[12])], Refused::IcmpError),
            (&[(23, &[1]), (34, &[200])], Refused::IcmpError),
            (&[(23, &[1]), (16, &[0, 20])], Refused::IcmpError),
            (&[(12, &[8, 6])], Refused::Malformed),
            (&[(14, &[0x44])], Refused::Malformed),
            (&[(16, &[0xff, 0xff])], Refused::Malformed),
        ];
        for (changes, refused) in cases {
            for error in ERRORS {
                assert_eq!(
                    answered(&changed(false, changes), error, ours(false)),
                    Err(*refused),
                    "{changes:?}"
                );
            }
        }
        assert_eq!(answered(&sample(false), ERRORS[0], ours(true)), Err(Refused::Family));
        // A first fragment and an echo request are answered.
        assert!(answered(&changed(false, &[(20, &[0x20, 0])]), ERRORS[0], ours(false)).is_ok());
        assert!(answered(&changed(false, &[(23, &[1]), (34, &[8])]), ERRORS[0], ours(false)).is_ok());
    }

    #[test]
    fn the_negative_list_of_rfc_4443() {
        let multicast: &[u8] = &[0xff, 0x02];
        let unspecified: &[u8] = &[0; 16];
        let loopback: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let cases: &[(Changes, Refused)] = &[
            (&[(22, multicast)], Refused::Source),
            (&[(22, unspecified)], Refused::Source),
            (&[(22, loopback)], Refused::Source),
            (&[(20, &[58]), (54, &[1])], Refused::IcmpError),
            (&[(20, &[58]), (54, &[127])], Refused::IcmpError),
            (&[(20, &[58]), (54, &[137])], Refused::IcmpError),
            (&[(20, &[58]), (18, &[0, 0])], Refused::IcmpError),
            // An error behind destination options, and behind the header of a first fragment.
            (&[(20, &[60]), (54, &[58, 0]), (62, &[3])], Refused::IcmpError),
            (&[(20, &[44]), (54, &[58, 0, 0, 1]), (62, &[3])], Refused::IcmpError),
            (&[(20, &[44]), (54, &[17, 0, 0, 8])], Refused::Fragment),
            (&[(18, &[0xff, 0xff])], Refused::Malformed),
            (&[(14, &[0x40])], Refused::Malformed),
        ];
        for (changes, refused) in cases {
            for error in ERRORS {
                assert_eq!(
                    answered(&changed(true, changes), error, ours(true)),
                    Err(*refused),
                    "{changes:?}"
                );
            }
        }
        for to_many in [changed(true, &[(38, multicast)]), changed(true, &[(0, &[0x33, 0x33])])] {
            assert_eq!(answered(&to_many, ERRORS[0], ours(true)), Err(Refused::Multicast));
            assert_eq!(answered(&to_many, ERRORS[6], ours(true)), Err(Refused::Multicast));
            assert!(answered(&to_many, ERRORS[1], ours(true)).is_ok());
        }
        assert!(answered(&changed(true, &[(20, &[58]), (54, &[128])]), ERRORS[0], ours(true)).is_ok());
    }

    #[test]
    fn an_error_fits_its_way_back() {
        for v6 in [false, true] {
            let headers = if v6 { 48 } else { 28 };
            let usual = if v6 { 1280 } else { 576 };
            for mtu in [40, 68, 300, 575, 576, 577, 1210, 1279, 1280, 1281] {
                let mut packet = sample(v6);
                packet.resize(14 + 1500, 5);
                let len = if v6 { 1500 - 40 } else { 1500u16 };
                packet[if v6 { 18..20 } else { 16..18 }].copy_from_slice(&len.to_be_bytes());
                let mut pool = pool(1);
                let mut frame = filled(&mut pool, &packet);
                rewrite(&mut frame, ERRORS[0], ours(v6), mtu).unwrap();
                assert!(verifies(frame.data()));
                assert_eq!(frame.len() - 14, usize::from(mtu).clamp(headers, usual), "v6 {v6}, {mtu}");
            }
        }
    }

    #[test]
    fn a_frame_without_headroom_is_left_alone() {
        let mut pool = pool(1);
        let mut frame = filled(&mut pool, &sample(false));
        assert!(frame.grow_front(120));
        let room = frame.headroom();
        frame.data_mut()[..14].copy_from_slice(&sample(false)[..14]);
        frame.data_mut()[14..134].copy_from_slice(&sample(false)[14..134]);
        assert_eq!(rewrite(&mut frame, ERRORS[0], ours(false), u16::MAX), Err(Refused::NoRoom));
        assert_eq!(frame.headroom(), room);
    }
}
