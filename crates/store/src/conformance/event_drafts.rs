//! Cases: events that wait for their publishers.

use std::time::Duration;

use recache_model::event::{At, PAYLOAD_BYTES_MAX, StepEvent, publisher_policy};
use recache_model::ids::JobId;
use recache_model::job::{ErrorKind, JobState};
use recache_model::workflow::WorkflowState;
use serde_json::{Value, json};

use super::Subject;
use super::events::{completed, failed, handler, lead, listed, publishing_as, put, route};
use crate::event_drafts::{ClaimedDraft, DraftEnd, DraftOutcome, DraftsSettled};
use crate::events::{EventQuery, EventRecord};
use crate::records::{Outcome, Settled};
use crate::signal::Signal;

const LEASE: Duration = Duration::from_secs(10);

fn event(name: &str, at: At) -> StepEvent {
    StepEvent {
        name: name.to_owned(),
        at,
        schema: None,
        durable: true,
        live: false,
        publisher: Some("p".to_owned()),
    }
}

async fn publishing(subject: &Subject, events: &[StepEvent]) -> JobId {
    let text = serde_json::to_string(events).expect("events are JSON");
    publishing_as(subject, text, "{\"order\":7}").await.1
}

/// A step that completes with `output`; its event `made` waits for `p`.
async fn happen(subject: &Subject, output: &str) -> JobId {
    let job = publishing(subject, &[event("made", At::Success)]).await;
    end(subject, completed(output)).await;
    job
}

async fn end(subject: &Subject, outcome: Outcome) {
    let session = subject.session().await;
    let job = subject.claim_one(session).await;
    assert_eq!(subject.settle(&job, outcome).await, Settled::Accepted);
}

async fn claim(subject: &Subject) -> Vec<ClaimedDraft> {
    subject.store.event_drafts().drafts_claim("p", LEASE, 10).await.expect("answered")
}

async fn settle(subject: &Subject, draft: &ClaimedDraft, outcome: DraftOutcome) -> DraftsSettled {
    let end = DraftEnd { token: draft.token, outcome };
    subject.store.event_drafts().drafts_settle(vec![end]).await.expect("answered")
}

fn made(data: &str) -> DraftOutcome {
    DraftOutcome::Made { data: data.to_owned() }
}

async fn waiting(subject: &Subject) -> Vec<EventRecord> {
    let query = EventQuery { waiting: true, ..EventQuery::default() };
    subject.store.events().events_list(query, 100).await.expect("listed")
}

async fn refused(subject: &Subject) -> Vec<EventRecord> {
    let query = EventQuery { refused: true, ..EventQuery::default() };
    subject.store.events().events_list(query, 100).await.expect("listed")
}

fn one() -> DraftsSettled {
    DraftsSettled { made: 1, ..DraftsSettled::default() }
}

/// It is written with the end of its step, seen as waiting, handed to nobody before it is made, and one event however often that is
/// said.
pub async fn draft_becomes_the_event_once_and_is_told_only_then(subject: &Subject) {
    put(subject, handler("all", &["*"])).await;
    let mut hints = subject.store.subscribe();
    let job = happen(subject, "{\"id\":7}").await;
    while hints.recv().await.expect("publishers are told") != Signal::DraftsWritten {}
    let found = waiting(subject).await;
    assert_eq!((found.len(), found[0].waits_for.as_deref()), (1, Some("p")));
    assert_eq!((found[0].job, found[0].data.as_str(), &found[0].problem), (Some(job), "null", &None));
    assert_eq!(listed(subject).await, found);
    assert_eq!(subject.store.events().event_get(found[0].id).await.expect("there"), found[0]);
    assert_eq!((route(subject).await, refused(subject).await), (0, vec![]));

    let drafts = subject.store.event_drafts();
    let due = drafts.drafts_due(vec!["other".to_owned(), "p".to_owned()]).await.expect("answered");
    assert_eq!((due.len(), due[0].publisher.as_str(), due[0].wait), (1, "p", Duration::ZERO));
    let totals = drafts.drafts_waiting().await.expect("answered");
    assert_eq!((totals.len(), totals[0].publisher.as_str(), totals[0].count), (1, "p", 1));
    assert_eq!(totals[0].oldest_at, found[0].at);
    assert!(drafts.drafts_claim("other", LEASE, 10).await.expect("answered").is_empty());
    let claimed = claim(subject).await;
    assert_eq!((claimed.len(), claimed[0].attempt), (1, 1));
    assert_eq!((claimed[0].ended.as_str(), claimed[0].event.id), ("{\"id\":7}", found[0].id));
    assert_eq!(claimed[0].workflow_input.as_deref(), Some("{\"order\":7}"));
    assert!(claim(subject).await.is_empty(), "it is taken");
    assert_eq!(route(subject).await, 0);

    assert_eq!(settle(subject, &claimed[0], made("{\"n\":1}")).await, one());
    assert_eq!(settle(subject, &claimed[0], made("{\"n\":2}")).await, DraftsSettled::default());
    assert!(waiting(subject).await.is_empty() && drafts.drafts_waiting().await.expect("answered").is_empty());
    let expected = EventRecord { data: "{\"n\":1}".to_owned(), waits_for: None, ..found[0].clone() };
    assert_eq!(listed(subject).await, [expected]);
    assert_eq!((route(subject).await, route(subject).await), (1, 0));
}

