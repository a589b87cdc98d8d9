//! What people are told: policy's answers and records, connections by state, the worker's pulse.

use std::sync::Arc;

use canal_dataplane::flow::Census;
use canal_dataplane::policy::{Decider, Event};
use canal_dataplane::spec::policy::{
    Action, Origin, OriginKind, PolicyDirection, PolicyList, Rule, RuleSet, Tier, TierEnd,
};

use super::*;

const UDP: u8 = 17;

/// Pod 2 notes everything, allows UDP and nothing else.
fn guarded() -> World {
    let mut spec = world::spec(3);
    let direction = PolicyDirection::Ingress;
    let origin = Origin { kind: OriginKind::NetworkPolicy, name: "default/guard".into(), direction };
    let allow = Rule { protocol: Some(UDP), ..Rule::any(Action::Allow) };
    let guard = Arc::new(RuleSet { origin, rules: vec![Rule::any(Action::Log), allow] });
    let tier = Tier { name: "default".into(), end: TierEnd::Deny, policies: vec![guard] };
    spec.endpoints[1].policy.ingress = Arc::new(PolicyList { tiers: vec![tier], profiles: Vec::new() });
    World::new(&spec, Caps::NONE)
}

fn counted(world: &World) -> Vec<(&'static str, &'static str, u64)> {
    let places = Census::PLACES.into_iter().zip(world.counters.census());
    places.filter(|(_, count)| *count > 0).map(|((name, state), count)| (name, state.name(), count)).collect()
}

#[test]
fn answers_are_counted_and_what_matters_is_told_with_its_rule() {
    let mut world = guarded();
    let (pod1, pod2) = ((pod(1, 1, false), 1000), (pod(1, 2, false), 80));
    world.now_ms += 5;
    assert!(world.one(POD1, from_pod(1, &packets::tcp(pod1, pod2, SYN, 0))).is_none());
    assert!(world.one(POD1, from_pod(1, &packets::udp(pod1, pod2, 8))).is_some());
    assert_eq!(world.counters.beat_ms.get(), world.now_ms);
    let answers = |direction| [true, false].map(|allowed| world.counters.verdicts(direction, allowed));
    assert_eq!(answers(PolicyDirection::Egress), [2, 0], "pod 1 may open both");
    assert_eq!(answers(PolicyDirection::Ingress), [1, 1], "pod 2 takes one of them");

    let (now_ms, generation) = (world.now_ms, world.tables.generation);
    let (records, missed) = world.worker.judge().log.drain();
    let told: Vec<_> = records
        .map(|record| {
            assert_eq!((record.at_ms, record.generation), (now_ms, generation));
            assert_eq!(record.direction, PolicyDirection::Ingress);
            assert_eq!((record.facts.source, record.facts.destination), (pod1.0, pod2.0));
            let rule = match &record.by {
                Decider::Rule(rule) => Some((rule.index, rule.action)),
                Decider::TierEnd(tier) => {
                    assert_eq!(&**tier, "default");
                    None
                }
                Decider::End | Decider::Failsafe => panic!("{record:?}"),
            };
            (record.event, record.facts.protocol, rule)
        })
        .collect();
    let noted = Some((0, Action::Log));
    assert_eq!(told, [(Event::Logged, 6, noted), (Event::Denied, 6, None), (Event::Logged, UDP, noted)]);
    assert_eq!(missed, 0);

    // Packets that nobody has sent are not told.
    world.worker.judge().stop_counting();
    assert!(world.one(POD1, from_pod(1, &packets::tcp((pod1.0, 1001), pod2, SYN, 0))).is_none());
    assert!(world.worker.judge().log.is_empty());
}

#[test]
fn connections_are_counted_by_state_while_they_live() {
    let mut world = strict();
    open(&mut world, false);
    let (pod1, pod2) = ((pod(1, 1, false), 1000), (pod(1, 2, false), 53));
    assert!(world.one(POD1, from_pod(1, &packets::udp(pod1, pod2, 8))).is_some());
    assert!(counted(&world).is_empty(), "they are shown now and then only");
    world.worker.show_census();
    assert_eq!(counted(&world), [("tcp", "ESTABLISHED", 1), ("udp", "UNREPLIED", 1)]);
    assert!(world.one(POD2, from_pod(2, &packets::udp(pod2, pod1, 8))).is_some());
    let (ingress, reset) = segment(false, false, RST);
    assert!(world.one(ingress, reset).is_some());
    world.worker.show_census();
    assert_eq!(counted(&world), [("tcp", "CLOSE", 1), ("udp", "ASSURED", 1)]);
    world.wait(10_000_000);
    world.worker.show_census();
    assert!(counted(&world).is_empty());
}
