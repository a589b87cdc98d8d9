//! A real etcd, in the switch namespace: started, stopped, compacted and wiped at will.

use crate::certificates::Certificates;
use crate::cmd::Background;
use crate::flannel::PREFIX;
use crate::plan;
use crate::store::Store;
use crate::topology::{Host, Topology};
use crate::wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Where Calico's v3 client keeps workload endpoints.
const WORKLOADS: &str = "/calico/resources/v3/projectcalico.org/workloadendpoints";

/// Name of the switch's own table of packets that vanish.
const PARTITION: &str = "partition";

/// How clients are made to prove themselves.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// TLS with these certificates.
    pub tls: Option<Certificates>,
    /// Clients must show a certificate of the same authority.
    pub client_certificates: bool,
    /// Authentication is on: root's password is this, and [`CLIENT`] may do what a flannel node needs and no more.
    pub root_password: Option<String>,
    /// Daemons are told neither certificate, nor user, nor password.
    pub untold: bool,
}

/// Name and password of the user that daemons are given when authentication is on.
pub const CLIENT: (&str, &str) = ("canal", "pass:word");

/// The process, its data and the address everyone reaches it by.
#[derive(Debug)]
pub struct Etcd<'t> {
    topology: &'t Topology,
    process: Option<Background>,
    data: TempDir,
    log: PathBuf,
    evidence: Arc<crate::evidence::Evidence>,
    guard: Guard,
    authenticated: bool,
}

impl<'t> Etcd<'t> {
    /// Starts an empty etcd in the switch namespace.
    pub fn start(topology: &'t Topology) -> Result<Self> {
        Self::start_guarded(topology, Guard::default())
    }

    /// Starts an empty etcd that does not serve everyone.
    pub fn start_guarded(topology: &'t Topology, guard: Guard) -> Result<Self> {
        let log = topology.evidence.dir("etcd")?.join("etcd.log");
        let evidence = Arc::clone(&topology.evidence);
        let data = tempfile::Builder::new().prefix("cnt-etcd").tempdir()?;
        let mut etcd = Self { topology, process: None, data, log, evidence, guard, authenticated: false };
        etcd.restart()?;
        if let Some(password) = etcd.guard.root_password.clone() {
            etcd.authenticate(&password)?;
        }
        Ok(etcd)
    }

    /// Makes the users and turns authentication on.
    fn authenticate(&mut self, root_password: &str) -> Result<()> {
        let (name, password) = CLIENT;
        self.ctl(&["user", "add", &format!("root:{root_password}")])?;
        self.ctl(&["user", "add", name, "--new-user-password", password])?;
        self.ctl(&["user", "grant-role", "root", "root"])?;
        self.ctl(&["role", "add", "node"])?;
        for (access, prefix) in [("readwrite", PREFIX), ("read", "/calico/")] {
            self.ctl(&["role", "grant-permission", "node", access, "--prefix=true", prefix])?;
        }
        self.ctl(&["user", "grant-role", name, "node"])?;
        self.ctl(&["auth", "enable"])?;
        self.authenticated = true;
        Ok(())
    }

