//! What a child does.

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use recache_engine::Engine;
use recache_model::ids::{JobId, WorkflowId};
use recache_model::job::JobState;
use recache_model::template::Template;
use recache_store::{
    JobFilter, LeaseToken, OpenOptions, Outcome, Publication, Settlement, StagedItem, Store, open,
};
use recache_worker::{BuildContext, Context, Failure, Handlers};
use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::around;
use crate::flow;
use crate::parent::{ROLE, SEED, URL};
use crate::support::{touch, until};
use crate::work::{self, DIAMOND, VIEWS, handlers, options};

/// Whole lines, at once: what is said is acknowledged.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("@{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Nothing, unless a parent says what to be.
#[test]
fn child_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let url = std::env::var(URL).unwrap();
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let told = Arc::new(Notify::new());
    let tell = Arc::clone(&told);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_ok_and(|line| line == "go") {
                tell.notify_one();
            }
        }
        // The parent is gone.
        std::process::exit(3);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(&OpenOptions::new(url)).await.unwrap();
        match role.as_str() {
            "load" => load(store, seed).await,
            "quiet" => quiet(store).await,
            "frozen" => frozen(store, Some(told)).await,
            "steady" => frozen(store, None).await,
            "toucher" => toucher(store).await,
            "flow" => flow::load(store, seed, say).await,
            "flow-quiet" => flow::quiet(store, say).await,
            other => panic!("no role `{other}`"),
        }
    });
}

fn begins(context: &Context) {
    let facts = context.facts();
    say(&format!("run {} {} {}", facts.id, facts.attempt, facts.attempt_token));
}

/// Submits, touches and works until it is killed; says what was acknowledged.
async fn load(store: Arc<dyn Store>, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let engine = Engine::builder(store).handlers(handlers(begins)).subscribers(around::subscribers(say));
    let engine = engine.options(options()).start().await.unwrap();
    say("ready");
    around::begin(&engine, SmallRng::seed_from_u64(random.random()), say);
    for key in VIEWS {
        engine.define_view(work::view(key)).await.unwrap();
        let mut random = SmallRng::seed_from_u64(random.random());
        let engine = engine.clone();
        tokio::spawn(async move {
            loop {
                let touched = engine.touch(touch(key, &[])).await.unwrap();
                say(&format!("touch {key} {}", touched.version));
                tokio::time::sleep(Duration::from_millis(random.random_range(1..60))).await;
            }
        });
    }
    let template = Template::parse(DIAMOND, "diamond.yaml").unwrap();
    for turn in 0..40 {
        if turn % 10 == 0 {
            let start: i64 = random.random_range(0..100);
            let id = WorkflowId::make();
            engine.submit_workflow(id, &template, &json!({ "start": start })).await.unwrap();
            say(&format!("workflow {} {start}", id.uuid()));
            let engine = engine.clone();
            tokio::spawn(async move {
                let record = engine.wait_for_workflow(id).await.unwrap();
                say(&format!("workflow-outcome {} {}", id.uuid(), record.state));
            });
        }
        let job = engine.submit(work::job(&mut random)).await.unwrap();
        say(&format!("submit {}", job.uuid()));
        let engine = engine.clone();
        tokio::spawn(async move {
            let record = engine.wait_for_job(job).await.unwrap();
            let output = record.output.as_deref().unwrap_or("-");
            say(&format!("outcome {} {} {} {output}", job.uuid(), record.state, record.attempt));
        });
    }
    std::future::pending::<()>().await;
}

/// Works until nothing is left to do.
async fn quiet(store: Arc<dyn Store>) {
    let engine = Engine::builder(Arc::clone(&store))
        .handlers(handlers(begins))
        .subscribers(around::subscribers(say))
        .options(options())
        .start()
        .await
        .unwrap();
    around::wind_up(&*store).await;
    until("nothing is left to do", async || {
        // Each may leave something for the next: a batch a job, a job an event.
        if !around::batches_have_ended(&*store).await {
            return None;
        }
        for state in [JobState::Queued, JobState::Running, JobState::Blocked] {
            let filter = JobFilter { state: Some(state), rows_max: 1, ..JobFilter::default() };
            if !store.jobs_list(filter).await.unwrap().jobs.is_empty() {
                return None;
            }
        }
        let views = store.views_list(None, None, 100).await.unwrap();
        let are_live = views.iter().all(|view| view.versions.live == view.versions.wanted);
        (are_live && around::all_are_told(&*store).await).then_some(())
    })
    .await;
    engine.shut_down().await;
    store.close().await;
    say("quiet");
}

