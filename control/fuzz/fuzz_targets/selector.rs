//! Selectors: what is read is written so that it selects the same, and never more than its restrictions allow.
#![no_main]

use canal_control::model::calico::selector::{Restriction, Selector};
use libfuzzer_sys::fuzz_target;

const LABELS: [&[(&str, &str)]; 4] =
    [&[], &[("a", "")], &[("a", "b"), ("b", "a")], &[("in", "x"), ("a", "xbx")]];

fuzz_target!(|text: &str| {
    let Ok(selector) = Selector::parse(text) else { return };
    let again = Selector::parse(selector.canonical()).expect("the canonical form is a selector");
    let prefixed = selector.prefix_labels("p.");
    for labels in LABELS {
        let lookup = |name: &str| labels.iter().find(|(label, _)| *label == name).map(|(_, value)| *value);
        let selected = selector.matches(lookup);
        assert_eq!(again.matches(lookup), selected);
        assert_eq!(
            prefixed.matches(|name: &str| lookup(name.strip_prefix("p.").expect("a prefix"))),
            selected
        );
        let allowed = selector.restrictions().into_iter().all(|(name, restriction)| match restriction {
            Restriction::Present => lookup(name).is_some(),
            Restriction::OneOf(values) => lookup(name).is_some_and(|value| values.contains(value)),
        });
        assert!(allowed || !selected);
    }
});
