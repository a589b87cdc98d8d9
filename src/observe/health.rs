//! `/healthz` and `/readyz` in flannel's words, `/liveness` and `/readiness` with Felix's meaning.
//!
//! Felix's: live = every main loop goes round; ready = the datastore has been read and the dataplane is as it says. Its
//! older versions answer 204, its newer ones 200 and a report: probes take both, and people the report.

use std::fmt::Write;
use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

/// How long a thread may be silent, in milliseconds. The slowest goes round every second when nothing happens; Felix gives
/// its own twenty seconds, too.
pub const STUCK_MS: u64 = 20_000;

/// Is the daemon ready, and if not, why not?
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// New workloads may come.
    pub ready: bool,
    /// What is not as it should be.
    pub reasons: Vec<String>,
}

/// How long each thread has been silent. The one that answers is not among them: it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Liveness {
    /// Name of the thread, milliseconds.
    pub silent_ms: Vec<(String, u64)>,
}

/// What is asked at every probe.
pub trait Patient: Send + Sync + 'static {
    /// For `/readyz` and `/readiness`.
    fn readiness(&self) -> impl Future<Output = Readiness> + Send;
    /// For `/liveness`.
    fn liveness(&self) -> Liveness;
}

/// The four paths.
pub fn router(patient: impl Patient) -> Router {
    let patient = Arc::new(patient);
    let (ready_asked, live_asked) = (Arc::clone(&patient), Arc::clone(&patient));
    Router::new()
        .route("/healthz", get(async || "flanneld is running"))
        .route("/readyz", get(async move || readyz(&patient.readiness().await)))
        .route("/readiness", get(async move || readiness(&ready_asked.readiness().await)))
        .route("/liveness", get(async move || liveness(&live_asked.liveness())))
}

fn readyz(readiness: &Readiness) -> (StatusCode, String) {
    if readiness.ready {
        return (StatusCode::OK, "flanneld is ready".into());
    }
    let reasons: String = readiness.reasons.iter().map(|reason| format!("\n{reason}")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, format!("flanneld is not ready yet{reasons}"))
}

const fn code(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn readiness(readiness: &Readiness) -> (StatusCode, String) {
    let head = if readiness.ready { "ready" } else { "not ready" };
    let reasons = readiness.reasons.iter().map(|reason| format!("{reason}\n"));
    (code(readiness.ready), std::iter::once(format!("{head}\n")).chain(reasons).collect())
}

fn liveness(liveness: &Liveness) -> (StatusCode, String) {
    let mut live = true;
    let mut report = String::new();
    for (name, silent_ms) in &liveness.silent_ms {
        let stuck = *silent_ms > STUCK_MS;
        live &= !stuck;
        let word = if stuck { "stuck" } else { "live" };
        // Writing to a String cannot fail.
        let _ = writeln!(report, "{name}: {word}, went round {silent_ms} ms ago");
    }
    (code(live), report)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::observe::http::{LIFETIME, tests};

    #[derive(Clone, Default)]
    struct Asked(Arc<Mutex<(Readiness, Liveness)>>);

    impl Patient for Asked {
        async fn readiness(&self) -> Readiness {
            self.0.lock().unwrap().0.clone()
        }
        fn liveness(&self) -> Liveness {
            self.0.lock().unwrap().1.clone()
        }
    }

    #[tokio::test]
    async fn probes_say_what_flannel_says() {
        let asked = Asked::default();
        asked.0.lock().unwrap().0 = Readiness { ready: false, reasons: vec!["no lease yet".into()] };
        let address = tests::start(router(asked.clone()), LIFETIME).await;
        assert_eq!(tests::fetch(address, "/healthz").await, (200, "flanneld is running".into()));
        let not_yet = (503, "flanneld is not ready yet\nno lease yet".into());
        assert_eq!(tests::fetch(address, "/readyz").await, not_yet);
        assert_eq!(tests::fetch(address, "/readiness").await, (503, "not ready\nno lease yet\n".into()));
        asked.0.lock().unwrap().0.ready = true;
        assert_eq!(tests::fetch(address, "/readyz").await, (200, "flanneld is ready".into()));
        assert_eq!(tests::fetch(address, "/readiness").await, (200, "ready\nno lease yet\n".into()));
    }

    #[tokio::test]
    async fn a_thread_that_stands_still_is_not_alive() {
        let asked = Asked::default();
        let address = tests::start(router(asked.clone()), LIFETIME).await;
        let silent = |worker, control| {
            asked.0.lock().unwrap().1.silent_ms =
                vec![("worker 0".into(), worker), ("control".into(), control)];
        };
        silent(500, STUCK_MS);
        let (code, report) = tests::fetch(address, "/liveness").await;
        assert_eq!(
            (code, report.as_str()),
            (200, "worker 0: live, went round 500 ms ago\ncontrol: live, went round 20000 ms ago\n")
        );
        for (worker, control, stuck) in [(STUCK_MS + 1, 3, "worker 0"), (3, STUCK_MS + 1, "control")] {
            silent(worker, control);
            let (code, report) = tests::fetch(address, "/liveness").await;
            assert_eq!(code, 503, "{report}");
            assert!(report.contains(&format!("{stuck}: stuck")), "{report}");
            assert_eq!(report.matches("stuck").count(), 1, "{report}");
        }
    }
}
