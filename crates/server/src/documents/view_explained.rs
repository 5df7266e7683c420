//! Why a view is where it is: what touched it, what builds it, what that waits for, and the one command that would help.

use std::time::Duration;

use recache_api as api;
use recache_engine::MAINTENANCE;
use recache_model::handlers::Worker;
use recache_model::job::JobState;
use recache_model::time::Timestamp;
use recache_model::view::ViewStatus;
use recache_model::view_wait::{BuildJob, ViewWait, wait_of};
use recache_store::{
    Error, JobFilter, JobRecord, LimitScope, NewView, QueueRecord, Result, SessionRecord, Store, TouchSource,
    ViewName, ViewRecord, Word,
};

use super::records::view_status;
use super::{instant, ms};

/// Workers among which those are looked for that build a view.
const WORKERS_MAX: u32 = 10_000;
/// Running jobs of a handler that are counted against its limit.
const RUNNING_MAX: u32 = 10_000;
/// Workers that are named because they offer the handler, and may not have the build.
const NAMED_MAX: usize = 3;

/// Why a view is behind, and what it waits for, as things stand in the store now.
pub async fn view_explanation(store: &dyn Store, view: &ViewName) -> Result<api::ViewExplanation> {
    // Counted before the view is read: what is carried out in between shows in the view.
    let touches_waiting = store.chains().touches_waiting(view.clone()).await?;
    let record = store.view_get(&view.namespace, &view.key).await?;
    let standing = Standing::look(store, &record, touches_waiting).await?;
    let neighbours = store.chains().view_neighbours(view.clone()).await?;
    let behind_above = behind(store, &neighbours.above, standing.now).await?;
    let found = found(view, &record, &standing, &behind_above);
    let versions = &record.versions;
    let by_handler = record.definition.options.workflow.is_none();
    let definition = record.definition;
    Ok(api::ViewExplanation {
        schema: api::ViewExplanation::SCHEMA.to_owned(),
        namespace: view.namespace.clone(),
        key: view.key.clone(),
        live_version: versions.live,
        recache_version: versions.wanted,
        staleness_ms: ms(versions.staleness(standing.now)),
        touched: versions.touched_at.map(|at| last_touch(at, record.touch_source, record.touched_by)),
        touches_waiting,
        waits_for: found.waits_for.to_owned(),
        until: found.until.map(instant),
        expected_at: found.expected_at.map(instant),
        build_job_id: record.build.map(|job| job.to_string()),
        handler: by_handler.then_some(definition.handler),
        queue: by_handler.then_some(definition.queue),
        workflow: definition.options.workflow.map(|workflow| workflow.to_string()),
        workers: standing.workers.as_ref().map(|workers| workers.may),
        reason: found.reason,
        remedy: found.remedy,
        derived_from: neighbours.above.iter().map(ToString::to_string).collect(),
        behind_above,
        feeds: neighbours.below.iter().map(ToString::to_string).collect(),
    })
}

fn last_touch(at: Timestamp, source: TouchSource, word: Option<Word>) -> api::LastTouch {
    let (by, view) = match source {
        TouchSource::Call => ("call", None),
        TouchSource::Sql => ("sql", None),
        TouchSource::Sources => ("sources", None),
        TouchSource::View(view) => ("view", Some(view.to_string())),
    };
    let (actor, reason) = word.map(|Word { actor, reason }| (actor, reason)).unzip();
    api::LastTouch { at: instant(at), by: by.to_owned(), view, actor, reason }
}

/// What is known beside the view's row.
struct Standing {
    now: Timestamp,
    touches_waiting: u64,
    build: Option<JobRecord>,
    /// Of the build's worker; `None` while none has it, or when that is gone.
    session: Option<SessionRecord>,
    queue: Option<QueueRecord>,
    limit: Option<ReachedLimit>,
    /// `None`: any engine may begin it.
    workers: Option<Workers>,
    /// Some engine lives: builds are created, touches carried out, dead workers noticed.
    is_tended: bool,
}

/// As many jobs run as may.
struct ReachedLimit {
    /// `queue`, `handler`
    of: &'static str,
    name: String,
    running_max: u32,
}

#[derive(Default)]
struct Workers {
    /// Live ones that may have its builds.
    may: u64,
    /// Names of live ones that offer the handler, and take from other queues or serve other namespaces only.
    may_not: Vec<String>,
}

