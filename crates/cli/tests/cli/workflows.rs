//! `recache workflow` over both databases, with an engine beside it that runs the handlers.

use std::sync::Arc;
use std::time::Duration;

use recache_engine::{Engine, Options};
use recache_model::ids::WorkflowId;
use recache_model::template::Template;
use recache_model::workflow::WorkflowState;
use recache_store::conformance::{TestDatabase, postgres_database, sqlite_database};
use recache_store::{OpenOptions, Store, open};
use recache_worker::{Context, Failure, Handlers};
use serde_json::{Value, json};

use super::world::{Ran, recache, run};

const ORDER: &str = "
name: order
namespace: shop
version: 1.0.0
input_schema: { type: object, required: [id] }
steps:
  - { name: paid, wait_for: { signal: paid } }
  - { name: pack, handler: { callable: echo }, depends_on: [paid], wait_for: { approval: boss } }
  - { name: send, handler: { callable: broken }, depends_on: [pack] }
  - { name: gift, handler: { callable: echo }, depends_on: [paid], when: 'input.id > 100' }
  - { name: tell, handler: { callable: echo }, depends_on: [send] }
";

struct Shop {
    database: TestDatabase,
    store: Arc<dyn Store>,
    engine: Engine,
    folder: tempfile::TempDir,
}

impl Shop {
    async fn open(database: TestDatabase) -> Self {
        let store = open(&OpenOptions::new(database.url())).await.unwrap();
        let mut handlers = Handlers::new();
        handlers.job("echo", async |_: Context, input: Value| Ok(input)).unwrap();
        let broken = async |_: Context, _: Value| Err::<(), _>(Failure::permanent("broken", "it is broken"));
        handlers.job("broken", broken).unwrap();
        // Hints of another process do not reach an SQLite file's users.
        let options = Options { poll: Duration::from_millis(20), ..Options::default() };
        let engine =
            Engine::builder(Arc::clone(&store)).handlers(handlers).options(options).start().await.unwrap();
        engine.put_template(&Template::parse(ORDER, "order.yaml").unwrap()).await.unwrap();
        Self { database, store, engine, folder: tempfile::tempdir().unwrap() }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = recache(self.folder.path());
        run(command.env("RECACHE_DATABASE", self.database.url()).args(arguments))
    }

    async fn ends(&self, id: &str) -> WorkflowState {
        let id: WorkflowId = id.parse().unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(30), self.engine.wait_for_workflow(id));
        ended.await.expect("it ends in time").unwrap().state
    }

    async fn close(self) {
        self.engine.shut_down().await;
        self.store.close().await;
    }
}

fn step<'a>(shown: &'a Value, name: &str) -> &'a Value {
    shown["steps"].as_array().unwrap().iter().find(|step| step["name"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workflow_is_led_from_the_command_line_over_sqlite() {
    workflow_is_led_from_the_command_line(sqlite_database()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workflow_is_led_from_the_command_line_over_postgresql() {
    if let Some(database) = postgres_database().await {
        workflow_is_led_from_the_command_line(database).await;
    }
}

async fn workflow_is_led_from_the_command_line(database: TestDatabase) {
    let shop = Shop::open(database).await;
    shop.run(&["workflow", "submit", "shop/order"]).refused(1, &["input_schema", "id"]);
    shop.run(&["workflow", "submit", "shop/nothing"]).refused(3, &["shop/nothing"]);
    let submitted = shop.run(&["workflow", "submit", "shop/order", "--input", "{\"id\":7}", "-o", "json"]);
    let submitted = submitted.json();
    assert_eq!(submitted["schema"], "recache.workflow-change.v1");
    let id = submitted["id"].as_str().unwrap();

    let told = shop.run(&["workflow", "signal", id, "paid", "--payload", "{\"sum\":3}"]).expect(0);
    assert_eq!(told, format!("{id} was told\n"));
    let again = shop.run(&["workflow", "signal", id, "paid", "--payload", "{\"sum\":3}"]).expect(0);
    assert_eq!(again, format!("{id} was told that before\n"));
    shop.run(&["workflow", "signal", id, "paid", "--payload", "{\"sum\":4}"])
        .refused(5, &["another payload"]);
    shop.run(&["workflow", "approve", id, "boss", "--actor", "ann"]).expect(0);
    assert_eq!(shop.ends(id).await, WorkflowState::Failed);

    let shown = shop.run(&["workflow", "show", id, "-o", "json"]).json();
    assert_eq!(
        (&shown["schema"], &shown["workflow"]["state"]),
        (&json!("recache.workflow.v1"), &json!("failed"))
    );
    assert_eq!(step(&shown, "paid")["output"], json!({ "sum": 3 }));
    assert_eq!(step(&shown, "gift")["message"], "its condition is not met: input.id > 100");
    assert_eq!(step(&shown, "send")["error"]["code"], "broken");
    assert_eq!(shown["signals"][1]["actor"], "ann");
    let text = shop.run(&["workflow", "show", id]).expect(0);
    assert!(text.contains("its condition is not met") && text.contains("shop/order 1.0.0"), "{text}");
    let listed = shop.run(&["workflow", "list", "--state", "failed", "-o", "json"]).json();
    assert_eq!(
        listed["workflows"][0]["steps"],
        json!({ "blocked": 1, "active": 0, "done": 3, "failed": 1, "cancelled": 0 })
    );
    assert_eq!(shop.run(&["workflow", "list", "--template", "none"]).expect(0), "");

    let retried = shop.run(&["workflow", "retry", id, "--reason", "mended"]).expect(0);
    assert_eq!(retried, format!("{id}: 1 steps retried\n"));
    assert_eq!(shop.ends(id).await, WorkflowState::Failed);
    let resolved = shop.run(&["workflow", "resolve", id, "send", "--reason", "by hand", "--result", "1"]);
    assert_eq!(resolved.expect(0), format!("{id}: step `send` resolved\n"));
    assert_eq!(shop.ends(id).await, WorkflowState::Completed);
    shop.run(&["workflow", "signal", id, "late"]).refused(5, &["completed"]);
    shop.run(&["workflow", "resolve", id, "send", "--reason", "again"]).refused(5, &["resolved"]);

    let anew = shop.run(&["workflow", "retry", id, "--all", "--reason", "again", "-o", "json"]).json();
    let anew = anew["id"].as_str().unwrap();
    let completed = shop.run(&["workflow", "complete", anew, "paid", "--reason", "cash", "--result", "{}"]);
    assert_eq!(completed.expect(0), format!("{anew}: step `paid` completed\n"));
    let cancelled = shop.run(&["workflow", "cancel", anew, "--reason", "a test", "-o", "json"]).json();
    assert!(cancelled["count"].as_u64().unwrap() >= 3, "{cancelled}");
    assert_eq!(shop.ends(anew).await, WorkflowState::Cancelled);
    let unknown = WorkflowId::make().to_string();
    for verb in [vec!["show"], vec!["cancel"], vec!["retry", "--reason", "x"]] {
        let arguments = [vec!["workflow", verb[0], &unknown], verb[1..].to_vec()].concat();
        shop.run(&arguments).refused(3, &[&unknown]);
    }
    shop.close().await;
}
