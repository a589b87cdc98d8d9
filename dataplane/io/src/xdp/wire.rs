//! One interface as one worker has it: the sockets of its queues there.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use arc_swap::ArcSwap;
use canal_dataplane::coalesce::Coalescer;
use canal_dataplane::frame::{Frame, FramePool};
use canal_dataplane::limits::ETHERNET;
use canal_dataplane::net::Mac;
use canal_dataplane::port::{IfIndex, Ingress, PortStats, Received};
use canal_dataplane::prefetch::prefetch;
use ipnetwork::IpNetwork;

use super::gather::gather;
use super::memory::Memory;
use super::neighbors::Hops;
use super::plain;
use super::region::{Borrower, Region};
use super::ring::Descriptor;
use super::socket::Socket;

/// Calls after which the kernel is left alone with what it has not sent: one is enough where it takes all that can wait, and
/// without that each takes 32.
const KICKS: usize = 64;

/// A socket and what it is owed.
pub(super) struct Queue {
    pub socket: Socket,
    /// Frames that it could receive into and has not been given.
    pub owed: usize,
}

impl Queue {
    /// Gives a new socket `count` frames to receive into, or as many as there are.
    pub fn fill(&mut self, interface: &Interface, count: usize) {
        let (memory, borrower) = (&interface.memory, interface.borrower);
        self.owed = count;
        self.replace(memory.region(), borrower, || memory.spare());
    }

    /// Gives the socket what it is owed, as far as there is any.
    fn replace(&mut self, region: &Region, borrower: Borrower, mut spare: impl FnMut() -> Option<Frame>) {
        let Self { socket, owed } = self;
        while *owed > 0
            && socket.fill.room(1) > 0
            && let Some(frame) = spare()
        {
            let Ok(address) = region.lend(frame, borrower) else {
                unreachable!("spare frames are the region's")
            };
            let pushed = socket.fill.push(address);
            debug_assert!(pushed, "there was room");
            *owed -= 1;
        }
        socket.fill.publish();
    }
}

/// What comes by an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// VXLAN.
    Underlay {
        /// MTU of the overlay, bytes of an IP packet.
        overlay_mtu: usize,
    },
    /// Plain packets.
    Gateway,
}

/// What all queues of an interface have in common.
#[derive(Debug)]
pub(super) struct Interface {
    pub memory: Arc<Memory>,
    /// By which name it borrows from there.
    pub borrower: Borrower,
    pub ifindex: IfIndex,
    /// Its own address.
    pub mac: Mac,
    /// Bytes of the longest frame that may be on the wire.
    pub longest: usize,
    pub role: Role,
    /// Destinations on this host.
    pub local: ArcSwap<Vec<IpNetwork>>,
    /// Look at empty queues by a system call, in which the kernel polls them.
    pub polls: bool,
}

/// The sockets. They belong to a worker's [`super::XdpPort`]; dropped, they are closed.
pub struct Wire {
    // Before what they refer to.
    queues: Vec<Queue>,
    pub(super) interface: Arc<Interface>,
    pub(super) hops: Hops,
    /// Frames for the port that takes this over.
    hands: Vec<Frame>,
    /// How many those were.
    pub(super) share: usize,
    /// The queue that is looked at first.
    turn: usize,
    /// The device had no room for all that was to be sent.
    held_up: bool,
    coalescer: Coalescer,
    pub(super) stats: PortStats,
}

impl Wire {
    pub(super) fn new(queues: Vec<Queue>, interface: Arc<Interface>, hops: Hops, hands: Vec<Frame>) -> Self {
        let share = hands.len();
        Self {
            queues,
            interface,
            hops,
            hands,
            share,
            turn: 0,
            held_up: false,
            coalescer: Coalescer::new(),
            stats: PortStats::default(),
        }
    }

    /// The interface.
    pub fn ifindex(&self) -> IfIndex {
        self.interface.ifindex
    }

    /// Is it one with plain hosts behind it?
    pub fn is_gateway(&self) -> bool {
        matches!(self.interface.role, Role::Gateway)
    }

