//! What a packet does to a connection, as a list of rows that is searched from top to bottom.

use crate::spec::Timeouts;

/// Which side of its connection a packet is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The one that opened it.
    Origin,
    /// The other one.
    Reply,
    /// Either.
    Any,
    /// The one that has not finished first.
    Lasting,
}

/// State, sender, packet, next state. `*` = any, `=` = the same, `!` = makes no sense, `new` = opens another connection.
type Row = (&'static str, Who, &'static str, &'static str);

use Who::{Any, Lasting, Origin, Reply};

const TCP: [Row; 27] = [
    ("*", Any, "rst", "CLOSE"),
    ("SYN_SENT", Origin, "syn", "="),
    ("SYN_SENT", Reply, "syn", "SYN_SENT2"),
    ("SYN_SENT2", Any, "syn", "="),
    ("LAST_ACK", Any, "syn", "new"),
    ("TIME_WAIT", Any, "syn", "new"),
    ("CLOSE", Any, "syn", "new"),
    ("*", Origin, "syn", "="),
    ("*", Reply, "syn", "!"),
    ("SYN_SENT", Reply, "syn+ack", "SYN_RECV"),
    ("SYN_SENT2", Any, "syn+ack", "SYN_RECV"),
    ("SYN_RECV", Any, "syn+ack", "="),
    ("*", Reply, "syn+ack", "="),
    ("*", Origin, "syn+ack", "!"),
    ("SYN_SENT", Origin, "ack", "!"),
    ("SYN_SENT2", Origin, "ack", "!"),
    ("SYN_RECV", Origin, "ack", "ESTABLISHED"),
    ("FIN_WAIT", Lasting, "ack", "CLOSE_WAIT"),
    ("LAST_ACK", Any, "ack", "TIME_WAIT"),
    ("*", Any, "ack", "="),
    ("SYN_SENT", Any, "fin", "!"),
    ("SYN_SENT2", Any, "fin", "!"),
    ("SYN_RECV", Any, "fin", "FIN_WAIT"),
    ("ESTABLISHED", Any, "fin", "FIN_WAIT"),
    ("FIN_WAIT", Lasting, "fin", "LAST_ACK"),
    ("CLOSE_WAIT", Lasting, "fin", "LAST_ACK"),
    ("*", Any, "fin", "="),
];

const SCTP: [Row; 20] = [
    ("*", Any, "abort", "CLOSE"),
    ("*", Any, "shutdown-complete", "CLOSE"),
    ("CLOSE", Any, "init", "new"),
    ("COOKIE_WAIT", Any, "init", "="),
    ("*", Origin, "init", "="),
    ("*", Reply, "init", "!"),
    ("COOKIE_WAIT", Any, "init-ack", "="),
    ("COOKIE_WAIT", Any, "cookie-echo", "COOKIE_ECHOED"),
    ("COOKIE_ECHOED", Any, "cookie-echo", "="),
    ("COOKIE_ECHOED", Any, "cookie-ack", "ESTABLISHED"),
    ("HEARTBEAT_SENT", Reply, "heartbeat-ack", "ESTABLISHED"),
    ("HEARTBEAT_SENT", Any, "heartbeat", "="),
    ("COOKIE_WAIT", Any, "*", "!"),
    ("HEARTBEAT_SENT", Any, "*", "!"),
    ("ESTABLISHED", Any, "shutdown", "SHUTDOWN_SENT"),
    ("ESTABLISHED", Any, "shutdown-ack", "SHUTDOWN_ACK_SENT"),
    ("SHUTDOWN_SENT", Any, "shutdown-ack", "SHUTDOWN_ACK_SENT"),
    ("SHUTDOWN_SENT", Any, "shutdown", "="),
    ("SHUTDOWN_ACK_SENT", Any, "shutdown", "="),
    ("*", Any, "*", "="),
];

/// Everything else: only who has been heard counts.
const OTHER: [Row; 3] =
    [("UNREPLIED", Reply, "*", "ASSURED"), ("ASSURED", Any, "*", "="), ("UNREPLIED", Origin, "*", "=")];

/// A TCP segment by its flags; `""` for flags that no stack sends together.
fn segment(flags: u8) -> &'static str {
    let set = |bit: u8| flags & bit != 0;
    match (set(2), set(16), set(1), set(4)) {
        (true, false, false, false) => "syn",
        (true, true, false, false) => "syn+ack",
        (false, true, false, false) => "ack",
        (false, true, true, false) => "fin",
        (false, _, false, true) => "rst",
        _ => "",
    }
}

