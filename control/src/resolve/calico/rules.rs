//! From a policy's rules to the dataplane's: selectors and names of ports become sets.

use std::sync::Arc;

use canal_dataplane::spec::policy::{
    Action, Family, Icmp, Origin, Ports, Rule as SpecRule, RuleSet, SetId, Side,
};

use super::set_definition::{SCTP, SetDefinition, TCP, UDP};
use crate::model::calico::resources::{self, Entity, Port, Rule};
use crate::model::calico::selector::Selector;

/// Rules and the sets they name.
#[derive(Debug)]
pub struct Compiled {
    /// For the dataplane.
    pub rules: RuleSet,
    /// Each as often as it is named.
    pub sets: Vec<SetDefinition>,
    /// One of the rules has an HTTP match. It is passed over, as Felix does: what the rest of the rule accepts, passes.
    pub http: bool,
}

/// The rules of one policy or profile for one direction.
pub fn compile(origin: Origin, rules: &[Rule]) -> Compiled {
    let mut sets = Vec::new();
    let compiled = rules.iter().map(|rule| compile_rule(rule, &mut sets)).collect();
    let http = rules.iter().any(|rule| rule.http);
    Compiled { rules: RuleSet { origin, rules: compiled }, sets, http }
}

fn compile_rule(rule: &Rule, sets: &mut Vec<SetDefinition>) -> SpecRule {
    // Endpoints' ports have a protocol; a rule without one means TCP when it names a port.
    let ports_protocol = match rule.protocol {
        Some(protocol @ (UDP | SCTP)) => protocol,
        _ => TCP,
    };
    let mut compiled = SpecRule {
        action: action(rule.action),
        family: rule.ip_version.map(|version| if version == 6 { Family::V6 } else { Family::V4 }),
        protocol: rule.protocol,
        not_protocol: rule.not_protocol,
        icmp: rule.icmp.map(icmp),
        not_icmp: rule.not_icmp.map(icmp),
        source: side(&rule.source, ports_protocol, sets),
        destination: side(&rule.destination, ports_protocol, sets),
    };
    if let Some(service) = &rule.source.service {
        compiled.source.sets.push(define(SetDefinition::service(service, false), sets));
    }
    if let Some(service) = &rule.destination.service {
        compiled.destination.endpoint_sets.push(define(SetDefinition::service(service, true), sets));
    }
    if rule.unreadable && matches!(compiled.action, Action::Allow | Action::Pass) {
        // Nobody knows what it was meant to let pass. It stays in the list: the others keep their numbers.
        compiled.source.nets = Some(Vec::new());
    }
    compiled
}

fn side(entity: &Entity, ports_protocol: u8, sets: &mut Vec<SetDefinition>) -> Side {
    let (selector, not_selector) = combined(entity);
    let mut ports = |listed: &[Port]| {
        let mut ports = Ports::default();
        for port in listed {
            match port {
                Port::Range(first, last) => ports.ranges.push((*first, *last)),
                Port::Named(name) => {
                    let endpoints = selector.clone().unwrap_or_else(Selector::all);
                    let set = SetDefinition::named_port(endpoints, ports_protocol, name);
                    ports.named.push(define(set, sets));
                }
            }
        }
        ports
    };
    let (ports, not_ports) = (entity.ports.as_deref().map(&mut ports), ports(&entity.not_ports));
    // Named ports alone have the selector in them already.
    let covered = ports.as_ref().is_some_and(|ports| ports.ranges.is_empty() && !ports.named.is_empty());
    let mut set = |selector: Option<Selector>| -> Vec<SetId> {
        selector.map(|selector| define(SetDefinition::selected(selector), sets)).into_iter().collect()
    };
    Side {
        nets: entity.nets.clone(),
        not_nets: entity.not_nets.clone(),
        sets: set(selector.filter(|_| !covered)),
        not_sets: set(not_selector),
        ports,
        not_ports,
        endpoint_sets: Vec::new(),
    }
}

/// What must and what must not match. Both together become one selector, as with Felix: of two endpoints with one
/// address it is enough that one matches the former and not the latter.
fn combined(entity: &Entity) -> (Option<Selector>, Option<Selector>) {
    if let (Some(yes), Some(no)) = (&entity.selector, &entity.not_selector)
        // Fails only for a selector that is nested as deep as a selector may be.
        && let Ok(both) = Selector::parse(&format!("({yes}) && (!({no}))"))
    {
        return (Some(both), None);
    }
    (entity.selector.clone(), entity.not_selector.clone())
}

fn define(definition: SetDefinition, sets: &mut Vec<SetDefinition>) -> SetId {
    let id = Arc::clone(&definition.id);
    sets.push(definition);
    id
}

const fn action(action: resources::Action) -> Action {
    match action {
        resources::Action::Allow => Action::Allow,
        resources::Action::Deny => Action::Deny,
        resources::Action::Log => Action::Log,
        resources::Action::Pass => Action::Pass,
    }
}

const fn icmp((kind, code): (u8, Option<u8>)) -> Icmp {
    Icmp { kind, code }
}