    /// Process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Background::pid)
    }

    /// The client URL, reachable from every host.
    pub fn url(&self) -> String {
        let scheme = if self.guard.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}:2379", plan::switch_v4(0))
    }

    /// Starts the process again on the data it has; no effect while it runs.
    pub fn restart(&mut self) -> Result<()> {
        if self.process.as_mut().is_some_and(Background::is_running) {
            return Ok(());
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = self.topology.switch.command("etcd");
        command.arg("--data-dir").arg(self.data.path().join("data"));
        command.args(["--listen-client-urls", &self.url(), "--advertise-client-urls", &self.url()]);
        command.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
        command.args(["--initial-advertise-peer-urls", "http://127.0.0.1:2380"]);
        command.args(["--initial-cluster", "default=http://127.0.0.1:2380", "--log-outputs", "stderr"]);
        if let Some(tls) = &self.guard.tls {
            command.args(["--cert-file", &tls.certificate("server"), "--key-file", &tls.key("server")]);
            if self.guard.client_certificates {
                command.args(["--client-cert-auth", "--trusted-ca-file", &tls.certificate("ca")]);
            }
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(Background::start("etcd", &mut command)?);
        wait::until("etcd healthy", wait::SOON, || {
            self.ctl(&["--command-timeout=2s", "endpoint", "health"]).map(|_| true)
        })
    }

    /// Ends the process with SIGTERM; the data stays.
    pub fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.terminate(Duration::from_secs(20)).map(drop),
            None => Ok(()),
        }
    }

    /// Ends the process, loses all its data and starts an empty one: revisions begin again at 1.
    pub fn wipe(&mut self) -> Result<()> {
        self.stop()?;
        std::fs::remove_dir_all(self.data.path().join("data"))?;
        self.restart()
    }

    /// From now on every packet between this etcd and `host` vanishes, without a word to either; what others exchange does
    /// not. Until [`Self::heal`].
    pub fn partition(&self, host: &Host) -> Result<()> {
        let nft = |rule: String| self.topology.switch.run(&["nft", &rule]).map(drop);
        nft(format!("add table inet {PARTITION}"))?;
        for (hook, direction, end) in [("input", "saddr", "dport"), ("output", "daddr", "sport")] {
            nft(format!("add chain inet {PARTITION} {hook} {{ type filter hook {hook} priority 0; }}"))?;
            nft(format!("add rule inet {PARTITION} {hook} ip {direction} {} tcp {end} 2379 drop", host.v4))?;
        }
        Ok(())
    }

    /// Ends the partition.
    pub fn heal(&self) -> Result<()> {
        self.topology.switch.run(&["nft", "delete", "table", "inet", PARTITION]).map(drop)
    }

    /// Compacts everything up to the current revision: a watch that resumes earlier is refused.
    pub fn compact(&self) -> Result<()> {
        let status = self.ctl(&["endpoint", "status", "-w", "json"])?;
        let status: Value = serde_json::from_str(&status)?;
        let revision = status[0]["Status"]["header"]["revision"].as_u64().context("no revision")?;
        self.ctl(&["compact", "--physical", &revision.to_string()]).map(drop)
    }

    /// Runs etcdctl in the switch namespace.
    pub fn ctl(&self, words: &[&str]) -> Result<String> {
        let mut argv = vec!["etcdctl".to_owned(), format!("--endpoints={}", self.url())];
        if let Some(tls) = &self.guard.tls {
            argv.extend(["--cacert".to_owned(), tls.certificate("ca")]);
            argv.extend([
                "--cert".to_owned(),
                tls.certificate("client"),
                "--key".to_owned(),
                tls.key("client"),
            ]);
        }
        if let (true, Some(password)) = (self.authenticated, &self.guard.root_password) {
            argv.push(format!("--user=root:{password}"));
        }
        argv.extend(words.iter().map(|w| (*w).to_owned()));
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        self.topology.switch.run(&argv)
    }

    /// Writes one key without a lease.
    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        self.ctl(&["put", "--", key, value]).map(drop)
    }

    /// Writes one key without a lease and returns the revision of the write.
    pub fn put_at(&self, key: &str, value: &str) -> Result<u64> {
        let answer: Value = serde_json::from_str(&self.ctl(&["-w", "json", "put", "--", key, value])?)?;
        answer["header"]["revision"].as_u64().context("no revision")
    }

    /// Revision of the newest write.
    pub fn revision(&self) -> Result<u64> {
        let answer: Value = serde_json::from_str(&self.ctl(&["-w", "json", "get", "--", "/"])?)?;
        answer["header"]["revision"].as_u64().context("no revision")
    }

    /// Writes and deletes keys (`None`) in one transaction: every reader sees all of it or nothing.
    pub fn put_all(&self, changes: &[(String, Option<String>)]) -> Result<()> {
        // etcdctl's own language: compares, then what is done, then what is done otherwise; Go's quoting is JSON's here.
        let mut script = String::from("\n");
        for (key, value) in changes {
            match value {
                Some(value) => script.push_str(&format!("put {} {}\n", json!(key), json!(value))),
                None => script.push_str(&format!("del {}\n", json!(key))),
            }
        }
        script.push_str("\n\n");
        self.ctl_with(&["txn"], &script).map(drop)
    }

    /// Writes one key with a value that is too long for a command line.
    pub fn put_long(&self, key: &str, value: &str) -> Result<()> {
        self.ctl_with(&["put", "--", key], value).map(drop)
    }

    /// Runs etcdctl in the switch namespace with `input`; servers without guard only.
    fn ctl_with(&self, words: &[&str], input: &str) -> Result<String> {
        ensure!(self.guard.tls.is_none() && !self.authenticated, "for servers without guard");
        let mut command = self.topology.switch.command("etcdctl");
        command.arg(format!("--endpoints={}", self.url())).args(words);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("etcdctl")?;
        child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
        let done = child.wait_with_output()?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (said(&done.stdout), said(&done.stderr));
        ensure!(done.status.success() && !out.starts_with("FAILURE"), "etcdctl {words:?}: {out}{err}");
        Ok(out)
    }

    /// Deletes one key.
    pub fn delete(&self, key: &str) -> Result<()> {
        self.ctl(&["del", "--", key]).map(drop)
    }

    /// Every key below `prefix` with its value and etcd lease id (0: none).
    pub fn list(&self, prefix: &str) -> Result<Vec<(String, String, i64)>> {
        let text = self.ctl(&["get", "--prefix", "-w", "json", "--", prefix])?;
        let reply: Value = serde_json::from_str(&text)?;
        let mut found = Vec::new();
        for kv in reply["kvs"].as_array().into_iter().flatten() {
            let field = |name: &str| -> Result<String> { decode(kv[name].as_str().unwrap_or_default()) };
            found.push((field("key")?, field("value")?, kv["lease"].as_i64().unwrap_or(0)));
        }
        Ok(found)
    }
}

