//! The kernel over rtnetlink: dumps, single route look-ups, and the executor of operations.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{Stream, StreamExt};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use nix::errno::Errno;
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST,
    NetlinkMessage, NetlinkPayload,
};
use tokio::task::JoinHandle;

use super::decode;
use super::delta::{Change, Op};
use super::encode;
use super::kernel::{Error, Kernel, RouteTo};
use super::select::{External, SelectError, Wanted, select};
use super::view::{HostRoute, HostView};

/// Longest wait for one answer. The kernel answers at once unless it holds the RTNL lock for someone else, which
/// takes seconds on hosts with thousands of devices.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Dumps that a concurrent change may interrupt (`NLM_F_DUMP_INTR`) before we give up for now.
const DUMP_ATTEMPTS: u32 = 4;

/// States of neighbours, by interface and address.
pub type Neighbours = BTreeMap<(u32, IpAddr), &'static str>;

/// A request connection of the network namespace of the thread that opened it. Clones share it.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
    _connection: Arc<Running>,
}

/// The task that moves messages; ends with its last owner.
#[derive(Debug)]
pub(super) struct Running(pub(super) JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Netlink {
    /// Opens the connection; needs a tokio runtime to run on. Changing anything needs CAP_NET_ADMIN, reading nothing.
    pub fn connect() -> Result<Self, Error> {
        // Strict checking makes the kernel apply the filters of dumps (Linux 4.20) instead of ignoring them.
        let (mut connection, handle, _events) =
            rtnetlink::new_connection_with_strict_check().map_err(Error::Socket)?;
        // The end marks tell a complete answer from a broken connection.
        connection.set_forward_done(true);
        connection.set_forward_ack(true);
        let task = tokio::spawn(connection);
        Ok(Self { handle, _connection: Arc::new(Running(task)) })
    }

    /// The kernel's routing decision for `ip`, as `ip route get`. [`Error::NoRoute`] where there is none.
    pub async fn route_get(&self, ip: IpAddr) -> Result<RouteTo, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(ip.is_ipv6());
        message.header.destination_prefix_length = if ip.is_ipv6() { 128 } else { 32 };
        message.attributes.push(RouteAttribute::Destination(ip.into()));
        let mut answer = None;
        let request = "a route look-up";
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        let asked = self
            .ask(request, Message::GetRoute(message), flags, &mut |part| {
                if let Message::NewRoute(route) = part {
                    answer = decode::route_to(&route);
                }
            })
            .await;
        match asked {
            Err(Error::Refused {
                errno: Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL,
                ..
            }) => Err(Error::NoRoute(ip)),
            Err(error) => Err(error),
            Ok(()) => answer.ok_or(Error::NoRoute(ip)),
        }
    }

    /// [`select`] with the kernel's answer for `--iface-can-reach` where that option decides.
    pub async fn select_external(&self, wanted: &Wanted, view: &HostView) -> Result<External, SelectError> {
        let reach = match wanted.must_reach(view) {
            Some(ip) => match self.route_get(ip).await {
                Ok(reach) => Some(reach),
                Err(Error::NoRoute(_)) => None,
                Err(error) => return Err(error.into()),
            },
            None => None,
        };
        select(wanted, view, reach)
    }

    async fn dump_links(&self, view: &mut HostView) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.dump("the list of links", Message::GetLink(message), &mut |part| {
            if let Message::NewLink(link) = part {
                view.links.extend(decode::link(&link));
            }
        })
        .await
    }

    async fn dump_addresses(&self, view: &mut HostView) -> Result<(), Error> {
        let message = Message::GetAddress(AddressMessage::default());
        self.dump("the list of addresses", message, &mut |part| {
            if let Message::NewAddress(address) = part {
                view.addresses.extend(decode::address(&address));
            }
        })
        .await
    }

    /// As [`Kernel::view`], with what is behind these gateway interfaces.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn view_behind(&self, device: &str, gateways: &[String]) -> Result<HostView, Error> {
        let mut view = HostView::default();
        self.dump_links(&mut view).await?;
        self.dump_addresses(&mut view).await?;
        // A full table is not collected where nobody needs it.
        let own = view.link_by_name(device).map(|link| link.index).filter(|_| gateways.is_empty());
        let kept =
            |route: &HostRoute| !gateways.is_empty() || route.dst.prefix() == 0 || Some(route.ifindex) == own;
        self.dump_routes(false, &mut view, kept).await?;
        self.dump_routes(true, &mut view, kept).await?;
        view.retain_routes(device, gateways);
        view.sort();
        Ok(view)
    }

    /// What the kernel knows of neighbours, by interface and address: see [`decode::neighbour`].
    ///
    /// # Errors
    /// The kernel's.
    pub async fn neighbours(&self) -> Result<Neighbours, Error> {
        let mut known = Neighbours::new();
        let message = Message::GetNeighbour(NeighbourMessage::default());
        self.dump("the list of neighbours", message, &mut |part| {
            if let Message::NewNeighbour(neighbour) = part {
                known.extend(decode::neighbour(&neighbour));
            }
        })
        .await?;
        Ok(known)
    }

    async fn dump_routes(
        &self,
        ipv6: bool,
        view: &mut HostView,
        kept: impl Fn(&HostRoute) -> bool + Send + Sync,
    ) -> Result<(), Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(ipv6);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        let dumped = self
            .dump("the main routing table", Message::GetRoute(message), &mut |part| {
                if let Message::NewRoute(route) = part {
                    view.routes.extend(decode::routes(&route).into_iter().filter(&kept));
                }
            })
            .await;
        match dumped {
            // The table comes into being with its first route; without IPv6 there is none at all.
            Err(Error::Refused {
                errno: Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT, ..
            }) => Ok(()),
            other => other,
        }
    }

    /// One dump, again from the start when a change in between made it inconsistent.
    async fn dump(
        &self,
        request: &'static str,
        message: Message,
        each: &mut (dyn FnMut(Message) + Send),
    ) -> Result<(), Error> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut parts = Vec::new();
            let flags = NLM_F_REQUEST | NLM_F_DUMP;
            match self.ask(request, message.clone(), flags, &mut |part| parts.push(part)).await {
                Ok(()) => {
                    parts.into_iter().for_each(each);
                    return Ok(());
                }
                Err(Error::Interrupted { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Interrupted { request, attempts: DUMP_ATTEMPTS })
    }

    /// Sends one request and hands every part of the answer on, up to the end mark.
    async fn ask(
        &self,
        request: &'static str,
        message: Message,
        flags: u16,
        each: &mut (dyn FnMut(Message) + Send),
    ) -> Result<(), Error> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        let answer = self.handle.clone().request(message).map_err(|_| Error::Closed { request })?;
        let limit = ANSWER_LIMIT;
        tokio::time::timeout(limit, collect(request, answer, each))
            .await
            .map_err(|_| Error::Timeout { request, limit })?
    }
}

