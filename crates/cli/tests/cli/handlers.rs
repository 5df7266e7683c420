//! Which handlers there are: from templates, views and workers, as tables and as JSON.

use recache_model::handlers::HandlerOffer;
use recache_model::ids::SessionId;
use recache_model::template::Template;
use recache_store::TemplateRecord;

use super::world::World;

const ORDER: &str = "name: order\nnamespace: shop\nversion: 1.0.0\nsteps:\n  - { name: check, handler: { callable: check } }\n  \
                     - { name: charge, handler: { callable: charge }, depends_on: [check] }\n";

/// A template, and a worker that can do one of its two steps.
async fn world() -> World {
    let world = World::sqlite().await;
    let template = Template::parse(ORDER, "order.yaml").expect("a good template");
    let record = TemplateRecord {
        digest: template.digest().to_string(),
        namespace: "shop".to_owned(),
        name: "order".to_owned(),
        version: "1.0.0".to_owned(),
        content: template.canonical_json().to_owned(),
    };
    world.store.template_put(record, None).await.expect("stored");
    let session = SessionId::make();
    world.store.session_open(session, "till", std::time::Duration::from_secs(60)).await.expect("opened");
    let offer = |version: &str| HandlerOffer {
        name: "charge".to_owned(),
        version: Some(version.to_owned()),
        input_schema: Some(serde_json::json!({ "type": "object" })),
    };
    let queues = vec!["default".to_owned()];
    world
        .store
        .handler_offers()
        .handlers_offer(session, queues, 4, vec![offer("0.10.0")])
        .await
        .expect("offered");
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_are_listed_shown_and_drawn() {
    let world = world().await;
    let list = world.run(&["handler", "list", "--namespace", "shop", "-o", "json"]).json();
    let names: Vec<&str> =
        list["handlers"].as_array().expect("a list").iter().filter_map(|one| one["name"].as_str()).collect();
    assert!(names.contains(&"charge") && names.contains(&"check"), "{names:?}");
    assert_eq!(list["namespaces"], serde_json::json!(["shop"]));
    let text = world.run(&["handler", "list"]).expect(0);
    assert!(text.contains("shop/charge") && text.contains("0.10.0"), "{text}");

    let shown = world.run(&["handler", "show", "shop/charge", "-o", "json"]).json();
    assert_eq!(shown["handler"]["versions"][0]["input_schema"]["type"], "object");
    assert_eq!((&shown["follows"][0], &shown["workers"][0]["name"]), (&"check".into(), &"till".into()));
    let text = world.run(&["handler", "show", "shop/charge"]).expect(0);
    assert!(text.contains("order.charge") && text.contains("till"), "{text}");
    let unserved = world.run(&["handler", "show", "shop/check"]);
    assert!(unserved.err.contains("no worker offers it"), "{}", unserved.err);

    let drawn = world.run(&["handler", "graph", "--namespace", "shop"]).expect(0);
    assert!(drawn.contains("shop/check  (no worker)\n  -> charge in order\n"), "{drawn}");
    let drawn = world.run(&["handler", "graph", "--as", "mermaid"]).expect(0);
    assert!(drawn.starts_with("flowchart LR\n") && drawn.contains(" --> "), "{drawn}");
    let data = world.run(&["handler", "graph", "-o", "json"]).json();
    assert_eq!(data["edges"][0]["templates"], serde_json::json!(["order"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handler_that_is_not_there_is_refused_with_what_to_do() {
    let world = world().await;
    world.run(&["handler", "show", "shop/nobody"]).refused(3, &["E-NOT-FOUND", "recache handler list"]);
    world.run(&["handler", "show", "charge"]).refused(2, &["E-USAGE", "NAMESPACE/NAME"]);
    world.run(&["handler", "show", "*/charge"]).refused(3, &["E-NOT-FOUND"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lives_are_not_explained_where_none_are_chosen() {
    let world = world().await;
    let told = world.run(&["cache", "ttl", "explain", "-o", "json"]);
    assert!(told.err.contains("adaptive_ttl.enabled"), "{}", told.err);
    let document = told.json();
    assert_eq!((&document["enabled"], &document["classes"]), (&false.into(), &serde_json::json!([])));
}
