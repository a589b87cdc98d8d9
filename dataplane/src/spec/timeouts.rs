//! How long connections are remembered while nothing happens.

/// Seconds of silence after which a connection in each state is forgotten. The defaults are those of the kernel's
/// connection tracking (`net.netfilter.nf_conntrack_*_timeout*`), so that what lives on a node without canal lives with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP: SYN sent, no answer.
    pub tcp_syn_sent: u32,
    /// TCP: SYN answered, not yet acknowledged.
    pub tcp_syn_recv: u32,
    /// TCP: open.
    pub tcp_established: u32,
    /// TCP: picked up under way, and only one side has been heard.
    pub tcp_unacknowledged: u32,
    /// TCP: one side has finished.
    pub tcp_fin_wait: u32,
    /// TCP: the other side has acknowledged that.
    pub tcp_close_wait: u32,
    /// TCP: both have finished, the last acknowledgement is due.
    pub tcp_last_ack: u32,
    /// TCP: all is acknowledged; stragglers may come.
    pub tcp_time_wait: u32,
    /// TCP: reset.
    pub tcp_close: u32,
    /// UDP and UDP-Lite: one way only.
    pub udp: u32,
    /// UDP and UDP-Lite: both ways.
    pub udp_stream: u32,
    /// ICMP, ICMPv6: questions and answers.
    pub icmp: u32,
    /// SCTP: INIT sent.
    pub sctp_cookie_wait: u32,
    /// SCTP: cookie sent back.
    pub sctp_cookie_echoed: u32,
    /// SCTP: open.
    pub sctp_established: u32,
    /// SCTP: shutting down, in any of its steps.
    pub sctp_shutdown: u32,
    /// SCTP: ended or aborted.
    pub sctp_closed: u32,
    /// SCTP: a path that was tried by a heartbeat.
    pub sctp_heartbeat: u32,
    /// Every other protocol.
    pub generic: u32,
}

impl Timeouts {
    /// Longest time a timer of the flow table can run, in seconds: its clock wraps after 49 days.
    pub const MAX: u32 = 20 * 86_400;

    /// Every timeout with its name, as users write it.
    pub fn named(&mut self) -> [(&'static str, &mut u32); 19] {
        [
            ("tcp-syn-sent", &mut self.tcp_syn_sent),
            ("tcp-syn-recv", &mut self.tcp_syn_recv),
            ("tcp-established", &mut self.tcp_established),
            ("tcp-unacknowledged", &mut self.tcp_unacknowledged),
            ("tcp-fin-wait", &mut self.tcp_fin_wait),
            ("tcp-close-wait", &mut self.tcp_close_wait),
            ("tcp-last-ack", &mut self.tcp_last_ack),
            ("tcp-time-wait", &mut self.tcp_time_wait),
            ("tcp-close", &mut self.tcp_close),
            ("udp", &mut self.udp),
            ("udp-stream", &mut self.udp_stream),
            ("icmp", &mut self.icmp),
            ("sctp-cookie-wait", &mut self.sctp_cookie_wait),
            ("sctp-cookie-echoed", &mut self.sctp_cookie_echoed),
            ("sctp-established", &mut self.sctp_established),
            ("sctp-shutdown", &mut self.sctp_shutdown),
            ("sctp-closed", &mut self.sctp_closed),
            ("sctp-heartbeat", &mut self.sctp_heartbeat),
            ("generic", &mut self.generic),
        ]
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_syn_sent: 120,
            tcp_syn_recv: 60,
            tcp_established: 5 * 86_400,
            tcp_unacknowledged: 300,
            tcp_fin_wait: 120,
            tcp_close_wait: 60,
            tcp_last_ack: 30,
            tcp_time_wait: 120,
            tcp_close: 10,
            udp: 30,
            udp_stream: 120,
            icmp: 30,
            sctp_cookie_wait: 3,
            sctp_cookie_echoed: 3,
            sctp_established: 210,
            sctp_shutdown: 3,
            sctp_closed: 10,
            sctp_heartbeat: 30,
            generic: 600,
        }
    }
}
