//! Questions by HTTP, for probes and metrics.

use crate::netns::Netns;
use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Status code and whole text of the answer to `GET`; `url` is an address, a port and a path (`127.0.0.1:9191/metrics`), as
/// seen from inside of `ns`.
pub fn get(ns: &Netns, url: &str) -> Result<(u16, String)> {
    let (host, path) = url.split_once('/').context("host/path")?;
    ns.enter(|| {
        let mut stream = TcpStream::connect(host).with_context(|| host.to_owned())?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let code = text.split(' ').nth(1).context("no status")?.parse()?;
        Ok((code, text))
    })
}
