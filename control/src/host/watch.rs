//! The host as it changes: one current value, kept by listening to the kernel.
//!
//! Messages are only hints that something changed; the value always comes from a fresh dump. So a lost message
//! (the socket overran), a removal the kernel never announces (IPv4 routes of a device that went down) and a storm of
//! a flapping device all end the same way: one more dump, a few a second at most.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use ipnetwork::IpNetwork;
use netlink_packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::{AsyncSocket, SocketAddr};
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::decode;
use super::kernel::Error;
use super::netlink::{Netlink, Running};
use super::view::{HostRoute, HostView};

/// Wait after the first message: changes come in groups (link, address, routes).
const SETTLE: Duration = Duration::from_millis(20);

/// Least time between two dumps.
const MIN_PERIOD: Duration = Duration::from_millis(200);

/// Wait before the next try when the kernel would not answer.
const RETRY: Duration = Duration::from_secs(1);

/// Receive buffer asked for, bytes; the kernel grants up to `net.core.rmem_max`. A thousand messages.
const RECEIVE_BUFFER: u32 = 1 << 20;

const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// Follows the host until dropped.
#[derive(Debug)]
pub struct HostWatch {
    views: watch::Receiver<Arc<HostView>>,
    _task: Running,
}

impl HostWatch {
    /// Listens, then takes the first view: nothing that happens from now on is missed. `device` is our own, whose
    /// routes belong to the view, as do those through gateway interfaces. The namespace is the calling thread's.
    pub async fn start(device: &str, gateways: &[String]) -> Result<Self, Error> {
        let netlink = Netlink::connect()?;
        let events = Events::subscribe()?;
        let view = netlink.view_behind(device, gateways).await?;
        let (sender, views) = watch::channel(Arc::new(view));
        let (device, gateways) = (device.to_owned(), gateways.to_vec());
        let follower = Follower { device, gateways, netlink, sender };
        let task = tokio::spawn(follower.run(events));
        Ok(Self { views, _task: Running(task) })
    }

    /// The current view and its changes.
    pub fn views(&self) -> watch::Receiver<Arc<HostView>> {
        self.views.clone()
    }
}

struct Follower {
    device: String,
    gateways: Vec<String>,
    netlink: Netlink,
    sender: watch::Sender<Arc<HostView>>,
}

impl Follower {
    async fn run(self, mut events: Events) {
        loop {
            self.follow(&mut events).await;
            tracing::warn!("subscription to kernel changes ended; subscribing again");
            events = resubscribe().await;
        }
    }

    /// Until the subscription ends.
    async fn follow(&self, events: &mut Events) {
        let mut next_dump = Instant::now();
        loop {
            let own = self.own();
            if !events.wait_for_change(&own).await {
                return;
            }
            let due = next_dump.max(Instant::now() + SETTLE);
            events.swallow_until(&own, sleep_until(due)).await;
            // What the messages so far told is in the dump that starts now.
            events.changed = false;
            next_dump = Instant::now() + MIN_PERIOD;
            match events.swallow_until(&own, self.netlink.view_behind(&self.device, &self.gateways)).await {
                Ok(view) => self.publish(view),
                Err(error) => {
                    tracing::warn!(%error, "cannot read the host's links, addresses and routes");
                    next_dump = Instant::now() + RETRY;
                    events.changed = true;
                }
            }
            // A device is new, or a route: messages about its like have been ignored up to now.
            events.changed |= self.own() != own;
        }
    }

    fn own(&self) -> Own {
        let view = self.sender.borrow();
        let names = std::iter::once(&self.device).chain(&self.gateways);
        let devices: Vec<u32> =
            names.filter_map(|name| view.link_by_name(name)).map(|link| link.index).collect();
        let behind =
            view.routes.iter().filter(|route| route.dst.prefix() > 0 && devices.contains(&route.ifindex));
        let destinations =
            if self.gateways.is_empty() { Vec::new() } else { behind.map(|route| route.dst).collect() };
        Own { devices, destinations }
    }

    fn publish(&self, view: HostView) {
        self.sender.send_if_modified(|current| {
            let changed = **current != view;
            if changed {
                *current = Arc::new(view);
            }
            changed
        });
    }
}

/// Whose routes belong to the view.
#[derive(Debug, Default, PartialEq, Eq)]
struct Own {
    /// Our own device and gateway interfaces.
    devices: Vec<u32>,
    /// What routes through them lead to; other routes there, or to parts of it, compete.
    destinations: Vec<IpNetwork>,
}

