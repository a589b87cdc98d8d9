//! `canal-fwd`, the daemon.

use std::process::ExitCode;

use canal::config::{Command, Config, ConfigError, Machine};
use canal::{daemon, edge, logging};

/// A command line that makes no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let machine = Machine {
        hostname: std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default(),
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
        // One that is not text is nobody's setting.
        variables: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
    };
    let config = match Config::parse(std::env::args().skip(1), |name| std::env::var(name).ok(), &machine) {
        Ok(Command::Run(config)) => config,
        Ok(Command::Version) => {
            eprintln!("v{}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        // Help is an "error" of clap's, too; it knows where to print and how to leave.
        Err(ConfigError::Usage(error)) => error.exit(),
        Err(error) => {
            eprintln!("canal-fwd: {error}");
            return ExitCode::from(USAGE);
        }
    };
    // Nothing depends on it but the memory that the process needs.
    let _ = canal_io::heap::keep_compact();
    let volume = logging::start(config.log_level, config.log_format);
    match daemon::run(&config, volume) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", edge::chain(&error));
            ExitCode::FAILURE
        }
    }
}
