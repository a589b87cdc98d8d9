//! The rules that a VTEP keeps on the wire, and what must not be possible to do to it: one test a rule, named after it.

mod attacks;
mod gateways;
mod icmp;
mod inner_frame;
mod mtu;
mod neighbors;
mod outer;
mod super_frames;
mod vxlan;

use canal_dataplane::port::Ingress;

/// Our pod 1.
const POD1: Ingress = Ingress::Workload(101);
/// Our pod 2.
const POD2: Ingress = Ingress::Workload(102);

/// Bytes in front of the inner Ethernet frame.
fn front(outer_v6: bool) -> usize {
    if outer_v6 { 70 } else { 50 }
}
