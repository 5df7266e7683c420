//! A database with one of each kind of thing in it, and the binary that is let loose on it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use assert_cmd::Command;
use recache_model::ids::{JobId, SessionId};
use recache_model::job::{ErrorKind, JobError};
use recache_model::time::{ManualClock, Timestamp};
use recache_model::view::ViewPolicy;
use recache_store::conformance::{TestDatabase, sqlite_database};
use recache_store::{
    ClaimRequest, ClaimedJob, NewJob, NewView, OpenOptions, Outcome, Publication, Settlement, StagedItem,
    Store, Touch, open,
};
use uuid::Uuid;

/// Completed.
pub(crate) const DONE: &str = "job_00000000-0000-7000-8000-000000000001";
/// Failed after two attempts.
pub(crate) const FAILED: &str = "job_00000000-0000-7000-8000-000000000002";
/// Running, 40 % done.
pub(crate) const RUNNING: &str = "job_00000000-0000-7000-8000-000000000003";
/// Queued.
pub(crate) const QUEUED: &str = "job_00000000-0000-7000-8000-000000000004";
/// The id of no job.
pub(crate) const UNKNOWN: &str = "job_00000000-0000-7000-8000-0000000000ff";

/// A filled database. Its content and its times are the same in every run; only the ids of views and builds are not.
pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    clock: ManualClock,
    pub(crate) session: SessionId,
    running: std::sync::Mutex<Option<recache_store::LeaseToken>>,
    folder: tempfile::TempDir,
    database: TestDatabase,
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Expects the exit code; answers what was printed to stdout.
    pub(crate) fn expect(self, code: i32) -> String {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self.out
    }

    /// Expects success; reads stdout as one document.
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.expect(0)).expect("stdout is one JSON document")
    }

    /// Expects a refusal with this code, nothing on stdout, and each of these texts on stderr.
    pub(crate) fn refused(self, code: i32, texts: &[&str]) {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "stderr:\n{}", self.err);
        for text in texts {
            assert!(self.err.contains(text), "`{text}` is not in:\n{}", self.err);
        }
    }
}

/// The binary, with nothing from the environment of the test but what it needs to start.
pub(crate) fn recache(folder: &Path) -> Command {
    let mut command = Command::cargo_bin("recache").expect("the binary is built");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RECACHE") {
            command.env_remove(name);
        }
    }
    command.env_remove("NO_COLOR").current_dir(folder);
    command
}

/// Runs it.
pub(crate) fn run(command: &mut Command) -> Ran {
    let output = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// Every file of a folder with its bytes.
pub(crate) fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(folder)
        .expect("the folder can be listed")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let bytes = if path.is_dir() { b"folder".to_vec() } else { std::fs::read(&path).expect("bytes") };
            (name, bytes)
        })
        .collect()
}

/// Expects the files of a folder to be what they were, byte by byte.
pub(crate) fn assert_same_files(folder: &Path, before: &BTreeMap<String, Vec<u8>>) {
    let after = files(folder);
    // SQLite's work files beside a database in WAL mode may stay when it was looked at; nothing may be in them.
    let is_work = |name: &str| {
        name.ends_with("-shm") || (name.ends_with("-wal") && after.get(name).is_none_or(Vec::is_empty))
    };
    let changed = |name: &&String| !is_work(name) && after.get(*name) != before.get(*name);
    let names: Vec<_> = before.keys().chain(after.keys()).filter(changed).collect();
    assert!(names.is_empty(), "a refused command changed {names:?}");
}

/// Text without what differs from run to run: ids that the store made, and times that pass.
pub(crate) fn steady() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"\b(job|view)_01[0-9a-f]{6}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "${1}_[MADE]");
    settings.add_filter(
        r#""correlation_id": ?"01[0-9a-f]{6}(-[0-9a-f]{4}){3}-[0-9a-f]{12}""#,
        r#""correlation_id": "[MADE]""#,
    );
    settings.add_filter(r#""staleness_ms": ?[1-9]\d{9,}"#, r#""staleness_ms": "[LONG]""#);
    settings.add_filter(r"\d{3,} d \d+ h", "[LONG]");
    settings
}

/// The same without the width of columns, which differs where a table holds a time that passes.
pub(crate) fn narrow() -> insta::Settings {
    let mut settings = steady();
    settings.add_filter(r"   +", "  ");
    settings
}

impl World {
    /// Over an SQLite file.
    pub(crate) async fn sqlite() -> Self {
        Self::filled(sqlite_database()).await
    }

