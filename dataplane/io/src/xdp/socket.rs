//! One AF_XDP socket: made, bound to a queue of an interface, asked and kicked.
//!
//! Without a library. Those there are (libxdp, and xsk-rs over it) own the packet memory together with the socket and give
//! it up with it; here the memory is older than any socket and outlives all (see [`super::region`]).
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use canal_dataplane::limits::BATCH;
use canal_dataplane::port::IfIndex;

use super::region::Region;
use super::ring::{Descriptor, Offsets, Ring};
use crate::udp::set_option;

/// Frames that the kernel can be given to receive into: what arrives while the worker is not on its core has to fit, two
/// milliseconds of a million packets a second. The kernel takes them in turn, each has gone round before one comes again: more
/// of them are more than the second level of cache holds the headers of, and under overload all of them wait in a queue.
pub const FILL: u32 = 2048;
/// Received frames that may wait for us: all that were given.
const RX: u32 = FILL;
/// Frames on their way out.
pub const TX: u32 = 2048;
/// Frames that were sent and may wait to be taken back: all that can be on their way.
const COMPLETION: u32 = TX;

/// Frames that one system call sends in copy mode, at most (`XDP_MAX_TX_SKB_BUDGET`, Linux 6.17): all that can wait. Without
/// it the kernel stops after 32.
const MAX_TX_SKB_BUDGET: i32 = 9;

/// Bytes of the kernel's own packets on their way: more than the ring can hold.
const SEND_BUFFER: i32 = 8 << 20;
/// `SO_SNDBUFFORCE`: not bounded by `wmem_max`.
const SEND_BUFFER_FORCE: i32 = libc::SO_SNDBUFFORCE;

/// `SO_PREFER_BUSY_POLL`: interrupts wait while we poll.
const PREFER_BUSY_POLL: i32 = 69;
/// `SO_BUSY_POLL_BUDGET`: frames that one such poll takes, at most.
const BUSY_POLL_BUDGET: i32 = 70;
/// As many as a worker's turn does.
const POLLED: i32 = BATCH as i32;

/// How frames get from the driver into our memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// The NIC writes and reads it itself.
    ZeroCopy,
    /// The kernel copies.
    Copy,
}

/// What the kernel counts for a socket: frames lost before we could see them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// For want of a frame to receive into, or because the packet did not fit it.
    pub rx_dropped: u64,
    /// Because we did not take away what was there.
    pub rx_ring_full: u64,
    /// Descriptors that the kernel found wrong, in either direction: an error of ours.
    pub invalid: u64,
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}")]
pub struct SocketError {
    /// What was tried.
    pub step: &'static str,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> SocketError {
    move |source| SocketError { step, source }
}

