//! A rule.

use super::super::number::Protocol;
use super::super::v3;
use super::Entity;

/// A rule of a policy or profile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// `allow`, `deny`, `log`, `next-tier`, or whatever is written, in lower case.
    pub action: String,
    /// 4 or 6.
    pub ip_version: Option<i64>,
    /// Only this one.
    pub protocol: Option<Protocol>,
    /// Not this one.
    pub not_protocol: Option<Protocol>,
    /// Only these messages.
    pub icmp: v3::Icmp,
    /// Not these.
    pub not_icmp: v3::Icmp,
    /// About the sender.
    pub source: Entity,
    /// About the receiver.
    pub destination: Entity,
    /// For proxies.
    pub http: Option<v3::Http>,
    /// For tools.
    pub metadata: Option<v3::RuleMetadata>,
}

impl Rule {
    /// Of a policy in this namespace; empty for global ones and profiles.
    pub fn convert(rule: v3::Rule, namespace: &str) -> Self {
        Self {
            action: if rule.action == "Pass" { "next-tier".to_owned() } else { rule.action.to_lowercase() },
            ip_version: rule.ip_version,
            protocol: rule.protocol,
            not_protocol: rule.not_protocol,
            icmp: rule.icmp.unwrap_or_default(),
            not_icmp: rule.not_icmp.unwrap_or_default(),
            source: Entity::convert(rule.source, namespace),
            destination: Entity::convert(rule.destination, namespace),
            http: rule.http,
            metadata: rule.metadata,
        }
    }

    /// All of them.
    pub fn convert_all(rules: Vec<v3::Rule>, namespace: &str) -> Vec<Self> {
        rules.into_iter().map(|rule| Self::convert(rule, namespace)).collect()
    }
}
