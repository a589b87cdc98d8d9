//! What policy was asked, and how it came to its answer: the slow walk over the spec, beside the verdict of the tables.

use canal_dataplane::net::Direction;
use canal_dataplane::packet::{Asked, Connection, Source};
use canal_dataplane::policy::{Explanation, Facts, Step as Question, explain};
use canal_dataplane::spec::Endpoint;
use canal_dataplane::spec::policy::{PolicyDirection, TierEnd};
use canal_dataplane::tables::Kind;
use canal_dataplane::verdict::{DropReason, Verdict};

use super::explain::World;
use super::report::{MAX_STEPS, PolicyStep, PolicyView, StageResult, StageView};
use super::scratch::Step;

/// What the workload says that a packet comes from.
pub fn of_source(world: &World<'_>, before: &Step, step: &Step) -> Option<StageView> {
    let Source::Endpoint(index) = step.source else { return None };
    let asked = before.verdict == Verdict::Pending && before.connection == Connection::New;
    let endpoint = world.spec.endpoints.get(index as usize).filter(|_| asked)?;
    let (way, direction) = way(before, step)?;
    Some(view(world, endpoint, step, direction, way == Asked::AS_IS))
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
    let Kind::Endpoint { endpoint, .. } = &world.tables.adjacencies.get(adjacency as usize)?.kind else {
        return None;
    };
    let endpoint = world.spec.endpoints.get(*endpoint as usize)?;
    let (way, direction) = way(before, step)?;
    let opener = way == Asked::ANSWER;
    let own = world.spec.host_addresses.contains(&step.headers.source_address());
    if !opener && step.source == Source::Host && own {
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
