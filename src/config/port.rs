//! `--port`: how packets get in and out, for all interfaces or for each by its name.

use std::collections::BTreeMap;
use std::str::FromStr;

use clap::ValueEnum;

use super::flags::PortChoice;

/// A choice for all interfaces but those that have one of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortChoices {
    others: PortChoice,
    named: BTreeMap<String, PortChoice>,
}

/// Not such choices.
#[derive(Debug, thiserror::Error)]
pub enum NoChoice {
    /// A port that there is not.
    #[error("\"{0}\" is no port [possible values: auto, tap, udp, af-xdp; for one interface: eth0=af-xdp]")]
    Unknown(String),
    /// Two answers to one question.
    #[error("more than one port for {0}")]
    Twice(String),
}

impl PortChoices {
    /// The same for all interfaces.
    pub fn all(choice: PortChoice) -> Self {
        Self { others: choice, named: BTreeMap::new() }
    }

    /// For the interface of this name.
    pub fn of(&self, interface: &str) -> PortChoice {
        self.named.get(interface).copied().unwrap_or(self.others)
    }

    /// Those for one interface each.
    pub fn named(&self) -> impl Iterator<Item = (&str, PortChoice)> {
        self.named.iter().map(|(interface, choice)| (interface.as_str(), *choice))
    }
}

impl FromStr for PortChoices {
    type Err = NoChoice;

    /// `af-xdp`, `eth0=af-xdp`, `eth0=af-xdp,eth1=tap`, `tap,eth1=af-xdp`: who is not named has `auto`, or the one without name.
    fn from_str(text: &str) -> Result<Self, NoChoice> {
        let (mut others, mut named) = (None, BTreeMap::new());
        for part in text.split(',') {
            let (interface, choice) = match part.split_once('=') {
                Some((interface, choice)) if !interface.is_empty() => (Some(interface), choice),
                Some(_) => return Err(NoChoice::Unknown(part.to_owned())),
                None => (None, part),
            };
            let choice =
                PortChoice::from_str(choice, false).map_err(|_| NoChoice::Unknown(choice.to_owned()))?;
            let before = match interface {
                Some(interface) => named.insert(interface.to_owned(), choice),
                None => others.replace(choice),
            };
            if before.is_some() {
                return Err(NoChoice::Twice(interface.unwrap_or("all other interfaces").to_owned()));
            }
        }
        Ok(Self { others: others.unwrap_or(PortChoice::Auto), named })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_for_all_interfaces_or_for_one() {
        let of = |text: &str, interface: &str| text.parse::<PortChoices>().unwrap().of(interface);
        assert_eq!(of("af-xdp", "eth0"), PortChoice::AfXdp);
        assert_eq!("udp".parse::<PortChoices>().unwrap(), PortChoices::all(PortChoice::Udp));
        for (interface, port) in
            [("eth0", PortChoice::AfXdp), ("eth1", PortChoice::Tap), ("eth2", PortChoice::Auto)]
        {
            assert_eq!(of("eth0=af-xdp,eth1=tap", interface), port);
        }
        assert_eq!(of("eth0=udp,tap", "eth0"), PortChoice::Udp);
        assert_eq!(of("eth0=udp,tap", "eth1"), PortChoice::Tap);
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        let refusal = |text: &str| text.parse::<PortChoices>().unwrap_err().to_string();
        for text in ["xdp", "eth0=xdp", "=tap", "", "tap,", "eth0=", "eth0"] {
            assert!(refusal(text).contains("possible values: auto, tap, udp, af-xdp"), "{text}");
        }
        assert_eq!(refusal("eth0=tap,eth0=udp"), "more than one port for eth0");
        assert_eq!(refusal("tap,udp"), "more than one port for all other interfaces");
    }
}
