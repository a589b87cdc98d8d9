//! The loop of one prefix: list, watch from the next revision, resume or list again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::backoff::{Backoff, LONGEST};
use super::{BATCH_CHANGES, Phase, SyncStatus};
use crate::datastore::{Change, Datastore, Error, KeyValue, Outline, Revision, WatchEvent};

/// What a prefix loop tells the merger.
#[derive(Debug)]
pub(super) struct Finding {
    /// Which prefix.
    pub(super) index: usize,
    pub(super) changes: Vec<Change>,
    /// The revision reached with these changes.
    pub(super) revision: Revision,
    /// A listing is complete with these changes.
    pub(super) listed: bool,
    pub(super) went_back: bool,
}

/// The reader is gone: end the loop.
struct ReaderGone;

/// Why a watch came to its end.
enum End {
    /// The connection was lost: resume after the last revision seen.
    Lost(Error),
    /// History is gone or not ours: list again.
    Outdated(Option<Error>),
    Reader(ReaderGone),
}

/// Where in which history the loop stands.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Cursor {
    revision: Revision,
    history: u64,
}

/// What was delivered for a key. The digest catches a value that changed under the same revision, which a
/// restored store can do.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Known {
    mod_revision: Revision,
    digest: u64,
}

/// Who is told what a prefix loop finds.
pub(super) struct Tell {
    pub(super) findings: mpsc::Sender<Finding>,
    pub(super) status: Arc<watch::Sender<SyncStatus>>,
}

pub(super) struct Follower {
    store: Arc<dyn Datastore>,
    index: usize,
    prefix: String,
    cursor: Option<Cursor>,
    /// Nothing of the prefix is missing up to here, as an outline has shown. It is not where a watch resumes: the
    /// server that has the watch may lag behind the one that answered.
    proven: Revision,
    asked: watch::Receiver<Revision>,
    /// By key, without the prefix: keys are longer than what is known of their values.
    known: HashMap<Box<str>, Known>,
    digest: RandomState,
    backoff: Backoff,
    /// Something was heard since the last listing; without it another listing has to wait.
    heard_since_listing: bool,
    tell: Tell,
}

impl Follower {
    pub(super) fn new(
        store: Arc<dyn Datastore>,
        index: usize,
        prefix: String,
        seed: u64,
        asked: watch::Receiver<Revision>,
        tell: Tell,
    ) -> Self {
        Self {
            store,
            index,
            prefix,
            cursor: None,
            proven: 0,
            asked,
            known: HashMap::new(),
            digest: RandomState::new(),
            backoff: Backoff::new(seed),
            heard_since_listing: true,
            tell,
        }
    }

    /// Runs until the reader is gone.
    pub(super) async fn run(mut self) {
        loop {
            let Ok(cursor) = self.list().await else { return };
            let mut resumed = false;
            loop {
                match self.watch(cursor.history, resumed).await {
                    End::Lost(error) => {
                        self.pause(&error).await;
                        self.tell.status.send_modify(|status| status.reconnects += 1);
                        resumed = true;
                    }
                    End::Outdated(error) => {
                        if let Some(error) = error {
                            self.pause(&error).await;
                        } else if !self.heard_since_listing {
                            // A store that compacts faster than we list, or that lies: not at full speed.
                            tokio::time::sleep(self.backoff.next()).await;
                        }
                        break;
                    }
                    End::Reader(ReaderGone) => return,
                }
            }
        }
    }

    /// Lists until it works and hands the difference to what is known over.
    async fn list(&mut self) -> Result<Cursor, ReaderGone> {
        loop {
            let listed = match self.cursor {
                None => self.list_first().await?,
                Some(before) => self.list_again(before).await?,
            };
            match listed {
                Ok(cursor) => {
                    self.cursor = Some(cursor);
                    self.heard_since_listing = false;
                    return Ok(cursor);
                }
                Err(error) => self.pause(&error).await,
            }
        }
    }

