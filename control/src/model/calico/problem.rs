//! Why a value in the datastore is not used, or not as it stands.

use super::kind::Kind;
use super::selector::ParseError;

/// What is wrong, for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Not a key of ours, or with a segment too many or too few.
    #[error("not a key of a resource")]
    Key,
    /// Nobody would call something so.
    #[error("names hold letters, digits, '-', '.' and '_' only, and no '..'")]
    Name,
    /// Not the JSON that such an object is written in.
    #[error("not the JSON of such an object: {0}")]
    Json(#[from] serde_json::Error),
    /// An object under another kind's key.
    #[error("the key is that of a {}, the value says that it is a {said:?}", .key.name())]
    OtherKind {
        /// What the key says.
        key: Kind,
        /// `kind` of the value.
        said: String,
    },
    /// A member that must be there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A member that makes no sense.
    #[error("{part}: {text:?} is no {expected}")]
    Unreadable {
        /// Which.
        part: &'static str,
        /// What stands there.
        text: String,
        /// What should.
        expected: &'static str,
    },
    /// A selector that makes no sense.
    #[error("{part}: {error}")]
    Selector {
        /// Which.
        part: &'static str,
        /// Where and why.
        error: ParseError,
    },
    /// About one rule of several.
    #[error("{direction} rule {}: {problem}", .index + 1)]
    Rule {
        /// `ingress` or `egress`.
        direction: &'static str,
        /// Counted from 0.
        index: usize,
        /// What is wrong with it.
        problem: Box<Problem>,
    },
    /// Only some protocols have ports.
    #[error("ports need the protocol TCP, UDP or SCTP")]
    PortsWithoutProtocol,
    /// More than there can be.
    #[error("{part}: {count} of them, at most {most} are taken")]
    TooMany {
        /// Which.
        part: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// `spec.node` and the name disagree.
    #[error("spec.node is {spec:?}, but the name says {name:?}")]
    NodesDiffer {
        /// As in `spec.node`.
        spec: String,
        /// As in the name's first segment.
        name: String,
    },
    /// The block says that it is another one.
    #[error("the key is that of {key}, the value says {said:?}")]
    OtherBlock {
        /// As in the key.
        key: ipnetwork::IpNetwork,
        /// `cidr` of the value.
        said: String,
    },
    /// An allocation that points nowhere.
    #[error("address {ordinal} of the block refers to attributes that are not there; ignored")]
    LostAttributes {
        /// Counted from the block's first address.
        ordinal: usize,
    },
    /// Settings that are for nobody.
    #[error("settings are called \"default\" or \"node.<name>\"")]
    ConfigName,
}

impl Problem {
    /// A member that makes no sense.
    pub(super) fn unreadable(part: &'static str, text: impl Into<String>, expected: &'static str) -> Self {
        Self::Unreadable { part, text: text.into(), expected }
    }
}

/// Where Felix takes a value that makes no sense for a wider one, and whether we do the same. By default we do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// A namespace or service account selector of a policy that makes no sense is left out, so that the policy
    /// applies to more endpoints. Otherwise the policy is refused.
    pub widen_on_bad_selector: bool,
    /// A source network that makes no sense is left out of the rule, and a rule without action allows. Otherwise the
    /// rule is marked as unreadable, and denies.
    pub widen_on_bad_rule: bool,
}

impl Quirks {
    /// Everything as Felix does it.
    pub const FELIX: Self = Self { widen_on_bad_selector: true, widen_on_bad_rule: true };
}