/// Its worker, the sweep for a dead one: with what came of the end. Conditions decide whether a publisher is asked at all.
pub async fn whoever_ends_a_step_writes_its_drafts(subject: &Subject) {
    let session = subject.session().await;
    publishing(subject, &[event("good", At::Success), event("any", At::Always)]).await;
    subject.claim_one(session).await;
    subject.advance(Duration::from_secs(11));
    subject.store.sessions_sweep(10).await.expect("swept");
    let claimed = claim(subject).await;
    assert_eq!((claimed.len(), claimed[0].event.name.as_str()), (1, "any"));
    assert_eq!(claimed[0].event.outcome.as_deref(), Some("retrying"));
    assert!(claimed[0].ended.contains("lease_lost"), "{}", claimed[0].ended);
    settle(subject, &claimed[0], made("1")).await;

    end(subject, Outcome::Failed { error: failed(ErrorKind::Permanent) }).await;
    let claimed = claim(subject).await;
    assert_eq!((claimed.len(), claimed[0].event.outcome.as_deref()), (1, Some("failed")));
    let error: Value = serde_json::from_str(&claimed[0].ended).expect("JSON");
    assert_eq!((&error["kind"], &error["message"]), (&json!("permanent"), &json!("no luck")));
}

/// What the dead one says late changes nothing, and what is being made is left to its maker.
pub async fn draft_of_a_dead_maker_is_made_by_another(subject: &Subject) {
    happen(subject, "1").await;
    let first = claim(subject).await.remove(0);
    subject.advance(LEASE / 2);
    subject.store.event_drafts().drafts_extend(first.token.claim, LEASE).await.expect("kept");
    subject.advance(LEASE / 2 + Duration::from_secs(1));
    assert!(claim(subject).await.is_empty(), "it was kept");
    subject.advance(LEASE);
    let second = claim(subject).await.remove(0);
    assert_eq!((second.attempt, second.event.id), (2, first.event.id));
    assert_eq!(settle(subject, &first, made("\"late\"")).await, DraftsSettled::default());
    assert_eq!(settle(subject, &second, made("\"in time\"")).await, one());
    let events = listed(subject).await;
    assert_eq!((events.len(), events[0].data.as_str()), (1, "\"in time\""));
}