impl Standing {
    async fn look(store: &dyn Store, record: &ViewRecord, touches_waiting: u64) -> Result<Self> {
        let definition = &record.definition;
        let build = match record.build {
            Some(job) => Some(store.job_get(job).await?),
            None => None,
        };
        let session = match build.as_ref().and_then(|build| build.session) {
            Some(session) => store.session_get(session).await?,
            None => None,
        };
        let now = store.now().await?;
        let leader = store.maintenance().leader_find(MAINTENANCE).await?;
        let is_tended = leader.is_some_and(|leader| leader.expires_at > now);
        let by_handler = definition.options.workflow.is_none();
        let (mut queue, mut limit, mut workers) = (None, None, None);
        if by_handler {
            let found = store.queues().queue_get(&definition.queue).await?;
            limit = reached(store, definition, &found).await?;
            queue = Some(found);
            let offered = store.handler_offers().handlers_workers(WORKERS_MAX).await?;
            workers = Some(workers_of(&offered, definition, now));
        }
        Ok(Self { now, touches_waiting, build, session, queue, limit, workers, is_tended })
    }
}

/// Live workers only.
fn workers_of(offered: &[Worker], definition: &NewView, now: Timestamp) -> Workers {
    let mut workers = Workers::default();
    for worker in offered {
        let offers = worker.handlers.iter().any(|handler| handler.name == definition.handler);
        if !offers || worker.expires_at <= now {
            continue;
        }
        if worker.serves(&definition.namespace) && worker.queues.contains(&definition.queue) {
            workers.may += 1;
        } else if workers.may_not.len() < NAMED_MAX {
            workers.may_not.push(format!("`{}`", worker.name));
        }
    }
    workers
}

/// The limit of queue or handler that lets none of its builds begin now.
async fn reached(
    store: &dyn Store,
    definition: &NewView,
    queue: &QueueRecord,
) -> Result<Option<ReachedLimit>> {
    if let Some(running_max) = queue.limit.running_max
        && queue.running >= i64::from(running_max)
    {
        return Ok(Some(ReachedLimit { of: "queue", name: definition.queue.clone(), running_max }));
    }
    let scope = LimitScope::Handler(definition.handler.clone());
    let limits = store.queues().limits_list().await?;
    let limit = limits.into_iter().find(|record| record.scope == scope);
    let Some(running_max) = limit.and_then(|record| record.limit.running_max) else { return Ok(None) };
    let filter = JobFilter {
        state: Some(JobState::Running),
        handler: Some(definition.handler.clone()),
        rows_max: running_max.clamp(1, RUNNING_MAX),
        ..JobFilter::default()
    };
    let running = store.jobs_list(filter).await?.jobs.len();
    let is_reached = running >= usize::try_from(running_max.min(RUNNING_MAX)).unwrap_or(usize::MAX);
    Ok(is_reached.then(|| ReachedLimit { of: "handler", name: definition.handler.clone(), running_max }))
}

/// Those of the views above that do not show what their own inputs are.
async fn behind(store: &dyn Store, above: &[ViewName], now: Timestamp) -> Result<Vec<api::ViewBehind>> {
    let mut behind = Vec::new();
    for view in above {
        let record = match store.view_get(&view.namespace, &view.key).await {
            Ok(record) => record,
            // It was deleted meanwhile.
            Err(Error::NotFound { .. }) => continue,
            Err(error) => return Err(error),
        };
        let versions = &record.versions;
        if versions.live == versions.wanted && !versions.is_paused {
            continue;
        }
        let reason = if let Some(pause) = &record.pause {
            format!("is paused by {}", said(&pause.word))
        } else if versions.status == ViewStatus::Failed {
            format!("could not be built: {}", record.last_error.as_deref().unwrap_or("no reason was kept"))
        } else {
            format!("has version {} live, and {} is wanted", versions.live, versions.wanted)
        };
        behind.push(api::ViewBehind {
            view: view.to_string(),
            recache_status: view_status(versions.status),
            is_paused: versions.is_paused,
            staleness_ms: ms(versions.staleness(now)),
            reason,
        });
    }
    Ok(behind)
}

fn said(word: &Word) -> String {
    format!("{}: {}", word.actor, word.reason)
}

/// What it waits for.
struct Found {
    waits_for: &'static str,
    until: Option<Timestamp>,
    expected_at: Option<Timestamp>,
    reason: String,
    remedy: Option<String>,
}

