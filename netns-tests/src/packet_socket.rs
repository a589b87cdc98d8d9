//! Raw Ethernet on one interface: frames no socket would send, and frames as they really arrive.

use crate::netns::Netns;
use crate::sys;
use anyhow::{Context, Result, bail};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A packet socket on one interface of a namespace.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// Opens the interface `name` of `ns`; frames that arrive from now on are kept.
    pub fn open(ns: &Netns, name: &str) -> Result<Self> {
        ns.enter(|| Self::here(name))
    }

    /// Opens the interface `name` of the calling thread's namespace.
    pub fn here(name: &str) -> Result<Self> {
        let index = nix::net::if_::if_nametoindex(name).with_context(|| name.to_owned())?;
        let fd = sys::packet_socket(index).context("opening a packet socket")?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000))?;
        setsockopt(&fd, sockopt::RcvBuf, &(4 << 20))?;
        Ok(Self { fd })
    }

    /// Sends `frame`, Ethernet header first.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = nix::unistd::write(&self.fd, frame).context("sending a raw frame")?;
        anyhow::ensure!(sent == frame.len(), "sent {sent} of {} bytes", frame.len());
        Ok(())
    }

    /// The first frame that `wanted` accepts; an error names `what` when `limit` passes.
    pub fn expect<T>(&self, what: &str, limit: Duration, wanted: impl Fn(&[u8]) -> Option<T>) -> Result<T> {
        let until = Instant::now() + limit;
        let mut seen = 0;
        while Instant::now() < until {
            if let Some(frame) = self.next()? {
                seen += 1;
                if let Some(found) = wanted(&frame) {
                    return Ok(found);
                }
            }
        }
        bail!("no {what} within {limit:?} among {seen} frames")
    }

    /// Everything that arrives within `time` and that `wanted` accepts.
    pub fn collect<T>(&self, time: Duration, wanted: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>> {
        let until = Instant::now() + time;
        let mut found = Vec::new();
        while Instant::now() < until {
            found.extend(self.next()?.as_deref().and_then(&wanted));
        }
        Ok(found)
    }

    /// The next frame, as much of it as `buffer` holds; `None` when nothing comes for 50 ms.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>> {
        self.take(buffer, MsgFlags::empty())
    }

    /// A frame that is there already, as much of it as `buffer` holds.
    pub fn receive_now<'b>(&self, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>> {
        self.take(buffer, MsgFlags::MSG_DONTWAIT)
    }

    fn take<'b>(&self, buffer: &'b mut [u8], flags: MsgFlags) -> Result<Option<&'b [u8]>> {
        match recv(self.fd.as_raw_fd(), buffer, flags) {
            Ok(n) => Ok(Some(&buffer[..n])),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(None),
            Err(e) => Err(e).context("receiving a raw frame"),
        }
    }

    fn next(&self) -> Result<Option<Vec<u8>>> {
        let mut frame = vec![0; 70_000];
        Ok(self.receive(&mut frame)?.map(<[u8]>::to_vec))
    }
}
