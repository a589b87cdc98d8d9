//! canal's kernel ports — a TAP device and UDP sockets — and the eBPF programs that steer packets into them.

pub mod bpf;
mod checksum;
pub mod tun;
