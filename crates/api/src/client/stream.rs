//! Events as they happen: a stream that comes back by itself, at the place where it was.

use std::time::Duration;

use reqwest::{Response, StatusCode};
use tokio::time::Instant;

use super::call::{Call, Tried, retry_after};
use super::{Client, Error, Result, StreamQuery};
use crate::event::{Event, StreamEnd, StreamGap};

/// The pause before coming back, where the server has not said how long.
const PAUSE: Duration = Duration::from_secs(1);
/// A pause that somebody says is longer is not kept.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A server says each 15 seconds that it lives: who is silent for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// No block is larger: a payload has its own limit far below.
const BLOCK_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What a stream of events brings.
#[derive(Debug, Clone, PartialEq)]
pub enum Streamed {
    /// Something happened.
    Event {
        /// Where it stands in the stream: [`StreamQuery::after`] of a stream that is to go on behind it.
        place: i64,
        /// What happened.
        event: Box<Event>,
    },
    /// Something may be missing here, and why.
    Gap(StreamGap),
}

/// A stream of events, of [`Client::event_stream`].
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    query: StreamQuery,
    /// Behind which it goes on.
    place: Option<i64>,
    open: Option<Response>,
    blocks: Blocks,
    pause: Duration,
    /// Not before this it is opened again.
    not_before: Option<Instant>,
    /// Since when it cannot be opened.
    lost_since: Option<Instant>,
    /// When the seconds that were asked for are over, once it was opened.
    ends_at: Option<Instant>,
    is_over: bool,
}

impl Client {
    /// Events as they happen. Opened when it is first asked for one.
    ///
    /// ```no_run
    /// use recache_api::client::{Client, StreamQuery, Streamed};
    ///
    /// # async fn run(client: Client) -> Result<(), recache_api::client::Error> {
    /// let query = StreamQuery { types: Some("job.*".to_owned()), ..StreamQuery::default() };
    /// let mut events = client.event_stream(&query);
    /// while let Some(streamed) = events.next().await? {
    ///     match streamed {
    ///         Streamed::Event { place, event } => println!("{place}: {} {:?}", event.name, event.job_id),
    ///         Streamed::Gap(gap) => println!("something may be missing: {}", gap.detail),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn event_stream(&self, query: &StreamQuery) -> EventStream {
        EventStream {
            client: self.clone(),
            place: query.after,
            query: StreamQuery { after: None, ..query.clone() },
            open: None,
            blocks: Blocks::default(),
            pause: PAUSE,
            not_before: None,
            lost_since: None,
            ends_at: None,
            is_over: false,
        }
    }
}

impl EventStream {
    /// The next of it. A stream that breaks off, or whose server stops, is opened again behind what was read, after the pause that the server asks for:
    /// nothing is lost or told twice. An error says that it cannot be opened: at once where the server refuses it, else after the client's
    /// patience; asked again, it tries again. `None`: the seconds that were asked for are over.
    ///
    /// It may be dropped while it waits, as in `select!`: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Streamed>> {
        loop {
            while let Some(block) = self.block()? {
                if let Some(streamed) = self.read(&block)? {
                    return Ok(Some(streamed));
                }
            }
            if self.is_over {
                return Ok(None);
            }
            self.more().await?;
        }
    }

    /// Behind which event it is: what [`StreamQuery::after`] of another stream may say, so that it goes on here. `None`: it was not open yet.
    pub fn place(&self) -> Option<i64> {
        self.place
    }

    fn block(&mut self) -> Result<Option<Block>> {
        let block = self.blocks.next();
        if block.is_err() {
            self.close();
        }
        block.map_err(|reason| self.client.unreadable(&reason))
    }

    /// Reads something, if need be after opening it.
    async fn more(&mut self) -> Result<()> {
        let Some(open) = &mut self.open else { return self.open().await };
        match tokio::time::timeout(SILENCE_MAX, open.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                self.blocks.text.extend_from_slice(&chunk);
                return Ok(());
            }
            // It broke off, or nobody is there any more.
            Ok(Ok(None) | Err(_)) | Err(_) => self.close(),
        }
        Ok(())
    }

    fn close(&mut self) {
        self.open = None;
        // Half a block is read again.
        self.blocks = Blocks::default();
        self.not_before = Some(Instant::now() + self.pause);
    }

    async fn open(&mut self) -> Result<()> {
        if let Some(not_before) = self.not_before {
            tokio::time::sleep_until(not_before).await;
        }
        let lost_since = *self.lost_since.get_or_insert_with(Instant::now);
        let (error, after) = match self.try_open().await {
            Tried::Later(error, after) => (error, after),
            Tried::Failed(error) => {
                self.lost_since = None;
                return Err(error);
            }
            Tried::Answered(_) => {
                self.lost_since = None;
                return Ok(());
            }
        };
        self.not_before = Some(Instant::now() + after.unwrap_or(self.pause).min(PAUSE_MAX));
        if self.not_before > Some(lost_since + self.client.options.patience) {
            self.lost_since = None;
            return Err(error);
        }
        Ok(())
    }

    /// Answered with nothing: it is open.
    async fn try_open(&mut self) -> Tried {
        let url = match self.call().and_then(|call| call.url(&self.client.server)) {
            Ok(url) => url,
            Err(error) => return Tried::Failed(error),
        };
        let mut request = self.client.http.get(url).header("accept", "text/event-stream");
        if let Some(token) = &self.client.options.token {
            request = request.bearer_auth(token);
        }
        if let Some(place) = self.place {
            request = request.header("last-event-id", place);
        }
        let within = self.client.options.answer_within;
        let late = || {
            let reason = "it took too long".to_owned();
            Tried::Later(Error::Unreachable { server: self.client.server().to_owned(), reason }, None)
        };
        let answer = match tokio::time::timeout(within, request.send()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.is_builder() => return Tried::Failed(Error::Invalid(error.to_string())),
            Ok(Err(error)) => return Tried::Later(self.client.unreachable(&error), None),
            Err(_) => return late(),
        };
        let (status, after) = (answer.status(), retry_after(&answer));
        if status == StatusCode::OK {
            self.open = Some(answer);
            return Tried::Answered(Vec::new());
        }
        match tokio::time::timeout(within, answer.bytes()).await {
            Ok(Ok(body)) => self.client.refused(status, after, &body),
            Ok(Err(error)) => Tried::Later(self.client.unreachable(&error), None),
            Err(_) => late(),
        }
    }

    fn call(&mut self) -> Result<Call> {
        let mut query = self.query.clone();
        if let Some(seconds) = query.seconds {
            let now = Instant::now();
            let ends_at = *self.ends_at.get_or_insert_with(|| now + Duration::from_secs(seconds.into()));
            let left = ends_at.saturating_duration_since(now);
            let left = left.as_secs() + u64::from(left.subsec_nanos() > 0);
            query.seconds = Some(u32::try_from(left).unwrap_or(seconds));
        }
        Call::get(&["v1", "events"]).query(&query)
    }

    /// What a block says, if it is for whoever listens.
    fn read(&mut self, block: &Block) -> Result<Option<Streamed>> {
        if let Some(retry) = block.retry {
            self.pause = Duration::from_millis(retry).min(PAUSE_MAX);
        }
        // A place counts when its block was read, never before.
        self.place = block.id.or(self.place);
        let unreadable = |error: serde_json::Error| self.client.unreadable(&error.to_string());
        match (block.event.as_deref(), block.data.as_str()) {
            (_, "") => Ok(None),
            (None, data) => {
                let event = serde_json::from_str(data).map_err(unreadable)?;
                Ok(Some(Streamed::Event { place: self.place.unwrap_or_default(), event }))
            }
            (Some("gap"), data) => {
                serde_json::from_str(data).map_err(unreadable).map(Streamed::Gap).map(Some)
            }
            (Some("end"), data) => {
                let end: StreamEnd = serde_json::from_str(data).map_err(unreadable)?;
                if end.reason == "over" {
                    self.is_over = true;
                    self.open = None;
                } else {
                    // It is opened again. Where the token was revoked, the refusal says so then.
                    self.close();
                }
                Ok(None)
            }
            // `open`, and what a server of tomorrow says.
            (Some(_), _) => Ok(None),
        }
    }
}

