//! Nothing else is touched: firewalls, sysctls, routes, links and addresses before, during and after.

use anyhow::{Result, ensure};
use netns_tests::behind::Link;
use netns_tests::fingerprint::{Fingerprint, Owned};
use netns_tests::overlay::wait_reachable;
use netns_tests::topology::Host;
use netns_tests::{Canal, CanalOptions, Network, Overlay, Role, Shape, Topology, wait};

/// A host that somebody else has configured: both kinds of iptables, nftables, an IP set, routes, rules, a queue discipline.
fn foreign_configuration(host: &Host) -> Result<()> {
    let ns = &host.ns;
    for table in ["iptables", "ip6tables"] {
        // What breaks bridged and routed pods on real hosts; canal's do not pass there.
        ns.run(&[&format!("{table}-legacy"), "-P", "FORWARD", "DROP"])?;
        ns.run(&[table, "-A", "INPUT", "-m", "comment", "--comment", "foreign", "-j", "ACCEPT"])?;
    }
    ns.run(&["nft", "add table inet foreign"])?;
    ns.run(&["nft", "add chain inet foreign c { type filter hook forward priority 0; policy drop; }"])?;
    ns.run(&["ipset", "create", "foreign", "hash:ip"])?;
    ns.run(&["ipset", "add", "foreign", "10.1.2.3"])?;
    ns.ip("rule add pref 500 from 10.99.0.0/16 lookup 500")?;
    ns.ip("route add 10.98.0.0/16 dev eth0 table 500")?;
    ns.ip("route add 10.97.0.0/16 via 192.168.77.1")?;
    ns.run(&["tc", "qdisc", "add", "dev", "eth0", "root", "pfifo", "limit", "321"])?;
    Ok(())
}

fn untouched_over(port: &str, end: fn(&mut Canal<'_>) -> Result<()>) -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let host = &topology.hosts[0];
    foreign_configuration(host)?;
    let link = Link::new(&topology, host, 1)?;
    let plain = link.host(2)?;
    let empty = Fingerprint::of(&host.ns)?;
    let words = ["--gateway-iface", "eth1", "--gateway-announce"];
    let options = CanalOptions { port: port.to_owned(), ..CanalOptions::with(&words) };
    let network = Network { dual: true, ..Network::default() };
    let mut overlay = Overlay::start(&topology, &network, &[Role::Canal(options), Role::Kernel])?;
    overlay.exchange(overlay.pod(0), overlay.pod(1), 62)?;
    for to in plain.addresses() {
        wait_reachable(overlay.pod(0), to)?;
    }

    let veth = overlay.pod(0).interface.clone();
    let during = Fingerprint::of(&host.ns)?;
    // The pod's own veth is the test's, not canal's: its lines are expected besides canal's.
    let difference: Vec<String> = empty
        .difference(&during, &Owned::by_canal(&[&veth, "eth1"]))
        .into_iter()
        .filter(|line| !line.contains(&veth))
        .collect();
    ensure!(difference.is_empty(), "while it runs:\n{}", difference.join("\n"));

    end(overlay.canal_mut(0))?;
    let mut difference = Vec::new();
    let clean = wait::until("everything is as before", wait::SOON, || {
        let lines = empty.difference(&Fingerprint::of(&host.ns)?, &Owned::nothing());
        // What the veth brings with it stays; a program left on it does not count as the veth's.
        let left = |l: &String| {
            !l.contains(&veth) || ["programs", "filters", "xdp"].iter().any(|s| l.starts_with(s))
        };
        difference = lines.into_iter().filter(left).collect();
        Ok(difference.is_empty())
    });
    ensure!(clean.is_ok(), "afterwards:\n{}", difference.join("\n"));
    topology.pass()
}

#[test]
fn nothing_else_is_touched_until_sigterm_with_the_tap_port() -> Result<()> {
    untouched_over("tap", |canal| canal.terminate().map(drop))
}

#[test]
fn nothing_else_is_touched_until_kill_nine_with_the_tap_port() -> Result<()> {
    untouched_over("tap", |canal| canal.kill())
}

#[test]
fn nothing_else_is_touched_until_sigterm_with_the_udp_port() -> Result<()> {
    untouched_over("udp", |canal| canal.terminate().map(drop))
}

#[test]
fn nothing_else_is_touched_until_sigterm_with_the_af_xdp_port() -> Result<()> {
    untouched_over("af-xdp", |canal| canal.terminate().map(drop))
}

#[test]
fn nothing_else_is_touched_until_kill_nine_with_the_af_xdp_port() -> Result<()> {
    untouched_over("af-xdp", |canal| canal.kill())
}
