//! Makes super-frames of TCP segments that arrived one by one: the opposite of [`crate::segment`].
//!
//! Only what segmentation restores is merged: `segment(merge(x)) == x`, apart from the identification of IPv4 packets
//! that may not be fragmented (it has no meaning, RFC 6864 §4.1) and from where PSH stands. Merging declares the
//! checksums of the segments right (the super-frame's is `Partial`, which a receiving kernel takes as proven), so they
//! are verified unless somebody we trust has done so.

mod batch;
mod in_place;
mod tcp;
#[cfg(test)]
mod tests;

pub use batch::Coalescer;
pub use in_place::{merge_in_place, run_length};

/// What is known about the TCP checksums of segments to merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpChecksums {
    /// Nothing: verify each.
    Verify,
    /// The kernel or the NIC found them right.
    Trusted,
}