/// A block of the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Block {
    id: Option<i64>,
    event: Option<String>,
    data: String,
    retry: Option<u64>,
}

/// What was read and not yet looked at.
#[derive(Debug, Default)]
struct Blocks {
    text: Vec<u8>,
    /// No block ends before this.
    looked: usize,
}

impl Blocks {
    /// The next whole block.
    fn next(&mut self) -> std::result::Result<Option<Block>, String> {
        let ends =
            |from: usize| self.text[from..].windows(2).position(|two| two == b"\n\n").map(|at| from + at);
        let Some(end) = ends(self.looked) else {
            self.looked = self.text.len().saturating_sub(1);
            if self.text.len() > BLOCK_BYTES_MAX {
                return Err(format!("an event has more than {BLOCK_BYTES_MAX} bytes"));
            }
            return Ok(None);
        };
        let bytes: Vec<u8> = self.text.drain(..end + 2).collect();
        self.looked = 0;
        let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
        Ok(Some(Block::of(&text)))
    }
}

impl Block {
    fn of(text: &str) -> Self {
        let mut block = Self::default();
        let mut lines: Vec<&str> = Vec::new();
        for line in text.lines() {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "id" => block.id = value.parse().ok(),
                "event" => block.event = Some(value.to_owned()),
                "data" => lines.push(value),
                "retry" => block.retry = value.parse().ok(),
                // A comment, or a field of tomorrow.
                _ => {}
            }
        }
        block.data = lines.join("\n");
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_however_they_come() {
        let text =
            "retry: 7\nid: 1\nevent: open\ndata: {}\n\n: alive\nid: 2\n\nid: 3\ndata: {\ndata: }\n\nid: 4";
        for size in 1..text.len() {
            let (mut blocks, mut found) = (Blocks::default(), Vec::new());
            for chunk in text.as_bytes().chunks(size) {
                blocks.text.extend_from_slice(chunk);
                while let Some(block) = blocks.next().unwrap() {
                    found.push(block);
                }
            }
            let ids: Vec<_> = found.iter().map(|block| block.id).collect();
            assert_eq!(ids, [Some(1), Some(2), Some(3)], "by {size}");
            assert_eq!((found[0].retry, found[0].event.as_deref()), (Some(7), Some("open")));
            assert_eq!((found[1].data.as_str(), found[2].data.as_str()), ("", "{\n}"));
            assert_eq!(blocks.text, b"id: 4", "half a block waits");
        }
    }

    #[test]
    fn block_without_an_end_is_refused_before_it_fills_the_memory() {
        let mut blocks = Blocks { text: vec![b'x'; BLOCK_BYTES_MAX + 1], looked: 0 };
        assert!(blocks.next().unwrap_err().contains("more than"));
    }
}
