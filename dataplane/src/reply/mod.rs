//! Answers made out of the packets they answer: ICMP errors, ARP and neighbour discovery.
//!
//! A reply is written into the frame of the packet it replies to, so that answering needs no memory. Callers say which
//! addresses are answered for and which ones a sender may use; nothing here looks anything up.

pub mod arp;
pub mod icmp_error;
pub mod nd;
mod rate_limit;

pub use rate_limit::RateLimit;

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::net::Mac;

/// The gateway's Ethernet address as workloads see it, the same on every host: Calico's, which it gives to the host's
/// end of every workload's link, so that a workload that moves keeps a right neighbour entry.
pub const GATEWAY_MAC: Mac = Mac([0xee; 6]);

/// The gateway's IPv4 address as workloads see it, the same on every host: Calico's.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The gateway's IPv6 address as workloads see it: the link-local address that the kernel makes of [`GATEWAY_MAC`]
/// (RFC 4291 appendix A), hence the one Calico's workloads have as their default route.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);

/// Writes the Ethernet addresses at the front of `frame`.
fn set_macs(frame: &mut [u8], target: Mac, source: Mac) {
    frame[..6].copy_from_slice(&target.0);
    frame[6..12].copy_from_slice(&source.0);
}
