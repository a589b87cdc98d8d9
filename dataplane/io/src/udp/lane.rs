//! One sending socket and what is about to leave by it: datagrams of one destination and length, one after another,
//! become one message that the kernel cuts again.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use canal_dataplane::port::Outgoing;

use super::message::{Envelope, SendStore};

/// Most bytes of one message: an IPv4 packet of 65,535 with its headers taken off.
const MAX_MESSAGE: usize = 65_507;

/// Datagrams of one message that Linux takes since 6.9 (`UDP_MAX_SEGMENTS`).
pub const MAX_DATAGRAMS: usize = 128;
/// And before.
const OLD_MAX_DATAGRAMS: usize = 64;

/// Where some bytes of a message are.
#[derive(Clone, Debug)]
enum Piece {
    /// In the memory for headers.
    Header(Range<u32>),
    /// In the frame of that number.
    Frame(u32, Range<u32>),
}

#[derive(Clone, Debug)]
struct Message {
    to: SocketAddr,
    tos: u8,
    /// Bytes of each datagram but the last.
    segment: usize,
    datagrams: usize,
    bytes: usize,
    /// No more: a datagram shorter than the others was added.
    closed: bool,
    pieces: usize,
}

/// How many datagrams and bytes were sent, or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Datagrams that did not find room.
    pub full: u64,
    /// Datagrams that the kernel refused.
    pub refused: u64,
    /// Messages must not have more datagrams from now on.
    pub max_datagrams: Option<usize>,
    /// The socket has an ICMP error to tell.
    pub pending_error: bool,
}

/// One sending socket.
pub struct Lane {
    pub socket: OwnedFd,
    messages: Vec<Message>,
    pieces: Vec<Piece>,
}

/// A datagram to be added to a lane.
#[derive(Clone, Debug)]
pub struct Datagram {
    pub to: SocketAddr,
    pub tos: u8,
    /// Headers in the memory for headers, empty when they stand in the frame.
    pub header: Range<usize>,
    /// Number of the frame.
    pub frame: usize,
    /// The rest, in the frame.
    pub bytes: Range<usize>,
}

impl Lane {
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, messages: Vec::new(), pieces: Vec::new() }
    }

    /// Adds a datagram, to the last message if it fits there; `max` datagrams to a message.
    pub fn add(&mut self, datagram: Datagram, max: usize) {
        let Datagram { to, tos, header, frame, bytes } = datagram;
        let len = header.len() + bytes.len();
        let pieces = if header.is_empty() { 1 } else { 2 };
        match self.messages.last_mut() {
            Some(last)
                if !last.closed
                    && (last.to, last.tos) == (to, tos)
                    && len <= last.segment
                    && last.datagrams < max
                    && last.bytes + len <= MAX_MESSAGE =>
            {
                last.closed = len < last.segment;
                last.datagrams += 1;
                last.bytes += len;
                last.pieces += pieces;
            }
            _ => self.messages.push(Message {
                to,
                tos,
                segment: len,
                datagrams: 1,
                bytes: len,
                closed: false,
                pieces,
            }),
        }
        if !header.is_empty() {
            self.pieces.push(Piece::Header(header.start as u32..header.end as u32));
        }
        self.pieces.push(Piece::Frame(frame as u32, bytes.start as u32..bytes.end as u32));
    }

    /// Sends everything and forgets it.
    pub fn flush(&mut self, frames: &[Outgoing], headers: &[u8], store: &mut SendStore) -> Outcome {
        let mut outbox = store.outbox();
        let mut pieces = self.pieces.iter();
        for message in &self.messages {
            let segment = (message.datagrams > 1).then_some(message.segment as u16);
            outbox.begin(&Envelope { to: message.to, tos: message.tos, segment });
            for piece in pieces.by_ref().take(message.pieces) {
                outbox.push(match piece {
                    Piece::Header(range) => &headers[range.start as usize..range.end as usize],
                    Piece::Frame(frame, range) => {
                        &frames[*frame as usize].frame.data()[range.start as usize..range.end as usize]
                    }
                });
            }
        }
        let mut outcome = Outcome::default();
        let (mut next, mut retried) = (0, false);
        while let Some(message) = self.messages.get(next) {
            match outbox.send(self.socket.as_fd(), next) {
                Ok(sent) => {
                    next += sent.max(1);
                    retried = false;
                }
                Err(error) => match judge(&error) {
                    Failure::Full => {
                        outcome.full += self.messages[next..].iter().map(|m| m.datagrams as u64).sum::<u64>();
                        break;
                    }
                    // What an earlier datagram caused is told at the next; that one may be sent all the same.
                    Failure::Pending if !retried => {
                        outcome.pending_error = true;
                        retried = true;
                    }
                    kind => {
                        outcome.refused += message.datagrams as u64;
                        outcome.max_datagrams = match kind {
                            Failure::CannotCut => Some(1),
                            Failure::Refused if message.datagrams > OLD_MAX_DATAGRAMS => {
                                Some(OLD_MAX_DATAGRAMS)
                            }
                            _ => outcome.max_datagrams,
                        };
                        next += 1;
                        retried = false;
                    }
                },
            }
        }
        self.messages.clear();
        self.pieces.clear();
        outcome
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// Come back later.
    Full,
    /// An ICMP error about an earlier datagram, or a lasting one: only a second try tells.
    Pending,
    /// Not in this form: a datagram longer than the interface's MTU, too many datagrams.
    Refused,
    /// The device cannot sum, so the kernel does not cut for it.
    CannotCut,
}

fn judge(error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Failure::Full,
        Some(libc::EINVAL) => Failure::Refused,
        Some(libc::EIO) => Failure::CannotCut,
        _ => Failure::Pending,
    }
}
