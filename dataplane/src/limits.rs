//! Every bound of the packet core in one place, each with its reason.

/// Frames a worker takes from its ports before it runs the stages. Large enough to hide cache misses behind one
/// another, small enough that the headers of a batch stay in the first-level cache.
pub const BATCH: usize = 64;

/// Bytes kept free in front of a received frame: VXLAN over IPv6 needs 70 (14 + 40 + 8 + 8), a port's own header
/// (24 bytes of virtio-net) comes on top; the rest aligns the frame to a cache line.
pub const HEADROOM: usize = 128;

/// Largest IP packet, hence the largest super-frame behind its Ethernet header (RFC 791 §3.1).
pub const MAX_IP: usize = 65_535;

/// Ethernet header of an untagged frame.
pub const ETHERNET: usize = 14;

/// Room for one super-frame with headroom. An odd number of cache lines, so that the headers of consecutive frames
/// do not all fall into one cache set.
pub const SUPER_FRAME_BUFFER: usize = 1047 * 64;

/// Room for one MTU-sized frame with headroom (ports without super-frames, and the in-memory benches): an odd number
/// of cache lines.
pub const SMALL_FRAME_BUFFER: usize = 33 * 64;

/// IPv6 extension headers walked before a packet is called malformed; real traffic carries at most two or three.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// What one worker writes lies in blocks of its own of this size, so that no other core waits for it: two cache lines,
/// because processors fetch the neighbour of a line as well.
pub const CACHE_BLOCK: usize = 128;

/// Workers one daemon may run.
pub const MAX_WORKERS: usize = 64;

const _: () = assert!(SUPER_FRAME_BUFFER >= HEADROOM + ETHERNET + MAX_IP);
const _: () = assert!(SUPER_FRAME_BUFFER / 64 % 2 == 1 && SMALL_FRAME_BUFFER / 64 % 2 == 1);
