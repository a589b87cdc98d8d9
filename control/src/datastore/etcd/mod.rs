//! etcd v3 as a datastore.
//!
//! Listings are read in pages at one revision, so that 100,000 keys need no message larger than a page. A watch
//! is one gRPC stream; it is not resumed here (see [`super::syncer`]). Reads go round the endpoint list before
//! they fail; writes are tried once, because an answer that got lost does not say whether the write happened.
//! Previous values are not asked for: a deletion is by key, and they would double what every watch carries.

mod connection;
mod errors;
mod options;
mod watch;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, GetResponse, PutOptions, SortOrder, SortTarget,
    Txn, TxnOp,
};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::time::timeout;

use connection::{Connected, Connection};
pub use options::{
    ClientCertificate, Credentials, Endpoint, EtcdOptions, OptionsError, TlsFiles, parse_endpoints,
};

use super::{Datastore, Error, Expect, KeyValue, LeaseId, Outline, Revision, Snapshot, WatchEvent, Written};

/// Longest answer we hold at once. etcd refuses requests above 1.5 MiB, so this is at least 40 of the largest
/// values; longer pages are asked for again in smaller pieces.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// How often a listing begins anew because its revision was compacted away under it.
const LIST_RESTARTS_MAX: u32 = 5;

/// An etcd cluster.
pub struct Etcd {
    connection: Connection,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("options", &self.connection.options).finish_non_exhaustive()
    }
}

impl Etcd {
    /// Nothing is dialled before the first call.
    ///
    /// # Errors
    /// Settings that do not fit together, see [`EtcdOptions::check`].
    pub fn new(options: EtcdOptions) -> Result<Self, OptionsError> {
        options.check()?;
        Ok(Self { connection: Connection::new(options) })
    }

    /// One request on the current connection, which is given up if it fails in a way a new one could cure.
    async fn once<T, F, Fut>(&self, connected: &Connected, request: F) -> Result<T, etcd_client::Error>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        let limit = self.connection.options.request_timeout;
        let result = match timeout(limit, request(connected.client.clone())).await {
            Ok(result) => result,
            Err(_) => Err(etcd_client::Error::WatchError(format!("no answer within {limit:?}"))),
        };
        if let Err(error) = &result
            && !matches!(errors::classify(&connected.endpoint, error), Error::Protocol(_))
        {
            self.connection.give_up(connected).await;
        }
        result
    }

    /// A request that changes something: one endpoint, one try.
    async fn write<T, F, Fut>(&self, request: F) -> Result<T, Error>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        let connected = self.connection.connected().await?;
        self.once(&connected, request).await.map_err(|error| errors::classify(&connected.endpoint, &error))
    }

    /// A request that changes nothing: each endpoint once while they are unavailable. The inner result is for
    /// callers that act on etcd's own answer.
    async fn read<T, F, Fut>(&self, request: F) -> Result<Result<T, Refusal>, Error>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut tries = self.connection.options.endpoints.len();
        loop {
            tries -= 1;
            let error = match self.connection.connected().await {
                Ok(connected) => match self.once(&connected, &request).await {
                    Ok(answer) => return Ok(Ok(answer)),
                    Err(error) => match errors::classify(&connected.endpoint, &error) {
                        Error::Protocol(text) => return Ok(Err(Refusal { error, text })),
                        sorted => sorted,
                    },
                },
                Err(error) => error,
            };
            if tries == 0 || !matches!(error, Error::Unavailable(_)) {
                return Err(error);
            }
        }
    }

    /// All pages; `None` as with [`Self::page`].
    async fn list_pages(&self, prefix: &str) -> Result<Option<Snapshot>, Error> {
        let (mut place, mut listed) = (self.first_page(prefix), Snapshot::default());
        while !place.at_end {
            let Some(page) = self.page(&mut place).await? else { return Ok(None) };
            (listed.revision, listed.history) = (page.revision, page.history);
            listed.entries.extend(page.entries);
        }
        Ok(Some(listed))
    }

    fn first_page(&self, prefix: &str) -> Place {
        Place {
            start: if prefix.is_empty() { vec![0] } else { prefix.as_bytes().to_vec() },
            end: prefix_end(prefix),
            limit: i64::from(self.connection.options.page_keys.max(1)),
            revision: 0,
            history: 0,
            at_end: false,
        }
    }

    /// The next page, at the revision of the first one; `None` if that has been compacted, or the answer came from another
    /// cluster.
    async fn page(&self, place: &mut Place) -> Result<Option<Snapshot>, Error> {
        loop {
            let options = GetOptions::new()
                .with_range(place.end.clone())
                .with_limit(place.limit)
                .with_revision(place.revision);
            let page = self
                .read(|client| {
                    let mut kv = client.kv_client().max_decoding_message_size(MESSAGE_BYTES_MAX);
                    let (start, options) = (place.start.clone(), options.clone());
                    async move { kv.get(start, Some(options)).await }
                })
                .await?;
            let page: GetResponse = match page {
                Ok(page) => page,
                Err(refusal) if errors::is_compacted(&refusal.error) => return Ok(None),
                Err(refusal) if errors::is_too_large(&refusal.error) && place.limit > 1 => {
                    place.limit = (place.limit / 4).max(1);
                    continue;
                }
                Err(refusal) => return Err(Error::Protocol(refusal.text)),
            };
            let header =
                page.header().ok_or_else(|| Error::Protocol("range response without header".to_owned()))?;
            if place.revision == 0 {
                (place.revision, place.history) = (header.revision(), header.cluster_id());
            } else if place.history != header.cluster_id() {
                // The endpoint we moved on to belongs to another cluster; half of each would be neither.
                return Ok(None);
            }
            match page.kvs().last().filter(|_| page.more()) {
                Some(last) => place.start = [last.key(), &[0]].concat(),
                None => place.at_end = true,
            }
            let entries = page.kvs().iter().filter_map(decode).collect();
            return Ok(Some(Snapshot { revision: place.revision, history: place.history, entries }));
        }
    }

    fn compacted(&self, prefix: &str) -> Error {
        Error::Unavailable(format!("{}: compacted faster than {prefix} can be listed", self.describe()))
    }
}

