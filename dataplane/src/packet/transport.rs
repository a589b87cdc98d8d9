//! The transport header: ports, and the few fields that flows need.

use super::Fragment;
use crate::verdict::DropReason;

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const UDPLITE: u8 = 136;

/// Found in a transport header.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    pub source_port: u16,
    pub destination_port: u16,
    /// TCP flags, or ICMP type.
    pub detail: u8,
}

/// Reads the transport header at the start of `bytes` (which end with the IP packet). A header that is there in part
/// only is a reason to drop: matching on ports must never be skipped for want of them.
#[inline(always)]
pub(super) fn parse(
    bytes: &[u8],
    protocol: u8,
    fragment: Fragment,
    super_frame: bool,
) -> Result<Found, DropReason> {
    if fragment == Fragment::Later {
        return Ok(Found::default());
    }
    let bad =
        if fragment == Fragment::First { DropReason::TinyFragment } else { DropReason::MalformedTransport };
    let pair = |b: &[u8]| (u16::from_be_bytes([b[0], b[1]]), u16::from_be_bytes([b[2], b[3]]));
    match protocol {
        TCP => {
            let header: &[u8; 20] = bytes.first_chunk().ok_or(bad)?;
            let header_len = usize::from(header[12] >> 4) * 4;
            if header_len < 20 || header_len > bytes.len() {
                return Err(bad);
            }
            let (source_port, destination_port) = pair(header);
            Ok(Found { source_port, destination_port, detail: header[13] })
        }
        UDP => {
            let header: &[u8; 8] = bytes.first_chunk().ok_or(bad)?;
            let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
            // A first fragment holds less than its length says; in a super-frame the field is the segmenter's.
            let fits = len >= 8 && (len <= bytes.len() || fragment == Fragment::First);
            if !fits && !super_frame {
                return Err(bad);
            }
            let (source_port, destination_port) = pair(header);
            Ok(Found { source_port, destination_port, detail: 0 })
        }
        SCTP => {
            let header: &[u8; 12] = bytes.first_chunk().ok_or(bad)?;
            let (source_port, destination_port) = pair(header);
            Ok(Found { source_port, destination_port, detail: 0 })
        }
        UDPLITE => {
            let header: &[u8; 8] = bytes.first_chunk().ok_or(bad)?;
            let (source_port, destination_port) = pair(header);
            Ok(Found { source_port, destination_port, detail: 0 })
        }
        ICMP | ICMPV6 => {
            let header: &[u8; 8] = bytes.first_chunk().ok_or(bad)?;
            let echo = match protocol {
                ICMP => matches!(header[0], 0 | 8),
                _ => matches!(header[0], 128 | 129),
            };
            let id = if echo { u16::from_be_bytes([header[4], header[5]]) } else { 0 };
            Ok(Found { source_port: id, destination_port: id, detail: header[0] })
        }
        _ => Ok(Found::default()),
    }
}