    /// The sockets that frames arrive at, for [`crate::waiter::Waiter::watch`].
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.queues.iter().map(|queue| queue.socket.as_fd())
    }

    /// Counters so far. What had to go around the sockets is counted by the TAP port.
    pub fn stats(&self) -> PortStats {
        let mut stats = self.stats;
        for queue in &self.queues {
            let lost = queue.socket.losses();
            stats.rx_dropped += lost.rx_dropped + lost.rx_ring_full;
            stats.tx_errors += lost.invalid;
        }
        stats
    }

    /// The frames that the worker is to have in its hands for it.
    pub(super) fn take_hands(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.hands)
    }

    /// Frames that its queues wait for.
    pub(super) fn owed(&self) -> usize {
        self.queues.iter().map(|queue| queue.owed).sum()
    }

    /// Takes back what has been sent.
    pub(super) fn reap(&mut self, spare: &mut Vec<Frame>) {
        let (region, borrower) = (self.interface.memory.region(), self.interface.borrower);
        for Queue { socket, .. } in &mut self.queues {
            while let Some(address) = socket.completion.pop() {
                spare.extend(region.take_back(address, borrower));
            }
            socket.completion.release();
        }
    }

    /// Delivers up to `limit` frames to `into` and replaces them out of `spare`; how many came. `arrived` is room for them. What
    /// may go out by another interface again (`through`) is not merged.
    pub(super) fn receive(
        &mut self,
        limit: usize,
        spare: &mut Vec<Frame>,
        arrived: &mut Vec<Frame>,
        pool: &mut FramePool,
        into: &mut Vec<Received>,
        through: bool,
    ) -> usize {
        self.turn = self.turn.wrapping_add(1);
        for step in 0..self.queues.len() {
            let left = limit - arrived.len();
            self.take_from((self.turn + step) % self.queues.len(), left, spare, arrived);
        }
        let count = arrived.len();
        let Interface { ifindex, longest, role, local, .. } = &*self.interface;
        let local = local.load();
        let stays = |target: IpAddr| !through || local.iter().any(|net| net.contains(target));
        match role {
            Role::Underlay { overlay_mtu } => {
                self.stats.rx_dropped += gather(arrived, *overlay_mtu, stays, pool, into);
            }
            Role::Gateway => {
                let (mtu, ingress) = (longest - ETHERNET, Ingress::Gateway(*ifindex));
                plain::deliver(arrived, mtu, ingress, stays, &mut self.coalescer, pool, into);
            }
        }
        count
    }

    /// Takes up to `limit` frames from queue `index` and replaces them.
    fn take_from(&mut self, index: usize, limit: usize, spare: &mut Vec<Frame>, arrived: &mut Vec<Frame>) {
        let (region, borrower) = (self.interface.memory.region(), self.interface.borrower);
        let mut taken = self.drain(index, limit, arrived);
        if taken == 0 && limit > 0 && self.interface.polls {
            self.queues[index].socket.wake_receiver();
            taken = self.drain(index, limit, arrived);
        }
        let queue = &mut self.queues[index];
        queue.owed += taken;
        if queue.owed == 0 {
            return;
        }
        queue.replace(region, borrower, || spare.pop());
        if queue.socket.fill.needs_wakeup() {
            queue.socket.wake_receiver();
        }
    }

    /// Takes up to `limit` frames from queue `index`; how many places of its ring are free now.
    fn drain(&mut self, index: usize, limit: usize, arrived: &mut Vec<Frame>) -> usize {
        let (region, borrower) = (self.interface.memory.region(), self.interface.borrower);
        let Queue { socket, .. } = &mut self.queues[index];
        let mut taken = 0;
        while taken < limit
            && let Some(Descriptor { address, len, .. }) = socket.rx.pop()
        {
            taken += 1;
            match region.receive(address, len as usize, borrower) {
                Some(frame) => {
                    prefetch(frame.data(), 0);
                    self.stats.rx_frames += 1;
                    self.stats.rx_bytes += u64::from(len);
                    arrived.push(frame);
                }
                None => self.stats.rx_dropped += 1,
            }
        }
        if taken > 0 {
            socket.rx.release();
        }
        taken
    }

    /// Addresses a frame of the region and puts it into the ring; what cannot be sent is left in `spare`.
    pub(super) fn put(&mut self, mut frame: Frame, mac: [u8; 6], spare: &mut Vec<Frame>) {
        let Some(ethernet) = frame.data_mut().first_chunk_mut::<ETHERNET>() else {
            self.stats.tx_errors += 1;
            spare.push(frame);
            return;
        };
        ethernet[..6].copy_from_slice(&mac);
        ethernet[6..12].copy_from_slice(&self.interface.mac.0);
        if self.queues[0].socket.tx.room(1) == 0 {
            self.kick();
            if self.queues[0].socket.tx.room(1) == 0 {
                self.stats.tx_full += 1;
                spare.push(frame);
                return;
            }
        }
        let len = frame.len() as u32;
        match self.interface.memory.region().lend(frame, self.interface.borrower) {
            Ok(address) => {
                let pushed = self.queues[0].socket.tx.push(Descriptor { address, len, options: 0 });
                debug_assert!(pushed, "there was room");
                self.stats.tx_frames += 1;
                self.stats.tx_bytes += u64::from(len);
            }
            Err(_) => unreachable!("only frames of the region come here"),
        }
    }

    /// Is there something in the ring that a full device takes when it is told again?
    pub(super) fn is_held_up(&self) -> bool {
        self.held_up
    }

    /// Has the kernel send what is in the ring.
    pub(super) fn kick(&mut self) {
        let Socket { tx, .. } = &mut self.queues[0].socket;
        tx.publish();
        self.held_up = false;
        for _ in 0..KICKS {
            let socket = &mut self.queues[0].socket;
            if socket.tx.pending() == 0 || !socket.tx.needs_wakeup() {
                return;
            }
            match socket.kick() {
                Ok(()) => {}
                // It has done its share of one call.
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                // The device is full, or down: the next call tries again.
                Err(error) => {
                    self.held_up = matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOBUFS));
                    return;
                }
            }
        }
        self.held_up = true;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Nobody has taken it over.
        self.hands.drain(..).for_each(|frame| self.interface.memory.put_aside(frame));
    }
}
