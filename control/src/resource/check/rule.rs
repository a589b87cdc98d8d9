//! Rules: protocols and ports, IP versions and prefixes, what goes with services and HTTP.

use serde_json::{Value, json};

use crate::model::calico::selector::Selector;
use crate::resource::error::Report;
use crate::resource::net::Net;
use crate::resource::number;
use crate::resource::schema::{Object, integer_of, list_of, object_of, text_of, texts_of};

/// What selects things without a namespace; only a rule's namespaceSelector may say it.
const GLOBAL: &str = "global(";

/// Complains if a selector says `global()`.
pub(in crate::resource) fn no_global(object: &Object, name: &str, report: &mut Report) {
    if text_of(object, name).contains(GLOBAL) {
        report.wrong(name, "must not use global(): only a rule's namespaceSelector may");
    }
}

/// One side of a rule.
pub(in crate::resource) fn entity(entity: &Object, report: &mut Report) {
    no_global(entity, "selector", report);
    if is_global_combined(text_of(entity, "namespaceSelector")) {
        report.wrong("namespaceSelector", "must not combine global() with anything else");
    }
    if entity.contains_key("services") {
        for name in ["namespaceSelector", "selector", "notSelector", "serviceAccounts", "nets", "notNets"] {
            if entity.contains_key(name) {
                report.wrong(name, "must not be given beside services");
            }
        }
    }
}

fn is_global_combined(selector: &str) -> bool {
    let parsed = Selector::parse(selector);
    parsed.is_ok_and(|selector| {
        let text = selector.canonical();
        ["&& global()", "|| global()", "global() &&", "global() ||"].iter().any(|part| text.contains(part))
    })
}

/// A whole rule.
pub(in crate::resource) fn rule(rule: &Object, report: &mut Report) {
    let protocol = rule.get("protocol");
    if !protocol.is_some_and(number::has_ports) {
        each_list(rule, &["ports", "notPorts"], |side, name, _| {
            report.at(side, |report| {
                report.wrong(name, "must not be given unless protocol is TCP, UDP or SCTP")
            });
        });
    }
    http_rule(rule, protocol, report);
    versions(rule, protocol, report);
    let destination = object_of(rule, "destination");
    for name in ["ports", "notPorts"] {
        let given = destination.is_some_and(|side| side.contains_key("services") && side.contains_key(name));
        if given {
            report.at("destination", |report| {
                report.wrong(name, "must not be given beside services: the service's own ports are matched");
            });
        }
    }
}

fn http_rule(rule: &Object, protocol: Option<&Value>, report: &mut Report) {
    if !rule.contains_key("http") {
        return;
    }
    if text_of(rule, "action") != "Allow" {
        report.wrong("http", "must not be given unless action is Allow");
    }
    if protocol.is_some_and(|protocol| *protocol != json!("TCP")) {
        report.wrong("protocol", "must be TCP or absent beside http");
    }
}

/// ICMP, IP versions and prefixes agree.
fn versions(rule: &Object, protocol: Option<&Value>, report: &mut Report) {
    let is = |protocol: Option<&Value>, name| protocol.is_some_and(|protocol| *protocol == json!(name));
    if rule.contains_key("icmp") && !is(protocol, "ICMP") && !is(protocol, "ICMPv6") {
        report.wrong("icmp", "must not be given unless protocol is ICMP or ICMPv6");
    }
    let version = integer_of(rule, "ipVersion");
    if version.is_some_and(|version| version != 4 && version != 6) {
        report.wrong("ipVersion", "must be 4 or 6");
        return;
    }
    for (name, only) in [("ICMP", 4), ("ICMPv6", 6)] {
        let named = is(protocol, name) || is(rule.get("notProtocol"), name);
        if named && version.is_some_and(|version| version != only) {
            report.wrong("ipVersion", format!("must be {only} or absent with protocol {name}"));
        }
    }
    let mut seen = version;
    each_list(rule, &["nets", "notNets"], |side, name, list| {
        for (n, net) in list.iter().filter_map(Value::as_str).enumerate() {
            let complain = |sentence: String, report: &mut Report| {
                report.at(side, |report| {
                    report.at(name, |report| report.item(n, |report| report.here(sentence)))
                });
            };
            match Net::cidr(net).map(|net| if net.is_v4() { 4 } else { 6 }) {
                None => complain("must be a prefix with its length, e.g. 10.0.0.1/32".to_owned(), report),
                Some(family) if seen.is_some_and(|seen| seen != family) => {
                    complain(format!("must be IPv{}, as the rest of the rule", 10 - family), report);
                }
                Some(family) => seen = Some(family),
            }
        }
    });
}

/// Calls for every list of that name on either side that is there.
fn each_list(
    rule: &Object,
    names: &[&'static str],
    mut call: impl FnMut(&'static str, &'static str, &[Value]),
) {
    for side in ["source", "destination"] {
        for name in names {
            let list = object_of(rule, side).map(|side| list_of(side, name)).unwrap_or_default();
            if !list.is_empty() {
                call(side, name, list);
            }
        }
    }
}

/// HTTP methods and paths.
pub(in crate::resource) fn http(http: &Object, report: &mut Report) {
    let methods: Vec<&str> = texts_of(http, "methods").collect();
    for (n, method) in methods.iter().enumerate() {
        if methods[..n].contains(method) {
            report.at("methods", |report| report.item(n, |report| report.here("is listed twice")));
        }
    }
    for (n, path) in list_of(http, "paths").iter().enumerate() {
        let text = |name: &str| path[name].as_str().unwrap_or_default();
        let sentence = match (text("exact"), text("prefix")) {
            ("", "") => "must have exact or prefix",
            (path, "") | ("", path) if path.starts_with('/') && !path.contains(['?', ' ', '#']) => continue,
            (_, "") | ("", _) => "must start with / and hold no '?', '#' or blank",
            _ => "must not have both exact and prefix",
        };
        report.at("paths", |report| report.item(n, |report| report.here(sentence)));
    }
}
