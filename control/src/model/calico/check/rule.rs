//! A rule.

use super::super::number::Protocol;
use super::super::resources::{Action, Rule};
use super::super::v1;
use super::super::v3::Icmp;
use super::entity::{Side, entity};
use super::{Problem, Quirks};

/// The largest ICMP type; 255 is reserved, and Linux cannot match it.
const MAX_ICMP_TYPE: i64 = 254;

/// Types all rules of a direction. What makes a rule unreadable goes to `warnings`, what Felix refuses the whole object
/// for is an error.
pub(super) fn rules(
    rules: Vec<v1::Rule>,
    direction: &'static str,
    quirks: Quirks,
    warnings: &mut Vec<Problem>,
) -> Result<Vec<Rule>, Problem> {
    let numbered = |index, problem| Problem::Rule { direction, index, problem: Box::new(problem) };
    let mut typed = Vec::with_capacity(rules.len());
    for (index, converted) in rules.into_iter().enumerate() {
        let mut unreadable = Vec::new();
        let mut one = rule(converted, quirks, &mut unreadable).map_err(|problem| numbered(index, problem))?;
        one.unreadable = !unreadable.is_empty();
        warnings.extend(unreadable.into_iter().map(|problem| numbered(index, problem)));
        typed.push(one);
    }
    Ok(typed)
}

fn rule(rule: v1::Rule, quirks: Quirks, unreadable: &mut Vec<Problem>) -> Result<Rule, Problem> {
    check_ports(&rule)?;
    let implied = rule.protocol.as_ref().and_then(Protocol::ip_version);
    Ok(Rule {
        action: action(&rule.action, quirks),
        ip_version: ip_version(rule.ip_version)?.or(implied),
        protocol: protocol("protocol", rule.protocol.as_ref())?,
        not_protocol: protocol("notProtocol", rule.not_protocol.as_ref())?,
        icmp: icmp("icmp", rule.icmp)?,
        not_icmp: icmp("notICMP", rule.not_icmp)?,
        source: entity(rule.source, Side::Source, quirks, unreadable)?.into(),
        destination: entity(rule.destination, Side::Destination, quirks, unreadable)?.into(),
        http: rule.http.is_some(),
        unreadable: false,
    })
}

/// Felix's validation lets anything pass, and its rendering then fails. No action at all it takes for `allow`.
fn action(text: &str, quirks: Quirks) -> Action {
    match text {
        "allow" => Action::Allow,
        "log" => Action::Log,
        "next-tier" | "pass" => Action::Pass,
        "" if quirks.widen_on_bad_rule => Action::Allow,
        _ => Action::Deny,
    }
}

fn check_ports(rule: &v1::Rule) -> Result<(), Problem> {
    let none = |entity: &v1::Entity| entity.ports.is_empty() && entity.not_ports.is_empty();
    let has_ports = rule.protocol.as_ref().is_some_and(Protocol::has_ports);
    if has_ports || (none(&rule.source) && none(&rule.destination)) {
        Ok(())
    } else {
        Err(Problem::PortsWithoutProtocol)
    }
}

fn ip_version(version: Option<i64>) -> Result<Option<u8>, Problem> {
    match version {
        None => Ok(None),
        Some(4) => Ok(Some(4)),
        Some(6) => Ok(Some(6)),
        Some(other) => Err(Problem::unreadable("ipVersion", other.to_string(), "version of IP")),
    }
}

fn protocol(part: &'static str, protocol: Option<&Protocol>) -> Result<Option<u8>, Problem> {
    let Some(protocol) = protocol else { return Ok(None) };
    let number = protocol.number().ok_or_else(|| Problem::unreadable(part, protocol.to_string(), "protocol"));
    number.map(Some)
}

/// A code without a type says nothing.
fn icmp(part: &'static str, icmp: Icmp) -> Result<Option<(u8, Option<u8>)>, Problem> {
    let octet = |number: i64, most: i64| {
        let octet = u8::try_from(number).ok().filter(|_| number <= most);
        octet.ok_or_else(|| Problem::unreadable(part, number.to_string(), "ICMP type or code"))
    };
    let code = icmp.code.map(|code| octet(code, 255)).transpose()?;
    let kind = icmp.r#type.map(|kind| octet(kind, MAX_ICMP_TYPE)).transpose()?;
    Ok(kind.map(|kind| (kind, code)))
}
