//! `recvmmsg` and `sendmmsg` with their control messages: many datagrams, or runs of datagrams, in one system call.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::marker::PhantomData;
use std::mem::zeroed;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Room for the control messages of one datagram: two numbers of 4 bytes, each in 24 with its header, and to spare.
const CONTROL: usize = 64;

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// Sets a socket option that is one number.
pub fn set_option(socket: BorrowedFd<'_>, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the kernel reads one int through the pointer, and its length is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the kernel says about a received buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Sender.
    pub from: SocketAddr,
    /// Bytes in the buffer.
    pub len: usize,
    /// The buffer holds several datagrams of this length, the last may be shorter.
    pub stride: Option<u16>,
    /// TOS or traffic class.
    pub tos: u8,
    /// The buffer was too small: the rest is lost.
    pub truncated: bool,
}

/// Memory for the kernel's answers, used again and again.
pub struct ReceiveStore {
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
}

// SAFETY: the pointers inside `headers` and `vectors` are only followed by the system call in `receive`, which sets all
// of them anew first.
unsafe impl Send for ReceiveStore {}

impl ReceiveStore {
    /// For up to `batch` buffers a call.
    pub fn new(batch: usize) -> Self {
        // SAFETY: these are plain structures of the kernel's interface, for which zeroes are a valid value.
        let (header, vector, name) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Self {
            headers: vec![header; batch],
            vectors: vec![vector; batch],
            names: vec![name; batch],
            controls: vec![Control([0; CONTROL]); batch],
        }
    }

    /// Receives into `buffers` (as many as the store has room for) without waiting; how many were filled.
    pub fn receive<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        buffers: impl Iterator<Item = &'a mut [u8]>,
    ) -> io::Result<usize> {
        let mut count = 0;
        for (i, buffer) in buffers.take(self.headers.len()).enumerate() {
            self.vectors[i] = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = (&raw mut self.names[i]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut self.vectors[i];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.controls[i]).cast();
            header.msg_controllen = CONTROL;
            count += 1;
        }
        // SAFETY: the first `count` headers point to a name, a vector and a control buffer of this store with their
        // true sizes, and the vector to a buffer that is borrowed mutably for 'a, which outlives this call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if received < 0 { Err(io::Error::last_os_error()) } else { Ok(received as usize) }
    }

    /// What is known of buffer `i` of the last [`Self::receive`], which must have been filled.
    pub fn arrival(&self, i: usize) -> Arrival {
        let header = &self.headers[i].msg_hdr;
        let mut arrival = Arrival {
            from: address_from(&self.names[i]),
            len: self.headers[i].msg_len as usize,
            stride: None,
            tos: 0,
            truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        };
        // SAFETY: the kernel filled this header's control buffer, or the store's constructor zeroed it; the length in the
        // header never exceeds the buffer. The macros only walk within that length.
        let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
        while !message.is_null() {
            // SAFETY: not null, hence inside of the control buffer with its whole header; each kind read here
            // carries at least as many bytes as are read.
            unsafe {
                let data = libc::CMSG_DATA(message);
                match ((*message).cmsg_level, (*message).cmsg_type) {
                    (libc::SOL_UDP, libc::UDP_GRO) => {
                        arrival.stride = u16::try_from(data.cast::<c_int>().read_unaligned()).ok();
                    }
                    (libc::IPPROTO_IP, libc::IP_TOS) => arrival.tos = data.read(),
                    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                        arrival.tos = data.cast::<c_int>().read_unaligned() as u8;
                    }
                    _ => {}
                }
                message = libc::CMSG_NXTHDR(header, message);
            }
        }
        arrival
    }
}

/// An ICMP error about a datagram that a socket sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketError {
    /// Whom the datagram was for.
    pub to: SocketAddr,
    /// Who says so.
    pub offender: IpAddr,
    /// ICMP type and code; `None` for an error of this host's own making.
    pub icmp: Option<(u8, u8)>,
    /// What came with it: the MTU of the next hop.
    pub info: u32,
    /// Bytes of the datagram's payload that were quoted.
    pub len: usize,
}

const SO_EE_ORIGIN_ICMP: u8 = 2;
const SO_EE_ORIGIN_ICMP6: u8 = 3;

/// `struct sock_extended_err` and, behind it, the offender's address.
#[repr(C)]
#[derive(Clone, Copy)]
struct ExtendedError {
    error: libc::sock_extended_err,
    offender: [u8; size_of::<libc::sockaddr_in6>()],
}

/// The oldest error in the socket's queue, the quoted payload into `buffer`; `None` when there is none.
pub fn take_error(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Option<SocketError> {
    // SAFETY: these are plain structures of the kernel's interface, for which zeroes are a valid value.
    let (mut name, mut header): (libc::sockaddr_storage, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = [Control([0; CONTROL]); 4];
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: everything in the header points to a live local with its true size.
    let len = unsafe {
        libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT)
    };
    let len = usize::try_from(len).ok()?;
    // SAFETY: the kernel filled the control buffer and set its length; the macros walk within that length.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        // SAFETY: not null, hence inside of the control buffer with its whole header.
        let (level, kind, data_len) = unsafe {
            ((*message).cmsg_level, (*message).cmsg_type, (*message).cmsg_len - libc::CMSG_LEN(0) as usize)
        };
        if matches!(
            (level, kind),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        ) {
            // SAFETY: zeroes are valid for both parts; no more is copied than the message has and the value holds.
            let extended = unsafe {
                let mut extended: ExtendedError = zeroed();
                let size = data_len.min(size_of::<ExtendedError>());
                (&raw mut extended).cast::<u8>().copy_from(libc::CMSG_DATA(message), size);
                extended
            };
            return Some(described(&extended, address_from(&name), len));
        }
        // SAFETY: as for the first.
        message = unsafe { libc::CMSG_NXTHDR(&raw const header, message) };
    }
    None
}

