//! The pipeline equals its slow twin, whatever the network, whatever the packets, while specs change under live flows.

use std::cell::RefCell;

use canal_dataplane::testing::entropy::noise;
use canal_dataplane::testing::twin::{Coverage, Twin};
use canal_dataplane::verdict::DropReason;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Drop reasons that no finished packet on one worker with enough frames can have.
const UNREACHABLE: [DropReason; 5] = [
    DropReason::OffloadUnsupported,
    DropReason::NoFrame,
    DropReason::HandoverFull,
    // The scenarios are shorter than the smallest quota.
    DropReason::EndpointQuota,
    DropReason::FlowTableFull,
];

/// Endings that must have been seen beside every other drop reason.
const ENDINGS: [&str; 42] = [
    "to workload v4",
    "to workload v6",
    "to underlay v4",
    "to underlay v6",
    "to direct v4",
    "to direct v6",
    "to gateway v4",
    "to gateway v6",
    "to host v4",
    "to host v6",
    "tunnel v4 carries v4",
    "tunnel v4 carries v6",
    "tunnel v6 carries v4",
    "tunnel v6 carries v6",
    "fragmented",
    "flow hit",
    "answer time exceeded v4",
    "answer time exceeded v6",
    "answer too big v4",
    "answer too big v6",
    "answer ARP ARP",
    "answer neighbour v6",
    "answer to workload",
    "answer to underlay",
    "answer to gateway",
    "answer to host",
    "state UNREPLIED",
    "state ASSURED",
    "state SYN_SENT",
    "state SYN_SENT2",
    "state SYN_RECV",
    "state ESTABLISHED",
    "state FIN_WAIT",
    "state CLOSE_WAIT",
    "state LAST_ACK",
    "state TIME_WAIT",
    "state CLOSE",
    "state COOKIE_WAIT",
    "state COOKIE_ECHOED",
    "state SHUTDOWN_SENT",
    "state SHUTDOWN_ACK_SENT",
    "state HEARTBEAT_SENT",
];

/// Scenarios of a round, and rounds: two at least, and more of them until everything has been seen.
const SCENARIOS: u32 = 500;
const ROUNDS: usize = 20;

#[test]
fn pipeline_equals_reference() {
    let config = Config { cases: SCENARIOS, failure_persistence: None, ..Config::default() };
    let twin = RefCell::new(Twin::new());
    let mut runner = TestRunner::new(config);
    for round in 1..=ROUNDS {
        runner
            .run(&(any::<u64>(), 0usize..4000), |(seed, len)| {
                twin.borrow_mut().play(&noise(seed, len));
                Ok(())
            })
            .unwrap_or_else(|failure| panic!("{failure}"));
        if round >= 2 && never_seen(&twin.borrow().coverage).is_empty() {
            break;
        }
    }
    let coverage = twin.into_inner().coverage;
    for (what, count) in coverage.all() {
        println!("{count:8} {what}");
    }
    assert_eq!(never_seen(&coverage), [""; 0]);
}

fn never_seen(coverage: &Coverage) -> Vec<&'static str> {
    let endings = ENDINGS.into_iter().filter(|ending| coverage.seen(ending) == 0);
    let reachable = DropReason::ALL.iter().filter(|reason| !UNREACHABLE.contains(reason));
    let drops = reachable.map(|reason| reason.label());
    endings.chain(drops.filter(|label| coverage.seen(&format!("drop {label}")) == 0)).collect()
}
