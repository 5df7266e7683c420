//! Cases: the stream of events.

use std::collections::BTreeSet;
use std::time::Duration;

use super::events::{handler, happen, lead, put, route};
use super::{Subject, work};
use crate::error::Error;
use crate::event_stream::{PlacedEvent, StreamExtent};
use crate::records::Outcome;

const KEEP: Duration = Duration::from_mins(10);

async fn extent(subject: &Subject, types: &[&str]) -> StreamExtent {
    let types = types.iter().map(|&one| one.to_owned()).collect();
    subject.store.event_stream().stream_extent(types).await.expect("read")
}

async fn read(subject: &Subject, after: i64) -> Vec<PlacedEvent> {
    subject.store.event_stream().stream_read(after, 1_000).await.expect("read")
}

async fn listen(subject: &Subject, name: &str, types: &[&str]) {
    let types = types.iter().map(|&one| one.to_owned()).collect();
    subject.store.event_stream().stream_listen(name, types, KEEP).await.expect("listens");
}

/// A job that completes.
async fn run(subject: &Subject) {
    subject.store.jobs_submit(vec![work()]).await.expect("stored");
    let session = subject.session().await;
    let job = subject.claim_one(session).await;
    subject.settle(&job, Outcome::Completed { output: "1".to_owned() }).await;
}

/// Whether somebody asked for them or not.
pub async fn events_are_read_on_from_any_place(subject: &Subject) {
    assert_eq!(read(subject, 0).await, []);
    for number in 0..3 {
        happen(subject, number).await;
        subject.advance(Duration::from_secs(1));
    }
    assert_eq!(read(subject, 0).await, [], "they have no place before they are handed on");
    assert_eq!(extent(subject, &["*"]).await.last, 0);
    route(subject).await;
    happen(subject, 3).await;
    route(subject).await;
    let all = read(subject, 0).await;
    let said: Vec<_> = all.iter().map(|placed| (placed.place, placed.event.data.as_str())).collect();
    assert_eq!(said, [(1, "0"), (2, "1"), (3, "2"), (4, "3")]);
    assert_eq!(read(subject, 2).await, all[2..]);
    assert_eq!(read(subject, 4).await, []);
    let stream = subject.store.event_stream();
    assert_eq!(stream.stream_read(0, 2).await.expect("read"), all[..2]);
    let expected = StreamExtent { last: 4, removed_through: 0, unwritten_through: Some(0) };
    assert_eq!(extent(subject, &["*"]).await, expected);
}

/// By two processes.
pub async fn events_handed_on_at_once_have_one_place_each(subject: &Subject) {
    put(subject, handler("states", &["job.*"])).await;
    let jobs: Vec<_> = (0..40).map(|_| work()).collect();
    subject.store.jobs_submit(jobs).await.expect("stored");
    let session = subject.session().await;
    for job in subject.claim(session, 100).await {
        subject.settle(&job, Outcome::Completed { output: "1".to_owned() }).await;
    }
    let other = subject.second().await;
    let routing = async |store: &dyn crate::Store| {
        while store.events().events_route(7).await.expect("routed").events > 0 {}
    };
    let mut seen = Vec::new();
    let reading = async {
        // Whoever reads meanwhile never finds anything before where he is.
        let mut after = 0;
        while seen.len() < 80 {
            let new = subject.store.event_stream().stream_read(after, 5).await.expect("read");
            after = new.last().map_or(after, |placed| placed.place);
            seen.extend(new);
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(routing(&*subject.store), routing(&*other), reading);
    let places: Vec<i64> = seen.iter().map(|placed| placed.place).collect();
    let first = places[0];
    assert_eq!(places, (first..first + 80).collect::<Vec<_>>());
    let ids: BTreeSet<String> = seen.iter().map(|placed| placed.event.id.to_string()).collect();
    assert_eq!(ids.len(), 80);
    other.close().await;
}

/// And not for others, and not for longer than that.
pub async fn changes_are_written_for_whoever_listens_and_a_gap_is_told(subject: &Subject) {
    run(subject).await;
    assert_eq!(extent(subject, &["job.completed"]).await.unwritten_through, None, "nobody wants them");
    assert_eq!(extent(subject, &["order.*"]).await.unwritten_through, Some(0), "these are always written");
    listen(subject, "a", &["job.completed"]).await;
    let begun = extent(subject, &["job.completed"]).await;
    assert_eq!(begun.unwritten_through, Some(begun.last), "who begins now misses nothing");
    run(subject).await;
    route(subject).await;
    assert_eq!(read(subject, begun.last).await.len(), 1);
    assert_eq!(extent(subject, &["job.*"]).await.unwritten_through, None, "others are not written");

    // Another one who wants the same changes nothing.
    listen(subject, "b", &["job.completed", "view.*"]).await;
    assert_eq!(extent(subject, &["job.completed"]).await.unwritten_through, begun.unwritten_through);
    subject.advance(KEEP / 2);
    listen(subject, "b", &["job.completed", "view.*"]).await;
    subject.advance(KEEP / 2 + Duration::from_secs(1));
    subject.store.events().events_watch().await.expect("looked after");
    assert_eq!(extent(subject, &["job.completed"]).await.unwritten_through, begun.unwritten_through);
    subject.advance(KEEP);
    subject.store.events().events_watch().await.expect("looked after");
    assert_eq!(extent(subject, &["job.completed"]).await.unwritten_through, None);

    let before = extent(subject, &["job.completed"]).await.last;
    run(subject).await;
    route(subject).await;
    assert_eq!(read(subject, before).await, [], "nobody listens any more");
    listen(subject, "a", &["job.completed"]).await;
    let again = extent(subject, &["job.completed"]).await;
    assert!(again.unwritten_through > Some(before), "who was there before is told of the gap: {again:?}");
}

/// So that nobody takes what is left for all there was.
pub async fn removed_events_are_told_of(subject: &Subject) {
    happen(subject, 1).await;
    route(subject).await;
    subject.advance(Duration::from_hours(2));
    happen(subject, 2).await;
    route(subject).await;
    let lead = lead(subject).await;
    assert_eq!(extent(subject, &["*"]).await.removed_through, 0);
    let keep = Duration::from_hours(1);
    assert_eq!(subject.store.events().events_remove(&lead, keep, 10).await.expect("removed"), 1);
    assert_eq!(extent(subject, &["*"]).await.removed_through, 1);
    let left: Vec<i64> = read(subject, 0).await.iter().map(|placed| placed.place).collect();
    assert_eq!(left, [2]);
}

/// Before anything is changed.
pub async fn listener_that_cannot_be_is_refused(subject: &Subject) {
    let stream = subject.store.event_stream();
    for (name, types) in [("", vec!["*"]), ("a", vec![]), ("a", vec!["job.nothing"]), ("a", vec!["*.x"])] {
        let types = types.into_iter().map(str::to_owned).collect();
        let refused = stream.stream_listen(name, types, KEEP).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{name}: {refused:?}");
    }
}
