//! The table against a plain map, and what a flood may not do.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::index::Index;
use super::state::{Opening, opening};
use super::{Admission, Census, Entry, Era, FlowTable, Owner, Quota, Request, State, Step};
use crate::net::{FlowKey, HashSeed};
use crate::packet::{Headers, Role};
use crate::reference::states::{self, Who};
use crate::spec::Timeouts;

const SEED: HashSeed = HashSeed(1, 2);
const CAPACITY: usize = 16;
const QUOTA: Quota = Quota { workload: 6, node: CAPACITY };
const TCP: u8 = 6;
/// Two slots of the wheel.
const LATE_MS: u32 = 2048;

/// Connection `n` is of owner `n % 4` (the last is a node), and of TCP if `n` is odd.
fn packet(n: u32, reply: bool, flags: u8) -> Headers {
    let protocol = if n % 2 == 1 { TCP } else { 17 };
    let (a, b) = (0x0a00_0100 + n, 0x0a00_0001);
    let (source, target) = if reply { (b, a) } else { (a, b) };
    let (key, direction) = FlowKey::v4(source, target, (80, 80), protocol, false);
    let detail = if protocol == TCP { flags } else { 0 };
    let role = if protocol == TCP && flags & 0x17 != 0x10 { Role::Event } else { Role::Plain };
    Headers { key, direction, detail, role, ip_len: 100, ..Headers::NONE }
}

fn owner(n: u32) -> Owner {
    if n % 4 == 3 { Owner::DIRECT } else { Owner::workload(1 + n % 4) }
}

fn request(n: u32, headers: &Headers) -> Request {
    let (Opening::Opens(state) | Opening::Midstream(state)) = opening(headers) else { panic!("{headers:?}") };
    let (hash, origin) = (headers.key.hash(SEED), headers.direction);
    Request { hash, key: headers.key, origin, state, parties: 0, owner: owner(n), generation: 1 }
}

/// The slow twin of one entry.
#[derive(Clone, Debug)]
struct Model {
    /// Number of the step that made it.
    born: usize,
    state: &'static str,
    closer: Who,
    answered: bool,
    last_seen: u32,
}

impl Model {
    fn timeout(&self, n: u32) -> u32 {
        let protocol = if n % 2 == 1 { TCP } else { 17 };
        states::timeout_ms(self.state, protocol, self.answered, &Timeouts::default()) as u32
    }

    fn is_over(&self) -> bool {
        matches!(self.state, "TIME_WAIT" | "CLOSE")
    }
}

fn known(table: &FlowTable, n: u32) -> bool {
    let key = packet(n, false, 0).key;
    table.find(key.hash(SEED), &key).is_some()
}

