//! What is reported, and how often.

use std::time::Duration;

/// See [`crate::felix`] for where they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `no-region`, or `region-<OpenstackRegion>`.
    pub region: String,
    /// `ReportingIntervalSecs`; zero = the node does not say that it lives.
    pub interval: Duration,
    /// `ReportingTTLSecs`; zero = what it says stays.
    pub ttl: Duration,
    /// `EndpointReportingEnabled`.
    pub endpoints: bool,
    /// `EndpointReportingDelaySecs`: one endpoint is written in so much time.
    pub delay: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            region: "no-region".to_owned(),
            interval: Duration::from_secs(30),
            ttl: Duration::from_secs(90),
            endpoints: false,
            delay: Duration::from_secs(1),
        }
    }
}
