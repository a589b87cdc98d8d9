//! Where log lines go: standard error, as text or JSON.

use std::io::IsTerminal;
use std::sync::Arc;

use canal_control::felix::{Config, Severity};
use tokio::sync::watch;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::{LogFormat, LogLevel};

/// Says from now on what is logged.
#[derive(Clone, Debug)]
pub struct Volume(reload::Handle<EnvFilter, Registry>);

/// Starts logging. Libraries below us are heard from `warn` on: what they do at `info` is our business to say. What policy
/// tells is always heard: a rule or a flag has asked for each of these lines.
pub fn start(level: LogLevel, format: LogFormat) -> Volume {
    let severity = match level {
        LogLevel::Error => Severity::Error,
        LogLevel::Warn => Severity::Warning,
        LogLevel::Info => Severity::Info,
        LogLevel::Debug => Severity::Debug,
        LogLevel::Trace => Severity::Trace,
    };
    let (filter, volume) = reload::Layer::new(EnvFilter::new(directives(severity)));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    Volume(volume)
}

impl Volume {
    /// Does what `LogSeverityScreen` says, until nobody says it any more.
    pub async fn follow(self, mut felix: watch::Receiver<Arc<Config>>) {
        let mut current = None;
        loop {
            let severity = felix.borrow_and_update().values.severity;
            if current != Some(severity) {
                // Fails when logging has ended, with the process.
                let _ = self.0.reload(EnvFilter::new(directives(severity)));
                current = Some(severity);
            }
            if felix.changed().await.is_err() {
                return;
            }
        }
    }
}

const fn directives(severity: Severity) -> &'static str {
    match severity {
        Severity::Off => "off,canal::policy=info",
        Severity::Error => "error,canal::policy=info",
        Severity::Warning => "warn,canal::policy=info",
        Severity::Info => "warn,canal=info",
        Severity::Debug => "warn,canal=debug",
        Severity::Trace => "warn,canal=trace",
    }
}
