//! Properties over all trees the parser can make, against a slow and obvious evaluator.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::ast::{Comparison, Node, Values};
use super::{Restriction, Selector, canonical, parser};

type Labels = BTreeMap<String, String>;

/// The truth table read out of the documentation, on owned strings, without any shortcut.
fn naive(node: &Node, labels: &Labels) -> bool {
    let value = |label: &str| labels.get(label).map(|value| value.as_bytes().to_vec());
    match node {
        Node::All | Node::Global => true,
        Node::Has(label) => value(label).is_some(),
        Node::Compare(label, comparison, wanted) => {
            let wanted = wanted.as_bytes();
            match (comparison, value(label)) {
                (Comparison::Equal, have) => have == Some(wanted.to_vec()),
                (Comparison::NotEqual, have) => have != Some(wanted.to_vec()),
                (_, None) => false,
                (Comparison::Contains, Some(have)) => {
                    (0..=have.len()).any(|at| have[at..].iter().take(wanted.len()).eq(wanted))
                }
                (Comparison::StartsWith, Some(have)) => have.iter().take(wanted.len()).eq(wanted),
                (Comparison::EndsWith, Some(have)) => {
                    have.iter().rev().take(wanted.len()).eq(wanted.iter().rev())
                }
            }
        }
        Node::In(label, values) => labels.get(&**label).is_some_and(|have| values.iter().any(|v| v == have)),
        Node::NotIn(label, values) => {
            !labels.get(&**label).is_some_and(|have| values.iter().any(|v| v == have))
        }
        Node::Not(inner) => !naive(inner, labels),
        Node::And(parts) => parts.iter().fold(true, |all, part| all & naive(part, labels)),
        Node::Or(parts) => parts.iter().fold(false, |any, part| any | naive(part, labels)),
    }
}

fn label() -> impl Strategy<Value = Box<str>> {
    // Words that are operators elsewhere, and odd beginnings. Often the same one, or alternatives would hardly ever be
    // about one label.
    let names = ["b", "in", "not", "has", "all", "contains", "-x", ".9/y", "starts", "with"];
    prop_oneof![2 => Just("a"), 1 => prop::sample::select(names.to_vec())].prop_map(Box::from)
}

fn value() -> impl Strategy<Value = Box<str>> {
    let values = ["", "x", "xy", "yx", "y", "it's", "\"", "é", " x\n", "all()", "&&"];
    prop::sample::select(values.to_vec()).prop_map(Box::from)
}

fn comparison() -> impl Strategy<Value = Comparison> {
    prop::sample::select(vec![
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Contains,
        Comparison::StartsWith,
        Comparison::EndsWith,
    ])
}

fn values() -> impl Strategy<Value = Values> {
    prop::collection::vec(value(), 0..4).prop_map(Values::new)
}

fn tree() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        Just(Node::All),
        Just(Node::Global),
        label().prop_map(Node::Has),
        (label(), comparison(), value()).prop_map(|(l, c, v)| Node::Compare(l, c, v)),
        (label(), values()).prop_map(|(l, v)| Node::In(l, v)),
        (label(), values()).prop_map(|(l, v)| Node::NotIn(l, v)),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let parts = prop::collection::vec(inner.clone(), 2..4).prop_map(Vec::into_boxed_slice).boxed();
        prop_oneof![
            // `!(!x)` is a tree of its own, but is written `!!x`, which reads as `x`: Felix's identifiers have it so.
            inner
                .prop_filter("double negation", |node| !matches!(node, Node::Not(_)))
                .prop_map(|n| Node::Not(Box::new(n))),
            parts.clone().prop_map(Node::And),
            parts.prop_map(Node::Or),
        ]
    })
}

fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map(label().prop_map(String::from), value().prop_map(String::from), 0..6)
}

/// The same selector with other blanks and quotes.
fn untidy(canonical: &str) -> String {
    let mut out = String::from("\t (");
    let mut open = None;
    for c in canonical.chars() {
        match (open, c) {
            (None, '"' | '\'') => open = Some(c),
            (Some(mark), c) if mark == c => open = None,
            _ => {}
        }
        match (open, c) {
            (None, ' ' | ')' | '}' | ',') => out.extend([' ', c]),
            _ => out.push(c),
        }
    }
    out + " ) "
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_written_reads_back(node in tree()) {
        let text = canonical::write(&node);
        prop_assert_eq!(parser::parse(&text), Ok(node.clone()), "{}", text);
        prop_assert_eq!(parser::parse(&untidy(&text)), Ok(node), "{}", untidy(&text));
    }

    #[test]
    fn matching_agrees_with_the_obvious_evaluator(node in tree(), labels in labels()) {
        let selector = Selector::of(node.clone());
        let expected = naive(&node, &labels);
        prop_assert_eq!(selector.matches(|l| labels.get(l).map(String::as_str)), expected, "{}", selector);
    }

    #[test]
    fn restrictions_never_exclude_what_matches(node in tree(), labels in labels()) {
        let selector = Selector::of(node.clone());
        let allowed = selector.restrictions().into_iter().all(|(label, restriction)| {
            labels.get(label).is_some_and(|have| match restriction {
                Restriction::Present => true,
                Restriction::OneOf(values) => values.contains(have.as_str()),
            })
        });
        prop_assert!(allowed || !naive(&node, &labels), "{}", selector);
    }

    #[test]
    fn prefixed_labels_are_asked_for_under_their_prefix(node in tree(), labels in labels()) {
        let prefixed = Selector::of(node.clone()).prefix_labels("p.");
        let lookup = |l: &str| labels.get(l.strip_prefix("p.").unwrap()).map(String::as_str);
        prop_assert_eq!(prefixed.matches(lookup), naive(&node, &labels));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[ab!=&|(){}'\", \\t\\n]{0,24}|\\PC{0,16}") {
        if let Ok(selector) = Selector::parse(&text) {
            let again = Selector::parse(selector.canonical()).unwrap();
            for labels in [Labels::new(), Labels::from([("a".into(), "b".into())])] {
                let ask = |s: &Selector| s.matches(|l| labels.get(l).map(String::as_str));
                prop_assert_eq!(ask(&selector), ask(&again));
            }
        }
    }
}
