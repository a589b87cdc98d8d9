//! The tree.

/// An expression about the labels of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// `all()`.
    All,
    /// `global()`: like `all()` until the conversion of a policy gives it another meaning.
    Global,
    /// `has(label)`.
    Has(Box<str>),
    /// A label and one string.
    Compare(Box<str>, Comparison, Box<str>),
    /// `label in {…}`.
    In(Box<str>, Values),
    /// `label not in {…}`.
    NotIn(Box<str>, Values),
    /// `!`.
    Not(Box<Node>),
    /// Two or more, with `&&` between.
    And(Box<[Node]>),
    /// Two or more, with `||` between.
    Or(Box<[Node]>),
}

/// How a label's value is compared with a string, byte by byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `==`.
    Equal,
    /// `!=`: true without the label, too.
    NotEqual,
    /// `contains`.
    Contains,
    /// `starts with`.
    StartsWith,
    /// `ends with`.
    EndsWith,
}

/// The strings of a set, sorted, once each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values(Box<[Box<str>]>);

impl Values {
    /// Sorts and drops doubles.
    pub fn new(mut values: Vec<Box<str>>) -> Self {
        values.sort_unstable();
        values.dedup();
        Self(values.into_boxed_slice())
    }

    /// Whether `value` is one of them.
    pub fn contains(&self, value: &str) -> bool {
        self.0.binary_search_by(|have| (**have).cmp(value)).is_ok()
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|value| &**value)
    }
}
