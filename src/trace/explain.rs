//! What the stages have done, in words: from a [`Recording`] to a [`Report`].
//!
//! A stage is told by what it changed. Why it did so is looked up in the same tables, and names in the spec they were
//! compiled from; nothing is decided here.

use std::net::IpAddr;

use canal_dataplane::net::HashSeed;
use canal_dataplane::packet::{Connection as Tracked, Headers, Source};
use canal_dataplane::port::{Egress, Ingress};
use canal_dataplane::spec::NodeSpec;
use canal_dataplane::tables::{Adjacency, Kind, Tables};
use canal_dataplane::trace::Stage;
use canal_dataplane::verdict::{DropReason, Verdict};
use ipnetwork::IpNetwork;

use super::layers::layers;
use super::packets::Arrival;
use super::policy;
use super::question::Question;
use super::report::{Outcome, PacketView, Report, SentView, StageResult, StageView, VerdictView};
use super::scratch::{Recording, Step};
use crate::observe::views;

/// The world that a packet is judged in.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// What the tables were compiled from.
    pub spec: &'a NodeSpec,
    /// The tables.
    pub tables: &'a Tables,
    /// Keys of the hash that names a flow's owner.
    pub seed: HashSeed,
    /// Workers that share the flows.
    pub workers: u32,
    /// Milliseconds.
    pub now_ms: u64,
}

/// Everything about one packet.
pub fn report(world: &World<'_>, question: &Question, arrival: &Arrival, recording: &Recording) -> Report {
    let tunnel_port = world.spec.vxlan.map(|vxlan| vxlan.port);
    let mut stages = Vec::new();
    let mut before: Option<&Step> = None;
    for step in &recording.steps {
        // What has been decided before the stage is no doing of its.
        let open = before.is_none_or(|before| !matches!(before.verdict, Verdict::Drop(_) | Verdict::Reply));
        if open {
            stages.extend(stage(world, question, before, step));
        }
        before = Some(step);
    }
    Report {
        generation: world.tables.generation,
        revision: world.tables.revision,
        assumptions: Vec::new(),
        packet: PacketView {
            ingress: ingress(world, arrival.packet.ingress),
            layers: layers(&arrival.packet.frame, tunnel_port),
            length: arrival.packet.frame.len(),
        },
        stages,
        verdict: verdict(world, recording),
        sent: recording
            .sent
            .iter()
            .map(|sent| SentView {
                egress: egress(world, sent.egress),
                layers: layers(&sent.frame, tunnel_port),
                length: sent.frame.len(),
            })
            .collect(),
    }
}

/// What kept the packet from getting through, if anything did.
pub fn hindrance(recording: &Recording, tables: &Tables) -> Option<String> {
    let because = |reason: DropReason| format!("is dropped ({}): {}", reason.label(), reason.sentence());
    match (told(recording), last(recording)) {
        (Some(reason), _) | (None, Verdict::Drop(reason)) => Some(because(reason)),
        (None, Verdict::Forward(adjacency)) => match tables.adjacencies.get(adjacency as usize)?.kind {
            Kind::Drop(reason) => Some(because(reason)),
            _ => None,
        },
        (None, _) => Some("is answered by the gateway".to_owned()),
    }
}

/// The verdict that everything ends with.
fn last(recording: &Recording) -> Verdict {
    // Without a free frame nothing has run.
    recording.steps.last().map_or(Verdict::Drop(DropReason::NoFrame), |step| step.verdict)
}

/// What the sender is told of, if it is.
fn told(recording: &Recording) -> Option<DropReason> {
    let reason = recording.steps.iter().find_map(|step| match step.verdict {
        Verdict::TooBig(_) => Some(DropReason::TooBig),
        Verdict::Expired => Some(DropReason::TtlExpired),
        _ => None,
    });
    reason.filter(|_| matches!(last(recording), Verdict::Forward(_)))
}

