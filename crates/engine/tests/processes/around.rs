//! What goes on around the jobs: some are called off, some are counted in batches, somebody is told of each end, and a schedule
//! makes one every second.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::SmallRng;
use recache_engine::Engine;
use recache_model::batch::BatchCallback;
use recache_model::event::DeliveryState;
use recache_model::ids::{BatchId, JobId, WorkflowId};
use recache_model::job::JobState;
use recache_model::template::Template;
use recache_store::{
    BatchFilter, DeliveryFilter, Due, Error, EventQuery, JobRecord, NewBatch, NewJob, NewSchedule, Store,
};
use recache_worker::{Event, Subscribers};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::check::Acknowledged;
use crate::work::{self, DIAMOND, SUMMED};

/// Does nothing but run: for callbacks and ticks.
pub(crate) const NOTE: &str = "note";
const SCHEDULE: (&str, &str) = ("n", "pulse");
const EAR: &str = "ear";
const COMPLETED: &str = "job.completed";
const MEMBERS: usize = 3;

/// Somebody who says what is heard before it is taken.
pub(crate) fn subscribers(say: fn(&str)) -> Subscribers {
    let mut subscribers = Subscribers::new();
    let hear = move |event: Event| {
        if let Some(job) = event.job {
            say(&format!("heard {} {job}", event.id));
        }
        std::future::ready(Ok(()))
    };
    subscribers.on(EAR, &[COMPLETED], hear).unwrap();
    subscribers
}

