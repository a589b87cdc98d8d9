//! The ioctl calls of the TUN driver and of network interfaces, each wrapped so that callers need no `unsafe`.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct ifreq`: 16 bytes of name, 24 bytes that each request reads in its own way.
pub struct InterfaceRequest([u8; 40]);

const NAME: usize = 16;

impl InterfaceRequest {
    /// For the interface `name`; `None` when the name does not fit with its terminating zero.
    pub fn new(name: &str) -> Option<Self> {
        let mut bytes = [0; 40];
        if name.is_empty() || name.len() >= NAME || name.contains('\0') {
            return None;
        }
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Some(Self(bytes))
    }

    /// Puts `value` behind the name.
    pub fn with<const N: usize>(mut self, value: [u8; N]) -> Self {
        self.0[NAME..NAME + N].copy_from_slice(&value);
        self
    }

    /// The first `N` bytes behind the name.
    pub fn value<const N: usize>(&self) -> [u8; N] {
        let mut value = [0; N];
        value.copy_from_slice(&self.0[NAME..NAME + N]);
        value
    }

    /// Performs `request` on `fd`.
    fn call(&mut self, fd: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<()> {
        // SAFETY: every request of this file reads and writes at most sizeof(struct ifreq) = 40 bytes, none keeps
        // the pointer, and the buffer has that size.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, self.0.as_mut_ptr()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// A request on a network interface, to be made on any socket of its namespace.
#[derive(Clone, Copy, Debug)]
pub enum Interface {
    /// Read flags (`u16`).
    Flags,
    /// Write flags (`u16`).
    SetFlags,
    /// Write the MTU (`i32`).
    SetMtu,
    /// Read `sockaddr`: ARPHRD type (`u16`), address.
    HardwareAddress,
    /// Write `sockaddr`.
    SetHardwareAddress,
    /// Write the length of the transmission queue (`i32`).
    SetQueueLength,
}

/// Performs `what` for the interface named in `request`.
pub fn interface(socket: BorrowedFd<'_>, what: Interface, request: &mut InterfaceRequest) -> io::Result<()> {
    let number = match what {
        Interface::Flags => 0x8913,
        Interface::SetFlags => 0x8914,
        Interface::SetMtu => 0x8922,
        Interface::SetHardwareAddress => 0x8924,
        Interface::HardwareAddress => 0x8927,
        Interface::SetQueueLength => 0x8943,
    };
    request.call(socket, number)
}

/// `struct ethtool_channels`: command, four maxima, then receive, transmit, other and combined queues in use.
pub type Channels = [u32; 9];

/// `ETHTOOL_GCHANNELS`: the queues of the interface named in `request`.
pub fn channels(socket: BorrowedFd<'_>, request: InterfaceRequest) -> io::Result<Channels> {
    const ETHTOOL: libc::Ioctl = 0x8946;
    const GET_CHANNELS: u32 = 0x3c;
    let mut channels: Channels = [0; 9];
    channels[0] = GET_CHANNELS;
    let address = (&raw mut channels) as usize;
    let mut request = request.with(address.to_ne_bytes());
    // SAFETY: the request reads `struct ifreq`, of which the buffer has the size, and through the pointer in it reads and
    // writes nine 32-bit numbers, which are there until the end of this function; it keeps neither pointer.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), ETHTOOL, request.0.as_mut_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(channels) }
}

/// `TUNSETIFF`: makes `queue` (a fresh `/dev/net/tun`) a queue of the device in `request`.
pub fn attach_queue(queue: BorrowedFd<'_>, request: &mut InterfaceRequest) -> io::Result<()> {
    request.call(queue, nix::request_code_write!(b'T', 202, size_of::<c_int>()))
}

/// `TUNSETOFFLOAD`: what user space takes unfinished from the device.
pub fn set_offload(queue: BorrowedFd<'_>, bits: u32) -> io::Result<()> {
    // SAFETY: the argument is a value, not a pointer.
    let result = unsafe {
        libc::ioctl(
            queue.as_raw_fd(),
            nix::request_code_write!(b'T', 208, size_of::<c_int>()),
            libc::c_ulong::from(bits),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A request that takes a pointer to one number.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// `TUNSETVNETHDRSZ`: bytes of the virtio-net header.
    HeaderSize,
    /// `TUNSETVNETLE`: the header is little-endian, on every machine.
    LittleEndian,
    /// `TUNSETSTEERINGEBPF`: program (a file descriptor) that picks the queue of a frame.
    SteeringProgram,
}

/// Performs `what` on `queue`'s device.
pub fn set_number(queue: BorrowedFd<'_>, what: Number, value: c_int) -> io::Result<()> {
    let request = match what {
        Number::HeaderSize => nix::request_code_write!(b'T', 216, size_of::<c_int>()),
        Number::LittleEndian => nix::request_code_write!(b'T', 220, size_of::<c_int>()),
        Number::SteeringProgram => nix::request_code_read!(b'T', 224, size_of::<c_int>()),
    };
    // SAFETY: these requests read one int through the pointer and do not keep it.
    let result = unsafe { libc::ioctl(queue.as_raw_fd(), request, &raw const value) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
