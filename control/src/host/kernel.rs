//! What reconciliation asks of a kernel, and how a kernel may fail it.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use nix::errno::Errno;

use super::delta::Op;
use super::view::HostView;

/// Why the kernel did not answer or obey.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket: file descriptors exhausted, or a sandbox forbids AF_NETLINK.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[source] std::io::Error),
    /// The kernel said no. `EPERM` = the process lacks CAP_NET_ADMIN.
    #[error("kernel refused {request}: {errno}")]
    Refused {
        /// What was asked.
        request: &'static str,
        /// The answer.
        errno: Errno,
    },
    /// No answer in time.
    #[error("kernel did not answer {request} within {} s", limit.as_secs())]
    Timeout {
        /// What was asked.
        request: &'static str,
        /// How long we waited.
        limit: Duration,
    },
    /// The table changed during each of several dumps, so that no consistent one could be had.
    #[error("{request} was interrupted by changes {attempts} times in a row")]
    Interrupted {
        /// What was asked.
        request: &'static str,
        /// How often we tried.
        attempts: u32,
    },
    /// The answer ended before its end mark: the connection is gone.
    #[error("netlink connection closed during {request}")]
    Closed {
        /// What was asked.
        request: &'static str,
    },
    /// There is no way to this address.
    #[error("no route to {0}")]
    NoRoute(IpAddr),
}

/// The kernel's routing decision for one address, as `ip route get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTo {
    /// Outgoing device (the loopback device where `local`).
    pub ifindex: u32,
    /// Next hop; `None` = the address is on the link, so that DirectRouting is possible.
    pub gateway: Option<IpAddr>,
    /// Source address the kernel would use.
    pub prefsrc: Option<IpAddr>,
    /// The address is the host's own.
    pub local: bool,
}

/// Read-back and obedience: [`super::Netlink`], or `fake::FakeKernel` in tests.
#[async_trait]
pub trait Kernel: Send + Sync {
    /// The host now; routes: default routes and those through the device called `device`.
    async fn view(&self, device: &str) -> Result<HostView, Error>;

    /// Does one thing. Not atomic with others: the caller reads back.
    async fn apply(&self, op: &Op) -> Result<(), Error>;
}