impl Found {
    fn new(waits_for: &'static str, reason: impl Into<String>) -> Self {
        Self { waits_for, until: None, expected_at: None, reason: reason.into(), remedy: None }
    }

    fn remedy(self, command: impl Into<String>) -> Self {
        Self { remedy: Some(command.into()), ..self }
    }

    fn until(self, until: Option<Timestamp>) -> Self {
        Self { until, ..self }
    }

    /// As long after `from` as the last build took.
    fn expected(self, from: Timestamp, last_build: Option<Duration>) -> Self {
        Self { expected_at: last_build.map(|last| from.plus(last)), ..self }
    }

    /// What an engine does by itself, if there is one.
    fn by_an_engine(self, is_tended: bool) -> Self {
        if is_tended {
            return self;
        }
        let reason = format!("{}; no engine is at work at this database", self.reason);
        Self { reason, ..self }.remedy("recache serve")
    }
}

fn found(
    view: &ViewName,
    record: &ViewRecord,
    standing: &Standing,
    behind_above: &[api::ViewBehind],
) -> Found {
    let wait = wait_of(&record.versions, standing.build.as_ref().map(waiting), standing.now);
    let is_idle =
        matches!(wait, ViewWait::Untouched | ViewWait::Nothing | ViewWait::Touch | ViewWait::Reconciler);
    if is_idle && standing.touches_waiting > 0 {
        let count = standing.touches_waiting;
        let why = format!("touches are committed ({count}), and the next engine that looks carries them out");
        return Found::new("reconciler", why).by_an_engine(standing.is_tended);
    }
    let last_build = record.versions.last_build;
    let at_once = format!("recache view touch {view} --now");
    match wait {
        ViewWait::Untouched => Found::new("untouched", "nothing was ever touched").remedy(at_once),
        ViewWait::Nothing => up_to_date(behind_above),
        ViewWait::Debounce { until } => {
            let quiet = Duration::from_millis(record.definition.policy.debounce_quiet_ms);
            let why = format!("further touches may come: it is built when none came for {quiet:?}");
            let found = Found::new("debounce", why).until(Some(until)).expected(until, last_build);
            if standing.is_tended { found.remedy(at_once) } else { found.by_an_engine(false) }
        }
        ViewWait::Reconciler => {
            let why = "it is due, and the next engine that looks creates its build";
            Found::new("reconciler", why).by_an_engine(standing.is_tended)
        }
        ViewWait::Resume => {
            let word = record.pause.as_ref().map_or_else(|| "somebody".to_owned(), |pause| said(&pause.word));
            Found::new("resume", format!("its builds are paused by {word}"))
                .remedy(format!("recache view resume {view}"))
        }
        ViewWait::Worker => queued(&record.definition, standing).expected_if_taken(standing, last_build),
        ViewWait::Retry { at } => {
            // What the view keeps is of the build before; this one has not ended.
            let build = standing.build.as_ref();
            let error = build.and_then(|build| build.error.as_ref());
            let error = error.map_or("see its job", |error| error.message.as_str());
            let attempts = build.map_or_else(String::new, |build| {
                format!(" (attempt {} of {})", build.attempt, build.attempts_max)
            });
            let why = format!("its build failed and is tried again{attempts}: {error}");
            let found = Found::new("retry", why).until(Some(at)).expected(at, last_build);
            match build {
                Some(build) => found.remedy(format!("recache job show {}", build.id)),
                None => found,
            }
        }
        ViewWait::Build { version, is_overtaken } => building(record, standing, version, is_overtaken),
        ViewWait::Touch => {
            let error = record.last_error.as_deref().unwrap_or("no reason was kept");
            Found::new("touch", format!("the newest version could not be built: {error}")).remedy(at_once)
        }
    }
}

fn waiting(job: &JobRecord) -> BuildJob {
    BuildJob { state: job.state, due_at: job.due_at, has_workflow: job.sub_workflow.is_some() }
}

/// Its newest version is live; what that was made of may be behind itself.
fn up_to_date(behind_above: &[api::ViewBehind]) -> Found {
    let live = "the newest version is live";
    let Some(first) = behind_above.first() else { return Found::new("nothing", live) };
    let more = match behind_above.len() {
        1 => String::new(),
        count => format!(", and {} more are behind", count - 1),
    };
    let why = format!("{live}, but what it is made from is not: {} {}{more}", first.view, first.reason);
    let verb = if first.is_paused { "resume" } else { "explain" };
    Found::new("nothing", why).remedy(format!("recache view {verb} {}", first.view))
}

