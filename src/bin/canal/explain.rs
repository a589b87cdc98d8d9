//! `canal explain`: drop reasons in sentences, without a daemon.

use canal_dataplane::verdict::DropReason;

/// The sentence of one reason, or of all; exit status 1 for a reason that does not exist.
pub fn explain(reason: Option<&str>) -> (String, u8) {
    let line = |reason: &DropReason| format!("{}: {}\n", reason.label(), reason.sentence());
    let Some(label) = reason else { return (DropReason::ALL.iter().map(line).collect(), 0) };
    match DropReason::ALL.iter().find(|reason| reason.label() == label) {
        Some(reason) => (line(reason), 0),
        None => (format!("{label}: no such drop reason; `canal explain` lists them\n"), 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_explained() {
        assert_eq!(explain(Some("no_route")), ("no_route: No route leads to the destination.\n".into(), 0));
        assert_eq!(explain(None).0.lines().count(), DropReason::COUNT);
        assert_eq!(explain(Some("nonsense")).1, 1);
    }
}