fn verdict(world: &World<'_>, recording: &Recording) -> VerdictView {
    let to = recording.sent.first().map(|sent| destination(world, sent.egress, last(recording)));
    let end = |outcome, reason: Option<DropReason>, sentence: &str| VerdictView {
        outcome,
        to: to.clone(),
        reason: reason.map(|reason| reason.label().to_owned()),
        sentence: sentence.to_owned(),
    };
    if let Some(reason) = told(recording) {
        return end(Outcome::Answered, Some(reason), reason.sentence());
    }
    match last(recording) {
        Verdict::Drop(reason) => end(Outcome::Dropped, Some(reason), reason.sentence()),
        Verdict::Reply => end(Outcome::Answered, None, "The gateway answers for itself."),
        Verdict::Forward(index) => match &world.tables.adjacencies[index as usize].kind {
            Kind::Drop(reason) => end(Outcome::Dropped, Some(*reason), reason.sentence()),
            Kind::Host => end(Outcome::Delivered, None, "Delivered to this host's IP stack."),
            Kind::Endpoint { .. } => end(Outcome::Delivered, None, "Delivered to the workload."),
            Kind::VxlanV4(_) | Kind::VxlanV6(_) => {
                end(Outcome::Forwarded, None, "Sent through the tunnel to the node that has the destination.")
            }
            Kind::Direct { .. } => {
                end(Outcome::Forwarded, None, "Sent to the node that has the destination.")
            }
            Kind::Gateway { .. } | Kind::Spread(_) => {
                end(Outcome::Forwarded, None, "Sent out of the gateway interface towards the destination.")
            }
        },
        other => unreachable!("the pipeline left a packet at {other:?}"),
    }
}

/// Who gets what is sent.
fn destination(world: &World<'_>, egress_to: Egress, last: Verdict) -> String {
    if let (Egress::Underlay, Verdict::Forward(index)) = (egress_to, last) {
        match &world.tables.adjacencies[index as usize].kind {
            Kind::VxlanV4(template) => return format!("VTEP {}", template.outer),
            Kind::VxlanV6(template) => return format!("VTEP {}", template.outer),
            _ => {}
        }
    }
    egress(world, egress_to)
}

fn ingress(world: &World<'_>, ingress: Ingress) -> String {
    match ingress {
        Ingress::Workload(ifindex) => workload_at(world, ifindex),
        Ingress::Underlay | Ingress::Decapsulated(_) => "tunnel".to_owned(),
        Ingress::Direct => "direct".to_owned(),
        Ingress::Gateway(ifindex) => gateway_at(world, ifindex),
        Ingress::Host => "host".to_owned(),
    }
}

fn egress(world: &World<'_>, egress: Egress) -> String {
    match egress {
        Egress::Workload(ifindex) => workload_at(world, ifindex),
        Egress::Underlay => "underlay".to_owned(),
        Egress::Direct(next_hop) => format!("direct {next_hop}"),
        Egress::Gateway { ifindex, next_hop } => format!("{} {next_hop}", gateway_at(world, ifindex)),
        Egress::Host => "host".to_owned(),
    }
}

fn gateway_at(world: &World<'_>, ifindex: u32) -> String {
    let known = world.spec.gateways.iter().find(|gateway| gateway.ifindex == Some(ifindex));
    known.map_or_else(|| format!("interface {ifindex}"), |gateway| format!("gateway {}", gateway.name))
}

fn workload_at(world: &World<'_>, ifindex: u32) -> String {
    let known = world.spec.endpoints.iter().find(|endpoint| endpoint.ifindex == Some(ifindex));
    match known {
        Some(endpoint) => format!("workload {} ({})", endpoint.name, endpoint.interface),
        None => format!("interface {ifindex}"),
    }
}

/// What one stage did; `None` = nothing worth a line.
fn stage(world: &World<'_>, question: &Question, before: Option<&Step>, step: &Step) -> Option<StageView> {
    let view = match step.stage {
        Stage::Admit => not_admitted(step)?,
        Stage::Decap => decap(world, step)?,
        Stage::Classify => classify(step)?,
        Stage::Neighbor => neighbor(before, step)?,
        Stage::Source => source(world, step)?,
        Stage::Datagram => datagram(before, step)?,
        Stage::Owner => owner(world, step)?,
        Stage::Conntrack => conntrack(question, before, step)?,
        Stage::PolicyOfSource => policy::of_source(world, before?, step)?,
        Stage::Route => route(world, before, step)?,
        Stage::PolicyOfDestination => policy::of_destination(world, before?, step)?,
        Stage::Commit => commit(before, step)?,
        Stage::Forward => forward(world, before, step)?,
        Stage::Fragment => fragment(before, step)?,
        Stage::IcmpError => icmp_error(before, step)?,
        Stage::Encap => encap(world, step)?,
    };
    Some(view)
}

