//! Connections in a list, searched from front to back.

use std::net::IpAddr;

use super::parse::{Ip, Piece};
use super::states::{self, Start, Who};
use crate::net::FlowKey;
use crate::packet::Asked;
use crate::spec::policy::Established;
use crate::spec::{Endpoint, NodeSpec, Settings};
use crate::verdict::DropReason;
use ipnetwork::IpNetwork;

/// How long later pieces of a datagram are waited for.
const PIECES_MS: u64 = 5000;

/// A connection from the point of view of its opener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    pub source: (IpAddr, u16),
    pub destination: (IpAddr, u16),
    pub protocol: u8,
    /// Type and code of the question.
    pub icmp: Option<(u8, u8)>,
}

impl Name {
    fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source, ..self }
    }
}

/// What an ICMP message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Question,
    /// To the question of this type.
    Answer(u8),
    Error,
    Other,
}

fn message(v6: bool, kind: u8) -> Message {
    match (v6, kind) {
        (false, 8 | 13 | 15 | 17) | (true, 128 | 139) => Message::Question,
        (false, 0) => Message::Answer(8),
        (false, 14) => Message::Answer(13),
        (false, 16) => Message::Answer(15),
        (false, 18) => Message::Answer(17),
        (true, 129) => Message::Answer(128),
        (true, 140) => Message::Answer(139),
        (false, 3 | 4 | 11 | 12) | (true, 1..=4) => Message::Error,
        _ => Message::Other,
    }
}

/// Whose a packet would be: of the first connection as its opener's packet, of the second as an answer to it.
pub(super) fn names(ip: &Ip) -> (Option<Name>, Option<Name>) {
    let (source, destination) = ((ip.source, ip.ports.0), (ip.destination, ip.ports.1));
    let name = Name { source, destination, protocol: ip.protocol, icmp: None };
    if !matches!(ip.protocol, 1 | 58) {
        return (Some(name), Some(name.reversed()));
    }
    // ICMPv6 over IPv4 and the other way round are as good as ICMP: it is the protocol number that says what types mean.
    match message(ip.protocol == 58, ip.detail) {
        Message::Question => (Some(Name { icmp: Some((ip.detail, ip.code)), ..name }), None),
        Message::Answer(question) => {
            (None, Some(Name { icmp: Some((question, ip.code)), ..name.reversed() }))
        }
        Message::Error | Message::Other => (None, None),
    }
}

impl Ip {
    /// The key that the dataplane has for the packet's connection.
    pub fn flow_key(&self) -> FlowKey {
        let (key, direction) = match (self.source, self.destination) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                FlowKey::v4(a.to_bits(), b.to_bits(), self.ports, self.protocol, self.is_nameless())
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                FlowKey::v6(a.to_bits(), b.to_bits(), self.ports, self.protocol, self.is_nameless())
            }
            _ => unreachable!("one packet, one family"),
        };
        if !matches!(self.protocol, 1 | 58) || self.is_nameless() {
            return key;
        }
        match message(self.protocol == 58, self.detail) {
            Message::Answer(question) => key.with_icmp(question, self.code, direction.flip()),
            _ => key.with_icmp(self.detail, self.code, direction),
        }
    }
}

#[derive(Clone, Debug)]
struct Connection {
    name: Name,
    state: &'static str,
    /// Who has finished first.
    closer: Who,
    answered: bool,
    last_seen: u64,
    /// The publication that judged it.
    judged: u64,
    /// Who is behind the two addresses.
    parties: (u32, u32),
}

/// How a packet stands before anything is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Policy is asked. `entry`: the connection is in the list, from before the last publication.
    New { asked: Asked, entry: bool },
    /// It belongs to one in the list that may go on.
    Known,
    /// It is an error about one in the list.
    Related,
}

/// All that is remembered.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    all: Vec<Connection>,
    /// First pieces of datagrams, and when they came.
    firsts: Vec<(Ip, u64)>,
    /// Endpoints of this publication, with a number that nobody else has or had.
    serials: Vec<(String, Vec<IpNetwork>, u32)>,
    last_serial: u32,
    publication: u64,
    pickup_until: Option<u64>,
}

