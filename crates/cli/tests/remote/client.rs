//! The typed client itself, where no command needs what it asks.

use std::fs;

use recache_api::client::{AuditQuery, Client, Options};
use recache_api::{Prioritize, Reschedule, TouchOne, TouchViews};

use super::{Served, text};

fn client(served: &Served) -> Client {
    Client::new(&served.url, Options::new(|| uuid::Uuid::new_v4().to_string())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn client_asks_what_no_command_asks() {
    let served = Served::start(&[]);
    let client = client(&served);
    let late = served.there(&["job", "submit", "echo", "--delay", "2h"]).ok();
    let late = late.trim();
    let sooner = Reschedule { delay_ms: Some(3_600_000), due_at: None, reason: Some("sooner".to_owned()) };
    let due = client.job(late, None).await.unwrap().job.due_at;
    assert!(client.reschedule_job(late, &sooner).await.unwrap().job.due_at.micros() < due.micros());
    let urgent = Prioritize { priority: 7, reason: None };
    assert_eq!(client.prioritize_job(late, &urgent).await.unwrap().job.priority, 7);
    let audit =
        client.audit(&AuditQuery { target: Some(late.to_owned()), ..AuditQuery::default() }).await.unwrap();
    let actions: Vec<&str> = audit.rows.iter().map(|row| row.action.as_str()).collect();
    assert_eq!(actions, ["jobs.prioritize", "jobs.reschedule"]);
    let workers = client.workers().await.unwrap().workers;
    assert!(
        !workers.is_empty() && workers.iter().all(|worker| !worker.is_remote),
        "the server's own: {workers:?}"
    );
    assert_eq!(client.health_details().await.unwrap().database.kind, "sqlite");

    for (version, step) in [("1.0.0", "one"), ("1.1.0", "two")] {
        let template = format!(
            "namespace: shop\nname: order\nversion: {version}\nsteps:\n  - name: {step}\n    handler: {{callable: none}}\n"
        );
        fs::write(served.folder.path().join("t.yaml"), template).unwrap();
        served.there(&["template", "apply", "t.yaml"]).ok();
    }
    assert_eq!(
        client.template_versions("shop", "order", Some(1)).await.unwrap().templates[0].version,
        "1.1.0"
    );
    assert_eq!(client.template_graph("shop", "order", Some("1.0.0")).await.unwrap().levels, [["one"]]);
    assert_eq!(client.template_diff("shop", "order", "1.0.0", None).await.unwrap().steps.len(), 2);
    let submitted = served.there(&["workflow", "submit", "shop/order", "-o", "json"]).json();
    let id = text(&submitted["id"]);
    assert_eq!(client.workflow_steps(id).await.unwrap().steps[0].name, "two");
    assert_eq!(client.workflow_timeline(id).await.unwrap().steps.len(), 1);
    for key in ["a", "b"] {
        served.there(&["view", "define", &format!("shop/{key}"), "--handler", "none"]).ok();
    }
    let views = ["a", "b"].map(|key| TouchOne {
        namespace: "shop".to_owned(),
        key: key.to_owned(),
        items: Vec::new(),
    });
    let touched = client.touch_views(&TouchViews { views: views.to_vec(), reason: None }).await.unwrap();
    assert_eq!(touched.views.iter().map(|one| one.recache_version).collect::<Vec<_>>(), [1, 1]);

    let shown = served.there(&["health"]).ok();
    assert!(shown.contains("ready, version") && shown.contains("WRITER"), "{shown}");
    assert_eq!(served.there(&["health", "-o", "json"]).json()["schema"], "recache.health-details.v1");
    served.here(&["health"]).refused(2, &["E-USAGE", "--database"]);
}
