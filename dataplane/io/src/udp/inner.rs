//! The inner checksum of a datagram from a socket: finished or not?
//!
//! A sender on the same machine (veth) or hypervisor (virtio) leaves the innermost checksum to a device that never
//! comes; its receive path carries that fact along with the packet, but a socket hides it. What gives it away is the
//! field: it holds the sum of the pseudo-header. One right checksum in 65,536 looks the same, and finishing it gives
//! the same value again.

use canal_dataplane::checksum;
use canal_dataplane::offload::Checksum;

use super::run::NETWORK;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// State of the inner transport checksum of `datagram`, which starts with its VXLAN header `outer_len` bytes behind the
/// begin of its frame.
pub fn checksum_state(datagram: &[u8], outer_len: usize) -> Checksum {
    match unfinished(datagram) {
        Some((transport, field)) => {
            Checksum::Partial { start: (outer_len + transport) as u16, offset: field as u16 }
        }
        None => Checksum::Complete,
    }
}

/// Where the transport header and, in it, the checksum field are, if that field is unfinished.
fn unfinished(datagram: &[u8]) -> Option<(usize, usize)> {
    let packet = datagram.get(NETWORK..)?;
    let (protocol, ip_len, packet_len, addresses) = match datagram[NETWORK - 2..NETWORK] {
        [0x08, 0x00] => {
            let ip: &[u8; 20] = packet.first_chunk()?;
            let whole = ip[0] >> 4 == 4 && ip[6] & 0x3f == 0 && ip[7] == 0;
            let len = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
            (whole.then_some(ip[9])?, usize::from(ip[0] & 15) * 4, len, &ip[12..20])
        }
        [0x86, 0xdd] => {
            let ip: &[u8; 40] = packet.first_chunk()?;
            let len = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
            ((ip[0] >> 4 == 6).then_some(ip[6])?, 40, len, &ip[8..40])
        }
        _ => return None,
    };
    let (field, header_len) = match protocol {
        TCP => (16, 20),
        UDP => (6, 8),
        _ => return None,
    };
    // What is unfinished is summed up to the end of the frame: nothing may follow the packet.
    if ip_len < 20 || packet_len != packet.len() || packet_len < ip_len + header_len {
        return None;
    }
    let transport = packet.get(ip_len..)?;
    let pseudo = checksum::sum(addresses, u64::from(protocol) + (packet_len - ip_len) as u64);
    let value = u16::from_be_bytes([transport[field], transport[field + 1]]);
    (value == checksum::fold(pseudo)).then_some((NETWORK + ip_len, field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn datagram(v6: bool, tcp: bool, payload: &[u8]) -> (Vec<u8>, usize, usize) {
        let mut bytes = vec![0; NETWORK - 2];
        let protocol = if tcp { TCP } else { UDP };
        let len = (if tcp { 20 } else { 8 } + payload.len()) as u16;
        if v6 {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend(len.to_be_bytes());
            bytes.extend([protocol, 64]);
            bytes.extend((0..32).map(|i| i * 3));
        } else {
            bytes.extend([8, 0, 0x45, 0]);
            bytes.extend((len + 20).to_be_bytes());
            bytes.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        let transport = bytes.len();
        let field = if tcp { 16 } else { 6 };
        bytes.resize(transport + usize::from(len) - payload.len(), 3);
        let addresses = if v6 { transport - 32..transport } else { transport - 8..transport };
        let pseudo = checksum::fold(checksum::sum(&bytes[addresses], u64::from(protocol) + u64::from(len)));
        bytes[transport + field..transport + field + 2].copy_from_slice(&pseudo.to_be_bytes());
        bytes.extend(payload);
        (bytes, transport, field)
    }

    proptest! {
        #[test]
        fn an_unfinished_checksum_is_found_and_a_finished_one_left(
            v6: bool, tcp: bool, payload in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            let (mut bytes, transport, field) = datagram(v6, tcp, &payload);
            let partial = Checksum::Partial { start: (42 + transport) as u16, offset: field as u16 };
            prop_assert_eq!(checksum_state(&bytes, 42), partial);
            let unfinished = bytes.clone();
            checksum::finish_partial(&mut bytes, transport as u16, field as u16).unwrap();
            if bytes != unfinished {
                prop_assert_eq!(checksum_state(&bytes, 42), Checksum::Complete);
            }
            let mut padded = unfinished;
            padded.push(0);
            prop_assert_eq!(checksum_state(&padded, 42), Checksum::Complete);
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..90), v6: bool, len in 0u8..90) {
            if let Some(head) = bytes.get_mut(NETWORK - 2..NETWORK + 10) {
                head[..2].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[8, 0] });
                let ip = if v6 { [0x60, 0, 0, 0, 0, len, 6, 9] } else { [0x45 + len % 3, 0, 0, len, 0, 0, 0, 0] };
                head[2..10].copy_from_slice(&ip);
            }
            let _ = checksum_state(&bytes, 42);
            if let Checksum::Partial { start, offset } = checksum_state(&bytes, 0) {
                prop_assert!(usize::from(start + offset) + 2 <= bytes.len());
            }
        }
    }
}
