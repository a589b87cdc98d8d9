//! The system calls that no safe wrapper offers: binding a packet socket and asking which eBPF programs are attached.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `PACKET_IGNORE_OUTGOING` of linux/if_packet.h: frames the host itself sends are not shown to the socket.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// `BPF_PROG_QUERY` of linux/bpf.h.
const BPF_PROG_QUERY: libc::c_long = 16;

/// A raw packet socket bound to the interface `ifindex` of the calling thread's namespace; sees incoming frames only.
pub fn packet_socket(ifindex: u32) -> io::Result<OwnedFd> {
    let every = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: no pointers; the result is checked before it becomes an owned descriptor that nobody else holds.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let on: libc::c_int = 1;
    // SAFETY: `on` lives across the call and the length given is its own; the descriptor is open.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_IGNORE_OUTGOING,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    check(done)?;
    // SAFETY: sockaddr_ll is plain old data for which all-zero bytes are a valid value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = every;
    address.sll_ifindex = ifindex as i32;
    // SAFETY: the address is a fully initialised sockaddr_ll and the length given is its own.
    let done = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    check(done)?;
    Ok(socket)
}

/// The `query` member of `union bpf_attr` (linux/bpf.h), as far as this program reads it.
#[repr(C)]
struct ProgQuery {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    _pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// Ids of the eBPF programs attached to `ifindex` of the calling thread's namespace at `attach_type`.
pub fn attached_programs(ifindex: u32, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; 64];
    let mut query = ProgQuery {
        target_ifindex: ifindex,
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        _pad: 0,
        prog_attach_flags: 0,
        link_ids: 0,
        link_attach_flags: 0,
        revision: 0,
    };
    // SAFETY: the attribute is a prefix of union bpf_attr with its true size; `ids` outlives the call and its capacity
    // is what `count` says, so the kernel writes inside it.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<ProgQuery>() as libc::c_ulong)
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ids[..query.count as usize].to_vec())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
