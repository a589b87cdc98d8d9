//! ping(8), with its answers read one by one.

use crate::netns::Netns;
use anyhow::{Context, Result, ensure};
use std::net::IpAddr;

/// A ping to be sent.
#[derive(Clone, Debug)]
pub struct Ping {
    to: IpAddr,
    words: Vec<String>,
    count: u32,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// Echo requests sent.
    pub sent: u32,
    /// Echo replies received.
    pub received: u32,
    /// Replies received twice.
    pub duplicates: u32,
    /// TTL or hop limit of each reply.
    pub ttls: Vec<u8>,
    /// ICMP errors: who sent it and what it says, as ping prints it.
    pub errors: Vec<(String, String)>,
    /// Path MTUs quoted by those errors or known to the sender's kernel.
    pub mtus: Vec<u32>,
}

impl Ping {
    /// Three echo requests of 56 bytes.
    pub fn to(to: impl Into<IpAddr>) -> Self {
        Self { to: to.into(), words: Vec::new(), count: 3 }
    }

    /// Number of requests.
    pub fn count(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// Size of the whole IP packet in bytes, headers included.
    pub fn packet_size(self, bytes: u32) -> Self {
        let headers = if self.to.is_ipv4() { 28 } else { 48 };
        self.word("-s").word(&(bytes - headers).to_string())
    }

    /// Sets DF and never fragments locally (IPv4), never fragments (IPv6).
    pub fn dont_fragment(self) -> Self {
        self.word("-M").word("do")
    }

    /// TTL or hop limit of the requests.
    pub fn ttl(self, ttl: u8) -> Self {
        self.word("-t").word(&ttl.to_string())
    }

    /// Source address.
    pub fn from(self, from: impl Into<IpAddr>) -> Self {
        self.word("-I").word(&from.into().to_string())
    }

    /// Socket mark of the requests: a GBP device sends it as group id.
    pub fn mark(self, mark: u32) -> Self {
        self.word("-m").word(&mark.to_string())
    }

    /// Traffic class byte of the requests (DSCP and ECN).
    pub fn tos(self, tos: u8) -> Self {
        self.word("-Q").word(&tos.to_string())
    }

    fn word(mut self, word: &str) -> Self {
        self.words.push(word.to_owned());
        self
    }

    /// Sends from `ns`, 50 ms apart, and reads what comes back, whatever it is. That is waited for up to 2 s while nothing
    /// has been answered; afterwards ping waits for the last answer twice as long as for the slowest before, or 50 ms.
    pub fn run(&self, ns: &Netns) -> Result<Answers> {
        self.send(ns, ["-i", "0.05"])
    }

    fn send(&self, ns: &Netns, pace: [&str; 2]) -> Result<Answers> {
        let count = self.count.to_string();
        let to = self.to.to_string();
        let mut argv = vec!["ping", "-n", "-W", "2", "-c", &count];
        argv.extend(pace);
        argv.extend(self.words.iter().map(String::as_str));
        argv.push(&to);
        let done = ns.output(&argv)?;
        let stdout = String::from_utf8_lossy(&done.stdout);
        let text = format!("{stdout}\n{}", String::from_utf8_lossy(&done.stderr));
        parse(&text).with_context(|| format!("`{}` said:\n{text}", argv.join(" ")))
    }

    /// Sends from `ns`; every request must be answered exactly once, within 2 s.
    ///
    /// All are sent at once: before anything has been answered, so that ping waits for all of them.
    pub fn expect_all(&self, ns: &Netns) -> Result<Answers> {
        let answers = self.send(ns, ["-l", &self.count.to_string()])?;
        ensure!(
            answers.received == self.count && answers.duplicates == 0,
            "ping {} -> {} {:?}: {answers:?}",
            ns.name(),
            self.to,
            self.words
        );
        Ok(answers)
    }

    /// Sends from `ns`; nothing may be answered.
    pub fn expect_none(&self, ns: &Netns) -> Result<Answers> {
        let answers = self.run(ns)?;
        ensure!(
            answers.received == 0 && answers.sent == self.count,
            "ping {} -> {} {:?} should have died: {answers:?}",
            ns.name(),
            self.to,
            self.words
        );
        Ok(answers)
    }
}

fn number_after<'a>(line: &'a str, marks: &[&str]) -> Option<&'a str> {
    let rest = marks.iter().find_map(|mark| line.split_once(mark))?.1.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}

fn parse(text: &str) -> Result<Answers> {
    let mut answers = Answers::default();
    let mut summary = false;
    for line in text.lines() {
        if let Some(mtu) = number_after(line, &["mtu = ", "mtu=", "mtu: "]) {
            answers.mtus.push(mtu.parse()?);
        }
        if line.contains(" bytes from ") {
            if let Some(ttl) = number_after(line, &["ttl="]) {
                answers.ttls.push(ttl.parse()?);
            }
            answers.duplicates += u32::from(line.contains("(DUP!)"));
        } else if let Some(rest) = line.strip_prefix("From ") {
            let (who, what) = rest.split_once(' ').context("an error without text")?;
            let what = what.split_once(' ').map_or(what, |(_, text)| text);
            answers.errors.push((who.trim_end_matches(':').to_owned(), what.to_owned()));
        } else if line.contains(" packets transmitted") {
            let mut numbers = line.split(", ").filter_map(|part| part.split(' ').next()?.parse().ok());
            answers.sent = numbers.next().context("no count of sent packets")?;
            answers.received = numbers.next().context("no count of received packets")?;
            summary = true;
        }
    }
    ensure!(summary, "no summary line");
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_errors_and_mtus_are_read() {
        let text = "PING 10.244.1.2 (10.244.1.2) 1472(1500) bytes of data.\n\
            From 169.254.1.1 icmp_seq=1 Frag needed and DF set (mtu = 1450)\n\
            64 bytes from 10.244.1.2: icmp_seq=2 ttl=62 time=0.05 ms\n\
            64 bytes from 10.244.1.2: icmp_seq=2 ttl=62 time=0.06 ms (DUP!)\n\
            ping: local error: message too long, mtu=1400\n\n\
            --- 10.244.1.2 ping statistics ---\n\
            3 packets transmitted, 1 received, +1 duplicates, +1 errors, 66% packet loss, time 40ms\n";
        let expected = Answers {
            sent: 3,
            received: 1,
            duplicates: 1,
            ttls: vec![62, 62],
            errors: vec![("169.254.1.1".to_owned(), "Frag needed and DF set (mtu = 1450)".to_owned())],
            mtus: vec![1450, 1400],
        };
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn a_ping_that_never_ran_is_an_error() {
        assert!(parse("ping: connect: Network is unreachable\n").is_err());
    }
}
