//! Who has said something about a setting.

use std::collections::BTreeMap;
use std::fmt;

use crate::model::calico::v1::config::Scope;
use crate::state::Calico;

/// Before the name of a setting in a variable.
const PREFIX: &str = "FELIX_";

/// Who has said it, the last word first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag of ours, or its variable.
    Flag(&'static str),
    /// A variable of Felix's, by its whole name.
    Variable(String),
    /// The FelixConfiguration of this node, which is called so.
    Node(String),
    /// The FelixConfiguration of all nodes.
    Global,
    /// Nobody.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Variable(name) => f.write_str(name),
            Self::Node(node) => write!(f, "FelixConfiguration node.{node}"),
            Self::Global => f.write_str("FelixConfiguration default"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A flag of ours that says what one of Felix's settings is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// As Felix calls it.
    pub setting: &'static str,
    /// The flag, without dashes.
    pub flag: &'static str,
    /// In Felix's words.
    pub value: String,
}

/// What is said on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// By flags.
    pub flags: Vec<Given>,
    /// By variables: name in upper case without [`PREFIX`]; whole name, value.
    variables: BTreeMap<String, (String, String)>,
}

impl Local {
    /// With those of `variables` that are Felix's. Their names' case does not matter, and an empty one is none.
    pub fn new(flags: Vec<Given>, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let felixs = variables.into_iter().filter_map(|(name, value)| {
            let setting = name.to_uppercase().strip_prefix(PREFIX)?.to_owned();
            (!value.is_empty()).then_some((setting, (name, value)))
        });
        Self { flags, variables: felixs.collect() }
    }

    /// What a variable says about a setting.
    pub fn value(&self, setting: &str) -> Option<&str> {
        self.variable(setting).map(|(_, value)| value.as_str())
    }

    /// A variable's whole name and its value, by the name of the setting.
    pub(super) fn variable(&self, setting: &str) -> Option<&(String, String)> {
        self.variables.get(&setting.to_uppercase())
    }
}

/// The word that counts, if there is any but the default.
pub(super) fn find(local: &Local, node: &str, calico: &Calico, name: &str) -> Option<(Source, String)> {
    if let Some(given) = local.flags.iter().find(|given| given.setting.eq_ignore_ascii_case(name)) {
        return Some((Source::Flag(given.flag), given.value.clone()));
    }
    if let Some((variable, value)) = local.variable(name) {
        return Some((Source::Variable(variable.clone()), value.clone()));
    }
    let of = |scope: Scope| Some(calico.settings().get(&scope)?.get(name)?.to_owned());
    if let Some(value) = of(Scope::Node(node.to_owned())) {
        return Some((Source::Node(node.to_owned()), value));
    }
    Some((Source::Global, of(Scope::Global)?))
}
