//! Databases for tests: an SQLite file in a throw-away folder, a PostgreSQL database of its own on the server that the
//! test command started.

use std::path::PathBuf;
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use uuid::Uuid;

/// Names the server; set by `cargo xtask test`.
pub const POSTGRES_VARIABLE: &str = "RECACHE_TEST_POSTGRES_URL";

/// Names a folder for what tests make once for all; set by `cargo xtask test`.
const SHARED_VARIABLE: &str = "RECACHE_TEST_SHARED";

/// A database that is removed when this is dropped.
#[derive(Debug)]
pub struct TestDatabase {
    url: String,
    folder: Option<PathBuf>,
    postgres: Option<(PgConnectOptions, String)>,
}

impl TestDatabase {
    /// What to open.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl TestDatabase {
    pub(super) async fn tamper(&self, sql: &'static str) {
        if self.postgres.is_some() {
            let mut hand = PgConnection::connect(&self.url).await.expect("the server can be reached");
            hand.execute("SET search_path TO recache").await.expect("the schema is there");
            hand.execute(sql).await.expect("the tables are changed");
            hand.close().await.expect("the connection closes");
        } else {
            let mut hand = SqliteConnection::connect(&self.url).await.expect("the file can be opened");
            hand.execute(sql).await.expect("the tables are changed");
            hand.close().await.expect("the connection closes");
        }
    }
}

/// A whole copy of a database, as a backup is one.
#[derive(Debug)]
pub struct Backup(());

impl TestDatabase {
    fn backup_file(folder: &std::path::Path) -> PathBuf {
        folder.join("backup.db")
    }

    /// Copies all of it, in place of the copy before. Nobody may have it open.
    pub async fn back_up(&self) -> Backup {
        if let Some(folder) = &self.folder {
            std::fs::copy(folder.join("test.db"), Self::backup_file(folder)).expect("the file is copied");
        } else {
            let (server, name) = self.postgres.as_ref().expect("it is one or the other");
            run(server, format!("CREATE DATABASE {name}_backup TEMPLATE {name}")).await;
        }
        Backup(())
    }

    /// Puts the copy back in place of what is there: whatever happened since never did. Nobody may have it open.
    pub async fn put_back(&self, _backup: &Backup) {
        if let Some(folder) = &self.folder {
            for rest in ["test.db-wal", "test.db-shm"] {
                let _ = std::fs::remove_file(folder.join(rest));
            }
            std::fs::copy(Self::backup_file(folder), folder.join("test.db")).expect("the file is put back");
        } else {
            let (server, name) = self.postgres.as_ref().expect("it is one or the other");
            run(server, format!("DROP DATABASE {name} WITH (FORCE)")).await;
            run(server, format!("CREATE DATABASE {name} TEMPLATE {name}_backup")).await;
        }
    }
}

async fn run(server: &PgConnectOptions, sql: String) {
    let mut hand = PgConnection::connect_with(server).await.expect("the server can be reached");
    hand.execute(AssertSqlSafe(sql)).await.expect("the server does it");
    hand.close().await.expect("the connection closes");
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
        if let Some((server, name)) = self.postgres.take() {
            // A runtime of its own: the test's may be gone or single-threaded.
            let _ = std::thread::spawn(move || {
                let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                    return;
                };
                runtime.block_on(async move {
                    if let Ok(mut server) = server.connect().await {
                        for name in [format!("{name}_backup"), name] {
                            let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                            let _ = server.execute(AssertSqlSafe(drop)).await;
                        }
                        let _ = server.close().await;
                    }
                });
            })
            .join();
        }
    }
}