    /// Over any database.
    pub(crate) async fn filled(database: TestDatabase) -> Self {
        let clock = ManualClock::at(Timestamp::from_micros(1_700_000_000_000_000));
        let options =
            OpenOptions { clock: Some(Arc::new(clock.clone())), ..OpenOptions::new(database.url()) };
        let store = open(&options).await.expect("a fresh database opens");
        let session = SessionId::from_uuid(Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001));
        let folder = tempfile::tempdir().expect("a folder of its own");
        let running = std::sync::Mutex::default();
        let world = Self { store, clock, session, running, folder, database };
        world.fill().await;
        world
    }

    /// The binary with `--database` set by its variable.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = recache(self.folder.path());
        command.env("RECACHE_DATABASE", self.database.url()).args(arguments);
        command
    }

    /// Where the database is.
    pub(crate) fn url(&self) -> &str {
        self.database.url()
    }

    /// Runs the binary.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }

    /// What can be seen of all jobs and views, for comparing before and after.
    pub(crate) async fn rows(&self) -> String {
        let filter = recache_store::JobFilter { rows_max: 1000, ..recache_store::JobFilter::default() };
        let jobs = self.store.jobs_list(filter).await.expect("jobs are listed").jobs;
        let mut histories = Vec::new();
        for job in &jobs {
            histories.push(self.store.job_history(job.id).await.expect("history is read"));
        }
        let views = self.store.views_list(None, None, 1000).await.expect("views are listed");
        format!("{jobs:?}{histories:?}{views:?}")
    }

    /// The folder of the SQLite file; the store is closed first, so that nobody else writes to it.
    pub(crate) async fn closed_folder(&self) -> std::path::PathBuf {
        self.store.close().await;
        let file = self.database.url().strip_prefix("sqlite:").expect("an SQLite file");
        Path::new(file).parent().expect("a folder").to_path_buf()
    }

    async fn fill(&self) {
        let store = &self.store;
        store.session_open(self.session, "test", Duration::from_secs(10)).await.expect("a session opens");
        let job = |id: &str, handler: &str, input: &str| NewJob {
            id: id.parse().expect("an id"),
            correlation_id: "order-7".to_owned(),
            ..NewJob::new(handler, input)
        };
        let failing = NewJob { queue: "mail".to_owned(), ..job(FAILED, "send_mail", "{\"to\":\"a@b.c\"}") };
        let done = job(DONE, "resize", "{\n  \"n\": 12345678901234567890123\n}");
        store.jobs_submit(vec![done, failing]).await.expect("jobs are stored");

        self.clock.advance(Duration::from_millis(1500));
        let claimed = self.claim("resize").await;
        self.clock.advance(Duration::from_millis(250));
        self.settle(&claimed, Outcome::Completed { output: "{\"bytes\":42}".to_owned() }).await;

        let claimed = self.claim("send_mail").await;
        let refused = JobError::new(ErrorKind::Retryable, "connection refused\u{1b}[31m");
        self.settle(&claimed, Outcome::Retry { error: refused, after: Duration::from_mins(1) }).await;
        self.clock.advance(Duration::from_mins(1));
        let claimed = self.claim("send_mail").await;
        let mut gone = JobError::new(ErrorKind::Permanent, "no such mailbox");
        gone.code = Some("smtp_550".to_owned());
        self.settle(&claimed, Outcome::Failed { error: gone }).await;

        let running = NewJob { timeout: Some(Duration::from_secs(90)), ..job(RUNNING, "export", "[]") };
        store.jobs_submit(vec![running]).await.expect("a job is stored");
        let claimed = self.claim("export").await;
        *self.running.lock().expect("no panic") = Some(claimed.token);
        let told = store.job_progress(claimed.token, 0.4, Some("page 2 of 5".to_owned())).await;
        assert_eq!(told.expect("progress is kept"), None);
        let waiting =
            NewJob { priority: 5, namespace: "shop".to_owned(), ..job(QUEUED, "nobody_does_it", "null") };
        store.jobs_submit(vec![waiting]).await.expect("a job is stored");

        for key in ["prices", "untouched"] {
            let view = NewView {
                namespace: "shop".to_owned(),
                key: key.to_owned(),
                handler: "build_prices".to_owned(),
                queue: "default".to_owned(),
                policy: ViewPolicy::default(),
                retry: recache_model::retry::RetryPolicy::default(),
                timeout: None,
                rules: recache_model::item_rules::ItemRules::default(),
                options: recache_model::view_options::ViewOptions::default(),
            };
            store.view_define(view).await.expect("a view is defined");
        }
        self.build(1, &[("sku-1", "{\"cents\":100}"), ("sku-2", "{\"cents\":250.10}")]).await;
        self.build(2, &[("sku-1", "{\"cents\":120}"), ("sku-2", "{\"cents\":250.10}")]).await;
    }

    /// Has the handler of a running job say a line.
    pub(crate) async fn say(&self, job: &str, line: &str) {
        let token = self.running.lock().expect("no panic").expect("the running job was claimed");
        assert_eq!(token.job, id(job));
        let said = self.store.attempts().log_append(token, vec![line.to_owned()]).await;
        assert_eq!(said.expect("answered"), None, "the token is good");
    }

    /// Touches view `shop/prices`.
    pub(crate) async fn touch(&self) -> i64 {
        let touch = Touch { namespace: "shop".to_owned(), key: "prices".to_owned(), ..Touch::default() };
        self.store.views_touch(vec![touch]).await.expect("a touch is kept")[0].version
    }

    /// Touches view `shop/prices` and publishes the version that this asks for.
    pub(crate) async fn build(&self, version: i64, items: &[(&str, &str)]) {
        let items: Vec<_> = items.iter().map(|(item, value)| (*item, Some(*value))).collect();
        self.build_waits(version).await;
        let build = self.claim("build_prices").await;
        self.put(&build, version, &items).await;
        self.publish(&build, version, items.len()).await;
    }

    /// Has two builds of view `shop/prices` begin: the first one makes `items` and is superseded by a touch, the second one takes those over of which
    /// `reuses` names the keys, and publishes `version`.
    pub(crate) async fn build_twice(&self, version: i64, items: &[(&str, &str)], reuses: &[&str]) {
        let items: Vec<_> = items.iter().map(|(item, value)| (*item, Some(*value))).collect();
        self.build_waits(version - 1).await;
        let build = self.claim("build_prices").await;
        self.put(&build, version - 1, &items).await;
        self.build_waits(version).await;
        let build = self.claim("build_prices").await;
        let reuses: Vec<_> = reuses.iter().map(|item| (*item, None)).collect();
        self.put(&build, version, &reuses).await;
        self.publish(&build, version, reuses.len()).await;
    }

    /// Begins a build and puts items; those without a value are taken over.
    async fn put(&self, build: &ClaimedJob, version: i64, items: &[(&str, Option<&str>)]) {
        let start = self.store.build_begin(build.token).await.expect("answered").expect("a good token");
        assert_eq!(start.version, version);
        let staged = items.iter().map(|(item, value)| StagedItem {
            item: (*item).to_owned(),
            fingerprint: None,
            value: value.map(str::to_owned),
        });
        let put = self.store.build_put(build.token, staged.collect()).await.expect("items are put");
        assert_eq!(put, None);
    }

    async fn publish(&self, build: &ClaimedJob, version: i64, items: usize) {
        self.clock.advance(Duration::from_millis(400));
        let count = u64::try_from(items).expect("few");
        let publication = Publication {
            version,
            items_total: count,
            items_computed: count,
            output: "null".to_owned(),
            ..Publication::default()
        };
        let published = self.store.build_publish(build.token, publication).await.expect("answered");
        assert!(matches!(published, recache_store::Published::Live { .. }), "{published:?}");
    }

    /// Touches view `shop/prices` and has its build queued.
    pub(crate) async fn build_waits(&self, version: i64) {
        assert_eq!(self.touch().await, version);
        self.clock.advance(Duration::from_secs(2));
        assert_eq!(self.store.views_reconcile(10).await.expect("reconciled").builds.len(), 1);
    }

    async fn claim(&self, handler: &str) -> ClaimedJob {
        // Only a session that is alive is given jobs, and this world's clock may have moved since.
        self.store
            .session_open(self.session, "test", Duration::from_secs(60))
            .await
            .expect("a session is opened or extended");
        let request = ClaimRequest {
            session: self.session,
            queues: vec!["default".to_owned(), "mail".to_owned()],
            handlers: vec![handler.to_owned()],
            rows_max: 1,
        };
        let mut claimed =
            self.store.jobs_dispatch(Vec::new(), Some(request)).await.expect("a claim is answered").claimed;
        claimed.pop().expect("the job is claimable")
    }

    async fn settle(&self, job: &ClaimedJob, outcome: Outcome) {
        let settlement = Settlement::of(job, outcome);
        self.store.jobs_dispatch(vec![settlement], None).await.expect("a settlement is answered");
    }
}

/// The id that a text names.
pub(crate) fn id(text: &str) -> JobId {
    text.parse().expect("an id")
}