impl StageView {
    fn new(stage: &str, text: impl Into<String>) -> Self {
        Self { stage: stage.to_owned(), text: text.into(), ..Self::default() }
    }

    fn dropped(stage: &str, reason: DropReason) -> Self {
        let view = Self { result: StageResult::Drop, ..Self::new(stage, reason.sentence()) };
        view.with("reason", reason.label())
    }

    fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.facts.insert(name.to_owned(), value.to_string());
        self
    }

    /// One more sentence.
    fn and(mut self, text: &str) -> Self {
        self.text.push(' ');
        self.text.push_str(text);
        self
    }
}

/// The reason, if this is where the packet ended.
fn ended(step: &Step) -> Option<DropReason> {
    match step.verdict {
        Verdict::Drop(reason) => Some(reason),
        _ => None,
    }
}

fn not_admitted(step: &Step) -> Option<StageView> {
    ended(step).map(|reason| StageView::dropped("admit", reason))
}

fn decap(world: &World<'_>, step: &Step) -> Option<StageView> {
    if step.ingress != Ingress::Underlay {
        return None;
    }
    if let Some(reason) = ended(step) {
        return Some(StageView::dropped("decap", reason));
    }
    let Source::Vtep(index) = step.source else { return None };
    let vtep = world.tables.vteps.get(index as usize)?;
    let vni = world.tables.vxlan.map_or(0, |vxlan| vxlan.vni.get());
    let text = format!("out of the tunnel from VTEP {}, VNI {vni}", vtep.outer);
    Some(StageView::new("decap", text).with("vtep", vtep.outer).with("vni", vni))
}

fn classify(step: &Step) -> Option<StageView> {
    if let Some(reason) = ended(step) {
        return Some(StageView::dropped("classify", reason));
    }
    let headers = &step.headers;
    let family = if headers.is_v6() { "IPv6" } else { "IPv4" };
    let text = format!("{family} packet of {} bytes, protocol {}", headers.ip_len, protocol(headers));
    let view = StageView::new("classify", text).with("protocol", headers.protocol());
    let view =
        view.with("source", headers.source_address()).with("destination", headers.destination_address());
    Some(view.with("ip_length", headers.ip_len).with("ttl", headers.ttl))
}

fn protocol(headers: &Headers) -> String {
    match headers.protocol() {
        1 => "ICMP".into(),
        6 => "TCP".into(),
        17 => "UDP".into(),
        58 => "ICMPv6".into(),
        132 => "SCTP".into(),
        other => other.to_string(),
    }
}

fn neighbor(before: Option<&Step>, step: &Step) -> Option<StageView> {
    if before.is_some_and(|before| before.verdict == step.verdict) {
        return None;
    }
    Some(match ended(step) {
        Some(reason) => StageView::dropped("neighbor", reason),
        None => {
            let view = StageView::new("neighbor", "the gateway answers it");
            StageView { result: StageResult::Reply, ..view }
        }
    })
}

fn source(world: &World<'_>, step: &Step) -> Option<StageView> {
    let address = step.headers.source_address();
    if let Some(reason) = ended(step) {
        let view = StageView::dropped("source", reason).with("address", address);
        return Some(match allowed(world, step) {
            Some((whose, networks))
                if matches!(reason, DropReason::SpoofedSource | DropReason::GatewaySource) =>
            {
                let view = view.with("allowed", &networks);
                view.and(&format!("{address} is not among the addresses of {whose}: {networks}."))
            }
            _ => view,
        });
    }
    let text = match (step.source, allowed(world, step)) {
        (Source::Host, _) => "the host's own packet: its source is not checked".to_owned(),
        (_, Some((whose, _))) => format!("{address} is one of the addresses of {whose}"),
        (Source::Direct, None) => format!("{address} may come without a tunnel"),
        _ => return None,
    };
    Some(StageView::new("source", text).with("address", address))
}

