//! Packets at full rate: made by an XDP program, counted by another. Neither end is a socket, so that what is measured is
//! the forwarder between them.

pub mod generator;
pub mod sink;
pub mod template;

use anyhow::{Context, Result};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};

/// Aligned as ELF wants it.
#[repr(align(8))]
struct Aligned<T: ?Sized>(T);
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/packets.bpf.o")));

/// Ends of the inner packets and of the tunnel, as addresses in host byte order would be written.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The pod beside the forwarder.
    pub pod: std::net::Ipv4Addr,
    /// Its MAC address.
    pub pod_mac: [u8; 6],
    /// MAC address of its next hop: of the forwarder's interface towards it.
    pub router_mac: [u8; 6],
    /// The pod behind the tunnel.
    pub remote_pod: std::net::Ipv4Addr,
    /// The forwarder's tunnel address.
    pub vtep: std::net::Ipv4Addr,
    /// MAC address of its underlay interface.
    pub underlay_mac: [u8; 6],
    /// Inner MAC address of its VTEP.
    pub vtep_mac: [u8; 6],
    /// The remote tunnel address.
    pub remote_vtep: std::net::Ipv4Addr,
    /// MAC address of the interface that has it.
    pub remote_underlay_mac: [u8; 6],
    /// Inner MAC address of the remote VTEP.
    pub remote_vtep_mac: [u8; 6],
}

/// Which way packets go through the forwarder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the pod into the tunnel.
    Encap,
    /// Out of the tunnel to the pod.
    Decap,
}

impl Direction {
    /// The other one.
    pub fn back(self) -> Self {
        match self {
            Self::Encap => Self::Decap,
            Self::Decap => Self::Encap,
        }
    }
}

fn object<'g>(configure: impl FnOnce(&mut EbpfLoader<'g>)) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    configure(&mut loader);
    loader.load(&OBJECT.0).context("loading the eBPF programs of the bench")
}

fn program<'e>(object: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp> {
    let program = object.program_mut(name).with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}
