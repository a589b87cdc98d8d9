//! Listeners whose place Felix's settings say: they come, move and go with these.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use canal_control::felix::{Config, Values};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::http;

/// Pause before a place that was refused is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Serves `router` where `place` says, as long as it says so; `what` is for people. Ends with who says it.
pub async fn follow(
    what: &'static str,
    mut felix: watch::Receiver<Arc<Config>>,
    place: impl Fn(&Values) -> Option<SocketAddr>,
    router: Router,
) {
    loop {
        let wanted = place(&felix.borrow_and_update().values);
        let elsewhere = async {
            while felix.changed().await.is_ok() {
                if place(&felix.borrow_and_update().values) != wanted {
                    return true;
                }
            }
            false
        };
        let another = match wanted {
            None => elsewhere.await,
            Some(address) => tokio::select! {
                another = elsewhere => another,
                () = serve_at(what, address, &router) => true,
            },
        };
        if !another {
            return;
        }
    }
}

/// Until it is dropped. A place that is taken is waited for.
async fn serve_at(what: &str, address: SocketAddr, router: &Router) {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, "{what}");
                // Returns when nothing can be accepted any more.
                let _ = http::serve(listener, http::LIFETIME, router.clone()).await;
            }
            Err(error) if !std::mem::replace(&mut told, true) => {
                tracing::warn!(%address, %error, "cannot listen for {what}; trying again and again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use canal_control::felix::Local;
    use canal_control::state::Calico;

    use super::*;
    use crate::observe::http::tests::fetch;

    /// A port that is free now.
    async fn free() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    fn enabled_at(address: Option<SocketAddr>) -> Arc<Config> {
        let variables = address.into_iter().flat_map(|address| {
            [
                ("FELIX_HEALTHENABLED".to_owned(), "true".to_owned()),
                ("FELIX_HEALTHPORT".to_owned(), address.port().to_string()),
            ]
        });
        Arc::new(Config::of(&Local::new(vec![], variables), "n1", &Calico::default()))
    }

    async fn answers(address: SocketAddr, wanted: bool) {
        for _ in 0..500 {
            let there = tokio::net::TcpStream::connect(address).await.is_ok();
            if there == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{address} does not answer={wanted}");
    }

    #[tokio::test]
    async fn a_listener_comes_moves_waits_for_its_place_and_goes() {
        let (first, second) = (free().await, free().await);
        let (settings, felix) = watch::channel(enabled_at(None));
        let router = Router::new().route("/", get(async || "here"));
        let task = tokio::spawn(follow("probes", felix, Values::health, router));
        settings.send_replace(enabled_at(Some(first)));
        answers(first, true).await;
        assert_eq!(fetch(first, "/").await, (200, "here".to_owned()));
        // Somebody else has it, for now.
        let holder = TcpListener::bind(second).await.unwrap();
        settings.send_replace(enabled_at(Some(second)));
        answers(first, false).await;
        drop(holder);
        answers(second, true).await;
        settings.send_replace(enabled_at(None));
        answers(second, false).await;
        drop(settings);
        task.await.unwrap();
    }
}
