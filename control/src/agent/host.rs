//! What the agent needs of the host.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::host::{Error, External, HostView, HostWatch, Kernel, Netlink, RouteTo, SelectError, Wanted};

/// The host as the agent sees it: [`KernelHost`], or a stand-in in tests.
#[async_trait]
pub trait Host: Send + Sync {
    /// Links and addresses, now and whenever they change.
    fn views(&self) -> watch::Receiver<Arc<HostView>>;

    /// Where our own device is configured.
    fn kernel(&self) -> &dyn Kernel;

    /// Which interface carries the overlay.
    async fn select(&self, wanted: &Wanted, view: &HostView) -> Result<External, SelectError>;

    /// The way to an address.
    async fn route_to(&self, ip: IpAddr) -> Result<RouteTo, Error>;
}

/// The kernel of the network namespace it was started in.
#[derive(Debug)]
pub struct KernelHost {
    netlink: Netlink,
    watch: HostWatch,
}

impl KernelHost {
    /// Connects and reads the host for the first time. `device` is our own, `gateways` those with plain hosts behind them.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn start(device: &str, gateways: &[String]) -> Result<Self, Error> {
        Ok(Self { netlink: Netlink::connect()?, watch: HostWatch::start(device, gateways).await? })
    }
}

#[async_trait]
impl Host for KernelHost {
    fn views(&self) -> watch::Receiver<Arc<HostView>> {
        self.watch.views()
    }

    fn kernel(&self) -> &dyn Kernel {
        &self.netlink
    }

    async fn select(&self, wanted: &Wanted, view: &HostView) -> Result<External, SelectError> {
        self.netlink.select_external(wanted, view).await
    }

    async fn route_to(&self, ip: IpAddr) -> Result<RouteTo, Error> {
        self.netlink.route_get(ip).await
    }
}