impl Connections {
    /// Another spec is in force. `pickup_ms`: for how long after the first one connections are taken up in their middle.
    pub fn update(&mut self, endpoints: &[Endpoint], pickup_ms: u64, now_ms: u64) {
        self.publication += 1;
        self.pickup_until.get_or_insert(now_ms + pickup_ms);
        let before = std::mem::take(&mut self.serials);
        for Endpoint { name, networks, .. } in endpoints {
            let kept = before.iter().find(|(n, w, _)| n == name && w == networks).map(|(.., serial)| *serial);
            let serial = kept.unwrap_or_else(|| {
                self.last_serial += 1;
                self.last_serial
            });
            self.serials.push((name.clone(), networks.clone(), serial));
        }
        let mut all = std::mem::take(&mut self.all);
        all.retain(|connection| connection.parties == self.parties(&connection.name));
        self.all = all;
    }

    fn parties(&self, name: &Name) -> (u32, u32) {
        let at = |address: IpAddr| {
            let mut best: Option<(u8, u32)> = None;
            for (_, networks, serial) in &self.serials {
                for network in networks.iter().filter(|network| network.contains(address)) {
                    if best.is_none_or(|(length, _)| network.prefix() >= length) {
                        best = Some((network.prefix(), *serial));
                    }
                }
            }
            best.map_or(0, |(_, serial)| serial)
        };
        (at(name.source.0), at(name.destination.0))
    }

    /// Forgets what has been silent for too long.
    pub fn expire(&mut self, settings: &Settings, now_ms: u64) {
        self.all.retain(|c| now_ms - c.last_seen < c.timeout_ms(settings));
    }

    /// Is there a connection whose time has been up for less than `slack_ms`?
    pub fn is_any_expiring(&self, settings: &Settings, slack_ms: u64, now_ms: u64) -> bool {
        self.all.iter().any(|c| {
            let (idle, timeout) = (now_ms - c.last_seen, c.timeout_ms(settings));
            (timeout..timeout + slack_ms).contains(&idle)
        })
    }

