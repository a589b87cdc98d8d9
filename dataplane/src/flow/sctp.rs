//! SCTP's states as an onlooker in the middle sees them, by the chunk that matters most (RFC 9260 §4).

use super::state::{Opening, Side, State, Step};

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

pub(super) fn opening(chunk: u8) -> Opening {
    match chunk {
        INIT => Opening::Opens(State::CookieWait),
        // A further path of an association is tried before it is used (RFC 9260 §5.4).
        HEARTBEAT => Opening::Opens(State::HeartbeatSent),
        INIT_ACK | HEARTBEAT_ACK | COOKIE_ECHO | COOKIE_ACK | ABORT | SHUTDOWN_COMPLETE => Opening::Orphan,
        SHUTDOWN | SHUTDOWN_ACK => Opening::Midstream(State::ShutdownSent),
        _ => Opening::Midstream(State::Established),
    }
}

pub(super) fn step(state: State, chunk: u8, from: Side) -> Step {
    use Side::{Origin, Reply};
    use State::*;
    let stay = Step::To(state);
    match (chunk, state, from) {
        (ABORT | SHUTDOWN_COMPLETE, ..) => Step::To(Close),
        (INIT, Close, _) => Step::Reopens,
        // Retransmitted, or both at once (RFC 9260 §5.2.1), or its sender has started anew (§5.2.2).
        (INIT, CookieWait, _) | (INIT, _, Origin) => stay,
        // Policy has allowed the other side to open associations, not this one.
        (INIT, ..) => Step::Invalid,
        (INIT_ACK, CookieWait, _) => stay,
        (COOKIE_ECHO, CookieWait | CookieEchoed, _) => Step::To(CookieEchoed),
        (COOKIE_ACK, CookieEchoed, _) => Step::To(Established),
        (HEARTBEAT_ACK, HeartbeatSent, Reply) => Step::To(Established),
        (HEARTBEAT, HeartbeatSent, _) => stay,
        (_, CookieWait | HeartbeatSent, _) => Step::Invalid,
        (SHUTDOWN, Established, _) => Step::To(ShutdownSent),
        (SHUTDOWN_ACK, Established | ShutdownSent, _) => Step::To(ShutdownAckSent),
        _ => stay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Side::{Origin, Reply};
    use State::*;

    const DATA: u8 = 0;

    #[test]
    fn an_association_from_init_to_its_end() {
        let Opening::Opens(mut state) = opening(INIT) else { panic!("no opening") };
        for (from, chunk, expected) in [
            (Origin, INIT, CookieWait),
            (Reply, INIT_ACK, CookieWait),
            (Origin, COOKIE_ECHO, CookieEchoed),
            (Origin, DATA, CookieEchoed),
            (Reply, COOKIE_ACK, Established),
            (Reply, DATA, Established),
            (Origin, HEARTBEAT, Established),
            (Reply, SHUTDOWN, ShutdownSent),
            (Origin, SHUTDOWN_ACK, ShutdownAckSent),
            (Reply, SHUTDOWN_COMPLETE, Close),
            (Origin, SHUTDOWN_ACK, Close),
        ] {
            assert_eq!(step(state, chunk, from), Step::To(expected), "{chunk} in {state:?}");
            state = expected;
        }
        assert_eq!(step(state, INIT, Reply), Step::Reopens);
    }

    #[test]
    fn data_opens_nothing() {
        assert_eq!(opening(DATA), Opening::Midstream(Established));
        assert_eq!(opening(COOKIE_ECHO), Opening::Orphan);
        assert_eq!(step(CookieWait, DATA, Origin), Step::Invalid);
        assert_eq!(step(HeartbeatSent, DATA, Origin), Step::Invalid);
        assert_eq!(step(Established, INIT, Reply), Step::Invalid);
    }

    #[test]
    fn a_second_path_is_open_once_its_heartbeat_is_answered() {
        assert_eq!(opening(HEARTBEAT), Opening::Opens(HeartbeatSent));
        assert_eq!(step(HeartbeatSent, HEARTBEAT, Origin), Step::To(HeartbeatSent));
        assert_eq!(step(HeartbeatSent, HEARTBEAT_ACK, Reply), Step::To(Established));
    }

    #[test]
    fn an_abort_ends_it_in_any_state() {
        for state in State::ALL {
            assert_eq!(step(state, ABORT, Reply), Step::To(Close));
        }
    }
}
