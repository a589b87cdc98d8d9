//! Flags of ours that say the same as settings of Felix's, in Felix's words.

use std::net::{IpAddr, SocketAddr};

use canal_control::felix::{Given, Local};

use super::flags::{Flags, LogLevel, ToHost};
use super::{ConfigError, Machine, in_range, malformed};

/// What is said on this host. Given flags go before Felix's variables.
pub(super) fn local(
    flags: &Flags,
    metrics: Option<SocketAddr>,
    machine: &Machine,
) -> Result<Local, ConfigError> {
    let mut given = Vec::new();
    let mut say = |setting, flag, value: &str| given.push(Given { setting, flag, value: value.to_owned() });
    if let Some(action) = flags.endpoint_to_host {
        let action = match action {
            ToHost::Accept => "Accept",
            ToHost::Drop => "Drop",
            ToHost::Return => "Return",
        };
        say("DefaultEndpointToHostAction", "endpoint-to-host", action);
    }
    if let Some(allowed) = flags.allow_encap_from_workloads {
        for setting in ["AllowVXLANPacketsFromWorkloads", "AllowIPIPPacketsFromWorkloads"] {
            say(setting, "allow-encap-from-workloads", &allowed.to_string());
        }
    }
    if let Some(level) = flags.log_level {
        let severity = match level {
            LogLevel::Error => "Error",
            LogLevel::Warn => "Warning",
            LogLevel::Info => "Info",
            LogLevel::Debug => "Debug",
            LogLevel::Trace => "Trace",
        };
        say("LogSeverityScreen", "log-level", severity);
    }
    if let Some(address) = metrics {
        let flag = "metrics-addr";
        say("PrometheusMetricsEnabled", flag, "true");
        say("PrometheusMetricsHost", flag, &address.ip().to_string());
        say("PrometheusMetricsPort", flag, &address.port().to_string());
    }
    if let Some(enabled) = flags.health_enabled {
        say("HealthEnabled", "health-enabled", &enabled.to_string());
    }
    if let Some(host) = &flags.health_host {
        if host != "localhost" && host.parse::<IpAddr>().is_err() {
            return Err(malformed("health-host", host, "an IP address or localhost"));
        }
        say("HealthHost", "health-host", host);
    }
    if let Some(port) = flags.health_port {
        in_range("health-port", port.into(), 1, u16::MAX.into())?;
        say("HealthPort", "health-port", &port.to_string());
    }
    Ok(Local::new(given, machine.variables.iter().cloned()))
}
