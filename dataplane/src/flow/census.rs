//! How many connections are how far, by protocol: for people who watch.

use super::State;
use crate::packet::transport::{ICMP, ICMPV6, SCTP, TCP, UDP};

/// Protocols that are told apart; `icmp` is that of both families.
const PROTOCOLS: [&str; 5] = ["tcp", "udp", "icmp", "sctp", "other"];

/// What is counted apart: index into [`PROTOCOLS`], and state.
const KNOWN: [(usize, State); 22] = [
    (0, State::SynSent),
    (0, State::SynSent2),
    (0, State::SynRecv),
    (0, State::Established),
    (0, State::FinWait),
    (0, State::CloseWait),
    (0, State::LastAck),
    (0, State::TimeWait),
    (0, State::Close),
    (1, State::Single),
    (1, State::Stream),
    (2, State::Single),
    (2, State::Stream),
    (3, State::CookieWait),
    (3, State::CookieEchoed),
    (3, State::Established),
    (3, State::ShutdownSent),
    (3, State::ShutdownAckSent),
    (3, State::HeartbeatSent),
    (3, State::Close),
    (4, State::Single),
    (4, State::Stream),
];

/// Place of each protocol and state; for a state that a protocol does not have: the protocol's first place.
const PLACE: [[u8; State::ALL.len()]; PROTOCOLS.len()] = {
    let mut table = [[0; State::ALL.len()]; PROTOCOLS.len()];
    let mut place = KNOWN.len();
    // From behind, so that a protocol's first place is the last that all of its states are given.
    while place > 0 {
        place -= 1;
        let (protocol, _) = KNOWN[place];
        table[protocol] = [place as u8; State::ALL.len()];
    }
    while place < KNOWN.len() {
        let (protocol, state) = KNOWN[place];
        table[protocol][state as usize] = place as u8;
        place += 1;
    }
    table
};

/// A count for every protocol that is told apart and every state it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census([u32; KNOWN.len()]);

impl Census {
    /// What is counted apart: protocol and state.
    pub const PLACES: [(&'static str, State); KNOWN.len()] = {
        let mut places = [("", State::Single); KNOWN.len()];
        let mut place = 0;
        while place < KNOWN.len() {
            places[place] = (PROTOCOLS[KNOWN[place].0], KNOWN[place].1);
            place += 1;
        }
        places
    };

    /// The counts, as [`Self::PLACES`] has them.
    pub fn counts(&self) -> [u32; KNOWN.len()] {
        self.0
    }

    pub(super) fn add(&mut self, protocol: u8, state: State) {
        self.0[place(protocol, state)] += 1;
    }

    pub(super) fn remove(&mut self, protocol: u8, state: State) {
        self.0[place(protocol, state)] -= 1;
    }
}

fn place(protocol: u8, state: State) -> usize {
    let protocol = match protocol {
        TCP => 0,
        UDP => 1,
        ICMP | ICMPV6 => 2,
        SCTP => 3,
        _ => 4,
    };
    PLACE[protocol][state as usize].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_every_protocol_has_its_place() {
        for (at, (name, state)) in Census::PLACES.into_iter().enumerate() {
            let protocols: &[u8] = match name {
                "tcp" => &[TCP],
                "udp" => &[UDP],
                "icmp" => &[ICMP, ICMPV6],
                "sctp" => &[SCTP],
                _ => &[47, 136],
            };
            for protocol in protocols {
                assert_eq!(place(*protocol, state), at, "{name} {}", state.name());
            }
        }
        // One that a protocol does not have is counted as its first.
        assert_eq!(Census::PLACES[place(ICMP, State::Established)], ("icmp", State::Single));
        assert_eq!(Census::PLACES[place(TCP, State::Single)], ("tcp", State::SynSent));
    }
}