/// Where a listing stands.
struct Place {
    /// First key of the next page.
    start: Vec<u8>,
    /// First key after the last one.
    end: Vec<u8>,
    /// Keys of a page.
    limit: i64,
    /// 0 before the first page.
    revision: Revision,
    history: u64,
    at_end: bool,
}

/// etcd answered, but not with what was asked for.
struct Refusal {
    error: etcd_client::Error,
    text: String,
}

/// The end of the range that holds exactly the keys that begin with `prefix` (etcd: the prefix plus one, or NUL
/// for "no end").
fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// Keys that are not text cannot be ours or Calico's or flannel's: they are left out.
fn decode(kv: &etcd_client::KeyValue) -> Option<KeyValue> {
    let key = kv.key_str().ok()?.to_owned();
    let lease = (kv.lease() != 0).then(|| kv.lease());
    Some(KeyValue { key, value: kv.value().to_vec(), mod_revision: kv.mod_revision(), lease })
}

fn compare(key: &str, expect: Expect) -> Option<Compare> {
    match expect {
        Expect::Absent => Some(Compare::version(key, CompareOp::Equal, 0)),
        Expect::Unchanged(revision) => Some(Compare::mod_revision(key, CompareOp::Equal, revision)),
        Expect::Anything => None,
    }
}

#[async_trait]
impl Datastore for Etcd {
    fn describe(&self) -> String {
        let urls: Vec<&str> = self.connection.options.endpoints.iter().map(Endpoint::url).collect();
        format!("etcd {}", urls.join(","))
    }

    async fn list(&self, prefix: &str) -> Result<Snapshot, Error> {
        for _ in 0..LIST_RESTARTS_MAX {
            if let Some(listed) = self.list_pages(prefix).await? {
                return Ok(listed);
            }
        }
        Err(self.compacted(prefix))
    }

    fn pages<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Snapshot, Error>> {
        let pages = stream::try_unfold(self.first_page(prefix), move |mut place| async move {
            if place.at_end {
                return Ok(None);
            }
            let page = self.page(&mut place).await?.ok_or_else(|| self.compacted(prefix))?;
            Ok(Some((page, place)))
        });
        pages.boxed()
    }

