//! Where the resources are: the daemon's flags and variables, and calicoctl's variables.

use std::path::PathBuf;
use std::sync::Arc;

use canal::config::{DatastoreKind, DatastoreSettings};
use canal_control::datastore::Datastore;
use canal_control::model::flannel::Prefix;
use clap::Args;

use super::Trouble;

/// Where the dir datastore is, unless somebody says otherwise.
const DATA_DIR: &str = "/etc/canal";

/// Which datastore, and how to reach it.
#[derive(Args)]
pub struct Flags {
    /// Where resources are kept [default: etcd when anything about etcd is given, else dir] (CANAL_DATASTORE)
    #[arg(long, value_enum, help_heading = "Datastore")]
    datastore: Option<DatastoreKind>,
    /// Documents of the dir datastore [default: /etc/canal] (CANAL_DATA_DIR)
    #[arg(long, help_heading = "Datastore")]
    data_dir: Option<PathBuf>,
    /// etcd servers, separated by commas (FLANNELD_ETCD_ENDPOINTS, ETCD_ENDPOINTS)
    #[arg(long, help_heading = "Datastore")]
    etcd_endpoints: Option<String>,
    /// Client key (FLANNELD_ETCD_KEYFILE, ETCD_KEY_FILE)
    #[arg(long, help_heading = "Datastore")]
    etcd_keyfile: Option<PathBuf>,
    /// Client certificate (FLANNELD_ETCD_CERTFILE, ETCD_CERT_FILE)
    #[arg(long, help_heading = "Datastore")]
    etcd_certfile: Option<PathBuf>,
    /// Authorities of etcd's certificate (FLANNELD_ETCD_CAFILE, ETCD_CA_CERT_FILE)
    #[arg(long, help_heading = "Datastore")]
    etcd_cafile: Option<PathBuf>,
    /// etcd user (FLANNELD_ETCD_USERNAME, ETCD_USERNAME)
    #[arg(long, help_heading = "Datastore")]
    etcd_username: Option<String>,
    /// Password, better given as FLANNELD_ETCD_PASSWORD or ETCD_PASSWORD: arguments can be seen by everyone
    #[arg(long, help_heading = "Datastore")]
    etcd_password: Option<String>,
}

/// Not for logs: there is a password in it.
impl std::fmt::Debug for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flags").field("datastore", &self.datastore).finish_non_exhaustive()
    }
}

impl Flags {
    /// The datastore that flags and environment mean. Nothing is dialled yet.
    pub fn open(&self) -> Result<Arc<dyn Datastore>, Trouble> {
        let settings = self.settings(|name| std::env::var(name).ok())?;
        let choice = settings.choose().map_err(Trouble::failed)?;
        choice.open(&Prefix::default()).map_err(Trouble::failed)
    }

    fn settings(&self, environment: impl Fn(&str) -> Option<String>) -> Result<DatastoreSettings, Trouble> {
        let first = |names: &[&str]| {
            let set = |name: &&str| environment(name).filter(|value| !value.is_empty());
            names.iter().find_map(set)
        };
        let text = |flag: &Option<String>, names: &[&str]| flag.clone().or_else(|| first(names));
        let path =
            |flag: &Option<PathBuf>, names: &[&str]| flag.clone().or_else(|| first(names).map(PathBuf::from));
        let kind = match (
            self.datastore,
            first(&["CANAL_DATASTORE"]).as_deref(),
            first(&["DATASTORE_TYPE"]).as_deref(),
        ) {
            (Some(kind), _, _) => Some(kind),
            (None, Some("etcd"), _) | (None, None, Some("etcdv3")) => Some(DatastoreKind::Etcd),
            (None, Some("dir"), _) => Some(DatastoreKind::Dir),
            (None, None, None) => None,
            (None, Some(other), _) => {
                return Err(Trouble::failed(format!("CANAL_DATASTORE is {other:?}: say etcd or dir")));
            }
            (None, None, Some(other)) => {
                let text = format!(
                    "DATASTORE_TYPE is {other:?}: canal keeps resources in etcdv3, or give --datastore"
                );
                return Err(Trouble::failed(text));
            }
        };
        Ok(DatastoreSettings {
            kind,
            data_dir: path(&self.data_dir, &["CANAL_DATA_DIR"]).unwrap_or_else(|| DATA_DIR.into()),
            etcd_endpoints: text(&self.etcd_endpoints, &["FLANNELD_ETCD_ENDPOINTS", "ETCD_ENDPOINTS"]),
            etcd_keyfile: path(&self.etcd_keyfile, &["FLANNELD_ETCD_KEYFILE", "ETCD_KEY_FILE"]),
            etcd_certfile: path(&self.etcd_certfile, &["FLANNELD_ETCD_CERTFILE", "ETCD_CERT_FILE"]),
            etcd_cafile: path(&self.etcd_cafile, &["FLANNELD_ETCD_CAFILE", "ETCD_CA_CERT_FILE"]),
            etcd_username: text(&self.etcd_username, &["FLANNELD_ETCD_USERNAME", "ETCD_USERNAME"]),
            etcd_password: text(&self.etcd_password, &["FLANNELD_ETCD_PASSWORD", "ETCD_PASSWORD"]),
            names_etcd: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use canal::config::DatastoreChoice;
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn choice(line: &str, environment: &[(&str, &str)]) -> Result<String, String> {
        let flags = Line::try_parse_from(format!("canal {line}").split_whitespace()).unwrap().flags;
        let get = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let settings = flags.settings(get).map_err(|trouble| trouble.text)?;
        match settings.choose().map_err(|error| error.to_string())? {
            DatastoreChoice::Dir(root) => Ok(root.display().to_string()),
            DatastoreChoice::Etcd(options) => {
                let urls: Vec<&str> = options.endpoints.iter().map(|endpoint| endpoint.url()).collect();
                Ok(format!("{} {}", urls.join(","), options.credentials.map_or(String::new(), |c| c.user)))
            }
        }
    }

    #[test]
    fn the_flag_goes_before_our_variable_and_that_before_calicoctls() {
        assert_eq!(choice("", &[]).unwrap(), "/etc/canal");
        assert_eq!(choice("--data-dir /d", &[("CANAL_DATA_DIR", "/e")]).unwrap(), "/d");
        let calicoctl = ("ETCD_ENDPOINTS", "http://c:1");
        let ours = ("FLANNELD_ETCD_ENDPOINTS", "http://f:1");
        assert_eq!(choice("", &[calicoctl]).unwrap(), "http://c:1 ");
        assert_eq!(choice("", &[calicoctl, ours]).unwrap(), "http://f:1 ");
        assert_eq!(choice("--etcd-endpoints http://a:1", &[calicoctl, ours]).unwrap(), "http://a:1 ");
        let login = [calicoctl, ("ETCD_USERNAME", "u"), ("ETCD_PASSWORD", "p")];
        assert_eq!(choice("", &login).unwrap(), "http://c:1 u");
        assert_eq!(choice("--datastore dir", &[calicoctl]).unwrap(), "/etc/canal");
        assert_eq!(choice("", &[("DATASTORE_TYPE", "etcdv3"), calicoctl]).unwrap(), "http://c:1 ");
    }

    #[test]
    fn what_does_not_fit_is_said() {
        assert!(choice("", &[("DATASTORE_TYPE", "kubernetes")]).unwrap_err().contains("etcdv3"));
        assert!(choice("", &[("CANAL_DATASTORE", "x")]).unwrap_err().contains("etcd or dir"));
        assert!(choice("", &[("ETCD_CERT_FILE", "c")]).unwrap_err().contains("etcd-keyfile"));
    }
}
