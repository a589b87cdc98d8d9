//! Selectors: Calico's small language about labels, e.g. `app == "web" && !has(debug)`.
//!
//! Reading order: `lexer` makes tokens, `parser` makes the tree (`ast`), `eval` asks it about labels, `canonical`
//! writes it down the one way that identifiers are made of, `rewrite` changes label names, `restrict` says what labels
//! an object must have at the least.

mod ast;
mod canonical;
mod eval;
mod id;
mod lexer;
mod parser;
mod restrict;
mod rewrite;

#[cfg(test)]
mod properties;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ast::Node;
pub use id::{named_port_id, service_id};
pub use parser::{MAX_DEPTH, ParseError, Reason};
pub use restrict::{Restriction, Restrictions};

/// A parsed selector. Cheap to clone; equal when the trees are equal, whatever the blanks and quotes.
#[derive(Clone)]
pub struct Selector(Arc<Inner>);

struct Inner {
    root: Node,
    canonical: Box<str>,
    id: Box<str>,
}

impl Selector {
    /// Reads a selector. Empty and blank texts select everything.
    ///
    /// # Errors
    /// [`ParseError`]: where and why it makes no sense.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parser::parse(text).map(Self::of)
    }

    /// `all()`: everything, with or without labels.
    pub fn all() -> Self {
        Self::of(Node::All)
    }

    fn of(root: Node) -> Self {
        let canonical = canonical::write(&root).into_boxed_str();
        let id = id::unique("s", &canonical).into_boxed_str();
        Self(Arc::new(Inner { root, canonical, id }))
    }

    /// Whether it selects an object; `lookup` gives the value of a label that the object has.
    pub fn matches<'a>(&self, mut lookup: impl FnMut(&str) -> Option<&'a str>) -> bool {
        eval::matches(&self.0.root, &mut lookup)
    }

    /// The one way to write this tree: single blanks, double quotes where they do, sets sorted.
    pub fn canonical(&self) -> &str {
        &self.0.canonical
    }

    /// How many clones there are, itself included.
    pub fn clones(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// The name that Felix gives to the set of addresses selected: `s:` and a hash of the canonical form.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// What labels every selected object has, so that an index of labels finds the few objects worth asking about.
    pub fn restrictions(&self) -> Restrictions<'_> {
        restrict::of(&self.0.root)
    }

    /// The same about labels whose names begin with `prefix`.
    #[must_use]
    pub fn prefix_labels(&self, prefix: &str) -> Self {
        Self::of(rewrite::prefix_labels(&self.0.root, prefix))
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.canonical == other.0.canonical
    }
}

impl Eq for Selector {}

impl Hash for Selector {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.canonical.hash(state);
    }
}

impl Ord for Selector {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.canonical.cmp(&other.0.canonical)
    }
}

impl PartialOrd for Selector {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.canonical())
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({})", self.canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_trees_are_equal_selectors() {
        let a = Selector::parse("a in { 'y','x', 'x' }&&has( b )").unwrap();
        let b = Selector::parse("(a in {\"x\", \"y\"} && has(b))").unwrap();
        assert_eq!((&a, a.id()), (&b, b.id()));
        assert_eq!(a.canonical(), "(a in {\"x\", \"y\"} && has(b))");
        let other = a.clone();
        assert_eq!((a.clones(), b.clones(), &other), (2, 1, &a));
        assert_eq!(Selector::parse(" \t").unwrap(), Selector::all());
        assert_ne!(a, Selector::all());
    }

    #[test]
    fn labels_get_a_prefix_everywhere() {
        let selector = Selector::parse("!(a == 'x' || has(b)) && (c not in {'y'} || all())").unwrap();
        let expected = "(!(p.a == \"x\" || has(p.b)) && (p.c not in {\"y\"} || all()))";
        assert_eq!(selector.prefix_labels("p.").canonical(), expected);
    }
}
