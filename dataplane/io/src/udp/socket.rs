//! Sockets with the options that each role needs.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, socket};

use super::message::set_option;

/// Bytes a worker may be behind before the kernel drops: about 3 ms at 10 Gbit/s.
const RECEIVE_BUFFER: i32 = 4 << 20;
/// Bytes on their way to the wire per sending socket; a super-frame counts with the kernel's own overhead.
const SEND_BUFFER: i32 = 4 << 20;
/// Bytes of ICMP errors that may wait at a sending socket.
const ERROR_BUFFER: i32 = 32 << 10;
/// DF set, path MTU reports of the kernel ignored: the core keeps its own, per VTEP.
const PMTUDISC_PROBE: i32 = 3;
/// DF clear, never more than the interface's MTU in one packet.
const PMTUDISC_INTERFACE: i32 = 4;

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum UdpError {
    /// Somebody else has the VXLAN port (a kernel VXLAN device, say), or the address is not ours.
    #[error("cannot bind {address}")]
    Bind {
        /// Where to.
        address: SocketAddr,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// An option is refused.
    #[error("UDP socket: cannot {step}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

fn open(local: SocketAddr) -> Result<OwnedFd, UdpError> {
    let family = if local.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(family, SockType::Datagram, flags, None)
        .map_err(|errno| UdpError::Step { step: "open", source: errno.into() })
}

fn bind_to(fd: &OwnedFd, local: SocketAddr) -> Result<(), UdpError> {
    use std::os::fd::AsRawFd;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(local))
        .map_err(|errno| UdpError::Bind { address: local, source: errno.into() })
}

/// Sets an option that the port cannot do without.
fn must(fd: BorrowedFd<'_>, level: i32, option: i32, value: i32, step: &'static str) -> Result<(), UdpError> {
    set_option(fd, level, option, value).map_err(|source| UdpError::Step { step, source })
}

/// Sets the size of a buffer beyond the system's limit if we may, up to the limit if not.
fn set_buffer(fd: BorrowedFd<'_>, forced: i32, plain: i32, bytes: i32) {
    // Neither is an error: the socket works with any buffer, only worse.
    if set_option(fd, libc::SOL_SOCKET, forced, bytes).is_err() {
        let _ = set_option(fd, libc::SOL_SOCKET, plain, bytes);
    }
}

/// A socket at the VXLAN port, one of a group in which the kernel spreads flows. Says whether the kernel delivers
/// several datagrams at once (Linux ≥ 5.0).
pub fn receiver(local: SocketAddr) -> Result<(OwnedFd, bool), UdpError> {
    let socket = open(local)?;
    let fd = socket.as_fd();
    must(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1, "share the VXLAN port")?;
    set_buffer(fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER);
    match local.ip() {
        IpAddr::V4(_) => must(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1, "learn TOS")?,
        IpAddr::V6(_) => {
            must(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1, "keep to IPv6")?;
            must(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1, "learn traffic classes")?;
        }
    }
    let gro = set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
    bind_to(&socket, local)?;
    Ok((socket, gro))
}

/// A socket to send from, at a port of the kernel's choice.
pub fn sender(local: IpAddr, dont_fragment: bool) -> Result<OwnedFd, UdpError> {
    let local = SocketAddr::new(local, 0);
    let socket = open(local)?;
    let fd = socket.as_fd();
    set_buffer(fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER);
    // Nothing arrives here but ICMP errors, whose quotes count against this buffer.
    set_buffer(fd, libc::SO_RCVBUF, libc::SO_RCVBUF, ERROR_BUFFER);
    let discover = if dont_fragment { PMTUDISC_PROBE } else { PMTUDISC_INTERFACE };
    match local.ip() {
        IpAddr::V4(_) => {
            must(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, discover, "choose DF")?;
            must(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1, "learn of ICMP errors")?;
        }
        IpAddr::V6(_) => {
            must(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1, "keep to IPv6")?;
            // No router fragments IPv6, so errors are welcome whatever IPv4 does.
            must(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, PMTUDISC_PROBE, "leave path MTU to us")?;
            must(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1, "learn of ICMP errors")?;
        }
    }
    bind_to(&socket, local)?;
    Ok(socket)
}

/// True when the kernel cuts one message into datagrams (Linux ≥ 4.18).
pub fn can_segment(socket: BorrowedFd<'_>) -> bool {
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok()
}