/// An SQLite file, with the tables of this version and nothing in them where `cargo xtask test` says where to keep the file that all
/// others are copies of; otherwise it comes to be when it is opened.
pub fn sqlite_database() -> TestDatabase {
    let folder = std::env::temp_dir().join(format!("recache-test-{}", Uuid::new_v4().simple()));
    std::fs::create_dir_all(&folder).expect("a throw-away folder can be made");
    if let Some(shared) = std::env::var_os(SHARED_VARIABLE) {
        std::fs::copy(sqlite_template(&PathBuf::from(shared)), folder.join("test.db")).expect("it is copied");
    }
    TestDatabase {
        url: format!("sqlite:{}", folder.join("test.db").display()),
        folder: Some(folder),
        postgres: None,
    }
}

/// Made by whoever asks first, or by several at once, and put in its place when it is whole.
fn sqlite_template(shared: &std::path::Path) -> PathBuf {
    let template = shared.join(format!("template-{:x}.db", crate::sqlite::migrations_digest()));
    if !template.exists() {
        let unfinished = shared.join(format!("unfinished-{}.db", Uuid::new_v4().simple()));
        let url = format!("sqlite:{}", unfinished.display());
        // A runtime of its own: the caller may be within one.
        let made = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let store = crate::open(&crate::OpenOptions::new(url)).await;
                store.expect("the tables are made").close().await;
            });
        });
        made.join().expect("the template is made");
        std::fs::rename(unfinished, &template).expect("it is put in its place");
    }
    template
}

/// A PostgreSQL database with the tables of this version and nothing in them, or `None`, loudly, where no server was given. Under CI a
/// missing server is a failure.
pub async fn postgres_database() -> Option<TestDatabase> {
    let server = postgres_server()?;
    let template = template(&server).await;
    Some(database_of(server, &format!(" TEMPLATE {template}")).await)
}

/// The same without tables.
pub async fn empty_postgres_database() -> Option<TestDatabase> {
    Some(database_of(postgres_server()?, "").await)
}

fn postgres_server() -> Option<PgConnectOptions> {
    let Ok(server) = std::env::var(POSTGRES_VARIABLE) else {
        assert!(std::env::var_os("CI").is_none(), "{POSTGRES_VARIABLE} is not set: run `cargo xtask test`");
        eprintln!("SKIPPED: no PostgreSQL; {POSTGRES_VARIABLE} is not set (`cargo xtask test` starts one)");
        return None;
    };
    Some(PgConnectOptions::from_str(&server).expect("the server's URL can be read"))
}

async fn database_of(server: PgConnectOptions, like: &str) -> TestDatabase {
    let name = format!("recache_test_{}", Uuid::new_v4().simple());
    run(&server, format!("CREATE DATABASE {name}{like}")).await;
    let url = url_of(&server, &name);
    TestDatabase { url, folder: None, postgres: Some((server, name)) }
}

fn url_of(server: &PgConnectOptions, name: &str) -> String {
    server.clone().database(name).to_url_lossy().to_string()
}

/// The database that all others are copies of: dozens of migrations for each test would be half of the suite. Made by the first
/// process that asks, and kept for as long as the server is.
async fn template(server: &PgConnectOptions) -> String {
    let name = format!("recache_template_{:x}", crate::postgres::migrations_digest());
    let mut hand = PgConnection::connect_with(server).await.expect("the server can be reached");
    // Until this connection closes.
    hand.execute("SELECT pg_advisory_lock(7263163)").await.expect("the lock is taken");
    let known: Vec<_> = sqlx::query("SELECT 1 FROM pg_database WHERE datname = $1")
        .bind(&name)
        .fetch_all(&mut hand)
        .await
        .expect("databases are listed");
    if known.is_empty() {
        // Renamed when it is whole: whoever makes it may die.
        let unfinished = format!("{name}_unfinished");
        run(server, format!("DROP DATABASE IF EXISTS {unfinished} WITH (FORCE)")).await;
        run(server, format!("CREATE DATABASE {unfinished}")).await;
        let store = crate::open(&crate::OpenOptions::new(url_of(server, &unfinished))).await;
        store.expect("the tables are made").close().await;
        run(server, format!("ALTER DATABASE {unfinished} RENAME TO {name}")).await;
    }
    hand.close().await.expect("the connection closes");
    name
}