/// The socket and its rings.
#[derive(Debug)]
pub struct Socket {
    // Before the descriptor: what is mapped goes first.
    /// We write: chunks to receive into.
    pub fill: Ring<u64>,
    /// We read: packets that have been sent.
    pub completion: Ring<u64>,
    /// We read: packets that have arrived.
    pub rx: Ring<Descriptor>,
    /// We write: packets to be sent.
    pub tx: Ring<Descriptor>,
    fd: OwnedFd,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// A socket over `region`, bound to nothing yet. Pins the region's pages, which counts against `RLIMIT_MEMLOCK` unless
    /// the process has CAP_IPC_LOCK.
    ///
    /// # Errors
    /// Of the step that failed.
    pub fn new(region: &'static Region) -> Result<Self, SocketError> {
        let fd = open().map_err(failed("open an AF_XDP socket (needs CAP_NET_RAW and a kernel with it)"))?;
        let memory = libc::xdp_umem_reg {
            addr: region.address(),
            len: region.size(),
            chunk_size: region.chunk() as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        set(fd.as_fd(), libc::XDP_UMEM_REG, &memory).map_err(failed(
            "register packet memory (RLIMIT_MEMLOCK too small? it takes CAP_IPC_LOCK, or LimitMEMLOCK=infinity in a unit)",
        ))?;
        let sizes = [
            (libc::XDP_UMEM_FILL_RING, FILL),
            (libc::XDP_UMEM_COMPLETION_RING, COMPLETION),
            (libc::XDP_RX_RING, RX),
            (libc::XDP_TX_RING, TX),
        ];
        for (option, size) in sizes {
            set(fd.as_fd(), option, &size).map_err(failed("make the rings"))?;
        }
        let offsets = offsets(fd.as_fd()).map_err(failed("find the rings"))?;
        let socket = fd.as_fd();
        let map = failed("map the rings");
        let rings = (|| {
            Ok((
                Ring::map(socket, FILL, place(&offsets.fr), libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t)?,
                Ring::map(
                    socket,
                    COMPLETION,
                    place(&offsets.cr),
                    libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t,
                )?,
                Ring::map(socket, RX, place(&offsets.rx), libc::XDP_PGOFF_RX_RING)?,
                Ring::map(socket, TX, place(&offsets.tx), libc::XDP_PGOFF_TX_RING)?,
            ))
        })();
        let (fill, completion, rx, tx) = rings.map_err(map)?;
        // Older kernels have no such option, and the socket works without both.
        let _ = set(fd.as_fd(), MAX_TX_SKB_BUDGET, &TX);
        let _ = set_option(fd.as_fd(), libc::SOL_SOCKET, SEND_BUFFER_FORCE, SEND_BUFFER);
        Ok(Self { fill, completion, rx, tx, fd })
    }

    /// From now on a look at the empty socket ([`Self::wake_receiver`]) has the kernel run the driver's poll function, for
    /// `duration` at most. The driver's interrupts stay off meanwhile only if the interface is told to defer them
    /// (`napi_defer_hard_irqs`, `gro_flush_timeout`).
    ///
    /// # Errors
    /// When the kernel has no such thing (before Linux 5.11).
    pub fn poll_busily(&self, duration: Duration) -> Result<(), SocketError> {
        let microseconds = i32::try_from(duration.as_micros()).unwrap_or(i32::MAX);
        for (option, value) in
            [(PREFER_BUSY_POLL, 1), (libc::SO_BUSY_POLL, microseconds), (BUSY_POLL_BUDGET, POLLED)]
        {
            set_option(self.fd.as_fd(), libc::SOL_SOCKET, option, value)
                .map_err(failed("turn busy polling on (Linux 5.11 has it)"))?;
        }
        Ok(())
    }

    /// Binds it to a queue.
    ///
    /// # Errors
    /// `EBUSY` while the socket that had the queue before is still being closed, `EOPNOTSUPP` or `EINVAL` when the driver
    /// has no zero copy, `EINVAL` also when there is no such queue.
    pub fn bind(&self, ifindex: IfIndex, queue: u32, transfer: Transfer) -> io::Result<()> {
        let mode = match transfer {
            Transfer::ZeroCopy => libc::XDP_ZEROCOPY,
            Transfer::Copy => libc::XDP_COPY,
        };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: mode | libc::XDP_USE_NEED_WAKEUP,
            sxdp_ifindex: ifindex,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        let len = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
        // SAFETY: the kernel reads `len` bytes through the pointer, the size of what it points to.
        let result = unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), len) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Lets the kernel send what is in the ring: in copy mode it does so within this call.
    ///
    /// # Errors
    /// `EAGAIN` when it has sent as much as one call may and there is more, `EBUSY` or `ENOBUFS` when the device is full.
    pub fn kick(&self) -> io::Result<()> {
        // SAFETY: an empty message; no pointer is read.
        let result = unsafe {
            libc::sendto(self.fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Tells a driver that has run out of frames that there are some again; with [`Self::poll_busily`], has the kernel look
    /// what has arrived.
    pub fn wake_receiver(&self) {
        // SAFETY: an empty message; no pointer is written.
        unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            );
        }
    }

    /// What was lost so far.
    pub fn losses(&self) -> Losses {
        let mut statistics = libc::xdp_statistics {
            rx_dropped: 0,
            rx_invalid_descs: 0,
            tx_invalid_descs: 0,
            rx_ring_full: 0,
            rx_fill_ring_empty_descs: 0,
            tx_ring_empty_descs: 0,
        };
        // An open socket always has them; without, nothing is known to be lost.
        let _ = get(self.as_fd(), libc::XDP_STATISTICS, &mut statistics);
        Losses {
            rx_dropped: statistics.rx_dropped,
            rx_ring_full: statistics.rx_ring_full,
            invalid: statistics.rx_invalid_descs + statistics.tx_invalid_descs,
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is involved.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What these options read and write: plain numbers, in the kernel's layout.
trait Plain {}
impl Plain for u32 {}
impl Plain for libc::xdp_umem_reg {}
impl Plain for libc::xdp_statistics {}
impl Plain for libc::xdp_mmap_offsets {}

fn set<T: Plain>(socket: BorrowedFd<'_>, option: i32, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes through the pointer, the size of what it points to.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_XDP, option, std::ptr::from_ref(value).cast(), len)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the whole of `value` was written.
fn get<T: Plain>(socket: BorrowedFd<'_>, option: i32, value: &mut T) -> io::Result<bool> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes through the pointer, the size of what it points to; any bits are a value
    // of the plain numbers there.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            option,
            std::ptr::from_mut(value).cast(),
            &raw mut len,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(len as usize == size_of::<T>()) }
}

fn offsets(socket: BorrowedFd<'_>) -> io::Result<libc::xdp_mmap_offsets> {
    let none = || libc::xdp_ring_offset { producer: 0, consumer: 0, desc: 0, flags: 0 };
    let mut offsets = libc::xdp_mmap_offsets { rx: none(), tx: none(), fr: none(), cr: none() };
    match get(socket, libc::XDP_MMAP_OFFSETS, &mut offsets)? {
        true => Ok(offsets),
        // Before Linux 5.4 there are no flags, hence no need-wakeup.
        false => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn place(offset: &libc::xdp_ring_offset) -> Offsets {
    Offsets {
        producer: offset.producer as usize,
        consumer: offset.consumer as usize,
        flags: offset.flags as usize,
        entries: offset.desc as usize,
    }
}
