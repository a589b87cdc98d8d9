//! canal against the real kernel: a laboratory of network namespaces in which canal, kernel VXLAN nodes and etcd meet.
//!
//! [`Topology`] lays one switch namespace with a bridge and any number of hosts around it; a host becomes a flannel
//! node as a [`KernelPeer`] (iproute2 only) or as a [`Canal`] (the daemon under test); both get [`Pod`]s. What the tests
//! send is in [`traffic`] and [`frames`]; what they compare is in [`fingerprint`]. Every test ends with
//! [`Topology::pass`]; a test that does not reach it leaves captures, logs and `canal show` behind, see [`evidence`].
//!
//! All of it needs root, and nothing of it leaves the namespaces it made.

pub mod admin;
pub mod attached;
pub mod behind;
pub mod calico;
pub mod canal;
pub mod certificates;
pub mod cmd;
pub mod etcd;
pub mod evidence;
pub mod fingerprint;
pub mod flannel;
pub mod fragments;
pub mod frames;
pub mod http;
pub mod kernel_peer;
pub mod netns;
pub mod overlay;
pub mod packet_socket;
pub mod plan;
pub mod pod;
pub mod store;
mod sys;
pub mod topology;
pub mod traffic;
pub mod wait;

pub use canal::{Canal, CanalOptions};
pub use etcd::Etcd;
pub use kernel_peer::{KernelPeer, PeerOptions};
pub use netns::Netns;
pub use overlay::{Network, Overlay, Role};
pub use pod::Pod;
pub use store::{DirStore, Store};
pub use topology::{Shape, Topology};