    /// Linearised, as every read here: what was written before is seen.
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Error> {
        let answer = self
            .read(|client| {
                let mut kv = client.kv_client().max_decoding_message_size(MESSAGE_BYTES_MAX);
                let key = key.to_owned();
                async move { kv.get(key, None).await }
            })
            .await?;
        let answer = answer.map_err(|refusal| Error::Protocol(refusal.text))?;
        Ok(answer.kvs().first().and_then(decode))
    }

    /// One key without its value comes back, but etcd looks at all of them: not for asking at every moment.
    async fn outline(&self, prefix: &str) -> Result<Outline, Error> {
        let start = if prefix.is_empty() { vec![0] } else { prefix.as_bytes().to_vec() };
        let options = GetOptions::new()
            .with_range(prefix_end(prefix))
            .with_sort(SortTarget::Mod, SortOrder::Descend)
            .with_limit(1)
            .with_keys_only();
        let answer = self
            .read(|client| {
                let (start, options) = (start.clone(), options.clone());
                async move { client.kv_client().get(start, Some(options)).await }
            })
            .await?;
        let answer = answer.map_err(|refusal| Error::Protocol(refusal.text))?;
        let header =
            answer.header().ok_or_else(|| Error::Protocol("range response without header".to_owned()))?;
        Ok(Outline {
            revision: header.revision(),
            history: header.cluster_id(),
            keys: usize::try_from(answer.count()).unwrap_or(0),
            newest: answer.kvs().first().map_or(0, etcd_client::KeyValue::mod_revision),
        })
    }

    async fn watch(
        &self,
        prefix: &str,
        from: Revision,
    ) -> Result<BoxStream<'static, Result<WatchEvent, Error>>, Error> {
        watch::open(self, prefix, from).await
    }

    async fn put(
        &self,
        key: &str,
        value: &[u8],
        expect: Expect,
        lease: Option<LeaseId>,
    ) -> Result<Written, Error> {
        let options = PutOptions::new().with_lease(lease.unwrap_or(0));
        let put = TxnOp::put(key, value, Some(options));
        self.transaction(key, expect, put).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<Written, Error> {
        self.transaction(key, expect, TxnOp::delete(key, Some(DeleteOptions::new()))).await
    }

    async fn grant(&self, ttl: Duration) -> Result<Option<LeaseId>, Error> {
        // Whole seconds, rounded up: a lease must not be shorter than asked. etcd's own longest is 9e9 s.
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds.clamp(1, 9_000_000_000)).unwrap_or(i64::MAX);
        let granted =
            self.write(|client| async move { client.lease_client().grant(seconds, None).await }).await?;
        Ok(Some(granted.id()))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.write(|client| async move {
            match client.lease_client().revoke(lease).await {
                Err(error) if !errors::is_not_found(&error) => Err(error),
                _ => Ok(()),
            }
        })
        .await
    }
}

impl Etcd {
    async fn transaction(&self, key: &str, expect: Expect, op: TxnOp) -> Result<Written, Error> {
        let mut txn = Txn::new();
        if let Some(compare) = compare(key, expect) {
            txn = txn.when([compare]);
        }
        let txn = txn.and_then([op]);
        let response = self
            .write(|client| {
                let txn = txn.clone();
                async move { client.kv_client().txn(txn).await }
            })
            .await?;
        let header =
            response.header().ok_or_else(|| Error::Protocol("transaction without header".to_owned()))?;
        Ok(if response.succeeded() { Written::At(header.revision()) } else { Written::Conflict })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(prefix_end("/calico/"), b"/calico0");
        assert_eq!(prefix_end(""), [0]);
        assert_eq!(prefix_end("a\u{7f}"), b"a\x80");
    }

    #[test]
    fn etcd_is_described_without_secrets() {
        let mut options = EtcdOptions::new(parse_endpoints("http://a,http://b:1").unwrap());
        options.credentials = Some(Credentials { user: "u".to_owned(), password: "hunter2".to_owned() });
        let etcd = Etcd::new(options).unwrap();
        assert_eq!(etcd.describe(), "etcd http://a:2379,http://b:1");
        assert!(!format!("{etcd:?}").contains("hunter2"));
    }
}
