//! Metadata: names, labels, annotations.

use super::{INTEGER, Object, Presence, Shape, TEXT, Type, always, field, keep, omit};
use crate::resource::error::Report;
use crate::resource::text::{self, SUBDOMAIN_MAX, is_label_value, is_qualified_name, is_subdomain};

/// All keys and values of annotations together, bytes (Kubernetes: `TotalAnnotationSizeLimitB`).
const ANNOTATIONS_MAX: usize = 256 << 10;

pub(super) static OBJECT_META: Type = Type {
    name: "ObjectMeta",
    fields: &[
        omit("name", TEXT),
        omit("generateName", TEXT),
        omit("namespace", TEXT),
        omit("selfLink", TEXT),
        omit("uid", TEXT),
        omit("resourceVersion", TEXT),
        omit("generation", INTEGER),
        keep("creationTimestamp", TEXT),
        keep("deletionTimestamp", TEXT),
        keep("deletionGracePeriodSeconds", INTEGER),
        omit("labels", Shape::Texts(labels)),
        omit("annotations", Shape::Texts(annotations)),
        omit("ownerReferences", Shape::List(&Shape::Any)),
        omit("finalizers", Shape::List(&TEXT)),
        omit("managedFields", Shape::List(&Shape::Any)),
    ],
    check: name,
};

/// `kind`, `apiVersion` and `metadata`, which every resource has.
pub(super) const KIND: super::Field = field("kind", TEXT, Presence::Omit);
pub(super) const API_VERSION: super::Field = field("apiVersion", TEXT, Presence::Omit);
pub(super) const METADATA: super::Field = always("metadata", Shape::Object(&OBJECT_META));

fn name(meta: &Object, report: &mut Report) {
    let name = super::text_of(meta, "name");
    if name.len() > SUBDOMAIN_MAX {
        report.wrong("name", format!("must have at most {SUBDOMAIN_MAX} characters, not {}", name.len()));
    } else if !is_subdomain(name) {
        report.wrong("name", text::NAME.says);
    }
}

/// Labels as Kubernetes has them.
pub(super) fn labels(labels: &Object, report: &mut Report) {
    for (name, value) in labels {
        if !is_qualified_name(name) {
            report
                .wrong(name, "is no label's name: [prefix/]name, at most 63 letters, digits, '-', '_', '.'");
        }
        if !value.as_str().is_some_and(is_label_value) {
            report.wrong(
                name,
                "must be at most 63 letters, digits, '-', '_', '.', with a letter or digit at both ends",
            );
        }
    }
}

/// Annotations as Kubernetes has them.
pub(super) fn annotations(annotations: &Object, report: &mut Report) {
    let mut size = 0;
    for (name, value) in annotations {
        size += name.len() + value.as_str().map_or(0, str::len);
        if !is_qualified_name(&name.to_lowercase()) {
            report.wrong(
                name,
                "is no annotation's name: [prefix/]name, at most 63 letters, digits, '-', '_', '.'",
            );
        }
    }
    if size > ANNOTATIONS_MAX {
        report.here(format!("must have at most {ANNOTATIONS_MAX} bytes together, not {size}"));
    }
}