/// The token behind an attempt: its handler may try what no honest one would.
fn token_of(context: &Context) -> LeaseToken {
    let parts: Vec<&str> = context.facts().attempt_token.rsplitn(3, '-').collect();
    let [claim, epoch, job] = parts[..] else { panic!("{parts:?}") };
    LeaseToken {
        job: JobId::from_uuid(Uuid::parse_str(job).unwrap()),
        epoch: epoch.parse().unwrap(),
        claim: Uuid::parse_str(claim).unwrap(),
    }
}

/// Works; with `gate`, its first job and its first build wait inside their handlers, and then try everything that they no
/// longer may.
async fn frozen(store: Arc<dyn Store>, gate: Option<Arc<Notify>>) {
    let pid = std::process::id();
    let hold = Arc::new(Hold {
        job: AtomicBool::new(gate.is_some()),
        view: AtomicBool::new(gate.is_some()),
        open: Notify::new(),
    });
    let mut handlers = Handlers::new();
    let (held, store_too) = (Arc::clone(&hold), Arc::clone(&store));
    handlers
        .job("work", move |context: Context, (): ()| {
            let (held, store) = (Arc::clone(&held), Arc::clone(&store_too));
            async move {
                if held.job.swap(false, Ordering::SeqCst) {
                    held.wait("job").await;
                    late_job(&*store, &context).await;
                }
                Ok(pid)
            }
        })
        .unwrap();
    let (held, store_too) = (Arc::clone(&hold), Arc::clone(&store));
    handlers
        .view("work-view", move |build: BuildContext| {
            let (held, store) = (Arc::clone(&held), Arc::clone(&store_too));
            async move {
                if held.view.swap(false, Ordering::SeqCst) {
                    build.put("early", Some("early"), &pid).await?;
                    build.flush().await?;
                    held.wait("view").await;
                    late_build(&*store, &build).await;
                }
                build.put("by", None, &pid).await
            }
        })
        .unwrap();
    let options = recache_engine::Options { grace: Duration::from_secs(20), ..options() };
    let engine = Engine::builder(store).handlers(handlers).options(options).start().await.unwrap();
    say("ready");
    if let Some(gate) = gate {
        gate.notified().await;
        hold.open.notify_waiters();
    }
    std::future::pending::<()>().await;
    drop(engine);
}

struct Hold {
    job: AtomicBool,
    view: AtomicBool,
    open: Notify,
}

impl Hold {
    async fn wait(&self, who: &str) {
        let open = self.open.notified();
        say(&format!("inside {who}"));
        open.await;
    }
}

async fn late_job(store: &dyn Store, context: &Context) {
    let token = token_of(context);
    say(&format!("late job-token {}", store.job_revoked(token).await.unwrap().is_some()));
    say(&format!("late job-progress {}", store.job_progress(token, 0.9, None).await.unwrap().is_some()));
    for outcome in [
        Outcome::Completed { output: "\"late\"".to_owned() },
        Outcome::Released,
        Outcome::Failed {
            error: recache_model::job::JobError::new(recache_model::job::ErrorKind::Permanent, "late"),
        },
    ] {
        let settlement = Settlement { token, outcome, linked: false, limited_queue: None };
        let answer = store.jobs_dispatch(vec![settlement], None).await.unwrap().settled;
        say(&format!("late job-settled {}", matches!(answer[..], [recache_store::Settled::Refused(_)])));
    }
    say("late job-done true");
}

async fn late_build(store: &dyn Store, build: &BuildContext) {
    let token = token_of(build.context());
    let put = async {
        build.put("late", Some("late"), &"late").await?;
        build.flush().await
    };
    say(&format!("late view-put {}", matches!(put.await, Err(Failure::Stopped(_)))));
    let item = StagedItem { item: "raw".to_owned(), fingerprint: None, value: Some("1".to_owned()) };
    say(&format!("late view-stage {}", store.build_put(token, vec![item]).await.unwrap().is_some()));
    say(&format!("late view-begin {}", store.build_begin(token).await.unwrap().is_err()));
    let publication = Publication {
        version: build.version(),
        removed: vec!["by".to_owned()],
        output: "\"late\"".to_owned(),
        ..Publication::default()
    };
    let published = store.build_publish(token, publication).await.unwrap();
    say(&format!("late view-published {}", matches!(published, recache_store::Published::Refused(_))));
    say("late view-done true");
}

/// Touches one view without a pause: nearly always it is inside a transaction that holds that view's row.
async fn toucher(store: Arc<dyn Store>) {
    say("ready");
    loop {
        if let Err(error) = store.views_touch(vec![touch("v0", &["x", "y", "z"])]).await {
            assert!(error.is_retryable(), "{error}");
            say("ended by the server");
        }
    }
}