/// The answer, once the store has done it: what is called off or closed once more is the same.
macro_rules! done {
    ($act:expr) => {
        loop {
            match $act.await {
                Ok(answer) => break answer,
                Err(error) => eprintln!("again: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
}

/// Goes on until the process is killed.
pub(crate) fn begin(engine: &Engine, mut random: SmallRng, say: fn(&str)) {
    let engine = engine.clone();
    tokio::spawn(async move {
        let schedule = NewSchedule {
            namespace: SCHEDULE.0.to_owned(),
            ..NewSchedule::new(SCHEDULE.1, "* * * * * *", NOTE)
        };
        done!(engine.store().schedules().schedule_put(schedule.clone()));
        loop {
            call_off(&engine, &mut random, say).await;
            count(&engine, &mut random, say).await;
            tokio::time::sleep(Duration::from_millis(random.random_range(5..50))).await;
        }
    });
}

/// A job and a workflow, each perhaps at work already.
async fn call_off(engine: &Engine, random: &mut SmallRng, say: fn(&str)) {
    let job = NewJob { due: Due::In(Duration::from_millis(random.random_range(0..4))), ..work::job(random) };
    let id = job.id;
    done!(engine.submit(job.clone()));
    say(&format!("submit {}", id.uuid()));
    let template = Template::parse(DIAMOND, "diamond.yaml").unwrap();
    let workflow = WorkflowId::make();
    done!(engine.submit_workflow(workflow, &template, &json!({ "start": 1 })));
    tokio::time::sleep(Duration::from_millis(random.random_range(0..8))).await;
    let (state, _) = done!(engine.cancel_job(id, "not wanted"));
    say(&format!("cancel {} {state}", id.uuid()));
    done!(async {
        match engine.cancel_workflow(workflow, "not wanted").await {
            // It had ended before.
            Err(recache_engine::Error::Store(Error::Conflict(_))) => Ok(Vec::new()),
            answer => answer,
        }
    });
    say(&format!("cancel-workflow {}", workflow.uuid()));
}

/// A batch that is closed when its members are there, and calls back when they have ended.
async fn count(engine: &Engine, random: &mut SmallRng, say: fn(&str)) {
    let callback = BatchCallback { input: "true".to_owned(), ..BatchCallback::new(NOTE) };
    let batch = NewBatch { on_finish: Some(callback), ..NewBatch::new("counted") };
    let id = batch.id;
    done!(engine.create_batch(batch.clone()));
    let members: Vec<_> = (0..MEMBERS).map(|_| NewJob { batch: Some(id), ..work::job(random) }).collect();
    done!(engine.submit_many(members.clone()));
    done!(engine.close_batch(id));
    say(&format!("batch {}", id.uuid()));
}

/// No schedule makes another job, and no batch waits for members that a dead process would have added.
pub(crate) async fn wind_up(store: &dyn Store) {
    let (namespace, name) = SCHEDULE;
    match store.schedules().schedule_delete(namespace, name).await {
        Ok(()) | Err(Error::NotFound { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    for batch in batches(store).await {
        if batch.finished_at.is_none() {
            store.batches().batch_close(batch.definition.id).await.unwrap();
        }
    }
}

async fn batches(store: &dyn Store) -> Vec<recache_store::BatchRecord> {
    let filter = BatchFilter { rows_max: 10_000, ..BatchFilter::default() };
    store.batches().batches_list(filter).await.unwrap()
}

/// Whether every batch has ended and called back.
pub(crate) async fn batches_have_ended(store: &dyn Store) -> bool {
    batches(store).await.iter().all(|batch| batch.finished_at.is_some())
}

/// Whether each event was told.
pub(crate) async fn all_are_told(store: &dyn Store) -> bool {
    let events = EventQuery { name: Some(COMPLETED.to_owned()), ..EventQuery::default() };
    let events = store.events().events_list(events, 10_000).await.unwrap();
    let told = DeliveryFilter { state: Some(DeliveryState::Delivered), ..DeliveryFilter::default() };
    let told = store.events().deliveries_list(told, 10_000).await.unwrap();
    let told: HashSet<_> = told.iter().map(|delivery| delivery.event).collect();
    if !store.event_drafts().drafts_waiting().await.unwrap().is_empty() {
        return false;
    }
    events.iter().all(|event| told.contains(&event.id))
}

/// What was said of all this.
#[derive(Debug, Default)]
pub(crate) struct Said {
    cancels: HashMap<Uuid, String>,
    workflows: HashSet<Uuid>,
    batches: HashSet<Uuid>,
    /// Jobs, and the events that told of their end.
    heard: HashMap<Uuid, BTreeSet<String>>,
}

impl Said {
    /// Takes note of a line that is about this.
    pub(crate) fn note(&mut self, kind: &str, mut word: impl FnMut() -> String) {
        match kind {
            "cancel" => {
                self.cancels.insert(word().parse().unwrap(), word());
            }
            "cancel-workflow" => {
                self.workflows.insert(word().parse().unwrap());
            }
            "batch" => {
                self.batches.insert(word().parse().unwrap());
            }
            "heard" => {
                let event = word();
                self.heard.entry(word().parse().unwrap()).or_default().insert(event);
            }
            _ => {}
        }
    }
}

pub(crate) async fn check(store: &dyn Store, said: &Acknowledged, jobs: &HashMap<Uuid, JobRecord>) {
    let around = &said.around;
    for (id, state) in &around.cancels {
        assert_eq!(jobs[id].state.as_str(), state, "what was answered to a cancel stands: {id}");
    }
    for id in &around.workflows {
        let workflow = store.workflow_get(WorkflowId::from_uuid(*id)).await.unwrap();
        assert!(workflow.finished_at.is_some(), "called off and goes on: {workflow:#?}");
    }
    check_batches(store, around, jobs).await;
    for job in jobs.values().filter(|job| job.state == JobState::Completed) {
        let events = around.heard.get(&job.id.uuid()).map_or(0, BTreeSet::len);
        assert_eq!(events, 1, "one event tells of the end of {}, {} were heard", job.id, events);
    }
    check_made(store, jobs).await;
    let mut seconds: BTreeMap<i64, JobId> = BTreeMap::new();
    for job in jobs.values().filter(|job| job.handler == NOTE && job.input == "null") {
        let second = job.created_at.micros().div_euclid(1_000_000);
        assert_eq!(seconds.insert(second, job.id), None, "a tick made two jobs");
    }
}

/// One event for each end that publishes one, with the payload that its publisher makes of it.
async fn check_made(store: &dyn Store, jobs: &HashMap<Uuid, JobRecord>) {
    let made = EventQuery { name: Some(SUMMED.to_owned()), ..EventQuery::default() };
    let mut of: HashMap<JobId, Vec<String>> = HashMap::new();
    for event in store.events().events_list(made, 10_000).await.unwrap() {
        assert_eq!((&event.problem, &event.waits_for), (&None, &None), "{event:#?}");
        of.entry(event.job.unwrap()).or_default().push(event.data);
    }
    for job in jobs.values().filter(|job| job.publishes.is_some()) {
        let made = of.remove(&job.id).unwrap_or_default();
        let expected = job.output.as_ref().map(|sum| format!("{{\"sum\":{sum}}}"));
        assert_eq!(made, Vec::from_iter(expected), "{job:#?}");
    }
    assert!(of.is_empty(), "of nothing: {of:#?}");
}

async fn check_batches(store: &dyn Store, around: &Said, jobs: &HashMap<Uuid, JobRecord>) {
    let mut callbacks: HashMap<BatchId, usize> = HashMap::new();
    for job in jobs.values().filter(|job| job.handler == NOTE && job.input != "null") {
        let input: Value = serde_json::from_str(&job.input).unwrap();
        let batch: BatchId = input["batch"].as_str().unwrap().parse().unwrap();
        *callbacks.entry(batch).or_default() += 1;
    }
    let all = batches(store).await;
    for id in &around.batches {
        let batch =
            all.iter().find(|batch| batch.definition.id.uuid() == *id).expect("acknowledged and gone");
        assert_eq!(batch.counts.total, i64::try_from(MEMBERS).unwrap(), "{batch:#?}");
    }
    for batch in all {
        let id = batch.definition.id;
        let members: Vec<_> = jobs.values().filter(|job| job.batch == Some(id)).collect();
        let ended = |state| i64::try_from(members.iter().filter(|job| job.state == state).count()).unwrap();
        let counted =
            (batch.counts.total, batch.counts.completed, batch.counts.failed, batch.counts.cancelled);
        let there = (
            i64::try_from(members.len()).unwrap(),
            ended(JobState::Completed),
            ended(JobState::Failed),
            ended(JobState::Cancelled),
        );
        assert_eq!(counted, there, "{batch:#?}");
        assert_eq!(callbacks.get(&id).copied().unwrap_or(0), 1, "one callback: {batch:#?}");
    }
}