impl Drop for Etcd<'_> {
    fn drop(&mut self) {
        if !self.evidence.passed() {
            self.evidence.print_tail("etcd", &self.log, 3);
        }
    }
}

impl Store for Etcd<'_> {
    fn daemon_args(&self) -> Vec<String> {
        let mut args = vec!["--etcd-endpoints".to_owned(), self.url()];
        if let Some(tls) = &self.guard.tls {
            args.push(format!("--etcd-cafile={}", tls.certificate("ca")));
            if self.guard.client_certificates && !self.guard.untold {
                args.push(format!("--etcd-certfile={}", tls.certificate("client")));
                args.push(format!("--etcd-keyfile={}", tls.key("client")));
            }
        }
        if self.guard.root_password.is_some() && !self.guard.untold {
            args.push(format!("--etcd-username={}", CLIENT.0));
            args.push(format!("--etcd-password={}", CLIENT.1));
        }
        args
    }

    fn set_net_conf(&self, conf: &Value) -> Result<()> {
        self.put(&format!("{PREFIX}/config"), &conf.to_string())
    }

    fn put_lease(&self, key: &str, value: &str) -> Result<()> {
        let granted = self.ctl(&["lease", "grant", "86400"])?;
        let id = granted.split_whitespace().nth(1).context("no lease id")?;
        self.ctl(&["put", "--lease", id, "--", &format!("{PREFIX}/subnets/{key}"), value]).map(drop)
    }

    fn delete_lease(&self, key: &str) -> Result<()> {
        self.delete(&format!("{PREFIX}/subnets/{key}"))
    }

    fn raw_leases(&self) -> Result<Vec<(String, String)>> {
        let prefix = format!("{PREFIX}/subnets/");
        let found = self.list(&prefix)?;
        Ok(found.into_iter().map(|(key, value, _)| (key[prefix.len()..].to_owned(), value)).collect())
    }

    fn put_workload(&self, namespace: &str, name: &str, resource: &Value) -> Result<()> {
        self.put(&format!("{WORKLOADS}/{namespace}/{name}"), &resource.to_string())
    }

    fn delete_workload(&self, namespace: &str, name: &str) -> Result<()> {
        self.delete(&format!("{WORKLOADS}/{namespace}/{name}"))
    }
}

/// Standard base64 to text: what etcdctl's JSON wraps keys and values in.
fn decode(text: &str) -> Result<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0u32);
    for c in text.bytes().filter(|c| *c != b'=') {
        let value = ALPHABET.iter().position(|a| *a == c).context("not base64")?;
        bits = bits << 6 | value as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    String::from_utf8(bytes).context("not text")
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn base64_of_every_length() {
        for (text, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("/a-24&b", "L2EtMjQmYg==")]
        {
            assert_eq!(decode(coded).unwrap(), text);
        }
        assert!(decode("!").is_err());
    }
}
