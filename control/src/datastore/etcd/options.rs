//! How to reach etcd: endpoints, user, TLS files, time-outs. All of it is checked before anything is dialled.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

/// Most endpoints in a list; etcd clusters have 3 to 7 members.
const ENDPOINTS_MAX: usize = 64;

/// etcd's client port, where an endpoint names none.
const DEFAULT_PORT: u16 = 2379;

/// One member's client URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    url: String,
    host: String,
    tls: bool,
}

impl Endpoint {
    /// `scheme://host:port`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The host without brackets: what a certificate must be for.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether it is `https`.
    pub fn is_tls(&self) -> bool {
        self.tls
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// What is wrong with the settings; each sentence says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// No endpoint at all.
    #[error("no etcd endpoint given: write e.g. http://127.0.0.1:2379")]
    NoEndpoint,
    /// Two commas in a row, or one at an end.
    #[error("empty entry in the endpoint list {list:?}")]
    EmptyEntry {
        /// The list.
        list: String,
    },
    /// Too long a list.
    #[error("{count} etcd endpoints; at most {ENDPOINTS_MAX} are accepted")]
    TooMany {
        /// Entries in the list.
        count: usize,
    },
    /// `host:port` only.
    #[error("etcd endpoint {endpoint:?} has no scheme: write http://{endpoint} or https://{endpoint}")]
    NoScheme {
        /// The entry.
        endpoint: String,
    },
    /// Neither http nor https.
    #[error("etcd endpoint {endpoint:?}: scheme {scheme:?} is not http or https")]
    Scheme {
        /// The entry.
        endpoint: String,
        /// What stands before `://`.
        scheme: String,
    },
    /// User and password belong into their own options, where no log shows them.
    #[error("an etcd endpoint holds a user or password: use the user name and password options")]
    Credentials,
    /// Something after the port.
    #[error("etcd endpoint {endpoint:?} has a path or query: only scheme, host and port are used")]
    Path {
        /// The entry.
        endpoint: String,
    },
    /// Not a name or address.
    #[error("etcd endpoint {endpoint:?}: {host:?} is not a host name or address (IPv6 needs brackets)")]
    Host {
        /// The entry.
        endpoint: String,
        /// What stands where the host should be.
        host: String,
    },
    /// Not 1 to 65535.
    #[error("etcd endpoint {endpoint:?}: {port:?} is not a port")]
    Port {
        /// The entry.
        endpoint: String,
        /// What stands where the port should be.
        port: String,
    },
    /// https without a root of trust.
    #[error("https etcd endpoints need a CA file to check the server's certificate with")]
    NoCa,
    /// TLS files that nothing would use.
    #[error("TLS files are given but no etcd endpoint is https")]
    NoTlsEndpoint,
}

/// Reads a comma separated list of endpoints; blanks around entries and repetitions are dropped.
///
/// # Errors
/// [`OptionsError`] naming the entry.
pub fn parse_endpoints(list: &str) -> Result<Vec<Endpoint>, OptionsError> {
    if list.trim().is_empty() {
        return Err(OptionsError::NoEndpoint);
    }
    let count = list.split(',').count();
    if count > ENDPOINTS_MAX {
        return Err(OptionsError::TooMany { count });
    }
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for entry in list.split(',').map(str::trim) {
        if entry.is_empty() {
            return Err(OptionsError::EmptyEntry { list: list.to_owned() });
        }
        let endpoint = parse_endpoint(entry)?;
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    Ok(endpoints)
}

fn parse_endpoint(entry: &str) -> Result<Endpoint, OptionsError> {
    let endpoint = || entry.to_owned();
    if entry.contains('@') {
        return Err(OptionsError::Credentials);
    }
    let Some((scheme, rest)) = entry.split_once("://") else {
        return Err(OptionsError::NoScheme { endpoint: endpoint() });
    };
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return Err(OptionsError::Scheme { endpoint: endpoint(), scheme: scheme.to_owned() }),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err(OptionsError::Path { endpoint: endpoint() });
    }
    let bad_host = |host: &str| OptionsError::Host { endpoint: endpoint(), host: host.to_owned() };
    let (host, port, bracketed) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']').ok_or_else(|| bad_host(authority))?;
            if host.parse::<Ipv6Addr>().is_err() {
                return Err(bad_host(host));
            }
            let port = match after.strip_prefix(':') {
                None if !after.is_empty() => {
                    return Err(OptionsError::Port { endpoint: endpoint(), port: after.to_owned() });
                }
                port => port,
            };
            (host, port, true)
        }
        None => {
            let (host, port) = match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            };
            let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            if host.is_empty() || !host.chars().all(named) || port.is_some_and(|port| port.contains(':')) {
                return Err(bad_host(if host.is_empty() { authority } else { host }));
            }
            (host, port, false)
        }
    };
    let port = match port {
        None => DEFAULT_PORT,
        Some(text) => match text.parse::<u16>() {
            Ok(port) if port != 0 && !text.starts_with('+') => port,
            _ => return Err(OptionsError::Port { endpoint: endpoint(), port: text.to_owned() }),
        },
    };
    let scheme = if tls { "https" } else { "http" };
    let url =
        if bracketed { format!("{scheme}://[{host}]:{port}") } else { format!("{scheme}://{host}:{port}") };
    Ok(Endpoint { url, host: host.to_owned(), tls })
}