impl Own {
    fn concerns(&self, route: &HostRoute) -> bool {
        let part = |wide: &IpNetwork| wide.prefix() <= route.dst.prefix() && wide.contains(route.dst.ip());
        route.dst.prefix() == 0 || self.devices.contains(&route.ifindex) || self.destinations.iter().any(part)
    }
}

/// A subscription that has missed what happened before it.
async fn resubscribe() -> Events {
    loop {
        sleep(RETRY).await;
        match Events::subscribe() {
            Ok(mut events) => {
                events.changed = true;
                return events;
            }
            Err(error) => tracing::warn!(%error, "cannot subscribe to kernel changes"),
        }
    }
}

/// Messages of the kernel about changes.
struct Events {
    messages: UnboundedReceiver<(NetlinkMessage<Message>, SocketAddr)>,
    /// Something changed that no dump has shown yet.
    changed: bool,
    /// The connection broke.
    ended: bool,
    /// The connection lives as long as a handle does.
    _handle: Handle,
    _connection: Running,
}

impl Events {
    fn subscribe() -> Result<Self, Error> {
        let (mut connection, handle, messages) =
            rtnetlink::new_multicast_connection(&GROUPS).map_err(Error::Socket)?;
        if let Err(error) = connection.socket_mut().socket_mut().set_rx_buf_sz(RECEIVE_BUFFER) {
            tracing::debug!(%error, "keeping the default netlink receive buffer");
        }
        let task = tokio::spawn(connection);
        Ok(Self { messages, changed: false, ended: false, _handle: handle, _connection: Running(task) })
    }

    /// True when something has changed, false when the subscription is over.
    async fn wait_for_change(&mut self, own: &Own) -> bool {
        while !self.changed && !self.ended {
            self.take(own).await;
        }
        self.changed
    }

    /// Runs `work` and takes messages meanwhile: they would pile up without a bound.
    async fn swallow_until<F: Future>(&mut self, own: &Own, work: F) -> F::Output {
        let mut work = pin!(work);
        loop {
            if self.ended {
                return work.await;
            }
            tokio::select! {
                done = &mut work => return done,
                () = self.take(own) => {}
            }
        }
    }

    async fn take(&mut self, own: &Own) {
        match self.messages.next().await {
            Some((message, _)) => self.changed |= matters(&message.payload, own),
            None => self.ended = true,
        }
    }
}

/// Does the message change what a view holds? Routes of other devices come by the thousand on a router.
fn matters(payload: &NetlinkPayload<Message>, own: &Own) -> bool {
    match payload {
        // The socket's buffer was full; what was lost is unknown.
        NetlinkPayload::Overrun(_) => true,
        NetlinkPayload::InnerMessage(message) => match message {
            Message::NewLink(_) | Message::DelLink(_) => true,
            Message::NewAddress(_) | Message::DelAddress(_) => true,
            Message::NewRoute(route) | Message::DelRoute(route) => {
                decode::routes(route).iter().any(|route| own.concerns(route))
            }
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::link::LinkMessage;
    use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteType};

    use super::*;

    fn route(prefix: u8, oif: u32) -> NetlinkPayload<Message> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        message.header.destination_prefix_length = prefix;
        message.attributes.push(RouteAttribute::Oif(oif));
        NetlinkPayload::InnerMessage(Message::NewRoute(message))
    }

    #[test]
    fn a_lost_message_means_that_anything_may_have_changed() {
        let own = Own::default();
        assert!(matters(&NetlinkPayload::Overrun(Vec::new()), &own));
        assert!(!matters(&NetlinkPayload::Noop, &own));
    }

    #[test]
    fn only_default_routes_and_those_of_our_devices_matter() {
        let own = |destinations: &[&str]| Own {
            devices: vec![7],
            destinations: destinations.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let none = Own::default();
        assert!(matters(&NetlinkPayload::InnerMessage(Message::NewLink(LinkMessage::default())), &none));
        assert!(matters(&route(0, 2), &own(&[])));
        assert!(matters(&route(24, 7), &own(&[])));
        assert!(!matters(&route(24, 2), &own(&[])));
        assert!(!matters(&route(24, 2), &none));
        // Ways elsewhere to what is behind a gateway, or to a part of it.
        assert!(matters(&route(24, 2), &own(&["0.0.0.0/16"])));
        assert!(!matters(&route(16, 2), &own(&["0.0.0.0/24"])));
    }
}
