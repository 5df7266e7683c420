//! The registry of handlers: one entry for each handler of each namespace that has to do with it.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test says what it expects")]

use std::time::Duration;

use recache_model::figures::{Ended, Kind, MinuteTotals, Series, Totals};
use recache_model::handlers::{
    ANY_NAMESPACE, HandlerOffer, HandlerUsers, Registry, StepUse, Worker, registry, steps_of,
};
use recache_model::ids::SessionId;
use recache_model::job::JobState;
use recache_model::template::Template;
use recache_model::time::Timestamp;
use serde_json::{Value, json};

fn worker(namespaces: Option<&[&str]>, handlers: &[(&str, Option<&str>, Option<Value>)]) -> Worker {
    Worker {
        session: SessionId::make(),
        name: "w".to_owned(),
        is_remote: false,
        handlers: handlers
            .iter()
            .map(|(name, version, input_schema)| HandlerOffer {
                name: (*name).to_owned(),
                version: version.map(str::to_owned),
                input_schema: input_schema.clone(),
            })
            .collect(),
        queues: vec!["default".to_owned()],
        slots: 1,
        namespaces: namespaces.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        started_at: Timestamp::default(),
        beat_at: Timestamp::default(),
        expires_at: Timestamp::default(),
    }
}

fn template(text: &str) -> Vec<StepUse> {
    steps_of(&Template::parse(text, "template.yaml").unwrap())
}

const ORDER: &str = "namespace: shop
name: order
version: 1.0.0
steps:
  - name: check
    handler: {callable: check}
  - name: hold
    dependencies: [check]
    wait_for: {signal: paid}
  - name: charge
    dependencies: [hold]
    handler: {callable: charge}
  - name: send
    dependencies: [check, charge]
    handler: {callable: mail.send, resolver: prefix}
";

fn names(registry: &Registry) -> Vec<(&str, &str)> {
    registry.entries.iter().map(|entry| (entry.namespace.as_str(), entry.name.as_str())).collect()
}

#[test]
fn steps_follow_each_other_past_those_that_have_no_handler() {
    let steps = template(ORDER);
    let told: Vec<(&str, &str, Vec<&str>)> = steps
        .iter()
        .map(|step| {
            (step.step.as_str(), step.handler.as_str(), step.follows.iter().map(String::as_str).collect())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("check", "check", vec![]),
            ("charge", "charge", vec!["check"]),
            ("send", "mail.*", vec!["charge", "check"])
        ]
    );
    let found = registry(Vec::new(), steps, Vec::new(), &[]);
    let edges: Vec<(&str, &str)> =
        found.follows.iter().map(|edge| (edge.before.as_str(), edge.after.as_str())).collect();
    assert_eq!(edges, [("charge", "mail.*"), ("check", "charge"), ("check", "mail.*")]);
    assert_eq!(found.follows[0].templates, ["order"]);
    let check = found.find("shop", "check").unwrap();
    assert_eq!(
        (check.precedes.as_slice(), check.follows.len()),
        (["charge".to_owned(), "mail.*".to_owned()].as_slice(), 0)
    );
    assert!(check.workers.is_empty(), "nobody offers it");
}

#[test]
fn versions_go_by_numbers_and_say_where_workers_disagree() {
    let (one, other) = (json!({ "type": "object" }), json!({ "type": "array" }));
    let workers = vec![
        worker(None, &[("charge", Some("0.9.0"), None)]),
        worker(None, &[("charge", Some("0.10.0"), Some(one.clone()))]),
        worker(None, &[("charge", Some("0.10.0"), Some(other))]),
        worker(None, &[("charge", Some("1.0.0-rc.1"), None)]),
        worker(None, &[("charge", None, None), ("charge", Some("7"), None)]),
    ];
    let found = registry(workers, Vec::new(), Vec::new(), &[]);
    assert_eq!(names(&found), [(ANY_NAMESPACE, "charge")], "no namespace is known to use it");
    let entry = &found.entries[0];
    let versions: Vec<(Option<&str>, u64, bool)> = entry
        .versions
        .iter()
        .map(|version| (version.version.as_deref(), version.workers, version.is_schema_disputed))
        .collect();
    assert_eq!(
        versions,
        [
            (Some("1.0.0-rc.1"), 1, false),
            (Some("0.10.0"), 2, true),
            (Some("0.9.0"), 1, false),
            (None, 1, false)
        ]
    );
    assert_eq!(entry.versions[1].input_schema, Some(one), "as the first says, who is the newest");
    assert_eq!(entry.newest.as_deref(), Some("0.10.0"), "a release comes before what is only tried out");
    assert_eq!(entry.workers, [0, 1, 2, 3, 4], "each once");
}

#[test]
fn namespace_sees_its_own_use_and_the_workers_that_may_have_its_jobs() {
    let workers = vec![
        worker(None, &[("check", None, None), ("idle", None, None)]),
        worker(Some(&["shop"]), &[("charge", None, None), ("check", None, None)]),
        worker(Some(&["bank"]), &[("check", None, None)]),
    ];
    let users = vec![HandlerUsers {
        namespace: "bank".to_owned(),
        handler: "report".to_owned(),
        views: 2,
        schedules: 1,
    }];
    let series = |namespace: &str, handler: &str, kind| Series {
        kind,
        namespace: namespace.to_owned(),
        template: String::new(),
        step: String::new(),
        handler: handler.to_owned(),
        queue: "default".to_owned(),
    };
    let minute = |minute, series, state, code: Option<&str>| {
        let mut totals = Totals::default();
        totals.add(&Ended {
            state,
            lasted: Duration::from_secs(3),
            ran: Some(Duration::from_secs(2)),
            waited: Some(Duration::from_secs(1)),
            code: code.map(str::to_owned),
        });
        MinuteTotals { minute, series, totals }
    };
    let minutes = [
        minute(1, series("shop", "charge", Kind::Step), JobState::Completed, None),
        minute(2, series("shop", "charge", Kind::Job), JobState::Failed, Some("declined")),
        minute(2, series("bank", "charge", Kind::Job), JobState::Completed, None),
        minute(2, series("shop", "", Kind::Workflow), JobState::Completed, None),
    ];
    let found = registry(workers, template(ORDER), users, &minutes);
    assert_eq!(
        names(&found),
        [
            ("*", "idle"),
            ("bank", "charge"),
            ("bank", "check"),
            ("bank", "report"),
            ("shop", "charge"),
            ("shop", "check"),
            ("shop", "mail.*")
        ]
    );
    let of = |namespace, name| found.find(namespace, name).unwrap();
    assert_eq!(of("shop", "check").workers, [0, 1]);
    assert_eq!(of("bank", "check").workers, [0, 2]);
    assert_eq!(of("bank", "charge").workers, [0_usize; 0], "its worker serves another namespace");
    assert_eq!((of("bank", "report").views, of("bank", "report").schedules), (2, 1));
    let charge = of("shop", "charge");
    assert_eq!((charge.executions, charge.error_rate), (2, Some(0.5)));
    assert_eq!(charge.codes, [("declined".to_owned(), 1)]);
    assert_eq!(
        (charge.run.mean, charge.wait.mean),
        (Some(Duration::from_secs(2)), Some(Duration::from_secs(1)))
    );
    assert_eq!(found.find("shop", "idle"), None);
    // It goes through the cache as JSON.
    let text = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Registry>(&text).unwrap(), found);
}
