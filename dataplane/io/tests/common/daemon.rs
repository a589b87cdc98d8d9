//! A daemon in miniature: one worker over the ports, a closure instead of a pipeline.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use canal_dataplane::frame::FramePool;
use canal_dataplane::limits::{BATCH, SUPER_FRAME_BUFFER};
use canal_dataplane::offload::Caps;
use canal_dataplane::port::{Egress, Outgoing, Port, PortStats, Received};

use canal_io::tun::TapPort;
use canal_io::udp::UdpPort;
use canal_io::waiter::Waiter;
use canal_io::xdp::XdpPort;

use super::Namespace;

/// A TAP port and sockets for the underlay.
pub struct Both<P> {
    pub tap: TapPort,
    pub underlay: P,
}

/// Its counters: errors and losses of both, frames of the sockets only.
impl<P: Port> Port for Both<P> {
    fn caps(&self) -> Caps {
        self.underlay.caps()
    }

    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Received>, limit: usize) {
        self.tap.receive(pool, into, limit);
        self.underlay.receive(pool, into, limit);
    }

    fn transmit(&mut self, frames: &mut Vec<Outgoing>, pool: &mut FramePool) {
        let (mut out, mut rest): (Vec<_>, Vec<_>) =
            frames.drain(..).partition(|f| f.egress == Egress::Underlay);
        self.underlay.transmit(&mut out, pool);
        self.tap.transmit(&mut rest, pool);
    }

    fn stats(&self) -> PortStats {
        let (mut stats, underlay) = (self.tap.stats(), self.underlay.stats());
        stats.tx_errors += underlay.tx_errors;
        stats.tx_full += underlay.tx_full;
        stats.rx_dropped += underlay.rx_dropped;
        stats.rx_frames = underlay.rx_frames;
        stats.tx_frames = underlay.tx_frames;
        stats
    }
}

/// What a worker's sleep must watch.
pub trait Watched: Port {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;
}

impl Watched for TapPort {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(self.as_fd()).chain(self.fallback()).collect()
    }
}

impl Watched for Both<UdpPort> {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(self.tap.as_fd()).chain(self.underlay.sockets()).collect()
    }
}

impl Watched for Both<XdpPort> {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(self.tap.as_fd()).chain(self.tap.fallback()).chain(self.underlay.sockets()).collect()
    }
}

/// A running worker; stopped and joined when dropped.
pub struct Worker {
    stop: Arc<AtomicBool>,
    largest: Arc<AtomicUsize>,
    thread: Option<JoinHandle<PortStats>>,
}

impl Worker {
    /// Runs a worker in `namespace`: `open` makes its port (and whatever must live as long), `decide` says for every
    /// frame where it goes.
    pub fn start<P: Watched, K>(
        namespace: &Namespace,
        open: impl FnOnce() -> (P, K) + Send + 'static,
        mut decide: impl FnMut(&mut Received) -> Option<Egress> + Send + 'static,
    ) -> Self {
        let (stop, largest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, seen) = (Arc::clone(&stop), Arc::clone(&largest));
        let (ready, wait) = std::sync::mpsc::channel();
        let thread = namespace.spawn(move || {
            let (mut port, _kept) = open();
            let mut waiter = Waiter::new().expect("the worker can sleep");
            for descriptor in port.descriptors() {
                waiter.watch(descriptor).expect("the port can be watched");
            }
            let _ = ready.send(());
            let mut pool = FramePool::new(4 * BATCH, SUPER_FRAME_BUFFER);
            let (mut received, mut outgoing) = (Vec::new(), Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                port.receive(&mut pool, &mut received, BATCH);
                if received.is_empty() {
                    waiter.idle(10, || false).expect("the worker can sleep");
                } else {
                    waiter.worked();
                }
                for mut packet in received.drain(..) {
                    seen.fetch_max(packet.frame.len(), Ordering::Relaxed);
                    match decide(&mut packet) {
                        Some(egress) => {
                            let Received { frame, offload, .. } = packet;
                            outgoing.push(Outgoing { frame, offload, egress });
                        }
                        None => pool.give(packet.frame),
                    }
                }
                port.transmit(&mut outgoing, &mut pool);
            }
            assert_eq!(pool.available(), 4 * BATCH, "every frame came home");
            port.stats()
        });
        wait.recv().expect("the port opens");
        Self { stop, largest, thread: Some(thread) }
    }

    /// Length of the largest frame so far.
    pub fn largest_frame(&self) -> usize {
        self.largest.load(Ordering::Relaxed)
    }

    /// Stops it; its port's counters.
    pub fn stop(mut self) -> PortStats {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().expect("stopped once").join() {
            Ok(stats) => stats,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
