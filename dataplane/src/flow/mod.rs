//! What one worker remembers of connections.

mod entry;
mod index;
mod table;
mod wheel;

pub use entry::{Action, Entry, FlowId, State};
pub use table::{Admission, FlowInfo, FlowTable};
