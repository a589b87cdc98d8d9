//! The sending end: a process of its own, so that ending it ends the kernel's run at once, and so that its priority and core
//! are its own.

use super::{Direction, Ends, object, program, template};
use crate::machine;
use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, MapData};
use aya::programs::{ProgramError, TestRun, TestRunAttrs, TestRunOptions};
use netns_tests::Netns;
use netns_tests::cmd::Background;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, ErrorKind};
use std::process::Stdio;
use std::time::Duration;

/// Name of the mode in which this program is its own generator.
pub const MODE: &str = "generate";
/// Bytes of the tunnel's headers.
const TUNNEL: u32 = 50;
/// Frames the kernel makes at once.
const BATCH: u32 = 64;
/// Pause between two moments in which the core of a paced generator does something else, see [`give_way`].
const GIVE_WAY: Duration = Duration::from_millis(1);

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Which way.
    pub direction: Direction,
    /// Bytes of a frame, without the tunnel's.
    pub length: u32,
    /// Smaller frames between those: 7 of 64 bytes, 4 of 570, 1 of `length`.
    pub mix: bool,
    /// Flows that take turns, from `first` on.
    pub flows: u32,
    /// Number of the first flow.
    pub first: u32,
    /// As answers to the flows of the other direction.
    pub replies: bool,
    /// Packets a second; `None`: as many as the core can make.
    pub rate: Option<f64>,
    /// Packets in all; `None`: until it ends.
    pub packets: Option<u64>,
}

impl Stream {
    /// Frames of `length` bytes, one flow, as fast as it goes.
    pub fn new(direction: Direction, length: u32) -> Self {
        Self { direction, length, mix: false, flows: 1, first: 0, replies: false, rate: None, packets: None }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    interface: String,
    length: u32,
    flows: u32,
    first: u32,
    tunnel: bool,
    replies: bool,
    mix: bool,
    packets: u64,
    gap_ps: u64,
    template: Vec<u8>,
}

/// A running generator; it ends with the value.
pub struct Generator {
    process: Background,
    progress: Array<MapData, [u64; 3]>,
}

impl Generator {
    /// Starts sending into `interface` of `ns`: what its other end receives.
    pub fn start(ns: &Netns, interface: &str, stream: &Stream, ends: &Ends) -> Result<Self> {
        let tunnel = stream.direction == Direction::Decap;
        let order = Order {
            interface: interface.to_owned(),
            length: stream.length,
            flows: stream.flows,
            first: stream.first,
            tunnel,
            replies: stream.replies,
            mix: stream.mix,
            packets: stream.packets.unwrap_or(0),
            gap_ps: stream.rate.map_or(0, |rate| (1e12 / rate) as u64),
            template: template::template(stream.direction, ends).to_vec(),
        };
        let program = std::env::current_exe()?;
        let mut command = ns.command("taskset");
        command.args(["-c", &machine::other_core()?.to_string(), "nice", "-n", "-19"]);
        command.arg(program).arg(MODE).arg(serde_json::to_string(&order)?);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        // The child's output is taken before the child is: it says when it is ready.
        let (process, output) = Background::start_reading("generator", &mut command)?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let id = line.trim().parse().context("the generator has not started")?;
        let map = aya::maps::Map::Array(MapData::from_id(id).context("the generator's map")?);
        Ok(Self { process, progress: Array::try_from(map)? })
    }

    /// Packets sent so far.
    pub fn sent(&self) -> Result<u64> {
        Ok(self.progress.get(&0, 0)?[0])
    }

    /// Ends it; how many packets it has sent in all.
    pub fn finish(mut self) -> Result<u64> {
        self.process.kill();
        self.sent()
    }
}

/// The process: sends until it is killed.
pub fn main(order: &str) -> Result<()> {
    let order: Order = serde_json::from_str(order).context("the generator's order")?;
    machine::raise_session();
    let ifindex = nix::net::if_::if_nametoindex(order.interface.as_str())?;
    let template: [u8; template::LENGTH] =
        order.template.as_slice().try_into().context("a template of another length")?;
    let (tunnel, replies, mix) = (u32::from(order.tunnel), u32::from(order.replies), u32::from(order.mix));
    let mut object = object(|loader| {
        loader
            .override_global("gen_ifindex", &ifindex, true)
            .override_global("gen_length", &order.length, true)
            .override_global("gen_flows", &order.flows, true)
            .override_global("gen_first", &order.first, true)
            .override_global("gen_tunnel", &tunnel, true)
            .override_global("gen_replies", &replies, true)
            .override_global("gen_mix", &mix, true)
            .override_global("gen_packets", &order.packets, true)
            .override_global("gen_gap_ps", &order.gap_ps, true)
            .override_global("gen_template", &template, true);
    })?;
    let program = program(&mut object, "generate")?;
    program.load().context("the kernel refuses the generator")?;
    let input = vec![0; (order.length + if order.tunnel { TUNNEL } else { 0 }) as usize];
    let run = |program: &aya::programs::Xdp, repeat| {
        let attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        program.test_run(TestRunOptions { data_in: Some(&input), repeat, attrs, ..TestRunOptions::new() })
    };
    let Some(aya::maps::Map::Array(progress)) = object.map("progress") else { bail!("no progress map") };
    println!("{}", progress.info()?.id());
    if order.gap_ps > 0 {
        std::thread::spawn(give_way);
    }
    let program: &aya::programs::Xdp = object.program("generate").context("no generator")?.try_into()?;
    loop {
        // One long run: each start and end waits for the kernel's grace periods.
        match run(program, 1 << 30) {
            Ok(_) => {}
            Err(ProgramError::SyscallError(error)) if error.io_error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("sending"),
        }
        ensure!(nix::unistd::getppid().as_raw() != 1, "the bench is gone");
    }
}

/// Takes the core for a moment, again and again. The kernel's run is one RCU read section for as long as nobody else wants the
/// core; every grace period of the machine would wait for it, a tenth of a second each, and a daemon that comes or goes waits
/// for several.
fn give_way() {
    loop {
        std::thread::sleep(GIVE_WAY);
    }
}