/// Whose packet it is, and the sources that these may use.
fn allowed(world: &World<'_>, step: &Step) -> Option<(String, String)> {
    let listed = |networks: &[IpNetwork]| {
        let texts: Vec<String> = networks.iter().map(IpNetwork::to_string).collect();
        if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
    };
    if let Ingress::Workload(ifindex) = step.ingress {
        let endpoint = world.spec.endpoints.iter().find(|endpoint| endpoint.ifindex == Some(ifindex))?;
        return Some((format!("workload {}", endpoint.name), listed(&endpoint.networks)));
    }
    if let Ingress::Gateway(ifindex) = step.ingress {
        let gateway = world.spec.gateways.iter().find(|gateway| gateway.ifindex == Some(ifindex))?;
        return Some((format!("hosts behind gateway {}", gateway.name), listed(&gateway.sources)));
    }
    let Source::Vtep(index) = step.source else { return None };
    let outer = world.tables.vteps.get(index as usize)?.outer;
    let vtep = world.spec.vteps.iter().find(|vtep| vtep.outer == outer)?;
    Some((format!("VTEP {outer}"), listed(&vtep.owns)))
}

fn datagram(before: Option<&Step>, step: &Step) -> Option<StageView> {
    if before.is_some_and(|before| before.verdict == step.verdict) {
        return None;
    }
    ended(step).map(|reason| StageView::dropped("datagram", reason))
}

fn owner(world: &World<'_>, step: &Step) -> Option<StageView> {
    if world.workers <= 1 {
        return None;
    }
    let owner = step.headers.key.owner(world.seed, world.workers);
    let text = format!("worker {owner} of {} has the flow", world.workers);
    Some(StageView::new("owner", text).with("worker", owner))
}

fn conntrack(question: &Question, before: Option<&Step>, step: &Step) -> Option<StageView> {
    if let Some(reason) = ended(step) {
        return Some(StageView::dropped("conntrack", reason));
    }
    // Nothing has been looked up for what was decided before.
    if before.is_some_and(|before| before.verdict != Verdict::Pending) {
        return None;
    }
    let decided = matches!(step.verdict, Verdict::Forward(_));
    let (state, text) = match step.connection {
        Tracked::Related => ("related", "an ICMP error about a connection that was let pass"),
        _ if decided => ("known", "belongs to a connection that these tables have decided"),
        Tracked::Known => ("known", "belongs to an answered connection: only its way is looked up"),
        Tracked::New if step.has_flow => ("known", "belongs to a known connection, and is decided again"),
        Tracked::New if question.connection == super::question::Connection::New => {
            ("new", "no such connection is assumed")
        }
        Tracked::New => ("new", "belongs to no connection"),
    };
    Some(StageView::new("conntrack", text).with("connection", state))
}

fn route(world: &World<'_>, before: Option<&Step>, step: &Step) -> Option<StageView> {
    if before.is_some_and(|before| before.verdict != Verdict::Pending) {
        return None;
    }
    let destination = step.headers.destination_address();
    let found = longest(world.spec, destination);
    let told = |view: StageView| match &found {
        Some((prefix, kind, via)) => view.with("prefix", prefix).with("kind", kind).with("via", via),
        None => view,
    };
    if let Some(reason) = ended(step) {
        let view = told(StageView::dropped("route", reason));
        return Some(match &found {
            Some((prefix, kind, _)) if kind == "drop" => view.and(&format!("The route is {prefix}.")),
            _ => view,
        });
    }
    let (prefix, kind, via) = found.as_ref()?;
    let text = match kind.as_str() {
        "vtep" => format!("{prefix} through the tunnel to VTEP {via}"),
        "direct" => format!("{prefix} without tunnel to {via}"),
        "gateway" => format!("{prefix} by gateway {via}"),
        "endpoint" => format!("{prefix} to workload {via}"),
        _ => format!("{prefix} is this host's"),
    };
    Some(told(StageView::new("route", text)))
}

/// The route that the tables find for an address: prefix, kind and way, as `canal show routes` has them.
fn longest(spec: &NodeSpec, address: IpAddr) -> Option<(String, String, String)> {
    let containing = views::routes(spec).into_iter().filter_map(|route| {
        let prefix: IpNetwork = route.prefix.parse().ok()?;
        prefix.contains(address).then_some((prefix.prefix(), route))
    });
    let (_, route) = containing.max_by_key(|(length, _)| *length)?;
    Some((route.prefix, route.kind, route.via))
}

fn commit(before: Option<&Step>, step: &Step) -> Option<StageView> {
    let news = before.is_none_or(|before| before.verdict != step.verdict);
    ended(step).filter(|_| news).map(|reason| StageView::dropped("commit", reason))
}

