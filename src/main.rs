//! `canal-fwd`, the daemon.

fn main() {}
