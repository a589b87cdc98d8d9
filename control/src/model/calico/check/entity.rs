//! One side of a rule.

use ipnetwork::IpNetwork;

use super::super::number;
use super::super::resources::{Entity, Port};
use super::super::selector::Selector;
use super::super::v1;
use super::{Problem, Quirks};

/// Which side, for problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

impl Side {
    const fn part(self, source: &'static str, destination: &'static str) -> &'static str {
        match self {
            Self::Source => source,
            Self::Destination => destination,
        }
    }
}

/// Types everything; parts that cannot be read and make the rule unreadable go to `unreadable`.
pub(super) fn entity(
    entity: v1::Entity,
    side: Side,
    quirks: Quirks,
    unreadable: &mut Vec<Problem>,
) -> Result<Entity, Problem> {
    check_original(&entity, side, quirks)?;
    let nets_part = side.part("source.nets", "destination.nets");
    let ports_part = side.part("source.ports", "destination.ports");
    // Felix leaves a source's bad networks out, so that a list of nothing else is no criterion; a destination's it
    // keeps as nothing, which no part of it expects.
    let skip = quirks.widen_on_bad_rule && side == Side::Source;
    let mut nets = |list: Vec<v1::Net>| networks(list, nets_part, skip, unreadable);
    let (positive, negative) = (nets(entity.nets), nets(entity.not_nets));
    let mut ports = |list: Vec<number::Port>| ports(list, ports_part, quirks, unreadable);
    let selector = |text: &str| match text {
        "" => Ok(None),
        text => Selector::parse(text)
            .map(Some)
            .map_err(|error| Problem::Selector { part: side.part("source", "destination"), error }),
    };
    Ok(Entity {
        nets: positive,
        not_nets: negative.unwrap_or_default(),
        selector: selector(&entity.selector)?,
        not_selector: selector(&entity.not_selector)?,
        ports: ports(entity.ports)?,
        not_ports: ports(entity.not_ports)?.unwrap_or_default(),
        service: entity.service.map(|service| format!("{}/{}", service.namespace, service.name)),
    })
}

/// Felix parses each selector by itself, too, and refuses the policy for one that makes no sense.
fn check_original(entity: &v1::Entity, side: Side, quirks: Quirks) -> Result<(), Problem> {
    let original = &entity.original;
    let parts = [
        (side.part("source.selector", "destination.selector"), &original.selector),
        (
            side.part("source.namespaceSelector", "destination.namespaceSelector"),
            &original.namespace_selector,
        ),
        (
            side.part("source.serviceAccounts.selector", "destination.serviceAccounts.selector"),
            &original.service_accounts.selector,
        ),
    ];
    for (part, text) in parts {
        Selector::parse(text).map_err(|error| Problem::Selector { part, error })?;
    }
    if entity.odd_accounts && !quirks.widen_on_bad_selector {
        let part = side.part("source.serviceAccounts.names", "destination.serviceAccounts.names");
        let names = original.service_accounts.names.join(", ");
        return Err(Problem::unreadable(part, names, "list of names"));
    }
    Ok(())
}

/// `None` = no criterion.
fn networks(
    list: Vec<v1::Net>,
    part: &'static str,
    skip: bool,
    unreadable: &mut Vec<Problem>,
) -> Option<Vec<IpNetwork>> {
    let listed = !list.is_empty();
    let readable: Vec<IpNetwork> = list
        .into_iter()
        .filter_map(|net| match net {
            Ok(net) => Some(net),
            Err(text) => {
                if !skip {
                    unreadable.push(Problem::unreadable(part, text, "network or address"));
                }
                None
            }
        })
        .collect();
    (listed && !(skip && readable.is_empty())).then_some(readable)
}

/// `None` = no criterion. Port 0 does not exist; Felix refuses the policy for it.
fn ports(
    list: Vec<number::Port>,
    part: &'static str,
    quirks: Quirks,
    unreadable: &mut Vec<Problem>,
) -> Result<Option<Vec<Port>>, Problem> {
    if list.is_empty() {
        return Ok(None);
    }
    let mut typed = Vec::with_capacity(list.len());
    for port in list {
        match port {
            number::Port::Range(0, _) => return Err(Problem::unreadable(part, port.to_string(), "port")),
            number::Port::Range(low, high) => typed.push(Port::Range(low, high)),
            number::Port::Name(name) => typed.push(Port::Named(name.into())),
            number::Port::Unreadable(text) => {
                let problem = Problem::unreadable(part, text, "port");
                if quirks.widen_on_bad_rule {
                    return Err(problem);
                }
                unreadable.push(problem);
            }
        }
    }
    Ok(Some(typed))
}
