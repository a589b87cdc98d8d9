//! Writing the tree down the one way that Felix does: identifiers of address sets are hashes of this.

use super::ast::{Comparison, Node, Values};

/// The canonical text.
pub fn write(node: &Node) -> String {
    let mut out = String::new();
    append(node, &mut out);
    out
}

fn append(node: &Node, out: &mut String) {
    match node {
        Node::All => out.push_str("all()"),
        Node::Global => out.push_str("global()"),
        Node::Has(label) => {
            out.push_str("has(");
            out.push_str(label);
            out.push(')');
        }
        Node::Compare(label, comparison, value) => {
            out.push_str(label);
            out.push_str(match comparison {
                Comparison::Equal => " == ",
                Comparison::NotEqual => " != ",
                Comparison::Contains => " contains ",
                Comparison::StartsWith => " starts with ",
                Comparison::EndsWith => " ends with ",
            });
            quote(value, out);
        }
        Node::In(label, values) => set(label, " in {", values, out),
        Node::NotIn(label, values) => set(label, " not in {", values, out),
        Node::Not(inner) => {
            out.push('!');
            append(inner, out);
        }
        Node::And(parts) => join(parts, " && ", out),
        Node::Or(parts) => join(parts, " || ", out),
    }
}

fn join(parts: &[Node], between: &str, out: &mut String) {
    out.push('(');
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            out.push_str(between);
        }
        append(part, out);
    }
    out.push(')');
}

fn set(label: &str, operator: &str, values: &Values, out: &mut String) {
    out.push_str(label);
    out.push_str(operator);
    for (i, value) in values.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        quote(value, out);
    }
    out.push('}');
}

/// No string holds both kinds of quotes: it stood between some.
fn quote(value: &str, out: &mut String) {
    let mark = if value.contains('"') { '\'' } else { '"' };
    out.push(mark);
    out.push_str(value);
    out.push(mark);
}
