//! Which interface carries the underlay: flannel's `--iface`, `--iface-regex`, `--iface-can-reach`, `--public-ip`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use regex::Regex;

use super::kernel::RouteTo;
use super::view::{Address, HostView, Link, Scope};

/// What the operator asked for. All empty: the interface of the default route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `--iface`, in order: names or addresses; the first that fits wins.
    pub ifaces: Vec<String>,
    /// `--iface-regex`, in order, tried after `ifaces`: unanchored, on addresses first, then on names.
    pub regexes: Vec<String>,
    /// `--iface-can-reach`, tried last.
    pub can_reach: Option<IpAddr>,
    /// `--public-ip`: what others shall send to, where that is not the interface's address (NAT).
    pub public_v4: Option<Ipv4Addr>,
    /// `--public-ipv6`.
    pub public_v6: Option<Ipv6Addr>,
    /// The network has IPv4 (flannel's `EnableIPv4`): the interface must have an IPv4 address.
    pub ipv4: bool,
    /// The network has IPv6: the interface must have an IPv6 address.
    pub ipv6: bool,
    /// Our own overlay device; never carries itself.
    pub own_device: String,
}

/// The interface chosen. Addresses of a family that the network does not use are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// Interface index.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// MTU, bytes; what flannel derives the pods' MTU from.
    pub mtu: u32,
    /// Local IPv4 address: sockets bind it.
    pub v4: Option<Ipv4Addr>,
    /// Local IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// What the lease says to others: `--public-ip`, else `v4`.
    pub public_v4: Option<Ipv4Addr>,
    /// What the lease says to others: `--public-ipv6`, else `v6`.
    pub public_v6: Option<Ipv6Addr>,
}

/// Why no interface could be chosen, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// Not a regular expression.
    #[error("--iface-regex {pattern:?}: {source}")]
    Regex {
        /// As given.
        pattern: String,
        /// What is wrong with it.
        source: Box<regex::Error>,
    },
    /// Nothing fits.
    #[error(
        "no interface to reach other nodes through: {}. Interfaces here: {}. Name one with --iface",
        join(tried),
        join(seen)
    )]
    NoInterface {
        /// Every way tried, in order.
        tried: Vec<Attempt>,
        /// The interfaces there are, with their addresses.
        seen: Vec<Seen>,
    },
    /// The kernel could not be asked for the route of `--iface-can-reach`.
    #[error("cannot find the interface for --iface-can-reach: {0}")]
    Kernel(#[from] super::kernel::Error),
}

/// One way that did not lead to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The option.
    pub by: By,
    /// What was in the way.
    pub why: Why,
}

/// How an interface was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// `--iface` with this value.
    Iface(String),
    /// `--iface-regex` with this value.
    Regex(String),
    /// `--iface-can-reach` with this value.
    CanReach(IpAddr),
    /// No option: the default route of IPv4, or of IPv6 in a network without IPv4.
    DefaultRoute,
}

/// What was in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// No interface of that name.
    NoSuchInterface,
    /// No interface has that address.
    NoSuchAddress,
    /// Neither an address nor a name matches.
    NoMatch,
    /// No route to it.
    NoRoute,
    /// It is our own overlay device.
    OwnDevice,
    /// The interface has no IPv4 address that can be used.
    NoIpv4(String),
    /// The interface has no IPv6 address that can be used.
    NoIpv6(String),
}

