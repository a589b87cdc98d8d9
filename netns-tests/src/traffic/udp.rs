//! UDP echoes: datagrams of many sizes, each compared when it returns.

use super::pattern::Pattern;
use crate::netns::Netns;
use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// An echo server in a namespace; it ends when dropped.
#[derive(Debug)]
pub struct Echo {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Echo {
    /// Starts the server on a free port of `address`.
    pub fn start(server: &Netns, address: IpAddr) -> Result<Self> {
        Self::start_at(server, SocketAddr::new(address, 0))
    }

    /// Starts the server at `address`.
    pub fn start_at(server: &Netns, address: SocketAddr) -> Result<Self> {
        let socket = server.enter(move || UdpSocket::bind(address).context("binding"))?;
        let address = socket.local_addr()?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !flag.load(Ordering::Relaxed) {
                if let Ok((n, from)) = socket.recv_from(&mut buffer) {
                    // A lost answer is what the client counts.
                    socket.send_to(&buffer[..n], from).ok();
                }
            }
            Ok(())
        });
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Sends one datagram of each size in `sizes` (payload bytes) from `client` and returns how many came back intact.
    pub fn ask(&self, client: &Netns, sizes: &[usize]) -> Result<usize> {
        let (to, sizes) = (self.address, sizes.to_vec());
        client.enter(move || {
            let any: IpAddr = if to.is_ipv4() { "0.0.0.0".parse()? } else { "::".parse()? };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            let mut answered = 0;
            let mut answer = vec![0; 65_536];
            for (seed, size) in sizes.into_iter().enumerate() {
                let mut datagram = vec![0; size];
                Pattern::new(seed as u64).fill(&mut datagram);
                socket.send(&datagram).with_context(|| format!("{size} bytes to {to}"))?;
                if let Ok(n) = socket.recv(&mut answer) {
                    ensure!(answer[..n] == datagram, "a datagram of {size} bytes came back changed");
                    answered += 1;
                }
            }
            Ok(answered)
        })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