/// What must become of a new connection `n`: the entries that may have to go for it, and what is said.
fn expected(model: &BTreeMap<u32, Model>, n: u32) -> (Vec<u32>, &'static str) {
    let limit = if n % 4 == 3 { QUOTA.node } else { QUOTA.workload };
    let own = || model.iter().filter(move |(m, _)| *m % 4 == n % 4);
    if own().count() >= limit {
        if let Some((oldest, _)) = own().filter(|(_, m)| !m.answered).min_by_key(|(_, m)| m.born) {
            return (vec![*oldest], "evicted");
        }
        let over: Vec<u32> = own().filter(|(_, m)| m.is_over()).map(|(n, _)| *n).collect();
        let said = if over.is_empty() { "over quota" } else { "evicted" };
        return (over, said);
    }
    if model.len() == CAPACITY {
        let any: Vec<u32> =
            model.iter().filter(|(_, m)| !m.answered || m.is_over()).map(|(n, _)| *n).collect();
        let said = if any.is_empty() { "full" } else { "evicted" };
        return (any, said);
    }
    (Vec::new(), "created")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_equals_a_plain_map(
        steps in prop::collection::vec(
            (0u32..40, any::<bool>(), prop::sample::select(vec![0x02u8, 0x12, 0x10, 0x11, 0x04]),
             prop_oneof![6 => 0u32..200, 1 => 0u32..40_000]), 1..400)
    ) {
        let timeouts = Timeouts::default();
        let mut table = FlowTable::new(CAPACITY, QUOTA, SEED, 0);
        let mut model: BTreeMap<u32, Model> = BTreeMap::new();
        let mut now = 0;
        for (born, (n, reply, flags, pause)) in steps.into_iter().enumerate() {
            now += pause;
            let shares: BTreeMap<u32, u32> = table.by_workload().collect();
            prop_assert!(shares.values().all(|count| *count > 0));
            for workload in 0..3 {
                let own = (0..40u32).filter(|n| n % 4 == workload && known(&table, *n)).count();
                prop_assert_eq!(shares.get(&(workload + 1)).copied().unwrap_or(0) as usize, own);
            }
            prop_assert!(shares.keys().all(|serial| (1..=3).contains(serial)), "nodes have no share");
            while table.expire(now, &timeouts, 16) > 0 {}
            // The table forgets in time, and not much later.
            model.retain(|n, m| {
                let (idle, timeout) = (now - m.last_seen, m.timeout(*n));
                idle < timeout || known(&table, *n) && idle < timeout + LATE_MS
            });
            let headers = packet(n, reply, flags);
            let found = table.find(headers.key.hash(SEED), &headers.key);
            prop_assert_eq!(found.is_some(), model.contains_key(&n), "{}", n);
            if let Some(id) = found {
                let m = model.get_mut(&n).expect("known");
                let from = if reply { Who::Reply } else { Who::Origin };
                let next = states::next(m.state, headers.protocol(), headers.detail, from, m.closer);
                match table.step(id, &headers, &timeouts, now) {
                    Step::Invalid => prop_assert_eq!(next, "!"),
                    Step::Reopens => {
                        prop_assert_eq!(next, "new");
                        table.remove(id);
                        model.remove(&n);
                    }
                    Step::To(state) | Step::Closes(state) => {
                        prop_assert_eq!(next, state.name());
                        if next == "FIN_WAIT" && m.state != "FIN_WAIT" {
                            m.closer = from;
                        }
                        m.state = next;
                        m.answered |= reply;
                        m.last_seen = now;
                    }
                }
            } else if !reply && matches!(opening(&headers), Opening::Opens(_)) {
                let (victims, said) = expected(&model, n);
                let admission = table.create(&request(n, &headers), &headers, &timeouts, now);
                let (says, made) = match admission {
                    Admission::Created(id) => ("created", Some(id)),
                    Admission::Evicted(id) => ("evicted", Some(id)),
                    Admission::OverQuota => ("over quota", None),
                    Admission::Full => ("full", None),
                };
                prop_assert_eq!(says, said);
                if said == "evicted" {
                    let gone: Vec<u32> = model.keys().copied().filter(|n| !known(&table, *n)).collect();
                    prop_assert!(gone.len() == 1 && victims.contains(&gone[0]), "{:?} of {:?}", gone, victims);
                    model.remove(&gone[0]);
                }
                if let Some(id) = made {
                    table.decide(id, headers.direction, n, 1);
                    let state = if headers.protocol() == TCP { "SYN_SENT" } else { "UNREPLIED" };
                    model.insert(n, Model { born, state, closer: Who::Origin, answered: false, last_seen: now });
                }
            }
            prop_assert_eq!(table.len(), model.len());
            // Read in pages of any size, the table is the whole of it.
            let (mut shown, mut from) = (Vec::new(), Some(0));
            while let Some(at) = from {
                let page = table.page(at, 1 + born % 7, 1 + born % 3, |_| true, &timeouts, now);
                shown.extend(page.flows);
                from = page.next;
            }
            prop_assert_eq!(shown.len(), model.len());
            let mut census = BTreeMap::new();
            for (n, m) in &model {
                *census.entry((if n % 2 == 1 { "tcp" } else { "udp" }, m.state)).or_insert(0) += 1;
            }
            let counted = Census::PLACES.into_iter().zip(table.census().counts());
            let counted = counted.map(|((protocol, state), count)| ((protocol, state.name()), count));
            prop_assert_eq!(counted.filter(|(_, count)| *count > 0).collect::<BTreeMap<_, u32>>(), census);
            for info in shown {
                let n = model.keys().find(|n| packet(**n, false, 0).key == info.key).expect("known");
                let m = &model[n];
                prop_assert_eq!((info.state.name(), info.answered), (m.state, m.answered));
                prop_assert_eq!(info.left_ms, m.timeout(*n).saturating_sub(now - m.last_seen));
                let back = info.origin.flip() as usize;
                prop_assert_eq!(info.bytes[back], u64::from(info.packets[back]) * 100);
            }
        }
        // Nothing is remembered for ever.
        now += 6 * 86_400_000;
        while table.expire(now, &timeouts, 16) > 0 {}
        prop_assert_eq!(table.len(), 0);
    }

    #[test]
    fn the_index_survives_any_order_of_removal(
        order in Just((0..200u32).collect::<Vec<_>>()).prop_shuffle(), bits in 0u32..6
    ) {
        // Few distinct hashes, so that runs are long and wrap around.
        let mut index = Index::new(256);
        let hash = |n: u32| (n % (1 << bits)).wrapping_sub(3);
        for n in 0..200 { index.insert(hash(n), n); }
        for (at, gone) in order.iter().enumerate() {
            index.remove(hash(*gone), *gone);
            for n in &order[at + 1..] { prop_assert_eq!(index.find(hash(*n), |id| id == *n), Some(*n)); }
            prop_assert_eq!(index.find(hash(*gone), |id| id == *gone), None);
        }
    }

    #[test]
    fn a_sweep_in_small_steps_finds_everybody_who_has_gone(
        flows in prop::collection::btree_set(0u32..40, 0..16), gone in prop::collection::btree_set(0u32..40, 0..30),
        budget in 1usize..20
    ) {
        let timeouts = Timeouts::default();
        let quota = Quota { workload: 64, node: 64 };
        let mut table = FlowTable::new(64, quota, SEED, 0);
        for n in &flows {
            let headers = packet(*n, false, 0x02);
            let admission = table.create(&request(*n, &headers), &headers, &timeouts, 0);
            prop_assert!(matches!(admission, Admission::Created(_)));
        }
        let keys: Vec<(u32, FlowKey)> = (0..40).map(|n| (n, packet(n, false, 0).key)).collect();
        let parties = |key: &FlowKey| {
            u32::from(keys.iter().any(|(n, other)| other == key && gone.contains(n)))
        };
        table.begin_sweep();
        let mut cut = 0;
        while !table.is_swept() {
            cut += table.sweep(parties, budget);
        }
        prop_assert_eq!(cut, flows.intersection(&gone).count());
        let left: BTreeSet<u32> = (0..40).filter(|n| known(&table, *n)).collect();
        prop_assert_eq!(left, flows.difference(&gone).copied().collect());
    }
}