fn chunk(kind: u8) -> &'static str {
    match kind {
        1 => "init",
        2 => "init-ack",
        4 => "heartbeat",
        5 => "heartbeat-ack",
        6 => "abort",
        7 => "shutdown",
        8 => "shutdown-ack",
        10 => "cookie-echo",
        11 => "cookie-ack",
        14 => "shutdown-complete",
        _ => "data",
    }
}

/// What a packet of this protocol, with these flags or this chunk, is to states.
fn event(protocol: u8, detail: u8) -> &'static str {
    match protocol {
        6 => segment(detail),
        132 => chunk(detail),
        _ => "packet",
    }
}

/// The state after a packet: the name of one, or `!` or `new`. `from` is a side, `closer` the one that finished first.
pub fn next(state: &'static str, protocol: u8, detail: u8, from: Who, closer: Who) -> &'static str {
    let rows: &[Row] = match protocol {
        6 => &TCP,
        132 => &SCTP,
        _ => &OTHER,
    };
    let event = event(protocol, detail);
    let matches = |row: &&Row| {
        let who = match row.1 {
            Any => true,
            Lasting => from != closer,
            side => from == side,
        };
        (row.0 == "*" || row.0 == state) && who && (row.2 == "*" || row.2 == event)
    };
    match rows.iter().find(matches) {
        None => "!",
        Some((.., "=")) => state,
        Some((.., next)) => next,
    }
}

/// What a packet is when its connection is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It opens one.
    Opens(&'static str),
    /// It is from the middle of one.
    Middle(&'static str),
    /// It needs one.
    Needs,
    /// It makes no sense.
    Never,
}

/// What a packet of this protocol, with these flags or this chunk, is when its connection is not known.
pub fn start(protocol: u8, detail: u8) -> Start {
    match (protocol, event(protocol, detail)) {
        (6, "syn") => Start::Opens("SYN_SENT"),
        (6, "ack") => Start::Middle("ESTABLISHED"),
        (6, "fin") => Start::Middle("FIN_WAIT"),
        (6, "syn+ack" | "rst") => Start::Needs,
        (6, _) => Start::Never,
        (132, "init") => Start::Opens("COOKIE_WAIT"),
        (132, "heartbeat") => Start::Opens("HEARTBEAT_SENT"),
        (132, "shutdown" | "shutdown-ack") => Start::Middle("SHUTDOWN_SENT"),
        (132, "data") => Start::Middle("ESTABLISHED"),
        (132, _) => Start::Needs,
        _ => Start::Opens("UNREPLIED"),
    }
}

/// Milliseconds of silence after which a connection in this state is forgotten.
pub fn timeout_ms(state: &str, protocol: u8, answered: bool, t: &Timeouts) -> u64 {
    let seconds = match (state, protocol, answered) {
        ("SYN_SENT" | "SYN_SENT2", ..) => t.tcp_syn_sent,
        ("SYN_RECV", ..) => t.tcp_syn_recv,
        ("ESTABLISHED", 6, true) => t.tcp_established,
        ("ESTABLISHED", 6, false) => t.tcp_unacknowledged,
        ("FIN_WAIT", ..) => t.tcp_fin_wait,
        ("CLOSE_WAIT", ..) => t.tcp_close_wait,
        ("LAST_ACK", ..) => t.tcp_last_ack,
        ("TIME_WAIT", ..) => t.tcp_time_wait,
        ("CLOSE", 6, _) => t.tcp_close,
        ("CLOSE", ..) => t.sctp_closed,
        ("COOKIE_WAIT", ..) => t.sctp_cookie_wait,
        ("COOKIE_ECHOED", ..) => t.sctp_cookie_echoed,
        ("ESTABLISHED", ..) => t.sctp_established,
        ("HEARTBEAT_SENT", ..) => t.sctp_heartbeat,
        ("SHUTDOWN_SENT" | "SHUTDOWN_ACK_SENT", ..) => t.sctp_shutdown,
        (_, 1 | 58, _) => t.icmp,
        ("UNREPLIED", 17 | 136, _) => t.udp,
        ("ASSURED", 17 | 136, _) => t.udp_stream,
        _ => t.generic,
    };
    u64::from(seconds) * 1000
}
