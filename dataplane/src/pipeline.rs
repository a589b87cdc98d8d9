//! The order of the stages: the only place that knows it.

use crate::packet::Batch;
use crate::port::Received;
use crate::stage::output::{OutputCaps, Outputs};
use crate::stage::{
    Context, classify, conntrack, datagram, decap, encap, forward, fragment, icmp_error, neighbor, output,
    owner, policy, route, source,
};
use crate::trace::{Stage, Trace};
use crate::verdict::{DropReason, Verdict};

/// Takes a batch of received frames through all stages and empties it into `out`.
///
/// `batch` is scratch memory that keeps its capacity between calls; `handed` says that the frames come from another
/// worker, so that they are never handed over twice.
#[inline(never)]
pub fn run<T: Trace>(
    received: &mut Vec<Received>,
    handed: bool,
    batch: &mut Batch,
    caps: OutputCaps,
    out: &mut Outputs,
    cx: &mut Context<'_>,
    trace: &mut T,
) {
    batch.admit(received, handed);
    if !cx.tables.ready {
        for packet in batch.iter_mut() {
            packet.verdict = Verdict::Drop(DropReason::NotReady);
        }
    }
    trace.after(Stage::Admit, batch);
    decap::run(batch, cx);
    trace.after(Stage::Decap, batch);
    let rare = classify::run(batch, cx);
    trace.after(Stage::Classify, batch);
    if rare.neighbors {
        neighbor::run(batch, cx);
        trace.after(Stage::Neighbor, batch);
    }
    source::run(batch, cx);
    trace.after(Stage::Source, batch);
    if rare.pieces {
        datagram::run(batch, cx);
        trace.after(Stage::Datagram, batch);
    }
    if rare.strangers {
        owner::run(batch, cx);
    }
    trace.after(Stage::Owner, batch);
    let undecided = conntrack::run(batch, cx);
    trace.after(Stage::Conntrack, batch);
    if undecided {
        policy::of_source(batch, cx);
        trace.after(Stage::PolicyOfSource, batch);
        route::run(batch, cx);
        trace.after(Stage::Route, batch);
        policy::of_destination(batch, cx);
        trace.after(Stage::PolicyOfDestination, batch);
        conntrack::commit(batch, cx);
        trace.after(Stage::Commit, batch);
    }
    let exceptions = forward::run(batch, cx);
    trace.after(Stage::Forward, batch);
    if rare.pieces {
        datagram::leave(batch, cx);
    }
    if exceptions {
        fragment::run(batch, cx);
        trace.after(Stage::Fragment, batch);
        icmp_error::run(batch, cx);
        trace.after(Stage::IcmpError, batch);
    }
    encap::run(batch, cx);
    trace.after(Stage::Encap, batch);
    output::run(batch, caps, out, cx);
}
