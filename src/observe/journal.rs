//! What policy had to tell lately: some of it in the log, at a bounded rate, and the last of it for those who ask.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use canal_dataplane::net::HashSeed;
use canal_dataplane::policy::{Event, Transport};
use canal_dataplane::reply::RateLimit;
use canal_dataplane::tables::Tables;

use super::names;
use super::protocol::{MAX_RECORDS, RecordView};
use crate::record_queue::Told;

/// Lines a second for what `Log` rules note. Whoever writes such a rule wants to see what it matches, not to fill a disk.
const LOGGED_RATE: u32 = 100;

/// What the log is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPolicy {
    /// Also connections that are refused.
    pub denied: bool,
    /// Lines a second about these.
    pub denied_rate: u32,
}

/// When something is told, by two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Milliseconds of the workers' clock.
    pub ms: u64,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it is about.
    pub record: RecordView,
    /// Lines like it that were left out since the last one, because there were too many.
    pub suppressed: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Journal {
    policy: LogPolicy,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    kept: VecDeque<RecordView>,
    told: u64,
    /// By [`Event`].
    lines: [Lines; 2],
}

/// Lines of one kind.
#[derive(Debug)]
struct Lines {
    limit: RateLimit,
    /// Left out since the last line.
    suppressed: u64,
    /// Left out ever.
    all_suppressed: u64,
}

impl Lines {
    fn new(rate: u32, seed: HashSeed, now_ms: u64) -> Self {
        // Senders have been held apart by the workers already.
        let limit = RateLimit::new((rate, rate), (rate, rate), seed, now_ms);
        Self { limit, suppressed: 0, all_suppressed: 0 }
    }
}

