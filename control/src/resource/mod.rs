//! Calico's v3 resources as somebody writes them: read, validated, stored and found again exactly as calicoctl does it,
//! so that either tool reads the other's.
//!
//! In reading order: `kind` is what there is; `schema` is what each kind looks like, held against a value by one walk;
//! `check` is what fields have to do with each other; `read` takes files apart; `document` is one resource, checked;
//! `prepare` makes what is stored of what was written, and `store` puts it there; `encode` writes JSON as Go writes it.

mod check;
mod document;
mod duration;
mod encode;
mod error;
mod kind;
mod name;
mod net;
mod number;
mod prepare;
mod read;
mod schema;
mod stamp;
mod store;
mod text;

#[cfg(test)]
mod properties;

pub use document::{DEFAULT_NAMESPACE, Resource, validate};
pub use error::FieldError;
pub use kind::Kind;
pub use prepare::{Prepared, prepare};
pub use read::{Place, ReadError, TEXT_MAX, read};
pub use schema::validate_type;
pub use stamp::Stamp;
pub use store::{Done, Found, Mode, ResourceStore, StoreError, Unreadable};
