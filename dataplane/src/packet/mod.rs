//! A frame on its way through the stages: untrusted bytes first, then validated headers, then a verdict.

mod batch;
mod headers;
mod ipv4;
mod ipv6;
mod quote;
pub(crate) mod transport;

pub use batch::Batch;
pub use headers::{Fragment, Headers, Role};
pub use quote::Quote;

use crate::flow::FlowId;
use crate::frame::Frame;
use crate::limits::ETHERNET;
use crate::net::Direction;
use crate::offload::Offload;
use crate::port::Ingress;
use crate::verdict::{DropReason, Verdict};

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
/// EtherType of ARP.
pub const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
const ETHERTYPE_QINQ: [u8; 2] = [0x88, 0xa8];

/// Who a packet is from, once the source stage has checked it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Not known yet.
    Unknown,
    /// The local workload with this index.
    Endpoint(u32),
    /// The remote VTEP with this index.
    Vtep(u32),
    /// A peer with direct routing.
    Direct,
    /// A host behind the gateway interface with this index.
    Gateway(u32),
    /// This host's IP stack.
    Host,
}

/// What connection tracking says of a packet whose connection has no valid decision of the current tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Connection {
    /// Policy must be asked, about [`Packet::asked`]: it opens a connection, or these tables have not judged its connection
    /// yet and must.
    #[default]
    New,
    /// It belongs to one that policy has let pass: only the way is looked up anew.
    Known,
    /// It is an ICMP error about one that policy has let pass: it may go, and nothing is remembered.
    Related,
}

/// Which way round policy is asked about a packet whose connection is [`Connection::New`].
///
/// Each way is a question of its own: does policy let a packet pass that goes this way through the packet's flow key? The
/// packet may pass if one of them is answered with yes, by both ends. Whoever says no takes the way out; when none is left
/// the packet is dropped. What is asked about is all in the key (addresses, protocol, ports, ICMP type and code of the
/// question), never in the packet's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked(u8);

impl Asked {
    /// The packet opens its connection: its source is the connection's source. The source's egress and the destination's
    /// ingress policy decide.
    pub const AS_IS: Self = Self(1);
    /// The packet is an answer: its destination is the connection's source. The *source's ingress* and the *destination's
    /// egress* policy decide, over the flow key read in the other direction.
    pub const ANSWER: Self = Self(2);
    /// Nobody knows who opened the connection.
    pub const EITHER: Self = Self(3);

    /// Is this way still asked about?
    #[inline]
    pub fn contains(self, way: Self) -> bool {
        self.0 & way.0 == way.0
    }

    /// Without a way that was answered with no.
    #[inline]
    pub fn without(self, way: Self) -> Self {
        Self(self.0 & !way.0)
    }

    /// No way is left.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each way that is left, with the direction in which the key is read for it; `packet` = the packet's own.
    pub fn ways(self, packet: Direction) -> impl Iterator<Item = (Self, Direction)> {
        [(Self::AS_IS, packet), (Self::ANSWER, packet.flip())]
            .into_iter()
            .filter(move |(way, _)| self.contains(*way))
    }
}

/// One packet of a batch.
#[derive(Debug)]
pub struct Packet {
    /// Its bytes, from the (inner) Ethernet header on.
    pub frame: Frame,
    /// What is unfinished in it.
    pub offload: Offload,
    /// The way it came.
    pub ingress: Ingress,
    /// Whose it is.
    pub source: Source,
    /// What was decided so far.
    pub verdict: Verdict,
    /// Validated headers; meaningful once [`Packet::parse`] has said [`Kind::Ip`].
    pub headers: Headers,
    /// Hash of the flow key.
    pub hash: u64,
    /// The entry that its connection most likely has, if any.
    pub guess: FlowId,
    /// Its connection's entry, once found or made.
    pub flow: Option<FlowId>,
    /// What connection tracking says of it.
    pub connection: Connection,
    /// What policy is asked about it, while its connection is [`Connection::New`].
    pub asked: Asked,
    /// It is an ARP message.
    pub arp: bool,
    /// It came from another worker: never hand it over again.
    pub handed: bool,
}

/// What a frame turned out to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IP, validated.
    Ip,
    /// ARP, not looked into.
    Arp,
}

impl Packet {
    /// A packet without a frame, that nobody has looked at.
    fn none() -> Self {
        Self {
            frame: Frame::none(),
            offload: Offload::NONE,
            ingress: Ingress::Host,
            source: Source::Unknown,
            verdict: Verdict::Pending,
            headers: Headers::NONE,
            hash: 0,
            guess: FlowId::MAX,
            flow: None,
            connection: Connection::New,
            asked: Asked::AS_IS,
            arp: false,
            handed: false,
        }
    }

    /// The packet that this ICMP error is about, if it is one and says so.
    pub fn quote(&self) -> Option<Quote> {
        quote::of_error(self.frame.data(), &self.headers)
    }

    /// Another piece of this packet, with everything decided about it.
    pub fn with_frame(&self, frame: Frame) -> Self {
        Self { frame, ..*self }
    }

    /// As [`Self::parse`], for whole TCP and UDP packets over IPv4 that have no options; false = it is not one, and
    /// nothing is known about it.
    #[inline(always)]
    pub fn parse_plain(&mut self) -> bool {
        match ipv4::parse_plain(self.frame.data(), &mut self.headers) {
            Some(end) => self.frame.set_len(end),
            None => false,
        }
    }

    /// Validates the frame and fills `headers`; cuts Ethernet padding off.
    ///
    /// # Errors
    /// The reason to drop it. Nothing is ever passed on with a part of its headers unread.
    pub fn parse(&mut self) -> Result<Kind, DropReason> {
        let Some((ethernet, _)) = self.frame.data().split_first_chunk::<ETHERNET>() else {
            return Err(DropReason::MalformedEthernet);
        };
        let super_frame = self.offload.gso.is_some();
        let end = match [ethernet[12], ethernet[13]] {
            ETHERTYPE_IPV4 => ipv4::parse(self.frame.data(), super_frame, &mut self.headers)?,
            ETHERTYPE_IPV6 => ipv6::parse(self.frame.data(), super_frame, &mut self.headers)?,
            ETHERTYPE_ARP => return Ok(Kind::Arp),
            ETHERTYPE_VLAN | ETHERTYPE_QINQ => return Err(DropReason::VlanTag),
            _ => return Err(DropReason::UnknownEtherType),
        };
        let _ = self.frame.set_len(end);
        Ok(Kind::Ip)
    }
}
