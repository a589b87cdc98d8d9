//! Neighbour discovery (RFC 4861) on a workload's link: the gateway answers solicitations, and nobody but the gateway
//! is a router.

use std::net::Ipv6Addr;

use super::{GATEWAY_MAC, GATEWAY_V6, set_macs};
use crate::checksum;
use crate::frame::Frame;
use crate::limits::{ETHERNET, MAX_EXTENSION_HEADERS};
use crate::net::Mac;
use crate::offload::Checksum;

/// What an IPv6 packet was, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nd {
    /// No neighbour discovery: a packet like others.
    Other,
    /// A neighbour solicitation; the frame now holds the advertisement.
    Replied,
    /// A neighbour solicitation for an address that is not answered for, or not sent to its target.
    NotAnswered,
    /// A neighbour solicitation for an address of the sender's own, or the detection of a duplicate (RFC 4862 §5.4).
    /// An answer would tell the sender that its address is taken.
    OwnAddress,
    /// A neighbour advertisement of the sender's own address. Nothing is learnt from the wire.
    Advertisement,
    /// A router solicitation. Workloads have static routes, so nobody advertises.
    RouterSolicitation,
}

/// Why a packet of neighbour discovery must be dropped. The frame is untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NdError {
    /// Cut short, with broken options, behind extension headers (RFC 6980, RFC 7113), or against RFC 4861 §7.1.
    #[error("not a well-formed neighbour discovery packet")]
    Malformed,
    /// The hop limit is not 255: it did not come from this link.
    #[error("hop limit of neighbour discovery is not 255")]
    HopLimit,
    /// The ICMPv6 checksum is wrong.
    #[error("wrong ICMPv6 checksum")]
    Checksum,
    /// The source, or the target of an advertisement, is not the sender's own.
    #[error("neighbour discovery address {address} is not the sender's own")]
    Spoofed {
        /// The address.
        address: Ipv6Addr,
    },
    /// A router advertisement: a workload is no router.
    #[error("router advertisement from a workload")]
    RouterAdvertisement,
    /// A redirect: a workload is no router.
    #[error("redirect from a workload")]
    Redirect,
    /// The frame has no room for the link-layer address.
    #[error("no room in the frame")]
    NoRoom,
}

const IPV6: usize = 40;
const ICMPV6: u8 = 58;
/// First byte of the ICMPv6 message.
const MESSAGE: usize = ETHERNET + IPV6;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
/// Link-layer address options.
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;
/// Router, solicited and override flags of an advertisement.
const FLAGS: [u8; 3] = [0x80, 0x40, 0x20];
/// Length of an advertisement with its one option.
const ADVERTISEMENT: usize = 32;
/// Options in one message; RFC 4861 defines five kinds, of which a solicitation carries one.
const MAX_OPTIONS: usize = 16;
/// All nodes on the link, and how that is written as an Ethernet address (RFC 2464 §7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

