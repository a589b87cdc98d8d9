//! Labels, kept small: a hundred thousand endpoints have them.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Labels of an object: names, sorted, each once, and their values. Their texts may be shared with other objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(Box<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(have, _)| (**have).cmp(name)).ok()?;
        self.0.get(at).map(|(_, value)| &**value)
    }

    /// In order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every name and value, for whoever has an equal text to put in its place; another one would spoil the order.
    pub(crate) fn texts_mut(&mut self) -> impl Iterator<Item = &mut Arc<str>> {
        self.0.iter_mut().flat_map(|(name, value)| [name, value])
    }
}

/// As a map does: of several values of one label the last counts.
impl<N: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(N, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self(pairs.collect::<BTreeMap<_, _>>().into_iter().collect())
    }
}

impl<N: Into<Arc<str>>, V: Into<Arc<str>>, const COUNT: usize> From<[(N, V); COUNT]> for Labels {
    fn from(pairs: [(N, V); COUNT]) -> Self {
        pairs.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_what_a_map_holds(
            pairs in prop::collection::vec(("[a-c]{0,2}", "[a-z]{0,2}"), 0..8), asked in "[a-c]{0,2}"
        ) {
            let map: BTreeMap<String, String> = pairs.iter().cloned().collect();
            let labels: Labels = pairs.into_iter().collect();
            prop_assert_eq!(labels.get(&asked), map.get(&asked).map(String::as_str));
            prop_assert_eq!((labels.len(), labels.is_empty()), (map.len(), map.is_empty()));
            prop_assert!(labels.iter().eq(map.iter().map(|(name, value)| (name.as_str(), value.as_str()))));
            prop_assert_eq!(labels, map.into_iter().collect());
        }
    }
}
