//! The datastore as the laboratory sees it: the same documents in etcd or in a directory.

use crate::flannel::Lease;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Something that holds flannel's and Calico's documents and that a daemon can be pointed at.
pub trait Store {
    /// Arguments that make canal-fwd use this datastore.
    fn daemon_args(&self) -> Vec<String>;
    /// Writes flannel's network config.
    fn set_net_conf(&self, conf: &Value) -> Result<()>;
    /// Writes the lease under `key` (`10.244.1.0-24`), leased for a day where the datastore knows leases.
    fn put_lease(&self, key: &str, value: &str) -> Result<()>;
    /// Deletes the lease under `key`.
    fn delete_lease(&self, key: &str) -> Result<()>;
    /// Every lease, as last part of the key and value.
    fn raw_leases(&self) -> Result<Vec<(String, String)>>;
    /// Writes the workload endpoint `namespace/name`.
    fn put_workload(&self, namespace: &str, name: &str, resource: &Value) -> Result<()>;
    /// Deletes the workload endpoint `namespace/name`.
    fn delete_workload(&self, namespace: &str, name: &str) -> Result<()>;

    /// Every lease that can be read.
    fn leases(&self) -> Result<Vec<Lease>> {
        self.raw_leases()?.iter().map(|(key, value)| Lease::parse(key, value)).collect()
    }
}

/// The `dir` datastore: one document a file.
#[derive(Debug)]
pub struct DirStore {
    dir: PathBuf,
}

impl DirStore {
    /// Lays the directories below `dir`.
    pub fn new(dir: &Path) -> Result<Self> {
        for part in ["subnets", "resources"] {
            std::fs::create_dir_all(dir.join(part)).with_context(|| format!("making {}", dir.display()))?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        // Half a document must never be seen: write beside, then rename.
        let path = self.dir.join(path);
        let beside = path.with_extension("tmp");
        std::fs::write(&beside, text)?;
        std::fs::rename(&beside, &path).with_context(|| format!("writing {}", path.display()))
    }

    /// Writes one of Calico's resources into a file of this name.
    pub fn put_resource(&self, file: &str, resource: &Value) -> Result<()> {
        // JSON is YAML.
        self.write(&format!("resources/{file}.yaml"), &resource.to_string())
    }

    fn workload_file(namespace: &str, name: &str) -> String {
        format!("resources/workloadendpoint.{namespace}.{name}.yaml")
    }
}

impl Store for DirStore {
    fn daemon_args(&self) -> Vec<String> {
        vec!["--datastore".into(), "dir".into(), "--data-dir".into(), self.dir.to_string_lossy().into_owned()]
    }

    fn set_net_conf(&self, conf: &Value) -> Result<()> {
        self.write("net-conf.json", &conf.to_string())
    }

    fn put_lease(&self, key: &str, value: &str) -> Result<()> {
        self.write(&format!("subnets/{key}.json"), value)
    }

    fn delete_lease(&self, key: &str) -> Result<()> {
        std::fs::remove_file(self.dir.join(format!("subnets/{key}.json"))).context("deleting a lease")
    }

    fn raw_leases(&self) -> Result<Vec<(String, String)>> {
        let mut leases = Vec::new();
        for entry in std::fs::read_dir(self.dir.join("subnets"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "json") {
                let key = path.file_stem().context("no name")?.to_string_lossy().into_owned();
                leases.push((key, std::fs::read_to_string(&path)?));
            }
        }
        leases.sort();
        Ok(leases)
    }

    fn put_workload(&self, namespace: &str, name: &str, resource: &Value) -> Result<()> {
        // JSON is YAML.
        self.write(&Self::workload_file(namespace, name), &resource.to_string())
    }

    fn delete_workload(&self, namespace: &str, name: &str) -> Result<()> {
        std::fs::remove_file(self.dir.join(Self::workload_file(namespace, name)))
            .context("deleting a workload")
    }
}
