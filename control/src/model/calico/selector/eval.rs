//! Asking the tree about an object.

use super::ast::{Comparison, Node};

/// Without the label, comparisons are false; the negative ones (`!=`, `not in`) are true.
pub fn matches<'a>(node: &Node, lookup: &mut impl FnMut(&str) -> Option<&'a str>) -> bool {
    match node {
        Node::All | Node::Global => true,
        Node::Has(label) => lookup(label).is_some(),
        Node::Compare(label, comparison, value) => compare(lookup(label), *comparison, value),
        Node::In(label, values) => lookup(label).is_some_and(|have| values.contains(have)),
        Node::NotIn(label, values) => !lookup(label).is_some_and(|have| values.contains(have)),
        Node::Not(inner) => !matches(inner, lookup),
        Node::And(parts) => parts.iter().all(|part| matches(part, lookup)),
        Node::Or(parts) => parts.iter().any(|part| matches(part, lookup)),
    }
}

fn compare(have: Option<&str>, comparison: Comparison, value: &str) -> bool {
    let Some(have) = have else { return comparison == Comparison::NotEqual };
    match comparison {
        Comparison::Equal => have == value,
        Comparison::NotEqual => have != value,
        Comparison::Contains => have.contains(value),
        Comparison::StartsWith => have.starts_with(value),
        Comparison::EndsWith => have.ends_with(value),
    }
}