/// One interface in an error message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Name.
    pub name: String,
    /// `IFF_UP`.
    pub up: bool,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Wanted {
    /// The address whose route [`select`] will need to know; `None` when an earlier option is enough.
    pub fn must_reach(&self, view: &HostView) -> Option<IpAddr> {
        let ip = self.can_reach?;
        (!matches!(self.named(view), Ok(Ok(_)))).then_some(ip)
    }

    /// What [`select`] would say in any network, before one is known: nothing but names of interfaces was given, and there
    /// is none of these. Addresses and routes are not asked for, because they may come while the datastore is waited for,
    /// which may be behind the same interface.
    ///
    /// # Errors
    /// [`SelectError::NoInterface`], and [`SelectError::Regex`].
    pub fn check_names(&self, view: &HostView) -> Result<(), SelectError> {
        let Err(tried) = self.named(view)? else { return Ok(()) };
        let only_names = self.can_reach.is_none() && !tried.is_empty();
        if only_names && tried.iter().all(|attempt| attempt.why == Why::NoSuchInterface) {
            return Err(SelectError::NoInterface { tried, seen: seen(view) });
        }
        Ok(())
    }

    /// By `--iface` and `--iface-regex`: the interface, or every attempt that failed.
    fn named(&self, view: &HostView) -> Result<Result<External, Vec<Attempt>>, SelectError> {
        let mut tried = Vec::new();
        for iface in &self.ifaces {
            match self.by_iface(view, iface) {
                Ok(external) => return Ok(Ok(external)),
                Err(why) => tried.push(Attempt { by: By::Iface(iface.clone()), why }),
            }
        }
        for pattern in &self.regexes {
            let regex = Regex::new(pattern).map_err(|source| SelectError::Regex {
                pattern: pattern.clone(),
                source: Box::new(source),
            })?;
            match self.by_regex(view, &regex) {
                Ok(external) => return Ok(Ok(external)),
                Err(why) => tried.push(Attempt { by: By::Regex(pattern.clone()), why }),
            }
        }
        Ok(Err(tried))
    }

    fn by_iface(&self, view: &HostView, iface: &str) -> Result<External, Why> {
        let Ok(ip) = iface.parse::<IpAddr>() else {
            let link = view.link_by_name(iface).ok_or(Why::NoSuchInterface)?;
            return self.on(view, link, None);
        };
        let address = view.owner_of(ip).ok_or(Why::NoSuchAddress)?;
        let link = view.link_by_index(address.ifindex).ok_or(Why::NoSuchAddress)?;
        self.on(view, link, Some(ip))
    }

    /// The first address that matches and serves, else the first name. Loopback is passed over: `.*` means the
    /// network, as in flannel, which takes only addresses that can be reached from elsewhere.
    fn by_regex(&self, view: &HostView, regex: &Regex) -> Result<External, Why> {
        let candidates = || view.links.iter().filter(|link| !link.loopback && link.name != self.own_device);
        let mut why = Why::NoMatch;
        for link in candidates() {
            for address in view.addresses_of(link.index).filter(|address| is_usable(address)) {
                let ip = address.net.ip();
                if regex.is_match(&ip.to_string()) {
                    match self.on(view, link, Some(ip)) {
                        Ok(external) => return Ok(external),
                        Err(reason) => why = reason,
                    }
                }
            }
        }
        for link in candidates().filter(|link| regex.is_match(&link.name)) {
            match self.on(view, link, None) {
                Ok(external) => return Ok(external),
                Err(reason) => why = reason,
            }
        }
        Err(why)
    }

    fn by_reach(&self, view: &HostView, reach: Option<RouteTo>) -> Result<External, Why> {
        let reach = reach.ok_or(Why::NoRoute)?;
        let link = view.link_by_index(reach.ifindex).ok_or(Why::NoRoute)?;
        self.on(view, link, reach.prefsrc.filter(|ip| !ip.is_loopback()))
    }

    fn by_default_route(&self, view: &HostView) -> Result<External, Why> {
        let mut links = view
            .default_routes(!self.ipv4)
            .filter_map(|route| view.link_by_index(route.ifindex))
            .filter(|link| link.name != self.own_device);
        self.on(view, links.next().ok_or(Why::NoRoute)?, None)
    }

    /// This interface, with `pinned` as the address of its family.
    fn on(&self, view: &HostView, link: &Link, pinned: Option<IpAddr>) -> Result<External, Why> {
        if link.name == self.own_device {
            return Err(Why::OwnDevice);
        }
        let best = |ipv6: bool| {
            let own = pinned.filter(|ip| ip.is_ipv6() == ipv6);
            own.or_else(|| best_address(view, link.index, ipv6))
        };
        let mut v4 = None;
        if self.ipv4 {
            v4 = match best(false) {
                Some(IpAddr::V4(ip)) => Some(ip),
                _ => return Err(Why::NoIpv4(link.name.clone())),
            };
        }
        let mut v6 = None;
        if self.ipv6 {
            v6 = match best(true) {
                Some(IpAddr::V6(ip)) => Some(ip),
                _ => return Err(Why::NoIpv6(link.name.clone())),
            };
        }
        Ok(External {
            ifindex: link.index,
            name: link.name.clone(),
            mtu: link.mtu,
            v4,
            v6,
            public_v4: self.public_v4.or(v4).filter(|_| self.ipv4),
            public_v6: self.public_v6.or(v6).filter(|_| self.ipv6),
        })
    }
}