fn described(extended: &ExtendedError, to: SocketAddr, len: usize) -> SocketError {
    let error = &extended.error;
    let bytes = &extended.offender;
    // Behind family and port come the IPv4 address, or the flow label and the IPv6 address.
    let offender = match error.ee_origin {
        SO_EE_ORIGIN_ICMP6 => bytes[8..].first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => bytes[4..].first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
    };
    SocketError {
        to,
        offender: offender.unwrap_or(to.ip()),
        icmp: matches!(error.ee_origin, SO_EE_ORIGIN_ICMP | SO_EE_ORIGIN_ICMP6)
            .then_some((error.ee_type, error.ee_code)),
        info: error.ee_info,
        len,
    }
}

/// How a message is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Receiver.
    pub to: SocketAddr,
    /// TOS or traffic class.
    pub tos: u8,
    /// Set when the message is several datagrams of this length (the last may be shorter).
    pub segment: Option<u16>,
}

/// Memory for outgoing messages, used again and again.
#[derive(Default)]
pub struct SendStore {
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
}

// SAFETY: the pointers inside are only followed by the system call in `Outbox::send`; an `Outbox` clears them first.
unsafe impl Send for SendStore {}

impl SendStore {
    /// An empty list of messages whose bytes live for `'a`.
    pub fn outbox<'a>(&'a mut self) -> Outbox<'a> {
        self.headers.clear();
        self.vectors.clear();
        self.names.clear();
        self.controls.clear();
        Outbox { store: self, bytes: PhantomData }
    }
}

/// Messages about to be sent from one socket.
pub struct Outbox<'a> {
    store: &'a mut SendStore,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> Outbox<'a> {
    /// Begins a message; its bytes follow by [`Self::push`].
    pub fn begin(&mut self, envelope: &Envelope) {
        let (name, name_len) = address_to(envelope.to);
        let (control, control_len) = control_of(envelope);
        // SAFETY: zeroes are a valid value of this plain structure.
        let mut header: libc::mmsghdr = unsafe { zeroed() };
        header.msg_hdr.msg_namelen = name_len;
        header.msg_hdr.msg_controllen = control_len;
        self.store.headers.push(header);
        self.store.names.push(name);
        self.store.controls.push(control);
    }

    /// Adds bytes to the message begun last.
    #[inline]
    pub fn push(&mut self, bytes: &'a [u8]) {
        if let Some(header) = self.store.headers.last_mut() {
            header.msg_hdr.msg_iovlen += 1;
            self.store
                .vectors
                .push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
        }
    }

    /// Sends the messages from number `first` on without waiting; how many were sent.
    pub fn send(&mut self, socket: BorrowedFd<'_>, first: usize) -> io::Result<usize> {
        let store = &mut *self.store;
        let mut vector = 0;
        for (i, header) in store.headers.iter_mut().enumerate() {
            let header = &mut header.msg_hdr;
            header.msg_name = (&raw mut store.names[i]).cast();
            header.msg_iov = store.vectors[vector..].as_mut_ptr();
            vector += header.msg_iovlen;
            header.msg_control = if header.msg_controllen == 0 {
                std::ptr::null_mut()
            } else {
                (&raw mut store.controls[i]).cast()
            };
        }
        let headers = &mut store.headers[first..];
        // SAFETY: every header points to its name, its vectors and its control bytes in this store, with true lengths
        // (each vector was counted into exactly one header, in order); the vectors point to bytes borrowed for 'a, which
        // the kernel only reads.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as u32,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }
}

fn control_of(envelope: &Envelope) -> (Control, usize) {
    let mut control = Control([0; CONTROL]);
    let mut used = 0;
    let mut add = |level: c_int, kind: c_int, value: &[u8]| {
        let len = size_of::<libc::cmsghdr>() + value.len();
        let header = libc::cmsghdr { cmsg_len: len as _, cmsg_level: level, cmsg_type: kind };
        // SAFETY: two messages of at most 16 + 8 bytes fit into CONTROL, and the buffer is aligned as the header is.
        unsafe {
            let at = control.0.as_mut_ptr().add(used);
            at.cast::<libc::cmsghdr>().write(header);
            at.add(size_of::<libc::cmsghdr>()).copy_from(value.as_ptr(), value.len());
        }
        used += len.next_multiple_of(size_of::<usize>());
    };
    if let Some(segment) = envelope.segment {
        add(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
    }
    if envelope.tos != 0 {
        let value = c_int::from(envelope.tos).to_ne_bytes();
        match envelope.to {
            SocketAddr::V4(_) => add(libc::IPPROTO_IP, libc::IP_TOS, &value),
            SocketAddr::V6(_) => add(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &value),
        }
    }
    (control, used)
}

/// The kernel's form of an address.
fn address_to(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: zeroes are a valid value of this plain structure.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let len = match address {
        SocketAddr::V4(address) => {
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: a storage is large enough for and aligned as every address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(name) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(name) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, len as libc::socklen_t)
}

/// The address the kernel wrote; unspecified for a family that no UDP socket has.
fn address_from(storage: &libc::sockaddr_storage) -> SocketAddr {
    match c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure it is; a storage is large enough for and aligned as each.
            let name = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
            SocketAddr::new(ip.into(), u16::from_be(name.sin_port))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            SocketAddr::new(Ipv6Addr::from(name.sin6_addr.s6_addr).into(), u16::from_be(name.sin6_port))
        }
        _ => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    }
}
