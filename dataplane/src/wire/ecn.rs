//! Congestion marks and DSCP at the ends of a tunnel (RFC 6040, RFC 2983).

use crate::checksum;
use crate::verdict::DropReason;

/// ECN field values (RFC 3168 §5).
const NOT_ECT: u8 = 0;
const ECT1: u8 = 1;
const ECT0: u8 = 2;
const CE: u8 = 3;

/// The outer TOS for an inner one: ECN is copied (RFC 6040 §4.1, normal mode), DSCP only in uniform mode.
#[inline(always)]
pub const fn encapsulate(inner_tos: u8, uniform: bool) -> u8 {
    if uniform { inner_tos } else { inner_tos & 3 }
}

/// The inner ECN field after decapsulation (RFC 6040 §4.2, figure 4); `None` = drop.
pub const fn combine(inner: u8, outer: u8) -> Option<u8> {
    match (inner, outer) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (_, CE) | (CE, _) => Some(CE),
        (ECT0, ECT1) => Some(ECT1),
        (inner, _) => Some(inner),
    }
}

/// Applies the outer TOS to the IP packet behind an Ethernet header. A frame too short to hold one is left for the parser.
pub fn decapsulate(frame: &mut [u8], outer_tos: u8, uniform: bool) -> Result<(), DropReason> {
    let is_v4 = frame.get(12..14) == Some(&[0x08, 0x00]);
    let Some(ip) = frame.get_mut(14..).and_then(|rest| rest.first_chunk_mut::<20>()) else { return Ok(()) };
    let tos = if is_v4 { ip[1] } else { ip[0] << 4 | ip[1] >> 4 };
    let ecn = combine(tos & 3, outer_tos & 3).ok_or(DropReason::EcnDecap)?;
    let dscp = if uniform { outer_tos & 0xfc } else { tos & 0xfc };
    let new = dscp | ecn;
    if new == tos {
        return Ok(());
    }
    if is_v4 {
        let old = u16::from_be_bytes([ip[10], ip[11]]);
        let patched =
            checksum::update_u16(old, u16::from_be_bytes([ip[0], tos]), u16::from_be_bytes([ip[0], new]));
        ip[10..12].copy_from_slice(&patched.to_be_bytes());
        ip[1] = new;
    } else {
        ip[0] = ip[0] & 0xf0 | new >> 4;
        ip[1] = ip[1] & 0x0f | new << 4;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc6040_all_sixteen_cells() {
        // Rows: inner Not-ECT, ECT(0), ECT(1), CE. Columns: outer Not-ECT, ECT(0), ECT(1), CE. As printed in figure 4.
        let rows = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT0, [Some(ECT0), Some(ECT0), Some(ECT1), Some(CE)]),
            (ECT1, [Some(ECT1), Some(ECT1), Some(ECT1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, cells) in rows {
            for (outer, expected) in [NOT_ECT, ECT0, ECT1, CE].into_iter().zip(cells) {
                assert_eq!(combine(inner, outer), expected, "inner {inner} outer {outer}");
            }
        }
    }

    #[test]
    fn rfc2983_dscp_is_piped_or_copied() {
        assert_eq!(encapsulate(0b1011_1010, false), 0b10);
        assert_eq!(encapsulate(0b1011_1010, true), 0b1011_1010);
    }
}
