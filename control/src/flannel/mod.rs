//! Membership in a flannel network: lease life cycle and `subnet.env`.
//!
//! [`join()`] reads the network config and takes a lease; [`Membership`] keeps it; [`LeaseTable`]
//! follows the other nodes'. What to do is decided by pure functions over a listing, so that the
//! few that talk to a datastore only carry decisions out.

pub mod acquire;
pub mod announcement;
pub mod candidates;
#[cfg(test)]
mod fake;
mod file;
pub mod identity;
pub mod join;
pub mod listing;
pub mod membership;
pub mod options;
pub mod own;
pub mod renewal;
pub mod subnet_env;
pub mod watch;

pub use acquire::{AcquireError, Acquired, Origin, acquire};
pub use announcement::Announcement;
pub use identity::Identity;
pub use join::{JoinError, join, read_config};
pub use listing::{Lease, Listing, Unreadable};
pub use membership::Membership;
pub use options::MembershipOptions;
pub use own::{LeaseError, Observed, OwnLease, Rewritten};
pub use renewal::{RenewMargin, Renewal};
pub use subnet_env::SubnetEnv;
pub use watch::{LeaseEvent, LeaseTable};
