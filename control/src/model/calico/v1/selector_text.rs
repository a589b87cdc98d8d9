//! Joining selectors as texts. Felix replaces `all()` and `global()` in the joined text, whatever they stand in; so do
//! we, because the names of address sets come of it.

use super::super::selector::{ParseError, Selector};
use super::{NAMESPACE_LABEL, NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX};

/// A selector about the labels of a namespace, as one about labels that endpoints inherit.
pub(super) fn of_namespace(text: &str) -> Result<String, ParseError> {
    prefixed(text, NAMESPACE_PREFIX)
}

/// The same about a service account.
pub(super) fn of_service_account(text: &str) -> Result<String, ParseError> {
    prefixed(text, SERVICE_ACCOUNT_PREFIX)
}

fn prefixed(text: &str, prefix: &str) -> Result<String, ParseError> {
    Selector::parse(text).map(|selector| selector.prefix_labels(prefix).canonical().to_owned())
}

/// Endpoints of this namespace.
pub(super) fn in_namespace(namespace: &str) -> String {
    format!("{NAMESPACE_LABEL} == '{namespace}'")
}

/// `(selector) && more`, or what there is.
pub(super) fn and(selector: &str, more: &str) -> String {
    match (selector, more) {
        (selector, "") => selector.to_owned(),
        ("", more) => more.to_owned(),
        (selector, more) => format!("({selector}) && {more}"),
    }
}
