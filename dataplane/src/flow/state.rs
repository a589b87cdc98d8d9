//! How far a connection has come, for every protocol, and how long it is remembered there.

use super::{sctp, tcp};
use crate::packet::transport::{ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE};
use crate::packet::{Headers, Role};
use crate::spec::Timeouts;

/// How far a connection has come. The names are those of the kernel's connection tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum State {
    /// No protocol with states; packets of one direction only.
    #[default]
    Single,
    /// No protocol with states; packets of both directions.
    Stream,
    /// TCP: SYN sent.
    SynSent,
    /// TCP: SYN sent by both sides.
    SynSent2,
    /// TCP: SYN answered.
    SynRecv,
    /// TCP, SCTP: open.
    Established,
    /// TCP: one side has finished.
    FinWait,
    /// TCP: the other side has acknowledged that, and may go on sending.
    CloseWait,
    /// TCP: both sides have finished.
    LastAck,
    /// TCP: all is acknowledged.
    TimeWait,
    /// TCP: reset. SCTP: ended.
    Close,
    /// SCTP: INIT sent.
    CookieWait,
    /// SCTP: cookie sent back.
    CookieEchoed,
    /// SCTP: one side shuts down.
    ShutdownSent,
    /// SCTP: the other side agrees.
    ShutdownAckSent,
    /// SCTP: a heartbeat tries this path.
    HeartbeatSent,
}

/// Which side of its connection a packet is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that opened it.
    Origin,
    /// The other one.
    Reply,
}

/// What a packet does to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It belongs to it, which is in this state then.
    To(State),
    /// It belongs to it and begins its end.
    Closes(State),
    /// It opens another one by the same key: the old one is over.
    Reopens,
    /// It cannot belong to it.
    Invalid,
}

/// What a packet is to a table that does not know its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// It opens one, which is in this state then.
    Opens(State),
    /// It belongs into the middle of one that was opened before, and would be in this state.
    Midstream(State),
    /// It belongs to one that must be known: an answer, a reset.
    Orphan,
    /// It belongs to none at all.
    Invalid,
}

impl State {
    /// Its name in lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "UNREPLIED",
            Self::Stream => "ASSURED",
            Self::SynSent => "SYN_SENT",
            Self::SynSent2 => "SYN_SENT2",
            Self::SynRecv => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CookieWait => "COOKIE_WAIT",
            Self::CookieEchoed => "COOKIE_ECHOED",
            Self::ShutdownSent => "SHUTDOWN_SENT",
            Self::ShutdownAckSent => "SHUTDOWN_ACK_SENT",
            Self::HeartbeatSent => "HEARTBEAT_SENT",
        }
    }

    /// All of them, in declaration order: index = `state as usize`.
    pub(super) const ALL: [Self; 16] = [
        Self::Single,
        Self::Stream,
        Self::SynSent,
        Self::SynSent2,
        Self::SynRecv,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Close,
        Self::CookieWait,
        Self::CookieEchoed,
        Self::ShutdownSent,
        Self::ShutdownAckSent,
        Self::HeartbeatSent,
    ];

    /// Plain packets of a connection in this state change nothing, except that the first answer is one.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Single | Self::Stream | Self::Established)
    }

    /// Nothing but stragglers is to come: its place may be given away.
    pub fn is_over(self) -> bool {
        matches!(self, Self::TimeWait | Self::Close)
    }

    /// Milliseconds of silence after which it is forgotten; `answered`: both sides were heard.
    pub fn timeout_ms(self, protocol: u8, answered: bool, timeouts: &Timeouts) -> u32 {
        let seconds = match (self, protocol) {
            (Self::Single | Self::Stream, ICMP | ICMPV6) => timeouts.icmp,
            (Self::Single, UDP | UDPLITE) => timeouts.udp,
            (Self::Stream, UDP | UDPLITE) => timeouts.udp_stream,
            (Self::Single | Self::Stream, _) => timeouts.generic,
            (Self::SynSent | Self::SynSent2, _) => timeouts.tcp_syn_sent,
            (Self::SynRecv, _) => timeouts.tcp_syn_recv,
            (Self::Established, SCTP) => timeouts.sctp_established,
            (Self::Established, _) if answered => timeouts.tcp_established,
            (Self::Established, _) => timeouts.tcp_unacknowledged,
            (Self::FinWait, _) => timeouts.tcp_fin_wait,
            (Self::CloseWait, _) => timeouts.tcp_close_wait,
            (Self::LastAck, _) => timeouts.tcp_last_ack,
            (Self::TimeWait, _) => timeouts.tcp_time_wait,
            (Self::Close, SCTP) => timeouts.sctp_closed,
            (Self::Close, _) => timeouts.tcp_close,
            (Self::CookieWait, _) => timeouts.sctp_cookie_wait,
            (Self::CookieEchoed, _) => timeouts.sctp_cookie_echoed,
            (Self::ShutdownSent | Self::ShutdownAckSent, _) => timeouts.sctp_shutdown,
            (Self::HeartbeatSent, _) => timeouts.sctp_heartbeat,
        };
        seconds.clamp(1, Timeouts::MAX) * 1000
    }

    /// What this packet of `from` does to a connection in this state; `closer`: the side that finished first.
    pub fn step(self, headers: &Headers, from: Side, closer: Side) -> Step {
        match headers.protocol() {
            TCP => tcp::step(self, headers.detail, from, closer),
            SCTP => sctp::step(self, headers.detail, from),
            _ => match from {
                Side::Origin => Step::To(self),
                Side::Reply => Step::To(Self::Stream),
            },
        }
    }
}

/// What this packet is when its connection is not known.
pub fn opening(headers: &Headers) -> Opening {
    match (headers.protocol(), headers.role) {
        (_, Role::Stray | Role::Error) => Opening::Invalid,
        (TCP, _) => tcp::opening(headers.detail),
        (SCTP, _) => sctp::opening(headers.detail),
        // An answer's key names the question, not the answer.
        (ICMP | ICMPV6, _) if headers.key.icmp().is_some_and(|(asked, _)| asked != headers.detail) => {
            Opening::Orphan
        }
        _ => Opening::Opens(State::Single),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_numbered_and_named() {
        for (number, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
            assert!(State::ALL[..number].iter().all(|other| other.name() != state.name()));
        }
    }

    #[test]
    fn every_state_ends_some_day() {
        let mut none = Timeouts::default();
        none.named().into_iter().for_each(|(_, seconds)| *seconds = 0);
        let mut never = Timeouts::default();
        never.named().into_iter().for_each(|(_, seconds)| *seconds = u32::MAX);
        for state in State::ALL {
            for protocol in [ICMP, TCP, UDP, SCTP, ICMPV6, UDPLITE, 47] {
                for answered in [false, true] {
                    assert_eq!(state.timeout_ms(protocol, answered, &none), 1000);
                    // Half the clock's range: what is due can be told from what is not.
                    assert!(state.timeout_ms(protocol, answered, &never) < 1 << 31);
                }
            }
        }
    }
}
