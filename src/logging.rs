//! Where log lines go: standard error, as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogLevel};

/// Starts logging. Libraries below us are heard from `warn` on: what they do at `info` is our business to say. What policy
/// tells is always heard: a rule or a flag has asked for each of these lines.
pub fn start(level: LogLevel, format: LogFormat) {
    let filter = EnvFilter::new(directives(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

fn directives(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error,canal::policy=info",
        LogLevel::Warn => "warn,canal::policy=info",
        LogLevel::Info => "warn,canal=info",
        LogLevel::Debug => "warn,canal=debug",
        LogLevel::Trace => "warn,canal=trace",
    }
}