/// Its build waits for somebody who takes it.
fn queued(definition: &NewView, standing: &Standing) -> Found {
    let NewView { queue, handler, namespace, .. } = definition;
    if let Some(template) = &definition.options.workflow {
        let why = format!("its build is queued, and the next engine begins the workflow `{template}`");
        return Found::new("worker", why).by_an_engine(standing.is_tended);
    }
    if let Some(pause) = standing.queue.as_ref().and_then(|queue| queue.pause.as_ref()) {
        let why = format!("its build is queued, and queue `{queue}` is paused by {}", said(&pause.word));
        return Found::new("queue", why).until(pause.until).remedy(format!("recache queue resume {queue}"));
    }
    match &standing.workers {
        Some(workers) if workers.may == 0 => {
            let others = if workers.may_not.is_empty() {
                String::new()
            } else {
                let names = workers.may_not.join(", ");
                format!("; {names} offers it, but takes from other queues or serves other namespaces")
            };
            let why = format!(
                "its build is queued, and no live worker of queue `{queue}` offers `{handler}` to namespace `{namespace}`{others}"
            );
            return Found::new("worker", why).remedy("recache worker list");
        }
        _ => {}
    }
    if let Some(limit) = &standing.limit {
        let why = format!(
            "its build is queued, and {} `{}` runs as many jobs as it may: {}",
            limit.of, limit.name, limit.running_max
        );
        return Found::new("limit", why)
            .remedy(format!("recache job list --{} {} --state running", limit.of, limit.name));
    }
    let rate = standing.queue.as_ref().and_then(|queue| queue.limit.rate);
    let rate = rate.map_or_else(String::new, |rate| {
        format!("; the queue lets {} jobs begin in {:?}", rate.starts_max, rate.period)
    });
    let why = format!(
        "its build is queued and waits for a free worker of queue `{queue}` that knows `{handler}`{rate}"
    );
    Found::new("worker", why)
}

impl Found {
    /// Nothing but a free worker is in the way.
    fn expected_if_taken(self, standing: &Standing, last_build: Option<Duration>) -> Self {
        if self.waits_for == "worker" && self.remedy.is_none() {
            return self.expected(standing.now, last_build);
        }
        self
    }
}

/// Somebody builds it, or did before it died.
fn building(record: &ViewRecord, standing: &Standing, version: i64, is_overtaken: bool) -> Found {
    let next = if is_overtaken { "; a newer one is wanted already and built next" } else { "" };
    let build = standing.build.as_ref();
    if let Some(id) = build.and_then(|build| build.sub_workflow) {
        let why = format!("version {version} is being built by workflow {id}{next}");
        return Found::new("build", why).remedy(format!("recache workflow show {id}"));
    }
    let now = standing.now;
    match &standing.session {
        Some(session) if session.expires_at > now => {
            let progress = build.and_then(|build| build.progress);
            let progress = progress.map_or_else(String::new, |done| format!(", {:.0} % done", done * 100.0));
            let last = record.versions.last_build;
            let last = last.map_or_else(String::new, |last| format!("; the last build took {last:.1?}"));
            let why = format!("version {version} is being built by `{}`{progress}{last}{next}", session.node);
            let found = Found::new("build", why);
            let began = record.versions.began_at.filter(|_| !is_overtaken);
            let found = match began {
                Some(began) => found.expected(began, record.versions.last_build),
                None => found,
            };
            match build {
                Some(build) => found.remedy(format!("recache job show {}", build.id)),
                None => found,
            }
        }
        session => {
            let silent = session.as_ref().map(|session| (&session.node, now.since(session.beat_at)));
            let who = silent.map_or_else(
                || "a worker that is gone".to_owned(),
                |(node, silent)| format!("`{node}`, which was not heard of for {silent:.1?}"),
            );
            let why =
                format!("version {version} was being built by {who}: an engine gives it to another one");
            let lease = record.definition.options.lease_ms.map(Duration::from_millis);
            let until = session.as_ref().zip(lease).map(|(session, lease)| session.beat_at.plus(lease));
            let until = until.filter(|until| *until > now);
            Found::new("takeover", why).until(until).by_an_engine(standing.is_tended)
        }
    }
}
