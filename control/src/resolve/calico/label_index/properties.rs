//! The index against asking every pair.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Object(u32, Option<Own>),
    Parent(String, Option<Labels>),
    Acquire(&'static str),
    Release(usize),
}

/// Labels and parents of an object.
type Own = (Labels, Vec<Arc<str>>);

const SELECTORS: &[&str] = &[
    "all()",
    "a == 'x'",
    "a != 'x'",
    "a in {'x', 'y'}",
    "a in {}",
    "a not in {'x'}",
    "has(b)",
    "!has(b)",
    "a == 'x' && b == 'y'",
    "a == 'x' || b == 'y'",
    "a == 'x' && has(c) && b != 'y'",
    "a starts with 'x'",
    "(a == 'x' || a == 'y') && (b == 'x' || has(b))",
    "!(a == 'x') && c == 'z'",
];

fn any_labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map("[abc]", "x|y|z|xy", 0..3).prop_map(|labels| labels.into_iter().collect())
}

fn any_op() -> impl Strategy<Value = Op> {
    let parents = || prop::sample::select(vec!["p", "q", "r"]).prop_map(str::to_owned);
    let any_object = (any_labels(), prop::collection::vec(parents().prop_map(Arc::from), 0..4));
    // Several have the same.
    let usual = prop::sample::select(vec!["p", "q"]);
    let usual = usual.prop_map(|parent| (Labels::from([("a", "x")]), vec![Arc::from(parent)]));
    let object = prop_oneof![any_object, usual];
    prop_oneof![
        4 => (0u32..6, prop::option::weighted(0.8, object)).prop_map(|(id, object)| Op::Object(id, object)),
        2 => (parents(), prop::option::weighted(0.8, any_labels())).prop_map(|(name, labels)| Op::Parent(name, labels)),
        2 => prop::sample::select(SELECTORS).prop_map(Op::Acquire),
        1 => (0usize..8).prop_map(Op::Release),
    ]
}

/// What everybody can see is right.
#[derive(Default)]
struct Twin {
    objects: BTreeMap<u32, Own>,
    parents: BTreeMap<String, Labels>,
}

impl Twin {
    fn value<'a>(&'a self, (labels, parents): &'a Own, label: &str) -> Option<&'a str> {
        let inherited = || parents.iter().find_map(|parent| self.parents.get(&**parent)?.get(label));
        labels.get(label).or_else(inherited)
    }

    fn matching(&self, selector: &Selector) -> BTreeSet<u32> {
        let matches = |object| selector.matches(|label| self.value(object, label));
        self.objects.iter().filter(|(_, object)| matches(object)).map(|(id, _)| *id).collect()
    }
}

proptest! {
    #[test]
    fn the_index_knows_what_asking_everyone_tells(ops in prop::collection::vec(any_op(), 1..60)) {
        let (mut index, mut twin) = (LabelIndex::default(), Twin::default());
        let mut held: Vec<(Selector, SelectorId)> = Vec::new();
        // What a listener makes of the events.
        let mut heard: BTreeMap<SelectorId, BTreeSet<u32>> = BTreeMap::new();
        for op in ops {
            let mut events = Vec::new();
            match op {
                Op::Object(id, Some((labels, parents))) => {
                    index.set_object(id, &Arc::new(labels.clone()), &parents, &mut events);
                    twin.objects.insert(id, (labels, parents));
                }
                Op::Object(id, None) => {
                    index.remove_object(id, &mut events);
                    twin.objects.remove(&id);
                }
                Op::Parent(name, labels) => {
                    index.set_parent(&name, labels.clone().map(Arc::new).as_ref(), &mut events);
                    match labels {
                        Some(labels) => twin.parents.insert(name, labels),
                        None => twin.parents.remove(&name),
                    };
                }
                Op::Acquire(text) => {
                    let selector = Selector::parse(text).unwrap();
                    let id = index.acquire(&selector);
                    heard.insert(id, index.objects(id).collect());
                    held.push((selector, id));
                }
                Op::Release(nth) if nth < held.len() => {
                    let (_, id) = held.remove(nth);
                    index.release(id);
                    if !held.iter().any(|(_, other)| *other == id) {
                        heard.remove(&id);
                    }
                }
                Op::Release(_) => {}
            }
            for Match { selector, object, begins } in events {
                let objects = heard.get_mut(&selector).expect("an event of a selector that is held");
                let news = if begins { objects.insert(object) } else { objects.remove(&object) };
                prop_assert!(news, "an event that tells nothing new");
            }
            for (selector, id) in &held {
                let expected = twin.matching(selector);
                prop_assert_eq!(&index.objects(*id).collect::<BTreeSet<_>>(), &expected, "{}", selector);
                prop_assert_eq!(index.matches_any(*id), !expected.is_empty());
                prop_assert_eq!(&heard[id], &expected, "{}", selector);
            }
            for id in twin.objects.keys() {
                let expected: BTreeSet<_> = held.iter().map(|(_, s)| *s).filter(|s| index.objects(*s).any(|object| object == *id)).collect();
                prop_assert_eq!(index.selections(*id), expected.into_iter().collect::<Vec<_>>());
            }
        }
        // Nothing stays behind.
        let mut events = Vec::new();
        (0..6).for_each(|id| index.remove_object(id, &mut events));
        ["p", "q", "r"].iter().for_each(|name| index.set_parent(name, None, &mut events));
        held.iter().for_each(|(_, id)| index.release(*id));
        prop_assert!(index.is_empty());
    }
}
