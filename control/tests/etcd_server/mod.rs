//! A real etcd on loopback with a directory of its own, and certificates made on the spot.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use canal_control::datastore::etcd::{Etcd, EtcdOptions, TlsFiles, parse_endpoints};
use canal_control::datastore::{Datastore, Error};

/// Whether there is an etcd to test with. In CI a missing one is a failure, not a skip.
pub fn available() -> bool {
    let found = |tool: &str| {
        Command::new(tool).arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    let missing: Vec<&str> = ["etcd", "openssl"].into_iter().filter(|tool| !found(tool)).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing:?} must be installed in CI");
    println!("skipped: {missing:?} not installed");
    false
}

/// How the server speaks TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Plain http.
    Off,
    /// The server has a certificate.
    Server,
    /// The server also wants one from the client.
    Mutual,
}

/// A running etcd; killed when dropped.
pub struct Server {
    pub dir: tempfile::TempDir,
    pub url: String,
    peer: String,
    tls: Tls,
    child: Option<Child>,
}

impl Server {
    pub async fn start(tls: Tls) -> Self {
        let dir = tempfile::tempdir().unwrap();
        if tls != Tls::Off {
            make_certificates(dir.path());
        }
        let scheme = if tls == Tls::Off { "http" } else { "https" };
        let url = format!("{scheme}://127.0.0.1:{}", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        let mut server = Self { dir, url, peer, tls, child: None };
        server.run();
        server.until_healthy().await;
        server
    }

    /// Starts the process; the directory keeps what an earlier one wrote.
    pub fn run(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.file("log")).unwrap();
        let mut command = Command::new("etcd");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .args(["--name", "test", "--unsafe-no-fsync", "--auth-token-ttl", "300"])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .arg("--data-dir")
            .arg(self.file("data"))
            .args(["--listen-client-urls", &self.url, "--advertise-client-urls", &self.url])
            .args(["--listen-peer-urls", &self.peer, "--initial-advertise-peer-urls", &self.peer])
            .args(["--initial-cluster", &format!("test={}", self.peer)])
            .stdout(Stdio::null())
            .stderr(log);
        if self.tls != Tls::Off {
            command.arg("--cert-file").arg(self.file("server.crt"));
            command.arg("--key-file").arg(self.file("server.key"));
        }
        if self.tls == Tls::Mutual {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(self.file("ca.crt"));
        }
        self.child = Some(command.spawn().unwrap());
    }

    /// As a power cut would.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn wipe(&self) {
        std::fs::remove_dir_all(self.file("data")).unwrap();
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn ca(&self) -> TlsFiles {
        TlsFiles { ca: self.file("ca.crt"), client: None }
    }

    pub fn options(&self) -> EtcdOptions {
        EtcdOptions::new(parse_endpoints(&self.url).unwrap())
    }

    pub fn store(&self) -> Etcd {
        Etcd::new(self.options()).unwrap()
    }

    /// Waits until requests are served; a port that answers with a refusal is healthy enough.
    pub async fn until_healthy(&self) {
        for _ in 0..300 {
            let mut options = self.options();
            options.request_timeout = Duration::from_secs(2);
            if self.tls != Tls::Off {
                options.tls = Some(self.ca());
            }
            match Etcd::new(options).unwrap().list("/health").await {
                Ok(_) | Err(Error::Denied(_)) => return,
                Err(_) if self.tls == Tls::Mutual && self.listens() => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        panic!("etcd did not start:\n{}", std::fs::read_to_string(self.file("log")).unwrap_or_default());
    }

    fn listens(&self) -> bool {
        let address = self.url.rsplit('/').next().unwrap();
        std::net::TcpStream::connect(address).is_ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port nobody has right now, below the range the kernel gives to clients and different for every caller in
/// this process. Whoever takes it in between makes the test fail loudly, not wrongly.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 100) as u16 * 100;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 2_500;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn openssl(dir: &Path, args: &str) {
    let output = Command::new("openssl").current_dir(dir).args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `ca`, `server` (for 127.0.0.1), `client`, and `stranger`, a CA nobody trusts; each with `.crt` and `.key`.
fn make_certificates(dir: &Path) {
    for ca in ["ca", "stranger"] {
        openssl(
            dir,
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={ca} -keyout \
                 {ca}.key -out {ca}.crt"
            ),
        );
    }
    let extensions = [
        ("server", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n"),
        ("client", "extendedKeyUsage=clientAuth\n"),
    ];
    for (name, text) in extensions {
        let mut file = std::fs::File::create(dir.join(format!("{name}.ext"))).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        openssl(
            dir,
            &format!(
                "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout \
                 {name}.key -out {name}.csr"
            ),
        );
        openssl(
            dir,
            &format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile \
                 {name}.ext -out {name}.crt"
            ),
        );
    }
}
