//! Thousands of keys into etcd, and single ones without a process for each.

use anyhow::{Context, Result};
use etcd_client::{Client, Txn, TxnOp};
use netns_tests::{Etcd, Topology};
use std::future::Future;

/// Writes in one transaction; the server takes 128 unless told otherwise.
const AT_ONCE: usize = 128;

/// Runs `work` with a client of the server, on this thread, inside of the switch's namespace.
pub fn with_client<T: Send, F>(
    topology: &Topology,
    etcd: &Etcd<'_>,
    work: impl FnOnce(Client) -> F + Send,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let url = etcd.url();
    topology.switch.enter(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = Client::connect([url], None).await.context("connecting to etcd")?;
            work(client).await
        })
    })
}

/// Writes every entry; returns the revision of the last write.
pub fn write_all(topology: &Topology, etcd: &Etcd<'_>, entries: &[(String, String)]) -> Result<i64> {
    with_client(topology, etcd, |mut client| async move {
        let mut revision = 0;
        for part in entries.chunks(AT_ONCE) {
            let puts: Vec<TxnOp> =
                part.iter().map(|(key, value)| TxnOp::put(key.as_str(), value.as_str(), None)).collect();
            let done = client.txn(Txn::new().and_then(puts)).await?;
            revision = done.header().map_or(revision, etcd_client::ResponseHeader::revision);
        }
        Ok(revision)
    })
}
