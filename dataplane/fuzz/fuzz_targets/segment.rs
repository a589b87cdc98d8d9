//! No frame and no offload make lowering panic, lose a frame or exceed what the port takes.
//!
//! Random bytes are hardly ever a super-frame, so most inputs are made more like one first.

#![no_main]

use canal_dataplane::offload::{Caps, Checksum, GsoKind, Offload};
use canal_dataplane::port::Egress;
use canal_dataplane::segment::{lower, split_oversized};
use canal_dataplane_fuzz::{AnyCaps, AnyOffload, with_frame};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    offload: AnyOffload,
    caps: AnyCaps,
    /// Split instead of lower.
    max_ip_len: Option<u16>,
    /// Leave packet and offload as they are.
    raw: bool,
    packet: &'a [u8],
}

fn put(packet: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(field) = packet.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}

/// Makes an IP header of what is at `at`; returns where it ends.
fn put_ip(packet: &mut [u8], at: usize, v6: bool, protocol: u8) -> usize {
    let len = packet.len().saturating_sub(at);
    if v6 {
        put(packet, at - 2, &[0x86, 0xdd, 0x60]);
        put(packet, at + 4, &(len.saturating_sub(40) as u16).to_be_bytes());
        put(packet, at + 6, &[protocol]);
        at + 40
    } else {
        put(packet, at - 2, &[8, 0, 0x45]);
        put(packet, at + 2, &(len as u16).to_be_bytes());
        put(packet, at + 6, &[0x40, 0]);
        put(packet, at + 9, &[protocol]);
        at + 20
    }
}

/// Makes `packet` and `offload` agree on where headers are, what they are and how long the packet is.
fn make_plausible(packet: &mut [u8], offload: &mut Offload) {
    let Some(gso) = offload.gso else { return };
    let mut network = 14;
    if let Some(tunnel) = &mut offload.tunnel {
        tunnel.outer_transport = put_ip(packet, 14, tunnel.outer_v6, 17) as u16;
        tunnel.inner_network = tunnel.outer_transport + 30;
        network = usize::from(tunnel.inner_network);
    }
    let udp = gso.kind == GsoKind::Udp;
    let v6 = gso.kind == GsoKind::Tcp6 || udp && gso.ecn;
    let transport = put_ip(packet, network, v6, if udp { 17 } else { 6 });
    if let Checksum::Partial { start, offset } = &mut offload.checksum {
        *start = transport as u16;
        *offset = if udp { 6 } else { 16 };
    }
}

fuzz_target!(|input: Input| {
    let (mut offload, caps) = (Offload::from(input.offload), Caps::from(input.caps));
    let mut packet = input.packet.to_vec();
    if !input.raw {
        make_plausible(&mut packet, &mut offload);
    }
    with_frame(&packet, |frame, pool| {
        let Some(mut copy) = pool.take() else { return };
        assert!(copy.fill(frame.data()));
        let mut out = Vec::new();
        let result = match input.max_ip_len {
            Some(max) => split_oversized(copy, offload, max.into(), Egress::Host, pool, &mut out),
            None => lower(copy, offload, caps, Egress::Host, pool, &mut out),
        };
        assert_eq!(result.unwrap_or(0), out.len());
        for piece in out {
            if input.max_ip_len.is_none() {
                assert!(caps.checksum || !matches!(piece.offload.checksum, Checksum::Partial { .. }));
                assert!(piece.offload.gso.is_none() || caps.tso || caps.uso);
                assert!(piece.offload.tunnel.is_none() || caps.tunnel);
            }
            pool.give(piece.frame);
        }
    });
});
