//! `canal`, the operator's command: asks a running `canal-fwd` over its admin socket, reads and writes Calico's resources.

mod arguments;
mod explain;
mod monitor;
mod render;
mod resources;
mod trace;
mod wait;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use canal::observe::client::{Client, ClientError};
use canal::observe::protocol::{Reply, Request};
use clap::Parser;

use arguments::{Arguments, Command, Format};

/// `canal status`, `canal wait`: something is wrong with the daemon. `canal trace`: the packet does not get through.
const DEGRADED: u8 = 1;

/// Nobody answered.
const UNREACHABLE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.command {
        Command::Explain { reason } => Ok(explain::explain(reason.as_deref())),
        Command::Show(show) => show_topics(&arguments, show),
        Command::Trace(trace) => return finish(trace.run(&arguments.socket)),
        Command::Monitor { output } => monitor(&arguments, *output),
        Command::Status { output } => status(&arguments, *output),
        Command::Wait { revision, timeout, output } => wait(&arguments, *revision, *timeout, *output),
        Command::Apply(command) => return resources::run(command.run()),
        Command::Get(command) => return resources::run(command.run()),
        Command::Delete(command) => return resources::run(command.run()),
        Command::Validate(command) => return resources::run(command.run()),
    };
    finish(outcome)
}

fn finish<E: std::fmt::Display>(outcome: Result<(String, u8), E>) -> ExitCode {
    match outcome {
        Ok((text, code)) => print(&text, code),
        Err(error) => {
            eprintln!("canal: {error}");
            ExitCode::from(UNREACHABLE)
        }
    }
}

/// A reader that went away (`| head`) is no failure.
fn print(text: &str, code: u8) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::from(code)
}

fn show_topics(arguments: &Arguments, show: &arguments::Show) -> Result<(String, u8), ClientError> {
    let mut client = Client::connect(&arguments.socket)?;
    let requests = show.requests();
    let before = match show.over {
        Some(time) if requests.contains(&Request::Workers) => {
            let before = client.ask(&Request::Workers)?;
            std::thread::sleep(time);
            Some(before)
        }
        _ => None,
    };
    let mut replies = Vec::new();
    for request in requests {
        replies.push(match (client.ask(&request)?, &before) {
            (Reply::Workers(after), Some(Reply::Workers(before))) => Reply::Workers(
                after.into_iter().zip(before).map(|(after, before)| after.since(before)).collect(),
            ),
            (reply, _) => reply,
        });
    }
    let text = match show.output {
        Format::Json => render::json(&replies),
        Format::Table => render::tables(&replies, show.all),
    };
    Ok((text, 0))
}

fn wait(
    arguments: &Arguments,
    revision: u64,
    timeout: Duration,
    output: Format,
) -> Result<(String, u8), ClientError> {
    let mut client = Client::connect(&arguments.socket)?;
    let began = Instant::now();
    let view = wait::until_enforced(revision, timeout, &mut client, || began.elapsed())?;
    let code = if view.enforced { 0 } else { DEGRADED };
    let text = match output {
        Format::Json => render::json(&[Reply::Enforced(view)]),
        Format::Table => render::enforced(&view),
    };
    Ok((text, code))
}

/// Until nobody reads, or the daemon goes.
fn monitor(arguments: &Arguments, output: Format) -> Result<(String, u8), ClientError> {
    let mut client = Client::connect(&arguments.socket)?;
    monitor::follow(&mut client, |record| {
        let line = match output {
            Format::Json => render::json_line(record),
            Format::Table => render::record_line(record),
        };
        let mut out = std::io::stdout();
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_ok()
    })?;
    Ok((String::new(), 0))
}

fn status(arguments: &Arguments, output: Format) -> Result<(String, u8), ClientError> {
    let reply = Client::connect(&arguments.socket)?.ask(&Request::Status)?;
    let Reply::Status(status) = &reply else {
        return Err(ClientError::Refused("answered something else than its status".into()));
    };
    let code = if status.ready && status.reasons.is_empty() { 0 } else { DEGRADED };
    let text = match output {
        Format::Json => render::json(&[reply]),
        Format::Table => render::status(status),
    };
    Ok((text, code))
}
