//! Walks through the states of `calc-graph.json`.

use std::collections::BTreeMap;

use canal_control::resolve::calico::routes::RouteSource;
use canal_control::resolve::calico::{CalicoGraph, Change, Latest, oracle};
use serde_json::Value;

use crate::{expected, v1};

/// A state of the datastore and what Felix made of it.
struct State<'a> {
    name: &'a str,
    source: RouteSource,
    datastore: v1::Datastore,
    case: &'a Value,
}

impl<'a> State<'a> {
    fn read(case: &'a Value) -> Self {
        let source = match case["route_source"].as_str() {
            Some("WorkloadIPs") => RouteSource::Workloads,
            _ => RouteSource::Blocks,
        };
        let by_node_resources = case["use_node_resources"].as_bool().unwrap_or(false);
        let entries = case["datastore"].as_array().map_or(&[][..], Vec::as_slice);
        let datastore = v1::Datastore::read(entries, by_node_resources);
        Self { name: case["name"].as_str().unwrap(), source, datastore, case }
    }
}

/// Number of walks, and what went wrong.
pub fn run(file: &Value) -> (usize, Vec<String>) {
    let nodename = file["local_hostname"].as_str().unwrap();
    let states: Vec<State<'_>> = file["states"].as_array().unwrap().iter().map(State::read).collect();
    let by_name: BTreeMap<&str, &State<'_>> = states.iter().map(|state| (state.name, state)).collect();
    let mut walks: Vec<(String, Vec<&State<'_>>)> =
        states.iter().map(|state| (state.name.to_owned(), vec![state])).collect();
    for (nth, sequence) in file["sequences"].as_array().unwrap().iter().enumerate() {
        let names = sequence.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
        walks.push((format!("sequence {nth}"), names.map(|name| by_name[name]).collect()));
    }
    let (mut cases, mut failures) = (0, Vec::new());
    for (name, walk) in walks {
        for (way, stations) in expanded(&walk) {
            cases += 1;
            let walker = Walker::new(nodename, &stations);
            failures.extend(walker.walk(&stations).err().map(|why| format!("{name}, {way}: {why}")));
        }
    }
    (cases, failures)
}

/// What happens at a station of a walk.
#[derive(Clone, Copy)]
enum Station<'a> {
    /// The datastore gets to this state.
    To(&'a State<'a>),
    /// It gets there, and nobody looks.
    Past(&'a State<'a>),
    /// It gets there by one change after the other, each worked off.
    Step(&'a State<'a>),
    /// It loses everything.
    Empty,
}

/// The ways in which upstream walks through a sequence, too.
fn expanded<'a>(walk: &[&'a State<'a>]) -> Vec<(&'static str, Vec<Station<'a>>)> {
    let to: Vec<Station<'_>> = walk.iter().map(|state| Station::To(state)).collect();
    let mut ways = vec![("as it is", to.clone())];
    if let [past @ .., last] = walk {
        let past = past.iter().map(|state| Station::Past(state));
        ways.push(("squashed", past.chain([Station::To(last)]).collect()));
        ways.push(("reversed", to.iter().rev().copied().collect()));
        ways.push(("with empties", to.iter().flat_map(|station| [*station, Station::Empty]).collect()));
        ways.push(("twice", to.iter().flat_map(|station| [*station, *station]).collect()));
        ways.push(("one by one", walk.iter().map(|state| Station::Step(state)).collect()));
        ways.push(("one by one, reversed", walk.iter().rev().map(|state| Station::Step(state)).collect()));
    }
    ways
}

/// A graph on its way.
struct Walker<'a> {
    nodename: &'a str,
    source: RouteSource,
    graph: CalicoGraph,
    latest: Latest,
    resources: BTreeMap<String, Change>,
}

impl<'a> Walker<'a> {
    fn new(nodename: &'a str, stations: &[Station<'_>]) -> Self {
        // A setting of the whole process: Felix restarts when it changes.
        let source = stations.iter().find_map(|station| match station {
            Station::To(state) | Station::Past(state) | Station::Step(state) => Some(state.source),
            Station::Empty => None,
        });
        let source = source.unwrap_or_default();
        let graph = CalicoGraph::new(nodename, source);
        Self { nodename, source, graph, latest: Latest::default(), resources: BTreeMap::new() }
    }

    fn walk(mut self, stations: &[Station<'_>]) -> Result<(), String> {
        for station in stations {
            match station {
                Station::Past(state) => self.get_to(&state.datastore.resources, false),
                Station::Empty => {
                    self.get_to(&BTreeMap::new(), false);
                    self.look(None)?;
                }
                Station::To(state) | Station::Step(state) => {
                    self.get_to(&state.datastore.resources, matches!(station, Station::Step(_)));
                    self.look(Some(state)).map_err(|why| format!("at {:?}: {why}", state.name))?;
                }
            }
        }
        Ok(())
    }

    fn get_to(&mut self, resources: &BTreeMap<String, Change>, one_by_one: bool) {
        let gone = self.resources.iter().filter(|(id, _)| !resources.contains_key(*id));
        let gone = gone.map(|(_, change)| v1::gone(change));
        let new = resources.iter().filter(|(id, change)| self.resources.get(*id) != Some(change));
        let changes: Vec<Change> = gone.chain(new.map(|(_, change)| change.clone())).collect();
        for change in changes {
            self.latest.apply(change.clone());
            self.graph.apply(change);
            if one_by_one {
                self.graph.flush();
            }
        }
        self.resources.clone_from(resources);
    }

    fn look(&mut self, state: Option<&State<'_>>) -> Result<(), String> {
        let resolution = self.graph.flush();
        let twin = oracle::recompute(self.nodename, self.source, &self.latest);
        if *resolution != twin {
            return Err(format!("the graph says\n{resolution:#?}\nrecomputing says\n{twin:#?}"));
        }
        match state {
            Some(state) => expected::compare(resolution, &state.datastore, state.case),
            None => expected::is_empty(resolution),
        }
    }
}