fn forward(world: &World<'_>, before: Option<&Step>, step: &Step) -> Option<StageView> {
    let Some(Verdict::Forward(index)) = before.map(|before| before.verdict) else { return None };
    if let Some(reason) = ended(step) {
        return Some(StageView::dropped("forward", reason));
    }
    let adjacency = world.tables.adjacencies.get(index as usize)?;
    if matches!(adjacency.kind, Kind::Host) {
        return Some(StageView::new("forward", "for this host: its TTL stays, and any size is welcome"));
    }
    let (len, ttl) = (step.headers.ip_len, step.headers.ttl);
    let mtu = mtu(adjacency, world.now_ms);
    let (result, text) = match step.verdict {
        Verdict::Expired => (StageResult::Reply, format!("TTL {ttl} is used up: its sender is to be told")),
        Verdict::TooBig(_) => {
            let why = if step.headers.is_v6() { "routers do not fragment IPv6" } else { "DF is set" };
            (
                StageResult::Reply,
                format!("{len} bytes are more than the MTU, {mtu}, and {why}: its sender is to be told"),
            )
        }
        Verdict::Fragment { .. } => {
            (StageResult::Pass, format!("{len} bytes are more than the MTU, {mtu}: it is to be cut"))
        }
        _ => (StageResult::Pass, format!("{len} bytes fit the MTU, {mtu}")),
    };
    let mut view = StageView { result, ..StageView::new("forward", text) };
    let routed = step.ingress != Ingress::Host;
    if routed && matches!(step.verdict, Verdict::Forward(_) | Verdict::Fragment { .. }) {
        view.text.push_str(&format!("; TTL {ttl} becomes {}", ttl - 1));
    }
    Some(view.with("mtu", adjacency.mtu_at(world.now_ms)).with("ip_length", len))
}

/// The MTU of a way, and where it is from.
fn mtu(adjacency: &Adjacency, now_ms: u64) -> String {
    let now = adjacency.mtu_at(now_ms);
    match adjacency.mtu {
        configured if now < configured => {
            format!("{now} (learnt from an ICMP error; configured: {configured})")
        }
        _ => now.to_string(),
    }
}

fn fragment(before: Option<&Step>, step: &Step) -> Option<StageView> {
    let Some(Verdict::Fragment { mtu, .. }) = before.map(|before| before.verdict) else { return None };
    if let Some(reason) = ended(step) {
        return Some(StageView::dropped("fragment", reason));
    }
    let text = format!("cut into {} pieces", step.pieces);
    Some(StageView::new("fragment", text).with("pieces", step.pieces).with("mtu", mtu))
}

fn icmp_error(before: Option<&Step>, step: &Step) -> Option<StageView> {
    let (what, reason) = match before.map(|before| before.verdict) {
        Some(Verdict::TooBig(mtu)) => (format!("too big, MTU {mtu}"), DropReason::TooBig),
        Some(Verdict::Expired) => ("time exceeded".to_owned(), DropReason::TtlExpired),
        _ => return None,
    };
    if ended(step).is_some() {
        let text = format!(
            "its sender is not told ({what}): it is no packet that ICMP may speak of, or has no way back"
        );
        let view = StageView { result: StageResult::Drop, ..StageView::new("icmp_error", text) };
        return Some(view.with("reason", reason.label()));
    }
    let view = StageView::new("icmp_error", format!("its sender is told: {what}"));
    Some(StageView { result: StageResult::Reply, ..view }.with("reason", reason.label()))
}

fn encap(world: &World<'_>, step: &Step) -> Option<StageView> {
    if let Some(reason) = ended(step) {
        return Some(StageView::dropped("encap", reason));
    }
    let Verdict::Forward(index) = step.verdict else { return None };
    let tunnel = |outer: IpAddr| {
        let (vni, port) = world.tables.vxlan.map_or((0, 0), |vxlan| (vxlan.vni.get(), vxlan.port));
        let text = format!("into the tunnel to VTEP {outer}, VNI {vni}, UDP port {port}");
        StageView::new("encap", text).with("vtep", outer).with("vni", vni)
    };
    match &world.tables.adjacencies.get(index as usize)?.kind {
        Kind::VxlanV4(template) => Some(tunnel(template.outer.into())),
        Kind::VxlanV6(template) => Some(tunnel(template.outer.into())),
        Kind::Host
        | Kind::Endpoint { .. }
        | Kind::Direct { .. }
        | Kind::Gateway { .. }
        | Kind::Spread(_)
        | Kind::Drop(_) => None,
    }
}