/// Answers the neighbour solicitation in `frame` with [`GATEWAY_MAC`], in place, if its target is `answered` for, and
/// tells what everything else is. Of the sender's own addresses, those that are `allowed` as its source (its
/// link-local ones among them), nothing is ever answered; the detection of a duplicate (source `::`) only when the
/// target is [`GATEWAY_V6`] itself. `checksum` is the state of the packet's checksum, which is verified unless
/// somebody we trust has done so.
///
/// The answer goes to the source link-layer address option, or to the Ethernet source if there is none.
///
/// # Errors
/// [`NdError`]; the frame is untouched.
pub fn answer(
    frame: &mut Frame,
    checksum: Checksum,
    answered: impl FnOnce(Ipv6Addr) -> bool,
    allowed: impl Fn(Ipv6Addr) -> bool,
) -> Result<Nd, NdError> {
    let Some(kind) = classify(frame.data())? else { return Ok(Nd::Other) };
    let message = Message::parse(frame.data(), checksum)?;
    let Message { source, target, .. } = message;
    let own = |address: Ipv6Addr| if allowed(address) { Ok(()) } else { Err(NdError::Spoofed { address }) };
    if !source.is_unspecified() {
        own(source)?;
    }
    match kind {
        ROUTER_SOLICITATION => return Ok(Nd::RouterSolicitation),
        NEIGHBOUR_ADVERTISEMENT => {
            own(source)?;
            own(target.ok_or(NdError::Malformed)?)?;
            return Ok(Nd::Advertisement);
        }
        _ => {}
    }
    let target = target.ok_or(NdError::Malformed)?;
    let detection = source.is_unspecified();
    if detection && (message.destination != solicited_node(target) || message.link_address.is_some()) {
        return Err(NdError::Malformed);
    }
    if target == source || allowed(target) || (detection && target != GATEWAY_V6) {
        return Ok(Nd::OwnAddress);
    }
    let addressed = message.destination == target || message.destination == solicited_node(target);
    let one_host = !(target.is_unspecified() || target.is_loopback());
    if !addressed || !one_host || !answered(target) {
        return Ok(Nd::NotAnswered);
    }
    advertise(frame, &message, target)?;
    Ok(Nd::Replied)
}

/// The multicast address at which the owner of `target` is asked for (RFC 4291 §2.7.1).
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from(b) << 8 | u16::from(c))
}

/// The ICMPv6 type when it is one of neighbour discovery. Extension headers are looked behind, so that none hides a
/// router advertisement; what is found there is refused.
fn classify(frame: &[u8]) -> Result<Option<u8>, NdError> {
    let Some(header) = frame.get(ETHERNET..).and_then(|packet| packet.first_chunk::<IPV6>()) else {
        return Ok(None);
    };
    if frame[12..ETHERNET] != [0x86, 0xdd] || header[0] >> 4 != 6 {
        return Ok(None);
    }
    let (mut next, mut at) = (header[6], MESSAGE);
    for _ in 0..=MAX_EXTENSION_HEADERS {
        let units = match next {
            // Hop-by-hop, routing, destination options, authentication.
            0 | 43 | 60 | 51 => frame.get(at + 1),
            // A fragment: only the first has the message's header.
            44 => match frame.get(at + 2..at + 4) {
                Some([high, low]) if *high == 0 && low & 0xf8 == 0 => Some(&0),
                Some(_) => return Ok(None),
                None => None,
            },
            ICMPV6 => break,
            _ => return Ok(None),
        };
        let units = usize::from(*units.ok_or(NdError::Malformed)?);
        let len = if next == 51 { (units + 2) * 4 } else { (units + 1) * 8 };
        next = frame[at];
        at += len;
    }
    if next != ICMPV6 {
        return Err(NdError::Malformed);
    }
    match *frame.get(at).ok_or(NdError::Malformed)? {
        ROUTER_ADVERTISEMENT => Err(NdError::RouterAdvertisement),
        REDIRECT => Err(NdError::Redirect),
        kind @ (ROUTER_SOLICITATION | NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT) => {
            if at == MESSAGE {
                Ok(Some(kind))
            } else {
                Err(NdError::Malformed)
            }
        }
        _ => Ok(None),
    }
}

/// A message of neighbour discovery, valid as far as RFC 4861 §6.1.1 and §7.1 are the same for all kinds.
struct Message {
    ethernet_source: Mac,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    /// Of neighbour solicitations and advertisements; never a multicast address.
    target: Option<Ipv6Addr>,
    /// The source link-layer address option.
    link_address: Option<Mac>,
}