/// Opens connection `n` and has it answered.
fn establish(table: &mut FlowTable, n: u32) {
    let timeouts = Timeouts::default();
    let (syn, answer) = (packet(n, false, 0x02), packet(n, true, 0x12));
    let admission = table.create(&request(n, &syn), &syn, &timeouts, 0);
    let (Admission::Created(id) | Admission::Evicted(id)) = admission else { panic!("{admission:?}") };
    assert!(matches!(table.step(id, &answer, &timeouts, 0), Step::To(_)));
}

#[test]
fn a_full_table_evicts_unanswered_flows_and_no_others() {
    let mut table = FlowTable::new(4, Quota { workload: 9, node: 9 }, SEED, 0);
    (0..3).for_each(|n| establish(&mut table, n));
    let lone = packet(3, false, 0x02);
    table.create(&request(3, &lone), &lone, &Timeouts::default(), 0);
    let new = packet(4, false, 0x02);
    let admission = table.create(&request(4, &new), &new, &Timeouts::default(), 0);
    assert!(matches!(admission, Admission::Evicted(_)));
    assert_eq!((0..5).map(|n| known(&table, n)).collect::<Vec<_>>(), [true, true, true, false, true]);
    let Some(id) = table.find(new.key.hash(SEED), &new.key) else { panic!("just made") };
    table.step(id, &packet(4, true, 0x12), &Timeouts::default(), 0);
    let newer = packet(5, false, 0x02);
    assert_eq!(table.create(&request(5, &newer), &newer, &Timeouts::default(), 0), Admission::Full);
    assert_eq!(table.len(), 4);
}

