//! One connection at a time, to one endpoint of the list; a failure moves on to the next.

use std::path::Path;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::errors;
use super::options::{Endpoint, EtcdOptions, TlsFiles};
use crate::datastore::Error;

/// A client and which connection of the list it is.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) client: Client,
    /// Where it is connected to, for messages.
    pub(super) endpoint: String,
    /// A user is logged in.
    pub(super) logged_in: bool,
    generation: u64,
}

struct State {
    at: usize,
    connected: Option<Connected>,
    generation: u64,
}

/// The way to etcd.
pub(super) struct Connection {
    pub(super) options: EtcdOptions,
    state: Mutex<State>,
}

impl Connection {
    pub(super) fn new(options: EtcdOptions) -> Self {
        Self { options, state: Mutex::new(State { at: 0, connected: None, generation: 0 }) }
    }

    /// The connection there is, or a new one to the endpoint whose turn it is.
    pub(super) async fn connected(&self) -> Result<Connected, Error> {
        let mut state = self.state.lock().await;
        if let Some(connected) = &state.connected {
            return Ok(connected.clone());
        }
        let endpoint = &self.options.endpoints[state.at];
        match self.connect(endpoint).await {
            Ok((client, logged_in)) => {
                state.generation += 1;
                let generation = state.generation;
                let connected = Connected { client, endpoint: endpoint.to_string(), logged_in, generation };
                state.connected = Some(connected.clone());
                Ok(connected)
            }
            Err(error) => {
                state.at = (state.at + 1) % self.options.endpoints.len();
                Err(error)
            }
        }
    }

    /// Gives up a connection that failed; the next one is to the next endpoint, with TLS files and names read
    /// anew and a new login. Of many callers that see one connection fail, the first does it.
    pub(super) async fn give_up(&self, failed: &Connected) {
        let mut state = self.state.lock().await;
        if state.connected.as_ref().is_some_and(|current| current.generation == failed.generation) {
            state.connected = None;
            state.at = (state.at + 1) % self.options.endpoints.len();
        }
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<(Client, bool), Error> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.options.dial_timeout)
            .with_keep_alive(self.options.keep_alive_interval, self.options.keep_alive_timeout)
            .with_keep_alive_while_idle(true)
            .with_tcp_keepalive(self.options.keep_alive_interval)
            // A member cut off from its cluster must say so instead of serving a watch that never moves.
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let (true, Some(files)) = (endpoint.is_tls(), &self.options.tls) {
            options = options.with_tls(tls_options(files, endpoint).await?);
        }
        let Some(credentials) = &self.options.credentials else {
            return Ok((self.dial(endpoint, options).await?.map_err(|e| refused(endpoint, &e))?, false));
        };
        let as_user = options.clone().with_user(&credentials.user, &credentials.password);
        match self.dial(endpoint, as_user).await? {
            Ok(client) => Ok((client, true)),
            Err(error) if errors::is_auth_not_enabled(&error) => {
                Ok((self.dial(endpoint, options).await?.map_err(|e| refused(endpoint, &e))?, false))
            }
            Err(error) => Err(refused(endpoint, &error)),
        }
    }

    async fn dial(
        &self,
        endpoint: &Endpoint,
        options: ConnectOptions,
    ) -> Result<Result<Client, etcd_client::Error>, Error> {
        timeout(self.options.request_timeout, Client::connect([endpoint.url()], Some(options)))
            .await
            .map_err(|_| Error::Unavailable(format!("{endpoint}: no answer in time")))
    }
}

/// Nothing has been sent yet when the transport itself complains: it is about the TLS files.
fn refused(endpoint: &Endpoint, error: &etcd_client::Error) -> Error {
    match errors::classify(endpoint.url(), error) {
        Error::Unavailable(text) if matches!(error, etcd_client::Error::TransportError(_)) => {
            Error::Denied(format!("{text} (are the TLS files valid?)"))
        }
        error => error,
    }
}

async fn tls_options(files: &TlsFiles, endpoint: &Endpoint) -> Result<TlsOptions, Error> {
    let ca = Certificate::from_pem(read(&files.ca).await?);
    let mut options = TlsOptions::new().ca_certificate(ca).domain_name(endpoint.host());
    if let Some(client) = &files.client {
        let identity = Identity::from_pem(read(&client.certificate).await?, read(&client.key).await?);
        options = options.identity(identity);
    }
    Ok(options)
}

async fn read(path: &Path) -> Result<Vec<u8>, Error> {
    tokio::fs::read(path).await.map_err(|source| Error::Io { path: path.display().to_string(), source })
}
