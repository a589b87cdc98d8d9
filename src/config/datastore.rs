//! Where desired state is kept, and how it is reached: the same for the daemon and for the operator's command.

use std::path::PathBuf;
use std::sync::Arc;

use canal_control::datastore::dir::Dir;
use canal_control::datastore::etcd::{
    ClientCertificate, Credentials, Etcd, EtcdOptions, OptionsError, TlsFiles, parse_endpoints,
};
use canal_control::datastore::{Datastore, Error};
use canal_control::model::flannel::Prefix;

use super::{ConfigError, DatastoreKind};

/// flannel's default etcd servers.
const DEFAULT_ENDPOINTS: &str = "http://127.0.0.1:4001,http://127.0.0.1:2379";

/// Where desired state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatastoreChoice {
    /// etcd v3.
    Etcd(EtcdOptions),
    /// Documents under this directory.
    Dir(PathBuf),
}

/// Why a datastore that was chosen cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// etcd's settings do not fit together.
    #[error(transparent)]
    Etcd(#[from] OptionsError),
    /// The directory's.
    #[error(transparent)]
    Dir(#[from] Error),
}

impl DatastoreChoice {
    /// Opens it; nothing is dialled yet. `prefix` is that of flannel's network, for which a directory has other files.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(&self, prefix: &Prefix) -> Result<Arc<dyn Datastore>, OpenError> {
        Ok(match self {
            Self::Etcd(options) => Arc::new(Etcd::new(options.clone())?),
            Self::Dir(root) => Arc::new(Dir::open(root, &prefix.to_string())?),
        })
    }
}

/// What somebody has said about it. Not for logs: it holds the password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DatastoreSettings {
    /// Which one.
    pub kind: Option<DatastoreKind>,
    /// Documents of the directory.
    pub data_dir: PathBuf,
    /// Comma separated list of servers.
    pub etcd_endpoints: Option<String>,
    /// Client key.
    pub etcd_keyfile: Option<PathBuf>,
    /// Client certificate.
    pub etcd_certfile: Option<PathBuf>,
    /// Authorities.
    pub etcd_cafile: Option<PathBuf>,
    /// User.
    pub etcd_username: Option<String>,
    /// Their password.
    pub etcd_password: Option<String>,
    /// Something else was said that concerns etcd only.
    pub names_etcd: bool,
}

impl DatastoreSettings {
    /// Settings of etcd that were given, as flags.
    pub fn about_etcd(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            (self.etcd_endpoints.is_some(), "etcd-endpoints"),
            (self.etcd_keyfile.is_some(), "etcd-keyfile"),
            (self.etcd_certfile.is_some(), "etcd-certfile"),
            (self.etcd_cafile.is_some(), "etcd-cafile"),
            (self.etcd_username.is_some(), "etcd-username"),
            (self.etcd_password.is_some(), "etcd-password"),
        ];
        given.into_iter().filter(|(given, _)| *given).map(|(_, flag)| flag)
    }

    /// The one that is meant: what `kind` says, else etcd if anything about etcd was said, else the directory.
    ///
    /// # Errors
    /// [`ConfigError`] naming the flag.
    pub fn choose(&self) -> Result<DatastoreChoice, ConfigError> {
        let etcd = self.names_etcd || self.about_etcd().next().is_some();
        match self.kind {
            Some(DatastoreKind::Dir) => Ok(DatastoreChoice::Dir(self.data_dir.clone())),
            None if !etcd => Ok(DatastoreChoice::Dir(self.data_dir.clone())),
            _ => self.etcd().map(DatastoreChoice::Etcd),
        }
    }

    fn etcd(&self) -> Result<EtcdOptions, ConfigError> {
        let list = self.etcd_endpoints.as_deref().unwrap_or(DEFAULT_ENDPOINTS);
        let mut options = EtcdOptions::new(parse_endpoints(list)?);
        let files = (&self.etcd_certfile, &self.etcd_keyfile);
        let client = both(files, ("etcd-certfile", "etcd-keyfile"))?
            .map(|(certificate, key)| ClientCertificate { certificate, key });
        options.tls = match (&self.etcd_cafile, client) {
            (Some(ca), client) => Some(TlsFiles { ca: ca.clone(), client }),
            (None, Some(_)) => {
                return Err(ConfigError::Pair { given: "etcd-certfile", missing: "etcd-cafile" });
            }
            (None, None) => None,
        };
        let login = (&self.etcd_username, &self.etcd_password);
        options.credentials = both(login, ("etcd-username", "etcd-password"))?
            .map(|(user, password)| Credentials { user, password });
        options.check()?;
        Ok(options)
    }
}

/// Both of two values, or neither.
fn both<T: Clone>(
    values: (&Option<T>, &Option<T>),
    names: (&'static str, &'static str),
) -> Result<Option<(T, T)>, ConfigError> {
    match values {
        (Some(first), Some(second)) => Ok(Some((first.clone(), second.clone()))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(ConfigError::Pair { given: names.0, missing: names.1 }),
        (None, Some(_)) => Err(ConfigError::Pair { given: names.1, missing: names.0 }),
    }
}
