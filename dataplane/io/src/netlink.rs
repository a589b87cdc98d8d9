//! Questions to the kernel by netlink, one at a time: what these ports have to know of links, routes and neighbours.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use canal_dataplane::port::IfIndex;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

const NLMSG_HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// Make it if it is not there.
pub const NLM_F_CREATE: u16 = 0x400;
const RTM_GETLINK: u16 = 18;
/// Bytes of `struct ifinfomsg`, which a link's description begins with.
pub const IFINFO: usize = 16;
/// One answer fits several times.
const REPLY: usize = 32 * 1024;
/// The kernel answers within the call that asks; this is against waiting for ever should it not.
const PATIENCE_S: i64 = 2;

/// A request, to be asked.
#[derive(Clone, Debug)]
pub struct Request(Vec<u8>);

impl Request {
    /// Of a type (`RTM_…`), with its fixed part behind the header.
    pub fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; NLMSG_HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend(body);
        Self(bytes)
    }

    /// For a request that is answered by nothing but "done".
    pub fn acknowledged(mut self) -> Self {
        self.0[6] |= NLM_F_ACK as u8;
        self
    }

    /// Adds an attribute.
    pub fn with(mut self, name: u16, value: &[u8]) -> Self {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.0.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.0.extend(name.to_ne_bytes());
        self.0.extend(value);
        self
    }

    fn finished(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let len = (bytes.len() as u32).to_ne_bytes();
        bytes[..4].copy_from_slice(&len);
        bytes
    }
}

/// What is known of a link.
pub fn link_request(ifindex: IfIndex) -> Request {
    let mut body = [0; IFINFO];
    body[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    Request::new(RTM_GETLINK, 0, &body)
}

/// A routing socket.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Netlink {
    /// Opens it; `groups` (a mask) are what it shall be told of without asking.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(groups: u32) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_S))?;
        if groups != 0 {
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        }
        Ok(Self(fd))
    }

    /// The answer, behind its netlink header; empty for "done". Not for sockets with groups.
    ///
    /// # Errors
    /// What the kernel answers, as an error.
    pub fn ask(&self, request: &Request) -> io::Result<Vec<u8>> {
        send(self.0.as_raw_fd(), &request.finished(), MsgFlags::empty())?;
        let mut reply = vec![0; REPLY];
        let len = recv(self.0.as_raw_fd(), &mut reply, MsgFlags::empty())?;
        reply.truncate(len);
        answer(&reply)
    }

    /// Takes all that it was told without asking. True if any of it is about interface `ifindex` or about routes, or if more
    /// was told than there was room for.
    pub fn has_news(&self, ifindex: IfIndex) -> bool {
        let (mut buffer, mut any) = (vec![0; REPLY], false);
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => any |= concerns(&buffer[..len], ifindex),
                Err(Errno::ENOBUFS) => any = true,
                Err(_) => return any,
            }
        }
    }
}

/// Is a message about routes, or about a link or neighbour of this interface? Both say which one at the same place.
fn concerns(message: &[u8], ifindex: IfIndex) -> bool {
    const RTM_NEWROUTE: u16 = 24;
    const RTM_DELROUTE: u16 = 25;
    let word = |at: usize| message.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>());
    let Some([a, b, ..]) = word(4) else { return false };
    let kind = u16::from_ne_bytes([*a, *b]);
    matches!(kind, RTM_NEWROUTE | RTM_DELROUTE)
        || word(NLMSG_HEADER + 4).is_some_and(|index| *index == ifindex.to_ne_bytes())
}

fn answer(message: &[u8]) -> io::Result<Vec<u8>> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let kind = message.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    let body = message.get(NLMSG_HEADER..).ok_or_else(malformed)?;
    if kind != Some(NLMSG_ERROR) {
        return Ok(body.to_vec());
    }
    match i32::from_ne_bytes(*body.first_chunk().ok_or_else(malformed)?) {
        0 => Ok(Vec::new()),
        negative => Err(io::Error::from_raw_os_error(negative.wrapping_neg())),
    }
}

/// Netlink attributes: length and type of 16 bits each, the value, padding to four bytes.
pub struct Attributes<'a>(pub &'a [u8]);

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

    #[test]
    fn a_request_is_padded_and_its_attributes_are_read_back() {
        let request = Request::new(26, NLM_F_CREATE, &[1; 12]).with(1, &[10, 0, 0]).with(4, &[7; 4]);
        let bytes = request.acknowledged().finished();
        assert_eq!(bytes.len(), 16 + 12 + 8 + 8);
        assert_eq!(bytes[..4], 44u32.to_ne_bytes());
        assert_eq!(bytes[6..8], (0x400u16 | 5).to_ne_bytes());
        let read: Vec<_> = Attributes(&bytes[28..]).collect();
        assert_eq!(read, [(1, &[10, 0, 0][..]), (4, &[7; 4][..])]);
    }

    #[test]
    fn an_error_is_an_error_and_done_is_nothing() {
        let message = |kind: u16, body: &[u8]| {
            let mut bytes = vec![0; NLMSG_HEADER];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes.extend(body);
            bytes
        };
        let refused = answer(&message(NLMSG_ERROR, &(-2i32).to_ne_bytes())).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOENT));
        assert_eq!(answer(&message(NLMSG_ERROR, &[0; 4])).unwrap(), []);
        assert_eq!(answer(&message(24, &[9])).unwrap(), [9]);
        assert!(answer(&message(NLMSG_ERROR, &[0; 3])).is_err() && answer(&[0; 15]).is_err());
    }

    #[test]
    fn news_are_about_routes_or_the_interface() {
        let message = |kind: u16, index: u32| {
            let mut bytes = vec![0; NLMSG_HEADER + 12];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes[20..24].copy_from_slice(&index.to_ne_bytes());
            bytes
        };
        assert!(concerns(&message(28, 3), 3) && !concerns(&message(28, 4), 3));
        assert!(concerns(&message(24, 0), 3) && concerns(&message(25, 0), 3));
        assert!(!concerns(&[0; 4], 0));
    }

    #[test]
    fn the_loopback_is_known() {
        let index = nix::net::if_::if_nametoindex("lo").unwrap();
        let link = Netlink::open(0).unwrap().ask(&link_request(index)).unwrap();
        const IFLA_IFNAME: u16 = 3;
        let name = Attributes(&link[IFINFO..]).find(|(name, _)| *name == IFLA_IFNAME).unwrap().1;
        assert_eq!(name, b"lo\0");
    }
}
