//! What a worker brings along to ask policy: its memory, and its log.

use super::facts::{Facts, Transport};
use super::log::{Event, Log, Record};
use super::{Decider, Outcome};
use crate::net::{Direction, FlowKey, HashSeed};
use crate::spec::policy::Family;
use crate::tables::policy::{Memo, Policy, Program, What};

/// A worker's side of policy.
#[derive(Debug)]
pub struct Judge {
    memo: Memo,
    /// What people shall know.
    pub log: Log,
    counts: bool,
}

/// One question to the policy of a workload, or of one of the host's interfaces.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The tables.
    pub policy: &'a Policy,
    /// Its program for the direction.
    pub program: &'a Program,
    /// Its name, for people.
    pub endpoint: &'a str,
    /// The connection.
    pub key: &'a FlowKey,
    /// Which way through it its opener's packets go.
    pub direction: Direction,
    /// Bytes of the IP packet that it is about.
    pub bytes: u32,
    /// Of the tables.
    pub generation: u64,
    /// The worker's clock, in milliseconds.
    pub now_ms: u64,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// What the program makes of the connection. `Undecided`: programs of host endpoints only.
    pub outcome: Outcome,
    /// What has decided so.
    by: What,
}

impl Judge {
    /// One that remembers nothing.
    pub fn new(seed: HashSeed, now_ms: u64) -> Self {
        Self { memo: Memo::default(), log: Log::new(seed, now_ms), counts: true }
    }

    /// From now on rules do not count what matches them, and nothing is logged: packets are imagined ones.
    pub fn stop_counting(&mut self) {
        self.counts = false;
    }

    /// Asks. Counts what matched, and logs what `Log` rules want logged.
    #[inline]
    pub fn ask(&mut self, question: &Question<'_>) -> Ruling {
        let Question { policy, program, key, .. } = *question;
        let (source, destination) = key.addresses(question.direction);
        let (source, destination, family) = match key.is_v6() {
            true => (policy.class_v6(source), policy.class_v6(destination), Family::V6),
            false => (policy.class_v4(source as u32), policy.class_v4(destination as u32), Family::V4),
        };
        let decision = self.memo.decision(policy, program, source, destination, family, key.protocol());
        let bytes = u64::from(question.bytes);
        for step in decision.steps(Transport::of(key, question.direction)) {
            if self.counts {
                program.count(step, bytes);
            }
            let outcome = match step {
                What::Allow(_) => Outcome::Allowed,
                What::Deny(_) | What::TierEnd(_) => Outcome::Denied,
                What::End => program.end(),
                What::Pass(_) => continue,
                What::Log(_) => {
                    if self.counts {
                        note(&mut self.log, question, Event::Logged, program.decider(step));
                    }
                    continue;
                }
            };
            return Ruling { outcome, by: step };
        }
        unreachable!("the last step of a decision decides")
    }

    /// Logs that a packet is dropped for this answer.
    pub fn denied(&mut self, question: &Question<'_>, ruling: Ruling) {
        if self.counts {
            note(&mut self.log, question, Event::Denied, question.program.decider(ruling.by));
        }
    }
}

#[cold]
#[inline(never)]
fn note(log: &mut Log, question: &Question<'_>, event: Event, by: Decider) {
    let facts = Facts::of(question.key, question.direction);
    log.note(event, &facts, question.now_ms, || Record {
        at_ms: question.now_ms,
        event,
        endpoint: question.endpoint.to_owned(),
        direction: question.program.direction(),
        facts,
        bytes: question.bytes,
        by,
        generation: question.generation,
    });
}
