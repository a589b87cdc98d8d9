//! A port that answers, and askers that tell whether it can be reached: what policy is about.

use crate::netns::Netns;
use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long an asker waits for what should be dropped; answers take a few milliseconds even on a busy machine.
const PATIENCE: Duration = Duration::from_millis(700);
/// How often the server looks whether it is to end.
const TURN: Duration = Duration::from_millis(50);

/// TCP and UDP at one port of one address: connections are accepted and closed, datagrams come back. Ends when dropped.
#[derive(Debug)]
pub struct Service {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Service {
    /// Starts it in a namespace.
    pub fn start(ns: &Netns, address: IpAddr, port: u16) -> Result<Self> {
        let (listener, socket) = ns.enter(move || {
            let at = SocketAddr::new(address, port);
            Ok((TcpListener::bind(at).context("listening")?, UdpSocket::bind(at).context("binding")?))
        })?;
        listener.set_nonblocking(true)?;
        socket.set_read_timeout(Some(TURN))?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let tcp = std::thread::spawn(move || accept(&listener, &flag));
        let flag = Arc::clone(&stop);
        let udp = std::thread::spawn(move || echo(&socket, &flag));
        Ok(Self { stop, threads: vec![tcp, udp] })
    }
}

fn accept(listener: &TcpListener, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok(connection) => drop(connection),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(TURN / 10),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn echo(socket: &UdpSocket, stop: &AtomicBool) -> Result<()> {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((n, from)) = socket.recv_from(&mut buffer) {
            // A lost answer is what the asker sees.
            socket.send_to(&buffer[..n], from).ok();
        }
    }
    Ok(())
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// Does a TCP connection from `client` come about?
pub fn tcp_connects(client: &Netns, to: SocketAddr) -> Result<bool> {
    client.enter(move || Ok(TcpStream::connect_timeout(&to, PATIENCE).is_ok()))
}

/// Does a UDP datagram from `client` come back?
pub fn udp_answers(client: &Netns, to: SocketAddr) -> Result<bool> {
    client.enter(move || {
        let any: IpAddr = if to.is_ipv4() { "0.0.0.0".parse()? } else { "::".parse()? };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(b"are you there?").with_context(|| to.to_string())?;
        Ok(socket.recv(&mut [0; 64]).is_ok())
    })
}
