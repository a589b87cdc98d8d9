//! What is wrong with a resource, and where.

use std::fmt;

/// Complaints kept of one resource: somebody who fixes a hundred may ask again.
const ERRORS_MAX: usize = 100;

/// One field that cannot stay as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Where, e.g. `spec.ingress[0].source.nets[1]`; empty = the whole value.
    pub path: String,
    /// What is wrong and what would do.
    pub sentence: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.sentence)
        } else {
            write!(f, "{}: {}", self.path, self.sentence)
        }
    }
}

/// Complaints, and the place that is being looked at.
#[derive(Debug, Default)]
pub(super) struct Report {
    path: String,
    errors: Vec<FieldError>,
}

impl Report {
    /// How many complaints there are.
    pub(super) fn len(&self) -> usize {
        self.errors.len()
    }

    pub(super) fn into_errors(self) -> Vec<FieldError> {
        self.errors
    }

    /// Looks at a member for as long as `look` runs.
    pub(super) fn at<T>(&mut self, name: &str, look: impl FnOnce(&mut Self) -> T) -> T {
        let here = self.path.len();
        if here > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        let result = look(self);
        self.path.truncate(here);
        result
    }

    /// Looks at an element of a list.
    pub(super) fn item<T>(&mut self, index: usize, look: impl FnOnce(&mut Self) -> T) -> T {
        let here = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        let result = look(self);
        self.path.truncate(here);
        result
    }

    /// Complains about the place itself.
    pub(super) fn here(&mut self, sentence: impl Into<String>) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(FieldError { path: self.path.clone(), sentence: sentence.into() });
        }
    }

    /// Complains about a member of the place.
    pub(super) fn wrong(&mut self, name: &str, sentence: impl Into<String>) {
        self.at(name, |report| report.here(sentence));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_says_where() {
        let mut report = Report::default();
        report.at("spec", |report| {
            report.at("nets", |report| report.item(1, |report| report.here("must be a CIDR")));
            report.wrong("action", "must be Allow");
        });
        report.here("no");
        let said: Vec<String> = report.into_errors().iter().map(ToString::to_string).collect();
        assert_eq!(said, ["spec.nets[1]: must be a CIDR", "spec.action: must be Allow", "no"]);
    }
}