async fn collect(
    request: &'static str,
    mut answer: impl Stream<Item = NetlinkMessage<Message>> + Unpin,
    each: &mut (dyn FnMut(Message) + Send),
) -> Result<(), Error> {
    let refused = |code: i32| Error::Refused { request, errno: Errno::from_raw(code.abs()) };
    let mut interrupted = false;
    while let Some(part) = answer.next().await {
        interrupted |= part.header.flags & NLM_F_DUMP_INTR != 0;
        match part.payload {
            NetlinkPayload::InnerMessage(inner) => each(inner),
            NetlinkPayload::Error(ErrorMessage { code: Some(code), .. }) => return Err(refused(code.get())),
            NetlinkPayload::Done(done) if done.code < 0 => return Err(refused(done.code)),
            NetlinkPayload::Done(_) | NetlinkPayload::Error(_) if interrupted => {
                return Err(Error::Interrupted { request, attempts: 1 });
            }
            NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return Ok(()),
            _ => {}
        }
    }
    Err(Error::Closed { request })
}

fn family(ipv6: bool) -> AddressFamily {
    if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

#[async_trait]
impl Kernel for Netlink {
    async fn view(&self, device: &str) -> Result<HostView, Error> {
        self.view_behind(device, &[]).await
    }

    async fn apply(&self, op: &Op) -> Result<(), Error> {
        let ifindex = op.ifindex;
        let create = NLM_F_CREATE | NLM_F_EXCL;
        let (request, message, extra) = match &op.change {
            Change::NoAddrGen => ("addrgenmode none", Message::SetLink(encode::no_addr_gen(ifindex)), 0),
            Change::TxQueueLen(len) => {
                let attribute = LinkAttribute::TxQueueLen(*len);
                ("a transmit queue length", Message::SetLink(encode::link(ifindex, attribute)), 0)
            }
            Change::Mtu(mtu) => {
                ("an MTU", Message::SetLink(encode::link(ifindex, LinkAttribute::Mtu(*mtu))), 0)
            }
            Change::NoArp(noarp) => ("arp on or off", Message::SetLink(encode::noarp(ifindex, *noarp)), 0),
            Change::Up(up) => ("up or down", Message::SetLink(encode::up(ifindex, *up)), 0),
            Change::RouteDel(route) => ("the removal of a route", Message::DelRoute(encode::route(route)), 0),
            Change::AddressDel(net) => {
                ("the removal of an address", Message::DelAddress(encode::address(ifindex, *net)), 0)
            }
            Change::AddressAdd(net) => {
                ("an address", Message::NewAddress(encode::new_address(ifindex, *net)), create)
            }
            // Without NLM_F_EXCL the kernel would put ours before, with NLM_F_REPLACE in the place of, a route of
            // another device.
            Change::RouteAdd(route) => {
                ("a route", Message::NewRoute(encode::route(&route.on(ifindex))), create)
            }
        };
        self.ask(request, message, NLM_F_REQUEST | NLM_F_ACK | extra, &mut |_| {}).await
    }
}
