//! What becomes of a packet that nobody has sent: the production pipeline over the live tables, with a worker of its own.
//!
//! In reading order: a [`question`] says which packet, [`places`] finds who is meant, [`packets`] builds it and those that
//! open its connection, [`scratch`] runs them and keeps what every stage has left, [`explain`] says what that
//! means ([`policy`]: which rules were asked), [`layers`] reads what would be sent, and a [`report`] is all of it.
//! [`offline`] does the same with a directory in place of a daemon. Nothing here touches a worker, a flow or a
//! counter of the daemon's.

pub mod explain;
pub mod layers;
pub mod offline;
pub mod packets;
pub mod places;
pub mod policy;
pub mod question;
pub mod report;
pub mod scratch;
#[cfg(test)]
mod tests;

use std::sync::Mutex;

use canal_dataplane::net::HashSeed;
use canal_dataplane::spec::NodeSpec;
use canal_dataplane::spec::policy::EndpointPolicy;
use canal_dataplane::tables::{Tables, compile};

use packets::Arrival;
use question::Question;
use report::Report;
use scratch::Scratch;

/// Why a question has no answer. The text says what to ask instead.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// Nobody, or more than one, is meant.
    #[error(transparent)]
    Place(#[from] places::PlaceError),
    /// There is no such packet.
    #[error(transparent)]
    Packet(#[from] packets::PacketError),
    /// The packets that would open the connection have no way.
    #[error("such a connection cannot come about: {0}")]
    Opening(String),
}

/// Traces packets, one at a time.
#[derive(Debug)]
pub struct Tracer {
    scratch: Mutex<Option<Scratch>>,
    seed: HashSeed,
    workers: u32,
}

impl Tracer {
    /// With the hash keys and number of workers that owners and source ports are found with. Memory for frames is taken
    /// at the first trace, and kept.
    pub fn new(seed: HashSeed, workers: u32) -> Self {
        Self { scratch: Mutex::new(None), seed, workers }
    }

    /// What becomes of the packet in the world of `tables`, which were compiled from `spec`, at `now_ms`.
    ///
    /// # Errors
    /// [`TraceError`].
    pub fn trace(
        &self,
        question: &Question,
        spec: &NodeSpec,
        tables: &Tables,
        now_ms: u64,
    ) -> Result<Report, TraceError> {
        let arrival = Arrival::new(question, spec, self.seed)?;
        let opening = arrival.opening(question, spec, self.seed)?;
        let mut scratch = self.scratch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let scratch = scratch.get_or_insert_with(Scratch::new);
        let mut run = scratch.begin(self.seed, now_ms);
        if !opening.is_empty() {
            // Whoever opened it was let pass, whatever policy says now.
            let permissive = permissive(spec, tables);
            for (number, packet) in opening.iter().enumerate() {
                let recording = run.packet(packet, &permissive);
                if let Some(why) = explain::hindrance(&recording, &permissive) {
                    return Err(TraceError::Opening(format!("its packet number {} {why}", number + 1)));
                }
            }
        }
        let recording = run.packet(&arrival.packet, tables);
        drop(run);
        let world = explain::World { spec, tables, seed: self.seed, workers: self.workers, now_ms };
        Ok(explain::report(&world, question, &arrival, &recording))
    }
}

/// The tables as they are, without any policy, and of a generation whose decisions do not hold any more: the packet that is
/// traced goes all the way.
fn permissive(spec: &NodeSpec, tables: &Tables) -> Tables {
    let mut spec = spec.clone();
    spec.endpoints.iter_mut().for_each(|endpoint| endpoint.policy = EndpointPolicy::allow_all());
    compile(&spec, Some(tables), tables.ways_since().saturating_sub(1))
}
