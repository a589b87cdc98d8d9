//! ARP (RFC 826) on a workload's link: the gateway answers for everything that is reached through it.

use std::net::Ipv4Addr;

use super::{GATEWAY_MAC, set_macs};
use crate::frame::Frame;
use crate::limits::ETHERNET;
use crate::net::Mac;

/// What an ARP packet was, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arp {
    /// A question; the frame now holds the answer.
    Replied,
    /// A question for an address that is not answered for.
    NotAnswered,
    /// About an address of the sender's own: an announcement, or a probe whether somebody else has it (RFC 5227). An
    /// answer would tell the sender that its address is taken.
    OwnAddress,
    /// A reply. Nothing is learnt from the wire.
    Reply,
}

/// Why an ARP packet must be dropped. The frame is untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArpError {
    /// Cut short, not IPv4 over Ethernet, neither request nor reply, or from no possible Ethernet address.
    #[error("not a well-formed ARP packet")]
    Malformed,
    /// The sender gives an address that is not its own.
    #[error("ARP sender address {sender} is not the sender's own")]
    Spoofed {
        /// The address.
        sender: Ipv4Addr,
    },
}

/// Length of an ARP packet for IPv4 over Ethernet, behind the Ethernet header.
const ARP: usize = 28;
/// Ethernet, IPv4, six and four octets.
const IPV4_OVER_ETHERNET: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Answers the ARP request in `frame` with [`GATEWAY_MAC`], in place, if its target is `answered` for: the link-local
/// gateway 169.254.1.1 (which Calico gives as next hop), or any address with a route. Of the sender's own addresses,
/// those that are `allowed` as its source, nothing is ever answered. The probe of a foreign address (sender 0.0.0.0)
/// is answered like a question, so that the sender keeps away from it.
///
/// The answer goes to the sender's hardware address as the packet gives it, since a port may use the Ethernet source
/// for its own ends.
///
/// # Errors
/// [`ArpError`]; the frame is untouched.
pub fn answer(
    frame: &mut Frame,
    answered: impl FnOnce(Ipv4Addr) -> bool,
    allowed: impl Fn(Ipv4Addr) -> bool,
) -> Result<Arp, ArpError> {
    let ethernet = frame.data().first_chunk::<ETHERNET>().ok_or(ArpError::Malformed)?;
    let arp = frame.data()[ETHERNET..].first_chunk::<ARP>().ok_or(ArpError::Malformed)?;
    let hardware = Mac(std::array::from_fn(|i| arp[8 + i]));
    let address = |at: usize| Ipv4Addr::new(arp[at], arp[at + 1], arp[at + 2], arp[at + 3]);
    let (sender, target) = (address(14), address(24));
    let request = match arp[6..8] {
        [0, 1] => true,
        [0, 2] => false,
        _ => return Err(ArpError::Malformed),
    };
    let shape_right = ethernet[12..] == [0x08, 0x06] && arp[..6] == IPV4_OVER_ETHERNET;
    if !shape_right || !hardware.is_unicast() || hardware == Mac::ZERO {
        return Err(ArpError::Malformed);
    }
    let probe = request && sender.is_unspecified();
    if !probe && !allowed(sender) {
        return Err(ArpError::Spoofed { sender });
    }
    if !request {
        return Ok(Arp::Reply);
    }
    if target == sender || allowed(target) {
        return Ok(Arp::OwnAddress);
    }
    let one_host = !(target.is_unspecified() || target.is_loopback() || target.octets()[0] >= 224);
    if !one_host || !answered(target) {
        return Ok(Arp::NotAnswered);
    }
    let shortened = frame.set_len(ETHERNET + ARP);
    debug_assert!(shortened, "only loses its padding");
    let packet = frame.data_mut();
    set_macs(packet, hardware, GATEWAY_MAC);
    let arp = &mut packet[ETHERNET..];
    arp[6..8].copy_from_slice(&[0, 2]);
    // The sender's pair becomes the target's.
    arp.copy_within(8..18, 18);
    arp[8..14].copy_from_slice(&GATEWAY_MAC.0);
    arp[14..18].copy_from_slice(&target.octets());
    Ok(Arp::Replied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_frames::{filled, pool};
    use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, NetSlice, SlicedPacket};
    use proptest::prelude::*;

    const POD: [u8; 6] = [2, 3, 4, 5, 6, 7];
    const OWN: [u8; 4] = [10, 5, 25, 2];
    const GATEWAY: [u8; 4] = [169, 254, 1, 1];

    fn packet(operation: ArpOperation, hardware: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let ethernet = [&[0xff; 6], &[2, 0xca, 0, 0, 0, 9][..], &[8, 6]].concat();
        let arp = ArpPacket::new(
            ArpHardwareId::ETHERNET,
            EtherType::IPV4,
            operation,
            &hardware,
            &sender,
            &[0; 6],
            &target,
        );
        // Padded to Ethernet's least length.
        [&ethernet[..], &arp.unwrap().to_bytes(), &[0; 18]].concat()
    }

    /// A gateway that answers for 169.254.1.1 and everything in 10/8.
    fn answered(packet: &[u8]) -> (Result<Arp, ArpError>, Vec<u8>) {
        let mut pool = pool(1);
        let mut frame = filled(&mut pool, packet);
        let result = answer(
            &mut frame,
            |target| target.octets() == GATEWAY || target.octets()[0] == 10,
            |sender| sender.octets() == OWN,
        );
        if result != Ok(Arp::Replied) {
            assert_eq!(frame.data(), packet);
        }
        (result, frame.data().to_vec())
    }

    #[test]
    fn who_has_the_gateway() {
        for target in [GATEWAY, [10, 5, 12, 7]] {
            let (result, reply) = answered(&packet(ArpOperation::REQUEST, POD, OWN, target));
            assert_eq!(result, Ok(Arp::Replied));
            assert_eq!((&reply[..6], &reply[6..12], reply.len()), (&POD[..], &[0xee; 6][..], 42));
            let sliced = SlicedPacket::from_ethernet(&reply).unwrap();
            let Some(NetSlice::Arp(arp)) = &sliced.net else { panic!("not ARP") };
            let expected = ArpPacket::new(
                ArpHardwareId::ETHERNET,
                EtherType::IPV4,
                ArpOperation::REPLY,
                &[0xee; 6],
                &target,
                &POD,
                &OWN,
            );
            assert_eq!(arp.to_packet(), expected.unwrap());
        }
    }

    #[test]
    fn everything_else() {
        let zero = [0; 4];
        let spoofed = |sender: [u8; 4]| Err(ArpError::Spoofed { sender: sender.into() });
        for (operation, hardware, sender, target, expected) in [
            (ArpOperation::REQUEST, POD, OWN, OWN, Ok(Arp::OwnAddress)),
            (ArpOperation::REQUEST, POD, zero, OWN, Ok(Arp::OwnAddress)),
            (ArpOperation::REQUEST, POD, zero, zero, Ok(Arp::OwnAddress)),
            (ArpOperation::REQUEST, POD, zero, GATEWAY, Ok(Arp::Replied)),
            (ArpOperation::REQUEST, POD, OWN, [192, 168, 0, 1], Ok(Arp::NotAnswered)),
            (ArpOperation::REQUEST, POD, OWN, zero, Ok(Arp::NotAnswered)),
            (ArpOperation::REQUEST, POD, [10, 5, 25, 3], GATEWAY, spoofed([10, 5, 25, 3])),
            (ArpOperation::REQUEST, POD, [10, 5, 25, 3], OWN, spoofed([10, 5, 25, 3])),
            (ArpOperation::REPLY, POD, OWN, GATEWAY, Ok(Arp::Reply)),
            (ArpOperation::REPLY, POD, GATEWAY, OWN, spoofed(GATEWAY)),
            (ArpOperation::REPLY, POD, zero, OWN, spoofed(zero)),
            (ArpOperation::REQUEST, [0; 6], OWN, GATEWAY, Err(ArpError::Malformed)),
            (ArpOperation::REQUEST, [0xff; 6], OWN, GATEWAY, Err(ArpError::Malformed)),
            (ArpOperation(3), POD, OWN, GATEWAY, Err(ArpError::Malformed)),
        ] {
            let got = answered(&packet(operation, hardware, sender, target)).0;
            assert_eq!(got, expected, "{operation:?} {sender:?} {target:?}");
        }
    }

    #[test]
    fn addresses_that_are_no_single_host_are_answered_for_nobody() {
        for target in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
            let mut pool = pool(1);
            let mut frame = filled(&mut pool, &packet(ArpOperation::REQUEST, POD, OWN, target));
            let result = answer(&mut frame, |_| true, |sender| sender.octets() == OWN);
            assert_eq!(result, Ok(Arp::NotAnswered), "{target:?}");
        }
    }

    proptest! {
        #[test]
        fn damage_is_refused_or_harmless(
            damage in proptest::collection::vec((0usize..42, any::<u8>()), 0..5), cut in 0usize..70
        ) {
            let mut bytes = packet(ArpOperation::REQUEST, POD, OWN, GATEWAY);
            damage.iter().for_each(|(at, byte)| bytes[*at] = *byte);
            bytes.truncate(cut);
            let (result, after) = answered(&bytes);
            if cut < 42 {
                prop_assert_eq!(result, Err(ArpError::Malformed));
            } else if result == Ok(Arp::Replied) {
                // Whatever came in, only the gateway's address goes out, to who asked.
                prop_assert_eq!(&after[22..28], &[0xee; 6]);
                prop_assert_eq!(&after[..6], &bytes[22..28]);
                prop_assert!(bytes[28..32] == OWN || bytes[28..32] == [0; 4]);
                prop_assert!(after[28..32] != OWN);
            }
        }
    }
}