/// An etcd v3 user (role based access control, not TLS).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password; never shown by `Debug`.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// PEM files for https endpoints. They are read again with every new connection, so that renewed certificates
/// are taken up. TLS 1.2 is the oldest version spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who must have signed the server's certificate.
    pub ca: PathBuf,
    /// Our own certificate, where the server asks for one. flannel turns TLS off altogether without it; here a
    /// CA alone is enough.
    pub client: Option<ClientCertificate>,
}

/// A client certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// Everything needed to reach etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdOptions {
    /// Tried in order from the one that worked last.
    pub endpoints: Vec<Endpoint>,
    /// For clusters with authentication; ignored by clusters without.
    pub credentials: Option<Credentials>,
    /// For https endpoints.
    pub tls: Option<TlsFiles>,
    /// Connecting to one endpoint (Calico: 10 s).
    pub dial_timeout: Duration,
    /// One request to one endpoint, connecting included; a listing is as many requests as it has pages.
    pub request_timeout: Duration,
    /// HTTP/2 ping after this much silence, with or without a request under way: a partition that swallows
    /// packets would otherwise leave a watch waiting for ever.
    pub keep_alive_interval: Duration,
    /// No answer to a ping for this long ends the connection.
    pub keep_alive_timeout: Duration,
    /// Keys in one page of a listing.
    pub page_keys: u32,
}

impl EtcdOptions {
    /// These endpoints, no user, no TLS, and the customary times.
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self {
            endpoints,
            credentials: None,
            tls: None,
            dial_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(15),
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(10),
            page_keys: 1000,
        }
    }

    /// Whether endpoints and TLS files fit together.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), OptionsError> {
        let any_tls = self.endpoints.iter().any(Endpoint::is_tls);
        match (&self.tls, any_tls) {
            _ if self.endpoints.is_empty() => Err(OptionsError::NoEndpoint),
            (None, true) => Err(OptionsError::NoCa),
            (Some(_), false) => Err(OptionsError::NoTlsEndpoint),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(list: &str) -> Vec<String> {
        parse_endpoints(list).unwrap().iter().map(|endpoint| endpoint.url().to_owned()).collect()
    }

    #[test]
    fn lists_are_read_in_order_without_repetitions() {
        assert_eq!(urls("http://127.0.0.1:4001,http://127.0.0.1:2379").len(), 2);
        assert_eq!(
            urls(" HTTPS://etcd-1.example , http://a:1/,http://a:1"),
            ["https://etcd-1.example:2379", "http://a:1"]
        );
        assert_eq!(
            urls("https://[fd00::1]:2379,http://[::1]"),
            ["https://[fd00::1]:2379", "http://[::1]:2379"]
        );
        assert_eq!(parse_endpoints("https://[fd00::1]").unwrap()[0].host(), "fd00::1");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |list: &str| parse_endpoints(list).unwrap_err();
        assert_eq!(error(" "), OptionsError::NoEndpoint);
        assert_eq!(
            error("http://a,,http://b"),
            OptionsError::EmptyEntry { list: "http://a,,http://b".to_owned() }
        );
        assert!(error("10.0.0.1:2379").to_string().contains("write http://10.0.0.1:2379 or https://"));
        assert!(matches!(error("unix:///run/etcd"), OptionsError::Scheme { .. }));
        assert!(matches!(error("http://a/v3"), OptionsError::Path { .. }));
        assert!(matches!(error("http://fd00::1:2379"), OptionsError::Host { .. }));
        assert!(matches!(error("http://"), OptionsError::Host { .. }));
        assert!(matches!(error("http://[::1"), OptionsError::Host { .. }));
        assert!(matches!(error("http://a b"), OptionsError::Host { .. }));
        for port in ["http://a:", "http://a:0", "http://a:65536", "http://a:+1", "http://[::1]2379"] {
            assert!(matches!(error(port), OptionsError::Port { .. }), "{port}");
        }
        assert!(matches!(error(&vec!["http://a"; 65].join(",")), OptionsError::TooMany { count: 65 }));
        let secret = error("http://root:hunter2@a:2379");
        assert!(!format!("{secret} {secret:?}").contains("hunter2"));
    }

    #[test]
    fn tls_files_and_endpoints_must_fit() {
        let files = Some(TlsFiles { ca: "/ca.pem".into(), client: None });
        let mut options = EtcdOptions::new(parse_endpoints("https://a").unwrap());
        assert_eq!(options.check(), Err(OptionsError::NoCa));
        options.tls = files;
        assert_eq!(options.check(), Ok(()));
        options.endpoints = parse_endpoints("http://a").unwrap();
        assert_eq!(options.check(), Err(OptionsError::NoTlsEndpoint));
    }

    #[test]
    fn a_password_is_never_shown() {
        let mut options = EtcdOptions::new(parse_endpoints("http://a").unwrap());
        options.credentials = Some(Credentials { user: "canal".to_owned(), password: "hunter2".to_owned() });
        let shown = format!("{options:?}");
        assert!(shown.contains("canal") && !shown.contains("hunter2"), "{shown}");
    }
}
