//! All peers up, then run after run, each measuring every peer in turn.

use crate::cluster::Cluster;
use crate::conntrack::Room;
use crate::interrupt;
use crate::line::{self, Line};
use crate::open_vswitch;
use crate::pair::Pair;
use crate::peer::{Forwarder, Peer};
use crate::report::Samples;
use crate::scenario::{Place, Scenario};
use crate::site::{Plan, Site};
use anyhow::{Context, Result};
use netns_tests::{Shape, Topology};

/// Measures `scenarios` on `peers` (none given: those that the scenario is about). One failure costs no other's numbers;
/// failures are returned beside the samples.
pub fn all(scenarios: &[Scenario], peers: &[Peer], runs: usize, plan: &Plan) -> (Samples, Vec<String>) {
    let (mut samples, mut failed) = (Samples::default(), Vec::new());
    for place in [Place::Pair, Place::Line, Place::Cluster] {
        let here: Vec<Scenario> = scenarios.iter().copied().filter(|s| s.place() == place).collect();
        if !here.is_empty() {
            at(place, &here, peers, runs, plan, &mut samples, &mut failed);
        }
    }
    (samples, failed)
}

fn at(
    place: Place,
    scenarios: &[Scenario],
    peers: &[Peer],
    runs: usize,
    plan: &Plan,
    samples: &mut Samples,
    failed: &mut Vec<String>,
) {
    let mut peers = peers.to_vec();
    if peers.is_empty() {
        for peer in scenarios.iter().flat_map(|s| s.usual_peers(plan)) {
            if !peers.contains(&peer) {
                peers.push(peer);
            }
        }
    }
    peers.retain(|peer| scenarios.iter().any(|scenario| scenario.measurable(peer)));
    if peers.iter().any(|peer| peer.forwarder == Forwarder::OpenVSwitch) && !open_vswitch::is_installed() {
        eprintln!("!!! Open vSwitch is not installed (Debian's package openvswitch-switch): left out");
        peers.retain(|peer| peer.forwarder != Forwarder::OpenVSwitch);
    }
    let mut note = |what: String, result: Result<()>| {
        if let Err(error) = result {
            eprintln!("!!! {what}: {error:#}");
            failed.push(what);
        }
    };
    let room = (place == Place::Line).then(|| Room::make(line::CONNECTIONS)).transpose();
    let room = room.unwrap_or_else(|error| {
        note("room for connections".to_owned(), Err(error));
        None
    });
    let mut topologies = Vec::new();
    for peer in &peers {
        match topology(place) {
            Ok(topology) => topologies.push((peer, topology)),
            Err(error) => note(format!("{peer}"), Err(error)),
        }
    }
    let mut sites: Vec<(&Peer, Box<dyn Site + '_>)> = Vec::new();
    for (peer, topology) in &topologies {
        eprintln!("==> {peer}");
        match interrupt::check().and_then(|()| up(place, topology, peer, plan)) {
            Ok(site) => sites.push((peer, site)),
            Err(error) => note(format!("{peer}"), Err(error)),
        }
    }
    for run in 1..=runs {
        for scenario in scenarios {
            eprintln!("==> run {run} of {runs}: {scenario}");
            for (peer, site) in &mut sites {
                if scenario.measurable(peer) {
                    let measured = interrupt::check().and_then(|()| site.measure(*scenario, plan, samples));
                    note(format!("{peer} {scenario}"), measured);
                }
            }
        }
    }
    if failed.is_empty() {
        topologies.iter().for_each(|(_, topology)| topology.evidence.pass());
    }
    // What was set up goes before the room that was made for it.
    drop(sites);
    drop(room);
}

fn topology(place: Place) -> Result<Topology> {
    let hosts = match place {
        Place::Pair => 2,
        Place::Line | Place::Cluster => 1,
    };
    Topology::build(&Shape::hosts(hosts).without_captures()).context("a topology")
}

fn up<'t>(place: Place, topology: &'t Topology, peer: &Peer, plan: &Plan) -> Result<Box<dyn Site + 't>> {
    Ok(match place {
        Place::Pair => Box::new(Pair::up(topology, peer, plan)?),
        Place::Line => Box::new(Line::up(topology, peer)?),
        Place::Cluster => Box::new(Cluster::up(topology, peer, plan)?),
    })
}
