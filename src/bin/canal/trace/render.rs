//! A report in lines for people.

use canal::trace::report::{Outcome, PolicyStep, PolicyView, Report, SentView, StageResult, StageView};

/// Rules that did not match, shown of one list without `--verbose`.
const MISMATCHES: usize = 5;

/// Width of the column of names.
const NAMES: usize = 12;

/// The report. `verbose`: every rule that was asked.
pub fn text(report: &Report, verbose: bool) -> String {
    let mut lines = Lines(String::new());
    for assumption in &report.assumptions {
        lines.line("assumed", assumption);
    }
    lines.line("packet", &format!("from {}, {} bytes", report.packet.ingress, report.packet.length));
    report.packet.layers.iter().for_each(|layer| lines.line("", layer));
    lines.line("tables", &tables(report));
    for stage in &report.stages {
        lines.line(&stage.stage, &stage_text(stage));
        if let Some(policy) = &stage.policy {
            policy_lines(policy, verbose, &mut lines);
        }
    }
    lines.line("verdict", &verdict(report));
    report.sent.iter().for_each(|sent| sent_lines(sent, &mut lines));
    lines.0
}

/// Text in two columns.
struct Lines(String);

impl Lines {
    fn line(&mut self, name: &str, text: &str) {
        self.0.push_str(format!("{name:<NAMES$}{text}").trim_end());
        self.0.push('\n');
    }
}

fn tables(report: &Report) -> String {
    match report.generation {
        0 => "none have been published yet".to_owned(),
        generation => format!("generation {generation}, revision {}", report.revision),
    }
}

fn stage_text(stage: &StageView) -> String {
    match (stage.result, stage.facts.get("reason")) {
        (StageResult::Drop, Some(reason)) => format!("DROP {reason}: {}", stage.text),
        (StageResult::Drop, None) => format!("DROP: {}", stage.text),
        (StageResult::Pass | StageResult::Reply, _) => stage.text.clone(),
    }
}

fn policy_lines(policy: &PolicyView, verbose: bool, lines: &mut Lines) {
    let mut hidden = 0;
    let mismatches = policy.steps.iter().filter(|step| !step.matched).count();
    let few = verbose || mismatches <= MISMATCHES;
    for step in &policy.steps {
        if step.matched || few {
            lines.line("", &format!("  {}", policy_step(step)));
        } else {
            hidden += 1;
        }
    }
    if hidden + policy.omitted > 0 {
        lines.line("", &format!("  {} rules that did not match are not shown", hidden + policy.omitted));
    }
}

fn policy_step(step: &PolicyStep) -> String {
    let place = match (&step.tier, &step.kind, &step.name) {
        (Some(tier), None, _) => format!("end of tier {tier}"),
        (tier, Some(kind), Some(name)) => {
            let tier = tier.as_ref().map_or_else(String::new, |tier| format!("tier {tier}, "));
            format!("{tier}{kind} {name}, rule {}", step.rule.unwrap_or(0))
        }
        _ => "end of the profiles".to_owned(),
    };
    match &step.mismatch {
        None => format!("{place}: {}", step.action),
        Some(why) => format!("{place} ({}): no match, {why}", step.action),
    }
}

fn verdict(report: &Report) -> String {
    let verdict = &report.verdict;
    let outcome = match verdict.outcome {
        Outcome::Forwarded => "FORWARDED",
        Outcome::Delivered => "DELIVERED",
        Outcome::Answered => "ANSWERED",
        Outcome::Dropped => "DROPPED",
    };
    let to = match (verdict.outcome, &verdict.to) {
        (Outcome::Dropped, _) | (_, None) => String::new(),
        (_, Some(to)) => format!(" to {to}"),
    };
    let reason = verdict.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    format!("{outcome}{to}{reason}: {}", verdict.sentence)
}

fn sent_lines(sent: &SentView, lines: &mut Lines) {
    lines.line("sent", &format!("to {}, {} bytes", sent.egress, sent.length));
    sent.layers.iter().for_each(|layer| lines.line("", layer));
}

#[cfg(test)]
mod tests;
