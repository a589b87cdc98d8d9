//! The same tree about other labels.

use super::ast::Node;

/// Puts `prefix` in front of every label name.
pub fn prefix_labels(node: &Node, prefix: &str) -> Node {
    let renamed = |label: &str| format!("{prefix}{label}").into_boxed_str();
    let all = |parts: &[Node]| parts.iter().map(|part| prefix_labels(part, prefix)).collect();
    match node {
        Node::All => Node::All,
        Node::Global => Node::Global,
        Node::Has(label) => Node::Has(renamed(label)),
        Node::Compare(label, comparison, value) => Node::Compare(renamed(label), *comparison, value.clone()),
        Node::In(label, values) => Node::In(renamed(label), values.clone()),
        Node::NotIn(label, values) => Node::NotIn(renamed(label), values.clone()),
        Node::Not(inner) => Node::Not(Box::new(prefix_labels(inner, prefix))),
        Node::And(parts) => Node::And(all(parts)),
        Node::Or(parts) => Node::Or(all(parts)),
    }
}
