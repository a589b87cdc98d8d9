//! A flood: frames as fast as some threads can send them.

use crate::netns::Netns;
use crate::packet_socket::PacketSocket;
use anyhow::{Result, anyhow};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Threads that send; they end with the value.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    senders: Vec<JoinHandle<u64>>,
}

impl Flood {
    /// Sends each of `frames` over and over, by a thread of its own, out of `interface` of `ns`.
    pub fn start(ns: &Netns, interface: &str, frames: Vec<Vec<u8>>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut flood = Self { stop, senders: Vec::with_capacity(frames.len()) };
        for frame in frames {
            let (socket, stop) = (PacketSocket::open(ns, interface)?, Arc::clone(&flood.stop));
            flood.senders.push(std::thread::spawn(move || {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    // A full interface refuses: such a frame has not been sent.
                    sent += u64::from(socket.send(&frame).is_ok());
                }
                sent
            }));
        }
        Ok(flood)
    }

    /// Ends it; how many frames the interface has taken.
    pub fn finish(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let joined =
            self.senders.drain(..).map(|sender| sender.join().map_err(|_| anyhow!("a sender panicked")));
        joined.sum()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for sender in self.senders.drain(..) {
            sender.join().ok();
        }
    }
}
