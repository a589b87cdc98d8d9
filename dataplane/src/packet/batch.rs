//! The packets of one turn, in memory that is written over and never made anew.

use std::ops::{Deref, DerefMut};

use super::{Asked, Connection, Packet, Source};
use crate::frame::Frame;
use crate::offload::Offload;
use crate::port::Received;
use crate::verdict::Verdict;

/// A batch of packets; the slice it derefs to is what the stages run over.
///
/// Places are kept from turn to turn and only those fields are set that a stage reads before another has written them:
/// making each packet anew, and copying it to its place, cost more than any stage.
#[derive(Debug, Default)]
pub struct Batch {
    places: Vec<Packet>,
    len: usize,
    /// For pieces of packets that are cut; empty between two of them.
    pub(crate) pieces: Vec<Frame>,
}

impl Batch {
    /// An empty batch with places for `capacity` packets.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { places: (0..capacity).map(|_| Packet::none()).collect(), ..Self::default() }
    }

    /// Takes the frames out of `received` and appends them as packets that nobody has looked at; their headers and hash
    /// mean nothing until they are parsed.
    #[inline]
    pub fn admit(&mut self, received: &mut Vec<Received>, handed: bool) {
        let (first, len) = (self.len, self.len + received.len());
        if self.places.len() < len {
            self.places.resize_with(len, Packet::none);
        }
        for (packet, received) in self.places[first..len].iter_mut().zip(received.iter_mut()) {
            // The place's own frame has been taken out: an empty one goes the other way.
            std::mem::swap(&mut packet.frame, &mut received.frame);
            packet.ingress = received.ingress;
            packet.source = Source::Unknown;
            packet.verdict = Verdict::Pending;
            packet.flow = None;
            packet.connection = Connection::New;
            packet.asked = Asked::AS_IS;
            packet.arp = false;
            packet.handed = handed;
            packet.offload = Offload::NONE;
            if !received.offload.is_finished() {
                packet.offload = received.offload;
            }
        }
        received.clear();
        self.len = len;
    }

    /// Appends one packet.
    pub fn push(&mut self, packet: Packet) {
        match self.places.get_mut(self.len) {
            Some(place) => *place = packet,
            None => self.places.push(packet),
        }
        self.len += 1;
    }

    /// Empties the batch; the frames must have been taken out.
    pub fn clear(&mut self) {
        debug_assert!(self.iter().all(|packet| packet.frame.is_empty()), "a frame is lost");
        self.len = 0;
    }
}

impl Deref for Batch {
    type Target = [Packet];

    #[inline]
    fn deref(&self) -> &[Packet] {
        &self.places[..self.len]
    }
}

impl DerefMut for Batch {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Packet] {
        &mut self.places[..self.len]
    }
}
