//! Kernel state that canal owns on the host: desired state, read-back, difference.
//!
//! ```text
//!  kernel ──dump──► HostView ──┬── select ──► External   which interface carries the underlay
//!    ▲                         │
//!    └── netlink ◄── [Op] ◄── diff ◄── Desired            what `canal0` must look like
//! ```
//! Everything between the arrows is a value, and the functions on them are pure. Only [`netlink`] and [`watch`] speak
//! to the kernel, over rtnetlink. Nothing here runs a shell, writes a sysctl or names a device other than our own.

pub mod view;

mod decode;

pub mod select;

pub mod desired;

pub mod delta;

pub mod kernel;

mod encode;

pub mod netlink;

pub mod watch;

pub mod reconcile;

#[cfg(any(test, feature = "testing"))]
pub mod fake;

pub use delta::{Change, Op, diff};
pub use desired::{Desired, Route};
pub use kernel::{Error, Kernel, RouteTo};
pub use netlink::{Neighbours, Netlink};
pub use reconcile::{Outcome, keep, reconcile};
pub use select::{External, SelectError, Wanted, select};
pub use view::{Address, HostRoute, HostView, Link, Scope};
pub use watch::HostWatch;