/// By the same rules as a step's own result.
pub async fn made_payload_that_does_not_fit_is_kept_back(subject: &Subject) {
    put(subject, handler("all", &["*"])).await;
    let schema = Some(json!({ "type": "object", "required": ["id"] }));
    let large = format!("{{\"id\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES_MAX));
    let secret = "{\"secret\":\"hunter2\"}".to_owned();
    for (data, why) in [(secret, "\"id\" is a required property"), (large, "the limit is 65536")] {
        let declared = StepEvent { schema: schema.clone(), ..event("placed", At::Success) };
        // The result itself would fit: it is the payload that counts.
        publishing(subject, &[declared]).await;
        end(subject, completed("{\"id\":1}")).await;
        let draft = claim(subject).await.remove(0);
        let settled = settle(subject, &draft, made(&data)).await;
        assert_eq!(settled, DraftsSettled { refused: 1, ..DraftsSettled::default() });
        let kept = refused(subject).await.into_iter().find(|kept| kept.id == draft.event.id).expect("kept");
        let problem = kept.problem.expect("a reason");
        assert!(problem.contains(why) && !problem.contains("hunter2"), "{problem}");
        assert_eq!((kept.data.as_str(), kept.waits_for), ("null", None));
    }
    assert_eq!(route(subject).await, 0, "nobody is told");
}

/// Failed ones come back when they are due, what is put off does not count, and a publisher that dies each time is not asked for ever.
pub async fn tries_are_counted_and_come_to_an_end(subject: &Subject) {
    happen(subject, "1").await;
    let draft = claim(subject).await.remove(0);
    let after = Duration::from_secs(5);
    let again = DraftOutcome::Retry { after, error: "it is closed".to_owned() };
    let settled = settle(subject, &draft, again).await;
    assert_eq!(settled, DraftsSettled { retried: 1, ..DraftsSettled::default() });
    assert_eq!(waiting(subject).await[0].problem.as_deref(), Some("it is closed"));
    let due = subject.store.event_drafts().drafts_due(vec!["p".to_owned()]).await.expect("answered");
    assert_eq!((due[0].wait, claim(subject).await.len()), (after, 0));
    subject.advance(after);
    for outcome in [DraftOutcome::Snoozed { after: Duration::ZERO }, DraftOutcome::Released] {
        let draft = claim(subject).await.remove(0);
        assert_eq!(draft.attempt, 2);
        settle(subject, &draft, outcome).await;
    }
    let tries_max = publisher_policy().attempts_max;
    for attempt in 2..=tries_max {
        assert_eq!(claim(subject).await.remove(0).attempt, attempt);
        subject.advance(LEASE);
    }
    assert!(claim(subject).await.is_empty() && waiting(subject).await.is_empty());
    let kept = refused(subject).await;
    let why = kept[0].problem.as_deref().expect("a reason");
    assert!(why.contains("`p`") && why.contains("12 tries: it is closed"), "{why}");

    happen(subject, "1").await;
    let draft = claim(subject).await.remove(0);
    let settled = settle(subject, &draft, DraftOutcome::Refused { error: "never".to_owned() }).await;
    assert_eq!((settled.refused, waiting(subject).await.len()), (1, 0));
    let kept = subject.store.events().event_get(draft.event.id).await.expect("kept");
    assert_eq!(kept.problem.as_deref(), Some("publisher `p` made no payload: never"));
}

/// Whoever listens in the process that makes it hears of it, with the payload; `broadcast` is kept besides.
pub async fn fast_event_is_told_where_it_is_made_and_not_kept(subject: &Subject) {
    let fast = StepEvent { durable: false, live: true, ..event("fast", At::Success) };
    let both = StepEvent { live: true, ..event("both", At::Success) };
    publishing(subject, &[fast, both]).await;
    end(subject, completed("1")).await;
    let mut hints = subject.store.subscribe();
    for draft in claim(subject).await {
        assert_eq!(settle(subject, &draft, made("2")).await, one());
    }
    let mut heard = Vec::new();
    while heard.len() < 2 {
        if let Signal::Happened(event) = hints.recv().await.expect("it is heard") {
            heard.push((event.name, event.data));
        }
    }
    heard.sort();
    assert_eq!(heard, [("both".to_owned(), "2".to_owned()), ("fast".to_owned(), "2".to_owned())]);
    let kept: Vec<String> = listed(subject).await.into_iter().map(|event| event.name).collect();
    assert_eq!(kept, ["both"]);
}

/// It is not written a second time; when it is gone with its job, nothing is left to make a payload of.
pub async fn large_result_stays_with_its_job(subject: &Subject) {
    let large = format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX));
    happen(subject, &large).await;
    let draft = claim(subject).await.remove(0);
    assert_eq!(draft.ended, large);
    settle(subject, &draft, DraftOutcome::Released).await;
    subject.advance(Duration::from_hours(2));
    let (lead, hour) = (lead(subject).await, Duration::from_hours(1));
    let maintenance = subject.store.maintenance();
    assert_eq!(maintenance.jobs_remove(&lead, JobState::Completed, hour, 10).await.expect("answered"), 0);
    let gone = maintenance.workflows_remove(&lead, WorkflowState::Completed, hour, 10).await;
    assert_eq!(gone.expect("removed"), 1);
    assert!(claim(subject).await.is_empty());
    let why = refused(subject).await.remove(0).problem.expect("a reason");
    assert!(why.contains("no longer kept"), "{why}");

    // One that is small travels with its draft.
    happen(subject, "1").await;
    subject.advance(Duration::from_hours(2));
    let gone = maintenance.workflows_remove(&lead, WorkflowState::Completed, hour, 10).await;
    assert_eq!(gone.expect("removed"), 1);
    let draft = claim(subject).await.remove(0);
    assert_eq!((draft.ended.as_str(), draft.workflow_input), ("1", None));
}

/// With the reason, and not what somebody is making just now.
pub async fn what_waits_too_long_is_kept_back(subject: &Subject) {
    happen(subject, "1").await;
    let (second, day) = (Duration::from_secs(1), Duration::from_hours(24));
    let lead = lead(subject).await;
    let drafts = subject.store.event_drafts();
    subject.advance(second * (24 * 3_600 - 1));
    assert_eq!(drafts.drafts_expire(&lead, day, 10).await.expect("answered"), 0);
    let draft = claim(subject).await.remove(0);
    subject.advance(second);
    assert_eq!(drafts.drafts_expire(&lead, day, 10).await.expect("answered"), 0, "it is being made");
    settle(subject, &draft, DraftOutcome::Released).await;
    assert_eq!(drafts.drafts_expire(&lead, day, 10).await.expect("answered"), 1);
    let kept = refused(subject).await;
    let why = kept[0].problem.as_deref().expect("a reason");
    assert!(why.contains("publisher `p` did not make it within 86400 s"), "{why}");
    assert!(waiting(subject).await.is_empty() && claim(subject).await.is_empty());
}