    /// Every connection's state, for coverage.
    pub fn states(&self) -> impl Iterator<Item = &'static str> {
        self.all.iter().map(|connection| connection.state)
    }

    /// Gives a piece of a datagram what its first piece said.
    pub fn name_piece(&mut self, ip: &Ip, now_ms: u64) -> Result<Ip, DropReason> {
        let same = |other: &Ip| {
            (ip.source, ip.destination, ip.protocol, ip.id)
                == (other.source, other.destination, other.protocol, other.id)
        };
        match ip.piece {
            Piece::First => {
                self.firsts.retain(|(first, _)| !same(first));
                self.firsts.push((ip.clone(), now_ms));
                Ok(ip.clone())
            }
            Piece::Later if ip.is_nameless() => {
                let found = self.firsts.iter().find(|(first, seen)| same(first) && now_ms < seen + PIECES_MS);
                let (first, _) = found.ok_or(DropReason::FragmentWithoutFirst)?;
                Ok(Ip { ports: first.ports, detail: first.detail, code: first.code, ..ip.clone() })
            }
            _ => Ok(ip.clone()),
        }
    }

    fn find(&self, ip: &Ip) -> Option<(usize, Who)> {
        let (as_opener, as_answer) = names(ip);
        self.all.iter().enumerate().find_map(|(index, connection)| {
            let name = Some(connection.name);
            // With one address and port at both ends, nobody answers.
            let own = connection.name == connection.name.reversed();
            if as_opener == name || own && as_answer == name {
                Some((index, Who::Origin))
            } else if as_answer == name {
                Some((index, Who::Reply))
            } else {
                None
            }
        })
    }

    /// Looks a packet up, and lets it act on its connection if it has one. `quoted`: what it is about, if it is an error.
    pub fn look_up(
        &mut self,
        spec: &NodeSpec,
        ip: &Ip,
        quoted: Option<&Ip>,
        now_ms: u64,
    ) -> Result<Standing, DropReason> {
        let keep = spec.settings.established == Established::Keep;
        if let Some((index, from)) = self.find(ip) {
            let Connection { judged, answered, .. } = self.all[index];
            match self.act(index, ip, from, now_ms) {
                "new" => {
                    self.all.remove(index);
                }
                "!" => return Err(DropReason::ConntrackInvalid),
                _ if judged == self.publication => return Ok(Standing::Known),
                _ if keep && (answered || from == Who::Reply) => return Ok(Standing::Known),
                _ => {
                    let asked = if from == Who::Origin { Asked::AS_IS } else { Asked::ANSWER };
                    return Ok(Standing::New { asked, entry: true });
                }
            }
        }
        if matches!(ip.protocol, 1 | 58) {
            return match message(ip.protocol == 58, ip.detail) {
                Message::Question => Ok(Standing::New { asked: Asked::AS_IS, entry: false }),
                Message::Answer(_) => Err(DropReason::NoConnection),
                Message::Error => self.look_up_error(ip, quoted, keep),
                Message::Other => Err(DropReason::ConntrackInvalid),
            };
        }
        let pickup = spec.settings.tcp_loose || self.pickup_until.is_some_and(|until| now_ms < until);
        match states::start(ip.protocol, ip.detail) {
            Start::Opens(_) => Ok(Standing::New { asked: Asked::AS_IS, entry: false }),
            Start::Middle(_) if pickup => Ok(Standing::New { asked: Asked::EITHER, entry: false }),
            Start::Middle(_) | Start::Needs => Err(DropReason::NoConnection),
            Start::Never => Err(DropReason::ConntrackInvalid),
        }
    }

    fn look_up_error(&self, ip: &Ip, quoted: Option<&Ip>, keep: bool) -> Result<Standing, DropReason> {
        let quoted = quoted.filter(|_| ip.piece == Piece::Whole).ok_or(DropReason::ConntrackInvalid)?;
        if quoted.v6 != ip.v6 || quoted.source != ip.destination {
            return Err(DropReason::ConntrackInvalid);
        }
        let (index, _) = self.find(quoted).ok_or(DropReason::NoConnection)?;
        let Connection { judged, answered, .. } = self.all[index];
        if judged == self.publication || keep && answered {
            Ok(Standing::Related)
        } else {
            Err(DropReason::NoConnection)
        }
    }

    /// Moves a connection on; returns its next state, `!` or `new`.
    fn act(&mut self, index: usize, ip: &Ip, from: Who, now_ms: u64) -> &'static str {
        let connection = &mut self.all[index];
        let next = states::next(connection.state, ip.protocol, ip.detail, from, connection.closer);
        if next != "!" && next != "new" {
            if next == "FIN_WAIT" && connection.state != "FIN_WAIT" {
                connection.closer = from;
            }
            connection.state = next;
            connection.answered |= from == Who::Reply;
            connection.last_seen = now_ms;
        }
        next
    }

    /// A packet that may pass, as far as policy and routes are concerned. `asked`: what policy has left of the question.
    pub fn commit(
        &mut self,
        ip: &Ip,
        standing: Standing,
        asked: Asked,
        now_ms: u64,
    ) -> Result<(), DropReason> {
        if standing == Standing::Related {
            return Ok(());
        }
        if let Some((index, from)) = self.find(ip) {
            let looked_up = !matches!(standing, Standing::New { entry: false, .. });
            if !looked_up && matches!(self.act(index, ip, from, now_ms), "!" | "new") {
                return Err(DropReason::ConntrackInvalid);
            }
            self.all[index].judged = self.publication;
            return Ok(());
        }
        if standing == Standing::Known {
            return Ok(());
        }
        let opened = asked.contains(Asked::AS_IS);
        let (as_opener, as_answer) = names(ip);
        let Some(name) = (if opened { as_opener } else { as_answer }) else { return Ok(()) };
        let state = match states::start(ip.protocol, ip.detail) {
            Start::Opens(state) | Start::Middle(state) => state,
            Start::Needs | Start::Never => "ESTABLISHED",
        };
        self.all.push(Connection {
            name,
            state,
            closer: if opened { Who::Origin } else { Who::Reply },
            answered: !opened,
            last_seen: now_ms,
            judged: self.publication,
            parties: self.parties(&name),
        });
        Ok(())
    }

    /// A packet that may not pass: a connection that was judged again is over.
    pub fn deny(&mut self, ip: &Ip, standing: Standing) {
        if matches!(standing, Standing::New { entry: true, .. })
            && let Some((index, _)) = self.find(ip)
            && self.all[index].judged != self.publication
        {
            self.all.remove(index);
        }
    }
}

impl Connection {
    fn timeout_ms(&self, settings: &Settings) -> u64 {
        states::timeout_ms(self.state, self.name.protocol, self.answered, &settings.timeouts)
    }
}
