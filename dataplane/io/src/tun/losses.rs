//! What the kernel has lost at the device.

use std::io;

use nix::net::if_::if_nametoindex;

use crate::netlink::{Attributes, IFINFO, Netlink, link_request};

/// `IFLA_STATS64`, and the place of `tx_dropped` among the 64-bit words of `struct rtnl_link_stats64`.
const IFLA_STATS64: u16 = 23;
const TX_DROPPED: usize = 7;

/// Frames that were for the daemon, through the device of this name, and that the kernel has dropped since the device was
/// made: because the queue they belonged to was full, which is the worker's doing, or the device down. The kernel does not
/// count by queue.
///
/// # Errors
/// The kernel's: there is no such device.
pub fn lost_frames(device: &str) -> io::Result<u64> {
    let link = Netlink::open(0)?.ask(&link_request(if_nametoindex(device)?))?;
    let mut attributes = Attributes(link.get(IFINFO..).unwrap_or_default());
    let (_, words) = attributes.find(|(name, _)| *name == IFLA_STATS64).ok_or(io::ErrorKind::InvalidData)?;
    let word = words.get(TX_DROPPED * 8..).and_then(|rest| rest.first_chunk());
    Ok(u64::from_ne_bytes(*word.ok_or(io::ErrorKind::InvalidData)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_a_count_and_nothing_has_none() {
        lost_frames("lo").unwrap();
        assert!(lost_frames("no-such-device").is_err());
    }
}