impl Message {
    /// `frame` is known to begin with Ethernet and IPv6 headers and an ICMPv6 type.
    fn parse(frame: &[u8], checksum: Checksum) -> Result<Self, NdError> {
        let (headers, message) = frame.split_first_chunk::<MESSAGE>().ok_or(NdError::Malformed)?;
        let address = |at: usize| Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| headers[at + i]));
        let (source, destination) = (address(ETHERNET + 8), address(ETHERNET + 24));
        let len = usize::from(u16::from_be_bytes([headers[ETHERNET + 4], headers[ETHERNET + 5]]));
        let message = message.get(..len).ok_or(NdError::Malformed)?;
        if headers[ETHERNET + 7] != 255 {
            return Err(NdError::HopLimit);
        }
        let pseudo = checksum::pseudo_v6(source.octets(), destination.octets(), ICMPV6, len as u32);
        if checksum == Checksum::Complete && checksum::fold(checksum::sum(message, pseudo)) != 0xffff {
            return Err(NdError::Checksum);
        }
        let (fixed, options) = match *message {
            [ROUTER_SOLICITATION, ..] => (None, message.get(8..)),
            _ => (message.get(8..24), message.get(24..)),
        };
        let to_address = |octets: &[u8]| Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| octets[i]));
        let target = fixed.map(to_address);
        let options = options.ok_or(NdError::Malformed)?;
        let multicast = source.is_multicast() || target.is_some_and(|target| target.is_multicast());
        if message[1] != 0 || multicast {
            return Err(NdError::Malformed);
        }
        Ok(Self {
            ethernet_source: Mac(std::array::from_fn(|i| headers[6 + i])),
            source,
            destination,
            target,
            link_address: source_address(options)?,
        })
    }
}

/// The source link-layer address among `options`.
fn source_address(mut options: &[u8]) -> Result<Option<Mac>, NdError> {
    let mut found = None;
    for _ in 0..MAX_OPTIONS {
        let [kind, units, ..] = *options else { break };
        let (option, rest) = options.split_at_checked(usize::from(units) * 8).ok_or(NdError::Malformed)?;
        if units == 0 {
            return Err(NdError::Malformed);
        }
        if kind == SOURCE_ADDRESS {
            let mac = Mac(std::array::from_fn(|i| option[2 + i]));
            if units != 1 || !mac.is_unicast() || mac == Mac::ZERO {
                return Err(NdError::Malformed);
            }
            found = Some(mac);
        }
        options = rest;
    }
    if options.is_empty() { Ok(found) } else { Err(NdError::Malformed) }
}

/// Writes the advertisement of `target` over the solicitation.
fn advertise(frame: &mut Frame, asked: &Message, target: Ipv6Addr) -> Result<(), NdError> {
    if !frame.set_len(MESSAGE + ADVERTISEMENT) {
        return Err(NdError::NoRoom);
    }
    let [router, solicited, overrides] = FLAGS;
    // Who detects duplicates has no address yet: everybody is told, and it was not asked for (RFC 4861 §7.2.4).
    let (mac, destination, flags) = if asked.source.is_unspecified() {
        (ALL_NODES_MAC, ALL_NODES, router | overrides)
    } else {
        (asked.link_address.unwrap_or(asked.ethernet_source), asked.source, router | solicited | overrides)
    };
    let packet = frame.data_mut();
    set_macs(packet, mac, GATEWAY_MAC);
    let (ip, message) = packet[ETHERNET..].split_at_mut(IPV6);
    ip[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, ADVERTISEMENT as u8, ICMPV6, 255]);
    ip[8..24].copy_from_slice(&target.octets());
    ip[24..40].copy_from_slice(&destination.octets());
    message[..8].copy_from_slice(&[NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0]);
    message[8..24].copy_from_slice(&target.octets());
    message[24..26].copy_from_slice(&[TARGET_ADDRESS, 1]);
    message[26..32].copy_from_slice(&GATEWAY_MAC.0);
    let pseudo = checksum::pseudo_v6(target.octets(), destination.octets(), ICMPV6, ADVERTISEMENT as u32);
    let checksum = checksum::finish(checksum::sum(message, pseudo));
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests;
