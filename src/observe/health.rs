//! `/healthz` and `/readyz`, in flannel's words.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

/// Is the daemon ready, and if not, why not?
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// New workloads may come.
    pub ready: bool,
    /// What is not as it should be.
    pub reasons: Vec<String>,
}

/// The two paths; `readiness` is asked at every probe.
pub fn router(readiness: impl Fn() -> Readiness + Send + Sync + 'static) -> Router {
    let readiness = Arc::new(readiness);
    Router::new()
        .route("/healthz", get(async || "flanneld is running"))
        .route("/readyz", get(async move || ready(&readiness())))
}

fn ready(readiness: &Readiness) -> (StatusCode, String) {
    if readiness.ready {
        return (StatusCode::OK, "flanneld is ready".into());
    }
    let reasons: String = readiness.reasons.iter().map(|reason| format!("\n{reason}")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, format!("flanneld is not ready yet{reasons}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::observe::http::{LIFETIME, tests};

    #[tokio::test]
    async fn probes_say_what_flannel_says() {
        let readiness =
            Arc::new(Mutex::new(Readiness { ready: false, reasons: vec!["no lease yet".into()] }));
        let asked = Arc::clone(&readiness);
        let address = tests::start(router(move || asked.lock().unwrap().clone()), LIFETIME).await;
        assert_eq!(tests::fetch(address, "/healthz").await, (200, "flanneld is running".into()));
        let not_yet = (503, "flanneld is not ready yet\nno lease yet".into());
        assert_eq!(tests::fetch(address, "/readyz").await, not_yet);
        readiness.lock().unwrap().ready = true;
        assert_eq!(tests::fetch(address, "/readyz").await, (200, "flanneld is ready".into()));
    }
}
