//! Makes super-frames of TCP segments that arrived one by one: the opposite of [`crate::segment`].
//!
//! Only what segmentation restores is merged: `segment(merge(x)) == x`, apart from the identification of IPv4 packets
//! that may not be fragmented (it has no meaning, RFC 6864 §4.1) and from where PSH stands. Merging declares the
//! checksums of the segments right (the super-frame's is `Partial`, which a receiving kernel takes as proven), so they
//! are verified unless the kernel or the NIC has done so.

mod batch;
mod tcp;
#[cfg(test)]
mod tests;

pub use batch::Coalescer;
