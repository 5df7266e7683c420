//! When all is quiet again: everything that was acknowledged is there, has ended well, and was done once; and nothing else is there.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{Acknowledged, Asked, Seen};
use crate::world::{completions, until};

/// An attempt that was taken from a node that had fallen silent.
#[derive(Debug)]
pub(crate) struct TakenAway {
    pub(crate) at: jiff::Timestamp,
    pub(crate) runs_again: jiff::Timestamp,
}

async fn get(node: SocketAddr, path: &str) -> Value {
    let text = until(path, async || {
        let answer = reqwest::get(format!("http://{node}{path}")).await.ok()?;
        answer.status().is_success().then_some(())?;
        answer.text().await.ok()
    })
    .await;
    serde_json::from_str(&text).unwrap()
}

/// The ids of everything on these pages.
async fn listed(node: SocketAddr, what: &str, path: &str) -> BTreeSet<String> {
    let (mut ids, mut cursor) = (BTreeSet::new(), String::new());
    loop {
        let page = get(node, &format!("{path}?limit=1000{cursor}")).await;
        for row in page[what].as_array().unwrap() {
            if row["workflow_id"].is_null() {
                ids.insert(row["id"].as_str().unwrap().to_owned());
            }
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

fn instant(value: &Value) -> jiff::Timestamp {
    value.as_str().expect("an instant").parse().unwrap()
}

/// 0 lost, 0 doubled, 0 errors that a client saw. Answers the attempts that were taken away.
pub(crate) async fn check(node: SocketAddr, seen: &Seen, complaints: &str) -> Vec<TakenAway> {
    let failed = seen.failed.lock().unwrap().clone();
    let acknowledged = seen.acknowledged.lock().unwrap().clone();
    let slowest = *seen.slowest.lock().unwrap();
    println!(
        "{} requests answered, {} repeated, the slowest took {slowest:?}",
        acknowledged.len(),
        seen.repeated.load(Ordering::Relaxed)
    );
    assert_eq!(failed, Vec::<String>::new(), "errors that a client saw");
    assert_eq!(complaints, "", "errors in the logs");

    let ids = |is_workflow: bool| -> BTreeSet<String> {
        let of_kind = acknowledged.iter().filter(|one| (one.asked == Asked::Workflow) == is_workflow);
        of_kind.map(|one| one.id.clone()).collect()
    };
    assert_eq!(ids(false).len() + ids(true).len(), acknowledged.len(), "each key has a thing of its own");
    let mut taken_away = Vec::new();
    for one in &acknowledged {
        taken_away.extend(ended_well(node, one).await);
    }
    assert!(
        listed(node, "jobs", "/v1/jobs").await == ids(false),
        "jobs that nobody, or somebody twice, asked for"
    );
    assert!(listed(node, "workflows", "/v1/workflows").await == ids(true), "workflows likewise");
    taken_away
}

async fn ended_well(node: SocketAddr, one: &Acknowledged) -> Vec<TakenAway> {
    if one.asked == Asked::Workflow {
        let path = format!("/v1/workflows/{}", one.id);
        until(&format!("{} has completed", one.id), async || {
            let details = get(node, &path).await;
            let state = details["workflow"]["state"].as_str().unwrap().to_owned();
            assert_ne!(state, "failed", "{details}");
            (state == "completed").then_some(())
        })
        .await;
        let steps = get(node, &format!("{path}/steps")).await;
        let mut taken_away = Vec::new();
        for step in steps["steps"].as_array().unwrap() {
            let details = get(node, &format!("/v1/jobs/{}", step["job_id"].as_str().unwrap())).await;
            taken_away.extend(once(&details));
        }
        return taken_away;
    }
    let details = until(&format!("{} has completed", one.id), async || {
        let details = get(node, &format!("/v1/jobs/{}", one.id)).await;
        let state = details["job"]["state"].as_str().unwrap().to_owned();
        assert_ne!(state, "failed", "{details}");
        (state == "completed").then_some(details)
    })
    .await;
    let output = &details["job"]["output"];
    match one.asked {
        Asked::Echo(number) => assert_eq!(output["input"], json!(number), "{details}"),
        Asked::Double(number) => assert_eq!(*output, json!(number * 2), "{details}"),
        Asked::Sleep | Asked::Workflow => {}
    }
    once(&details)
}

/// It has one outcome, its history has no gap, and each attempt that came to nothing says why.
fn once(details: &Value) -> Vec<TakenAway> {
    assert_eq!(completions(details), 1, "{details}");
    let history = details["history"].as_array().unwrap();
    for (before, after) in history.iter().zip(history.iter().skip(1)) {
        assert_eq!(before["to"], after["from"], "{details}");
    }
    let attempts = details["attempts"].as_array().unwrap();
    let mut taken_away = Vec::new();
    for (attempt, next) in attempts.iter().zip(attempts.iter().skip(1)) {
        if attempt["error"]["kind"] == "lease_lost" {
            taken_away.push(TakenAway {
                at: instant(&attempt["ended_at"]),
                runs_again: instant(&next["started_at"]),
            });
        }
    }
    taken_away
}

/// How long it took from each fault until what ran there ran elsewhere, and until it was taken away.
pub(crate) fn hand_overs(faults: &[jiff::Timestamp], taken_away: &[TakenAway]) -> Vec<(Duration, Duration)> {
    let mut found = Vec::new();
    for one in taken_away {
        let fault = faults.iter().rfind(|fault| **fault <= one.at).expect("something had happened");
        let since =
            |until: jiff::Timestamp| Duration::try_from(until.duration_since(*fault)).unwrap_or_default();
        found.push((since(one.at), since(one.runs_again)));
    }
    found.sort_unstable();
    found
}
