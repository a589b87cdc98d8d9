#![doc = include_str!("../README.md")]

pub mod affinity;
pub mod bpf;
mod checksum;
pub mod clock;
pub mod heap;
pub mod ledger;
pub mod mailbox;
mod netlink;
pub mod tun;
pub mod udp;
pub mod waiter;
pub mod xdp;
