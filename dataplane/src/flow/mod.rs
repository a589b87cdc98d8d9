//! What one worker remembers of connections.
//!
//! In reading order: [`State`] with TCP's and SCTP's steps, [`Entry`], [`Owner`]s with their quotas, [`FlowTable`] with
//! its [`Census`], and [`Pieces`], which know the connections of datagrams in pieces.

mod census;
mod entry;
mod index;
mod owners;
mod pieces;
mod sctp;
mod state;
mod table;
mod tcp;
#[cfg(test)]
mod tests;
mod wheel;

pub use census::Census;
pub use entry::{Action, Entry, Era, FlowId};
pub use owners::{Owner, Quota};
pub use pieces::Pieces;
pub use state::{Opening, Side, State, Step, opening};
pub use table::{Admission, FlowInfo, FlowTable, Page, Request};
