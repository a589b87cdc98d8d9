//! canal's kernel ports — a TAP device and UDP sockets — the eBPF programs that steer packets into them, and what a
//! worker thread needs beside its ports: sleep, mail, time, a core of its own.

pub mod affinity;
pub mod bpf;
mod checksum;
pub mod clock;
pub mod mailbox;
pub mod tun;
pub mod udp;
pub mod waiter;
