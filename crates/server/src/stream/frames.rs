//! What goes over the wire: server-sent events, one block each.
//!
//! An event has no `event:` line, so that one listener of a browser's `EventSource` hears all of them; its type is in the document. What
//! we say ourselves has one: `open`, `gap`, `end`. JSON has no line breaks of its own, so nothing that a caller chose can end a block.

use std::fmt::Write as _;

use bytes::Bytes;
use recache_api::{StreamEnd, StreamGap};
use recache_store::EventRecord;
use serde::Serialize;

use crate::documents;

/// A client that was cut off comes back after a time between these, in milliseconds: not all of them at once.
pub(super) const RETRY_MS: std::ops::RangeInclusive<u32> = 1_000..=5_000;

/// An event.
pub(super) fn event(place: i64, record: EventRecord) -> Bytes {
    block(&format!("id: {place}\n"), &documents::event(record))
}

/// The beginning: from where it goes on, and after how long a client that was cut off comes back.
pub(super) fn open(place: i64, retry_ms: u32) -> Bytes {
    Bytes::from(format!("retry: {retry_ms}\nid: {place}\nevent: open\ndata: {{\"place\":{place}}}\n\n"))
}

/// Something may be missing here.
pub(super) fn gap(gap: &StreamGap) -> Bytes {
    block("event: gap\n", gap)
}

/// The last word.
pub(super) fn end(end: &StreamEnd) -> Bytes {
    block("event: end\n", end)
}

/// That we live, and how far we are: a client that comes back goes on from here, though no event of its own came lately.
pub(super) fn keep_alive(place: i64) -> Bytes {
    Bytes::from(format!(": alive\nid: {place}\n\n"))
}

fn block(head: &str, document: &impl Serialize) -> Bytes {
    // Our documents are maps with text keys: they can be written.
    let json = serde_json::to_string(document).unwrap_or_else(|_| "null".to_owned());
    let mut text = String::with_capacity(head.len() + json.len() + 16);
    text.push_str(head);
    for line in json.split(['\n', '\r']) {
        // A payload is kept as it was written, and may have blank space in it.
        let _ = writeln!(text, "data: {line}");
    }
    text.push('\n');
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use recache_model::ids::EventId;
    use recache_model::time::Timestamp;

    use super::*;

    #[test]
    fn nothing_in_an_event_can_end_its_block() {
        let record = EventRecord {
            id: EventId::make(),
            namespace: "a\n\nid: 9".to_owned(),
            name: "x\r\nevent: end".to_owned(),
            at: Timestamp::from_micros(0),
            job: None,
            workflow: None,
            step: None,
            attempt: None,
            outcome: None,
            correlation_id: None,
            data: "{\n\n\"a\":\r1}".to_owned(),
            problem: None,
            waits_for: None,
        };
        let text = String::from_utf8(event(7, record).to_vec()).unwrap();
        let (block, rest) = text.split_once("\n\n").unwrap();
        assert_eq!(rest, "");
        let mut lines = block.lines();
        assert_eq!(lines.next(), Some("id: 7"));
        let data: Vec<_> = lines.map(|line| line.strip_prefix("data: ").unwrap()).collect();
        let read: recache_api::Event = serde_json::from_str(&data.join("\n")).unwrap();
        assert_eq!((read.namespace.as_str(), read.name.as_str()), ("a\n\nid: 9", "x\r\nevent: end"));
    }
}