    /// Hands the first listing over page by page, so that nobody has to hold all of it at once. One that breaks off is
    /// begun anew: what was handed over is known by then.
    async fn list_first(&mut self) -> Result<Result<Cursor, Error>, ReaderGone> {
        let (store, prefix) = (Arc::clone(&self.store), self.prefix.clone());
        let mut pages = store.pages(&prefix);
        let mut vanished = mem::take(&mut self.known);
        // The last page ends the listing: which one it is shows when there is no other.
        let (mut cursor, mut latest) = (Cursor { revision: 0, history: 0 }, Vec::new());
        while let Some(page) = pages.next().await {
            self.deliver_part(mem::take(&mut latest)).await?;
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    self.known.extend(vanished);
                    return Ok(Err(error));
                }
            };
            self.listing_answered(false);
            cursor = Cursor { revision: page.revision, history: page.history };
            latest = self.news(page.entries, &mut vanished);
        }
        latest.extend(self.deletions(vanished, cursor.revision));
        self.deliver_listing(latest, cursor.revision, false).await?;
        Ok(Ok(cursor))
    }

    /// A later listing is taken as a whole: half of one is neither what was nor what is, and if history went back the
    /// reader has to judge it at once.
    async fn list_again(&mut self, before: Cursor) -> Result<Result<Cursor, Error>, ReaderGone> {
        let listed = match self.store.list(&self.prefix).await {
            Ok(listed) => listed,
            Err(error) => return Ok(Err(error)),
        };
        self.listing_answered(true);
        let cursor = Cursor { revision: listed.revision, history: listed.history };
        let went_back = cursor.revision < before.revision || cursor.history != before.history;
        if went_back {
            self.proven = 0;
        }
        let mut vanished = mem::take(&mut self.known);
        let mut changes = self.news(listed.entries, &mut vanished);
        changes.extend(self.deletions(vanished, cursor.revision));
        self.deliver_listing(changes, cursor.revision, went_back).await?;
        Ok(Ok(cursor))
    }

    fn listing_answered(&self, again: bool) {
        self.tell.status.send_modify(|status| {
            status.phase = status.phase.max(Phase::ResyncInProgress);
            status.relists += u64::from(again);
        });
        self.contact();
    }

    /// What a reader has to learn of these entries; they are known then. What it knew of them goes from `vanished`.
    fn news(&mut self, entries: Vec<KeyValue>, vanished: &mut HashMap<Box<str>, Known>) -> Vec<Change> {
        let mut changes = Vec::new();
        for entry in entries {
            let rest = self.rest(&entry.key);
            let before = vanished.remove(rest);
            let now = self.known_as(&entry);
            self.known.insert(rest.into(), now);
            if before != Some(now) {
                changes.push(Change {
                    key: entry.key.clone(),
                    revision: entry.mod_revision,
                    value: Some(entry),
                });
            }
        }
        changes
    }

    /// That keys are gone, in order.
    fn deletions(&self, vanished: HashMap<Box<str>, Known>, revision: Revision) -> Vec<Change> {
        let mut keys: Vec<String> =
            vanished.into_keys().map(|rest| format!("{}{rest}", self.prefix)).collect();
        keys.sort_unstable();
        keys.into_iter().map(|key| Change { key, value: None, revision }).collect()
    }

    async fn deliver_listing(
        &mut self,
        mut changes: Vec<Change>,
        revision: Revision,
        went_back: bool,
    ) -> Result<(), ReaderGone> {
        let last = if went_back { 0 } else { changes.len().saturating_sub(BATCH_CHANGES) };
        let last = changes.split_off(last);
        self.deliver_part(changes).await?;
        self.deliver(last, revision, true, went_back).await
    }

    /// Part of a listing. Not all is delivered: the revision reached is still the one before.
    async fn deliver_part(&mut self, changes: Vec<Change>) -> Result<(), ReaderGone> {
        let mut changes = changes.into_iter();
        loop {
            let part: Vec<Change> = changes.by_ref().take(BATCH_CHANGES).collect();
            if part.is_empty() {
                return Ok(());
            }
            self.deliver(part, 0, false, false).await?;
        }
    }

    async fn deliver(
        &mut self,
        changes: Vec<Change>,
        revision: Revision,
        listed: bool,
        went_back: bool,
    ) -> Result<(), ReaderGone> {
        let finding = Finding { index: self.index, changes, revision, listed, went_back };
        self.tell.findings.send(finding).await.map_err(|_| ReaderGone)
    }

    /// Watches from the cursor on until the stream ends. After a failure it is first asked whether the store
    /// still is the one we know: a store that was wiped meanwhile would take our revision for a future one.
    async fn watch(&mut self, history: u64, resumed: bool) -> End {
        if resumed {
            // No key continues a prefix with NUL, and who may read the prefix may read this.
            match self.store.list(&format!("{}\0", self.prefix)).await {
                Ok(probe) if probe.history != history || probe.revision < self.reached() => {
                    return End::Outdated(None);
                }
                Ok(_) => self.contact(),
                Err(error) => return End::Lost(error),
            }
        }
        let mut stream = match self.store.watch(&self.prefix, self.reached() + 1).await {
            Ok(stream) => stream,
            Err(error) => return end_of(error),
        };
        self.contact();
        let began = Instant::now();
        let mut outline: Option<BoxFuture<'static, Result<Outline, Error>>> = None;
        let end = loop {
            let event = tokio::select! {
                event = stream.next() => event,
                revision = revision_asked(&mut self.asked), if outline.is_none() => {
                    if revision > self.reached().max(self.proven) {
                        let (store, prefix) = (Arc::clone(&self.store), self.prefix.clone());
                        outline = Some(Box::pin(async move { store.outline(&prefix).await }));
                    }
                    continue;
                }
                // The stream is read meanwhile: a store that takes its time for the outline delays nothing.
                answer = async { outline.as_mut()?.await.ok() }, if outline.is_some() => {
                    outline = None;
                    match self.prove(answer, history).await {
                        Ok(()) => continue,
                        Err(gone) => break End::Reader(gone),
                    }
                }
            };
            match event {
                Some(Ok(WatchEvent::Changes { revision, .. })) if revision < self.reached() => {
                    break End::Outdated(None);
                }
                Some(Ok(WatchEvent::Changes { revision, changes })) => {
                    self.heard_since_listing = true;
                    self.backoff.reset();
                    self.contact();
                    if let Err(gone) = self.advance(revision, changes).await {
                        break End::Reader(gone);
                    }
                }
                Some(Ok(WatchEvent::Compacted { .. })) => break End::Outdated(None),
                Some(Err(error)) => break end_of(error),
                None => break End::Lost(Error::Unavailable("watch stream ended".to_owned())),
            }
        };
        if began.elapsed() > LONGEST {
            // It worked for a while, only nothing happened.
            self.backoff.reset();
            self.heard_since_listing = true;
        }
        end
    }

    /// Says that nothing is missing up to the outline's revision, if that follows from it.
    ///
    /// What is known is the prefix as it was at `reached`. If no key has been written since, every key that the store
    /// has is known as it is; and if there are as many of them as are known, none has been deleted either.
    async fn prove(&mut self, outline: Option<Outline>, history: u64) -> Result<(), ReaderGone> {
        let Some(outline) = outline else { return Ok(()) };
        let complete = outline.history == history
            && outline.newest <= self.reached()
            && outline.keys == self.known.len()
            && outline.revision > self.reached().max(self.proven);
        if complete {
            self.proven = outline.revision;
            self.deliver(Vec::new(), outline.revision, false, false).await?;
        }
        Ok(())
    }

    /// Takes one message of the stream in.
    async fn advance(&mut self, revision: Revision, changes: Vec<Change>) -> Result<(), ReaderGone> {
        if let Some(cursor) = &mut self.cursor {
            cursor.revision = revision;
        }
        let news: Vec<Change> = changes.into_iter().filter(|change| self.is_news(change)).collect();
        let mut parts = news.chunks(BATCH_CHANGES).peekable();
        while let Some(part) = parts.next() {
            let reached = match (part.last(), parts.peek()) {
                // More of the same revision may follow in the next part.
                (Some(last), Some(_)) => last.revision - 1,
                _ => revision,
            };
            self.deliver(part.to_vec(), reached, false, false).await?;
        }
        if news.is_empty() {
            self.deliver(Vec::new(), revision, false, false).await?;
        }
        Ok(())
    }

    /// Whether the reader does not know this yet; it does afterwards.
    fn is_news(&mut self, change: &Change) -> bool {
        let Some(entry) = &change.value else {
            return self.known.remove(self.rest(&change.key)).is_some();
        };
        let now = self.known_as(entry);
        match self.known.entry(self.rest(&change.key).into()) {
            Entry::Occupied(mut known) => known.insert(now) != now,
            Entry::Vacant(vacant) => {
                vacant.insert(now);
                true
            }
        }
    }

    /// A key without the prefix, which all keys have.
    fn rest<'a>(&self, key: &'a str) -> &'a str {
        key.strip_prefix(&*self.prefix).unwrap_or(key)
    }

    fn known_as(&self, entry: &KeyValue) -> Known {
        Known { mod_revision: entry.mod_revision, digest: self.digest.hash_one(&entry.value) }
    }

    fn reached(&self) -> Revision {
        self.cursor.map_or(0, |cursor| cursor.revision)
    }

    fn contact(&self) {
        self.tell.status.send_modify(|status| {
            status.last_contact = Some(Instant::now());
            status.last_error = None;
        });
    }

    async fn pause(&mut self, error: &Error) {
        let wait = self.backoff.next();
        tracing::debug!(prefix = %self.prefix, %error, ?wait, "datastore does not answer");
        self.tell.status.send_modify(|status| status.last_error = Some(error.to_string()));
        tokio::time::sleep(wait).await;
    }
}

/// The next revision that somebody asks for; never, once nobody can any more.
async fn revision_asked(asked: &mut watch::Receiver<Revision>) -> Revision {
    match asked.changed().await {
        Ok(()) => *asked.borrow_and_update(),
        Err(_) => std::future::pending().await,
    }
}

/// What an error of a watch means: an answer that makes no sense would make none again from the same revision.
fn end_of(error: Error) -> End {
    match error {
        Error::Protocol(_) => End::Outdated(Some(error)),
        Error::Unavailable(_) | Error::Denied(_) | Error::Io { .. } => End::Lost(error),
    }
}
