//! TCP's states as an onlooker in the middle sees them, by flags alone (RFC 9293 §3.3.2). No sequence numbers: whoever can
//! forge addresses here has passed the source check of somebody else's workload.

use super::state::{Opening, Side, State, Step};
use crate::packet::transport::{ACK, EVENTS, FIN, RST, SYN};

/// What a segment says about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment {
    Syn,
    SynAck,
    Ack,
    Fin,
    Rst,
}

impl Segment {
    /// By its flags; `None` for combinations that no stack sends. PSH, URG and the congestion flags say nothing here.
    fn read(flags: u8) -> Option<Self> {
        const SYN_ACK: u8 = SYN | ACK;
        const FIN_ACK: u8 = FIN | ACK;
        const RST_ACK: u8 = RST | ACK;
        match flags & EVENTS {
            SYN => Some(Self::Syn),
            SYN_ACK => Some(Self::SynAck),
            ACK => Some(Self::Ack),
            FIN_ACK => Some(Self::Fin),
            RST | RST_ACK => Some(Self::Rst),
            _ => None,
        }
    }
}

pub(super) fn opening(flags: u8) -> Opening {
    match Segment::read(flags) {
        Some(Segment::Syn) => Opening::Opens(State::SynSent),
        Some(Segment::Ack) => Opening::Midstream(State::Established),
        Some(Segment::Fin) => Opening::Midstream(State::FinWait),
        Some(Segment::SynAck | Segment::Rst) => Opening::Orphan,
        None => Opening::Invalid,
    }
}

pub(super) fn step(state: State, flags: u8, from: Side, closer: Side) -> Step {
    use Side::{Origin, Reply};
    use State::*;
    let Some(segment) = Segment::read(flags) else { return Step::Invalid };
    let stay = Step::To(state);
    match segment {
        Segment::Rst => Step::To(Close),
        Segment::Syn => match (state, from) {
            // Both sides open at once (RFC 9293 §3.5).
            (SynSent, Reply) => Step::To(SynSent2),
            (SynSent | SynRecv, Origin) | (SynSent2, _) => stay,
            // The end of the old connection has been seen: the same ports serve again.
            (LastAck | TimeWait | Close, _) => Step::Reopens,
            // A client that has forgotten all: its peer answers with a challenge (RFC 5961 §4).
            (_, Origin) => stay,
            // Policy has allowed the other side to open connections, not this one.
            (_, Reply) => Step::Invalid,
        },
        Segment::SynAck => match (state, from) {
            (SynSent, Reply) | (SynSent2, _) => Step::To(SynRecv),
            (SynRecv, _) | (_, Reply) => stay,
            (_, Origin) => Step::Invalid,
        },
        Segment::Ack => match (state, from) {
            // Nothing has been offered yet that could be acknowledged.
            (SynSent | SynSent2, Origin) => Step::Invalid,
            (SynRecv, Origin) => Step::To(Established),
            (FinWait, _) if from != closer => Step::To(CloseWait),
            (LastAck, _) => Step::To(TimeWait),
            _ => stay,
        },
        Segment::Fin => match state {
            SynSent | SynSent2 => Step::Invalid,
            FinWait | CloseWait if from != closer => Step::To(LastAck),
            FinWait | CloseWait | LastAck | TimeWait | Close => stay,
            _ => Step::Closes(FinWait),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Side::{Origin, Reply};
    use State::*;

    /// Plays segments against a new connection; the state after each.
    fn play(first: u8, rest: &[(Side, u8)]) -> Vec<Result<State, Step>> {
        let Opening::Opens(mut state) = opening(first) else { panic!("no opening") };
        let mut closer = Origin;
        rest.iter()
            .map(|(from, flags)| match step(state, *flags, *from, closer) {
                Step::To(next) => {
                    state = next;
                    Ok(next)
                }
                Step::Closes(next) => {
                    (state, closer) = (next, *from);
                    Ok(next)
                }
                other => Err(other),
            })
            .collect()
    }

    #[test]
    fn a_connection_from_syn_to_time_wait() {
        let states = play(
            SYN,
            &[
                (Origin, SYN),
                (Reply, SYN | ACK),
                (Reply, SYN | ACK),
                (Origin, ACK),
                (Reply, ACK),
                (Origin, FIN | ACK),
                (Origin, FIN | ACK),
                (Reply, ACK),
                (Reply, ACK),
                (Reply, FIN | ACK),
                (Origin, ACK),
                (Reply, FIN | ACK),
            ],
        );
        let expected = [
            SynSent,
            SynRecv,
            SynRecv,
            Established,
            Established,
            FinWait,
            FinWait,
            CloseWait,
            CloseWait,
            LastAck,
            TimeWait,
            TimeWait,
        ];
        assert_eq!(states, expected.map(Ok));
    }

    #[test]
    fn both_sides_open_at_once_and_close_at_once() {
        let states = play(
            SYN,
            &[
                (Reply, SYN),
                (Reply, SYN),
                (Origin, SYN | ACK),
                (Reply, SYN | ACK),
                (Origin, ACK),
                (Reply, FIN | ACK),
                (Origin, FIN | ACK),
                (Reply, ACK),
                (Origin, ACK),
            ],
        );
        let expected =
            [SynSent2, SynSent2, SynRecv, SynRecv, Established, FinWait, LastAck, TimeWait, TimeWait];
        assert_eq!(states, expected.map(Ok));
    }

    #[test]
    fn a_reset_ends_it_from_either_side_in_any_state() {
        for state in State::ALL {
            for from in [Origin, Reply] {
                assert_eq!(step(state, RST | ACK, from, Origin), Step::To(Close));
                assert_eq!(step(state, RST, from, Origin), Step::To(Close));
            }
        }
    }

    #[test]
    fn only_an_ended_connection_can_be_opened_again() {
        for state in [SynSent, SynSent2, SynRecv, Established, FinWait, CloseWait] {
            assert_eq!(step(state, SYN, Origin, Origin), Step::To(state));
        }
        for state in [SynRecv, Established, FinWait, CloseWait] {
            assert_eq!(step(state, SYN, Reply, Origin), Step::Invalid);
        }
        for state in [LastAck, TimeWait, Close] {
            for from in [Origin, Reply] {
                assert_eq!(step(state, SYN, from, Origin), Step::Reopens);
            }
        }
    }

    #[test]
    fn what_has_not_been_answered_cannot_be_used() {
        for flags in [ACK, ACK | FIN, SYN | ACK] {
            assert_eq!(step(SynSent, flags, Origin, Origin), Step::Invalid);
        }
        assert_eq!(step(SynSent, ACK, Reply, Origin), Step::To(SynSent));
    }

    #[test]
    fn no_stack_sends_these() {
        for flags in [0, FIN, SYN | FIN, SYN | RST, FIN | RST, SYN | FIN | ACK, SYN | RST | ACK, 0x3f, 0x28] {
            assert_eq!(opening(flags), Opening::Invalid, "{flags:#x}");
            assert_eq!(step(Established, flags, Origin, Origin), Step::Invalid, "{flags:#x}");
        }
    }

    #[test]
    fn only_a_syn_opens() {
        assert_eq!(opening(SYN | 0xc0), Opening::Opens(SynSent));
        assert_eq!(opening(ACK | 0x08), Opening::Midstream(Established));
        assert_eq!(opening(ACK | FIN), Opening::Midstream(FinWait));
        assert_eq!(opening(SYN | ACK), Opening::Orphan);
        assert_eq!(opening(RST), Opening::Orphan);
    }
}
