//! What one client gets.

use std::time::Duration;

use axum::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use recache_api::{StreamEnd, StreamGap};
use recache_store::StreamExtent;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::filter::StreamFilter;
use super::ring::Told;
use super::tail::{PAGE_ROWS, Reader};
use super::{Place, frames};
use crate::access::Caller;
use crate::refusal::Refusal;
use crate::state::App;

/// Blocks of text that wait for a client to take them.
const WAITING_MAX: usize = 4;
/// Bytes of a block, at most; one event is sent whatever its size.
const BLOCK_BYTES_MAX: usize = 128 * 1024;
/// Events that are looked at before others get their turn.
const EVENTS_AT_ONCE: usize = 256;
/// So often it is asked again whether the caller may still see this: a revoked key ends within 5 seconds.
const ASK_AGAIN_EVERY: Duration = Duration::from_secs(2);
/// A stream that is to end at once waits no longer than this for what was there when it began.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(5);

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client went away.
    Gone,
    /// It had the time that it asked for.
    Over,
    /// The server stops.
    Draining,
    /// The client takes nothing, or too little.
    Slow,
    /// It may not see this any more.
    Revoked,
    /// The store cannot be read.
    Failed,
}

impl End {
    fn document(self) -> StreamEnd {
        let (reason, detail) = match self {
            Self::Gone | Self::Over => ("over", "the time that was asked for is over"),
            Self::Draining => ("draining", "the server is stopping; another one goes on from the last id"),
            Self::Slow => ("slow", "events came faster than they were taken; come back with the last id"),
            Self::Revoked => ("revoked", "the credentials are no longer good for this"),
            Self::Failed => ("failed", "the store cannot be read; come back with the last id"),
        };
        StreamEnd { reason: reason.to_owned(), detail: detail.to_owned() }
    }
}

/// What a client asked for.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) filter: StreamFilter,
    /// The last id that it has; `None`: from now on.
    pub(crate) last: Option<i64>,
    /// Ends after this long.
    pub(crate) within: Option<Duration>,
    /// Holds its credentials.
    pub(crate) headers: HeaderMap,
    pub(crate) caller: Caller,
    /// Ends the connection.
    pub(crate) hang_up: CancellationToken,
}

/// A client's stream.
#[derive(Debug)]
pub(crate) struct Feed {
    app: App,
    opening: Opening,
    out: mpsc::Sender<Bytes>,
    moved: watch::Receiver<i64>,
    /// All up to here has been looked at.
    seen: i64,
    /// What was there when it began.
    begun_at: i64,
    /// It has caught up once; if it falls behind now, it is slow.
    is_live: bool,
    ends_at: Option<Instant>,
    _place: Place,
    _reader: Reader,
}

impl Feed {
    /// Begins one. Answers what the client reads.
    pub(crate) async fn open(app: &App, opening: Opening) -> Result<mpsc::Receiver<Bytes>, Refusal> {
        let streams = app.streams();
        let place =
            streams.place(&opening.caller.identity.name).inspect_err(|_| app.metrics().stream_refused())?;
        let types = &opening.filter.types.types;
        let reader = streams.tail.join(types).await?;
        let moved = streams.tail.moved();
        let extent = streams.extent(types).await?;
        let (seen, gap) = begin(opening.last, extent);
        let (out, taken) = mpsc::channel(WAITING_MAX);
        let ends_at = opening.within.map(|within| Instant::now() + within);
        let begun_at = extent.last;
        let (is_live, app) = (false, app.clone());
        let feed = Self {
            app,
            opening,
            out,
            moved,
            seen,
            begun_at,
            is_live,
            ends_at,
            _place: place,
            _reader: reader,
        };
        // There is room for these two.
        let _ = feed.out.try_send(frames::open(seen, rand::random_range(frames::RETRY_MS)));
        if let Some(gap) = gap {
            let _ = feed.out.try_send(frames::gap(&gap));
        }
        tokio::spawn(feed.run());
        Ok(taken)
    }

    async fn run(mut self) {
        let counted = self.app.metrics().stream_opened();
        let end = match self.go().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        drop(counted);
        match end {
            End::Gone => {}
            End::Slow => {
                self.app.metrics().stream_was_slow();
                if self.out.try_send(frames::end(&end.document())).is_err() {
                    // It does not even take that: nothing that is written to this connection arrives.
                    self.opening.hang_up.cancel();
                }
            }
            End::Over | End::Draining | End::Revoked | End::Failed => {
                let _ = self.out.try_send(frames::end(&end.document()));
            }
        }
        tracing::debug!(caller = %self.opening.caller.identity.name, ?end, place = self.seen, "a stream has ended");
    }

