//! What the tests send: pings whose every answer is read, TCP whose every byte is compared, UDP echoes, many flows at
//! once, floods, iperf3.

pub mod flood;
pub mod flows;
pub mod iperf;
pub mod pattern;
pub mod ping;
pub mod rtt;
pub mod service;
pub mod tcp;
pub mod udp;

pub use flood::Flood;
pub use flows::Flows;
pub use ping::Ping;
pub use service::{Service, tcp_connects, udp_answers};
pub use tcp::{Goal, Transfer};
