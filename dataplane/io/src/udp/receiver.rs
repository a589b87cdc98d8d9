//! The receiving half: one socket at the VXLAN port; what arrives gets its outer headers back.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use canal_dataplane::frame::{Frame, FramePool};
use canal_dataplane::port::{PortStats, Received};

use super::message::{Arrival, ReceiveStore};
use super::outer::Outer;
use super::socket::{self, UdpError};
use super::unpack::unpack;

/// Buffers of one system call while packets are small.
const MANY: usize = 16;
/// And while they are large: so that what was received is still in the cache when it is looked at.
const FEW: usize = 4;
/// Bytes of one call from which packets count as large.
const LARGE: usize = 128 * 1024;

/// A socket at the VXLAN port of one address.
pub struct UdpReceiver {
    socket: OwnedFd,
    local: SocketAddr,
    /// Bytes of the largest inner packet that was on a wire.
    mtu: usize,
    gro: bool,
    store: ReceiveStore,
    frames: Vec<Frame>,
    batch: usize,
    stats: PortStats,
}

impl AsFd for UdpReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl UdpReceiver {
    /// Binds `address`:`port`, together with any other receiver of this process that has the same. An inner TCP packet
    /// larger than `mtu`, that of the overlay, was never on a wire, and becomes a super-frame.
    ///
    /// # Errors
    /// When somebody else has the port, or the address is not the host's.
    pub fn open(address: IpAddr, port: u16, mtu: u32) -> Result<Self, UdpError> {
        let local = SocketAddr::new(address, port);
        let (socket, gro) = socket::receiver(local)?;
        Ok(Self {
            socket,
            local,
            mtu: mtu as usize,
            gro,
            store: ReceiveStore::new(MANY),
            frames: Vec::with_capacity(MANY),
            batch: MANY,
            stats: PortStats::default(),
        })
    }

    /// Whether the kernel delivers several datagrams at once.
    pub fn has_gro(&self) -> bool {
        self.gro
    }

    /// Counters so far.
    pub fn stats(&self) -> PortStats {
        self.stats
    }

    /// As [`canal_dataplane::port::Port::receive`]; a buffer of many datagrams may exceed `limit` by what it holds.
    pub fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Received>, limit: usize) {
        let end = into.len().saturating_add(limit);
        while into.len() < end {
            let wanted = self.batch.min(end - into.len());
            self.frames.extend((0..wanted).map_while(|_| pool.take()));
            let buffers = self.frames.iter_mut().map(Frame::receive_buffer);
            let count = self.store.receive(self.socket.as_fd(), buffers).unwrap_or(0);
            for frame in self.frames.drain(count..) {
                pool.give(frame);
            }
            if count == 0 {
                return;
            }
            let mut bytes = 0;
            for (i, frame) in self.frames.drain(..).enumerate() {
                let arrival = self.store.arrival(i);
                bytes += arrival.len;
                let before = into.len();
                self.stats.rx_dropped += deliver(frame, &arrival, self.local, self.mtu, pool, into);
                self.stats.rx_frames += (into.len() - before) as u64;
                self.stats.rx_bytes += into[before..].iter().map(|r| r.frame.len() as u64).sum::<u64>();
            }
            self.batch = if bytes > LARGE { FEW } else { MANY };
            // Fewer than there was room for: the socket is empty.
            if count < wanted {
                return;
            }
        }
    }
}

/// Appends what `frame` holds to `into`; how many datagrams were lost.
fn deliver(
    mut frame: Frame,
    arrival: &Arrival,
    local: SocketAddr,
    mtu: usize,
    pool: &mut FramePool,
    into: &mut Vec<Received>,
) -> u64 {
    let outer = Outer {
        source: arrival.from.ip(),
        target: local.ip(),
        ports: (arrival.from.port(), local.port()),
        tos: arrival.tos,
    };
    if arrival.truncated || !frame.set_len(arrival.len) || !frame.grow_front(outer.len()) {
        pool.give(frame);
        return 1;
    }
    outer.write(frame.data_mut());
    unpack(frame, outer.len(), arrival.stride.map_or(0, usize::from), mtu, pool, into)
}