    async fn go(&mut self) -> Result<std::convert::Infallible, End> {
        let settings = self.app.settings().clone();
        let (stop, out) = (self.app.stop().clone(), self.out.clone());
        let mut keep_alive = tokio::time::interval(settings.stream_keep_alive);
        let mut ask_again = tokio::time::interval(ASK_AGAIN_EVERY);
        for clock in [&mut keep_alive, &mut ask_again] {
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
            clock.reset();
        }
        loop {
            self.moved.mark_unchanged();
            if self.take().await? {
                continue;
            }
            let is_caught_up = self.seen >= self.begun_at;
            let ends_at = self.ends_at.map(|at| if is_caught_up { at } else { at + CATCH_UP_WITHIN });
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(End::Draining),
                () = out.closed() => return Err(End::Gone),
                () = sleep_until(ends_at) => return Err(End::Over),
                _ = ask_again.tick() => self.ask_again().await?,
                _ = keep_alive.tick() => {
                    self.app.streams().tail.touch(&self.opening.filter.types.types);
                    self.send(frames::keep_alive(self.seen)).await?;
                }
                changed = self.moved.changed() => changed.map_err(|_| End::Draining)?,
            }
        }
    }

    /// Sends what is there. False when there was nothing.
    async fn take(&mut self) -> Result<bool, End> {
        let Some((told, through)) = self.app.streams().tail.after(self.seen, EVENTS_AT_ONCE) else {
            if self.is_live {
                return Err(End::Slow);
            }
            self.replay().await?;
            return Ok(true);
        };
        self.is_live = true;
        let is_more = !told.is_empty();
        self.pass_on(told.iter().map(|told| &**told)).await?;
        self.seen = through;
        Ok(is_more)
    }

    /// Reads the store from where the client is to where the ring begins, page by page, as the client takes them.
    async fn replay(&mut self) -> Result<(), End> {
        let app = self.app.clone();
        let stop = app.stop();
        let turn = tokio::select! {
            turn = app.streams().replays.acquire() => turn,
            () = stop.cancelled() => return Err(End::Draining),
            () = self.out.closed() => return Err(End::Gone),
        };
        let _turn = turn.map_err(|_| End::Draining)?;
        app.metrics().stream_replayed();
        let ring_begins_after = app.streams().tail.begins_after();
        loop {
            let page = app.store().event_stream().stream_read(self.seen, PAGE_ROWS).await;
            let page = page.map_err(|error| {
                tracing::warn!(%error, "a stream that resumes cannot read the store");
                End::Failed
            })?;
            let is_last = u32::try_from(page.len()).unwrap_or(u32::MAX) < PAGE_ROWS;
            let told: Vec<Told> = page.into_iter().map(Told::new).collect();
            self.pass_on(told.iter()).await?;
            self.seen = told.last().map_or(self.seen, |last| last.place);
            if is_last {
                // Whatever had a place there was read, or is gone.
                self.seen = self.seen.max(ring_begins_after);
            }
            if self.seen >= ring_begins_after {
                return Ok(());
            }
        }
    }

    async fn pass_on(&self, told: impl Iterator<Item = &Told>) -> Result<(), End> {
        let mut block = BytesMut::new();
        let wanted: Vec<&Told> = told.filter(|told| self.opening.filter.lets_through(&told.about)).collect();
        for told in wanted {
            if !block.is_empty() && block.len() + told.frame.len() > BLOCK_BYTES_MAX {
                self.send(block.split().freeze()).await?;
            }
            block.extend_from_slice(&told.frame);
        }
        if block.is_empty() { Ok(()) } else { self.send(block.freeze()).await }
    }

    /// Waits until there is room, not for ever.
    async fn send(&self, block: Bytes) -> Result<(), End> {
        let sending = self.out.send(block);
        tokio::select! {
            biased;
            sent = sending => sent.map_err(|_| End::Gone),
            () = self.app.stop().cancelled() => Err(End::Draining),
            () = tokio::time::sleep(self.app.settings().stream_stall_max) => Err(End::Slow),
        }
    }

    /// Whether the caller may still see what it sees.
    async fn ask_again(&self) -> Result<(), End> {
        let gate = self.app.gate();
        if gate.is_open() {
            return Ok(());
        }
        let identity = gate.identify(&self.opening.headers).await.map_err(|_| End::Revoked)?;
        let caller = Caller { identity, permission: self.opening.caller.permission };
        let namespace = self.opening.filter.types.namespace.clone();
        match caller.list_namespace(namespace.clone()) {
            Ok(allowed) if allowed == namespace => Ok(()),
            _ => Err(End::Revoked),
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Where a stream begins, and whether something before that may be missing.
fn begin(last: Option<i64>, extent: StreamExtent) -> (i64, Option<StreamGap>) {
    let Some(last) = last else { return (extent.last, None) };
    let gap = |through: i64, reason: &str, detail: &str| StreamGap {
        after: last,
        through,
        reason: reason.to_owned(),
        detail: detail.to_owned(),
    };
    if last > extent.last {
        let detail = "no event had this id yet: it is of another database, or of one that went back in time";
        return (extent.last, Some(gap(extent.last, "unknown", detail)));
    }
    if last < extent.removed_through {
        let detail =
            "events after this id were removed because their time is over; what is left of them follows";
        return (last, Some(gap(extent.removed_through, "removed", detail)));
    }
    match extent.unwritten_through {
        Some(through) if last >= through => (last, None),
        through => {
            let detail = "changes of state were not written for a while, because nobody listened for them";
            (last, Some(gap(through.unwrap_or(extent.last), "unwritten", detail)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_have_missed_something_is_told() {
        let extent = StreamExtent { last: 100, removed_through: 20, unwritten_through: Some(50) };
        let begun = |last: Option<i64>| {
            let (seen, gap) = begin(last, extent);
            (seen, gap.map(|gap| (gap.reason, gap.through)))
        };
        assert_eq!(begun(None), (100, None));
        assert_eq!(begun(Some(100)), (100, None));
        assert_eq!(begun(Some(50)), (50, None));
        assert_eq!(begun(Some(49)), (49, Some(("unwritten".to_owned(), 50))));
        assert_eq!(begun(Some(20)), (20, Some(("unwritten".to_owned(), 50))));
        assert_eq!(begun(Some(19)), (19, Some(("removed".to_owned(), 20))));
        assert_eq!(begun(Some(101)), (100, Some(("unknown".to_owned(), 100))));
        let (_, gap) = begin(Some(7), StreamExtent { last: 9, removed_through: 0, unwritten_through: None });
        assert_eq!(gap.unwrap().reason, "unwritten");
    }
}
