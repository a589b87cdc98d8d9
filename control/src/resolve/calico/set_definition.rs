//! What the sets that rules name are made of.

use std::sync::Arc;

use canal_dataplane::spec::policy::SetId;

use crate::model::calico::selector::{Selector, named_port_id, service_id};

/// IP protocol numbers of those that have ports.
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;
/// See [`TCP`].
pub const SCTP: u8 = 132;

/// A set and its name, which is Felix's for it. Equal names, equal content.
#[derive(Clone, Debug)]
pub struct SetDefinition {
    /// `s:…`, `n:…`, `svc:…` or `svcnoport:…`.
    pub id: SetId,
    /// What is in it.
    pub content: SetContent,
}

/// What is in a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetContent {
    /// Addresses of everything that the selector matches.
    Selected(Selector),
    /// Address, protocol and port of endpoints that the selector matches and that have a port of this name.
    NamedPort {
        /// Which endpoints.
        selector: Selector,
        /// IP protocol number; one of the three above.
        protocol: u8,
        /// The port's name.
        name: Arc<str>,
    },
    /// What stands behind a service, `namespace/name`.
    Service {
        /// Which.
        name: Arc<str>,
        /// With protocol and port.
        with_ports: bool,
    },
}

impl SetDefinition {
    /// Of what a selector matches.
    pub fn selected(selector: Selector) -> Self {
        Self { id: selector.id().into(), content: SetContent::Selected(selector) }
    }

    /// Of a named port.
    pub fn named_port(selector: Selector, protocol: u8, name: &str) -> Self {
        let protocol_name = match protocol {
            UDP => "udp",
            SCTP => "sctp",
            _ => "tcp",
        };
        let id = named_port_id(&selector, protocol_name, name).into();
        Self { id, content: SetContent::NamedPort { selector, protocol, name: name.into() } }
    }

    /// Of a service.
    pub fn service(name: &str, with_ports: bool) -> Self {
        let id = service_id(name, with_ports).into();
        Self { id, content: SetContent::Service { name: name.into(), with_ports } }
    }
}
