//! A place where something can be measured, and what every measurement is told.

use crate::line::Arrangement;
use crate::report::Samples;
use crate::scenario::Scenario;
use anyhow::Result;
use std::time::Duration;

/// How long and how much.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Length of a measured interval.
    pub seconds: Duration,
    /// Workers of a canal daemon whose scenario does not settle it; `None`: as the daemon would choose.
    pub workers: Option<usize>,
    /// Where the receiving of a forwarder in a process is worked off, in turn.
    pub arrangements: Vec<Arrangement>,
    /// Everything once, short and small: does it still run?
    pub smoke: bool,
}

impl Plan {
    /// `full`, or `small` in a smoke run.
    pub fn scale<T>(&self, full: T, small: T) -> T {
        if self.smoke { small } else { full }
    }
}

/// A peer, set up for some scenarios. Everything of it goes with the value.
pub trait Site {
    /// Measures once.
    fn measure(&mut self, scenario: Scenario, plan: &Plan, samples: &mut Samples) -> Result<()>;
}
