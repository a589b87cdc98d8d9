//! One side of a rule: networks masked, selectors joined into one.

use ipnetwork::IpNetwork;

use super::super::net;
use super::super::number::Port;
use super::super::selector::Selector;
use super::super::v3;
use super::{SERVICE_ACCOUNT_LABEL, selector_text};

/// A network of a rule; what is none is kept as it is written.
pub type Net = Result<IpNetwork, String>;

/// One side of a rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entity {
    /// In one of these; empty = anywhere.
    pub nets: Vec<Net>,
    /// In none of these.
    pub not_nets: Vec<Net>,
    /// Complete; empty = no criterion.
    pub selector: String,
    /// As written: about all endpoints, whatever the namespace.
    pub not_selector: String,
    /// One of these; empty = any.
    pub ports: Vec<Port>,
    /// None of these.
    pub not_ports: Vec<Port>,
    /// Its addresses only.
    pub service: Option<v3::Service>,
    /// What the selector was made of.
    pub original: Original,
    /// The names of service accounts hold quotes: they make another selector than meant, or none, and then Felix leaves
    /// them out, and the account's selector with them.
    pub odd_accounts: bool,
}

/// Selectors as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Original {
    /// About endpoints.
    pub selector: String,
    /// About their namespaces.
    pub namespace_selector: String,
    /// About their service accounts.
    pub service_accounts: v3::ServiceAccounts,
}

impl Entity {
    /// Of a rule in a policy of this namespace; empty for global ones and profiles.
    pub fn convert(entity: v3::Entity, namespace: &str) -> Self {
        let networks =
            |texts: Vec<String>| texts.into_iter().map(|text| net::network(&text).ok_or(text)).collect();
        let accounts = entity.service_accounts.unwrap_or_default();
        let account_selector = of_service_accounts(&accounts);
        let selector = scoped(
            namespace_part(&entity.namespace_selector, namespace),
            &account_selector,
            &entity.selector,
            !entity.not_selector.is_empty() || !entity.namespace_selector.is_empty(),
        );
        Self {
            nets: networks(entity.nets),
            not_nets: networks(entity.not_nets),
            selector,
            not_selector: entity.not_selector,
            ports: entity.ports,
            not_ports: entity.not_ports,
            service: entity.services,
            odd_accounts: accounts.names.iter().any(|name| name.contains('\'')),
            original: Original {
                selector: entity.selector,
                namespace_selector: entity.namespace_selector,
                service_accounts: accounts,
            },
        }
    }
}

/// Which namespaces; empty = no criterion. A selector that makes no sense is none here, but the rule is refused for it
/// later.
fn namespace_part(selector: &str, namespace: &str) -> String {
    match (selector, namespace) {
        ("", "") => String::new(),
        ("", namespace) => selector_text::in_namespace(namespace),
        (selector, _) => selector_text::of_namespace(selector)
            .unwrap_or_default()
            .replace("all()", "has(projectcalico.org/namespace)")
            .replace("global()", "!has(projectcalico.org/namespace)"),
    }
}

/// Which service accounts; empty = no criterion.
fn of_service_accounts(accounts: &v3::ServiceAccounts) -> String {
    // What makes no sense here is refused for it later.
    let by_labels = match accounts.selector.as_str() {
        "" => String::new(),
        selector => selector_text::of_service_account(selector).unwrap_or_default(),
    };
    if accounts.names.is_empty() {
        return by_labels;
    }
    let names = format!("{SERVICE_ACCOUNT_LABEL} in {{ '{}' }}", accounts.names.join("', '"));
    match (Selector::parse(&names), by_labels.as_str()) {
        (Err(_), _) => String::new(),
        (Ok(by_names), "") => by_names.canonical().to_owned(),
        (Ok(by_names), by_labels) => format!("({by_labels}) && ({by_names})"),
    }
}

/// Everything joined. Without any selector a rule of a namespaced policy is about all addresses; any kind of selector,
/// a negative one, too, limits it to the namespace.
fn scoped(namespaces: String, accounts: &str, selector: &str, limited: bool) -> String {
    let own = match (accounts, selector) {
        (accounts, "") => accounts.to_owned(),
        ("", selector) => selector.to_owned(),
        (accounts, selector) => format!("({accounts}) && ({selector})"),
    };
    if namespaces.is_empty() || (own.is_empty() && !limited) {
        own
    } else if own.is_empty() {
        namespaces
    } else {
        format!("({namespaces}) && ({own})")
    }
}
