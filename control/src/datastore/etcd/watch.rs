//! One watch: a gRPC stream turned into [`WatchEvent`]s.

use etcd_client::{WatchOptions, WatchResponse, WatchStream};
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::{Connected, Etcd, MESSAGE_BYTES_MAX, decode, errors, prefix_end};
use crate::datastore::{Change, Error, Revision, WatchEvent};

/// A stream whose first answer has arrived.
struct Opened {
    stream: WatchStream,
    first: WatchResponse,
}

/// Opens the stream and reads etcd's first answer, so that a refusal is the error of the call.
pub(super) async fn open(
    etcd: &Etcd,
    prefix: &str,
    from: Revision,
) -> Result<BoxStream<'static, Result<WatchEvent, Error>>, Error> {
    let (connected, opened) = opened(etcd, prefix, from).await?;
    let at_creation = opened.first.header().map_or(0, |header| header.revision());
    let follower =
        Follower { stream: opened.stream, endpoint: connected.endpoint, reached: from - 1, ended: false };
    let mut first = Vec::new();
    if at_creation < from - 1 {
        // etcd takes a revision of the future without a word and stays silent until it is reached.
        first.push(Ok(WatchEvent::Changes { revision: at_creation, changes: Vec::new() }));
    }
    let rest = stream::unfold(follower, |mut follower| async move {
        let event = follower.event().await?;
        Some((event, follower))
    });
    Ok(stream::iter(first).chain(rest).boxed())
}

/// Opens on each endpoint once while they are unavailable. etcd 3.4 answers an expired token with "permission
/// denied" here, so that the client does not log in again by itself: it is done once before that is believed.
async fn opened(etcd: &Etcd, prefix: &str, from: Revision) -> Result<(Connected, Opened), Error> {
    let mut tries = etcd.connection.options.endpoints.len();
    let mut fresh_login = false;
    loop {
        let error = match etcd.connection.connected().await {
            Ok(connected) => match open_on(etcd, &connected, prefix, from).await {
                Ok(opened) => return Ok((connected, opened)),
                Err(Error::Denied(_)) if connected.logged_in && !fresh_login => {
                    fresh_login = true;
                    etcd.connection.give_up(&connected).await;
                    continue;
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        tries -= 1;
        if tries == 0 || !matches!(error, Error::Unavailable(_)) {
            return Err(error);
        }
    }
}

async fn open_on(etcd: &Etcd, connected: &Connected, prefix: &str, from: Revision) -> Result<Opened, Error> {
    let start = if prefix.is_empty() { vec![0] } else { prefix.as_bytes().to_vec() };
    let options =
        WatchOptions::new().with_range(prefix_end(prefix)).with_start_revision(from).with_progress_notify();
    let answer = etcd
        .once(connected, |client| {
            let mut watcher = client.watch_client().max_decoding_message_size(MESSAGE_BYTES_MAX);
            let (start, options) = (start.clone(), options.clone());
            async move {
                let mut stream = watcher.watch(start, Some(options)).await?;
                let first = stream.message().await?;
                Ok((stream, first))
            }
        })
        .await;
    match answer {
        Ok((stream, Some(first))) if !first.canceled() => Ok(Opened { stream, first }),
        Ok((_, Some(first))) => Err(errors::classify_cancel(&connected.endpoint, first.cancel_reason())),
        Ok((_, None)) => {
            etcd.connection.give_up(connected).await;
            Err(Error::Unavailable(format!("{}: watch ended at once", connected.endpoint)))
        }
        Err(error) => Err(errors::classify(&connected.endpoint, &error)),
    }
}

struct Follower {
    stream: WatchStream,
    endpoint: String,
    reached: Revision,
    ended: bool,
}

impl Follower {
    async fn event(&mut self) -> Option<Result<WatchEvent, Error>> {
        if self.ended {
            return None;
        }
        let event = match self.stream.message().await {
            Ok(Some(response)) => self.translate(&response),
            Ok(None) => Err(Error::Unavailable(format!("{}: watch stream ended", self.endpoint))),
            // More history in one message than we hold at once: a listing comes in pages, so list instead.
            Err(error) if errors::is_too_large(&error) => {
                Ok(WatchEvent::Compacted { compact_revision: self.reached + 1 })
            }
            Err(error) => Err(errors::classify(&self.endpoint, &error)),
        };
        self.ended = !matches!(event, Ok(WatchEvent::Changes { .. }));
        Some(event)
    }

    fn translate(&mut self, response: &WatchResponse) -> Result<WatchEvent, Error> {
        if response.compact_revision() != 0 {
            // Comes with `canceled` and an empty reason.
            return Ok(WatchEvent::Compacted { compact_revision: response.compact_revision() });
        }
        if response.canceled() {
            return Err(errors::classify_cancel(&self.endpoint, response.cancel_reason()));
        }
        let mut changes = Vec::with_capacity(response.events().len());
        for event in response.events() {
            let kv =
                event.kv().ok_or_else(|| Error::Protocol(format!("{}: event without key", self.endpoint)))?;
            // The header's revision is the store's, which may be ahead of a watch that is catching up: only
            // the events themselves say how far the stream is.
            self.reached = self.reached.max(kv.mod_revision());
            let Some(entry) = decode(kv) else { continue };
            let revision = entry.mod_revision;
            // A deletion's key has no version.
            let deleted = kv.version() == 0;
            changes.push(Change { key: entry.key.clone(), value: (!deleted).then_some(entry), revision });
        }
        if response.events().is_empty() {
            let progress = response.header().map_or(0, |header| header.revision());
            self.reached = self.reached.max(progress);
        }
        Ok(WatchEvent::Changes { revision: self.reached, changes })
    }
}