#[test]
fn an_owner_out_of_quota_keeps_what_is_answered_and_gets_no_more() {
    let mut table = FlowTable::new(64, QUOTA, SEED, 0);
    // Six answered flows of owner 1, and one of another.
    (0..6).for_each(|i| establish(&mut table, 4 * i));
    establish(&mut table, 1);
    let more = packet(4 * 6, false, 0);
    assert_eq!(table.create(&request(4 * 6, &more), &more, &Timeouts::default(), 0), Admission::OverQuota);
    establish(&mut table, 2);
    assert_eq!(table.len(), 8);
    // When one of them is over, its place can be used again.
    let mut table = FlowTable::new(64, QUOTA, SEED, 0);
    (0..6).for_each(|i| establish(&mut table, 4 * i + 1));
    let id = table.find(packet(5, false, 0).key.hash(SEED), &packet(5, false, 0).key).expect("known");
    table.step(id, &packet(5, true, 0x04), &Timeouts::default(), 0);
    establish(&mut table, 4 * 6 + 1);
    assert_eq!((table.len(), known(&table, 5), known(&table, 25)), (6, false, true));
}

#[test]
fn this_host_has_no_quota() {
    let mut table = FlowTable::new(64, QUOTA, SEED, 0);
    for n in 0..60 {
        let headers = packet(n, false, 0x02);
        let request = Request { owner: Owner::HOST, ..request(n, &headers) };
        let admission = table.create(&request, &headers, &Timeouts::default(), 0);
        assert!(matches!(admission, Admission::Created(_)), "{n}");
    }
}

#[test]
fn a_reset_connection_is_forgotten_within_seconds() {
    let timeouts = Timeouts::default();
    let mut table = FlowTable::new(4, QUOTA, SEED, 0);
    establish(&mut table, 1);
    let id = table.find(packet(1, false, 0).key.hash(SEED), &packet(1, false, 0).key).expect("known");
    table.step(id, &packet(1, false, 0x10), &timeouts, 0);
    assert_eq!(table.expire(100_000, &timeouts, 100), 0);
    table.step(id, &packet(1, false, 0x04), &timeouts, 100_000);
    assert_eq!(table.expire(100_000 + 13_000, &timeouts, 100), 1);
}

#[test]
fn the_fast_path_is_for_plain_packets_of_settled_connections_of_these_tables() {
    let timeouts = Timeouts::default();
    let only = |generation| Era { generation, since: generation };
    let mut table = FlowTable::new(4, QUOTA, SEED, 0);
    let (syn, answer, ack, fin) =
        (packet(1, false, 0x02), packet(1, true, 0x12), packet(1, false, 0x10), packet(1, true, 0x11));
    let Admission::Created(id) = table.create(&request(1, &syn), &syn, &timeouts, 0) else { panic!() };
    table.decide(id, syn.direction, 7, 1);
    assert_eq!(table.pass(id, &ack, only(1), 0), None, "not answered yet");
    table.step(id, &answer, &timeouts, 0);
    table.decide(id, answer.direction, 8, 1);
    table.step(id, &ack, &timeouts, 0);
    assert_eq!(table.pass(id, &ack, only(1), 0), Some(7));
    assert_eq!(table.pass(id, &packet(1, true, 0x10), only(1), 0), Some(8));
    assert_eq!(table.pass(id, &ack, only(2), 0), None, "another generation");
    assert_eq!(table.pass(id, &fin, only(1), 0), None, "an event");
    table.step(id, &fin, &timeouts, 0);
    assert_eq!(table.pass(id, &ack, only(1), 0), None, "its acknowledgement counts");
    // Another generation has decided about one direction only.
    table.decide(id, ack.direction, 9, 2);
    let actions =
        [ack.direction, ack.direction.flip()].map(|direction| table.action(id, direction).adjacency);
    assert_eq!(actions, [Some(9), None]);
    assert_eq!(table.side(id, ack.direction), super::Side::Origin);
}

#[test]
fn what_was_decided_of_an_answered_connection_holds_as_long_as_the_era_says() {
    // The numbers of generations wrap.
    let decided = u32::MAX - 1;
    let after = |generations: i32| decided.wrapping_add_signed(generations);
    let question = packet(1, false, 0x02);
    let mut entry = Entry::new(question.key, question.direction, State::Established);
    entry.generation = decided;
    for answered in [false, true] {
        if answered {
            entry.count(question.direction.flip(), 1, 0);
        }
        let holds =
            |generation, since| entry.holds(Era { generation: after(generation), since: after(since) });
        assert!(holds(0, 0) && holds(0, -9));
        assert_eq!([holds(1, 0), holds(5, 0), holds(5, -9)], [answered; 3]);
        assert!(!holds(1, 1) && !holds(5, 1) && !holds(5, 5));
    }
}
