//! The daemon ends and starts again under traffic: streams finish, the host never notices, nothing is left behind.

use anyhow::{Result, ensure};
use netns_tests::frames::{Link, mac};
use netns_tests::packet_socket::PacketSocket;
use netns_tests::plan::GATEWAY_MAC;
use netns_tests::traffic::udp::Echo;
use netns_tests::traffic::{Flows, Ping, Transfer};
use netns_tests::{Canal, Network, Overlay, Role, Shape, Store, Topology, attached, wait};
use std::net::SocketAddrV4;
use std::time::Duration;

/// Ends the daemon on host 0 with `end`, looks at what is left, starts it again; a stream that runs all the time must finish.
fn under_a_transfer(port: &str, remote: Role, end: fn(&mut Canal<'_>) -> Result<()>) -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let mut overlay = Overlay::start(&topology, &Network::default(), &[Role::port(port), remote])?;
    let out =
        Transfer::endless(&overlay.pod(0).ns, &overlay.pod(1).ns, overlay.pod(1).v4.into(), 10_000_000)?;
    let back =
        Transfer::endless(&overlay.pod(1).ns, &overlay.pod(0).ns, overlay.pod(0).v4.into(), 10_000_000)?;
    for _ in 0..2 {
        for stream in [&out, &back] {
            stream.expect_progress(1_000_000, wait::SOON)?;
        }
        end(overlay.canal_mut(0))?;
        let host = &overlay.host(0).ns;
        Ping::to(netns_tests::plan::switch_v4(0)).expect_all(host)?;
        wait::until("nothing is left attached", Duration::from_secs(5), || {
            let left = attached::programs(host)?;
            ensure!(left.is_empty(), "{left:?}");
            let links = host.ip("-o link")?;
            ensure!(!links.contains("canal0"), "{links}");
            Ok(true)
        })?;
        Ping::to(overlay.pod(1).v4).count(1).expect_none(&overlay.pod(0).ns)?;
        overlay.canal_mut(0).restart()?;
    }
    for stream in [out, back] {
        stream.expect_progress(1_000_000, wait::SOON)?;
        ensure!(stream.finish(wait::SOON)? > 3_000_000, "it finished");
    }
    topology.pass()
}

fn terminate(canal: &mut Canal<'_>) -> Result<()> {
    let status = canal.terminate()?;
    ensure!(status.success(), "SIGTERM is an orderly end: {status}");
    Ok(())
}

fn kill(canal: &mut Canal<'_>) -> Result<()> {
    canal.kill()
}

#[test]
fn a_transfer_survives_sigterm_and_restart_towards_canal() -> Result<()> {
    under_a_transfer("auto", Role::canal(), terminate)
}

#[test]
fn a_transfer_survives_sigterm_and_restart_towards_the_kernel() -> Result<()> {
    under_a_transfer("auto", Role::Kernel, terminate)
}

#[test]
fn a_transfer_survives_kill_nine_and_restart_towards_canal() -> Result<()> {
    under_a_transfer("auto", Role::canal(), kill)
}

#[test]
fn a_transfer_survives_kill_nine_and_restart_over_the_udp_port() -> Result<()> {
    under_a_transfer("udp", Role::Kernel, kill)
}

#[test]
fn a_second_daemon_on_the_same_host_is_refused() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let mut overlay = Overlay::start(&topology, &Network::default(), &[Role::canal()])?;
    let mut second = Canal::prepare(&topology, 0, &overlay.store, Default::default())?;
    second.launch()?;
    let status = second.wait_exit(wait::SOON)?;
    ensure!(status.is_some_and(|s| !s.success()), "it must not share the device: {status:?}");
    overlay.canal_mut(0).wait_ready(wait::SOON)?;
    Ping::to(overlay.subnets(0)?.v4).expect_all(&overlay.pod(0).ns)?;
    topology.pass()
}

#[test]
fn once_it_is_ready_the_very_first_packet_of_a_pod_is_forwarded() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let mut overlay = Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::Kernel])?;
    let echo = Echo::start(&overlay.pod(1).ns, overlay.pod(1).v4.into())?;
    let lease = overlay.canal(0).lease(&overlay.store)?;
    for with_lease in [true, false] {
        overlay.canal_mut(0).terminate()?;
        if !with_lease {
            overlay.store.delete_lease(&lease.subnets.key())?;
        }
        overlay.canal_mut(0).restart()?;
        let pod = overlay.pod(0);
        let link = Link { from: mac(&pod.mac), to: mac(GATEWAY_MAC) };
        let mut flows = Flows::new(link, pod.v4, SocketAddrV4::new(overlay.pod(1).v4, echo.address.port()));
        let socket = PacketSocket::open(&pod.ns, "eth0")?;
        // So long a pause that a second one is sent only when the first was lost.
        let sent = flows.until_answered(&socket, Duration::from_secs(2), wait::SOON)?;
        ensure!(sent == 1, "{sent} datagrams for one answer");
    }
    topology.pass()
}