impl Journal {
    /// An empty one.
    pub fn new(policy: LogPolicy, seed: HashSeed, now_ms: u64) -> Self {
        let lines = [LOGGED_RATE, policy.denied_rate].map(|rate| Lines::new(rate, seed, now_ms));
        Self { policy, state: Mutex::new(State { kept: VecDeque::new(), told: 0, lines }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in it is ever half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a record in. Returns what should be logged of it.
    pub fn tell(&self, told: &Told, tables: &Tables, now: Now) -> Option<Line> {
        let mut state = self.state();
        state.told += 1;
        let record = view(told, state.told, tables, now);
        if state.kept.len() == MAX_RECORDS {
            state.kept.pop_front();
        }
        state.kept.push_back(record.clone());
        let event = told.record.event;
        if event == Event::Denied && !self.policy.denied {
            return None;
        }
        let lines = &mut state.lines[event as usize];
        if !lines.limit.allow(record.source, now.ms) {
            lines.suppressed += 1;
            lines.all_suppressed += 1;
            return None;
        }
        Some(Line { record, suppressed: std::mem::take(&mut lines.suppressed) })
    }

    /// The newest records with a greater number than `after`, `limit` at most, oldest first.
    pub fn last(&self, limit: usize, after: u64) -> Vec<RecordView> {
        let state = self.state();
        let newer = state.kept.iter().rev().take_while(|record| record.number > after);
        let mut records: Vec<RecordView> = newer.take(limit).cloned().collect();
        records.reverse();
        records
    }

    /// Log lines left out because there were too many: about `Log` rules, and about refused connections.
    pub fn suppressed(&self) -> [u64; 2] {
        let state = self.state();
        [Event::Logged, Event::Denied].map(|event| state.lines[event as usize].all_suppressed)
    }
}

fn view(told: &Told, number: u64, tables: &Tables, now: Now) -> RecordView {
    let record = &told.record;
    let facts = &record.facts;
    let (ports, icmp) = match facts.transport {
        Transport::Ports(source, destination) => (Some((source, destination)), None),
        Transport::Icmp(kind, code) => (None, Some([kind, code])),
        Transport::Other | Transport::Unseen => (None, None),
    };
    RecordView {
        number,
        at_ms: now.unix_ms.saturating_sub(now.ms.saturating_sub(record.at_ms)),
        event: event_name(record.event).into(),
        worker: told.worker,
        generation: record.generation,
        endpoint: record.endpoint.clone(),
        direction: record.direction.to_string(),
        by: names::decider(&record.by),
        protocol: names::protocol(facts.protocol),
        source: facts.source,
        source_port: ports.map(|(source, _)| source),
        source_name: names::holder(facts.source, tables),
        destination: facts.destination,
        destination_port: ports.map(|(_, destination)| destination),
        destination_name: names::holder(facts.destination, tables),
        icmp,
        bytes: record.bytes,
    }
}

const fn event_name(event: Event) -> &'static str {
    match event {
        Event::Logged => "logged",
        Event::Denied => "denied",
    }
}

impl Line {
    /// Writes it to the log, with everything in fields of their own.
    pub fn write(&self) {
        let record = &self.record;
        let unknown = || "unknown".to_owned();
        let end = |address: std::net::IpAddr, port: Option<u16>| match port {
            Some(port) => std::net::SocketAddr::new(address, port).to_string(),
            None => address.to_string(),
        };
        tracing::info!(
            target: "canal::policy",
            rule = record.by.text,
            direction = record.direction,
            endpoint = record.endpoint,
            from = record.source_name.clone().unwrap_or_else(unknown),
            to = record.destination_name.clone().unwrap_or_else(unknown),
            source = end(record.source, record.source_port),
            destination = end(record.destination, record.destination_port),
            protocol = record.protocol,
            icmp = record.icmp.map(|[kind, code]| format!("type {kind} code {code}")),
            bytes = record.bytes,
            generation = record.generation,
            suppressed = self.suppressed,
            "policy {}",
            record.event
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use canal_dataplane::policy::{Decider, Facts, Record, RuleId};
    use canal_dataplane::spec::policy::{Action, EndpointPolicy, Origin, OriginKind, PolicyDirection};
    use canal_dataplane::spec::{Endpoint, NodeSpec};
    use canal_dataplane::tables::compile;

    use super::*;
    use crate::observe::protocol::DeciderView;

    fn tables() -> Tables {
        let endpoint = Endpoint {
            name: "default/web".into(),
            interface: "cali1".into(),
            ifindex: Some(7),
            mac: None,
            networks: vec!["10.0.0.2/32".parse().unwrap()],
            mtu: 1450,
            policy: EndpointPolicy::allow_all(),
        };
        compile(&NodeSpec { endpoints: vec![endpoint].into(), ..NodeSpec::default() }, None, 1)
    }

    fn told(event: Event) -> Told {
        let (source, destination) = ([10, 9, 9, 9].into(), [10, 0, 0, 2].into());
        let facts = Facts { source, destination, protocol: 6, transport: Transport::Ports(4000, 80) };
        let direction = PolicyDirection::Ingress;
        let origin = Origin { kind: OriginKind::NetworkPolicy, name: "default/web".into(), direction };
        let tier = Some(Arc::from("default"));
        let by = Decider::Rule(RuleId { tier, origin, index: 2, action: Action::Deny });
        let endpoint = "default/web".into();
        let record = Record { at_ms: 900, event, endpoint, direction, facts, bytes: 60, by, generation: 7 };
        Told { worker: 1, record }
    }

    fn journal(denied: bool) -> Journal {
        Journal::new(LogPolicy { denied, denied_rate: 2 }, HashSeed(1, 2), 0)
    }

    const NOW: Now = Now { ms: 1000, unix_ms: 50_000 };

    #[test]
    fn a_record_names_rule_ends_and_time() {
        let line = journal(true).tell(&told(Event::Denied), &tables(), NOW).unwrap();
        let by = DeciderView {
            tier: Some("default".into()),
            kind: Some("NetworkPolicy".into()),
            name: Some("default/web".into()),
            rule: Some(2),
            text: "tier default, NetworkPolicy default/web, ingress rule 2 (Deny)".into(),
        };
        let record = RecordView {
            number: 1,
            at_ms: 49_900,
            event: "denied".into(),
            worker: 1,
            generation: 7,
            endpoint: "default/web".into(),
            direction: "ingress".into(),
            by,
            protocol: "tcp".into(),
            source: [10, 9, 9, 9].into(),
            source_port: Some(4000),
            source_name: None,
            destination: [10, 0, 0, 2].into(),
            destination_port: Some(80),
            destination_name: Some("default/web".into()),
            icmp: None,
            bytes: 60,
        };
        assert_eq!(line, Line { record, suppressed: 0 });
    }

    #[test]
    fn refused_connections_are_logged_on_demand_and_log_rules_always() {
        let (quiet, tables) = (journal(false), tables());
        assert_eq!(quiet.tell(&told(Event::Denied), &tables, NOW), None);
        assert!(quiet.tell(&told(Event::Logged), &tables, NOW).is_some());
        // Both can be asked for.
        assert_eq!(
            quiet.last(10, 0).iter().map(|r| r.event.as_str()).collect::<Vec<_>>(),
            ["denied", "logged"]
        );
        assert_eq!(quiet.suppressed(), [0, 0]);
    }

    #[test]
    fn lines_that_are_too_many_are_left_out_and_counted() {
        let (journal, tables) = (journal(true), tables());
        let lines =
            |now: Now| (0..5).filter_map(|_| journal.tell(&told(Event::Denied), &tables, now)).count();
        assert_eq!(lines(NOW), 2);
        let later = Now { ms: 1500, unix_ms: 50_500 };
        let line = journal.tell(&told(Event::Denied), &tables, later).unwrap();
        assert_eq!((line.suppressed, journal.suppressed()), (3, [0, 3]));
        assert!(journal.tell(&told(Event::Logged), &tables, later).is_some(), "another kind");
    }

    #[test]
    fn the_last_records_are_kept() {
        let (journal, tables) = (journal(false), tables());
        (0..MAX_RECORDS + 5).for_each(|_| drop(journal.tell(&told(Event::Denied), &tables, NOW)));
        let numbers = |limit, after| journal.last(limit, after).iter().map(|r| r.number).collect::<Vec<_>>();
        let all = MAX_RECORDS as u64 + 5;
        assert_eq!(numbers(usize::MAX, 0), (6..=all).collect::<Vec<_>>());
        assert_eq!(numbers(2, 0), [all - 1, all]);
        assert_eq!(numbers(10, all - 1), [all]);
        assert!(numbers(10, all).is_empty());
    }
}
