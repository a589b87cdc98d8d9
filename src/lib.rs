//! Composition of canal: what the daemon `canal-fwd` and the operator's command `canal` are made of.
//!
//! In reading order: [`config`], [`daemon`] which starts and ends everything, [`ports`], [`edge`] and [`wires`] (the
//! kernel's side), [`worker_thread`], [`outside`], [`depot`] and [`record_queue`] (the packet threads), [`supervise`] and [`instance`], [`observe`],
//! [`trace`].

pub mod config;
pub mod daemon;
pub mod depot;
pub mod edge;
pub mod instance;
pub mod logging;
pub mod observe;
pub mod outside;
pub mod ports;
pub mod record_queue;
pub mod supervise;
pub mod trace;
pub mod wires;
pub mod worker_thread;
