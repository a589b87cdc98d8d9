//! One question to the kernel by netlink: is an interface a pair whose other end is in another namespace?

use std::io;
use std::os::fd::AsRawFd;

use canal_dataplane::port::IfIndex;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_HEADER: usize = 16;
const IFINFO: usize = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
/// A link's description fits several times.
const REPLY: usize = 32 * 1024;

/// True when `ifindex` is one end of a veth or netkit pair and the other end is in another network namespace.
pub(super) fn is_pair_across_namespaces(ifindex: IfIndex) -> io::Result<bool> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let mut request = [0u8; NLMSG_HEADER + IFINFO];
    request[..4].copy_from_slice(&((NLMSG_HEADER + IFINFO) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request[NLMSG_HEADER + 4..NLMSG_HEADER + 8].copy_from_slice(&ifindex.to_ne_bytes());
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut reply = vec![0u8; REPLY];
    let len = recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
    Ok(describes_pair_across_namespaces(&reply[..len]))
}

fn describes_pair_across_namespaces(message: &[u8]) -> bool {
    let kind = message.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
    let Some(attributes) = message.get(NLMSG_HEADER + IFINFO..).filter(|_| kind == Some(RTM_NEWLINK)) else {
        return false;
    };
    let is_pair = Attributes(attributes)
        .filter(|(name, _)| *name == IFLA_LINKINFO)
        .flat_map(|(_, value)| Attributes(value))
        .any(|(name, value)| {
            name == IFLA_INFO_KIND && matches!(value, b"veth\0" | b"netkit\0" | b"veth" | b"netkit")
        });
    is_pair && Attributes(attributes).any(|(name, _)| name == IFLA_LINK_NETNSID)
}

/// Netlink attributes: length and type of 16 bits each, the value, padding to four bytes.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [a, b, c, d] = *self.0.first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        // The high bits say "nested" and "network order".
        Some((u16::from_ne_bytes([c, d]) & 0x3fff, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(name: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
        bytes.extend(name.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0; NLMSG_HEADER + IFINFO];
        bytes[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        bytes.extend(attributes.concat());
        bytes
    }

    #[test]
    fn a_veth_counts_only_with_a_foreign_namespace() {
        let info = |kind: &[u8]| attribute(IFLA_LINKINFO | 0x8000, &attribute(IFLA_INFO_KIND, kind));
        let elsewhere = attribute(IFLA_LINK_NETNSID, &[0; 4]);
        assert!(describes_pair_across_namespaces(&message(&[info(b"veth\0"), elsewhere.clone()])));
        assert!(!describes_pair_across_namespaces(&message(&[info(b"veth\0")])));
        assert!(!describes_pair_across_namespaces(&message(&[info(b"dummy\0"), elsewhere.clone()])));
        assert!(!describes_pair_across_namespaces(&message(&[elsewhere])));
        assert!(!describes_pair_across_namespaces(&[0; 10]));
        assert!(!describes_pair_across_namespaces(&message(&[vec![1, 0, 0, 0]])));
    }
}
