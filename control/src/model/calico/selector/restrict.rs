//! What labels an object must have to be selected at all: necessary, not sufficient.

use std::collections::{BTreeMap, BTreeSet};

use super::ast::{Comparison, Node, Values};

/// What a label's value must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restriction<'a> {
    /// Whatever, but the label is there.
    Present,
    /// One of these; none at all if empty.
    OneOf(BTreeSet<&'a str>),
}

/// By label. An object that breaks one of them is not selected; no entry means that any object may be.
pub type Restrictions<'a> = BTreeMap<&'a str, Restriction<'a>>;

/// Of a tree. Negations say nothing: a label that is absent satisfies them.
pub fn of(node: &Node) -> Restrictions<'_> {
    let one = |label, restriction| Restrictions::from([(label, restriction)]);
    match node {
        Node::Has(label) => one(&**label, Restriction::Present),
        Node::Compare(label, Comparison::Equal, value) => one(label, Restriction::OneOf([&**value].into())),
        Node::Compare(_, Comparison::NotEqual, _) => Restrictions::new(),
        Node::Compare(label, ..) => one(label, Restriction::Present),
        Node::In(label, values) => one(label, Restriction::OneOf(Values::iter(values).collect())),
        Node::And(parts) => parts.iter().map(of).reduce(both).unwrap_or_default(),
        Node::Or(parts) => parts.iter().map(of).reduce(either).unwrap_or_default(),
        Node::All | Node::Global | Node::NotIn(..) | Node::Not(_) => Restrictions::new(),
    }
}

fn both<'a>(mut left: Restrictions<'a>, right: Restrictions<'a>) -> Restrictions<'a> {
    for (label, restriction) in right {
        let merged = match (left.remove(label), restriction) {
            (Some(Restriction::OneOf(a)), Restriction::OneOf(b)) => Restriction::OneOf(&a & &b),
            (Some(known @ Restriction::OneOf(_)), Restriction::Present) => known,
            (_, restriction) => restriction,
        };
        left.insert(label, merged);
    }
    left
}

fn either<'a>(left: Restrictions<'a>, mut right: Restrictions<'a>) -> Restrictions<'a> {
    let merged = left.into_iter().filter_map(|(label, a)| {
        let restriction = match (a, right.remove(label)?) {
            (Restriction::OneOf(a), Restriction::OneOf(b)) => Restriction::OneOf(&a | &b),
            _ => Restriction::Present,
        };
        Some((label, restriction))
    });
    merged.collect()
}

#[cfg(test)]
mod tests {
    use super::super::Selector;

    #[test]
    fn conjunctions_tighten_and_alternatives_loosen() {
        let shown = |text: &str| format!("{:?}", Selector::parse(text).unwrap().restrictions());
        assert_eq!(shown("a == 'x' && has(b) && c != 'y'"), r#"{"a": OneOf({"x"}), "b": Present}"#);
        assert_eq!(shown("a in {'x','y'} && a in {'y','z'} && has(a)"), r#"{"a": OneOf({"y"})}"#);
        assert_eq!(shown("a == 'x' && has(b) || a == 'y' && c == 'z'"), r#"{"a": OneOf({"x", "y"})}"#);
        assert_eq!(shown("a == 'x' || a starts with 'y'"), r#"{"a": Present}"#);
        assert_eq!(shown("a in {}"), r#"{"a": OneOf({})}"#);
        assert_eq!(shown("!a == 'x' || all()"), "{}");
    }
}
