//! What policy was asked, and how it came to its answer: the slow walk over the spec, beside the verdict of the tables.

use canal_dataplane::net::Direction;
use canal_dataplane::packet::{Asked, Connection, Source};
use canal_dataplane::policy::{Explanation, Facts, HostSide, Step as Question, explain, explain_forwarded};
use canal_dataplane::spec::Endpoint;
use canal_dataplane::spec::policy::{PolicyDirection, TierEnd};
use canal_dataplane::tables::Kind;
use canal_dataplane::verdict::{DropReason, Verdict};

use super::explain::World;
use super::report::{MAX_STEPS, PolicyStep, PolicyView, StageResult, StageView};
use super::scratch::Step;

/// What the workload says that a packet comes from.
pub fn of_source(world: &World<'_>, before: &Step, step: &Step) -> Option<StageView> {
    if before.verdict != Verdict::Pending || before.connection != Connection::New {
        return None;
    }
    let (way, direction) = way(before, step)?;
    let opener = way == Asked::AS_IS;
    match step.source {
        Source::Endpoint(index) => {
            let endpoint = world.spec.endpoints.get(index as usize)?;
            Some(view(world, endpoint, step, direction, opener))
        }
        Source::Gateway(index) => {
            let to_host = world.spec.host_addresses.contains(&step.headers.destination_address());
            gateway_view(world, index, step, direction, opener).filter(|_| !to_host)
        }
        _ => None,
    }
}

/// What the workload says that a packet goes to, or the setting for packets to the host.
pub fn of_destination(world: &World<'_>, before: &Step, step: &Step) -> Option<StageView> {
    let Verdict::Decided(adjacency) = before.verdict else { return None };
    if before.connection != Connection::New {
        return None;
    }
    let dropped = match step.verdict {
        Verdict::Drop(reason) => Some(reason),
        _ => None,
    };
    if dropped == Some(DropReason::EndpointToHostDenied) {
        let text = DropReason::EndpointToHostDenied.sentence();
        let view = StageView { stage: "endpoint_to_host".into(), text: text.into(), ..StageView::default() };
        return Some(refused(view, DropReason::EndpointToHostDenied));
    }
    let (way, direction) = way(before, step)?;
    let opener = way == Asked::ANSWER;
    let own =
        step.source == Source::Host && world.spec.host_addresses.contains(&step.headers.source_address());
    let endpoint = match world.tables.adjacencies.get(adjacency as usize)?.kind {
        Kind::Endpoint { endpoint, .. } => world.spec.endpoints.get(endpoint as usize)?,
        Kind::Gateway { gateway, .. } if !own => {
            return gateway_view(world, gateway, step, direction, opener);
        }
        _ => return None,
    };
    if !opener && own {
        let text = "what the host itself opens is not for its workloads' policy to refuse";
        return Some(StageView { stage: "ingress".into(), text: text.into(), ..StageView::default() });
    }
    Some(view(world, endpoint, step, direction, opener))
}

/// The way round that decided, or was asked about last, and how the key is read for it.
fn way(before: &Step, step: &Step) -> Option<(Asked, Direction)> {
    let left = if step.asked.is_empty() { before.asked } else { step.asked };
    left.ways(step.headers.direction).last()
}

fn refused(view: StageView, reason: DropReason) -> StageView {
    let mut view = StageView { result: StageResult::Drop, ..view };
    view.facts.insert("reason".into(), reason.label().into());
    view
}

/// What the host endpoint of a gateway interface says. `opener`: the connection comes in by the interface.
fn gateway_view(
    world: &World<'_>,
    gateway: u32,
    step: &Step,
    way: Direction,
    opener: bool,
) -> Option<StageView> {
    let name = &world.spec.gateways.get(gateway as usize)?.name;
    let host = &world.spec.host_endpoints[world.spec.host_endpoint_of(name)?];
    let (policy, direction, stage) = match opener {
        true => (&host.ingress, PolicyDirection::Ingress, "gateway_ingress"),
        false => (&host.egress, PolicyDirection::Egress, "gateway_egress"),
    };
    let side = HostSide { policy, direction, failsafes: &world.spec.failsafes };
    let facts = Facts::of(&step.headers.key, way);
    let policy = policy_view(explain_forwarded(side, &world.spec.sets, &facts), &host.name, direction);
    let text = match step.verdict {
        Verdict::Drop(reason) => format!("{} By {}.", reason.sentence(), policy.decider),
        _ => format!("host endpoint {} of {name}: {} by {}", host.name, policy.outcome, policy.decider),
    };
    let view = StageView { stage: stage.into(), text, policy: Some(policy), ..StageView::default() };
    Some(match step.verdict {
        Verdict::Drop(reason) => refused(view, reason),
        _ => view,
    })
}

fn view(world: &World<'_>, endpoint: &Endpoint, step: &Step, way: Direction, opener: bool) -> StageView {
    let (list, direction) = match opener {
        true => (&endpoint.policy.egress, PolicyDirection::Egress),
        false => (&endpoint.policy.ingress, PolicyDirection::Ingress),
    };
    let facts = Facts::of(&step.headers.key, way);
    let policy = policy_view(explain(list, &world.spec.sets, &facts), &endpoint.name, direction);
    let text = match step.verdict {
        Verdict::Drop(reason) => format!("{} By {}.", reason.sentence(), policy.decider),
        _ => format!("workload {}: {} by {}", endpoint.name, policy.outcome, policy.decider),
    };
    let view = StageView { stage: direction.to_string(), text, ..StageView::default() };
    let view = match step.verdict {
        Verdict::Drop(reason) => refused(view, reason),
        _ => view,
    };
    StageView { policy: Some(policy), ..view }
}

fn policy_view(explanation: Explanation, endpoint: &str, direction: PolicyDirection) -> PolicyView {
    let Explanation { judgement, steps } = explanation;
    PolicyView {
        direction: direction.to_string(),
        endpoint: endpoint.to_owned(),
        outcome: judgement.outcome.to_string(),
        decider: judgement.decider.to_string(),
        omitted: steps.len().saturating_sub(MAX_STEPS),
        steps: steps.into_iter().take(MAX_STEPS).map(policy_step).collect(),
    }
}

fn policy_step(question: Question) -> PolicyStep {
    match question {
        Question::Rule { rule, mismatch } => PolicyStep {
            tier: rule.tier.map(|tier| tier.to_string()),
            kind: Some(rule.origin.kind.to_string()),
            name: Some(rule.origin.name.to_string()),
            rule: Some(rule.index),
            action: rule.action.to_string(),
            matched: mismatch.is_none(),
            mismatch: mismatch.map(|why| why.to_string()),
        },
        Question::TierEnd { tier, end } => PolicyStep {
            tier: Some(tier.to_string()),
            action: if end == TierEnd::Deny { "Deny" } else { "Pass" }.to_owned(),
            matched: true,
            ..PolicyStep::default()
        },
    }
}