/// Chooses. `reach` is the kernel's answer for [`Wanted::must_reach`], `None` where it has no route.
///
/// Order as in flannel: the `--iface` list, the `--iface-regex` list, `--iface-can-reach`; the default route only if
/// none of them was given. A candidate without an address of a family the network needs is passed over.
pub fn select(wanted: &Wanted, view: &HostView, reach: Option<RouteTo>) -> Result<External, SelectError> {
    let mut tried = match wanted.named(view)? {
        Ok(external) => return Ok(external),
        Err(tried) => tried,
    };
    if let Some(ip) = wanted.can_reach {
        match wanted.by_reach(view, reach) {
            Ok(external) => return Ok(external),
            Err(why) => tried.push(Attempt { by: By::CanReach(ip), why }),
        }
    }
    if tried.is_empty() {
        match wanted.by_default_route(view) {
            Ok(external) => return Ok(external),
            Err(why) => tried.push(Attempt { by: By::DefaultRoute, why }),
        }
    }
    Err(SelectError::NoInterface { tried, seen: seen(view) })
}

/// The address others should use: global before link-local, settled before tentative, permanent before dynamic,
/// non-temporary first, then the kernel's order.
fn best_address(view: &HostView, ifindex: u32, ipv6: bool) -> Option<IpAddr> {
    view.addresses_of(ifindex)
        .filter(|address| address.net.is_ipv6() == ipv6 && is_usable(address))
        .min_by_key(|address| {
            (
                address.is_link_local(),
                address.has(Address::TENTATIVE),
                !address.has(Address::PERMANENT),
                address.has(Address::TEMPORARY),
            )
        })
        .map(|address| address.net.ip())
}

/// Deprecated addresses must not begin new conversations (RFC 4862 §5.5.4), duplicates are somebody else's.
fn is_usable(address: &Address) -> bool {
    !address.has(Address::DEPRECATED | Address::DUPLICATE)
        && address.scope != Scope::Host
        && !address.net.ip().is_loopback()
}

fn seen(view: &HostView) -> Vec<Seen> {
    let one = |link: &Link| Seen {
        name: link.name.clone(),
        up: link.up,
        addresses: view.addresses_of(link.index).map(|address| address.net.ip()).collect(),
    };
    view.links.iter().map(one).collect()
}

fn join<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, why } = self;
        match by {
            By::Iface(iface) => write!(f, "--iface {iface}: {why}"),
            By::Regex(pattern) => write!(f, "--iface-regex {pattern}: {why}"),
            By::CanReach(ip) => write!(f, "--iface-can-reach {ip}: {why}"),
            By::DefaultRoute if *why == Why::NoRoute => f.write_str("there is no default route"),
            By::DefaultRoute => write!(f, "default route: {why}"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchInterface => f.write_str("no such interface"),
            Self::NoSuchAddress => f.write_str("no interface has this address"),
            Self::NoMatch => f.write_str("matches no address and no name"),
            Self::NoRoute => f.write_str("no route to it"),
            Self::OwnDevice => f.write_str("is the overlay's own device"),
            Self::NoIpv4(name) => write!(f, "{name} has no IPv4 address"),
            Self::NoIpv6(name) => write!(f, "{name} has no IPv6 address"),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, up, addresses } = self;
        write!(f, "{name}{}", if *up { "" } else { " (down)" })?;
        let separators = std::iter::once(" ").chain(std::iter::repeat(", "));
        addresses.iter().zip(separators).try_for_each(|(ip, separator)| write!(f, "{separator}{ip}"))
    }
}

#[cfg(test)]
mod tests;
