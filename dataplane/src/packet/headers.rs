//! What the parser found, for the stages to read without looking at bytes again.

use std::net::IpAddr;

use crate::net::{Direction, FlowKey, HashSeed};

/// Is this packet a piece of a datagram?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fragment {
    /// No.
    #[default]
    Whole,
    /// The piece that has the transport header.
    First,
    /// Another piece.
    Later,
}

impl Fragment {
    /// What all pieces of a datagram have in common, made of the key of one; the key itself for what is whole.
    #[inline]
    pub fn shared_key(self, key: FlowKey) -> FlowKey {
        if self == Self::Whole { key } else { key.of_pieces() }
    }
}

/// What a packet can mean for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Role {
    /// Nothing but that it lives: most packets.
    #[default]
    Plain,
    /// It may open or end it: TCP segments that are not just acknowledgements, control chunks of SCTP.
    Event,
    /// It is an ICMP error, about another packet's connection.
    Error,
    /// It can belong to none: ICMP messages that are neither question, answer nor error.
    Stray,
}

/// Validated facts about one IP packet. Only the parser makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The connection.
    pub key: FlowKey,
    /// Which way this packet goes in it.
    pub direction: Direction,
    /// First byte of the transport header, from the start of the frame.
    pub transport: u16,
    /// Length of the whole IP packet in bytes.
    pub ip_len: u32,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Piece of a datagram?
    pub fragment: Fragment,
    /// Which datagram's piece; 0 when it is whole.
    pub datagram: u32,
    /// IPv4: the DF bit is set (IPv6: always true, routers never fragment).
    pub dont_fragment: bool,
    /// TCP flags, ICMP type, or the SCTP chunk that matters most; 0 otherwise.
    pub detail: u8,
    /// ICMP code; 0 otherwise.
    pub code: u8,
    /// What it can mean for its connection.
    pub role: Role,
    /// Destination port by the key's rules.
    pub destination_port: u16,
}

impl Headers {
    /// Of a packet that nobody has parsed.
    pub const NONE: Self = Self {
        key: FlowKey::NONE,
        direction: Direction::Forward,
        transport: 0,
        ip_len: 0,
        tos: 0,
        ttl: 0,
        fragment: Fragment::Whole,
        datagram: 0,
        dont_fragment: false,
        detail: 0,
        code: 0,
        role: Role::Plain,
        destination_port: 0,
    };

    /// The worker (`0..workers`) that gets the packet first: the connection's, but pieces of a datagram go to the one that
    /// knows their first.
    #[inline]
    pub fn owner(&self, seed: HashSeed, workers: u32) -> u32 {
        self.fragment.shared_key(self.key).owner(seed, workers)
    }

    /// A piece whose connection only the datagram's first piece tells.
    #[inline]
    pub fn is_nameless(&self) -> bool {
        self.key.is_fragment()
    }

    /// Takes the connection over from the first piece of the same datagram.
    pub fn take_name(&mut self, first: &Self) {
        self.key = first.key;
        self.direction = first.direction;
        self.detail = first.detail;
        self.code = first.code;
        self.role = first.role;
        self.destination_port = first.destination_port;
    }

    /// True for IPv6.
    #[inline]
    pub fn is_v6(&self) -> bool {
        self.key.is_v6()
    }

    /// IP protocol number of the transport.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.key.protocol()
    }

    /// IPv4 source, as a big-endian number.
    #[inline(always)]
    pub fn source_v4(&self) -> u32 {
        self.key.source_low(self.direction) as u32
    }

    /// IPv4 destination.
    #[inline(always)]
    pub fn destination_v4(&self) -> u32 {
        self.key.source_low(self.direction.flip()) as u32
    }

    /// IPv6 source, as a big-endian number.
    #[inline(always)]
    pub fn source_v6(&self) -> u128 {
        self.key.addresses(self.direction).0
    }

    /// IPv6 destination.
    #[inline(always)]
    pub fn destination_v6(&self) -> u128 {
        self.key.addresses(self.direction).1
    }

    /// Source address.
    pub fn source_address(&self) -> IpAddr {
        self.key.ends(self.direction).0.0
    }

    /// Destination address.
    pub fn destination_address(&self) -> IpAddr {
        self.key.ends(self.direction).1.0
    }
}
