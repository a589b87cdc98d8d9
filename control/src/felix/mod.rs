//! Felix's settings as this node obeys them.
//!
//! Each setting comes from the first source that has it, in Felix's order: a flag of ours, a `FELIX_…` variable, the
//! FelixConfiguration of this node, the one of all nodes, the default. A value that makes no sense counts as the default.
//!
//! ```text
//!  flags, FELIX_… ──► Local ─┐
//!                            ├─► Config ──► Values (what is obeyed) ──► tables, listeners, log, reports
//!  FelixConfigurations ──────┘       └────► Setting (what was said, by whom, and what came of it) ──► people
//! ```

mod meaningless;
mod parameters;
mod parse;
mod source;
mod values;

use std::collections::BTreeSet;

use parameters::PARAMETERS;

pub use source::{Given, Local, Source};
pub use values::{CalicoVxlan, Severity, Values};

use crate::model::calico::kind::Kind;
use crate::model::calico::v1::config::{FIELDS, Scope};
use crate::state::{Calico, Complaint};

/// What came of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is obeyed.
    Obeyed,
    /// It is obeyed, but not wherever Felix would; where not.
    Partly(&'static str),
    /// It is in the tables, and nothing goes by what it is about; why not.
    Prepared(&'static str),
    /// It makes no sense, and the default is obeyed; what would do.
    Invalid(&'static str),
    /// There is nothing here that it could be about; why not.
    Meaningless(&'static str),
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// As Felix calls it.
    pub name: String,
    /// What was said.
    pub value: String,
    /// By whom.
    pub source: Source,
    /// What came of it.
    pub effect: Effect,
}

/// All settings: those that are obeyed, whether somebody has said anything about them or not, then those that somebody
/// has said and that have no meaning here. Each group by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What was said.
    pub settings: Vec<Setting>,
    /// What that means.
    pub values: Values,
}

impl Config {
    /// As this node has them.
    pub fn of(local: &Local, node: &str, calico: &Calico) -> Self {
        let mut values = Values::default();
        let mut settings = Vec::with_capacity(PARAMETERS.len());
        for parameter in &PARAMETERS {
            let found = source::find(local, node, calico, parameter.name);
            let (source, value) = found.unwrap_or_else(|| (Source::Default, parameter.default.to_owned()));
            let effect = match (parameter.take)(&mut values, &value) {
                Ok(()) => parameter.effect.clone(),
                Err(expected) => Effect::Invalid(expected),
            };
            settings.push(Setting { name: parameter.name.to_owned(), value, source, effect });
        }
        settings.sort_by(|a, b| a.name.cmp(&b.name));
        settings.extend(meaningless(local, node, calico));
        Self { settings, values }
    }

    /// What cannot be obeyed, for people.
    pub fn complaints(&self) -> impl Iterator<Item = Complaint> {
        self.settings.iter().filter_map(|setting| {
            let Effect::Invalid(expected) = setting.effect else { return None };
            let place = match &setting.source {
                Source::Global => format!("{}default", Kind::FelixConfiguration.prefix()),
                Source::Node(node) => format!("{}node.{node}", Kind::FelixConfiguration.prefix()),
                local => local.to_string(),
            };
            let Setting { name, value, .. } = setting;
            Some(Complaint::new(place, format!("{name} is {value:?}, not {expected}; its default counts")))
        })
    }
}

/// What somebody has said about settings that have no meaning here.
fn meaningless(local: &Local, node: &str, calico: &Calico) -> Vec<Setting> {
    let obeyed = |name: &str| PARAMETERS.iter().any(|parameter| parameter.name.eq_ignore_ascii_case(name));
    let scopes = [Scope::Node(node.to_owned()), Scope::Global];
    let stored = scopes.iter().filter_map(|scope| calico.settings().get(scope));
    let stored = stored.flat_map(|settings| settings.iter().map(|(name, _)| name));
    // Variables may be about anything; only Felix's settings are worth a word.
    let by_variable = FIELDS.iter().map(|field| field.v1).filter(|name| local.variable(name).is_some());
    let names: BTreeSet<&str> = stored.chain(by_variable).filter(|name| !obeyed(name)).collect();
    let setting = |name: &str| {
        let (source, value) = source::find(local, node, calico, name)?;
        let effect = Effect::Meaningless(meaningless::why(name));
        Some(Setting { name: name.to_owned(), value, source, effect })
    };
    let mut settings: Vec<Setting> = names.into_iter().filter_map(setting).collect();
    // One of a later version may have been written in two ways.
    settings.dedup_by(|a, b| a.name.eq_ignore_ascii_case(&b.name));
    settings
}

#[cfg(test)]
mod tests;
